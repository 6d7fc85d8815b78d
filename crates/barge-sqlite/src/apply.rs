//! Steps on a connection: a batch at a time, or row by row.

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, Int64Builder, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type};
use barge_core::store::{Applied, AppliedRows, Operation, Outcome, Step, TableKind, Target};
use barge_core::{Error, ErrorKind, Result};
use libsqlite3_sys as ffi;

use crate::affinity::Affinity;
use crate::batch::{BoundBatch, Cells};
use crate::connection::Connection;
use crate::describe::creation_sql;
use crate::error::kind_of;
use crate::statement::{Failure, Statement, column_metadata};
use crate::statements;

/// Plans kept: one a target. When there are more, all are made anew.
const PLANS_MAX: usize = 256;

/// The plans of a connection, by the address of their target. A plan holds its target, so that no other takes the address.
#[derive(Default)]
pub(crate) struct Plans(HashMap<*const Target, Rc<Plan>>);

/// How a target's steps are run on a connection: its prepared statements and what decides their shape.
pub(crate) struct Plan {
    target: Arc<Target>,
    affinities: Vec<Affinity>,
    write: Statement,
    matching: Option<Statement>,
    /// Whether a failing statement may leave changes behind (`RAISE(FAIL)` in a trigger), so that it needs a savepoint.
    needs_savepoint: bool,
    has_triggers: bool,
    is_view: bool,
    /// Whether an update sets a column of a unique index. SQLite updates in the order of row ids, not of arrival, so that one
    /// row could take a value which a later one releases.
    moves_unique_values: bool,
    /// Whether keys never repeat, so that the next is not only above those in the table.
    autoincrement: bool,
}

impl Connection {
    /// Applies a step, whole or not at all, unless the transaction ends.
    pub(crate) fn apply(&mut self, step: &Step) -> Result<Applied> {
        let plan = self.plan(&step.target)?;
        if !plan.needs_savepoint {
            return self.apply_plan(&plan, step);
        }
        self.run("SAVEPOINT barge_step")?;
        let applied = self.apply_plan(&plan, step);
        self.end_savepoint("barge_step", applied.is_ok())?;
        applied
    }

    /// Applies a step row by row, leaving out the rows that fail. An error ends the transaction.
    pub(crate) fn apply_rows(&mut self, step: &Step) -> Result<AppliedRows> {
        let plan = self.plan(&step.target)?;
        let batch = plan.bind(&step.batch, None)?;
        let rows = self.rows(&plan, &batch, step, false);
        if rows.is_err() {
            // What failed is the database, not a row: the rows before it can't be undone alone.
            self.roll_back();
        }
        rows
    }

    fn apply_plan(&mut self, plan: &Rc<Plan>, step: &Step) -> Result<Applied> {
        let keys = match plan.target.generated() {
            Some(index) if step.outcomes => self.keys(plan, step.batch.column(index))?,
            _ => Keys::NotWanted,
        };
        // A trigger may keep a row out, and a view counts nothing: only row by row is it known which. Where the row ids are used up
        // only SQLite can draw a free one.
        let one_by_one = step.outcomes && (plan.has_triggers || plan.is_view)
            || matches!(keys, Keys::UsedUp)
            || plan.moves_unique_values && step.batch.num_rows() > 1;
        if one_by_one {
            let batch = plan.bind(&step.batch, None)?;
            return self.apply_one_by_one(plan, &batch, step);
        }
        let keys = if let Keys::Given(keys) = keys { Some(keys) } else { None };
        let batch = plan.bind(&step.batch, keys.as_ref())?;
        let rows = step.batch.num_rows();
        let mut statements = 1;
        let wants_match = step.outcomes || plan.is_view;
        let matched = match &plan.matching {
            Some(matching) if wants_match => {
                statements += 1;
                Some(self.matched(matching, &batch, rows)?)
            }
            _ => None,
        };
        if let Err(failure) = plan.write.run_over(&batch).finish() {
            return Err(self.step_error(plan, &batch, failure, None));
        }
        let affected = if plan.is_view {
            matched.as_ref().map_or(rows, |matched| matched.iter().filter(|matched| **matched).count()) as u64
        } else {
            self.changes()
        };
        let outcomes = step.outcomes.then(|| {
            let outcome = |row: usize| plan.outcome(matched.as_ref().is_some_and(|matched| matched[row]));
            (0..rows).map(outcome).collect()
        });
        Ok(Applied { affected, outcomes, generated: keys, statements })
    }

