//! Which rows that were read may be kept: none that a commit of this process may have changed since.
//!
//! A look-up notes when it begins. A commit raises a fence around the keys it may change before COMMIT is sent, and lowers it when its end is known,
//! before anybody is told. What a look-up read of a key may be kept only where no fence is up around it, and none was lowered since the
//! look-up began: then the row was read before COMMIT was sent or after it was answered, and after the last one at that.
//!
//! Lowered fences are remembered while a look-up is under way that began before; there is rarely one, and then not for long.

use std::collections::BTreeSet;
use std::hash::Hash;

use hashbrown::HashMap;

/// Where more lowered fences than this are remembered, the oldest become one around everything.
const REMEMBERED_MAX: usize = 1 << 16;

#[derive(Debug)]
pub(crate) struct Fences<K> {
    /// Counts look-ups that began and fences that were lowered.
    now: u64,
    /// How many fences are up around a key, and around everything.
    raised: HashMap<K, u32>,
    raised_all: u32,
    /// When a key's last fence was lowered, and the last around everything.
    lowered: HashMap<K, u64>,
    lowered_all: u64,
    /// When the look-ups under way began, each at a time of its own.
    under_way: BTreeSet<u64>,
}

/// When a look-up began.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Began(u64);

impl<K: Hash + Eq + Clone> Fences<K> {
    pub(crate) fn new() -> Self {
        Fences {
            now: 0,
            raised: HashMap::new(),
            raised_all: 0,
            lowered: HashMap::new(),
            lowered_all: 0,
            under_way: BTreeSet::new(),
        }
    }

    pub(crate) fn begin(&mut self) -> Began {
        self.now += 1;
        self.under_way.insert(self.now);
        Began(self.now)
    }

    pub(crate) fn end(&mut self, began: Began) {
        self.under_way.remove(&began.0);
        if self.under_way.is_empty() {
            self.lowered.clear();
        }
    }

    /// Whether what a look-up read of a key may be kept.
    pub(crate) fn allows(&self, key: &K, began: Began) -> bool {
        self.raised_all == 0
            && self.lowered_all < began.0
            && !self.raised.contains_key(key)
            && self.lowered.get(key).is_none_or(|lowered| *lowered < began.0)
    }

    pub(crate) fn raise(&mut self, key: K) {
        *self.raised.entry(key).or_default() += 1;
    }

    pub(crate) fn raise_all(&mut self) {
        self.raised_all += 1;
    }

    pub(crate) fn lower(&mut self, key: K) {
        if let Some(raised) = self.raised.get_mut(&key) {
            *raised -= 1;
            if *raised == 0 {
                self.raised.remove(&key);
            }
        }
        if self.under_way.is_empty() {
            return;
        }
        self.now += 1;
        if self.lowered.len() >= REMEMBERED_MAX {
            self.forget_old();
        }
        self.lowered.insert(key, self.now);
    }

    pub(crate) fn lower_all(&mut self) {
        self.raised_all = self.raised_all.saturating_sub(1);
        self.now += 1;
        self.lowered_all = self.now;
        self.lowered.clear();
    }

    fn forget_old(&mut self) {
        let oldest = self.under_way.first().copied().unwrap_or(u64::MAX);
        self.lowered.retain(|_, lowered| *lowered > oldest);
        if self.lowered.len() >= REMEMBERED_MAX {
            self.lowered_all = self.now;
            self.lowered.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_read_around_a_commit_is_not_kept() {
        let mut fences = Fences::new();
        let before = fences.begin();
        assert!(fences.allows(&7, before));
        fences.raise(7);
        let meanwhile = fences.begin();
        assert!(!fences.allows(&7, before) && !fences.allows(&7, meanwhile), "a fence is up");
        fences.lower(7);
        let after = fences.begin();
        assert!(!fences.allows(&7, before) && !fences.allows(&7, meanwhile), "it was lowered since");
        assert!(fences.allows(&7, after) && fences.allows(&8, before));
    }

    #[test]
    fn fences_of_several_commits_stand_until_the_last_is_lowered() {
        let mut fences = Fences::new();
        fences.raise(7);
        fences.raise(7);
        fences.lower(7);
        let began = fences.begin();
        assert!(!fences.allows(&7, began));
        fences.lower(7);
        let began = fences.begin();
        assert!(fences.allows(&7, began));
    }

    #[test]
    fn a_fence_around_everything_is_around_every_key() {
        let mut fences = Fences::new();
        let before = fences.begin();
        fences.raise_all();
        assert!(!fences.allows(&7, before));
        fences.lower_all();
        assert!(!fences.allows(&7, before));
        let after = fences.begin();
        assert!(fences.allows(&7, after));
    }

    #[test]
    fn memory_is_bounded_also_while_a_look_up_hangs() {
        let mut fences = Fences::new();
        let hanging = fences.begin();
        for key in 0..REMEMBERED_MAX * 3 {
            fences.raise(key);
            fences.lower(key);
        }
        assert!(fences.lowered.len() <= REMEMBERED_MAX);
        assert!((0..REMEMBERED_MAX * 3).all(|key| !fences.allows(&key, hanging)));
        fences.end(hanging);
        assert!(fences.lowered.is_empty() && fences.raised.is_empty());
        let after = fences.begin();
        assert!(fences.allows(&0, after));
    }
}
