//! The tiers in turn: memory, the shared cache, the store.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::counts::{Counts, count};
use super::forget::Stale;
use super::local::{Local, LookingUp, Read};
use super::options::Cache;
use super::shared::{Shared, frame, unframe};
use super::source::{Found, Source};
use super::{Entry, Lease};
use crate::engine::Retry;
use crate::engine::loader::{LoaderKey, LoaderValue};
use crate::engine::writer::flush::is_whole;
use crate::{Error, ErrorKind, Requests, Result};

/// The first wait for another process that reads a key, and the longest.
const WAIT_FIRST: Duration = Duration::from_millis(1);
const WAIT_MAX: Duration = Duration::from_millis(50);

/// The tiers of one loader.
pub(crate) struct Tiers<K: LoaderKey, V: LoaderValue> {
    source: Arc<dyn Source<K, V>>,
    pub(crate) local: Option<Arc<Local<K, V>>>,
    pub(crate) shared: Option<Arc<Shared>>,
    options: Option<Cache>,
    retry: Retry,
    told: Option<mpsc::Sender<Stale<K>>>,
    pub(crate) counts: Counts,
}

/// The caches of one loader.
pub(crate) struct Cached<K: LoaderKey, V: LoaderValue> {
    pub(crate) local: Arc<Local<K, V>>,
    pub(crate) shared: Option<Arc<Shared>>,
    pub(crate) told: Option<mpsc::Sender<Stale<K>>>,
    pub(crate) options: Cache,
}

/// A key that is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    /// By somebody who waits.
    Loaded,
    /// To be read anew, whatever is kept of it.
    Refreshed,
}

/// The keys of one call, and their answers as they come.
struct Round<'a, K: LoaderKey, V: LoaderValue> {
    keys: &'a [K],
    asked: &'a [Asked],
    answers: Vec<Option<Result<Option<V>>>>,
    /// Which keys may be kept; `None` where all may.
    can_keep: Option<Vec<bool>>,
    looking_up: Option<LookingUp<'a, K, V>>,
}

impl<K: LoaderKey, V: LoaderValue> Round<'_, K, V> {
    /// Whether a key is as a commit names it, so that what is kept of it is dropped then.
    fn may_keep(&self, place: usize) -> bool {
        self.can_keep.as_ref().is_none_or(|may| may[place])
    }

    /// Keeps what was read of a key in memory, if it may be kept.
    fn keep(&self, place: usize, value: &Option<V>, bytes: usize, since: Option<Instant>) {
        if let Some(looking_up) = self.looking_up.as_ref().filter(|_| self.may_keep(place)) {
            let since = since.unwrap_or(looking_up.since);
            looking_up.keep(&self.keys[place], Read { value: value.clone(), bytes, since });
        }
    }

    /// The keys that are still unanswered.
    fn open(&self) -> Vec<usize> {
        (0..self.keys.len()).filter(|&place| self.answers[place].is_none()).collect()
    }
}

/// Keys to be read from the store, and what becomes of them in the shared cache.
#[derive(Clone)]
struct Leased {
    place: usize,
    name: String,
}

impl<K: LoaderKey, V: LoaderValue> Tiers<K, V> {
    pub(crate) fn new(
        source: Arc<dyn Source<K, V>>,
        cached: Option<Cached<K, V>>,
        timeout: Duration,
    ) -> Self {
        let retry = Retry { limit: timeout, ..Retry::default() };
        let (local, shared, told, options) = match cached {
            Some(Cached { local, shared, told, options }) => (Some(local), shared, told, Some(options)),
            None => (None, None, None, None),
        };
        Tiers { source, local, shared, options, retry, told, counts: Counts::default() }
    }

    /// Does what has to be done before the first look-up, again where that fails for a passing reason, within the time a look-up may take.
    pub(crate) async fn begin(&self) -> Result<()> {
        self.in_time(|| self.source.start()).await
    }

    pub(crate) fn encode_keys(&self, keys: &[K]) -> Option<(String, Vec<Bytes>)> {
        self.source.encode_keys(keys)
    }

    pub(crate) fn decode_keys(&self, rows: &[&[u8]]) -> Vec<K> {
        self.source.decode_keys(rows)
    }

    /// Answers keys, each once. A failure of the whole is every key's that no tier had.
    pub(crate) async fn resolve(&self, keys: Vec<K>, asked: &[Asked]) -> Vec<Result<Option<V>>> {
        let started = self.begin().await;
        if self.options.is_none() && started.is_ok() {
            return self.resolve_uncached(keys).await;
        }
        let mut round = Round {
            keys: &keys,
            asked,
            answers: keys.iter().map(|_| None).collect(),
            can_keep: self.source.can_keep(&keys),
            looking_up: self.local.as_deref().map(Local::look_up),
        };
        if let Err(error) = started {
            let open = round.open();
            self.answer_with(&mut round, &open, &error);
            return round.answers.into_iter().flatten().collect();
        }
        self.ask_memory(&mut round);
        let leased = match (&self.shared, &self.options) {
            (Some(shared), Some(options)) => self.ask_shared(&mut round, shared, options).await,
            _ => Waiting::default(),
        };
        self.ask_store(&mut round, leased).await;
        let lost = || Err(Error::new(ErrorKind::Statement, "the key was not answered"));
        round.answers.into_iter().map(|answer| answer.unwrap_or_else(lost)).collect()
    }

