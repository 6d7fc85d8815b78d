//! Sends the rows of a flush and finds out what became of each.
//!
//! First grouped, in one call of the store. If a row fails, that is rolled back and the rows go in arrival order, run by run;
//! only there rows are rejected. Rows that broke a foreign key are tried again after the rest, until none passes: their
//! parent may have come later. A row whose key a later row of the flush names is not: it would undo the later one.

use std::sync::Arc;

use arrow::array::{RecordBatch, UInt32Array};
use arrow::compute::take_record_batch;

use super::answers::Answers;
use super::plan::{Part, PlannedStep, Run, TableKeys, find_keys, group, runs};
use crate::database::Core;
use crate::engine::{Flushed, Retry};
use crate::store::{
    Applied, Change, CommitError, CommitOutcome, Fence, Outcome, Step, Target, Token, Transaction,
};
use crate::{Error, ErrorKind, Result};

/// What a flush is to do beside sending its rows.
pub(crate) struct FlushOptions<'a> {
    /// Rows, counting those that are rejected already.
    pub(crate) rows: u32,
    /// Whether anybody waits for outcomes.
    pub(crate) outcomes: bool,
    /// All rows or none.
    pub(crate) atomic: bool,
    pub(crate) retry: &'a Retry,
    /// Claimed by the flush, where the store's commits can be cut off.
    pub(crate) token: Option<&'a Token>,
}

/// Why an attempt did not end the flush.
enum Failed {
    /// Nothing was written.
    RolledBack(Error),
    /// Everything or nothing was written.
    Unknown(Error, Work),
    /// An earlier attempt, whose end was unknown, had committed.
    CommittedBefore,
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        Failed::RolledBack(error)
    }
}

/// What an attempt came to.
struct Work {
    answers: Answers,
    without_effect: u64,
    statements: u64,
}

/// Sends the parts' rows, retrying what can be retried. `rejected` are rows that were refused before.
pub(crate) async fn flush(
    core: &Core,
    parts: &[Part],
    rejected: Vec<(u32, Error)>,
    options: &FlushOptions<'_>,
) -> (Answers, Flushed) {
    let mut attempts = options.retry.start();
    let mut uncertain: Option<Work> = None;
    let (work, failure, poison) = loop {
        let error = match attempt(core, parts, &rejected, options).await {
            Ok(work) => break (Some(work), None, None),
            Err(Failed::CommittedBefore) if uncertain.is_some() => break (uncertain.take(), None, None),
            Err(Failed::CommittedBefore) => {
                let error = Error::new(ErrorKind::Poisoned, "the flush was claimed before by another writer");
                break (None, Some(error.clone()), Some(error));
            }
            Err(Failed::Unknown(error, work)) if options.token.is_some() => {
                uncertain = Some(work);
                if attempts.next(error.clone().into_retryable()).await.is_ok() {
                    continue;
                }
                let error =
                    error.context("a commit was cut off, and whether it happened could not be found out");
                break (None, Some(error.clone()), Some(error));
            }
            Err(Failed::Unknown(error, _)) => {
                let error =
                    error.context("a commit failed in a way that leaves its rows' durability unknown");
                break (None, Some(error.clone()), Some(error));
            }
            Err(Failed::RolledBack(error)) => error,
        };
        if let Err(error) = attempts.next(error).await {
            // After an unknown commit, a failure to find out leaves the rows unknown too.
            let poison = uncertain.is_some().then(|| error.clone());
            break (None, Some(error), poison);
        }
    };
    let retries = attempts.retries.into();
    let Some(work) = work else {
        let error = failure.unwrap_or_else(|| Error::new(ErrorKind::Closed, "the flush was abandoned"));
        let answers = reject_all(parts, rejected, options, &error);
        let rejected = answers.rejected.len() as u64;
        return (answers, Flushed { rejected, retries, failure: Some(error), poison, ..Flushed::default() });
    };
    let rejected = work.answers.rejected.len() as u64;
    let flushed = Flushed {
        committed: u64::from(options.rows) - rejected,
        rejected,
        without_effect: work.without_effect,
        statements: work.statements,
        retries,
        failure: None,
        poison: None,
    };
    (work.answers, flushed)
}

