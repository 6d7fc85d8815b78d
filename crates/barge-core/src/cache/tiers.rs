//! The tiers in turn: memory, the shared cache, the store.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use hashbrown::HashMap;
use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;

use super::counts::{Counts, count, get};
use super::invalidations::{Invalidation, Telling};
use super::local::Local;
use super::options::{Cache, LONGEST};
use super::round::{Asked, Fills, Resolved, Round, Waiting};
use super::shared::Shared;
use super::source::{Found, Source};
use super::under_way::UnderWay;
use crate::engine::Retry;
use crate::engine::loader::{LoaderKey, LoaderValue};
use crate::{Error, ErrorKind, Requests, Result, Sql};

/// The tiers of one loader.
pub(crate) struct Tiers<K: LoaderKey, V: LoaderValue> {
    pub(super) source: Arc<dyn Source<K, V>>,
    pub(crate) local: Option<Arc<Local<K, V>>>,
    pub(crate) shared: Option<Arc<Shared>>,
    pub(super) options: Option<Cache>,
    pub(super) retry: Retry,
    telling: Option<Telling<K>>,
    /// Where several look-ups may be under way at once, and memory keeps what they read.
    under_way: Option<UnderWay<K>>,
    /// How often a key was forgotten, where nothing is kept but by scopes.
    forgotten: AtomicU64,
    /// Until when the store is known to be away.
    pub(super) away_until: Mutex<Option<Instant>>,
    /// Held by whoever reads keys anew that the shared cache alone keeps.
    refreshing: Arc<Semaphore>,
    pub(crate) counts: Counts,
}

/// The caches of one loader.
pub(crate) struct Cached<K: LoaderKey, V: LoaderValue> {
    pub(crate) local: Arc<Local<K, V>>,
    pub(crate) shared: Option<Arc<Shared>>,
    pub(crate) telling: Option<Telling<K>>,
    pub(crate) options: Cache,
}

impl<K: LoaderKey, V: LoaderValue> Tiers<K, V> {
    pub(crate) fn new(
        source: Arc<dyn Source<K, V>>,
        cached: Option<Cached<K, V>>,
        timeout: Duration,
        in_flight: usize,
    ) -> Self {
        let retry = Retry { limit: timeout.min(LONGEST), ..Retry::default() };
        let (local, shared, telling, options) = match cached {
            Some(Cached { local, shared, telling, options }) => (Some(local), shared, telling, Some(options)),
            None => (None, None, None, None),
        };
        let keeps = options.is_some() && local.as_ref().is_some_and(|local| local.keeps());
        Tiers {
            source,
            local,
            shared,
            options,
            retry,
            telling,
            under_way: (in_flight > 1 && keeps).then(UnderWay::new),
            forgotten: AtomicU64::new(0),
            away_until: Mutex::new(None),
            refreshing: Arc::new(Semaphore::new(1)),
            counts: Counts::default(),
        }
    }

    /// Does what has to be done before the first look-up, again where that fails for a passing reason, within the time a look-up may take.
    pub(crate) async fn begin(&self) -> Result<()> {
        self.begin_until(Instant::now() + self.retry.limit).await
    }

    async fn begin_until(&self, until: Instant) -> Result<()> {
        self.in_time(until, || self.source.start()).await
    }

    pub(crate) async fn query_keys(&self, sql: Sql, most: usize) -> Result<Vec<K>> {
        self.source.query_keys(sql, most).await
    }

    pub(crate) fn encode_keys(&self, keys: &[K]) -> Option<(String, Vec<Bytes>)> {
        self.source.encode_keys(keys)
    }

    pub(crate) fn decode_keys(&self, rows: &[&[u8]]) -> Vec<K> {
        self.source.decode_keys(rows)
    }

