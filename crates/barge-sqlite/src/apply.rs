//! Steps a batch at a time: one statement, and one before it where outcomes are wanted.

use std::rc::Rc;
use std::sync::Arc;

use barge_core::store::{Applied, Operation, Step};
use barge_core::{Error, ErrorKind, Result};
use libsqlite3_sys as ffi;
use tokio::sync::Notify;

use crate::batch::BoundBatch;
use crate::connection::Connection;
use crate::plan::Plan;
use crate::statement::Statement;

/// How a step that fails is undone.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Undo {
    /// By itself: the transaction goes on.
    Alone,
    /// With the whole transaction, by the caller.
    WithTheTransaction,
}

/// How many rows before a batch's end the caller is told that it is nearly done: the work on so many takes about as long as
/// waking a thread.
pub(crate) const ROWS_AHEAD: usize = 100;

impl Connection {
    /// Applies a step, whole or not at all, unless the transaction ends.
    pub(crate) fn apply(&mut self, step: &Step, undo: Undo) -> Result<Applied> {
        let plan = self.plan(&step.target)?;
        let undone_alone = plan.may_leave_changes(step) || self.checks_deferred;
        if undo == Undo::WithTheTransaction || !undone_alone {
            return self.apply_plan(&plan, step);
        }
        self.run("SAVEPOINT barge_step")?;
        let mut applied = self.apply_plan(&plan, step);
        if applied.is_ok() && self.breaks_deferred() {
            let message = "a row names a parent that is not there";
            applied = Err(Error::new(ErrorKind::ForeignKeyViolation, message));
        }
        self.end_savepoint("barge_step", applied.is_ok())?;
        applied
    }

    fn apply_plan(&mut self, plan: &Rc<Plan>, step: &Step) -> Result<Applied> {
        let rows = step.batch.num_rows();
        // A trigger may keep a row out, and a view counts nothing: only row by row is it known which. And a trigger would see rows
        // deleted in the table's order instead of the batch's.
        let row_by_row = (plan.has_triggers || plan.is_view)
            && (step.outcomes || step.target.operation == Operation::Delete);
        let write = match &plan.write {
            Some(write) if rows > 1 && !row_by_row => write,
            _ => return self.apply_one_by_one(plan, &plan.bind_whole(&step.batch, None)?, step),
        };
        let keys = match plan.target.generated() {
            Some(index) if step.outcomes => match self.keys(plan, step.batch.column(index))? {
                Some(keys) => Some(keys),
                // Where the row ids are used up only SQLite can find a free one.
                None => return self.apply_one_by_one(plan, &plan.bind_whole(&step.batch, None)?, step),
            },
            _ => None,
        };
        let batch = plan.bind_whole(&step.batch, keys.as_ref())?;
        let appended = self.append(plan, step, keys.as_ref())?;
        let write = appended.as_ref().map_or(write, |(append, _)| append);
        let mut statements = 1;
        let wants_match = step.outcomes || plan.is_view;
        let matched = match &plan.matching {
            Some(matching) if wants_match => {
                statements += 1;
                Some(self.matched(matching, &batch, rows)?)
            }
            _ => None,
        };
        if let Some((row, whom)) = self.nearly_done(rows) {
            batch.tell_at(row, whom);
        }
        if let Err(failure) = write.run_over(&batch).finish() {
            return Err(self.step_error(plan, &batch, failure, None));
        }
        if let Some((_, last)) = appended {
            self.check_drawn(last)?;
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

    /// Whom to tell at which position of the batch that is being read.
    pub(crate) fn nearly_done(&mut self, rows: usize) -> Option<(usize, Arc<Notify>)> {
        let whom = self.nearly_done.take()?;
        (rows > 2 * ROWS_AHEAD).then(|| (rows - ROWS_AHEAD, whom))
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
}