/// Every row answered with the failure of the whole, but those that were rejected on their own account.
fn reject_all(
    parts: &[Part],
    rejected: Vec<(u32, Error)>,
    options: &FlushOptions<'_>,
    error: &Error,
) -> Answers {
    let mut answers = Answers::new(options.rows, false);
    answers.rejected = rejected;
    for part in parts {
        let error = error.clone().with_table(part.target.table().to_string());
        answers.rejected.extend(part.arrivals.iter().map(|&arrival| (arrival, error.clone())));
    }
    answers.finish();
    answers
}

/// One try, in transactions of its own.
async fn attempt(
    core: &Core,
    parts: &[Part],
    rejected: &[(u32, Error)],
    options: &FlushOptions<'_>,
) -> Result<Work, Failed> {
    let mut work = Work::new(rejected, options);
    if parts.is_empty() {
        work.answers.finish();
        return Ok(work);
    }
    if options.atomic && !rejected.is_empty() {
        return Ok(work.roll_back_all(parts, options));
    }
    let keys = find_keys(&*core.store, parts, false).await?;
    if let Some(steps) = group(parts, &keys)? {
        match grouped(core, parts, steps, work, options).await? {
            Grouped::Done(work) => return Ok(work),
            Grouped::Violated => work = Work::new(rejected, options),
        }
    }
    let keys = find_keys(&*core.store, parts, true).await?;
    let last_arrivals = vec![None; keys.len()];
    Replay { core, parts, keys, options, work, deferred: Vec::new(), last_arrivals }.run().await
}

enum Grouped {
    Done(Work),
    /// Rolled back: some row failed.
    Violated,
}

async fn grouped(
    core: &Core,
    parts: &[Part],
    steps: Vec<PlannedStep>,
    mut work: Work,
    options: &FlushOptions<'_>,
) -> Result<Grouped, Failed> {
    let sent: Vec<Step> =
        steps.iter().map(|planned| Step { outcomes: options.outcomes, ..planned.step.clone() }).collect();
    let fence = raise(core, parts);
    match core.store.transact(options.token, &sent).await {
        Ok(Some(applied)) => {
            lower(fence, CommitOutcome::Committed);
            work.take_grouped(&steps, &applied, options);
            Ok(Grouped::Done(work))
        }
        Ok(None) => {
            lower(fence, CommitOutcome::Committed);
            Err(Failed::CommittedBefore)
        }
        Err(CommitError::Unknown { error, applied }) => {
            lower(fence, CommitOutcome::Unknown);
            work.take_grouped(&steps, &applied, options);
            Err(Failed::Unknown(error, work))
        }
        Err(CommitError::RolledBack(error)) => {
            lower(fence, CommitOutcome::RolledBack);
            if is_whole(&error) { Err(error.into()) } else { Ok(Grouped::Violated) }
        }
    }
}

/// Whether a failure speaks of the connection or the database, not of rows or their table.
fn is_whole(error: &Error) -> bool {
    use ErrorKind::*;
    error.is_retryable() || matches!(error.kind(), DiskFull | Io | Timeout | Closed | Poisoned)
}

/// Tells the observers, if there are any.
pub(crate) fn raise(core: &Core, parts: &[Part]) -> Option<Fence> {
    if core.observers.is_empty() {
        return None;
    }
    let changes = parts.iter().map(|part| Change {
        table: part.target.table().clone(),
        keys: if part.target.key.is_empty() || part.target.generated().is_some() {
            None
        } else {
            part.batch.project(&part.target.key).ok()
        },
    });
    Some(core.observers.raise(changes.collect()))
}

