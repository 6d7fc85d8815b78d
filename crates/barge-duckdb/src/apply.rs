//! Steps a batch at a time: one statement, and one before it where outcomes are wanted.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, Int64Builder, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type};
use arrow::util::display::array_value_to_string;
use barge_core::store::{Applied, Operation, Outcome, Step};
use barge_core::{Error, ErrorKind, Result};

use crate::connection::{Connection, ended};
use crate::convert::shortened;
use crate::findings::{Finding, first_failure};
use crate::journal::{AppliedStep, Entry, Journal};
use crate::plan::{Plan, Write};
use crate::raw::{BoundBatch, Failure, append};

impl Connection {
    /// Applies a step, whole or not at all. After an error the transaction is as before the step, or gone.
    pub(crate) fn apply(&mut self, step: &Step) -> Result<Applied> {
        let plan = self.plan(&step.target)?;
        let keys = self.draw(&plan, &step.batch)?;
        let rows = plan.fit(&step.batch, keys.as_ref())?;
        if self.may_wrongly_succeed(&plan, &rows) {
            let findings = self.findings(&plan, &rows)?;
            if findings.iter().any(|(_, finding)| matches!(finding, Finding::Depends)) {
                return self.apply_in_order(step);
            }
            if let Some(error) = first_failure(findings) {
                return Err(error);
            }
        }
        match self.apply_rows_whole(&plan, step, &rows, keys) {
            Ok(applied) => Ok(applied),
            Err(Refused::Failed(failure)) => Err(self.explain(&plan, &rows, failure)),
            Err(Refused::Other(error)) => {
                self.roll_back();
                Err(error)
            }
        }
    }

    /// Whether one statement over the rows may do what the rows, one after the other, would not. DuckDB takes a child whose parent was removed in the
    /// same transaction, and a row that a check refuses where its key is there already; and a statement's rows give and take unique values in any order.
    fn may_wrongly_succeed(&self, plan: &Plan, rows: &RecordBatch) -> bool {
        let lacks_parents = |journal: &Journal| journal.may_lack_parents(&plan.target);
        self.journal.as_ref().is_some_and(lacks_parents)
            || plan.skips_checks
            || (plan.moves_unique && rows.num_rows() > 1)
    }

    /// Applies a step whose rows depend on each other: by several statements, and none of them where a row fails.
    fn apply_in_order(&mut self, step: &Step) -> Result<Applied> {
        let before = self.journal.as_ref().map_or(0, Journal::len);
        let rows = self.apply_rows(step)?;
        let affected = |outcome: &Outcome| !matches!(outcome, Outcome::Unchanged | Outcome::NotFound);
        match rows.outcomes.into_iter().collect::<Result<Vec<Outcome>>>() {
            Ok(outcomes) => Ok(Applied {
                affected: outcomes.iter().filter(|outcome| affected(outcome)).count() as u64,
                outcomes: step.outcomes.then_some(outcomes),
                generated: rows.generated.filter(|_| step.outcomes),
                statements: rows.statements,
            }),
            Err(error) => {
                self.journal.iter_mut().for_each(|journal| journal.truncate(before));
                self.restore()?;
                Err(error)
            }
        }
    }

    /// Writes fitted rows and says what became of them. A failure has ended the transaction in DuckDB.
    pub(crate) fn apply_rows_whole(
        &mut self,
        plan: &Plan,
        step: &Step,
        rows: &RecordBatch,
        keys: Option<Int64Array>,
    ) -> Result<Applied, Refused> {
        // Nothing must be written outside a transaction.
        if !self.in_transaction() {
            return Err(ended().into());
        }
        let mut statements = 1;
        let matched = match &plan.matching {
            Some(matching) if step.outcomes => {
                statements += 1;
                Some(self.matched(plan, matching, rows)?)
            }
            _ => None,
        };
        let affected = self.write(plan, rows).map_err(Refused::Failed)?;
        let outcomes = step.outcomes.then(|| match &matched {
            Some(matched) => matched.iter().map(|&matched| plan.outcome(matched)).collect(),
            None => vec![plan.outcome(false); rows.num_rows()],
        });
        if let Some(journal) = &mut self.journal {
            let parts = vec![(step.batch.clone(), keys.clone())];
            journal.push(Entry::Step(AppliedStep {
                target: Arc::clone(&step.target),
                parts,
                affected,
                matched,
            }));
        }
        let generated = keys.filter(|_| step.outcomes);
        Ok(Applied { affected, outcomes, generated, statements })
    }

    /// Writes fitted rows, and says how many rows were changed.
    pub(crate) fn write(&self, plan: &Plan, rows: &RecordBatch) -> Result<u64, Failure> {
        let batch = Arc::new(BoundBatch::new(&self.handle, rows.clone())?);
        match &plan.write {
            Write::Append(place, columns) => {
                append(&self.handle, place, columns, &batch)?;
                Ok(rows.num_rows() as u64)
            }
            Write::Statement(sql) => self.try_execute(sql, Some(&batch)),
        }
    }

