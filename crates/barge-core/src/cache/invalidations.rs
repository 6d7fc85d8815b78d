//! What the shared cache is told of commits, in the background: no write waits for it.

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::FutureExt;
use tokio::sync::Notify;

use super::shared::Shared;
use super::source::Source;
use crate::engine::loader::{LoaderKey, LoaderValue};

/// So many keys wait for the shared cache at most. Where it is slower than commits come, others forget all they have of the table: that is one
/// message, however many keys it stands for.
const KEYS_MAX: usize = 100_000;

/// What others should forget.
pub(crate) enum Invalidation<K> {
    Keys(Vec<K>),
    All,
}

/// What waits to be told.
pub(crate) struct Invalidations<K> {
    waiting: Mutex<Waiting<K>>,
    /// There is something to tell, or nothing more will come.
    work: Notify,
    /// Something was told.
    progress: Notify,
}

struct Waiting<K> {
    keys: Vec<K>,
    /// All are to be forgotten, and so these keys, too.
    all: bool,
    /// How many invalidations came, how many of them the task took, and how many it has told.
    came: u64,
    taken: u64,
    told: u64,
    closed: bool,
}

/// What the task that tells does next.
enum Next<K> {
    Tell(Invalidation<K>),
    Wait,
    End,
}

impl<K> Invalidations<K> {
    pub(crate) fn tell(&self, invalidation: Invalidation<K>) {
        let mut waiting = self.lock();
        if waiting.closed {
            // The loader is gone, and only what came before is still told.
            return;
        }
        waiting.came += 1;
        match invalidation {
            _ if waiting.all => {}
            Invalidation::Keys(keys) if waiting.keys.len() + keys.len() <= KEYS_MAX => {
                waiting.keys.extend(keys);
            }
            Invalidation::Keys(_) | Invalidation::All => {
                waiting.all = true;
                waiting.keys = Vec::new();
            }
        }
        drop(waiting);
        self.work.notify_one();
    }

    fn next(&self) -> Next<K> {
        let mut waiting = self.lock();
        waiting.told = waiting.taken;
        waiting.taken = waiting.came;
        self.progress.notify_waiters();
        let keys = std::mem::take(&mut waiting.keys);
        match std::mem::take(&mut waiting.all) {
            true => Next::Tell(Invalidation::All),
            false if !keys.is_empty() => Next::Tell(Invalidation::Keys(keys)),
            false if waiting.closed => Next::End,
            false => Next::Wait,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting<K>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The task that tells the shared cache. Dropped, it still tells what came until then, and ends.
pub(crate) struct Telling<K> {
    invalidations: Arc<Invalidations<K>>,
}

impl<K> Telling<K> {
    pub(crate) fn new() -> Self {
        let waiting = Waiting { keys: Vec::new(), all: false, came: 0, taken: 0, told: 0, closed: false };
        let (waiting, work, progress) = (Mutex::new(waiting), Notify::new(), Notify::new());
        Telling { invalidations: Arc::new(Invalidations { waiting, work, progress }) }
    }

    pub(crate) fn invalidations(&self) -> &Arc<Invalidations<K>> {
        &self.invalidations
    }

    /// Starts the task. `bar` is how long fills that began before are kept out, `mark_time` how long the mark must be remembered.
    pub(crate) fn start<V: LoaderValue>(
        &self,
        shared: Arc<Shared>,
        source: Arc<dyn Source<K, V>>,
        [bar, mark_time]: [Duration; 2],
    ) where
        K: LoaderKey,
    {
        let invalidations = Arc::clone(&self.invalidations);
        tokio::spawn(async move {
            loop {
                let invalidation = match invalidations.next() {
                    Next::Tell(invalidation) => invalidation,
                    Next::Wait => {
                        invalidations.work.notified().await;
                        continue;
                    }
                    Next::End => return,
                };
                let telling = async {
                    match invalidation {
                        Invalidation::All => shared.mark(source.mark(), mark_time).await,
                        Invalidation::Keys(keys) => {
                            if let Ok(names) = source.names(&keys) {
                                shared.invalidate(&names, bar).await;
                            }
                        }
                    }
                };
                // Code of another's may panic, which has been printed: what comes later is told all the same.
                let _ = AssertUnwindSafe(telling).catch_unwind().await;
            }
        });
    }

    /// Waits until all that came so far is told, or failed.
    pub(crate) async fn told(&self) {
        let came = self.invalidations.lock().came;
        loop {
            // Made before it is looked at, so that nothing told in between is missed.
            let progress = self.invalidations.progress.notified();
            if self.invalidations.lock().told >= came {
                return;
            }
            progress.await;
        }
    }
}

impl<K> Drop for Telling<K> {
    fn drop(&mut self) {
        self.invalidations.lock().closed = true;
        self.invalidations.work.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_keys_than_can_wait_are_all() {
        let telling = Telling::new();
        let invalidations = telling.invalidations();
        for part in 0..10 {
            invalidations
                .tell(Invalidation::Keys((0..KEYS_MAX / 10).map(|key| part * KEYS_MAX + key).collect()));
        }
        assert!(
            matches!(invalidations.next(), Next::Tell(Invalidation::Keys(keys)) if keys.len() == KEYS_MAX)
        );
        invalidations.tell(Invalidation::Keys((0..KEYS_MAX).collect()));
        invalidations.tell(Invalidation::Keys(vec![7]));
        invalidations.tell(Invalidation::Keys(vec![8]));
        assert!(matches!(invalidations.next(), Next::Tell(Invalidation::All)));
        assert!(matches!(invalidations.next(), Next::Wait));
        // What comes before the end is told.
        let invalidations = Arc::clone(invalidations);
        invalidations.tell(Invalidation::Keys(vec![9]));
        drop(telling);
        assert!(matches!(invalidations.next(), Next::Tell(Invalidation::Keys(keys)) if keys == [9]));
        // What comes after it isn't, or a busy writer would never let it end.
        invalidations.tell(Invalidation::All);
        assert!(matches!(invalidations.next(), Next::End));
    }
}
