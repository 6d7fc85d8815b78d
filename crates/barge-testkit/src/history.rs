//! What rows were and may be by now, to hold against what is read of them.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// The states of some rows, by key from 0, each as it was written by one writer in this order: a number, or none where there is no row.
///
/// What is read of a row must be its state when its last write was acknowledged before the reading began, or a later one. All begin without a row.
///
/// ```
/// use barge_testkit::History;
///
/// let history = History::of(1);
/// let written = history.write(0, Some(7));
/// history.acknowledge(0, written);
/// let began = history.acknowledged(0);
/// history.write(0, None);
/// assert!(history.allows(0, began, Some(7)) && history.allows(0, began, None), "the second is under way");
/// assert!(!history.allows(0, began, Some(6)));
/// ```
#[derive(Debug)]
pub struct History(Vec<Mutex<States>>);

#[derive(Debug)]
struct States {
    all: Vec<Option<i64>>,
    /// The place of the last that was acknowledged.
    acknowledged: usize,
}

impl History {
    /// Of so many keys.
    pub fn of(keys: usize) -> Self {
        History((0..keys).map(|_| Mutex::new(States { all: vec![None], acknowledged: 0 })).collect())
    }

    /// A write is about to be sent. Gives its place among the key's.
    pub fn write(&self, key: i64, state: Option<i64>) -> usize {
        let mut states = self.states(key);
        states.all.push(state);
        states.all.len() - 1
    }

    /// The write at this place was acknowledged.
    pub fn acknowledge(&self, key: i64, place: usize) {
        let mut states = self.states(key);
        states.acknowledged = states.acknowledged.max(place);
    }

    /// The place of the last write that was acknowledged: noted before reading.
    pub fn acknowledged(&self, key: i64) -> usize {
        self.states(key).acknowledged
    }

    /// Whether the last write that was sent left a row.
    pub fn has_row(&self, key: i64) -> bool {
        self.states(key).all.last().copied().flatten().is_some()
    }

    /// Whether a reading that began at a place may have found this.
    pub fn allows(&self, key: i64, began: usize, found: Option<i64>) -> bool {
        self.states(key).all[began..].contains(&found)
    }

    fn states(&self, key: i64) -> MutexGuard<'_, States> {
        self.0[key as usize].lock().unwrap_or_else(PoisonError::into_inner)
    }
}
