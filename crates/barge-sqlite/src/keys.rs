//! The keys that SQLite draws: which they will be, before it draws them.

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, Int64Builder};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type};
use barge_core::record::quote;
use barge_core::store::{Operation, Step};
use barge_core::{Error, ErrorKind, Result};

use crate::connection::Connection;
use crate::plan::Plan;
use crate::statement::Statement;

impl Connection {
    /// The rows' keys: those given, and the next ones of the table for NULL, each above all before it, as SQLite would draw them
    /// row by row; `None` once the highest is taken. Nobody else can take them: the transaction holds the write lock.
    pub(crate) fn keys(&mut self, plan: &Plan, given: &ArrayRef) -> Result<Option<Int64Array>> {
        let given = cast(given, &DataType::Int64)?;
        let given = given.as_primitive::<Int64Type>();
        if plan.target.operation != Operation::Insert || given.null_count() == 0 {
            return Ok(Some(given.clone()));
        }
        let mut last = self.last_key(plan)?;
        let mut keys = Int64Builder::with_capacity(given.len());
        for key in given {
            let key = match (key, last) {
                (Some(key), _) => key,
                (None, None) => 1,
                (None, Some(i64::MAX)) => return Ok(None),
                (None, Some(last)) => last + 1,
            };
            last = Some(last.map_or(key, |last| last.max(key)));
            keys.append_value(key);
        }
        Ok(Some(keys.finish()))
    }

    /// The statement that leaves the keys of an insert to SQLite, with the last of them, where it draws exactly the keys that
    /// the rows have: those that continue the table's. SQLite then searches no place for each row; it appends.
    pub(crate) fn append<'p>(
        &mut self,
        plan: &'p Plan,
        step: &Step,
        drawn: Option<&Int64Array>,
    ) -> Result<Option<(&'p Statement, i64)>> {
        let Some((append, place)) = plan.append.as_ref().zip(plan.identity) else { return Ok(None) };
        let given = step.batch.column(place).as_primitive_opt::<Int64Type>();
        let Some(keys) = drawn.or(given).filter(|keys| keys.null_count() == 0) else { return Ok(None) };
        let (Some(first), Some(last)) = (keys.values().first(), keys.values().last()) else {
            return Ok(None);
        };
        let consecutive = |pair: &[i64]| pair[0].wrapping_add(1) == pair[1];
        // Without the check of the ends a wrap at the highest integer would pass.
        if first > last || !keys.values().windows(2).all(consecutive) {
            return Ok(None);
        }
        let next = match self.last_key(plan)? {
            Some(highest) => highest.checked_add(1),
            None => Some(1),
        };
        Ok((next == Some(*first)).then_some((append, *last)))
    }

    /// Holds the last key that SQLite drew against the one that the last row has. Were they ever to differ, nothing may be kept.
    pub(crate) fn check_drawn(&mut self, expected: i64) -> Result<()> {
        let drawn = self.last_insert_rowid();
        if drawn == expected {
            return Ok(());
        }
        self.roll_back();
        let message = format!("SQLite drew the key {drawn} for the row with the key {expected}: rolled back");
        Err(Error::new(ErrorKind::Statement, message))
    }

    /// The highest key so far; `None` for a table that never had one.
    fn last_key(&mut self, plan: &Plan) -> Result<Option<i64>> {
        let table = plan.target.table();
        let column = plan.identity.map_or("rowid", |place| plan.target.columns[place].name());
        let column = quote(column);
        let highest = self.integer(&format!("SELECT max({column}) FROM {}", table.quoted()))?;
        if !plan.autoincrement {
            return Ok(highest);
        }
        let schema = quote(table.schema().unwrap_or("main"));
        let statement = self
            .statement(&format!("SELECT seq FROM {schema}.sqlite_sequence WHERE name = ?1 COLLATE NOCASE"))?;
        statement.bind_text(1, table.name());
        let mut run = statement.run();
        let row = run.next().map_err(|failure| self.error(failure))?;
        let drawn = row.map_or(0, |row| row.integer(0));
        Ok(Some(highest.map_or(drawn, |highest| highest.max(drawn))))
    }
}
