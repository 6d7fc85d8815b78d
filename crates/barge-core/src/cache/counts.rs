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
    /// Requests for a key that was in the open batch already.
    pub(crate) joined: AtomicU64,
    /// Keys that another look-up was reading: of this process, and of another.
    pub(crate) memory_waits: AtomicU64,
    pub(crate) waits: AtomicU64,
    pub(crate) bypasses: AtomicU64,
    pub(crate) refreshes: AtomicU64,
    pub(crate) stale: AtomicU64,
    pub(crate) errors: AtomicU64,
    pub(crate) warmed: AtomicU64,
    /// What the metrics facade was told of them.
    told: Mutex<Told>,
}

#[derive(Debug, Default)]
struct Told {
    counts: [u64; TOLD],
    entries: u64,
}

const TOLD: usize = 17;

pub(crate) fn count(counter: &AtomicU64, by: usize) {
    counter.fetch_add(by as u64, Ordering::Relaxed);
}

pub(crate) fn get(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

impl Counts {
    /// Tells the metrics facade what was added since it was last told: a hit costs no more than its count.
    pub(crate) fn tell(&self, evictions: u64, entries: u64) {
        // Before the counts are read: who tells next must find no smaller ones.
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let now: [(&'static str, Option<&'static str>, u64); TOLD] = [
            ("barge.loader.requests", None, get(&self.requests)),
            ("barge.loader.hits", Some("memory"), get(&self.hits) + get(&self.memory_hits)),
            ("barge.loader.hits", Some("shared"), get(&self.shared_hits)),
            ("barge.loader.misses", Some("memory"), get(&self.memory_misses)),
            ("barge.loader.misses", Some("shared"), get(&self.shared_misses)),
            ("barge.loader.store_keys", None, get(&self.store_keys)),
            ("barge.loader.look_ups", None, get(&self.store_calls)),
            ("barge.loader.absent", None, get(&self.absent)),
            ("barge.loader.joined", None, get(&self.joined)),
            ("barge.loader.refreshes", None, get(&self.refreshes)),
            ("barge.loader.waits", Some("memory"), get(&self.memory_waits)),
            ("barge.loader.waits", Some("shared"), get(&self.waits)),
            ("barge.loader.warmed", None, get(&self.warmed)),
            ("barge.loader.bypasses", None, get(&self.bypasses)),
            ("barge.loader.stale", None, get(&self.stale)),
            ("barge.loader.errors", None, get(&self.errors)),
            ("barge.loader.evictions", None, evictions),
        ];
        for ((name, tier, now), told) in now.into_iter().zip(told.counts.iter_mut()) {
            let added = now.saturating_sub(*told);
            *told = now;
            match tier {
                Some(tier) => metrics::counter!(name, "tier" => tier).increment(added),
                None => metrics::counter!(name).increment(added),
            }
        }
        // Of all loaders together, so by how many they are more or fewer.
        let more = entries as f64 - told.entries as f64;
        told.entries = entries;
        metrics::gauge!("barge.loader.entries").increment(more);
    }
}
