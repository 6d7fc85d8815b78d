//! Which keys are asked for most, remembered from one run to the next.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use bytes::Bytes;
use hashbrown::HashMap;

use super::builder::AGAIN;
use super::{Inner, Loader, LoaderKey, LoaderValue, WarmOptions};
use crate::cache::shared::{frame, unframe, wall_clock};

/// One request in so many is looked at.
const SAMPLE: u32 = 64;
/// So many keys are counted; after as many requests of the sample, or where there are more keys, the counts are halved and those that come to
/// nothing forgotten: what was asked for long ago counts for little.
const COUNTED_MAX: usize = 1 << 14;
/// So many keys are remembered.
const REMEMBERED: usize = 4_096;
/// How often they are written down.
const EVERY: Duration = Duration::from_secs(60);

/// What the files begin with: none that begins otherwise is written over.
const FIRST_LINE: &[u8] = b"barge keys\n";

/// Counts of keys, from a sample of the requests.
pub(crate) struct Frequent<K> {
    counts: Mutex<Counts<K>>,
    file: PathBuf,
    /// Whether the file was read: before, it must not be written.
    is_read: AtomicBool,
}

struct Counts<K> {
    keys: HashMap<K, u32>,
    /// Since they were last halved.
    sampled: usize,
}

impl<K: LoaderKey> Counts<K> {
    fn add(&mut self, key: &K) {
        self.sampled += 1;
        match self.keys.get_mut(key) {
            Some(count) => *count += 1,
            None => {
                self.keys.insert(key.clone(), 1);
            }
        }
        if self.sampled.max(self.keys.len()) > COUNTED_MAX {
            self.sampled = 0;
            self.keys.retain(|_, count| {
                *count /= 2;
                *count > 0
            });
        }
    }
}

impl<K: LoaderKey> Frequent<K> {
    pub(super) fn new(file: PathBuf) -> Self {
        let counts = Mutex::new(Counts { keys: HashMap::new(), sampled: 0 });
        Frequent { counts, file, is_read: AtomicBool::new(false) }
    }

    /// Keys of the run before: a run that ends soon doesn't make them forgotten.
    fn seed(&self, keys: &[K]) {
        let mut counts = self.lock();
        for key in keys {
            counts.keys.entry(key.clone()).or_insert(1);
        }
        self.is_read.store(true, Ordering::Release);
    }

    /// Counts a request, if it is one of the sample.
    #[inline]
    pub(super) fn note(&self, key: &K) {
        // At random: requests may come in a pattern.
        if rand::random_ratio(1, SAMPLE) {
            self.add(key);
        }
    }

    #[cold]
    fn add(&self, key: &K) {
        self.lock().add(key);
    }

    /// The keys most asked for, most of all first.
    pub(super) fn top(&self, most: usize) -> Vec<K> {
        let mut counted: Vec<(K, u32)> =
            self.lock().keys.iter().map(|(key, count)| (key.clone(), *count)).collect();
        counted.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
        counted.into_iter().take(most).map(|(key, _)| key).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Counts<K>> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: LoaderKey, V: LoaderValue> Inner<K, V> {
    /// Writes the keys most asked for to their file; a failure is logged, and takes nothing with it.
    pub(super) async fn write_frequent(&self) {
        let Some(frequent) = self.frequent.as_ref().filter(|own| own.is_read.load(Ordering::Acquire)) else {
            return;
        };
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

    /// The keys of the run before. A file that isn't there has none, and neither has one of another table, of keys of other types, or cut off. One that
    /// isn't of this kind at all is an error: it would be written over.
    async fn read_frequent(&self, frequent: &Frequent<K>) -> std::io::Result<Vec<K>> {
        let file = frequent.file.clone();
        let read =
            tokio::task::spawn_blocking(move || fs::read(file)).await.map_err(std::io::Error::other)?;
        let bytes = match read {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            read => read?,
        };
        let Some((name, _)) = self.tiers.encode_keys(&[]) else { return Ok(Vec::new()) };
        let Some(framed) = bytes.strip_prefix(FIRST_LINE) else {
            return match bytes.is_empty() {
                true => Ok(Vec::new()),
                false => Err(std::io::Error::other("it holds something else")),
            };
        };
        let rows = unframe(&name, framed).map(|framed| framed.rows).unwrap_or_default();
        Ok(self.tiers.decode_keys(&rows))
    }
}

/// Warms the keys of the run before, and writes down this one's from time to time, until the loader is gone.
pub(super) async fn keep<K: LoaderKey, V: LoaderValue>(inner: Weak<Inner<K, V>>) {
    while let Some(own) = inner.upgrade() {
        match own.tiers.begin().await {
            Ok(()) => {
                warm(own).await;
                break;
            }
            Err(error) => tracing::warn!(%error, "the keys most asked for can't be warmed yet"),
        }
        drop(own);
        tokio::time::sleep(AGAIN).await;
    }
    loop {
        tokio::time::sleep(EVERY).await;
        let Some(inner) = inner.upgrade() else { return };
        inner.write_frequent().await;
    }
}

async fn warm<K: LoaderKey, V: LoaderValue>(inner: Arc<Inner<K, V>>) {
    let Some(frequent) = &inner.frequent else { return };
    let keys = match inner.read_frequent(frequent).await {
        Ok(keys) => keys,
        Err(error) => {
            let file = frequent.file.display();
            return tracing::warn!(%error, %file, "the keys most asked for can't be read, and will not be written");
        }
    };
    frequent.seed(&keys);
    if keys.is_empty() {
        return;
    }
    match (Loader { inner }).warm(keys, WarmOptions::default()).await {
        Ok(warmed) => tracing::info!(keys = warmed.keys, found = warmed.found, "warmed"),
        Err(error) => tracing::debug!(%error, "warming ended early"),
    }
}

/// Under another name first, so that the file is whole at any time.
fn write(file: &Path, name: &str, rows: &[Bytes]) -> std::io::Result<()> {
    static WRITTEN: AtomicU64 = AtomicU64::new(0);
    let nth = WRITTEN.fetch_add(1, Ordering::Relaxed);
    let mut beside = file.as_os_str().to_owned();
    beside.push(format!(".{}.{nth}.partial", std::process::id()));
    let bytes = [FIRST_LINE, &frame(name, wall_clock(), &[], rows)].concat();
    let written = fs::write(&beside, bytes).and_then(|()| fs::rename(&beside, file));
    if written.is_err() {
        let _ = fs::remove_file(&beside);
    }
    written
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
        assert!(frequent.lock().keys.len() <= COUNTED_MAX);
        let top = frequent.top(7);
        assert!(top.iter().filter(|key| **key < 7).count() >= 5, "{top:?}");
    }
    #[test]
    fn a_short_run_forgets_none_of_the_run_before_and_a_long_one_all_that_nobody_asks_for() {
        let frequent = Frequent::new(PathBuf::new());
        frequent.seed(&(0..100_u64).collect::<Vec<_>>());
        (0..1_000).for_each(|_| frequent.note(&1_000));
        let top = frequent.top(REMEMBERED);
        assert_eq!((top.len(), top[0]), (101, 1_000));
        (0..COUNTED_MAX as u32 * SAMPLE * 2).for_each(|_| frequent.note(&1_000));
        assert_eq!(frequent.top(REMEMBERED), [1_000]);
    }
}