    /// Answers keys, each once. A failure of the whole is every key's that no tier had.
    pub(crate) async fn resolve(&self, keys: Vec<K>, asked: &[Asked]) -> Resolved<K, V> {
        let until = Instant::now() + self.retry.limit;
        let calls = AtomicU64::new(0);
        let started = self.begin_until(until).await;
        if self.options.is_none() && started.is_ok() {
            let answers = self.resolve_uncached(keys, until, &calls).await;
            return Resolved { answers, calls: calls.load(Ordering::Relaxed), due: Vec::new() };
        }
        let mut round = Round {
            keys: &keys,
            asked,
            answers: keys.iter().map(|_| None).collect(),
            looking_up: self.local.as_deref().map(Local::look_up),
            until,
            calls: &calls,
            aside: Vec::new(),
            live: HashMap::new(),
            due: Vec::new(),
        };
        match started {
            Ok(()) => self.ask_tiers(&mut round).await,
            Err(error) => {
                let open = round.open();
                self.answer_with(&mut round, &open, &error);
            }
        }
        let due = round.due.iter().map(|&place| keys[place].clone()).collect();
        let lost = || Err(Error::new(ErrorKind::Statement, "the key was not answered"));
        let answers = round.answers.into_iter().map(|answer| answer.unwrap_or_else(lost)).collect();
        Resolved { answers, calls: calls.load(Ordering::Relaxed), due }
    }

    async fn ask_tiers(&self, round: &mut Round<'_, K, V>) {
        let missed = self.ask_memory(round);
        count(&self.counts.memory_misses, missed);
        let Some(under_way) = &self.under_way else { return self.ask_beneath(round).await };
        let (claim, elsewhere) = under_way.claim(round.keys, &round.open());
        round.aside = elsewhere.iter().map(|(place, _)| *place).collect();
        self.ask_beneath(round).await;
        drop(claim);
        if !elsewhere.is_empty() {
            self.wait_for_own(round, elsewhere).await;
            self.ask_beneath(round).await;
        }
    }

    /// Asks the tiers beneath memory.
    async fn ask_beneath(&self, round: &mut Round<'_, K, V>) {
        let waiting = match (&self.shared, &self.options) {
            (Some(shared), Some(options)) => self.ask_shared(round, shared, options).await,
            _ => Waiting::default(),
        };
        self.ask_store(round, waiting).await;
    }

    /// Waits for other look-ups of this process that read the same keys, for as long as a lease, and asks memory for what they kept. Nothing of it is
    /// older than what was written since.
    async fn wait_for_own(&self, round: &mut Round<'_, K, V>, elsewhere: Vec<(usize, watch::Receiver<()>)>) {
        count(&self.counts.memory_waits, elsewhere.len());
        let lease = self.options.as_ref().map_or(Duration::ZERO, |options| options.lease);
        let until = round.half_of_the_time().min(Instant::now() + lease);
        for (_, mut ends) in elsewhere {
            // It is an error that the other look-up has ended, and one that it took too long.
            let _ = tokio::time::timeout_at(until, ends.changed()).await;
        }
        round.aside.clear();
        self.ask_memory(round);
    }

    /// Tells the metrics facade what was done since it was last told.
    pub(crate) fn tell(&self) {
        let local = self.local.as_ref();
        let (evictions, entries) = local.map_or((0, 0), |local| (local.evictions(), local.entries()));
        self.counts.tell(evictions, entries);
    }

    /// Has keys read anew in the background that no later request would: those that the shared cache alone keeps, and those that a slow store was not waited for. What falls due meanwhile is left to whoever asks next.
    pub(crate) fn refresh(self: &Arc<Self>, due: Vec<K>) {
        let turn = Arc::clone(&self.refreshing).try_acquire_owned();
        let (false, Ok(turn)) = (due.is_empty(), turn) else { return };
        count(&self.counts.refreshes, due.len());
        let tiers = Arc::clone(self);
        let refreshing = async move {
            let asked = vec![Asked::Refreshed; due.len()];
            tiers.resolve(due, &asked).await;
            drop(turn);
        };
        match &self.shared {
            Some(shared) => shared.spawn(|_| refreshing),
            None => drop(tokio::spawn(refreshing)),
        }
    }