    /// Applies each row alone, and fails where one fails. The caller undoes the rows before it.
    fn apply_one_by_one(&mut self, plan: &Plan, batch: &Rc<BoundBatch>, step: &Step) -> Result<Applied> {
        let result = self.undone_on_error(plan, |connection| connection.rows(plan, batch, step, true))?;
        let outcomes = result.outcomes.into_iter().collect::<Result<Vec<Outcome>>>()?;
        let changed = |outcome: &&Outcome| !matches!(outcome, Outcome::Unchanged | Outcome::NotFound);
        Ok(Applied {
            affected: outcomes.iter().filter(changed).count() as u64,
            outcomes: Some(outcomes),
            generated: result.generated,
            statements: result.statements,
        })
    }

    /// Runs something in a savepoint, unless the step has one already.
    fn undone_on_error<T>(&mut self, plan: &Plan, run: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        if plan.needs_savepoint {
            return run(self);
        }
        self.run("SAVEPOINT barge_rows")?;
        let result = run(self);
        self.end_savepoint("barge_rows", result.is_ok())?;
        result
    }

    fn end_savepoint(&mut self, name: &str, keep: bool) -> Result<()> {
        if !self.in_transaction() {
            return Ok(());
        }
        if !keep {
            self.run(&format!("ROLLBACK TO {name}"))?;
        }
        self.run(&format!("RELEASE {name}"))
    }

    /// Applies each row alone, in order. With `all`, the first failing row ends it as an error.
    fn rows(&mut self, plan: &Plan, batch: &Rc<BoundBatch>, step: &Step, all: bool) -> Result<AppliedRows> {
        let rows = step.batch.num_rows();
        let mut outcomes = Vec::with_capacity(rows);
        let mut generated = match plan.target.generated() {
            Some(index) => {
                Some((cast(step.batch.column(index), &DataType::Int64)?, Int64Builder::with_capacity(rows)))
            }
            None => None,
        };
        let mut statements = 0;
        let (write, matching) = (&plan.write, plan.matching.as_ref().filter(|_| plan.matches_rows()));
        let bound = Bound::new(batch, [Some(write), matching]);
        for row in 0..rows {
            batch.show_row(row);
            let outcome = self.row(plan, write, matching, &mut statements);
            let outcome = match outcome {
                Ok(outcome) => Ok(outcome),
                Err(failure) => {
                    let error = self.step_error(plan, batch, failure, Some(row));
                    if all || !error.is_row() || !self.in_transaction() {
                        return Err(error);
                    }
                    Err(error)
                }
            };
            if let Some((given, keys)) = &mut generated {
                let given = given.as_primitive::<Int64Type>();
                match &outcome {
                    Err(_) | Ok(Outcome::NotFound) => keys.append_null(),
                    Ok(Outcome::Unchanged) if given.is_null(row) => keys.append_null(),
                    Ok(_) if given.is_null(row) => keys.append_value(self.last_insert_rowid()),
                    Ok(_) => keys.append_value(given.value(row)),
                }
            }
            outcomes.push(outcome);
        }
        drop(bound);
        let generated = generated.map(|(_, mut keys)| keys.finish());
        Ok(AppliedRows { outcomes, generated, statements })
    }

    /// Applies the row that the batch shows.
    fn row(
        &mut self,
        plan: &Plan,
        write: &Statement,
        matching: Option<&Statement>,
        statements: &mut u32,
    ) -> Result<Outcome, Failure> {
        *statements += 1 + u32::from(matching.is_some());
        let found = matching.map(Statement::step_and_keep).transpose()?;
        if plan.needs_savepoint && self.run("SAVEPOINT barge_row").is_err() {
            // SAFETY: the connection is open.
            return Err(unsafe { Failure::last(self.raw()) });
        }
        let written = write.step_and_keep();
        let changed = written.is_ok() && (self.changes() > 0 || plan.is_view);
        if plan.needs_savepoint
            && self.end_savepoint("barge_row", written.is_ok()).is_err()
            && written.is_ok()
        {
            // SAFETY: the connection is open.
            return Err(unsafe { Failure::last(self.raw()) });
        }
        written?;
        Ok(match (plan.target.operation, found, changed) {
            (Operation::Update | Operation::Delete, Some(false), _) => Outcome::NotFound,
            (Operation::Update | Operation::Delete, None, false) => Outcome::NotFound,
            (_, _, false) => Outcome::Unchanged,
            (_, found, true) => {
                plan.outcome(found.unwrap_or(plan.target.operation != Operation::InsertIfAbsent))
            }
        })
    }

