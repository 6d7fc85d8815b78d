//! Where the writer's batches go: the flusher's half, which keeps account of rejected rows.

use std::sync::{Arc, Mutex, MutexGuard};

use super::WriterConfig;
use super::answers::Answers;
use super::buffer::{Sealed, SealedSegment, TableRef};
use super::dead_letter::DeadLetter;
use super::flush::{FlushOptions, flush, prepare};
use super::plan::{Part, merge};
use super::report::Rejected;
use crate::database::Core;
use crate::engine::{Flushed, Flusher, Retry};
use crate::record::row_to_json;
use crate::store::{Operation, Target, Token};
use crate::{Error, ErrorKind, Result};

/// Rejected rows, as the report and the dead letter want them.
#[derive(Default)]
pub(crate) struct Outcomes {
    pub(crate) rejected: Vec<Rejected>,
    max_reported: usize,
    dead_letter: Option<DeadLetter>,
    pub(crate) dead_letter_failure: Option<Error>,
}

pub(crate) fn lock(outcomes: &Mutex<Outcomes>) -> MutexGuard<'_, Outcomes> {
    outcomes.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

/// Flushes sealed batches.
pub(crate) struct Sink {
    core: Arc<Core>,
    atomic: bool,
    retry: Retry,
    outcomes: Arc<Mutex<Outcomes>>,
    targets: Vec<(TableRef, Operation, Arc<Target>)>,
    /// The next flush's proof of itself.
    token: Token,
}

/// Targets kept for reuse; a writer for more record types than this makes some anew.
const TARGETS_KEPT: usize = 256;

impl Sink {
    pub(crate) fn new(
        core: Arc<Core>,
        config: &WriterConfig,
        outcomes: Arc<Mutex<Outcomes>>,
    ) -> Result<Self> {
        {
            let mut outcomes = lock(&outcomes);
            outcomes.max_reported = config.max_reported;
            outcomes.dead_letter = config.dead_letter.as_deref().map(DeadLetter::open).transpose()?;
        }
        Ok(Sink {
            core,
            atomic: config.atomic,
            retry: config.retry.clone(),
            outcomes,
            targets: Vec::new(),
            token: Token { writer: uuid::Uuid::new_v4(), lane: 0, sequence: 0 },
        })
    }

    /// The target of a segment; described once, then remembered.
    async fn target(&mut self, segment: &SealedSegment) -> Result<Arc<Target>> {
        let found = self.targets.iter().find(|(table, operation, target)| {
            *operation == segment.operation
                && table.same(&segment.table)
                && self.core.is_current(&target.description)
        });
        if let Some((_, _, target)) = found {
            return Ok(Arc::clone(target));
        }
        let target = self.core.target(&segment.table, segment.operation).await?;
        self.targets
            .retain(|(table, operation, _)| *operation != segment.operation || !table.same(&segment.table));
        if self.targets.len() == TARGETS_KEPT {
            self.targets.remove(0);
        }
        self.targets.push((segment.table.clone(), segment.operation, Arc::clone(&target)));
        Ok(target)
    }

    /// Holds every segment against its table. What can't be sent is rejected here.
    async fn prepare(&mut self, segments: &[SealedSegment]) -> (Vec<Part>, Vec<(u32, Error)>) {
        let mut parts = Vec::new();
        let mut rejected = Vec::new();
        for segment in segments {
            let prepared = match (self.target(segment).await, &segment.batch) {
                (Ok(target), Ok(batch)) => prepare(&self.core, target, batch, segment.arrivals.clone()),
                (Err(error), _) => Err(error),
                (_, Err(error)) => Err(error.clone()),
            };
            match prepared {
                Ok(prepared) => {
                    parts.extend(prepared.part);
                    rejected.extend(prepared.rejected);
                }
                Err(error) => {
                    rejected.extend(segment.arrivals.iter().map(|&arrival| (arrival, error.clone())))
                }
            }
        }
        (parts, rejected)
    }

