//! Keys asked for one by one are looked up together, through caches. See [`Loader`].

mod builder;
pub(crate) mod frequent;
mod open;
mod scope;
mod statistics;
mod warm;

use std::hash::Hash;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures::FutureExt;
use tokio::time::Instant;

use super::answer::Ticket;
use super::{Engine, Flushed, Flusher};
use crate::cache::counts::count;
use crate::cache::local::{Kept, Local};
use crate::cache::round::{Asked, Resolved};
use crate::cache::tiers::Tiers;
pub use crate::database::loading::{ByColumns, ByKey};
use crate::{Error, ErrorKind, Result};
pub use builder::{Handler, LoaderBuilder};
pub(crate) use builder::{Settings, start, started};
use frequent::Frequent;
use open::{Answers, Open, Sealed};
pub use scope::Scope;
pub use statistics::LoaderStatistics;
pub use warm::{Progress, WarmOptions, Warmed};

/// Looks keys up together that were asked for one by one: a hundred `load`s in flight are one statement.
///
/// Keys that are asked for while a look-up is under way form the next one; so a lone key is looked up at once, and under load batches grow by
/// themselves. A key asked for twice is looked up once, and one key's error is that key's alone. Cheap to clone and share.
///
/// With a [`Cache`](crate::Cache), rows are kept. **After a write through the same [`Database`](crate::Database) was acknowledged, no `load` by
/// key that begins later in this process gives an older row**, whatever the caches do; docs/guarantees.md says by what means, and what is bounded
/// by the time to live alone.
///
/// ```
/// # extern crate barge_core as barge;
/// use std::sync::Arc;
///
/// use barge_core::{Database, FromRow, Record, Result};
///
/// #[derive(Record, FromRow)]
/// #[record(table = "accounts")]
/// struct Account {
///     #[record(key)]
///     id: i64,
///     balance: i64,
/// }
///
/// # async fn transfer(db: &Database) -> Result<()> {
/// let accounts = db.loader::<Account>().start();
/// // One statement for both, and for whatever other tasks ask for meanwhile.
/// let (from, to) = tokio::join!(accounts.load(1), accounts.load(2));
/// let (from, to): (Option<Arc<Account>>, Option<Arc<Account>>) = (from?, to?);
/// # Ok(())
/// # }
/// ```
pub struct Loader<K: LoaderKey, V: LoaderValue> {
    inner: Arc<Inner<K, V>>,
}

/// What keys of a loader can be.
pub trait LoaderKey: Hash + Eq + Clone + Send + Sync + 'static {}

impl<T: Hash + Eq + Clone + Send + Sync + 'static> LoaderKey for T {}

/// What a loader can give; it is cloned for everyone who asks, so it is best an `Arc`.
pub trait LoaderValue: Clone + Send + Sync + 'static {}

impl<T: Clone + Send + Sync + 'static> LoaderValue for T {}

struct Inner<K: LoaderKey, V: LoaderValue> {
    engine: Arc<Engine<Open<K, V>>>,
    tiers: Arc<Tiers<K, V>>,
    /// Which keys are asked for most, where that is remembered.
    frequent: Option<Frequent<K>>,
}

impl<K: LoaderKey, V: LoaderValue> Drop for Inner<K, V> {
    fn drop(&mut self) {
        self.engine.close_soon();
    }
}

impl<K: LoaderKey, V: LoaderValue> Clone for Loader<K, V> {
    fn clone(&self) -> Self {
        Loader { inner: Arc::clone(&self.inner) }
    }
}

impl<K: LoaderKey, V: LoaderValue> Loader<K, V> {
    /// What is under a key; `None` where there is nothing.
    ///
    /// Dropping the future takes nothing back: the key is looked up, and kept where there is a cache.
    ///
    /// # Errors
    /// The key's own, or the look-up's; `BufferFull`, `Closed`.
    pub async fn load(&self, key: K) -> Result<Option<V>> {
        count(&self.inner.tiers.counts.requests, 1);
        self.note(&key);
        if let Some(kept) = self.kept(&key) {
            return Ok(kept.value.clone());
        }
        let mut key = Some(key);
        let add = |open: &mut Open<K, V>| {
            let place = key.take().map_or(0, |key| open.ask(key, Asked::Loaded));
            Ok(open.ticket(place))
        };
        let mut ticket = self.inner.engine.add(add).await?;
        ticket.answered().await;
        answer(&ticket, ticket.index)
    }

    /// What is under each key, in the order of the keys.
    ///
    /// ```
    /// # use barge_core::{Loader, Requests};
    /// # async fn page(names: Loader<(i64, String), String>) -> barge_core::Result<()> {
    /// // Keys of several columns are tuples.
    /// let keys = ["EUR", "USD"].map(|currency| (7, currency.to_owned()));
    /// let found: Vec<Option<String>> = names.load_many(keys).await?;
    /// assert_eq!(found.len(), 2);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// The first key's that failed, as [`load`](Loader::load), with the key's place among these as its [`row`](Error::row) where it isn't all keys' error;
    /// [`load_each`](Loader::load_each) gives each key its own.
    pub async fn load_many(&self, keys: impl IntoIterator<Item = K>) -> Result<Vec<Option<V>>> {
        let answers = self.load_each(keys).await.into_iter().enumerate();
        let of_key = |place: usize, error: Error| match error.is_whole() {
            true => error,
            false => error.with_row(place as u64),
        };
        answers.map(|(place, answer)| answer.map_err(|error| of_key(place, error))).collect()
    }