pub(crate) fn lower(fence: Option<Fence>, outcome: CommitOutcome) {
    if let Some(fence) = fence {
        fence.lower(outcome);
    }
}

impl Work {
    fn new(rejected: &[(u32, Error)], options: &FlushOptions<'_>) -> Self {
        let mut answers = Answers::new(options.rows, options.outcomes);
        answers.rejected = rejected.to_vec();
        Work { answers, without_effect: 0, statements: 0 }
    }

    fn set(&mut self, arrival: u32, outcome: Outcome) {
        self.without_effect += u64::from(matches!(outcome, Outcome::Unchanged | Outcome::NotFound));
        self.answers.set(arrival, outcome);
    }

    fn take_grouped(&mut self, steps: &[PlannedStep], applied: &[Applied], options: &FlushOptions<'_>) {
        for (planned, applied) in steps.iter().zip(applied) {
            self.take(&planned.arrivals, applied, options);
            if let Some(outcomes) = &applied.outcomes {
                for (arrival, outcome) in planned.followed(outcomes) {
                    self.set(arrival, outcome);
                }
            }
        }
        self.answers.finish();
    }

    /// The outcomes of a step that went through.
    fn take(&mut self, arrivals: &[u32], applied: &Applied, options: &FlushOptions<'_>) {
        self.statements += u64::from(applied.statements);
        match &applied.outcomes {
            Some(outcomes) => {
                for (&arrival, &outcome) in arrivals.iter().zip(outcomes) {
                    self.set(arrival, outcome);
                }
            }
            None => self.without_effect += (arrivals.len() as u64).saturating_sub(applied.affected),
        }
        if let Some(keys) = &applied.generated {
            for (row, &arrival) in arrivals.iter().enumerate() {
                self.answers.set_generated(arrival, keys, row, options.rows);
            }
        }
    }

    /// Turns a flush with rejected rows into one in which every row is.
    fn roll_back_all(mut self, parts: &[Part], options: &FlushOptions<'_>) -> Work {
        self.answers.finish();
        let own = std::mem::take(&mut self.answers.rejected);
        let mut answers = Answers::new(options.rows, false);
        if let Some((_, first)) = own.first() {
            let neighbour =
                first.clone().context("not written, because rows are written all or none, and one failed");
            for &arrival in parts.iter().flat_map(|part| &part.arrivals) {
                if own.binary_search_by_key(&arrival, |(arrival, _)| *arrival).is_err() {
                    answers.reject(arrival, neighbour.clone());
                }
            }
        }
        answers.rejected.extend(own);
        answers.finish();
        Work { answers, without_effect: 0, statements: self.statements }
    }
}

/// A row that broke a foreign key.
struct Deferred {
    part: usize,
    row: u32,
    error: Error,
}

/// A flush in arrival order.
struct Replay<'a> {
    core: &'a Core,
    parts: &'a [Part],
    keys: Vec<TableKeys>,
    options: &'a FlushOptions<'a>,
    work: Work,
    deferred: Vec<Deferred>,
    /// For each table of `keys`, the last arrival of each key; made when a foreign key is first broken.
    last_arrivals: Vec<Option<Vec<u32>>>,
}

