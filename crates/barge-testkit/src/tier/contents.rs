//! What a cache holds, and what calls do to it.

use std::collections::BTreeMap;

use barge_core::cache::Lease;
use bytes::Bytes;
use tokio::time::Instant;

/// Values and leases by key, each until its time. Ordered, so that what is evicted at random hangs on the seed alone.
#[derive(Clone, Debug, Default)]
pub(super) struct Contents {
    values: BTreeMap<String, (Bytes, Instant)>,
    leases: BTreeMap<String, (Hold, Instant)>,
}

/// What keeps others from filling.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Hold {
    /// The lease of a token.
    Lease(String),
    Bar,
}

impl Contents {
    pub(super) fn keys(&self) -> Vec<String> {
        self.values.keys().cloned().collect()
    }

    pub(super) fn read(&self, key: &str, now: Instant) -> Option<Bytes> {
        let (value, until) = self.values.get(key)?;
        (*until > now).then(|| value.clone())
    }

    /// `is_lost`: the lease is said to be granted, and is not kept.
    pub(super) fn lease(&mut self, key: &str, token: &str, until: Instant, is_lost: bool) -> Lease {
        match self.leases.get(key) {
            Some((Hold::Bar, _)) => Lease::Barred,
            Some((Hold::Lease(holder), _)) if holder == token => Lease::Granted,
            Some((Hold::Lease(_), _)) => Lease::Held,
            None if is_lost => Lease::Granted,
            None => {
                self.leases.insert(key.to_owned(), (Hold::Lease(token.to_owned()), until));
                Lease::Granted
            }
        }
    }

    pub(super) fn fill(&mut self, key: String, value: Bytes, token: &str, until: Instant) {
        if self.is_holder(&key, token) {
            self.leases.remove(&key);
            self.set(key, value, until);
        }
    }

    pub(super) fn release(&mut self, key: &str, token: &str) {
        if self.is_holder(key, token) {
            self.leases.remove(key);
        }
    }

    pub(super) fn invalidate(&mut self, key: String, until: Instant) {
        self.values.remove(&key);
        self.leases.insert(key, (Hold::Bar, until));
    }

    pub(super) fn set(&mut self, key: String, value: Bytes, until: Instant) {
        self.values.insert(key, (value, until));
    }

    pub(super) fn evict(&mut self, key: &str) {
        self.values.remove(key);
    }

    /// Removes one of all values, leases and bars by its number, counted round and round.
    pub(super) fn evict_nth(&mut self, number: u64) {
        let count = self.values.len() + self.leases.len();
        if count == 0 {
            return;
        }
        let number = (number % count as u64) as usize;
        if let Some(number) = number.checked_sub(self.values.len()) {
            let key = self.leases.keys().nth(number).cloned();
            key.map(|key| self.leases.remove(&key));
        } else {
            let key = self.values.keys().nth(number).cloned();
            key.map(|key| self.values.remove(&key));
        }
    }

    pub(super) fn expire(&mut self, now: Instant) {
        self.values.retain(|_, (_, until)| *until > now);
        self.leases.retain(|_, (_, until)| *until > now);
    }

    fn is_holder(&self, key: &str, token: &str) -> bool {
        matches!(self.leases.get(key), Some((Hold::Lease(holder), _)) if holder == token)
    }
}
