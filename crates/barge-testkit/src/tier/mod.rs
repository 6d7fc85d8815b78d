//! A shared cache in memory, as truthful or as bad as a test wants it.
//!
//! Its clock is tokio's, so that a paused one passes lifetimes in no time. What goes wrong is drawn from a seed, in the order of the calls: where
//! that is the same, as in a runtime of one thread, so is what goes wrong.

mod contents;
mod faults;

use std::fmt;
use std::future::pending;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use barge_core::cache::{Entry, Lease, SharedTier};
use barge_core::{Error, ErrorKind, Result};
use bytes::Bytes;
use tokio::time::{Instant, sleep};

use self::contents::Contents;
use self::faults::Fate;
pub use self::faults::TierFaults;
use crate::fault::SplitMix;

/// A shared cache in memory. A clone is the same client; [`another`](MemoryTier::another) is a second one of the same cache, as in another
/// process.
///
/// ```
/// use barge_core::cache::{Lease, SharedTier};
/// use barge_testkit::{MemoryTier, TierFaults};
/// use std::time::Duration;
///
/// # #[tokio::main]
/// # async fn main() -> barge_core::Result<()> {
/// let (one, other) = { let tier = MemoryTier::new(); (tier.another(), tier) };
/// let keys = ["orders/7".to_owned()];
/// assert_eq!(one.lease(&keys, "token", Duration::from_secs(1)).await?, [Lease::Granted]);
/// assert_eq!(other.lease(&keys, "other", Duration::from_secs(1)).await?, [Lease::Held]);
///
/// one.set_faults(TierFaults { fail: 1_000, ..TierFaults::default() });
/// assert!(other.read(&keys).await.is_err());
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct MemoryTier {
    state: Arc<Mutex<State>>,
    closed: Arc<AtomicBool>,
}

/// How often each kind of call was made, faults or not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TierCalls {
    /// [`SharedTier::read`].
    pub read: u64,
    /// [`SharedTier::lease`].
    pub lease: u64,
    /// [`SharedTier::fill`].
    pub fill: u64,
    /// [`SharedTier::release`].
    pub release: u64,
    /// [`SharedTier::invalidate`].
    pub invalidate: u64,
    /// [`SharedTier::mark`].
    pub mark: u64,
}

/// What a cache held at some time: [`MemoryTier::snapshot`].
#[derive(Clone, Debug)]
pub struct TierSnapshot(Contents);

/// What a late call does when its time has come.
type Effect = Box<dyn FnOnce(&mut State, Instant) + Send>;

struct State {
    contents: Contents,
    faults: TierFaults,
    random: SplitMix,
    calls: TierCalls,
    /// What calls that said they had failed will yet do, and when.
    late: Vec<(Instant, Effect)>,
}

impl MemoryTier {
    /// An empty cache without faults.
    pub fn new() -> Self {
        MemoryTier::with_faults(TierFaults::default())
    }

    /// An empty cache with faults.
    pub fn with_faults(faults: TierFaults) -> Self {
        let state = State {
            contents: Contents::default(),
            random: SplitMix(faults.seed),
            faults,
            calls: TierCalls::default(),
            late: Vec::new(),
        };
        MemoryTier { state: Arc::new(Mutex::new(state)), closed: Arc::default() }
    }

    /// Another client of the same cache: closing the one leaves the other.
    pub fn another(&self) -> Self {
        MemoryTier { state: Arc::clone(&self.state), closed: Arc::default() }
    }

    /// Changes the faults, for all clients, from the next call on.
    pub fn set_faults(&self, faults: TierFaults) {
        let mut state = self.state();
        state.random = SplitMix(faults.seed);
        state.faults = faults;
    }

    /// What the cache holds now, leases and bars among it.
    pub fn snapshot(&self) -> TierSnapshot {
        TierSnapshot(self.settled().contents.clone())
    }

    /// Takes the cache back to what it held then. What has expired since is gone all the same; late calls are yet to come.
    pub fn restore(&self, snapshot: &TierSnapshot) {
        self.settled().contents = snapshot.0.clone();
    }

    /// Forgets everything: values, leases and bars.
    pub fn clear(&self) {
        self.settled().contents = Contents::default();
    }

    /// Forgets the value of a key, and neither lease nor bar.
    pub fn evict(&self, key: &str) {
        self.settled().contents.evict(key);
    }

    /// The keys that have a value, past all faults.
    pub fn keys(&self) -> Vec<String> {
        self.settled().contents.keys()
    }

    /// The value of a key, past all faults.
    pub fn value(&self, key: &str) -> Option<Bytes> {
        self.settled().contents.read(key, Instant::now())
    }

    /// How often each kind of call was made, by all clients.
    pub fn calls(&self) -> TierCalls {
        self.state().calls
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn settled(&self) -> MutexGuard<'_, State> {
        let mut state = self.state();
        state.settle(Instant::now());
        state
    }