    async fn resolve_uncached(
        &self,
        keys: Vec<K>,
        until: Instant,
        calls: &AtomicU64,
    ) -> Vec<Result<Option<V>>> {
        let asked = keys.len();
        match self.look_up(Requests::new(keys), false, until, calls).await {
            Ok(found) => {
                let failed = found.iter().filter(|found| found.is_err()).count();
                let absent = found.iter().flatten().filter(|found| found.value.is_none()).count();
                count(&self.counts.errors, failed);
                count(&self.counts.absent, absent);
                found.into_iter().map(|found| found.map(|found| found.value)).collect()
            }
            Err(error) => {
                count(&self.counts.errors, asked);
                vec![Err(error); asked]
            }
        }
    }

    /// Keeps a value that is at hand.
    pub(crate) fn prime(&self, key: K, value: V) {
        if let Some(local) = self.local.as_ref().filter(|_| self.source.owns(&key, &value)) {
            let bytes = if local.counts_bytes() { self.source.bytes(&key, Some(&value)) } else { 0 };
            local.prime(key, Some(value), bytes);
        }
    }

    /// Forgets a key, also in the shared cache.
    pub(crate) fn forget(&self, key: &K) {
        match &self.local {
            Some(local) => local.forget(key),
            None => count(&self.forgotten, 1),
        }
        self.tell_others(Invalidation::Keys(vec![key.clone()]));
    }

    /// Forgets everything, also in the shared cache.
    pub(crate) fn forget_all(&self) {
        match &self.local {
            Some(local) => local.forget_all(),
            None => count(&self.forgotten, 1),
        }
        self.tell_others(Invalidation::All);
    }

    /// Changes with whatever scopes must not remember any longer; `None` where nothing may be remembered.
    pub(crate) fn version(&self) -> Option<u64> {
        self.local.as_ref().map_or_else(|| Some(get(&self.forgotten)), |local| local.version())
    }

    fn tell_others(&self, invalidation: Invalidation<K>) {
        if let Some(telling) = &self.telling {
            telling.invalidations().tell(invalidation);
        }
    }

    /// Waits until the shared cache was told of what was written and read, for no longer than a look-up may take.
    pub(crate) async fn settled(&self) {
        let settled = async {
            if let (Some(telling), Some(shared)) = (&self.telling, &self.shared) {
                telling.told().await;
                shared.background_ended().await;
            }
        };
        let _ = tokio::time::timeout(self.retry.limit, settled).await;
    }

    /// Answers the keys that memory holds by now, and gives how many it doesn't.
    fn ask_memory(&self, round: &mut Round<'_, K, V>) -> usize {
        let Some(local) = self.local.as_ref().filter(|local| local.keeps()) else { return 0 };
        let now = Instant::now();
        let (mut hits, mut misses) = (0, 0);
        for place in round.open() {
            if round.asked[place] != Asked::Loaded {
                continue;
            }
            match local.get(&round.keys[place], now) {
                Some(kept) => {
                    hits += 1;
                    round.answers[place] = Some(Ok(kept.value.clone()));
                }
                None => misses += 1,
            }
        }
        count(&self.counts.memory_hits, hits);
        misses
    }

    /// Reads from the store what no other tier had, fills those, and then waits for what others are reading.
    async fn ask_store(&self, round: &mut Round<'_, K, V>, waiting: Waiting) {
        let held = |place: &usize| waiting.held.binary_search_by_key(place, |key| key.place).is_ok();
        let now: Vec<usize> = round.open().into_iter().filter(|place| !held(place)).collect();
        self.read_store(round, &now, &waiting).await;
        if waiting.held.is_empty() {
            return;
        }
        if let (Some(shared), Some(options)) = (&self.shared, &self.options) {
            self.wait_for_others(round, shared, options, &waiting.held).await;
        }
        let left = round.open();
        self.read_store(round, &left, &Waiting::default()).await;
    }

    pub(super) async fn read_store(&self, round: &mut Round<'_, K, V>, places: &[usize], waiting: &Waiting) {
        if places.is_empty() {
            return;
        }
        let since = self.options.as_ref().map_or(0, |options| (options.clock)());
        let (found, places) = self.read_or_serve_stale(round, places, !waiting.granted.is_empty()).await;
        match found {
            Ok(found) => {
                if !places.is_empty() && self.serves_stale() {
                    self.set_away(None);
                }
                let mut fills = Fills { since, ..Fills::default() };
                for (&place, found) in places.iter().zip(found) {
                    let answer = found.map(|found| self.take(round, place, found, waiting, &mut fills));
                    // Nobody waits for what is read anew.
                    let fails = answer.is_err() && round.asked[place] == Asked::Loaded;
                    count(&self.counts.errors, usize::from(fails));
                    round.answers[place] = Some(answer);
                }
                self.fill(fills, waiting);
            }
            Err(error) => {
                self.release(waiting);
                self.answer_with(round, &places, &error);
            }
        }
    }