impl Replay<'_> {
    async fn run(mut self) -> Result<Work, Failed> {
        let mut transaction = self.core.store.begin().await?;
        if let Some(token) = self.options.token
            && !transaction.claim(token).await?
        {
            return Err(Failed::CommittedBefore);
        }
        for run in runs(self.parts) {
            self.send(&mut *transaction, run).await?;
        }
        self.retry_deferred(&mut *transaction).await?;
        self.work.answers.finish();
        if self.options.atomic && !self.work.answers.rejected.is_empty() {
            transaction.rollback().await?;
            return Ok(self.work.roll_back_all(self.parts, self.options));
        }
        self.commit(transaction).await
    }

    async fn commit(self, transaction: Box<dyn Transaction>) -> Result<Work, Failed> {
        let fence = raise(self.core, self.parts);
        match transaction.commit().await {
            Ok(()) => {
                lower(fence, CommitOutcome::Committed);
                Ok(self.work)
            }
            Err(CommitError::RolledBack(error)) => {
                lower(fence, CommitOutcome::RolledBack);
                Err(error.into())
            }
            Err(CommitError::Unknown { error, .. }) => {
                lower(fence, CommitOutcome::Unknown);
                Err(Failed::Unknown(error, self.work))
            }
        }
    }

    /// Sends one run: as one step where that goes through, else row by row.
    async fn send(&mut self, transaction: &mut dyn Transaction, run: Run) -> Result<(), Failed> {
        let part = &self.parts[run.part];
        let rows: Vec<u32> = (run.start as u32..(run.start + run.rows) as u32).collect();
        let step = self.step(part, part.batch.slice(run.start, run.rows));
        if self.names_keys_once(run) {
            match transaction.apply(&step).await {
                Ok(applied) => {
                    let arrivals = &part.arrivals[run.start..run.start + run.rows];
                    self.work.take(arrivals, &applied, self.options);
                    return Ok(());
                }
                Err(error) if is_whole(&error) || !transaction.is_open() => return Err(error.into()),
                Err(error) if !error.is_row() => {
                    // The statement itself is refused, and would be for every row.
                    self.reject_rows(run.part, &rows, &error);
                    return Ok(());
                }
                Err(_) => {}
            }
        }
        let failed = self.apply_rows(transaction, run.part, &rows, &step).await?;
        self.defer_or_reject(failed);
        Ok(())
    }

    fn step(&self, part: &Part, batch: RecordBatch) -> Step {
        Step { target: part.target.clone(), batch, outcomes: self.options.outcomes }
    }

    fn names_keys_once(&self, run: Run) -> bool {
        if run.rows == 1 || !self.parts[run.part].target.operation.is_keyed() {
            return true;
        }
        let Some(ids) = self.ids(run.part) else { return false };
        let mut ids = ids[run.start..run.start + run.rows].to_vec();
        ids.sort_unstable();
        ids.windows(2).all(|pair| pair[0] != pair[1])
    }

    fn ids(&self, part: usize) -> Option<&[u32]> {
        self.keys.iter().find_map(|keys| {
            let place = keys.parts.iter().position(|&other| other == part)?;
            keys.ids.as_ref().map(|ids| &ids[place][..])
        })
    }

    /// Applies rows of a part one by one, and returns those that failed.
    async fn apply_rows(
        &mut self,
        transaction: &mut dyn Transaction,
        part: usize,
        rows: &[u32],
        step: &Step,
    ) -> Result<Vec<Deferred>, Failed> {
        let applied = match transaction.apply_rows(step).await {
            Ok(applied) => applied,
            Err(error) if is_whole(&error) || !transaction.is_open() => return Err(error.into()),
            Err(error) => {
                self.reject_rows(part, rows, &error);
                return Ok(Vec::new());
            }
        };
        self.work.statements += u64::from(applied.statements);
        let mut failed = Vec::new();
        for (place, (&row, outcome)) in rows.iter().zip(applied.outcomes).enumerate() {
            let arrival = self.parts[part].arrivals[row as usize];
            match outcome {
                Ok(outcome) => {
                    self.work.set(arrival, outcome);
                    if let Some(keys) = &applied.generated {
                        self.work.answers.set_generated(arrival, keys, place, self.options.rows);
                    }
                }
                Err(error) => failed.push(Deferred { part, row, error }),
            }
        }
        Ok(failed)
    }

    fn reject_rows(&mut self, part: usize, rows: &[u32], error: &Error) {
        for &row in rows {
            self.work.answers.reject(self.parts[part].arrivals[row as usize], error.clone());
        }
    }

    fn defer_or_reject(&mut self, failed: Vec<Deferred>) {
        for failed in failed {
            let arrival = self.parts[failed.part].arrivals[failed.row as usize];
            if failed.error.kind() == ErrorKind::ForeignKeyViolation && !self.is_named_later(&failed) {
                self.deferred.push(failed);
            } else {
                self.work.answers.reject(arrival, failed.error.with_row(arrival.into()));
            }
        }
    }

    /// Whether a later row of the flush names the same key.
    fn is_named_later(&mut self, failed: &Deferred) -> bool {
        let arrival = self.parts[failed.part].arrivals[failed.row as usize];
        let Some(table) = self.keys.iter().position(|keys| keys.parts.contains(&failed.part)) else { return false };
        let keys = &self.keys[table];
        let Some(id) = self.ids(failed.part).map(|ids| ids[failed.row as usize]) else {
            // Keys that can't be compared: only a lone operation without a key is safe to move.
            return keys.parts.len() > 1 || self.parts[failed.part].target.operation.is_keyed();
        };
        let last = self.last_arrivals[table].get_or_insert_with(|| keys.last_arrivals(self.parts));
        last[id as usize] > arrival
    }

    /// Tries the rows that broke a foreign key again, together, until none passes.
    async fn retry_deferred(&mut self, transaction: &mut dyn Transaction) -> Result<(), Failed> {
        loop {
            let deferred = std::mem::take(&mut self.deferred);
            let tried = deferred.len();
            let mut next = Vec::new();
            // Consecutive rows of one part go together, in arrival order.
            for chunk in deferred.chunk_by(|a, b| a.part == b.part) {
                let part = chunk[0].part;
                let rows: Vec<u32> = chunk.iter().map(|deferred| deferred.row).collect();
                let batch = take_record_batch(&self.parts[part].batch, &UInt32Array::from(rows.clone()));
                let step = self.step(&self.parts[part], batch.map_err(Error::from)?);
                next.extend(self.apply_rows(transaction, part, &rows, &step).await?);
            }
            let passed = next.len() < tried;
            if !passed {
                for failed in next {
                    let arrival = self.parts[failed.part].arrivals[failed.row as usize];
                    self.work.answers.reject(arrival, failed.error.with_row(arrival.into()));
                }
                return Ok(());
            }
            self.defer_or_reject(next);
            if self.deferred.is_empty() {
                return Ok(());
            }
        }
    }
}

