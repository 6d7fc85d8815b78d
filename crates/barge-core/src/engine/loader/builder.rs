//! Setting up a loader.

use std::future::Future;
use std::path::PathBuf;
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;

use super::frequent::{Frequent, keep};
use super::open::Open;
use super::{Inner, Lane, Loader, LoaderKey, LoaderValue};
use crate::cache::Cache;
use crate::cache::local::Local;
use crate::cache::source::{Found, Source};
use crate::cache::tiers::{Cached, Tiers};
use crate::engine::limits::MAX_ROWS_LIMIT;
use crate::engine::{Engine, LANES_MAX, Limits, WhenFull};
use crate::{Error, ErrorKind, Requests, Result};

/// Sets up a [`Loader`]; made by [`Database::loader`](crate::Database::loader) or [`Loader::builder`].
#[must_use = "a loader begins with start()"]
pub struct LoaderBuilder<S> {
    pub(crate) source: S,
    pub(crate) settings: Settings,
}

/// What every loader is set up with.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) limits: Limits,
    pub(crate) in_flight: usize,
    pub(crate) timeout: Duration,
    pub(crate) cache: Option<Cache>,
    pub(crate) remember: Option<PathBuf>,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            limits: Limits { max_bytes: 1 << 30, ..Limits::default() },
            in_flight: 1,
            timeout: Duration::from_secs(10),
            cache: None,
            remember: None,
        }
    }
}

impl<S> LoaderBuilder<S> {
    pub(crate) fn of(source: S) -> Self {
        LoaderBuilder { source, settings: Settings::default() }
    }

    /// How many keys fill a look-up. Keys that come together, as by [`Loader::load_many`], may join one that is nearly full: a look-up has less
    /// than twice as many. Defaults to 10,000.
    pub fn max_keys(mut self, keys: usize) -> Self {
        self.settings.limits.max_rows = keys;
        self
    }

    /// The longest wait for more keys; see [`Limits::linger`]. Defaults to none: keys gather while the look-up before is under way.
    pub fn linger(mut self, linger: Duration) -> Self {
        self.settings.limits.linger = linger;
        self
    }

    /// What to do with a key when as many wait as one look-up holds. Defaults to waiting.
    pub fn when_full(mut self, when_full: WhenFull) -> Self {
        self.settings.limits.when_full = when_full;
        self
    }

    /// How many look-ups may be under way at once, each over a connection of its own: 1 to 64. Defaults to 1.
    ///
    /// Beside others a look-up starts when its keys are half of [`max_keys`](Self::max_keys), or the first has waited as long as the last look-up
    /// took and no longer than 5 ms. Rows of all of them are decoded by one task: what runs side by side are the database's answers.
    pub fn in_flight(mut self, look_ups: usize) -> Self {
        self.settings.in_flight = look_ups;
        self
    }

    /// How long a look-up may take: with its retries after passing failures, and the first one with what has to be asked of the database before. A key that
    /// is asked for while a look-up is under way waits for that one before its own: twice as long, and longer where more keys wait than one look-up takes.
    /// Defaults to 10 s. The future of a handler of your own is dropped then.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.settings.timeout = timeout;
        self
    }

    /// Keeps what was read. Defaults to keeping nothing.
    pub fn cache(mut self, cache: Cache) -> Self {
        self.settings.cache = Some(cache);
        self
    }

    /// Remembers in a file which keys are asked for most, and warms them when the loader starts, at most 10,000 a second: a process that starts
    /// anew isn't slow for its first users. They are counted from a sample, and written once a minute and by [`Loader::close`]. A file that can't be read
    /// or is another loader's is passed over; processes that share one write over each other's. Only for rows of a database, with a cache.
    ///
    /// ```
    /// # extern crate barge_core as barge;
    /// # use std::time::Duration;
    /// # use barge_core::{Cache, Database, FromRow, Record, Result};
    /// # #[derive(Record, FromRow)]
    /// # #[record(table = "orders")]
    /// # struct Order {
    /// #     #[record(key)]
    /// #     id: i64,
    /// # }
    /// # fn start(db: &Database) -> Result<()> {
    /// let cache = Cache::new(Duration::from_secs(30));
    /// let orders = db.loader::<Order>().cache(cache).remember("orders.keys").try_start::<i64>()?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn remember(mut self, file: impl Into<PathBuf>) -> Self {
        self.settings.remember = Some(file.into());
        self
    }
}

