//! What was asked of the tiers, and what they had.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

/// Counts of one loader.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    /// Keys that callers asked for, and those answered from memory at once.
    pub(crate) requests: AtomicU64,
    pub(crate) hits: AtomicU64,
    /// Keys of a batch that memory had by then.
    pub(crate) memory_hits: AtomicU64,
    pub(crate) memory_misses: AtomicU64,
    pub(crate) shared_hits: AtomicU64,
    pub(crate) shared_misses: AtomicU64,
    pub(crate) store_keys: AtomicU64,
    pub(crate) store_calls: AtomicU64,
    pub(crate) absent: AtomicU64,
    pub(crate) waits: AtomicU64,
    pub(crate) bypasses: AtomicU64,
    pub(crate) refreshes: AtomicU64,
    pub(crate) stale: AtomicU64,
    pub(crate) errors: AtomicU64,
    pub(crate) warmed: AtomicU64,
    /// What the metrics facade was told of them.
    told: Mutex<[u64; TOLD]>,
}

const TOLD: usize = 9;

pub(crate) fn count(counter: &AtomicU64, by: usize) {
    counter.fetch_add(by as u64, Ordering::Relaxed);
}

pub(crate) fn get(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

impl Counts {
    /// Tells the metrics facade what was added since it was last told: a hit costs no more than its count.
    pub(crate) fn tell(&self) {
        let now: [u64; TOLD] = [
            get(&self.requests),
            get(&self.hits) + get(&self.memory_hits),
            get(&self.shared_hits),
            get(&self.store_keys),
            get(&self.store_calls),
            get(&self.refreshes),
            get(&self.waits),
            get(&self.stale),
            get(&self.errors),
        ];
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let added = |place: usize, told: &[u64; TOLD]| now[place].saturating_sub(told[place]);
        metrics::counter!("barge.loader.requests").increment(added(0, &told));
        metrics::counter!("barge.loader.hits", "tier" => "memory").increment(added(1, &told));
        metrics::counter!("barge.loader.hits", "tier" => "shared").increment(added(2, &told));
        metrics::counter!("barge.loader.store_keys").increment(added(3, &told));
        metrics::counter!("barge.loader.look_ups").increment(added(4, &told));
        metrics::counter!("barge.loader.refreshes").increment(added(5, &told));
        metrics::counter!("barge.loader.shared_waits").increment(added(6, &told));
        metrics::counter!("barge.loader.stale").increment(added(7, &told));
        metrics::counter!("barge.loader.errors").increment(added(8, &told));
        *told = now;
    }
}
