//! The tier in this process's memory.
//!
//! Entries are dropped when this process writes their key, and when something is written of which it isn't known which keys it concerns: that
//! moves a generation on, and entries of an earlier one are dead. `fences` decides what may be kept. A hit takes no lock of ours.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::time::Instant;

use super::fences::{Began, Fences};
use super::options::{Cache, Capacity};
use super::unsettled::Unsettled;
use super::written::Written;
use crate::engine::loader::{LoaderKey, LoaderValue};
use crate::store::{CommitOutcome, Earlier};

/// After so many milliseconds somebody else reads anew what is still not replaced.
const REFRESH_AGAIN: u64 = 1_000;
/// What an entry takes beside its key and rows.
const ENTRY_BYTES: u32 = 128;

/// What is kept of a key.
#[derive(Debug)]
pub(crate) struct Kept<V> {
    /// `None`: there is no such row.
    pub(crate) value: Option<V>,
    generation: u64,
    bytes: u32,
    expires: Instant,
    refresh: Instant,
    /// How long after `refresh` somebody may read it anew, in milliseconds.
    next: AtomicU64,
}

impl<V> Kept<V> {
    /// Whether the caller should read it anew now: true once in a while, so that one that couldn't is followed by another.
    pub(crate) fn claim_refresh(&self, now: Instant) -> bool {
        let Some(due) = now.checked_duration_since(self.refresh) else { return false };
        let (due, next) = (due.as_millis() as u64, self.next.load(Ordering::Relaxed));
        let taken = || {
            self.next
                .compare_exchange(next, due + REFRESH_AGAIN, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
        };
        due >= next && taken()
    }
}

/// What was read of a key, to be kept.
#[derive(Debug)]
pub(crate) struct Read<V> {
    pub(crate) value: Option<V>,
    pub(crate) bytes: usize,
    /// When the look-up that read it began, in whichever process.
    pub(crate) since: Instant,
}

pub(crate) struct Local<K: LoaderKey, V: LoaderValue> {
    entries: Option<moka::sync::Cache<K, Arc<Kept<V>>>>,
    guarded: Mutex<Guarded<K>>,
    /// Moves on with each commit that may have changed rows under any key, and with each that may have added some.
    any: AtomicU64,
    added: AtomicU64,
    /// Moves on with each key that is forgotten or primed by itself.
    forgotten: AtomicU64,
    /// Whether one key may have several rows, so that any commit may change what it has.
    by_rows: bool,
    options: Cache,
    evictions: Arc<AtomicU64>,
}

#[derive(Debug)]
struct Guarded<K> {
    fences: Fences<K>,
    /// Which keys a shared cache may have older rows of; `None` where there is no shared cache.
    written: Option<Written>,
    /// When a commit last ended that may have added a row under any key.
    added_at: Option<Instant>,
    hears: Hears,
    unsettled: Unsettled<K>,
}

/// Whether this tier is told of commits.
#[derive(Debug)]
enum Hears {
    /// Not yet.
    Nothing,
    /// Of all but these, if they are still under way.
    AllBut(Earlier),
    All,
}

impl<K: LoaderKey> Guarded<K> {
    fn hears_all(&mut self) -> bool {
        if let Hears::AllBut(earlier) = &self.hears
            && earlier.ended()
        {
            // Nobody told which keys were written before: a shared cache may have older rows of any.
            if let (Some(written), Some(last)) = (&mut self.written, earlier.last()) {
                written.add_all(last);
                self.added_at = self.added_at.max(Some(last));
            }
            if let Some(unknown) = earlier.last_unknown() {
                self.unsettled.add_all(unknown);
            }
            self.hears = Hears::All;
        }
        matches!(self.hears, Hears::All)
    }

