//! Steps on a connection: a batch at a time, or row by row.

use std::rc::Rc;

use arrow::array::{Array, ArrayRef, AsArray, Int64Array, Int64Builder};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type};
use barge_core::Result;
use barge_core::store::{Applied, Operation, Step};
use libsqlite3_sys as ffi;

use crate::batch::BoundBatch;
use crate::connection::Connection;
use crate::plan::Plan;
use crate::statement::Statement;

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

    fn apply_plan(&mut self, plan: &Rc<Plan>, step: &Step) -> Result<Applied> {
        let rows = step.batch.num_rows();
        // A trigger may keep a row out, and a view counts nothing: only row by row is it known which.
        let tells_rows = plan.has_triggers || plan.is_view;
        let write = match &plan.write {
            Some(write) if rows > 1 && !(step.outcomes && tells_rows) => write,
            _ => return self.apply_one_by_one(plan, &plan.bind(&step.batch, None)?, step),
        };
        let keys = match plan.target.generated() {
            Some(index) if step.outcomes => match self.keys(plan, step.batch.column(index))? {
                Some(keys) => Some(keys),
                // Where the row ids are used up only SQLite can find a free one.
                None => return self.apply_one_by_one(plan, &plan.bind(&step.batch, None)?, step),
            },
            _ => None,
        };
        let batch = plan.bind(&step.batch, keys.as_ref())?;
        let mut statements = 1;
        let wants_match = step.outcomes || plan.is_view;
        let matched = match &plan.matching {
            Some(matching) if wants_match => {
                statements += 1;
                Some(self.matched(matching, &batch, rows)?)
            }
            _ => None,
        };
        if let Err(failure) = write.run_over(&batch).finish() {
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

    pub(crate) fn end_savepoint(&mut self, name: &str, keep: bool) -> Result<()> {
        if !self.in_transaction() {
            return Ok(());
        }
        if !keep {
            self.run(&format!("ROLLBACK TO {name}"))?;
        }
        self.run(&format!("RELEASE {name}"))
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

    /// The rows' keys: those given, and the next ones of the table for NULL, each above all before it, as SQLite would draw them
    /// row by row; `None` once the highest is taken. Nobody else can take them: the transaction holds the write lock.
    fn keys(&mut self, plan: &Plan, given: &ArrayRef) -> Result<Option<Int64Array>> {
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
}