    /// Which rows' keys are in the table.
    fn matched(&self, matching: &Statement, batch: &Rc<BoundBatch>, rows: usize) -> Result<Vec<bool>> {
        let mut matched = vec![false; rows];
        let mut run = matching.run_over(batch);
        while let Some(row) = run.next().map_err(|failure| self.error(failure))? {
            if let Some(matched) = usize::try_from(row.integer(0)).ok().and_then(|row| matched.get_mut(row)) {
                *matched = true;
            }
        }
        Ok(matched)
    }

    /// Rows that the last statement changed itself, without those its triggers and foreign keys changed.
    pub(crate) fn changes(&self) -> u64 {
        // SAFETY: the connection is open.
        u64::try_from(unsafe { ffi::sqlite3_changes64(self.raw()) }).unwrap_or(0)
    }

    fn last_insert_rowid(&self) -> i64 {
        // SAFETY: the connection is open.
        unsafe { ffi::sqlite3_last_insert_rowid(self.raw()) }
    }

    fn plan(&mut self, target: &Arc<Target>) -> Result<Rc<Plan>> {
        if let Some(plan) = self.plans.0.get(&Arc::as_ptr(target)) {
            return Ok(Rc::clone(plan));
        }
        let plan = Rc::new(Plan::new(self, target)?);
        if self.plans.0.len() >= PLANS_MAX {
            self.plans.0.clear();
        }
        self.plans.0.insert(Arc::as_ptr(target), Rc::clone(&plan));
        Ok(plan)
    }

    /// The rows' keys: those given, and the next ones of the table for NULL, each above all before it, as SQLite would draw them
    /// row by row. Nobody else can take them: the transaction holds the write lock.
    fn keys(&mut self, plan: &Plan, given: &ArrayRef) -> Result<Keys> {
        let given = cast(given, &DataType::Int64)?;
        let given = given.as_primitive::<Int64Type>();
        if plan.target.operation != Operation::Insert || given.null_count() == 0 {
            return Ok(Keys::Given(given.clone()));
        }
        if plan.has_triggers || plan.is_view {
            return Ok(Keys::NotWanted);
        }
        let mut last = self.last_key(plan)?;
        let mut keys = Int64Builder::with_capacity(given.len());
        for key in given {
            let key = match (key, last) {
                (Some(key), _) => key,
                (None, None) => 1,
                (None, Some(i64::MAX)) => return Ok(Keys::UsedUp),
                (None, Some(last)) => last + 1,
            };
            last = Some(last.map_or(key, |last| last.max(key)));
            keys.append_value(key);
        }
        Ok(Keys::Given(keys.finish()))
    }

    /// The highest key so far; `None` for a table that never had one.
    fn last_key(&mut self, plan: &Plan) -> Result<Option<i64>> {
        let table = plan.target.table();
        let column = plan.target.generated().map_or("rowid", |index| plan.target.columns[index].name());
        let column = barge_core::record::quote(column);
        let highest = self.integer(&format!("SELECT max({column}) FROM {}", table.quoted()))?;
        if !plan.autoincrement {
            return Ok(highest);
        }
        let schema = barge_core::record::quote(table.schema().unwrap_or("main"));
        let statement = self
            .statement(&format!("SELECT seq FROM {schema}.sqlite_sequence WHERE name = ?1 COLLATE NOCASE"))?;
        statement.bind_text(1, table.name());
        let mut run = statement.run();
        let row = run.next().map_err(|failure| self.error(failure))?;
        let drawn = row.map_or(0, |row| row.integer(0));
        Ok(Some(highest.map_or(drawn, |highest| highest.max(drawn))))
    }

