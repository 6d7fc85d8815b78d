//! Which keys this process wrote lately: a shared cache may still hold older rows of them.
//!
//! Keys are remembered by their hash: two keys with one hash only cost a look-up in the store. They are kept in a few sets by the time at which
//! they were written, and a set is forgotten as a whole.

use std::hash::{BuildHasher, Hash, RandomState};
use std::time::Duration;

use hashbrown::HashSet;
use tokio::time::Instant;

/// In how many steps keys are forgotten.
const STEPS: u32 = 4;
/// Where more keys than this were written, all are taken as written.
const KEYS_MAX: usize = 1 << 20;

#[derive(Debug)]
pub(crate) struct Written {
    /// How long a key counts as written.
    time: Duration,
    hasher: RandomState,
    /// The sets, the oldest first, with the time until which keys were added to each.
    sets: Vec<(Instant, HashSet<u64>)>,
    all_until: Option<Instant>,
}

impl Written {
    pub(crate) fn new(time: Duration) -> Self {
        Written { time, hasher: RandomState::new(), sets: Vec::new(), all_until: None }
    }

    pub(crate) fn add<K: Hash>(&mut self, keys: &[K], now: Instant) {
        self.forget(now);
        if self.sets.iter().map(|(_, keys)| keys.len()).sum::<usize>() + keys.len() > KEYS_MAX {
            self.sets.clear();
            self.add_all(now);
            return;
        }
        if self.sets.last().is_none_or(|(until, _)| *until < now) {
            self.sets.push((now + self.time / STEPS, HashSet::new()));
        }
        if let Some((_, set)) = self.sets.last_mut() {
            set.extend(keys.iter().map(|key| self.hasher.hash_one(key)));
        }
    }

    pub(crate) fn add_all(&mut self, now: Instant) {
        self.all_until = self.all_until.max(Some(now + self.time));
    }

    pub(crate) fn contains<K: Hash>(&mut self, key: &K, now: Instant) -> bool {
        self.forget(now);
        if self.all_until.is_some_and(|until| until >= now) {
            return true;
        }
        let hash = self.hasher.hash_one(key);
        self.sets.iter().any(|(_, set)| set.contains(&hash))
    }

    fn forget(&mut self, now: Instant) {
        self.sets.retain(|(until, _)| *until + self.time >= now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_counts_as_written_for_the_time_and_no_more_than_a_step_longer() {
        let start = Instant::now();
        let time = Duration::from_secs(60);
        let mut written = Written::new(time);
        for second in 0..600 {
            let now = start + Duration::from_secs(second);
            written.add(&[second], now);
            let mut is_written = |key| written.contains(&key, now);
            assert!((second.saturating_sub(60)..=second).all(&mut is_written), "at {second}");
            assert!((0..second.saturating_sub(76)).all(|key| !is_written(key)), "at {second}");
        }
        assert!(written.sets.len() <= STEPS as usize + 2);
    }

    #[test]
    fn too_many_keys_are_taken_as_all() {
        let start = Instant::now();
        let mut written = Written::new(Duration::from_secs(60));
        written.add(&[1], start);
        assert!(!written.contains(&2, start));
        let keys: Vec<usize> = (0..KEYS_MAX).collect();
        written.add(&keys, start);
        assert!(written.contains(&usize::MAX, start + Duration::from_secs(60)));
        assert!(!written.contains(&usize::MAX, start + Duration::from_secs(61)));
    }
}
