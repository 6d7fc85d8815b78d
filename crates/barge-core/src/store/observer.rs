//! Who wants to know of commits: caches, which must forget what a commit changed.

use std::fmt;
use std::sync::{Arc, RwLock};

use arrow::array::RecordBatch;

use crate::TableName;

/// What a transaction may change in one table.
#[derive(Clone, Debug)]
pub struct Change {
    /// The table.
    pub table: TableName,
    /// The keys of the rows, as columns; `None` where any row may have changed.
    pub keys: Option<RecordBatch>,
}

/// How a transaction ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum CommitOutcome {
    /// It is in the database.
    Committed,
    /// It isn't.
    RolledBack,
    /// It may or may not be.
    Unknown,
}

/// Told of every transaction that writes through a [`Database`](crate::Database): before its COMMIT is sent, and once its
/// end is known, before any receipt is answered.
///
/// Calls come from many tasks at once and must not block. For each `before_commit` there is exactly one `after_commit`,
/// also where the task that commits is dropped (then the outcome is `Unknown`).
pub trait CommitObserver: Send + Sync + 'static {
    /// A transaction with these changes is about to commit: nothing read from now on may be kept as current.
    fn before_commit(&self, changes: &[Change]);

    /// The transaction ended.
    fn after_commit(&self, changes: &[Change], outcome: CommitOutcome);
}

/// The observers of one database.
#[derive(Default)]
pub(crate) struct Observers(RwLock<Vec<Arc<dyn CommitObserver>>>);

impl Observers {
    pub(crate) fn add(&self, observer: Arc<dyn CommitObserver>) {
        self.0.write().unwrap_or_else(|poisoned| poisoned.into_inner()).push(observer);
    }

    /// Whether nobody listens, so that changes need not be gathered.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.read().unwrap_or_else(|poisoned| poisoned.into_inner()).is_empty()
    }

    /// Raises the fence. The guard tells the observers how the commit ended.
    pub(crate) fn raise(&self, changes: Vec<Change>) -> Fence {
        let observers = self.0.read().unwrap_or_else(|poisoned| poisoned.into_inner()).clone();
        for observer in &observers {
            observer.before_commit(&changes);
        }
        Fence { observers, changes, outcome: CommitOutcome::Unknown }
    }
}

impl fmt::Debug for Observers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Observers")
    }
}

/// A raised fence. Dropping it lowers it: with `Unknown` unless the outcome was set, as when the committing task is dropped.
pub(crate) struct Fence {
    observers: Vec<Arc<dyn CommitObserver>>,
    changes: Vec<Change>,
    outcome: CommitOutcome,
}

impl Fence {
    pub(crate) fn lower(mut self, outcome: CommitOutcome) {
        self.outcome = outcome;
    }
}

impl Drop for Fence {
    fn drop(&mut self) {
        for observer in &self.observers {
            observer.after_commit(&self.changes, self.outcome);
        }
    }
}