/// What [`prepare`] makes of a segment: the rows that can be sent, and those that can't.
pub(crate) struct Prepared {
    pub(crate) part: Option<Part>,
    pub(crate) rejected: Vec<(u32, Error)>,
}

/// Holds rows against their target before anything is sent.
pub(crate) fn prepare(
    core: &Core,
    target: Arc<Target>,
    batch: &RecordBatch,
    arrivals: Vec<u32>,
) -> Result<Prepared> {
    let batch = target.project(batch)?;
    let mut bad = crate::store::check_values(&target, &batch);
    bad.extend(core.store.check(&target, &batch));
    if bad.is_empty() {
        return Ok(Prepared { part: Some(Part { target, batch, arrivals }), rejected: Vec::new() });
    }
    bad.sort_by_key(|(row, _)| *row);
    bad.dedup_by_key(|(row, _)| *row);
    let good = (0..batch.num_rows()).filter(|row| bad.binary_search_by_key(row, |(row, _)| *row).is_err());
    let good = UInt32Array::from_iter_values(good.map(|row| row as u32));
    let rejected =
        bad.into_iter().map(|(row, error)| (arrivals[row], error.with_row(arrivals[row].into()))).collect();
    let arrivals: Vec<u32> = good.values().iter().map(|&row| arrivals[row as usize]).collect();
    let part = match arrivals.is_empty() {
        true => None,
        false => Some(Part { target, batch: take_record_batch(&batch, &good)?, arrivals }),
    };
    Ok(Prepared { part, rejected })
}