    /// Makes a call: counts it, lets faults strike it, and has its effect.
    async fn call<T>(
        &self,
        count: impl FnOnce(&mut TierCalls) -> &mut u64,
        effect: impl FnOnce(&mut State, Instant) -> T + Send + 'static,
    ) -> Result<T> {
        if self.closed.load(Ordering::Relaxed) {
            return Err(Error::new(ErrorKind::Closed, "the cache was closed"));
        }
        let fate = {
            let mut state = self.settled();
            *count(&mut state.calls) += 1;
            state.evict_some();
            state.fate()
        };
        match fate {
            Fate::Hang => pending().await,
            Fate::Fail => return Err(injected(ErrorKind::ConnectionLost)),
            Fate::FailAfter => {
                effect(&mut self.settled(), Instant::now());
                return Err(injected(ErrorKind::ConnectionLost));
            }
            Fate::Late(after) => {
                let effect = Box::new(|state: &mut State, now| drop(effect(state, now)));
                self.state().late.push((Instant::now() + after, effect));
                return Err(injected(ErrorKind::Timeout));
            }
            Fate::Slow(before, after) => {
                sleep(before).await;
                let answer = effect(&mut self.settled(), Instant::now());
                sleep(after).await;
                return Ok(answer);
            }
            Fate::Spared => {}
        }
        Ok(effect(&mut self.settled(), Instant::now()))
    }
}

impl Default for MemoryTier {
    fn default() -> Self {
        MemoryTier::new()
    }
}

impl fmt::Debug for MemoryTier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state();
        f.debug_struct("MemoryTier")
            .field("contents", &state.contents)
            .field("faults", &state.faults)
            .finish()
    }
}

impl State {
    /// Does what late calls were to do by now, in the order of their times.
    fn settle(&mut self, now: Instant) {
        while let Some(next) = (0..self.late.len()).min_by_key(|number| self.late[*number].0)
            && self.late[next].0 <= now
        {
            let (time, effect) = self.late.remove(next);
            effect(self, time);
        }
        self.contents.expire(now);
    }
}

#[async_trait]
impl SharedTier for MemoryTier {
    async fn read(&self, keys: &[String]) -> Result<Vec<Option<Bytes>>> {
        let keys = keys.to_vec();
        let effect = move |state: &mut State, now| {
            keys.iter().map(|key| state.contents.read(key, now)).collect::<Vec<_>>()
        };
        self.call(|calls| &mut calls.read, effect).await
    }

    async fn lease(&self, keys: &[String], token: &str, time: Duration) -> Result<Vec<Lease>> {
        let (keys, token) = (keys.to_vec(), token.to_owned());
        let effect = move |state: &mut State, now| {
            let lease = |key: &String| {
                let time = state.lifetime(time);
                let is_lost = state.loses();
                state.contents.lease(key, &token, now + time, is_lost)
            };
            keys.iter().map(lease).collect::<Vec<_>>()
        };
        self.call(|calls| &mut calls.lease, effect).await
    }

    async fn fill(&self, entries: &[Entry], token: &str) -> Result<()> {
        let (entries, token) = (entries.to_vec(), token.to_owned());
        let effect = move |state: &mut State, now| {
            for entry in entries {
                let time = state.lifetime(entry.time);
                if !state.loses() {
                    state.contents.fill(entry.key, entry.value, &token, now + time);
                }
            }
        };
        self.call(|calls| &mut calls.fill, effect).await
    }

    async fn release(&self, keys: &[String], token: &str) -> Result<()> {
        let (keys, token) = (keys.to_vec(), token.to_owned());
        let effect = move |state: &mut State, _| {
            for key in &keys {
                if !state.loses() {
                    state.contents.release(key, &token);
                }
            }
        };
        self.call(|calls| &mut calls.release, effect).await
    }

    async fn invalidate(&self, keys: &[String], bar: Duration) -> Result<()> {
        let keys = keys.to_vec();
        let effect = move |state: &mut State, now| {
            for key in keys {
                let bar = state.lifetime(bar);
                if !state.loses() {
                    state.contents.invalidate(key, now + bar);
                }
            }
        };
        self.call(|calls| &mut calls.invalidate, effect).await
    }

    async fn mark(&self, marks: &[(String, Bytes)], time: Duration) -> Result<()> {
        let marks = marks.to_vec();
        let effect = move |state: &mut State, now| {
            for (key, value) in marks {
                let time = state.lifetime(time);
                if !state.loses() {
                    state.contents.set(key, value, now + time);
                }
            }
        };
        self.call(|calls| &mut calls.mark, effect).await
    }

    async fn close(&self) {
        self.closed.store(true, Ordering::Relaxed);
    }
}

fn injected(kind: ErrorKind) -> Error {
    Error::new(kind, "injected into the cache")
}
