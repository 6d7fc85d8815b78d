//! The numbers a user sees of a loader.

use std::time::Duration;

use super::{Inner, LoaderKey, LoaderValue};
use crate::cache::counts::get;

/// What a loader did so far.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LoaderStatistics {
    /// Keys that callers asked for, each time they did.
    pub requests: u64,
    /// Of those, answered from this process's memory.
    pub memory_hits: u64,
    /// Keys that this process's memory, where it keeps any, didn't have when their batch was answered.
    pub memory_misses: u64,
    /// Keys that the shared cache had.
    pub shared_hits: u64,
    /// Keys that the shared cache was asked for and didn't have.
    pub shared_misses: u64,
    /// Keys that were looked up in the store.
    pub store_keys: u64,
    /// Look-ups in the store, retries among them.
    pub look_ups: u64,
    /// Of the keys looked up in the store, those without a row.
    pub absent: u64,
    /// Batches of keys that were answered.
    pub batches: u64,
    /// Keys in those batches.
    pub batched_keys: u64,
    /// Requests for a key that was in the open batch already, counted when that was looked up.
    pub joined: u64,
    /// Keys that were waited for because another look-up of this loader was reading them.
    pub memory_waits: u64,
    /// Keys that were waited for because another process was reading them.
    pub shared_waits: u64,
    /// Keys that weren't asked of the shared cache, because this process wrote them lately.
    pub bypasses: u64,
    /// Keys read anew before they expired.
    pub refreshes: u64,
    /// Keys answered with an expired entry because the store couldn't be reached.
    pub stale: u64,
    /// Entries dropped from memory to make room.
    pub evictions: u64,
    /// Entries in memory now, about.
    pub entries: u64,
    /// Keys answered with an error.
    pub errors: u64,
    /// Calls of the shared cache that failed.
    pub shared_errors: u64,
    /// Calls of the shared cache that weren't made because it had failed before.
    pub shared_skipped: u64,
    /// Keys warmed.
    pub warmed: u64,
    /// Keys that wait for the next look-up.
    pub waiting: u64,
    /// Time in batches, added up.
    pub batch_time: Duration,
}

impl LoaderStatistics {
    /// Keys a batch, on average; 0 before the first.
    pub fn keys_per_batch(&self) -> f64 {
        if self.batches == 0 { 0.0 } else { self.batched_keys as f64 / self.batches as f64 }
    }

    /// Look-ups that one for each request would have taken beyond those made.
    pub fn look_ups_saved(&self) -> u64 {
        self.requests.saturating_sub(self.look_ups)
    }

    /// Keys that a cache had, of those and the ones looked up in the store, for refreshes and warming, too; between 0 and 1. A key that several ask for at once
    /// counts once, except for hits in memory, which count for each request.
    pub fn hit_rate(&self) -> f64 {
        let hits = self.memory_hits + self.shared_hits;
        let all = hits + self.store_keys;
        if all == 0 { 0.0 } else { hits as f64 / all as f64 }
    }

    pub(super) fn of<K: LoaderKey, V: LoaderValue>(inner: &Inner<K, V>) -> Self {
        let engine = inner.engine.statistics();
        let counts = &inner.tiers.counts;
        let (local, tier) = (inner.tiers.local.as_ref(), inner.tiers.shared.as_ref());
        if let Some(local) = local {
            local.settle();
            // The facade is told the same.
            inner.tiers.tell();
        }
        let (requests, hits) = (get(&counts.requests), get(&counts.hits));
        LoaderStatistics {
            requests,
            memory_hits: hits + get(&counts.memory_hits),
            memory_misses: get(&counts.memory_misses),
            shared_hits: get(&counts.shared_hits),
            shared_misses: get(&counts.shared_misses),
            store_keys: get(&counts.store_keys),
            look_ups: get(&counts.store_calls),
            absent: get(&counts.absent),
            batches: engine.flushes,
            batched_keys: engine.committed + engine.rejected,
            joined: get(&counts.joined),
            memory_waits: get(&counts.memory_waits),
            shared_waits: get(&counts.waits),
            bypasses: get(&counts.bypasses),
            refreshes: get(&counts.refreshes),
            stale: get(&counts.stale),
            evictions: local.map_or(0, |local| local.evictions()),
            entries: local.map_or(0, |local| local.entries()),
            errors: get(&counts.errors),
            shared_errors: tier.map_or(0, |tier| get(&tier.errors)),
            shared_skipped: tier.map_or(0, |tier| get(&tier.skipped)),
            warmed: get(&counts.warmed),
            waiting: engine.buffered,
            batch_time: engine.flush_time,
        }
    }
}
