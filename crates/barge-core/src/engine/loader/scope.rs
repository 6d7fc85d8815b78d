//! A memory for one request.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hashbrown::HashMap;

use super::{Loader, LoaderKey, LoaderValue};
use crate::Result;

/// A memory for one request, as of a web server: what was loaded through it is not loaded again, whatever its loader keeps.
/// Made by [`Loader::scope`]; cheap to clone and share within the request.
///
/// What this process writes meanwhile through the loader's [`Database`](crate::Database) is loaded again, whether the loader has a cache or not, and so is what
/// the loader [clears](Loader::clear) or is [primed](Loader::prime) with; what other programs write is not. Nothing is remembered before the loader's first look-up, nor while a commit
/// is under way that began before it: of those the loader isn't told. A loader over a handler of the application's own isn't told of any write:
/// clearing is the caller's, of a scope or of the loader and all its scopes.
pub struct Scope<K: LoaderKey, V: LoaderValue> {
    loader: Loader<K, V>,
    memory: Arc<Mutex<HashMap<K, Remembered<V>>>>,
}

/// What was loaded, and the version of the table that the loader knew before.
struct Remembered<V> {
    value: Option<V>,
    version: u64,
}

impl<K: LoaderKey, V: LoaderValue> Clone for Scope<K, V> {
    fn clone(&self) -> Self {
        Scope { loader: self.loader.clone(), memory: Arc::clone(&self.memory) }
    }
}

impl<K: LoaderKey, V: LoaderValue> Scope<K, V> {
    pub(super) fn new(loader: Loader<K, V>) -> Self {
        Scope { loader, memory: Arc::default() }
    }

    /// What is under a key, as [`Loader::load`].
    ///
    /// # Errors
    /// As [`Loader::load`]; errors are not remembered.
    pub async fn load(&self, key: K) -> Result<Option<V>> {
        let version = self.version();
        if let Some(value) = self.remembered(&key, version) {
            return Ok(value);
        }
        let value = self.loader.load(key.clone()).await?;
        if let Some(version) = version {
            self.lock().insert(key, Remembered { value: value.clone(), version });
        }
        Ok(value)
    }

    /// What is under each key, as [`Loader::load_many`].
    ///
    /// # Errors
    /// As [`Loader::load_many`].
    pub async fn load_many(&self, keys: impl IntoIterator<Item = K>) -> Result<Vec<Option<V>>> {
        let version = self.version();
        let keys: Vec<K> = keys.into_iter().collect();
        let mut values: Vec<Option<Option<V>>> =
            keys.iter().map(|key| self.remembered(key, version)).collect();
        let asking: Vec<usize> = (0..keys.len()).filter(|&place| values[place].is_none()).collect();
        let loaded = self.loader.load_many(asking.iter().map(|&place| keys[place].clone())).await;
        let loaded = loaded.map_err(|error| error.map_row(|row| asking.get(row).copied()))?;
        let mut memory = self.lock();
        for (place, value) in asking.into_iter().zip(loaded) {
            if let Some(version) = version {
                memory.insert(keys[place].clone(), Remembered { value: value.clone(), version });
            }
            values[place] = Some(value);
        }
        Ok(values.into_iter().map(Option::flatten).collect())
    }

    /// Remembers a value that is at hand, once the loader has looked something up.
    pub fn prime(&self, key: K, value: V) {
        if let Some(version) = self.version() {
            self.lock().insert(key, Remembered { value: Some(value), version });
        }
    }

    /// Forgets a key.
    pub fn clear(&self, key: &K) {
        self.lock().remove(key);
    }

    /// The loader beneath.
    pub fn loader(&self) -> &Loader<K, V> {
        &self.loader
    }

    /// `None` where nothing may be remembered.
    fn version(&self) -> Option<u64> {
        self.loader.inner.tiers.version()
    }

    fn remembered(&self, key: &K, version: Option<u64>) -> Option<Option<V>> {
        let version = version?;
        let memory = self.lock();
        let remembered = memory.get(key).filter(|remembered| remembered.version == version)?;
        Some(remembered.value.clone())
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<K, Remembered<V>>> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: LoaderKey, V: LoaderValue> std::fmt::Debug for Scope<K, V> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Scope").field("remembered", &self.lock().len()).finish_non_exhaustive()
    }
}
