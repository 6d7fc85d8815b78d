//! Steps row by row: one prepared statement a row, its cells bound in place.
//!
//! So go the rows of a batch in which some fail, tables with triggers where outcomes are wanted, steps of one row, and all updates.

use std::rc::Rc;

use arrow::array::{Array, AsArray, Int64Array, Int64Builder};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type};
use barge_core::Result;
use barge_core::store::{Applied, AppliedRows, Operation, Outcome, Step};
use libsqlite3_sys as ffi;

use crate::batch::BoundBatch;
use crate::connection::Connection;
use crate::plan::{Plan, RowStatements};
use crate::statement::Failure;

/// What rows did, one by one.
struct Rows {
    outcomes: Vec<Result<Outcome>>,
    generated: Option<Int64Array>,
    affected: u64,
    statements: u32,
}

/// What to do with a row that fails.
#[derive(Clone, Copy, PartialEq)]
enum Failing {
    /// The step fails; the caller undoes the rows before it.
    EndsTheStep,
    /// It is left out, and leaves nothing behind.
    IsLeftOut,
}

impl Connection {
    /// Applies a step row by row, leaving out the rows that fail. An error ends the transaction.
    pub(crate) fn apply_rows(&mut self, step: &Step) -> Result<AppliedRows> {
        let plan = self.plan(&step.target)?;
        let batch = plan.bind(&step.batch)?;
        match self.rows(&plan, &batch, step, Failing::IsLeftOut) {
            Ok(Rows { outcomes, generated, statements, .. }) => {
                Ok(AppliedRows { outcomes, generated, statements })
            }
            Err(error) => {
                // What failed is the database, not a row: the rows before it can't be undone alone.
                self.roll_back();
                Err(error)
            }
        }
    }

    /// Applies each row alone, and none where one fails.
    pub(crate) fn apply_one_by_one(
        &mut self,
        plan: &Plan,
        batch: &Rc<BoundBatch>,
        step: &Step,
    ) -> Result<Applied> {
        let rows = self.rows(plan, batch, step, Failing::EndsTheStep);
        let Rows { outcomes, generated, affected, statements } = rows?;
        let outcomes = batch.by_row(outcomes.into_iter().collect::<Result<Vec<Outcome>>>()?);
        Ok(Applied {
            affected,
            outcomes: step.outcomes.then_some(outcomes),
            generated: generated.filter(|_| step.outcomes),
            statements,
        })
    }

    fn rows(&mut self, plan: &Plan, batch: &Rc<BoundBatch>, step: &Step, failing: Failing) -> Result<Rows> {
        let given = match plan.target.generated() {
            Some(index) => Some(cast(step.batch.column(index), &DataType::Int64)?),
            None => None,
        };
        let given = given.as_ref().map(|given| given.as_primitive::<Int64Type>());
        let mut keys = given.map(|given| Int64Builder::with_capacity(given.len()));
        let row_statements = plan.row_statements(self)?;
        let _bound = Bound(row_statements);
        let mut rows = Rows {
            outcomes: Vec::with_capacity(step.batch.num_rows()),
            generated: None,
            affected: 0,
            statements: 0,
        };
        let (watched, whom) = self.nearly_done(step.batch.num_rows()).unzip();
        for position in 0..step.batch.num_rows() {
            let row = batch.row_at(position);
            if watched == Some(position) {
                whom.iter().for_each(|whom| whom.notify_one());
            }
            rows.statements += 1 + u32::from(row_statements.matching.is_some());
            let outcome = match self.row(plan, row_statements, batch, row, failing) {
                Ok((outcome, affected)) => {
                    rows.affected += affected;
                    Ok(outcome)
                }
                Err(failure) => {
                    batch.show_position(position);
                    let error = self.step_error(plan, batch, failure, Some(row));
                    if failing == Failing::EndsTheStep || !error.is_row() || !self.in_transaction() {
                        return Err(error);
                    }
                    Err(error)
                }
            };
            if let (Some(given), Some(keys)) = (given, &mut keys) {
                keys.append_option(match &outcome {
                    Err(_) | Ok(Outcome::NotFound) => None,
                    Ok(_) if given.is_valid(row) => Some(given.value(row)),
                    Ok(Outcome::Unchanged) => None,
                    Ok(_) => Some(self.last_insert_rowid()),
                });
            }
            rows.outcomes.push(outcome);
        }
        rows.generated = keys.map(|mut keys| keys.finish());
        Ok(rows)
    }

    /// Applies one row: what became of it, and how many rows it changed.
    fn row(
        &mut self,
        plan: &Plan,
        statements: &RowStatements,
        batch: &Rc<BoundBatch>,
        row: usize,
        failing: Failing,
    ) -> Result<(Outcome, u64), Failure> {
        let found = match &statements.matching {
            Some(matching) => {
                // SAFETY: the caller holds the batch and releases the statements before it lets go.
                unsafe { matching.bind_row(batch, &plan.target.key, row) };
                Some(matching.step_and_keep()?)
            }
            None => None,
        };
        // A trigger's RAISE(FAIL) leaves behind what was done before it.
        let savepoint = (plan.needs_savepoint || self.checks_deferred) && failing == Failing::IsLeftOut;
        if savepoint {
            self.savepoint_for_row("SAVEPOINT barge_row")?;
        }
        // SAFETY: as above.
        unsafe { statements.write.bind_row(batch, &statements.places, row) };
        let mut written = statements.write.step_and_keep();
        if written.is_ok() && savepoint && self.breaks_deferred() {
            let message = "FOREIGN KEY constraint failed".to_owned();
            written = Err(Failure { code: ffi::SQLITE_CONSTRAINT_FOREIGNKEY, message });
        }
        let changes = if written.is_ok() { self.changes() } else { 0 };
        if savepoint && self.in_transaction() {
            if written.is_err() {
                self.savepoint_for_row("ROLLBACK TO barge_row")?;
            }
            self.savepoint_for_row("RELEASE barge_row")?;
        }
        written?;
        // A view counts no changes.
        let missed = found == Some(false);
        let changed = changes > 0 || (plan.is_view && !(missed && plan.only_changes()));
        let affected = if plan.is_view { changed.into() } else { changes };
        let outcome = match (plan.only_changes(), found, changed) {
            (true, Some(false), _) | (true, None, false) => Outcome::NotFound,
            (_, _, false) => Outcome::Unchanged,
            (true, _, true) => plan.outcome(true),
            (false, found, true) => plan.outcome(found.unwrap_or(false)),
        };
        Ok((outcome, affected))
    }

    fn savepoint_for_row(&mut self, sql: &str) -> Result<(), Failure> {
        // SAFETY: the connection is open.
        self.run(sql).map_err(|_| unsafe { Failure::last(self.raw()) })
    }

    pub(crate) fn last_insert_rowid(&self) -> i64 {
        // SAFETY: the connection is open.
        unsafe { ffi::sqlite3_last_insert_rowid(self.raw()) }
    }
}

/// Lets go of what rows bound. The batch outlives it: whoever binds holds the batch.
struct Bound<'s>(&'s RowStatements);

impl Drop for Bound<'_> {
    fn drop(&mut self) {
        self.0.write.release();
        if let Some(matching) = &self.0.matching {
            matching.release();
        }
    }
}

impl Plan {
    /// Whether the operation makes no new rows: what it doesn't find, it leaves.
    fn only_changes(&self) -> bool {
        matches!(self.target.operation, Operation::Update | Operation::Delete)
    }
}
