//! The open buffer of a loader: distinct keys, and who asks for them.

use std::hash::{BuildHasher, Hash};
use std::sync::Arc;

use hashbrown::{DefaultHashBuilder, HashTable};

use super::super::answer::{Cell, Ticket};
use super::super::{Abandon, Buffer, Gathers, end_of_task};
use crate::cache::round::Asked;
use crate::{Error, ErrorKind, Result};

/// Each key's answer, by its place in the batch.
pub(super) type Answers<V> = Vec<Result<Option<V>>>;

/// Keys gather here, each once.
pub(super) struct Open<K, V> {
    keys: Vec<K>,
    asked: Vec<Asked>,
    /// Requests for a key that was here already.
    joined: usize,
    places: HashTable<u32>,
    hasher: DefaultHashBuilder,
    cell: Arc<Cell<Answers<V>>>,
}

/// A batch of keys. Dropped unanswered, as when the runtime ends, it answers that it was closed.
pub(super) struct Sealed<K, V> {
    keys: Vec<K>,
    pub(super) asked: Vec<Asked>,
    pub(super) joined: usize,
    cell: Arc<Cell<Answers<V>>>,
}

impl<K: Hash + Eq, V> Open<K, V> {
    pub(super) fn new() -> Self {
        Open {
            keys: Vec::new(),
            asked: Vec::new(),
            joined: 0,
            places: HashTable::new(),
            hasher: DefaultHashBuilder::default(),
            cell: Arc::new(Cell::default()),
        }
    }

    /// Adds a key, unless it is there. Gives its place.
    #[inline]
    pub(super) fn ask(&mut self, key: K, asked: Asked) -> u32 {
        let Open { keys, places, hasher, joined, .. } = self;
        let hash = hasher.hash_one(&key);
        let entry = places.entry(
            hash,
            |&place| keys[place as usize] == key,
            |&place| hasher.hash_one(&keys[place as usize]),
        );
        let next = keys.len() as u32;
        match entry {
            hashbrown::hash_table::Entry::Occupied(there) => {
                let place = *there.get();
                match asked {
                    Asked::Loaded => *joined += 1,
                    // Who refreshes a key has it read in any case.
                    Asked::Refreshed => self.asked[place as usize] = asked,
                }
                place
            }
            hashbrown::hash_table::Entry::Vacant(free) => {
                free.insert(next);
                self.keys.push(key);
                self.asked.push(asked);
                next
            }
        }
    }

    pub(super) fn ticket(&self, place: u32) -> Ticket<Answers<V>> {
        Ticket::new(Arc::clone(&self.cell), place)
    }

    pub(super) fn cell(&self) -> &Arc<Cell<Answers<V>>> {
        &self.cell
    }
}

impl<K, V> Buffer for Open<K, V>
where
    K: Hash + Eq + Send + Sync + 'static,
    V: Send + Sync + 'static,
{
    type Sealed = Sealed<K, V>;

    const GATHERS: Gathers = Gathers::Keys;

    fn rows(&self) -> usize {
        self.keys.len()
    }

    fn bytes(&self) -> usize {
        self.keys.len() * size_of::<K>()
    }

    fn seal(&mut self) -> Sealed<K, V> {
        self.places.clear();
        Sealed {
            keys: std::mem::take(&mut self.keys),
            asked: std::mem::take(&mut self.asked),
            joined: std::mem::take(&mut self.joined),
            cell: std::mem::replace(&mut self.cell, Arc::new(Cell::default())),
        }
    }
}

impl<K, V> Sealed<K, V> {
    pub(super) fn take_keys(&mut self) -> Vec<K> {
        std::mem::take(&mut self.keys)
    }

    pub(super) fn answer(&self, answers: Answers<V>) {
        self.cell.answer(answers);
    }

    fn fail(&self, error: &Error) {
        self.cell.answer(self.asked.iter().map(|_| Err(error.clone())).collect());
    }

    /// Whether anybody waits for the answers.
    pub(super) fn is_awaited(&self) -> bool {
        Arc::strong_count(&self.cell) > 1
    }
}

impl<K, V> Drop for Sealed<K, V> {
    fn drop(&mut self) {
        if self.cell.get().is_none() {
            let message = format!("{} before the keys were looked up", end_of_task());
            self.fail(&Error::new(ErrorKind::Closed, message));
        }
    }
}

impl<K: Send + Sync + 'static, V: Send + Sync + 'static> Abandon for Sealed<K, V> {
    fn abandon(self, why: &Error) {
        self.fail(why);
    }
}