    /// Keeps what the store had of a key, and gives it.
    fn take(
        &self,
        round: &Round<'_, K, V>,
        place: usize,
        found: Found<V>,
        waiting: &Waiting,
        fills: &mut Fills,
    ) -> Option<V> {
        let Found { value, bytes, rows, is_own } = found;
        count(&self.counts.absent, usize::from(value.is_none()));
        if !is_own {
            return value;
        }
        round.keep(place, &value, bytes, None);
        let remembers_absence = || self.options.as_ref().is_some_and(|options| !options.absent.is_zero());
        if let Some(rows) = rows.or_else(|| (value.is_none() && remembers_absence()).then(Vec::new))
            && let Ok(granted) = waiting.granted.binary_search_by_key(&place, |key| key.place)
        {
            fills.entries.push((granted, rows));
        }
        value
    }

    /// Looks keys up, again where that fails for a passing reason, within the time a look-up may take.
    pub(super) async fn look_up(
        &self,
        keys: Requests<K>,
        rows: bool,
        until: Instant,
        calls: &AtomicU64,
    ) -> Result<Vec<Result<Found<V>>>> {
        self.in_time(until, || self.look_up_once(keys.clone(), rows, until, calls).boxed()).await
    }

    pub(super) async fn ask_source(
        &self,
        keys: Requests<K>,
        rows: bool,
        calls: &AtomicU64,
    ) -> Result<Vec<Result<Found<V>>>> {
        calls.fetch_add(1, Ordering::Relaxed);
        count(&self.counts.store_calls, 1);
        count(&self.counts.store_keys, keys.len());
        let found = self.source.look_up(keys.clone(), rows).await?;
        if found.len() != keys.len() {
            let message = format!("{} answers to {} keys", found.len(), keys.len());
            return Err(Error::new(ErrorKind::Handler, message));
        }
        Ok(found)
    }

    /// Makes a call, again where it fails for a passing reason, until the time that a look-up may take is over.
    async fn in_time<'a, T>(
        &'a self,
        until: Instant,
        call: impl Fn() -> BoxFuture<'a, Result<T>>,
    ) -> Result<T> {
        let mut attempts = self.retry.start();
        let tries = async {
            loop {
                match call().await {
                    Ok(answer) => return Ok(answer),
                    Err(error) => attempts.next(error).await?,
                }
            }
        };
        tokio::time::timeout_at(until, tries).await.unwrap_or_else(|_| Err(self.late()))
    }

    pub(super) fn late(&self) -> Error {
        let limit = self.retry.limit;
        Error::new(
            ErrorKind::Timeout,
            format!("the look-up was not answered in time (it may take {limit:?})"),
        )
    }

    /// Answers keys that can't be read: with what lives of them, where they were only to be read anew, else with the error.
    fn answer_with(&self, round: &mut Round<'_, K, V>, places: &[usize], error: &Error) {
        let now = Instant::now();
        for &place in places {
            let live = || round.live.get(&place).cloned();
            let kept = || {
                let local = self.local.as_ref().filter(|_| round.asked[place] == Asked::Refreshed)?;
                Some(local.get(&round.keys[place], now)?.value.clone())
            };
            let value = live().or_else(kept);
            let fails = value.is_none() && round.asked[place] == Asked::Loaded;
            count(&self.counts.errors, usize::from(fails));
            round.answers[place] = Some(value.ok_or_else(|| error.clone()));
        }
    }
}

impl<K: LoaderKey, V: LoaderValue> Drop for Tiers<K, V> {
    fn drop(&mut self) {
        // What was kept goes with it.
        let evictions = self.local.as_ref().map_or(0, |local| local.evictions());
        self.counts.tell(evictions, 0);
    }
}
