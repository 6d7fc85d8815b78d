//! What a loader keeps, and how long.

use std::sync::Arc;
use std::time::Duration;

use super::SharedTier;
use super::shared::wall_clock;
use crate::{Error, ErrorKind, Result};

/// The longest of all times: a sum of several still is a moment that the clock can tell.
pub(super) const LONGEST: Duration = Duration::from_secs(10 * 365 * 24 * 60 * 60);

/// What a [`Loader`](crate::Loader) keeps of what it read, and how long.
///
/// The tiers are asked in turn: the memory of this process, then the cache that processes [share](Cache::shared), where there is
/// one, then the store. Times count from the start of the look-up that read the row, in whichever process that was; so another program's write
/// is seen within the time to live and the time that look-up took.
///
/// ```
/// use std::time::Duration;
///
/// use barge_core::Cache;
///
/// let orders = Cache::new(Duration::from_secs(30)).entries(10_000);
/// let accounts = Cache::new(Duration::from_secs(60)).bytes(64 << 20).stale_while_unavailable(Duration::from_secs(600));
/// ```
#[derive(Clone, Debug)]
#[must_use = "hand it to a loader"]
pub struct Cache {
    pub(crate) time_to_live: Duration,
    pub(crate) jitter: f64,
    pub(crate) absent: Duration,
    pub(crate) refresh: f64,
    pub(crate) stale: Duration,
    pub(crate) capacity: Capacity,
    pub(crate) shared: Option<Arc<dyn SharedTier>>,
    pub(crate) shared_timeout: Duration,
    pub(crate) lease: Duration,
    pub(crate) clock_skew: Duration,
    pub(crate) clock: fn() -> i64,
}

/// What the process's own tier holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Capacity {
    Entries(u64),
    Bytes(u64),
}

impl Cache {
    /// Keeps entries for so long, at most 100,000 of them, whatever they take: [`bytes`](Cache::bytes) bounds what large rows take. No time of a cache may be longer than ten years.
    pub fn new(time_to_live: Duration) -> Self {
        Cache {
            time_to_live,
            jitter: 0.1,
            absent: Duration::from_secs(1).min(time_to_live),
            refresh: 0.8,
            stale: Duration::ZERO,
            capacity: Capacity::Entries(100_000),
            shared: None,
            shared_timeout: Duration::from_millis(100),
            lease: Duration::from_millis(500),
            clock_skew: Duration::from_secs(5),
            clock: wall_clock,
        }
    }

    /// The most entries in this process's memory; 0 keeps none there. Defaults to 100,000.
    pub fn entries(mut self, entries: u64) -> Self {
        self.capacity = Capacity::Entries(entries);
        self
    }

    /// The most bytes in this process's memory instead: keys and rows as they were read or given to `prime`, and 128 bytes for each entry. A
    /// loader over a handler of your own has to be told how large its values are:
    /// [`LoaderBuilder::weigh`](crate::LoaderBuilder::weigh).
    pub fn bytes(mut self, bytes: u64) -> Self {
        self.capacity = Capacity::Bytes(bytes);
        self
    }

    /// Entries expire early by a random part of their time to live, up to this one, so that what was read together is not read again
    /// together. At least 0 and below 1; defaults to 0.1.
    pub fn jitter(mut self, part: f64) -> Self {
        self.jitter = part;
        self
    }

    /// How long it is remembered that a key has no row, also in the shared cache. Zero doesn't remember it. Defaults to one second, or the time to live where that is shorter.
    pub fn absent(mut self, time: Duration) -> Self {
        self.absent = time;
        self
    }

    /// After which part of its time to live an entry that is asked for is read anew in the background, while it goes on being served:
    /// keys in demand never expire. Of processes that share a cache, one reads it. Where memory keeps nothing, one look-up for this may be
    /// under way beside the loader's others. 1 turns that off. Defaults to 0.8.
    pub fn refresh_after(mut self, part: f64) -> Self {
        self.refresh = part;
        self
    }

    /// How long an expired entry of this process's memory may be served where the store can't be reached: at once where it fails, after a tenth of the look-up's
    /// [`timeout`](crate::LoaderBuilder::timeout) where it says nothing. What this process writes is still never served older. Defaults to zero: the store's error is the
    /// answer.
    pub fn stale_while_unavailable(mut self, time: Duration) -> Self {
        self.stale = time;
        self
    }

    /// A cache that processes share, asked before the store: `RedisTier` of `barge-redis`. Databases that share one need different prefixes there: a key says table
    /// and key, and not which database.
    pub fn shared(mut self, tier: Arc<dyn SharedTier>) -> Self {
        self.shared = Some(tier);
        self
    }

    /// How long the shared cache may take for an answer before the store is asked instead. Defaults to 100 ms.
    pub fn shared_timeout(mut self, time: Duration) -> Self {
        self.shared_timeout = time;
        self
    }

    /// How long another look-up of the same key is waited for, of this process or another, and how long a process that ended keeps
    /// others from filling an entry. Defaults to 500 ms.
    pub fn lease(mut self, time: Duration) -> Self {
        self.lease = time;
        self
    }

    /// How far the clocks of machines that share a cache may be apart. Defaults to 5 s.
    pub fn clock_skew(mut self, time: Duration) -> Self {
        self.clock_skew = time;
        self
    }

    /// Another clock than the machine's, in microseconds since 1970: for tests whose time stands still.
    #[doc(hidden)]
    pub fn clock(mut self, clock: fn() -> i64) -> Self {
        self.clock = clock;
        self
    }

    /// How long it is kept that a key has a row, or none.
    pub(crate) fn time_of(&self, has_row: bool) -> Duration {
        if has_row { self.time_to_live } else { self.absent }
    }

    /// The longest that anything is kept.
    pub(crate) fn longest(&self) -> Duration {
        self.time_to_live.max(self.absent)
    }

    pub(crate) fn validate(&self) -> Result<()> {
        let invalid = |message: &str| Err(Error::new(ErrorKind::InvalidConfig, message));
        let part = |part: f64| (0.0..=1.0).contains(&part);
        if self.time_to_live.is_zero() {
            return invalid("the cache's time to live is zero: leave the cache out, or give it a time");
        }
        let times = [
            ("time to live", self.time_to_live),
            ("absent", self.absent),
            ("stale_while_unavailable", self.stale),
            ("shared_timeout", self.shared_timeout),
            ("lease", self.lease),
            ("clock_skew", self.clock_skew),
        ];
        if let Some((name, time)) = times.into_iter().find(|(_, time)| *time > LONGEST) {
            return invalid(&format!("the cache's {name} is {time:?}; ten years are the most"));
        }
        if !part(self.jitter) || self.jitter == 1.0 {
            return invalid("the cache's jitter must be at least 0 and below 1");
        }
        if !part(self.refresh) {
            return invalid("refresh_after must be between 0 and 1, where 1 turns it off");
        }
        if self.shared.is_some() && (self.shared_timeout.is_zero() || self.lease.is_zero()) {
            return invalid("the shared cache's timeout and lease must be longer than nothing");
        }
        Ok(())
    }
}