    /// Which rows' keys are in the table.
    pub(crate) fn matched(&mut self, plan: &Plan, matching: &str, rows: &RecordBatch) -> Result<Vec<bool>> {
        let keys = self.bind(plan.keys_with_ordinals(rows)?)?;
        let mut matched = vec![false; rows.num_rows()];
        for ordinal in self.integers(matching, Some(&keys))?.into_iter().flatten() {
            if let Some(matched) = usize::try_from(ordinal).ok().and_then(|row| matched.get_mut(row)) {
                *matched = true;
            }
        }
        Ok(matched)
    }

    /// The rows' keys where the database draws them: those given, and the sequence's next for NULL.
    pub(crate) fn draw(&mut self, plan: &Plan, batch: &RecordBatch) -> Result<Option<Int64Array>> {
        let Some(index) = plan.target.generated() else { return Ok(None) };
        let given = cast(batch.column(index), &DataType::Int64)?;
        if let Some((row, message)) = no_drawn_keys(batch.column(index), &given).next() {
            let error =
                Error::new(ErrorKind::InvalidValue, message).with_table(plan.target.table().to_string());
            return Err(error.with_column(plan.target.columns[index].name()).with_row(row as u64));
        }
        let given = given.as_primitive::<Int64Type>();
        if plan.target.operation != Operation::Insert || given.null_count() == 0 {
            return Ok(Some(given.clone()));
        }
        let default = plan.target.described(index).and_then(|described| described.default.as_deref());
        let default = default.unwrap_or("NULL");
        let drawn = self.integers(&format!("SELECT {default} FROM range({})", given.null_count()), None);
        let drawn = drawn.inspect_err(|_| self.roll_back())?;
        let mut drawn = drawn.into_iter().flatten();
        let mut keys = Int64Builder::with_capacity(given.len());
        for key in given {
            match key.or_else(|| drawn.next()) {
                Some(key) => keys.append_value(key),
                None => {
                    let message = format!("{default} gave fewer keys than it was asked for");
                    return Err(Error::new(ErrorKind::Statement, message));
                }
            }
        }
        Ok(Some(keys.finish()))
    }

    /// Draws a key that nobody gets. A transaction logs where a sequence stands only where it draws itself: else, after a crash, the keys that
    /// were drawn before it was done again would be drawn once more.
    pub(crate) fn draw_once(&mut self, plan: &Plan) -> Result<()> {
        let described = plan.target.generated().and_then(|index| plan.target.described(index));
        match described.and_then(|described| described.default.as_deref()) {
            Some(default) => self.integers(&format!("SELECT {default}"), None).map(drop),
            None => Ok(()),
        }
    }

    /// The error of a failed statement: which row and constraint, as far as it can be known. The transaction is restored, or gone.
    fn explain(&mut self, plan: &Plan, rows: &RecordBatch, failure: Failure) -> Error {
        let error = self.step_error(plan, failure);
        if let Err(lost) = self.restore() {
            return lost;
        }
        if !error.is_row() || !self.in_transaction() {
            return error;
        }
        match self.findings(plan, rows).map(first_failure) {
            Ok(Some(found)) => found,
            Ok(None) => refined(error),
            Err(lost) => lost,
        }
    }

    /// A failure as the error of a step on its table.
    pub(crate) fn step_error(&self, plan: &Plan, failure: Failure) -> Error {
        let error = self.error(failure);
        if error.kind() == ErrorKind::MissingTable && error.table().is_some() {
            return error;
        }
        error.with_table(plan.target.table().to_string())
    }
}

/// The rows whose given key has no place among those that a sequence may draw, as it was cast to them, and why.
pub(crate) fn no_drawn_keys(given: &ArrayRef, cast: &ArrayRef) -> impl Iterator<Item = (usize, String)> {
    let lost = (0..given.len()).filter(|&row| given.is_valid(row) && cast.is_null(row));
    lost.map(|row| {
        let value =
            array_value_to_string(given, row).map_or_else(|_| "the key".into(), |value| shortened(&value));
        (
            row,
            format!(
                "{value} is no key that a sequence could draw: they are 64-bit integers, up to {}",
                i64::MAX
            ),
        )
    })
}

/// A violation of which no row is to blame. DuckDB's indexes of foreign keys still show what the same transaction removed.
pub(crate) fn refined(error: Error) -> Error {
    if error.kind() == ErrorKind::ForeignKeyViolation && error.message().contains("still referenced") {
        let message = format!("DuckDB can't do this in one transaction: {}", error.message());
        return Error::new(ErrorKind::Unsupported, message).with_table(error.table().unwrap_or_default());
    }
    error
}

/// Why rows were not written.
pub(crate) enum Refused {
    /// DuckDB says so.
    Failed(Failure),
    Other(Error),
}

impl From<Error> for Refused {
    fn from(error: Error) -> Self {
        Refused::Other(error)
    }
}
