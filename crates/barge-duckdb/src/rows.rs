//! Steps whose rows fail: the failing ones are found and left out.
//!
//! Rows go in runs of which nothing is left to doubt: what fails for certain is taken out, and a run ends before the first row that
//! meets an earlier one. Inserted rows meet only those they share a unique value with, so those that meet an earlier one are held back until the
//! others are written, all of them together. Where a run fails all the same, its first half is tried alone, down to a row. Trying costs a
//! transaction done again, asking a query, so rows that ask nothing of each other take one query and one statement.

use arrow::array::{Array, Int64Array, Int64Builder, RecordBatch, UInt32Array};
use arrow::compute::{take, take_record_batch};
use barge_core::store::{AppliedRows, Operation, Outcome, Step};
use barge_core::{Error, ErrorKind, Result};

use crate::apply::{Refused, refined};
use crate::connection::{Connection, ended};
use crate::findings::Finding;
use crate::journal::Journal;
use crate::plan::Plan;

/// Rows that are asked after at least: fewer cost as much.
const WINDOW_MIN: usize = 64;

/// A step on its way.
struct Rows<'a> {
    plan: &'a Plan,
    step: &'a Step,
    fitted: RecordBatch,
    keys: Option<Int64Array>,
    outcomes: Vec<Option<Result<Outcome>>>,
    statements: u32,
}

impl Connection {
    /// Applies a step row by row, leaving out the rows that fail. After an error the transaction is gone.
    pub(crate) fn apply_rows(&mut self, step: &Step) -> Result<AppliedRows> {
        let applied = self.try_apply_rows(step);
        if applied.is_err() {
            self.roll_back();
        }
        applied
    }

    fn try_apply_rows(&mut self, step: &Step) -> Result<AppliedRows> {
        let plan = self.plan(&step.target)?;
        let applied = self.apply_runs(&plan, step);
        self.journal.iter_mut().for_each(Journal::end_run);
        applied
    }

    fn apply_runs(&mut self, plan: &Plan, step: &Step) -> Result<AppliedRows> {
        let keys = self.draw(plan, &step.batch)?;
        let fitted = plan.fit(&step.batch, keys.as_ref())?;
        let rows = step.batch.num_rows();
        let outcomes = (0..rows).map(|_| None).collect();
        let mut work = Rows { plan, step, fitted, keys, outcomes, statements: 0 };
        if step.target.operation == Operation::Insert && !step.target.rows_may_meet() {
            self.insert_runs(&mut work)?;
            return work.finish();
        }
        let (mut begin, mut window) = (0, rows);
        while begin < rows {
            let run = (begin..rows.min(begin + window)).map(|row| row as u32).collect::<Vec<u32>>();
            let (certain, certain_rows) = self.certain(&mut work, &run)?;
            self.begin_run(&work);
            self.send(&mut work, &certain)?;
            begin += certain_rows;
            window = if certain_rows == run.len() {
                window.saturating_mul(2)
            } else {
                WINDOW_MIN.max(certain_rows * 4)
            };
        }
        work.finish()
    }

    /// Rows that are inserted: those that share no unique value with an earlier one, then what was held back.
    fn insert_runs(&mut self, work: &mut Rows<'_>) -> Result<()> {
        let mut rest: Vec<u32> = (0..work.step.batch.num_rows() as u32).collect();
        while !rest.is_empty() {
            work.statements += 1;
            let mut findings = self.findings(work.plan, &work.fitted_rows(&rest)?)?.into_iter().peekable();
            let (mut certain, mut held_back) = (Vec::with_capacity(rest.len()), Vec::new());
            for (place, &row) in rest.iter().enumerate() {
                match findings.next_if(|(found, _)| *found == place) {
                    None => certain.push(row),
                    Some((_, Finding::Fails(error))) => work.reject(row, error),
                    // There is none before the first.
                    Some((_, Finding::Depends)) if place == 0 => certain.push(row),
                    Some((_, Finding::Depends)) => held_back.push(row),
                }
            }
            self.begin_run(work);
            self.send(work, &certain)?;
            rest = held_back;
        }
        Ok(())
    }