/// Looks keys up by the application's own means: see [`Loader::builder`].
pub struct Handler<K, V> {
    run: Box<dyn Fn(Requests<K>) -> Answering<V> + Send + Sync>,
    weigh: Option<Weigh<K, V>>,
}

/// How many bytes a key and its value take.
type Weigh<K, V> = Box<dyn Fn(&K, Option<&V>) -> usize + Send + Sync>;

/// A handler's call under way.
type Answering<V> = BoxFuture<'static, Result<Vec<Result<Option<V>>>>>;

impl<K: LoaderKey, V: LoaderValue> Loader<K, V> {
    /// Sets up a loader over a handler of the application's own: a call of another service, a query. It gives one answer a key, in their order;
    /// a key's error is that key's alone, and an error of the whole is tried again where it is [retryable](crate::Error::is_retryable).
    ///
    /// Nothing tells such a loader of writes: what a [`Cache`] keeps of it is dropped by [`clear`](Loader::clear) and by time alone.
    ///
    /// ```
    /// use barge_core::{Loader, Requests};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> barge_core::Result<()> {
    /// let squares = Loader::builder(|keys: Requests<u64>| async move {
    ///     Ok(keys.iter().map(|key| Ok((*key < 1_000).then(|| key * key))).collect())
    /// })
    /// .start();
    /// assert_eq!(squares.load(12).await?, Some(144));
    /// assert_eq!(squares.load_many([3, 5_000, 4]).await?, [Some(9), None, Some(16)]);
    /// # Ok(())
    /// # }
    /// ```
    pub fn builder<F, Fut>(handler: F) -> LoaderBuilder<Handler<K, V>>
    where
        F: Fn(Requests<K>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Vec<Result<Option<V>>>>> + Send + 'static,
    {
        LoaderBuilder::of(Handler { run: Box::new(move |keys| handler(keys).boxed()), weigh: None })
    }
}

impl<K: LoaderKey, V: LoaderValue> LoaderBuilder<Handler<K, V>> {
    /// How many bytes a key and its value take, for [`Cache::bytes`]; without a value, as where there is none, the key alone. What is on the heap counts:
    /// `|key: &String, value: Option<&Arc<str>>| key.len() + value.map_or(0, |value| value.len())`. Called for each value that is kept.
    pub fn weigh(mut self, weigh: impl Fn(&K, Option<&V>) -> usize + Send + Sync + 'static) -> Self {
        self.source.weigh = Some(Box::new(weigh));
        self
    }

    /// Starts the loader on the present tokio runtime.
    ///
    /// # Panics
    /// Where [`try_start`](Self::try_start) gives an error: use that for settings that come from outside. Outside a tokio runtime.
    pub fn start(self) -> Loader<K, V> {
        started(self.try_start())
    }

    /// Starts the loader on the present tokio runtime.
    ///
    /// # Errors
    /// `InvalidConfig` for a setting out of bounds, for [`Cache::bytes`] without [`weigh`](Self::weigh) and for [`remember`](Self::remember); `Unsupported` for a shared cache, which only a database's rows can be kept in.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn try_start(self) -> Result<Loader<K, V>> {
        let LoaderBuilder { source, settings } = self;
        if settings.remember.is_some() {
            let message = "keys are remembered as a database's rows have them, and not of a handler: leave `remember` out";
            return Err(Error::new(ErrorKind::InvalidConfig, message));
        }
        let cached = match settings.cache.clone() {
            None => None,
            Some(options) if options.shared.is_some() => {
                let message = "a shared cache keeps rows of a database, and not what a handler gives";
                return Err(Error::new(ErrorKind::Unsupported, message));
            }
            Some(options) => {
                options.validate()?;
                let local = Arc::new(Local::new(options.clone(), false));
                if local.counts_bytes() && source.weigh.is_none() {
                    let message = "only you know how many bytes your values take: say so by `weigh`, or bound the cache by entries";
                    return Err(Error::new(ErrorKind::InvalidConfig, message));
                }
                local.hears_all();
                Some(Cached { local, shared: None, telling: None, options })
            }
        };
        start(Arc::new(source), cached, settings)
    }
}

