//! The keys of one batch on their way through the tiers.

use std::sync::atomic::AtomicU64;

use bytes::Bytes;
use hashbrown::HashMap;
use tokio::time::Instant;

use super::local::{LookingUp, Read};
use crate::Result;
use crate::engine::loader::{LoaderKey, LoaderValue};

/// A key that is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    /// By somebody who waits.
    Loaded,
    /// To be read anew, whatever is kept of it.
    Refreshed,
}

/// What a batch came to.
pub(crate) struct Resolved<K, V> {
    pub(crate) answers: Vec<Result<Option<V>>>,
    /// Calls of the store.
    pub(crate) calls: u64,
    /// Keys that are to be read anew in the background.
    pub(crate) due: Vec<K>,
}

/// The keys of one batch, and their answers as they come.
pub(super) struct Round<'a, K: LoaderKey, V: LoaderValue> {
    pub(super) keys: &'a [K],
    pub(super) asked: &'a [Asked],
    pub(super) answers: Vec<Option<Result<Option<V>>>>,
    pub(super) looking_up: Option<LookingUp<'a, K, V>>,
    /// Until when the look-up may take.
    pub(super) until: Instant,
    /// Calls of the store so far.
    pub(super) calls: &'a AtomicU64,
    /// Keys that another look-up of this process is reading, in the order of their places.
    pub(super) aside: Vec<usize>,
    /// What lives in the shared cache of keys that are to be read anew.
    pub(super) live: HashMap<usize, Option<V>>,
    /// The places of keys to read anew in the background.
    pub(super) due: Vec<usize>,
}

impl<K: LoaderKey, V: LoaderValue> Round<'_, K, V> {
    /// Keeps what was read of a key in memory.
    pub(super) fn keep(&self, place: usize, value: &Option<V>, bytes: usize, since: Option<Instant>) {
        if let Some(looking_up) = &self.looking_up {
            let since = since.unwrap_or(looking_up.since);
            looking_up.keep(&self.keys[place], Read { value: value.clone(), bytes, since });
        }
    }

    /// Until when others may be asked or waited for, so that the store is left the rest of the time.
    pub(super) fn half_of_the_time(&self) -> Instant {
        let now = Instant::now();
        now + self.until.saturating_duration_since(now) / 2
    }

    /// The keys that are unanswered, and not left to another look-up.
    pub(super) fn open(&self) -> Vec<usize> {
        let is_open =
            |place: &usize| self.answers[*place].is_none() && self.aside.binary_search(place).is_err();
        (0..self.keys.len()).filter(is_open).collect()
    }
}

/// A key's name in the shared cache.
#[derive(Clone)]
pub(super) struct Named {
    pub(super) place: usize,
    pub(super) name: String,
}

/// What the shared cache doesn't have: keys that this process fills, and keys that others are about to fill, both in the order of their places.
#[derive(Default)]
pub(super) struct Waiting {
    pub(super) granted: Vec<Named>,
    pub(super) held: Vec<Named>,
    pub(super) mark: Bytes,
    pub(super) token: String,
}

/// Entries to fill, by their place among the granted leases.
#[derive(Default)]
pub(super) struct Fills {
    pub(super) since: i64,
    pub(super) entries: Vec<(usize, Vec<Bytes>)>,
}
