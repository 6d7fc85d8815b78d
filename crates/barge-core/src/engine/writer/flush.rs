//! Sends the rows of a flush and finds out what became of each.
//!
//! First grouped, in one call of the store. If a row fails, that is rolled back and the rows go in arrival order, run by run;
//! only there rows are rejected. Rows that broke a foreign key are tried again after the rest, until none passes: their
//! parent may have come later. A row whose key a later row of the flush names is not: it would undo the later one.

use std::sync::Arc;

use arrow::array::{Int64Array, RecordBatch, UInt32Array};
use arrow::compute::take_record_batch;

use super::answers::Answers;
use super::keys::find_keys;
use super::plan::{Part, PlannedStep, drawn, group};
use super::replay::replay;
use crate::database::Core;
use crate::engine::{Flushed, Retry};
use crate::store::{Applied, Change, CommitError, CommitOutcome, Fence, Outcome, Step, Target, Token};
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
pub(super) enum Failed {
    /// Nothing was written.
    RolledBack(Error),
    /// Everything or nothing was written.
    Unknown(Error, Box<Work>),
    /// An earlier attempt, whose end was unknown, had committed.
    CommittedBefore,
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        Failed::RolledBack(error)
    }
}

/// What an attempt came to.
pub(super) struct Work {
    pub(super) answers: Answers,
    without_effect: u64,
    pub(super) statements: u64,
    /// Calls of the store.
    pub(super) round_trips: u64,
    /// The keys that the database drew, as observers are told of them.
    drawn: Vec<Change>,
}