    /// The rows of a run that nothing was found of, before the first that depends on an earlier one, and how many rows come before
    /// that one. Those that fail are answered.
    fn certain(&mut self, work: &mut Rows<'_>, run: &[u32]) -> Result<(Vec<u32>, usize)> {
        work.statements += 1;
        let findings = self.findings(work.plan, &work.fitted_rows(run)?)?;
        let end = findings.iter().find(|(_, finding)| matches!(finding, Finding::Depends));
        let end = end.map_or(run.len(), |(row, _)| (*row).max(1));
        let mut fails = vec![false; end];
        for (row, finding) in findings.into_iter().take_while(|(row, _)| *row < end) {
            if let Finding::Fails(error) = finding {
                fails[row] = true;
                work.reject(run[row], error);
            }
        }
        let certain = run[..end].iter().zip(&fails).filter(|(_, fails)| !**fails).map(|(&row, _)| row);
        Ok((certain.collect(), end))
    }

    /// Writes rows; where they fail together, those of the first half before the others, down to the row that fails.
    fn send(&mut self, work: &mut Rows<'_>, rows: &[u32]) -> Result<()> {
        if rows.is_empty() {
            return Ok(());
        }
        let step = work.step_of(rows)?;
        let keys = work.keys_of(rows)?;
        match self.apply_rows_whole(work.plan, &step, &work.fitted_rows(rows)?, keys) {
            Ok(applied) => {
                work.statements += applied.statements;
                for (&row, outcome) in rows.iter().zip(applied.outcomes.into_iter().flatten()) {
                    work.outcomes[row as usize] = Some(Ok(outcome));
                }
                return Ok(());
            }
            Err(Refused::Other(error)) => return Err(error),
            Err(Refused::Failed(failure)) => {
                let error = refined(self.step_error(work.plan, failure));
                let is_row = error.is_row() || error.kind() == ErrorKind::Unsupported;
                self.restore()?;
                if !is_row || !self.in_transaction() {
                    return Err(error);
                }
                if let [row] = rows {
                    work.reject(*row, error);
                    return Ok(());
                }
            }
        }
        let (first, second) = rows.split_at(rows.len() / 2);
        self.send(work, first)?;
        // What the first half did may decide what becomes of the second.
        let (mut begin, second) = (0, second);
        while begin < second.len() {
            let (certain, certain_rows) = self.certain(work, &second[begin..])?;
            self.send(work, &certain)?;
            begin += certain_rows;
            if begin < second.len() {
                self.begin_run(work);
            }
        }
        Ok(())
    }

    /// Rows of which none depends on an earlier one come next. Where they neither exchange unique values nor are each other's parents, the pieces of
    /// them that go through can be done again as one.
    fn begin_run(&mut self, work: &Rows<'_>) {
        if !work.plan.moves_unique && !work.step.target.rows_may_meet() {
            self.journal.iter_mut().for_each(Journal::begin_run);
        }
    }
}

impl Rows<'_> {
    fn fitted_rows(&self, rows: &[u32]) -> Result<RecordBatch> {
        rows_of(&self.fitted, rows)
    }

    fn step_of(&self, rows: &[u32]) -> Result<Step> {
        let batch = rows_of(&self.step.batch, rows)?;
        Ok(Step { target: self.step.target.clone(), batch, outcomes: true })
    }

    fn keys_of(&self, rows: &[u32]) -> Result<Option<Int64Array>> {
        let Some(keys) = &self.keys else { return Ok(None) };
        let keys = take(keys, &UInt32Array::from(rows.to_vec()), None)?;
        Ok(Some(Int64Array::from(keys.to_data())))
    }

    fn reject(&mut self, row: u32, error: Error) {
        self.outcomes[row as usize] = Some(Err(error.with_row(row.into())));
    }

    fn finish(self) -> Result<AppliedRows> {
        let outcomes: Vec<Result<Outcome>> =
            self.outcomes.into_iter().map(|outcome| outcome.unwrap_or_else(|| Err(ended()))).collect();
        let generated = self.keys.map(|keys| {
            let mut left = Int64Builder::with_capacity(keys.len());
            for (key, outcome) in keys.iter().zip(&outcomes) {
                let there = matches!(outcome, Ok(outcome) if *outcome != Outcome::NotFound);
                left.append_option(key.filter(|_| there));
            }
            left.finish()
        });
        Ok(AppliedRows { outcomes, generated, statements: self.statements })
    }
}

/// Some rows of a batch; in place where they follow each other.
fn rows_of(batch: &RecordBatch, rows: &[u32]) -> Result<RecordBatch> {
    match rows {
        [first, .., last] if (last - first) as usize + 1 == rows.len() => {
            Ok(batch.slice(*first as usize, rows.len()))
        }
        [row] => Ok(batch.slice(*row as usize, 1)),
        rows => Ok(take_record_batch(batch, &UInt32Array::from(rows.to_vec()))?),
    }
}
