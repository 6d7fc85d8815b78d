//! Keys that look-ups of this process are reading: another one that begins meanwhile waits for what they keep of them, and doesn't read them too.
//!
//! Who waited asks the memory again, and so gets nothing that a write since has dropped.

use std::sync::{Mutex, MutexGuard, PoisonError};

use hashbrown::HashMap;
use hashbrown::hash_map::Entry;
use tokio::sync::watch;

use crate::engine::loader::LoaderKey;

pub(super) struct UnderWay<K>(Mutex<HashMap<K, Ends>>);

/// Fails when the look-up has ended.
type Ends = watch::Receiver<()>;

/// The keys of one look-up, until it is dropped.
pub(super) struct Claim<'a, K: LoaderKey> {
    under_way: &'a UnderWay<K>,
    keys: Vec<K>,
    // Dropped after the keys were given back, which is when those who wait wake up.
    _ends: watch::Sender<()>,
}

impl<K: LoaderKey> UnderWay<K> {
    pub(super) fn new() -> Self {
        UnderWay(Mutex::default())
    }

    /// Claims the keys that no other look-up reads. Gives the places of the others, and what to wait for.
    pub(super) fn claim(&self, keys: &[K], places: &[usize]) -> (Claim<'_, K>, Vec<(usize, Ends)>) {
        let (sender, ends) = watch::channel(());
        let mut claimed = Vec::with_capacity(places.len());
        let mut elsewhere = Vec::new();
        let mut under_way = self.lock();
        for &place in places {
            match under_way.entry(keys[place].clone()) {
                Entry::Occupied(other) => elsewhere.push((place, other.get().clone())),
                Entry::Vacant(free) => {
                    claimed.push(keys[place].clone());
                    free.insert(ends.clone());
                }
            }
        }
        drop(under_way);
        (Claim { under_way: self, keys: claimed, _ends: sender }, elsewhere)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<K, Ends>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: LoaderKey> Drop for Claim<'_, K> {
    fn drop(&mut self) {
        let mut under_way = self.under_way.lock();
        for key in &self.keys {
            under_way.remove(key);
        }
    }
}