    async fn send(&mut self, sealed: &Sealed) -> (Answers, Flushed) {
        let outcomes = sealed.receipts_kept();
        let retry = self.retry.clone();
        let mut attempts = retry.start();
        loop {
            let (parts, rejected) = self.prepare(&sealed.segments).await;
            // The database may be out of reach already when its tables are described.
            let unreachable = rejected.iter().find(|(_, error)| error.is_retryable());
            if let Some((_, error)) = unreachable {
                let Err(error) = attempts.next(error.clone()).await else { continue };
                let (answers, flushed) = reject_everything(sealed, &error);
                return (answers, Flushed { retries: attempts.retries.into(), ..flushed });
            }
            self.token.sequence += 1;
            let token = self.core.store.capabilities().commit_can_be_unknown.then(|| self.token.clone());
            let options = FlushOptions {
                rows: sealed.rows,
                outcomes,
                atomic: self.atomic,
                retry: &retry,
                token: token.as_ref(),
            };
            let parts = match merge(parts) {
                Ok(parts) => parts,
                Err(error) => return reject_everything(sealed, &error),
            };
            let (answers, flushed) = flush(&self.core, &parts, rejected, &options).await;
            // A table that changed under us: described anew, the same rows may go through. Not where they may be written already.
            let changed = answers.rejected.iter().any(|(_, error)| is_about_shape(error));
            if changed
                && flushed.poison.is_none()
                && self.core.forget_changed(&parts).await
                && flushed.committed == 0
            {
                continue;
            }
            return (answers, flushed);
        }
    }
}

fn is_about_shape(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::MissingTable | ErrorKind::MissingColumn | ErrorKind::Statement)
}

fn reject_everything(sealed: &Sealed, error: &Error) -> (Answers, Flushed) {
    let mut answers = Answers::new(sealed.rows, false);
    answers.rejected = (0..sealed.rows).map(|arrival| (arrival, error.clone())).collect();
    let flushed =
        Flushed { rejected: sealed.rows.into(), failure: Some(error.clone()), ..Flushed::default() };
    (answers, flushed)
}

impl Flusher<Sealed> for Sink {
    async fn flush(&mut self, sealed: Sealed) -> Flushed {
        // Dropped in the middle, as when the runtime shuts down, it abandons the rows.
        let guard = Guard { outcomes: Arc::clone(&self.outcomes), sealed: Some(sealed) };
        let Some(sealed) = &guard.sealed else { return Flushed::default() };
        let (answers, flushed) = self.send(sealed).await;
        guard.finish(answers);
        flushed
    }

    fn abandon(&mut self, sealed: Sealed, why: &Error) {
        abandon(&self.outcomes, sealed, why);
    }
}

/// A batch in flight.
struct Guard {
    outcomes: Arc<Mutex<Outcomes>>,
    sealed: Option<Sealed>,
}

impl Guard {
    fn finish(mut self, answers: Answers) {
        if let Some(sealed) = self.sealed.take() {
            lock(&self.outcomes).keep(&sealed, &answers);
            sealed.cell.answer(answers);
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some(sealed) = self.sealed.take() {
            let why =
                "the runtime ended while the batch was being flushed: it may or may not be in the database";
            abandon(&self.outcomes, sealed, &Error::new(ErrorKind::Closed, why));
        }
    }
}

/// Answers rows that will not be flushed.
pub(crate) fn abandon(outcomes: &Mutex<Outcomes>, sealed: Sealed, why: &Error) {
    let (answers, _) = reject_everything(&sealed, why);
    let mut outcomes = lock(outcomes);
    if outcomes.dead_letter.is_none() {
        tracing::error!(rows = sealed.rows, error = %why, "rows were not written");
    }
    outcomes.keep(&sealed, &answers);
    drop(outcomes);
    sealed.cell.answer(answers);
}

impl Outcomes {
    /// Keeps the rejected rows for the report and the dead letter.
    fn keep(&mut self, sealed: &Sealed, answers: &Answers) {
        if answers.rejected.is_empty() {
            return;
        }
        let room = self.max_reported.saturating_sub(self.rejected.len());
        let wanted = if self.dead_letter.is_some() { answers.rejected.len() } else { room };
        let rejected: Vec<Rejected> = answers
            .rejected
            .iter()
            .take(wanted)
            .filter_map(|(arrival, error)| sealed.rejected(*arrival, error))
            .collect();
        if let Some(dead_letter) = &mut self.dead_letter
            && let Err(error) = dead_letter.append(&rejected)
        {
            tracing::error!(error = %error, rows = rejected.len(), "rejected rows could not be kept");
            self.dead_letter_failure.get_or_insert(error);
        }
        self.rejected.extend(rejected.into_iter().take(room));
    }
}

impl Sealed {
    /// Whether a receipt of any of its rows is still there. None can be made once the batch is sealed.
    fn receipts_kept(&self) -> bool {
        Arc::strong_count(&self.cell) > 1
    }

    fn rejected(&self, arrival: u32, error: &Error) -> Option<Rejected> {
        let segment =
            self.segments.iter().find(|segment| segment.arrivals.binary_search(&arrival).is_ok())?;
        let row = segment.arrivals.binary_search(&arrival).ok()?;
        let row = segment.batch.as_ref().map(|batch| row_to_json(batch, row)).unwrap_or_default();
        let table = segment.table.name().clone();
        Some(Rejected { table, operation: segment.operation, row, error: error.clone() })
    }
}