    /// The error of a step: which row, column and constraint, as far as it can be known. `row` is given where one row was tried.
    fn step_error(
        &mut self,
        plan: &Plan,
        batch: &Rc<BoundBatch>,
        failure: Failure,
        row: Option<usize>,
    ) -> Error {
        let target = &plan.target;
        let mut error = if failure.primary() == ffi::SQLITE_ERROR && kind_of(&failure) == ErrorKind::Statement
        {
            // The statement is right, or it couldn't have been prepared: a value made a function fail in a CHECK, a generated
            // column or a trigger.
            let message = format!("the database can't work with the row's values: {}", failure.message);
            Error::new(ErrorKind::InvalidValue, message).with_code("SQLITE_ERROR").with_source(failure)
        } else {
            self.error(failure)
        };
        if !matches!(error.kind(), ErrorKind::MissingTable) {
            error = error.with_table(target.table().to_string());
        }
        let inserts =
            matches!(target.operation, Operation::Insert | Operation::InsertIfAbsent | Operation::Upsert);
        if error.kind() == ErrorKind::ForeignKeyViolation && self.in_transaction() {
            error = self.foreign_key_error(plan, batch, error, row.is_some());
        } else if error.is_row() && row.is_none() && inserts && !plan.has_triggers {
            // Rows go from the batch to the table one at a time, so the last one read is the one that failed.
            error = error.with_row(batch.last_row() as u64);
        }
        match row {
            Some(row) => error.with_row(row as u64),
            None => error,
        }
    }

    /// Names the foreign key that a step broke: SQLite doesn't say which.
    fn foreign_key_error(
        &mut self,
        plan: &Plan,
        batch: &Rc<BoundBatch>,
        error: Error,
        one_row: bool,
    ) -> Error {
        let description = &plan.target.description;
        if plan.target.operation == Operation::Delete {
            let children: Vec<String> =
                description.referenced_by.iter().map(|reference| reference.child.to_string()).collect();
            return match children.as_slice() {
                [] => error,
                children => error.context(format!("rows of {} still name the row", children.join(" or "))),
            };
        }
        for key in &description.foreign_keys {
            let places = key.columns.iter().map(|column| {
                plan.target.columns.iter().position(|own| own.name().eq_ignore_ascii_case(column))
            });
            let Some(places) = places.collect::<Option<Vec<_>>>() else { continue };
            let named = |error: Error| {
                let error = error
                    .context(format!("{} has no such row", key.parent))
                    .with_column(key.columns.join(", "));
                match &key.name {
                    Some(name) => error.with_constraint(name),
                    None => error,
                }
            };
            // A row's parent may be in the same batch, which isn't in the table any more.
            let own_parent = key.parent.name().eq_ignore_ascii_case(description.name.name());
            if own_parent && !one_row {
                if description.foreign_keys.len() == 1 {
                    return named(error);
                }
                continue;
            }
            if let Ok(Some(ordinal)) = self.orphan(plan, key, &places, batch) {
                return named(error).with_row(ordinal as u64);
            }
        }
        error
    }

    fn orphan(
        &mut self,
        plan: &Plan,
        key: &barge_core::store::ForeignKey,
        places: &[usize],
        batch: &Rc<BoundBatch>,
    ) -> Result<Option<i64>> {
        let parent = match (key.parent.schema(), plan.target.table().schema()) {
            (None, Some(schema)) => barge_core::TableName::in_schema(schema, key.parent.name()).quoted(),
            _ => key.parent.quoted(),
        };
        let table = self.batch_table(plan.target.columns.len())?;
        let sql = statements::orphans(&parent, &key.parent_columns, places, &table);
        let statement = self.statement(&sql)?;
        let mut run = statement.run_over(batch);
        let row = run.next().map_err(|failure| self.error(failure))?;
        Ok(row.map(|row| row.integer(0)))
    }
}

fn moves_unique_values(target: &Target) -> bool {
    let assigned = |column: &Option<String>| match column {
        Some(column) => {
            target.assigned().any(|index| target.columns[index].name().eq_ignore_ascii_case(column))
        }
        // An expression may look at any column.
        None => true,
    };
    target.operation == Operation::Update
        && target.description.unique.iter().any(|unique| unique.columns.iter().any(assigned))
}

/// The keys that a step's rows get.
enum Keys {
    /// SQLite may draw them, nobody asks which.
    NotWanted,
    Given(Int64Array),
    /// The highest key there can be is taken.
    UsedUp,
}

/// Binds a batch to statements for many runs, and lets go of it when dropped.
struct Bound<'s>([Option<&'s Statement>; 2]);

impl<'s> Bound<'s> {
    fn new(batch: &Rc<BoundBatch>, statements: [Option<&'s Statement>; 2]) -> Self {
        statements.iter().flatten().for_each(|statement| statement.bind_batch(batch));
        Bound(statements)
    }
}

impl Drop for Bound<'_> {
    fn drop(&mut self) {
        self.0.iter().flatten().for_each(|statement| statement.release());
    }
}

