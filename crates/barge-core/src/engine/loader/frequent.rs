//! Which keys are asked for most, remembered from one run to the next.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use bytes::Bytes;
use hashbrown::HashMap;

use super::{Loader, LoaderKey, LoaderValue, Shared, WarmOptions};
use crate::cache::shared::{frame, unframe, wall_clock};

/// One request in so many is looked at.
const SAMPLE: u64 = 64;
/// So many keys are counted; where there are more, the counts are halved and those that come to nothing forgotten.
const COUNTED_MAX: usize = 1 << 14;
/// So many keys are remembered.
const REMEMBERED: usize = 4_096;
/// How often they are written down.
const EVERY: Duration = Duration::from_secs(60);

/// Counts of keys, from a sample of the requests.
pub(crate) struct Frequent<K> {
    requests: AtomicU64,
    counts: Mutex<HashMap<K, u32>>,
    file: PathBuf,
}

impl<K: LoaderKey> Frequent<K> {
    pub(super) fn new(file: PathBuf) -> Self {
        Frequent { requests: AtomicU64::new(0), counts: Mutex::default(), file }
    }

    /// Counts a request, if it is one of the sample.
    #[inline]
    pub(super) fn note(&self, key: &K) {
        if self.requests.fetch_add(1, Ordering::Relaxed).is_multiple_of(SAMPLE) {
            self.add(key);
        }
    }

    #[cold]
    fn add(&self, key: &K) {
        let mut counts = self.lock();
        match counts.get_mut(key) {
            Some(count) => *count += 1,
            None => {
                counts.insert(key.clone(), 1);
            }
        }
        if counts.len() > COUNTED_MAX {
            counts.retain(|_, count| {
                *count /= 2;
                *count > 0
            });
        }
    }

    /// The keys most asked for, most of all first.
    pub(super) fn top(&self, most: usize) -> Vec<K> {
        let mut counted: Vec<(K, u32)> =
            self.lock().iter().map(|(key, count)| (key.clone(), *count)).collect();
        counted.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        counted.into_iter().take(most).map(|(key, _)| key).collect()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<K, u32>> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: LoaderKey, V: LoaderValue> Shared<K, V> {
    /// Writes the keys most asked for to their file; a failure is logged, and takes nothing with it.
    pub(super) async fn write_frequent(&self) {
        let Some(frequent) = &self.frequent else { return };
        let keys = frequent.top(REMEMBERED);
        if keys.is_empty() {
            return;
        }
        let Some((name, rows)) = self.tiers.encode_keys(&keys) else { return };
        let file = frequent.file.clone();
        let written = tokio::task::spawn_blocking(move || write(&file, &name, &rows));
        if let Ok(Err(error)) = written.await {
            let file = frequent.file.display();
            tracing::warn!(%error, %file, "the keys most asked for could not be written down");
        }
    }

    async fn read_frequent(&self) -> Vec<K> {
        let Some(frequent) = &self.frequent else { return Vec::new() };
        let file = frequent.file.clone();
        let Ok(Ok(bytes)) = tokio::task::spawn_blocking(move || fs::read(file)).await else {
            return Vec::new();
        };
        // Of another table, of keys of other types, or cut off: then there is nothing to warm.
        let Some((name, _)) = self.tiers.encode_keys(&[]) else { return Vec::new() };
        let rows = unframe(&name, &bytes).map(|framed| framed.rows).unwrap_or_default();
        self.tiers.decode_keys(&rows)
    }
}

/// Warms the keys of the run before, and writes down this one's from time to time, until the loader is gone.
pub(super) async fn keep<K: LoaderKey, V: LoaderValue>(shared: Weak<Shared<K, V>>) {
    if let Some(shared) = shared.upgrade()
        && shared.tiers.begin().await.is_ok()
    {
        let keys = shared.read_frequent().await;
        let count = keys.len();
        let loader = Loader { shared };
        match loader.warm(keys, WarmOptions::default()).await {
            Ok(warmed) if count > 0 => tracing::info!(keys = warmed.keys, found = warmed.found, "warmed"),
            Ok(_) => {}
            Err(error) => tracing::debug!(%error, "warming ended early"),
        }
    }
    loop {
        tokio::time::sleep(EVERY).await;
        let Some(shared) = shared.upgrade() else { return };
        let shared: Arc<Shared<K, V>> = shared;
        shared.write_frequent().await;
    }
}

/// Under another name first, so that the file is whole at any time.
fn write(file: &Path, name: &str, rows: &[Bytes]) -> std::io::Result<()> {
    let mut beside = file.as_os_str().to_owned();
    beside.push(format!(".{}.partial", std::process::id()));
    fs::write(&beside, frame(name, wall_clock(), &[], rows))?;
    fs::rename(&beside, file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_in_demand_come_first_and_memory_is_bounded() {
        let frequent = Frequent::new(PathBuf::new());
        for turn in 0..400_000_u64 {
            frequent.note(&(turn % 7));
            frequent.note(&(1_000 + turn));
        }
        assert!(frequent.lock().len() <= COUNTED_MAX);
        let top = frequent.top(7);
        assert!(top.iter().filter(|key| **key < 7).count() >= 5, "{top:?}");
    }
}