    /// What is under each key or why that can't be told, in the order of the keys.
    ///
    /// ```
    /// # use barge_core::{Error, ErrorKind, Loader, Requests};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// let halves = Loader::builder(|keys: Requests<u64>| async move {
    ///     let half = |key: &u64| match key % 2 {
    ///         0 => Ok(Some(key / 2)),
    ///         _ => Err(Error::new(ErrorKind::InvalidValue, "odd")),
    ///     };
    ///     Ok(keys.iter().map(half).collect())
    /// })
    /// .start();
    /// let answers = halves.load_each([8, 9]).await;
    /// assert!(matches!(answers[0], Ok(Some(4))));
    /// assert_eq!(answers[1].as_ref().unwrap_err().kind(), ErrorKind::InvalidValue);
    /// # }
    /// ```
    pub async fn load_each(&self, keys: impl IntoIterator<Item = K>) -> Vec<Result<Option<V>>> {
        self.ask(keys.into_iter().inspect(|key| self.note(key))).await
    }

    async fn ask(&self, keys: impl Iterator<Item = K>) -> Vec<Result<Option<V>>> {
        let mut answers: Vec<Option<Result<Option<V>>>> = Vec::new();
        let mut asking: Vec<(usize, K)> = Vec::new();
        for (place, key) in keys.enumerate() {
            match self.kept(&key) {
                Some(kept) => answers.push(Some(Ok(kept.value.clone()))),
                None => {
                    answers.push(None);
                    asking.push((place, key));
                }
            }
        }
        count(&self.inner.tiers.counts.requests, answers.len());
        let mut asking = asking.into_iter().peekable();
        let mut waiting = Vec::new();
        let most = self.inner.engine.limits().max_rows;
        while asking.peek().is_some() {
            let mut places = Vec::new();
            let added = self.inner.engine.add(|open: &mut Open<K, V>| {
                // The engine calls this once, when there is room.
                for (place, key) in asking.by_ref().take(most) {
                    places.push((place, open.ask(key, Asked::Loaded)));
                }
                Ok(Ticket::new(Arc::clone(open.cell()), 0))
            });
            match added.await {
                Ok(ticket) => waiting.push((ticket, places)),
                Err(error) => {
                    // Refused, so none was taken.
                    asking.by_ref().for_each(|(place, _)| answers[place] = Some(Err(error.clone())));
                }
            }
        }
        for (mut ticket, places) in waiting {
            ticket.answered().await;
            for (place, index) in places {
                answers[place] = Some(answer(&ticket, index));
            }
        }
        answers.into_iter().map(|answer| answer.unwrap_or_else(|| Err(unanswered()))).collect()
    }

    #[inline]
    fn note(&self, key: &K) {
        if let Some(frequent) = &self.inner.frequent {
            frequent.note(key);
        }
    }

    /// What is kept of the key in this process's memory; has it read anew where that is due.
    #[inline]
    fn kept(&self, key: &K) -> Option<Arc<Kept<V>>> {
        let local = self.inner.tiers.local.as_ref()?;
        let now = Instant::now();
        let Some(kept) = local.get(key, now) else { return self.kept_too_long(local, key, now) };
        count(&self.inner.tiers.counts.hits, 1);
        if kept.claim_refresh(now) {
            self.refresh(key);
        }
        Some(kept)
    }

    /// What is kept of the key though its time is over, while the store is known to be away and that may be served.
    fn kept_too_long(&self, local: &Local<K, V>, key: &K, now: Instant) -> Option<Arc<Kept<V>>> {
        let kept = if self.inner.tiers.is_away() { local.get_stale(key, now) } else { None };
        count(&self.inner.tiers.counts.stale, usize::from(kept.is_some()));
        count(&self.inner.tiers.counts.memory_misses, usize::from(kept.is_some()));
        kept
    }

    /// Has a key read anew with the next batch, if there is room.
    #[cold]
    fn refresh(&self, key: &K) {
        let offered = self.inner.engine.offer(|open: &mut Open<K, V>| {
            open.ask(key.clone(), Asked::Refreshed);
            Ok(())
        });
        if let Ok(Some(())) = offered {
            count(&self.inner.tiers.counts.refreshes, 1);
        }
    }