impl Plan {
    fn new(connection: &mut Connection, target: &Arc<Target>) -> Result<Self> {
        let description = &target.description;
        let named = |error: Error| error.with_table(target.table().to_string());
        let generated = target.generated().map(|index| &target.columns[index]);
        if let Some(column) = generated
            && !description.column(column.name()).is_some_and(|described| described.identity)
        {
            let message = "only an INTEGER PRIMARY KEY draws keys on SQLite, and this column is none";
            return Err(named(Error::new(ErrorKind::Unsupported, message).with_column(column.name())));
        }
        let has_triggers = !description.triggers.is_empty();
        // OR ABORT would also overrule the conflict clauses inside the table's triggers, such as INSERT OR IGNORE. So with triggers it is
        // said only where the table has a conflict clause of its own.
        let or_abort = !has_triggers || {
            let sql = creation_sql(&connection.inner, target.table()).unwrap_or_default();
            sql.to_ascii_uppercase().contains("ON CONFLICT")
        };
        let rowid =
            if target.operation == Operation::Delete { connection.rowid_name(description) } else { None };
        let batch = connection.batch_table(target.columns.len())?;
        let write = connection.prepare(&statements::write(target, &batch, or_abort, rowid)).map_err(named)?;
        let matching = match target.operation {
            Operation::Insert => None,
            _ => Some(connection.prepare(&statements::matching(target, &batch)).map_err(named)?),
        };
        let autoincrement = generated.is_some_and(|column| {
            let table = target.table();
            // SAFETY: the connection is open.
            let metadata = unsafe {
                column_metadata(
                    connection.raw(),
                    table.schema().unwrap_or("main"),
                    table.name(),
                    column.name(),
                )
            };
            metadata.is_some_and(|(_, autoincrement)| autoincrement)
        });
        let cascades = description.referenced_by.iter().any(|reference| {
            reference.on_delete != barge_core::store::Action::Refuse
                || reference.on_update != barge_core::store::Action::Refuse
        });
        Ok(Plan {
            affinities: affinities(target),
            write,
            matching,
            needs_savepoint: has_triggers
                || (cascades && matches!(target.operation, Operation::Delete | Operation::Update)),
            has_triggers,
            is_view: description.kind == TableKind::View,
            moves_unique_values: moves_unique_values(&target),
            autoincrement,
            target: Arc::clone(target),
        })
    }

    /// The batch as the plan's statements read it, with other keys where they were drawn.
    fn bind(&self, batch: &RecordBatch, keys: Option<&Int64Array>) -> Result<Rc<BoundBatch>> {
        let key = keys.and_then(|keys| Some((self.target.generated()?, Arc::new(keys.clone()) as ArrayRef)));
        let fields = self.target.columns.iter().zip(batch.columns()).enumerate();
        let columns = fields.map(|(index, (column, array))| {
            let array = match &key {
                Some((place, keys)) if *place == index => keys,
                _ => array,
            };
            Cells::new(&column.field, array, self.affinities[index])
                .map_err(|error| error.with_table(self.target.table().to_string()))
        });
        Ok(Rc::new(BoundBatch::new(columns.collect::<Result<Vec<_>>>()?, batch.num_rows())))
    }

    /// Whether row by row needs to know if the key was there before the row: where the number of changes doesn't tell.
    fn matches_rows(&self) -> bool {
        match self.target.operation {
            Operation::Insert | Operation::InsertIfAbsent => false,
            Operation::Upsert => true,
            Operation::Update | Operation::Delete => self.has_triggers || self.is_view,
        }
    }

    /// What became of a row that the statement reached.
    fn outcome(&self, matched: bool) -> Outcome {
        match (self.target.operation, matched) {
            (Operation::Insert, _) | (Operation::InsertIfAbsent | Operation::Upsert, false) => {
                Outcome::Inserted
            }
            (Operation::InsertIfAbsent, true) => Outcome::Unchanged,
            (Operation::Upsert, true) if self.target.assigned().next().is_none() => Outcome::Unchanged,
            (Operation::Upsert | Operation::Update, true) => Outcome::Updated,
            (Operation::Delete, true) => Outcome::Deleted,
            (Operation::Update | Operation::Delete, false) => Outcome::NotFound,
        }
    }
}

/// The affinities of a target's columns.
pub(crate) fn affinities(target: &Target) -> Vec<Affinity> {
    let declared = |index| target.described(index).map_or("", |described| &described.declared_type);
    (0..target.columns.len()).map(|index| Affinity::of(declared(index))).collect()
}
