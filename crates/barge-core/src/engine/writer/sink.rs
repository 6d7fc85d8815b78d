//! Where the writer's batches go: the flusher's half, which keeps account of rejected rows.

use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::time::Instant;

use super::WriterConfig;
use super::answers::Answers;
use super::buffer::{Rows, Sealed, SealedSegment, TableRef};
use super::dead_letter::DeadLetter;
use super::flush::{FlushOptions, flush, prepare};
use super::plan::{Part, merge};
use super::reach::Reach;
use super::report::Rejected;
use crate::database::Core;
use crate::engine::{Abandon, Flushed, Flusher, Retry, end_of_task};
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

impl Outcomes {
    /// Opens the dead letter file, where there is to be one.
    pub(super) fn new(config: &WriterConfig) -> Result<Self> {
        Ok(Outcomes {
            max_reported: config.max_reported,
            dead_letter: config.dead_letter.as_deref().map(DeadLetter::open).transpose()?,
            ..Outcomes::default()
        })
    }
}

/// A lane of a writer: flushes sealed batches, one after the other.
pub(crate) struct Sink {
    core: Arc<Core>,
    atomic: bool,
    retry: Retry,
    targets: Arc<Mutex<Targets>>,
    /// The last flush's proof of itself: its sequence grows with every flush of the lane.
    token: Token,
    /// When it was last asked whether tables changed, as rows were refused without being sent.
    asked_anew: Option<Instant>,
}

/// Targets kept for reuse, shared by a writer's lanes; a writer for more record types than [`TARGETS_KEPT`] makes some anew.
#[derive(Default)]
struct Targets(Vec<(TableRef, Operation, Arc<Target>)>);

const TARGETS_KEPT: usize = 256;

/// How long it is taken for granted that tables are as they were described, though rows don't fit them.
const ASKED_ANEW: Duration = Duration::from_secs(60);

impl Targets {
    /// The target of a table and an operation, where the table is still as it was described.
    fn find(&self, core: &Core, table: &TableRef, operation: Operation) -> Option<Arc<Target>> {
        let found = self.0.iter().find(|(other, of, target)| {
            *of == operation && other.same(table) && core.is_current(&target.description)
        });
        found.map(|(_, _, target)| Arc::clone(target))
    }

    fn keep(&mut self, table: &TableRef, operation: Operation, target: &Arc<Target>) {
        self.0.retain(|(other, of, _)| *of != operation || !other.same(table));
        if self.0.len() == TARGETS_KEPT {
            self.0.remove(0);
        }
        self.0.push((table.clone(), operation, Arc::clone(target)));
    }
}

impl Sink {
    /// The lanes of a writer.
    pub(super) fn lanes(core: &Arc<Core>, config: &WriterConfig) -> Vec<Self> {
        let writer = uuid::Uuid::new_v4();
        let targets = Arc::new(Mutex::new(Targets::default()));
        let lane = |lane| Sink {
            core: Arc::clone(core),
            atomic: config.atomic,
            retry: config.retry.clone(),
            targets: Arc::clone(&targets),
            token: Token { writer, lane, sequence: 0 },
            asked_anew: None,
        };
        (0..config.unordered_flushes as u32).map(lane).collect()
    }

    fn targets(&self) -> MutexGuard<'_, Targets> {
        self.targets.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// The target of a segment; described once, then remembered.
    async fn target(&self, segment: &SealedSegment) -> Result<Arc<Target>> {
        let found = self.targets().find(&self.core, &segment.table, segment.operation);
        if let Some(target) = found {
            return Ok(target);
        }
        let target = self.core.target(&segment.table, segment.operation).await?;
        self.targets().keep(&segment.table, segment.operation, &target);
        Ok(target)
    }

    /// Holds every segment against its table. What can't be sent is rejected here.
    async fn prepare(&self, segments: &[SealedSegment]) -> (Vec<Part>, Vec<(u32, Error)>) {
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

    /// Whether tables of which rows were refused without being sent have changed since they were described: a column may be wider by now, or take NULL.
    /// Asked at most once in [`ASKED_ANEW`].
    async fn have_changed(&mut self, segments: &[SealedSegment]) -> bool {
        if self.asked_anew.is_some_and(|asked| asked.elapsed() < ASKED_ANEW) {
            return false;
        }
        self.asked_anew = Some(Instant::now());
        let targets = segments
            .iter()
            .filter_map(|segment| self.targets().find(&self.core, &segment.table, segment.operation));
        let targets: Vec<Arc<Target>> = targets.collect();
        self.core.forget_changed(targets.iter()).await
    }

    async fn send(&mut self, sealed: &Sealed) -> (Answers, Flushed) {
        let outcomes = sealed.receipts_kept();
        let retry = self.retry.clone();
        let mut attempts = retry.start_flush();
        let mut described_anew = false;
        loop {
            let (parts, rejected) = self.prepare(&sealed.segments).await;
            // The database may be out of reach already when its tables are described.
            let unreachable = rejected.iter().find(|(_, error)| error.is_retryable());
            if let Some((_, error)) = unreachable {
                let Err(error) = attempts.next(error.clone()).await else { continue };
                let (answers, flushed) = reject_everything(sealed, &error);
                return (answers, Flushed { retries: attempts.retries.into(), ..flushed });
            }
            if !rejected.is_empty() && self.have_changed(&sealed.segments).await {
                continue;
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
            // A table that changed under us: described anew, the same rows may go through. Not where they may be written already, and once:
            // what they are refused for then is not that they were held against the table as it was.
            let changed = answers.rejected.iter().any(|(_, error)| is_about_shape(error));
            if changed
                && flushed.poison.is_none()
                && self.core.forget_changed(parts.iter().map(|part| &part.target)).await
                && flushed.committed == 0
                && !std::mem::replace(&mut described_anew, true)
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

impl Flusher<Rows> for Sink {
    type Reach = Reach;

    fn reach(&self, open: &Rows) -> Reach {
        let targets = self.targets();
        Reach::of(open, |table, operation| targets.find(&self.core, table, operation))
    }

    async fn flush(&mut self, sealed: Sealed) -> Flushed {
        // Dropped in the middle, as when the runtime shuts down, it abandons the rows.
        let guard = Guard { sealed: Some(sealed) };
        let Some(sealed) = &guard.sealed else { return Flushed::default() };
        let (answers, flushed) = self.send(sealed).await;
        let flushed = Flushed { awaited: sealed.receipts_kept(), ..flushed };
        guard.finish(answers);
        flushed
    }
}

/// A batch in flight.
struct Guard {
    sealed: Option<Sealed>,
}

impl Guard {
    fn finish(mut self, answers: Answers) {
        if let Some(sealed) = self.sealed.take() {
            lock(&sealed.outcomes).keep(&sealed, &answers);
            sealed.cell.answer(answers);
        }
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some(sealed) = self.sealed.take() {
            let message = format!(
                "{} while the batch was being flushed: it may or may not be in the database",
                end_of_task()
            );
            sealed.abandon(&Error::new(ErrorKind::Closed, message));
        }
    }
}

impl Abandon for Sealed {
    fn abandon(self, why: &Error) {
        let (answers, _) = reject_everything(&self, why);
        let mut outcomes = lock(&self.outcomes);
        if outcomes.dead_letter.is_none() {
            tracing::error!(rows = self.rows, error = %why, "rows were not written");
        }
        outcomes.keep(&self, &answers);
        drop(outcomes);
        self.cell.answer(answers);
    }
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
