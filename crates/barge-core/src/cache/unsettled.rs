//! Commits whose end is unknown: they may still come to be, and what is read until then may be older than they are.

use std::hash::Hash;
use std::time::Duration;

use hashbrown::HashMap;
use tokio::time::Instant;

/// For so long after its end became unknown a commit may still come to be.
const TIME: Duration = Duration::from_secs(30);
/// Of more keys than this, all are taken as unsettled.
const KEYS_MAX: usize = 1 << 16;

/// What may still change, and until when.
#[derive(Debug)]
pub(crate) struct Unsettled<K> {
    keys: HashMap<K, Instant>,
    /// Any key; and keys that have no row.
    all: Option<Instant>,
    absent: Option<Instant>,
    /// When the last of them is settled.
    last: Option<Instant>,
    /// How long they are remembered after that.
    remembered: Duration,
}

impl<K: Hash + Eq + Clone> Unsettled<K> {
    pub(crate) fn new(remembered: Duration) -> Self {
        Unsettled { keys: HashMap::new(), all: None, absent: None, last: None, remembered }
    }

    pub(crate) fn add(&mut self, keys: &[K], now: Instant) {
        if self.last.is_some_and(|last| last + self.remembered < now) {
            self.keys.clear();
        }
        if self.keys.len() + keys.len() > KEYS_MAX {
            self.keys.clear();
            return self.add_all(now);
        }
        self.last = Some(now + TIME);
        self.keys.extend(keys.iter().map(|key| (key.clone(), now + TIME)));
    }

    pub(crate) fn add_absent(&mut self, now: Instant) {
        (self.absent, self.last) = (Some(now + TIME), Some(now + TIME));
    }

    pub(crate) fn add_all(&mut self, now: Instant) {
        (self.all, self.last) = (self.all.max(Some(now + TIME)), self.last.max(Some(now + TIME)));
    }

    /// Whether what was read of a key from `since` on may be older than a commit that comes late.
    pub(crate) fn concerns(&self, key: &K, has_row: bool, since: Instant) -> bool {
        let open = |until: Option<Instant>| until.is_some_and(|until| until > since);
        open(self.last)
            && (open(self.all) || (!has_row && open(self.absent)) || open(self.keys.get(key).copied()))
    }

    /// Whether what others read of a key, and keep for as long as this remembers, may be older.
    pub(crate) fn concerned(&self, key: &K, now: Instant) -> bool {
        let lately = |until| self.is_remembered(until, now);
        lately(self.last) && (lately(self.all) || lately(self.keys.get(key).copied()))
    }

    /// Whether what others read of any key, and keep for as long as this remembers, may be older.
    pub(crate) fn concerned_any(&self, now: Instant) -> bool {
        self.is_remembered(self.last, now)
    }

    fn is_remembered(&self, until: Option<Instant>, now: Instant) -> bool {
        until.is_some_and(|until| until + self.remembered >= now)
    }

    /// Whether anything may still change.
    pub(crate) fn is_open(&self, now: Instant) -> bool {
        self.last.is_some_and(|last| last > now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_unsettled_for_a_while_and_no_others() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut unsettled = Unsettled::new(Duration::from_secs(60));
        assert!(!unsettled.is_open(start) && !unsettled.concerns(&1, true, start));
        unsettled.add(&[1], start);
        assert!(unsettled.concerns(&1, true, at(29)) && !unsettled.concerns(&1, true, at(30)));
        assert!(!unsettled.concerns(&2, true, at(29)) && !unsettled.concerns(&2, false, at(29)));
        assert!(
            unsettled.concerned(&1, at(90))
                && !unsettled.concerned(&1, at(91))
                && !unsettled.concerned(&2, at(90))
        );
        assert!(unsettled.concerned_any(at(90)) && !unsettled.concerned_any(at(91)));
        unsettled.add_absent(at(10));
        assert!(unsettled.concerns(&2, false, at(39)) && !unsettled.concerns(&2, true, at(39)));
        unsettled.add(&(0..=KEYS_MAX).collect::<Vec<_>>(), at(200));
        assert!(unsettled.concerns(&usize::MAX, true, at(229)) && unsettled.keys.is_empty());
        assert!(unsettled.is_open(at(229)) && !unsettled.is_open(at(230)));
    }
}