/// Sends the parts' rows, retrying what can be retried. `rejected` are rows that were refused before.
pub(crate) async fn flush(
    core: &Core,
    parts: &[Part],
    rejected: Vec<(u32, Error)>,
    options: &FlushOptions<'_>,
) -> (Answers, Flushed) {
    let mut attempts = options.retry.start_flush();
    // The first commit that was cut off, and what stands if one of them happened.
    let mut uncertain: Option<(Error, Box<Work>)> = None;
    let (work, failure, poison) = loop {
        let error = match attempt(core, parts, &rejected, options).await {
            Ok(work) => break (Some(work), None, None),
            Err(Failed::CommittedBefore) => match uncertain.take() {
                Some((_, work)) => {
                    // It may have been written only lately, after the fence of its own attempt was lowered: what was read in between
                    // must not be kept.
                    work.lower(raise(core, parts, options), CommitOutcome::Committed);
                    break (Some(*work), None, None);
                }
                None => {
                    let message = "the flush was claimed before by another writer";
                    let error = Error::new(ErrorKind::Poisoned, message);
                    break (None, Some(error.clone()), Some(error));
                }
            },
            Err(Failed::Unknown(error, work)) if options.token.is_some() => {
                let first = uncertain.map_or_else(|| error.clone(), |(first, _)| first);
                uncertain = Some((first, work));
                error.into_retryable()
            }
            Err(Failed::Unknown(error, _)) => {
                let error =
                    error.context("a commit failed in a way that leaves its rows' durability unknown");
                break (None, Some(error.clone()), Some(error));
            }
            Err(Failed::RolledBack(error)) => error,
        };
        if let Err(error) = attempts.next(error).await {
            let Some((cut_off, _)) = uncertain else { break (None, Some(error), None) };
            // What failed later says nothing of whether the rows were written.
            let later = if attempts.retries > 0 { format!(" ({})", error.message()) } else { String::new() };
            let error = cut_off.context(format_args!(
                "a commit was cut off, and whether it happened could not be found out{later}"
            ));
            break (None, Some(error.clone()), Some(error));
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
        round_trips: work.round_trips,
        retries,
        awaited: options.outcomes,
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
    let keys = find_keys(&mut core.ask(), parts, false).await?;
    let refused = match group(parts, &keys)? {
        None => None,
        Some(steps) => match grouped(core, parts, steps, work, options).await? {
            Grouped::Done(work) => return Ok(work),
            Grouped::Refused(error) => Some(error),
        },
    };
    replay(core, parts, rejected, options, refused.as_ref()).await
}

/// What came of the grouped rows, where the database answered.
enum Grouped {
    Done(Work),
    /// Some row failed, and all were rolled back.
    Refused(Error),
}

/// Sends the steps in one call.
async fn grouped(
    core: &Core,
    parts: &[Part],
    steps: Vec<PlannedStep>,
    mut work: Work,
    options: &FlushOptions<'_>,
) -> Result<Grouped, Failed> {
    let outcomes = |planned: &PlannedStep| options.outcomes || !planned.counts_tell();
    let sent: Vec<Step> =
        steps.iter().map(|planned| Step { outcomes: outcomes(planned), ..planned.step.clone() }).collect();
    let fence = raise(core, parts, options);
    work.round_trips += 1;
    match core.store.transact(options.token, &sent).await {
        Ok(Some(applied)) => {
            work.take_grouped(&steps, &applied, options);
            work.lower(fence, CommitOutcome::Committed);
            if work.answers.untold.is_some() {
                // Described anew, the tables tell of what keeps rows out.
                parts.iter().for_each(|part| core.forget(part.target.table()));
            }
            Ok(Grouped::Done(work))
        }
        Ok(None) => {
            fence.lower(CommitOutcome::Committed);
            Err(Failed::CommittedBefore)
        }
        Err(CommitError::Unknown { error, applied }) => {
            work.take_grouped(&steps, &applied, options);
            work.lower(fence, CommitOutcome::Unknown);
            Err(Failed::Unknown(error, Box::new(work)))
        }
        Err(CommitError::RolledBack(error)) => {
            fence.lower(CommitOutcome::RolledBack);
            if error.is_whole() { Err(error.into()) } else { Ok(Grouped::Refused(error)) }
        }
    }
}

/// The answer of rows that were committed, but for some of which nobody can tell which they are. They must not be sent again.
fn untold(step: &Step, applied: &Applied) -> Error {
    let rows = step.batch.num_rows();
    let message = format!(
        "{} of {rows} rows were written and committed, the others were kept out by what was added to the table after it was described, a \
         trigger or a rule; which they are can't be told",
        applied.affected
    );
    Error::new(ErrorKind::Unsupported, message).with_table(step.target.table().to_string())
}

/// Tells the observers, if there are any.
pub(super) fn raise(core: &Core, parts: &[Part], options: &FlushOptions<'_>) -> Fence {
    core.observers.raise(|| parts.iter().map(|part| part.change(&*core.store, options.outcomes)).collect())
}

impl Work {
    pub(super) fn new(rejected: &[(u32, Error)], options: &FlushOptions<'_>) -> Self {
        let mut answers = Answers::new(options.rows, options.outcomes);
        answers.rejected = rejected.to_vec();
        Work { answers, without_effect: 0, statements: 0, round_trips: 0, drawn: Vec::new() }
    }

    /// Lowers the fence of the commit that ended so, and tells of the keys that were drawn.
    pub(super) fn lower(&self, fence: Fence, outcome: CommitOutcome) {
        fence.also(|| self.drawn.clone()).lower(outcome);
        fence.lower(outcome);
    }

    /// Remembers which keys a step drew.
    pub(super) fn note_drawn(&mut self, step: &Step, keys: Option<&Int64Array>) {
        self.drawn.extend(keys.and_then(|keys| drawn(step, keys)));
    }

    pub(super) fn set(&mut self, arrival: u32, outcome: Outcome) {
        self.without_effect += u64::from(matches!(outcome, Outcome::Unchanged | Outcome::NotFound));
        self.answers.set(arrival, outcome);
    }

    fn take_grouped(&mut self, steps: &[PlannedStep], applied: &[Applied], options: &FlushOptions<'_>) {
        for (planned, applied) in steps.iter().zip(applied) {
            self.take(&planned.step, &planned.arrivals, applied, options);
            if options.outcomes && applied.outcomes.is_none() {
                self.answers.untold = Some(untold(&planned.step, applied));
            }
            if let Some(outcomes) = &applied.outcomes {
                for (arrival, outcome) in planned.followed(outcomes) {
                    self.set(arrival, outcome);
                }
            }
        }
        self.answers.finish();
    }

    /// The outcomes of a step that went through.
    pub(super) fn take(
        &mut self,
        step: &Step,
        arrivals: &[u32],
        applied: &Applied,
        options: &FlushOptions<'_>,
    ) {
        self.statements += u64::from(applied.statements);
        self.note_drawn(step, applied.generated.as_ref());
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
    pub(super) fn roll_back_all(mut self, parts: &[Part], options: &FlushOptions<'_>) -> Work {
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
        Work { answers, without_effect: 0, ..self }
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