    /// A commit ended that may have written these keys; `None` stands for any.
    fn ended(&mut self, outcome: CommitOutcome, keys: Option<&[K]>) {
        let now = Instant::now();
        self.may_have_added(outcome, now);
        if let Some(written) = self.written.as_mut().filter(|_| outcome != CommitOutcome::RolledBack) {
            match keys {
                Some(keys) => written.add(keys, now),
                None => written.add_all(now),
            }
        }
        if outcome == CommitOutcome::Unknown {
            match keys {
                Some(keys) => self.unsettled.add(keys, now),
                None => self.unsettled.add_all(now),
            }
        }
    }

    /// A key may find a row that a commit names otherwise, so that no commit tells which keys have one now.
    fn may_have_added(&mut self, outcome: CommitOutcome, now: Instant) {
        if outcome != CommitOutcome::RolledBack {
            self.added_at = Some(now);
        }
    }
}

/// A look-up that is under way.
pub(crate) struct LookingUp<'a, K: LoaderKey, V: LoaderValue> {
    local: &'a Local<K, V>,
    began: Began,
    any: u64,
    added: u64,
    /// Whether it may keep anything.
    keeps: bool,
    pub(crate) since: Instant,
}

impl<K: LoaderKey, V: LoaderValue> Local<K, V> {
    pub(crate) fn new(options: Cache, by_rows: bool) -> Self {
        let evictions = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&evictions);
        // An entry says itself when its time is over; by this one it also leaves memory, with the requests for others.
        let builder = moka::sync::Cache::<K, Arc<Kept<V>>>::builder()
            .time_to_live(options.longest() + options.stale)
            .eviction_listener(move |_, _, cause| {
                if cause == moka::notification::RemovalCause::Size {
                    counted.fetch_add(1, Ordering::Relaxed);
                }
            });
        let entries = match options.capacity {
            Capacity::Entries(0) | Capacity::Bytes(0) => None,
            Capacity::Entries(entries) => Some(builder.max_capacity(entries).build()),
            Capacity::Bytes(bytes) => Some(
                builder.max_capacity(bytes).weigher(|_, kept| kept.bytes.saturating_add(ENTRY_BYTES)).build(),
            ),
        };
        // An entry of a shared cache counts from the start of its look-up, which was before the commit if it is older.
        let written = options.shared.is_some().then(|| Written::new(options.longest() + options.clock_skew));
        let unsettled = Unsettled::new(options.longest() + options.clock_skew);
        Local {
            entries,
            guarded: Mutex::new(Guarded {
                fences: Fences::new(),
                written,
                added_at: None,
                hears: Hears::Nothing,
                unsettled,
            }),
            any: AtomicU64::new(0),
            added: AtomicU64::new(0),
            forgotten: AtomicU64::new(0),
            by_rows,
            options,
            evictions,
        }
    }

    /// From now on this tier is told of commits, but of these.
    pub(crate) fn hears_all_but(&self, earlier: Earlier) {
        self.lock().hears = Hears::AllBut(earlier);
    }

    /// There are no commits to be told of.
    pub(crate) fn hears_all(&self) {
        self.lock().hears = Hears::All;
    }

    /// What is kept of a key and not expired.
    #[inline]
    pub(crate) fn get(&self, key: &K, now: Instant) -> Option<Arc<Kept<V>>> {
        self.entry(key).filter(|kept| now < kept.expires)
    }

    /// What is kept of a key, and may be served while the store can't be reached.
    pub(crate) fn get_stale(&self, key: &K, now: Instant) -> Option<Arc<Kept<V>>> {
        self.entry(key).filter(|kept| kept.value.is_some() && now < kept.expires + self.options.stale)
    }

    #[inline]
    fn entry(&self, key: &K) -> Option<Arc<Kept<V>>> {
        self.entries.as_ref()?.get(key).filter(|kept| kept.generation == self.generation(&kept.value))
    }

    /// The generation that an entry must be of: a row that is there changes with commits that name its key, and with those that
    /// may change any.
    #[inline]
    fn generation(&self, value: &Option<V>) -> u64 {
        match value.is_some() && !self.by_rows {
            true => self.any.load(Ordering::Acquire),
            false => self.added.load(Ordering::Acquire),
        }
    }

    /// Begins a look-up. What it reads may be kept if it is read after this.
    pub(crate) fn look_up(&self) -> LookingUp<'_, K, V> {
        let mut guarded = self.lock();
        let began = guarded.fences.begin();
        let keeps = guarded.hears_all();
        let (any, added) = (self.any.load(Ordering::Acquire), self.added.load(Ordering::Acquire));
        LookingUp { local: self, began, any, added, keeps, since: Instant::now() }
    }

    /// Whether a shared cache may hold an older row of the key than this process wrote.
    pub(crate) fn was_written(&self, key: &K, now: Instant) -> bool {
        let mut guarded = self.lock();
        !guarded.hears_all()
            || guarded.written.as_mut().is_some_and(|written| written.contains(key, now))
            || guarded.unsettled.concerned(key, now)
    }

    /// Whether a shared cache is believed that a key has no row: not while it may say so of one to which this process has added one.
    pub(crate) fn believes_absence(&self, now: Instant) -> bool {
        let guarded = self.lock();
        let time = self.options.absent + self.options.clock_skew;
        guarded.added_at.is_none_or(|added| added + time < now) && !guarded.unsettled.concerned_any(now)
    }

    /// A commit may be about to change these keys.
    pub(crate) fn raise(&self, keys: &[K]) {
        let mut guarded = self.lock();
        for key in keys {
            guarded.fences.raise(key.clone());
        }
        self.move_on(&self.added);
        drop(guarded);
        // Behind the fences nothing is put in their place.
        keys.iter().for_each(|key| self.remove(key));
    }

    /// The commit ended.
    pub(crate) fn lower(&self, keys: &[K], outcome: CommitOutcome) {
        let mut guarded = self.lock();
        for key in keys {
            guarded.fences.lower(key.clone());
        }
        guarded.ended(outcome, Some(keys).filter(|_| !self.by_rows));
        self.move_on(&self.added);
    }

    /// A commit may be about to add rows under keys that aren't known.
    pub(crate) fn adds(&self) {
        let _guarded = self.lock();
        self.move_on(&self.added);
    }

    /// That commit ended.
    pub(crate) fn added(&self, outcome: CommitOutcome) {
        let mut guarded = self.lock();
        match self.by_rows {
            true => guarded.ended(outcome, None),
            false => {
                let now = Instant::now();
                guarded.may_have_added(outcome, now);
                if outcome == CommitOutcome::Unknown {
                    guarded.unsettled.add_absent(now);
                }
            }
        }
        self.move_on(&self.added);
    }

    /// A commit may be about to change any row.
    pub(crate) fn raise_all(&self) {
        self.lock().fences.raise_all();
        self.move_on(&self.any);
        self.move_on(&self.added);
        if let Some(entries) = &self.entries {
            // They are dead already; this frees them, and not in whoever's request comes next.
            entries.invalidate_all();
            if let Ok(runtime) = Handle::try_current() {
                let entries = entries.clone();
                runtime.spawn_blocking(move || entries.run_pending_tasks());
            }
        }
    }

    /// The commit ended.
    pub(crate) fn lower_all(&self, outcome: CommitOutcome) {
        let mut guarded = self.lock();
        guarded.fences.lower_all();
        guarded.ended(outcome, None);
        self.move_on(&self.any);
        self.move_on(&self.added);
    }

    /// Forgets a key, and what look-ups under way read of it.
    pub(crate) fn forget(&self, key: &K) {
        let mut guarded = self.lock();
        self.fence_off(&mut guarded, key);
        if let Some(written) = &mut guarded.written {
            written.add(std::slice::from_ref(key), Instant::now());
        }
        self.move_on(&self.forgotten);
    }

    /// Forgets everything.
    pub(crate) fn forget_all(&self) {
        self.raise_all();
        self.lower_all(CommitOutcome::Committed);
    }

    /// Keeps a value that the application gives, whatever look-ups under way read.
    pub(crate) fn prime(&self, key: K, value: Option<V>, bytes: usize) {
        self.fence_off(&mut self.lock(), &key);
        self.move_on(&self.forgotten);
        let looking_up = self.look_up();
        looking_up.keep(&key, Read { value, bytes, since: looking_up.since });
    }

    /// Drops what is kept of a key, and has nothing kept that was read of it before.
    fn fence_off(&self, guarded: &mut Guarded<K>, key: &K) {
        guarded.fences.raise(key.clone());
        self.remove(key);
        guarded.fences.lower(key.clone());
    }

    /// Whether what entries take is counted.
    pub(crate) fn counts_bytes(&self) -> bool {
        matches!(self.options.capacity, Capacity::Bytes(_))
    }

    /// Whether entries are kept here at all.
    pub(crate) fn keeps(&self) -> bool {
        self.entries.is_some()
    }

    /// Whether one key may have several rows.
    pub(crate) fn has_many_rows(&self) -> bool {
        self.by_rows
    }

    /// Changes with each commit that may have changed anything of the table, and with each key that is forgotten or primed; `None` while there may be
    /// commits that this isn't told of, or that come late.
    pub(crate) fn version(&self) -> Option<u64> {
        let version = || self.added.load(Ordering::Acquire) + self.forgotten.load(Ordering::Acquire);
        let mut guarded = self.lock();
        (guarded.hears_all() && !guarded.unsettled.is_open(Instant::now())).then(version)
    }

    /// Has entries and evictions count what happened a moment ago, too.
    pub(crate) fn settle(&self) {
        if let Some(entries) = &self.entries {
            entries.run_pending_tasks();
        }
    }

    pub(crate) fn evictions(&self) -> u64 {
        self.evictions.load(Ordering::Relaxed)
    }

    pub(crate) fn entries(&self) -> u64 {
        self.entries.as_ref().map_or(0, |entries| entries.entry_count())
    }

    fn move_on(&self, generation: &AtomicU64) {
        generation.fetch_add(1, Ordering::AcqRel);
    }

    fn remove(&self, key: &K) {
        if let Some(entries) = &self.entries {
            entries.invalidate(key);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Guarded<K>> {
        self.guarded.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: LoaderKey, V: LoaderValue> LookingUp<'_, K, V> {
    /// Keeps what was read of a key, unless it may be older than what this process wrote. Says whether it is kept.
    pub(crate) fn keep(&self, key: &K, read: Read<V>) -> bool {
        let options = &self.local.options;
        let Some(entries) = self.local.entries.as_ref().filter(|_| self.keeps) else { return false };
        let lives =
            options.time_of(read.value.is_some()).mul_f64(1.0 - options.jitter * rand::random::<f64>());
        let expires = read.since + lives;
        if lives.is_zero() || expires + options.stale <= self.since {
            return false;
        }
        let kept = Kept {
            generation: if read.value.is_some() && !self.local.by_rows { self.any } else { self.added },
            refresh: match options.refresh {
                1.0 => expires + Duration::from_secs(1),
                part => read.since + lives.mul_f64(part),
            },
            bytes: u32::try_from(read.bytes).unwrap_or(u32::MAX),
            value: read.value,
            expires,
            next: AtomicU64::new(0),
        };
        // Under the lock, so that a fence goes up either before this looks or after it has put the entry where raising finds it.
        let guarded = self.local.lock();
        let settled = !guarded.unsettled.concerns(key, kept.value.is_some(), self.since);
        let allowed = settled && guarded.fences.allows(key, self.began);
        if allowed {
            entries.insert(key.clone(), Arc::new(kept));
        }
        drop(guarded);
        allowed
    }
}

impl<K: LoaderKey, V: LoaderValue> Drop for LookingUp<'_, K, V> {
    fn drop(&mut self) {
        self.local.lock().fences.end(self.began);
    }
}
