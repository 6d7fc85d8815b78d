//! Who wants to know of commits: caches, which must forget what a commit changed.

use std::fmt;
use std::sync::atomic::{Ordering, fence};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockWriteGuard, Weak};

use arrow::array::RecordBatch;
use tokio::time::Instant;

use crate::TableName;

/// What a transaction may change.
#[derive(Clone, Debug)]
pub struct Change {
    /// The table; `None` where it may be any.
    pub table: Option<TableName>,
    /// Which of its rows.
    pub rows: ChangedRows,
}

/// Which rows of a table a transaction may change.
#[derive(Clone, Debug)]
pub enum ChangedRows {
    /// Those with these keys, whose columns are the table's key; or none of them was there before.
    Keys(RecordBatch),
    /// Rows are added, with these values of the columns of the table's unique keys, as far as they are given: NULL, or no column, is what only the
    /// database knows. Those that are there stay as they are.
    Added(RecordBatch),
    /// Those with these keys, which the database drew for rows that were added: it may draw the key of a row that was removed. They
    /// may be told of on their own, after the others of the same transaction, since they are known only once it was sent.
    Drawn(RecordBatch),
    /// Any.
    Any,
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
/// also where whoever commits goes away on the way (then the outcome is `Unknown`, but for a [`Tx`](crate::Tx), which is committed all the same). One transaction may be told of twice, each time with a part of
/// its changes. An observer isn't told of transactions whose COMMIT was
/// sent before it was added.
pub trait CommitObserver: Send + Sync + 'static {
    /// A transaction with these changes is about to commit: nothing read from now on may be kept as current.
    fn before_commit(&self, changes: &[Change]);

    /// The transaction ended.
    fn after_commit(&self, changes: &[Change], outcome: CommitOutcome);
}

/// The observers of one database.
#[derive(Default)]
pub(crate) struct Observers(RwLock<Registry>);

#[derive(Default)]
struct Registry {
    observers: Vec<Observer>,
    /// Held by every commit under way that began since an observer was last added.
    under_way: Arc<()>,
    /// Held by those that began before, one for each time that an observer was added.
    earlier: Vec<Weak<()>>,
    last: LastCommit,
}

/// When a commit last ended that may have changed something, and when one of which it isn't known whether it did.
type LastCommit = Arc<Mutex<Ends>>;

#[derive(Debug, Default)]
struct Ends {
    changed: Option<Instant>,
    unknown: Option<Instant>,
}

enum Observer {
    Kept(Arc<dyn CommitObserver>),
    /// Gone with whoever holds it.
    Held(Weak<dyn CommitObserver>),
}

impl Observer {
    fn get(&self) -> Option<Arc<dyn CommitObserver>> {
        match self {
            Observer::Kept(observer) => Some(Arc::clone(observer)),
            Observer::Held(observer) => observer.upgrade(),
        }
    }
}

/// The commits before an observer was added, of which it isn't told.
#[derive(Debug)]
pub(crate) struct Earlier {
    under_way: Vec<Weak<()>>,
    last: LastCommit,
}

impl Earlier {
    /// Whether all of them have ended.
    pub(crate) fn ended(&self) -> bool {
        let ended = self.under_way.iter().all(|commits| commits.strong_count() == 0);
        // What they did before they let go, as saying when they ended, is seen from here on.
        fence(Ordering::Acquire);
        ended
    }

    /// When the last commit ended that may have changed something, those that the observer was told of among them.
    pub(crate) fn last(&self) -> Option<Instant> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).changed
    }

    /// When a commit last ended of which it isn't known whether it changed something.
    pub(crate) fn last_unknown(&self) -> Option<Instant> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner).unknown
    }
}

impl Observers {
    pub(crate) fn add(&self, observer: Arc<dyn CommitObserver>) {
        self.write().observers.push(Observer::Kept(observer));
    }

    /// Adds an observer for as long as somebody else holds it.
    pub(crate) fn add_held(&self, observer: &Arc<impl CommitObserver>) -> Earlier {
        let held: Weak<dyn CommitObserver> = Arc::downgrade(observer) as _;
        let mut registry = self.write();
        registry.observers.retain(|observer| observer.get().is_some());
        registry.observers.push(Observer::Held(held));
        let before = std::mem::take(&mut registry.under_way);
        registry.earlier.push(Arc::downgrade(&before));
        // Those that nobody else holds have no commit under way.
        drop(before);
        registry.earlier.retain(|commits| commits.strong_count() > 0);
        Earlier { under_way: registry.earlier.clone(), last: Arc::clone(&registry.last) }
    }

    /// Raises the fence. The guard tells the observers how the commit ended. Changes are gathered only where somebody listens.
    pub(crate) fn raise(&self, changes: impl FnOnce() -> Vec<Change>) -> Fence {
        let registry = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let observers: Vec<_> = registry.observers.iter().filter_map(Observer::get).collect();
        let (under_way, last) = (Arc::clone(&registry.under_way), Arc::clone(&registry.last));
        drop(registry);
        let changes = if observers.is_empty() { Vec::new() } else { changes() };
        for observer in &observers {
            observer.before_commit(&changes);
        }
        Fence { observers, changes, outcome: CommitOutcome::Unknown, last, under_way }
    }

    fn write(&self) -> RwLockWriteGuard<'_, Registry> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Observers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Observers")
    }
}

/// A raised fence. Dropping it lowers it: with `Unknown` unless the outcome was set, as when the committing task is dropped.
#[must_use = "dropping it lowers the fence"]
pub(crate) struct Fence {
    observers: Vec<Arc<dyn CommitObserver>>,
    changes: Vec<Change>,
    outcome: CommitOutcome,
    last: LastCommit,
    /// Let go after the drop below: who sees that no commit is under way any more sees when the last one ended.
    under_way: Arc<()>,
}

impl Fence {
    pub(crate) fn lower(mut self, outcome: CommitOutcome) {
        self.outcome = outcome;
    }

    /// Raises another fence before the same observers, for what is known of the commit only once it was sent: to be lowered before anybody
    /// is told, as this one.
    pub(crate) fn also(&self, changes: impl FnOnce() -> Vec<Change>) -> Fence {
        let changes = if self.observers.is_empty() { Vec::new() } else { changes() };
        let observers = if changes.is_empty() { Vec::new() } else { self.observers.clone() };
        for observer in &observers {
            observer.before_commit(&changes);
        }
        let (last, under_way) = (Arc::clone(&self.last), Arc::clone(&self.under_way));
        Fence { observers, changes, outcome: CommitOutcome::Unknown, last, under_way }
    }
}

impl Drop for Fence {
    fn drop(&mut self) {
        if self.outcome != CommitOutcome::RolledBack {
            let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
            last.changed = Some(Instant::now());
            if self.outcome == CommitOutcome::Unknown {
                last.unknown = last.changed;
            }
        }
        for observer in &self.observers {
            observer.after_commit(&self.changes, self.outcome);
        }
    }
}