/// A loader that has to start.
pub(crate) fn started<L>(loader: Result<L>) -> L {
    match loader {
        Ok(loader) => loader,
        Err(error) => panic!("the loader can't start: {error}"),
    }
}

/// Starts a loader over a source.
pub(crate) fn start<K: LoaderKey, V: LoaderValue>(
    source: Arc<dyn Source<K, V>>,
    cached: Option<Cached<K, V>>,
    settings: Settings,
) -> Result<Loader<K, V>> {
    let (lanes, keys) = (settings.in_flight, settings.limits.max_rows);
    for (name, value, most) in [("in_flight", lanes, LANES_MAX), ("max_keys", keys, MAX_ROWS_LIMIT)] {
        if !(1..=most).contains(&value) {
            let message = format!("{name} is {value}; it must be between 1 and {most}");
            return Err(Error::new(ErrorKind::InvalidConfig, message));
        }
    }
    if settings.timeout.is_zero() {
        return Err(Error::new(
            ErrorKind::InvalidConfig,
            "timeout is zero; give the time a look-up may take",
        ));
    }
    if let Some(cache) = &settings.cache {
        cache.validate()?;
    }
    if settings.remember.is_some() && settings.cache.is_none() {
        let message = "there is nothing to warm without a cache: leave `remember` out, or set a cache";
        return Err(Error::new(ErrorKind::InvalidConfig, message));
    }
    let tiers = Arc::new(Tiers::new(source, cached, settings.timeout, settings.in_flight));
    if tiers.shared.is_some() {
        tokio::spawn(hear_of_commits(Arc::downgrade(&tiers)));
    }
    let lanes = (0..settings.in_flight).map(|_| Lane { tiers: Arc::clone(&tiers) }).collect();
    let engine = Engine::start(settings.limits, Open::new(), lanes)?;
    let inner = Arc::new(Inner { engine, tiers, frequent: settings.remember.map(Frequent::new) });
    if inner.frequent.is_some() {
        tokio::spawn(keep(Arc::downgrade(&inner)));
    }
    Ok(Loader { inner })
}

/// How long to wait where the store can't be asked yet.
pub(super) const AGAIN: Duration = Duration::from_secs(10);

/// Prepares a loader before its first look-up, so that a process which only writes tells others what they should forget.
async fn hear_of_commits<K: LoaderKey, V: LoaderValue>(tiers: Weak<Tiers<K, V>>) {
    while let Some(own) = tiers.upgrade() {
        match own.begin().await {
            Ok(()) => return,
            Err(error) => tracing::debug!(%error, "a loader with a shared cache can't be told of writes yet"),
        }
        drop(own);
        tokio::time::sleep(AGAIN).await;
    }
}

impl<K: LoaderKey, V: LoaderValue> Source<K, V> for Handler<K, V> {
    fn look_up(&self, keys: Requests<K>, _rows: bool) -> BoxFuture<'_, Result<Vec<Result<Found<V>>>>> {
        let answering = async move {
            let asked = keys.clone();
            let answers = (self.run)(keys).await?;
            let found = |(place, answer): (usize, Result<Option<V>>)| {
                let value = answer?;
                let bytes = asked.get(place).map_or(0, |key| self.bytes(key, value.as_ref()));
                Ok(Found { value, bytes, rows: None, is_own: true })
            };
            Ok(answers.into_iter().enumerate().map(found).collect())
        };
        // What the application's code breaks off has changed nothing here.
        let caught = std::panic::AssertUnwindSafe(answering).catch_unwind();
        let panicked = |_| Err(Error::new(ErrorKind::Handler, "the loader's handler panicked"));
        Box::pin(caught.map(move |answers| answers.unwrap_or_else(panicked)))
    }

    fn bytes(&self, key: &K, value: Option<&V>) -> usize {
        self.weigh.as_ref().map_or(0, |weigh| weigh(key, value))
    }

    fn names(&self, _keys: &[K]) -> Result<Vec<String>> {
        Err(Error::new(ErrorKind::Unsupported, "what a handler gives is not shared"))
    }

    fn mark(&self) -> String {
        String::new()
    }

    fn read(&self, _keys: &[&K], rows: &[Vec<&[u8]>]) -> Vec<Option<Found<V>>> {
        rows.iter().map(|_| None).collect()
    }
}