    /// Keeps a value that is at hand in memory, as if it had just been looked up, and drops what look-ups under way read of the key. Does nothing without a cache,
    /// before the loader's first look-up, when nothing tells it of writes yet, and for a row under another key than its own.
    ///
    /// It is the caller's word that the value is not older than what was written; a value that was read while this
    /// process was writing may be.
    ///
    /// ```
    /// # use std::time::Duration;
    /// # use barge_core::{Cache, Loader, Requests};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> barge_core::Result<()> {
    /// # let handler = |keys: Requests<u64>| async move { Ok(keys.iter().map(|key| Ok(Some(key + 1))).collect()) };
    /// let loader = Loader::builder(handler).cache(Cache::new(Duration::from_secs(30))).start();
    /// loader.prime(7, 70);
    /// assert_eq!(loader.load(7).await?, Some(70));
    /// loader.clear(&7);
    /// assert_eq!(loader.load(7).await?, Some(8));
    /// # Ok(())
    /// # }
    /// ```
    pub fn prime(&self, key: K, value: V) {
        self.inner.tiers.prime(key, value);
    }

    /// Forgets what is kept of a key, also in the shared cache: for writes that Barge doesn't hear of. Only of the key as it is spelled here: where the
    /// database takes keys as equal that differ, as under NOCASE, [`clear_all`](Self::clear_all) forgets them all.
    pub fn clear(&self, key: &K) {
        self.inner.tiers.forget(key);
    }

    /// Forgets all that is kept, also in the shared cache.
    pub fn clear_all(&self) {
        self.inner.tiers.forget_all();
    }

    /// A memory for one request: what was loaded through it is not loaded again, cache or not. See [`Scope`].
    ///
    /// ```
    /// # use barge_core::{Loader, Requests};
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> barge_core::Result<()> {
    /// # let handler = |keys: Requests<u64>| async move { Ok(keys.iter().map(|key| Ok(Some(key + 1))).collect()) };
    /// let loader = Loader::builder(handler).start();
    /// let request = loader.scope();
    /// assert_eq!((request.load(7).await?, request.load(7).await?), (Some(8), Some(8)));
    /// assert_eq!(loader.statistics().look_ups, 1);
    /// # Ok(())
    /// # }
    /// ```
    pub fn scope(&self) -> Scope<K, V> {
        Scope::new(self.clone())
    }

    /// Takes no more keys, and waits until those that were asked for are answered, and until the shared cache was told of what this process wrote and read:
    /// for that no longer than a look-up may take. What memory keeps is still given. May be called again.
    pub async fn close(&self) -> LoaderStatistics {
        self.inner.engine.close().await;
        self.inner.write_frequent().await;
        self.inner.tiers.settled().await;
        self.inner.tiers.tell();
        self.statistics()
    }

    /// What the loader did so far.
    pub fn statistics(&self) -> LoaderStatistics {
        LoaderStatistics::of(&self.inner)
    }
}

impl<K: LoaderKey, V: LoaderValue> std::fmt::Debug for Loader<K, V> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Loader")
            .field("waiting", &self.inner.engine.statistics().buffered)
            .finish_non_exhaustive()
    }
}

fn answer<V: Clone>(ticket: &Ticket<Answers<V>>, index: u32) -> Result<Option<V>> {
    match ticket.cell().get().and_then(|answers| answers.get(index as usize)) {
        Some(answer) => answer.clone(),
        None => Err(unanswered()),
    }
}

/// That a key has no row is never guessed: this is a mistake of ours.
fn unanswered() -> Error {
    Error::new(ErrorKind::Statement, "the key was not answered")
}

/// Looks batches of keys up.
struct Lane<K: LoaderKey, V: LoaderValue> {
    tiers: Arc<Tiers<K, V>>,
}

impl<K: LoaderKey, V: LoaderValue> Flusher<Open<K, V>> for Lane<K, V> {
    type Reach = Independent;

    fn reach(&self, _open: &Open<K, V>) -> Independent {
        Independent
    }

    async fn flush(&mut self, mut sealed: Sealed<K, V>) -> Flushed {
        let awaited = sealed.is_awaited();
        count(&self.tiers.counts.joined, sealed.joined);
        let keys = sealed.take_keys();
        let many = keys.len();
        // What reading a row breaks off has changed nothing here.
        let resolving = AssertUnwindSafe(self.tiers.resolve(keys, &sealed.asked));
        let Resolved { answers, calls, due } = resolving.catch_unwind().await.unwrap_or_else(|_| {
            let panicked = Error::new(ErrorKind::Handler, "what reads the rows of a look-up panicked");
            Resolved { answers: vec![Err(panicked); many], calls: 0, due: Vec::new() }
        });
        let rejected = answers.iter().filter(|answer| answer.is_err()).count() as u64;
        let committed = answers.len() as u64 - rejected;
        sealed.answer(answers);
        self.tiers.refresh(due);
        self.tiers.tell();
        Flushed { committed, rejected, statements: calls, round_trips: calls, awaited, ..Flushed::default() }
    }
}

/// Look-ups go beside any others.
struct Independent;

impl super::Reach for Independent {
    fn allows(&self, _other: &Self) -> bool {
        true
    }
}