    async fn resolve_uncached(&self, keys: Vec<K>) -> Vec<Result<Option<V>>> {
        let asked = keys.len();
        count(&self.counts.store_keys, asked);
        match self.look_up(Requests::new(keys), false).await {
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

    /// Forgets a key, also in the shared cache.
    pub(crate) fn forget(&self, key: &K) {
        if let Some(local) = &self.local {
            local.forget(key);
        }
        if let Some(told) = &self.told {
            // Where it is too slow to be told, entries expire.
            drop(told.try_send(Stale::Keys(vec![key.clone()])));
        }
    }

    /// Forgets everything, also in the shared cache.
    pub(crate) fn forget_all(&self) {
        if let Some(local) = &self.local {
            local.forget_all();
        }
        if let Some(told) = &self.told {
            drop(told.try_send(Stale::All));
        }
    }

    /// What another look-up has filled since these keys were asked for.
    fn ask_memory(&self, round: &mut Round<'_, K, V>) {
        let Some(local) = self.local.as_ref().filter(|local| local.keeps()) else { return };
        let now = Instant::now();
        let (mut hits, mut misses) = (0, 0);
        for (place, key) in round.keys.iter().enumerate() {
            if round.asked[place] != Asked::Loaded {
                continue;
            }
            match local.get(key, now) {
                Some(kept) => {
                    hits += 1;
                    round.answers[place] = Some(Ok(kept.value.clone()));
                }
                None => misses += 1,
            }
        }
        count(&self.counts.memory_hits, hits);
        count(&self.counts.memory_misses, misses);
    }

    /// Asks the shared cache, and takes leases for what it doesn't have.
    async fn ask_shared(&self, round: &mut Round<'_, K, V>, shared: &Shared, options: &Cache) -> Waiting {
        // What a commit names by another key is asked of the store alone: nothing would tell that it was written.
        let mut open = round.open();
        open.retain(|&place| round.may_keep(place));
        let keys: Vec<K> = open.iter().map(|&place| round.keys[place].clone()).collect();
        let Ok(names) = self.source.names(&keys) else { return Waiting::default() };
        let named = open.into_iter().zip(names).map(|(place, name)| Leased { place, name });
        let (bypassing, asking): (Vec<_>, Vec<_>) = named.partition(|key| self.was_written(round, key));
        count(&self.counts.bypasses, bypassing.len());
        let Some(mark) = self.read_shared(round, shared, options, &asking).await else {
            return Waiting::default();
        };
        let mut leased: Vec<Leased> =
            asking.into_iter().filter(|key| round.answers[key.place].is_none()).collect();
        count(&self.counts.shared_misses, leased.len());
        leased.extend(bypassing);
        leased.sort_unstable_by_key(|key| key.place);
        if leased.is_empty() {
            return Waiting::default();
        }
        let names: Vec<String> = leased.iter().map(|key| key.name.clone()).collect();
        let token = shared.token();
        let Some(leases) = shared.lease(&names, &token).await else { return Waiting::default() };
        let mut waiting = Waiting { mark, token, ..Waiting::default() };
        for (key, lease) in leased.into_iter().zip(leases) {
            match lease {
                Lease::Granted => waiting.granted.push(key),
                // What this process wrote must not come from another's look-up, which may be older.
                Lease::Held if self.was_written(round, &key) => {}
                // Another reads it anew already: then the shared cache has it soon.
                Lease::Held if self.leave_refresh(round, key.place) => {}
                Lease::Held => waiting.held.push(key),
                Lease::Barred => {}
            }
        }
        waiting
    }

    /// Whether the shared cache may have an older row of a key than this process wrote.
    fn was_written(&self, round: &Round<'_, K, V>, key: &Leased) -> bool {
        let local = self.local.as_deref();
        local.is_some_and(|local| local.was_written(&round.keys[key.place], Instant::now()))
    }

    /// Answers a key that was only to be read anew with what is still kept of it, and leaves reading it to whoever asks next; whether it was so.
    fn leave_refresh(&self, round: &mut Round<'_, K, V>, place: usize) -> bool {
        let kept = self.local.as_ref().and_then(|local| local.get(&round.keys[place], Instant::now()));
        let Some(kept) = kept.filter(|_| round.asked[place] == Asked::Refreshed) else { return false };
        kept.give_refresh_back();
        round.answers[place] = Some(Ok(kept.value.clone()));
        true
    }

    /// Answers the keys that the shared cache has. Gives the mark that stands there now; `None` where it can't be asked.
    async fn read_shared(
        &self,
        round: &mut Round<'_, K, V>,
        shared: &Shared,
        options: &Cache,
        keys: &[Leased],
    ) -> Option<Bytes> {
        let mut names: Vec<String> = keys.iter().map(|key| key.name.clone()).collect();
        names.push(self.source.mark());
        let mut entries = shared.read(&names).await?;
        let mark = entries.pop()?.unwrap_or_default();
        let (now, wall) = (Instant::now(), (options.clock)());
        let skew = options.clock_skew.as_micros() as i64;
        let lives = options.time_to_live.as_micros() as i64;
        let mut hits = Vec::new();
        let mut rows = Vec::new();
        for (key, entry) in keys.iter().zip(&entries) {
            let Some(framed) = entry.as_ref().and_then(|entry| unframe(&key.name, entry)) else { continue };
            let age = wall.saturating_sub(framed.since);
            let refresh_now = round.asked[key.place] == Asked::Refreshed
                && age >= (lives as f64 * options.refresh * (1.0 - options.jitter)) as i64;
            if framed.mark == mark && age >= -skew && age < lives && !refresh_now {
                let age = Duration::from_micros(age.max(0) as u64);
                hits.push((key.place, now.checked_sub(age).unwrap_or(now)));
                rows.push(framed.rows);
            }
        }
        for ((place, since), found) in hits.into_iter().zip(self.source.read(&rows)) {
            let Some(Found { value, bytes, .. }) = found else { continue };
            count(&self.counts.shared_hits, 1);
            round.keep(place, &value, bytes, Some(since));
            round.answers[place] = Some(Ok(value));
        }
        Some(mark)
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

    /// Waits until those who hold the leases have filled the entries, for as long as a lease. A lease that was given back, as of a key without
    /// a row, or that ran out, is taken over, and what must not be filled any more is read at once: who waits, waits for a look-up and
    /// not for the lease's time.
    async fn wait_for_others(
        &self,
        round: &mut Round<'_, K, V>,
        shared: &Shared,
        options: &Cache,
        held: &[Leased],
    ) {
        count(&self.counts.waits, held.len());
        let until = Instant::now() + options.lease;
        let mut wait = WAIT_FIRST;
        while Instant::now() < until {
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(WAIT_MAX);
            let open = held.iter().filter(|key| round.answers[key.place].is_none());
            // Written meanwhile, a key must not come from another's look-up.
            let (written, open): (Vec<Leased>, Vec<Leased>) =
                open.cloned().partition(|key| self.was_written(round, key));
            let mut reading: Vec<usize> = written.iter().map(|key| key.place).collect();
            let Some(waiting) = self.take_over(round, shared, options, open, &mut reading).await else {
                return;
            };
            reading.retain(|&place| round.answers[place].is_none());
            reading.sort_unstable();
            match reading.is_empty() {
                true => self.release(&waiting),
                false => self.read_store(round, &reading, &waiting).await,
            }
            if held.iter().all(|key| round.answers[key.place].is_some()) {
                return;
            }
        }
    }

    /// Asks for the leases that others held, then for the entries: in this order, so that what was filled before a lease was free is found, and not
    /// read again. Adds the keys to read from the store now, and gives the leases taken over; `None` where the shared cache can't be asked.
    async fn take_over(
        &self,
        round: &mut Round<'_, K, V>,
        shared: &Shared,
        options: &Cache,
        open: Vec<Leased>,
        reading: &mut Vec<usize>,
    ) -> Option<Waiting> {
        let mut waiting = Waiting { token: shared.token(), ..Waiting::default() };
        if open.is_empty() {
            return Some(waiting);
        }
        let names: Vec<String> = open.iter().map(|key| key.name.clone()).collect();
        let leases = shared.lease(&names, &waiting.token).await?;
        let mark = self.read_shared(round, shared, options, &open).await;
        for (key, lease) in open.into_iter().zip(leases) {
            if lease != Lease::Held {
                reading.push(key.place);
            }
            if lease == Lease::Granted {
                waiting.granted.push(key);
            }
        }
        let Some(mark) = mark else {
            self.release(&waiting);
            return None;
        };
        waiting.mark = mark;
        Some(waiting)
    }

    async fn read_store(&self, round: &mut Round<'_, K, V>, places: &[usize], waiting: &Waiting) {
        if places.is_empty() {
            return;
        }
        let keys: Vec<K> = places.iter().map(|&place| round.keys[place].clone()).collect();
        let since = self.options.as_ref().map_or(0, |options| (options.clock)());
        count(&self.counts.store_keys, keys.len());
        match self.look_up(Requests::new(keys), !waiting.granted.is_empty()).await {
            Ok(found) => {
                let mut fills = Fills { since, ..Fills::default() };
                for (&place, found) in places.iter().zip(found) {
                    let answer = found.map(|found| self.take(round, place, found, waiting, &mut fills));
                    count(&self.counts.errors, usize::from(answer.is_err()));
                    round.answers[place] = Some(answer);
                }
                self.fill(fills, waiting);
            }
            Err(error) => {
                self.release(waiting);
                self.answer_with(round, places, &error);
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
        let Found { value, bytes, rows } = found;
        count(&self.counts.absent, usize::from(value.is_none()));
        round.keep(place, &value, bytes, None);
        if let Some(rows) = rows
            && let Ok(granted) = waiting.granted.binary_search_by_key(&place, |key| key.place)
        {
            fills.entries.push((granted, rows));
        }
        value
    }

    /// Fills the shared cache in the background, and gives the other leases back.
    fn fill(&self, fills: Fills, waiting: &Waiting) {
        let (Some(shared), Some(options)) = (&self.shared, &self.options) else { return };
        if waiting.granted.is_empty() {
            return;
        }
        let mut filled = vec![false; waiting.granted.len()];
        let entries: Vec<Entry> = fills
            .entries
            .iter()
            .map(|(granted, rows)| {
                filled[*granted] = true;
                let name = &waiting.granted[*granted].name;
                let value = frame(name, fills.since, &waiting.mark, rows);
                Entry { key: name.clone(), value, time: options.time_to_live }
            })
            .collect();
        let left = waiting.granted.iter().zip(filled).filter(|(_, filled)| !filled);
        let left: Vec<String> = left.map(|(key, _)| key.name.clone()).collect();
        let (shared, token) = (Arc::clone(shared), waiting.token.clone());
        tokio::spawn(async move {
            if !entries.is_empty() {
                shared.fill(&entries, &token).await;
            }
            if !left.is_empty() {
                shared.release(&left, &token).await;
            }
        });
    }

    fn release(&self, waiting: &Waiting) {
        self.fill(Fills::default(), waiting);
    }

    /// Looks keys up, again where that fails for a passing reason, within the time a look-up may take.
    async fn look_up(&self, keys: Requests<K>, rows: bool) -> Result<Vec<Result<Found<V>>>> {
        let look_up = || {
            count(&self.counts.store_calls, 1);
            self.source.look_up(keys.clone(), rows)
        };
        let found = self.in_time(look_up).await?;
        if found.len() != keys.len() {
            let message = format!("{} answers to {} keys", found.len(), keys.len());
            return Err(Error::new(ErrorKind::Handler, message));
        }
        Ok(found)
    }

    /// Makes a call, again where it fails for a passing reason, within the time a look-up may take.
    async fn in_time<'a, T>(&'a self, call: impl Fn() -> BoxFuture<'a, Result<T>>) -> Result<T> {
        let mut attempts = self.retry.start();
        let tries = async {
            loop {
                match call().await {
                    Ok(answer) => return Ok(answer),
                    Err(error) => attempts.next(error).await?,
                }
            }
        };
        let limit = self.retry.limit;
        tokio::time::timeout(limit, tries).await.unwrap_or_else(|_| {
            Err(Error::new(ErrorKind::Timeout, format!("the look-up took longer than {limit:?}")))
        })
    }

    /// Answers keys that can't be read: with what was kept of them where that is allowed, else with the error.
    fn answer_with(&self, round: &mut Round<'_, K, V>, places: &[usize], error: &Error) {
        let stale = self.options.as_ref().is_some_and(|options| !options.stale.is_zero());
        let now = Instant::now();
        for &place in places {
            let key = &round.keys[place];
            let kept = match (&self.local, stale && is_whole(error)) {
                (Some(local), true) => local.get_stale(key, now),
                _ => None,
            };
            round.answers[place] = Some(match kept {
                Some(kept) => {
                    count(&self.counts.stale, 1);
                    Ok(kept.value.clone())
                }
                None => {
                    count(&self.counts.errors, 1);
                    Err(error.clone())
                }
            });
            if round.asked[place] == Asked::Refreshed
                && let Some(kept) = self.local.as_ref().and_then(|local| local.get(key, now))
            {
                kept.give_refresh_back();
            }
        }
    }
}

/// What the shared cache doesn't have: keys that this process fills, and keys that others are about to fill, both in the order of their places.
#[derive(Default)]
struct Waiting {
    granted: Vec<Leased>,
    held: Vec<Leased>,
    mark: Bytes,
    token: String,
}

/// Entries to fill, by their place among the granted leases.
#[derive(Default)]
struct Fills {
    since: i64,
    entries: Vec<(usize, Vec<Bytes>)>,
}
