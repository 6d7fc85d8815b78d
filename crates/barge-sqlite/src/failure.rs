//! Which row, column and constraint a failed step speaks of.

use std::rc::Rc;

use barge_core::store::{ForeignKey, Operation};
use barge_core::{Error, ErrorKind, Result, TableName};
use libsqlite3_sys as ffi;

use crate::batch::BoundBatch;
use crate::connection::Connection;
use crate::error::kind_of;
use crate::plan::Plan;
use crate::statement::Failure;
use crate::statements;

impl Connection {
    /// The error of a step: which row, column and constraint, as far as it can be known. `row` is given where one row was tried.
    pub(crate) fn step_error(
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
        let error = match row {
            Some(row) => error.with_row(row as u64),
            None => error,
        };
        with_value(plan, batch, error)
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
            let named = |error: Error, row: Option<usize>| {
                let missing = match row {
                    Some(row) => format!(
                        "{} has no row with {} {}",
                        key.parent,
                        key.parent_columns.join(", "),
                        batch.shown(&places, row)
                    ),
                    None => format!("{} has no such row", key.parent),
                };
                let error = error.context(missing).with_column(key.columns.join(", "));
                match &key.name {
                    Some(name) => error.with_constraint(name),
                    None => error,
                }
            };
            // A row's parent may be in the same batch, which isn't in the table any more.
            let own_parent = key.parent.name().eq_ignore_ascii_case(description.name.name());
            if own_parent && !one_row {
                if description.foreign_keys.len() == 1 {
                    return named(error, None);
                }
                continue;
            }
            if let Ok(Some(ordinal)) = self.orphan(plan, key, &places, batch) {
                return named(error, usize::try_from(ordinal).ok()).with_row(ordinal as u64);
            }
        }
        error
    }

    fn orphan(
        &mut self,
        plan: &Plan,
        key: &ForeignKey,
        places: &[usize],
        batch: &Rc<BoundBatch>,
    ) -> Result<Option<i64>> {
        let parent = match (key.parent.schema(), plan.target.table().schema()) {
            (None, Some(schema)) => TableName::in_schema(schema, key.parent.name()).quoted(),
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

/// Says which value is there already, where the row and the columns are known.
fn with_value(plan: &Plan, batch: &BoundBatch, error: Error) -> Error {
    let place =
        |name: &str| plan.target.columns.iter().position(|column| column.name().eq_ignore_ascii_case(name));
    let places =
        error.column().and_then(|columns| columns.split(", ").map(place).collect::<Option<Vec<usize>>>());
    match (error.kind(), error.row(), places) {
        (ErrorKind::UniqueViolation, Some(row), Some(places)) => {
            let value = batch.shown(&places, row as usize);
            error.context(format!("{value} is there already"))
        }
        _ => error,
    }
}
