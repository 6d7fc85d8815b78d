//! Gather, seal, flush, answer: the one mechanism beneath [`Batcher`](crate::Batcher) and [`Writer`](crate::Writer).
//!
//! Callers add to an open buffer under one short lock. One task, the flusher, seals the buffer when a flush can start,
//! hands the sealed batch to whoever flushes it, and goes on with what gathered meanwhile. So batches form while the
//! previous flush is under way, a lone row leaves at once, and under load batches grow by themselves.
//!
//! Each flush in flight has a lane, most engines one. Where there are more, a batch may be flushed beside others whose
//! `Reach` allows it; see `lanes` for when it is.
//!
//! # Invariants
//! - A buffer below its limits takes any one addition, so memory is bounded by `max_bytes` and one row for each lane, and once
//!   more for the open buffer.
//! - A lane has one flush in flight at a time. Batches start in the order in which they were sealed, and a buffer is sealed only when
//!   its flush starts.
//! - An addition is done inside one poll: an `add` that was dropped while it waited has added nothing.
//! - `completed` counts sealed batches up to the first whose flush hasn't ended, whatever the others' end; `flush` and `close` wait
//!   on it alone.

pub(crate) mod answer;
pub mod batcher;

mod lanes;
mod limits;
pub mod loader;
mod retry;
mod statistics;
pub mod writer;

use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use lanes::{Flight, FlusherTask, Next};
pub(crate) use lanes::{LANES_MAX, Reach};
use limits::ADAPTIVE_START;
pub use limits::{Limits, WhenFull};
pub use retry::Retry;
pub(crate) use statistics::{Counters, Flushed, Gathers};
pub use statistics::{FlushReason, Statistics};

use crate::{Error, ErrorKind, Result};

/// What callers add to.
pub(crate) trait Buffer: Send + 'static {
    type Sealed: Abandon;

    /// What gathers, as metrics name it.
    const GATHERS: Gathers = Gathers::Rows;

    fn rows(&self) -> usize;
    fn bytes(&self) -> usize;
    /// Takes everything, leaving the buffer empty.
    fn seal(&mut self) -> Self::Sealed;
}

/// A sealed batch.
pub(crate) trait Abandon: Send + 'static {
    /// Answers its rows, which will not be flushed.
    fn abandon(self, why: &Error);
}

/// A lane: flushes sealed batches one after the other, and answers their rows.
pub(crate) trait Flusher<B: Buffer>: Send + 'static {
    type Reach: Reach;

    /// What the open buffer would touch, were it flushed now. Asked only where there are several lanes.
    fn reach(&self, open: &B) -> Self::Reach;

    /// Flushes one batch. A failure of the batch as a whole is told; its rows are answered all the same.
    fn flush(&mut self, sealed: B::Sealed) -> impl Future<Output = Flushed> + Send;
}

/// The shared half of a batcher or a writer.
pub(crate) struct Engine<B: Buffer> {
    limits: Limits,
    state: Mutex<State<B>>,
    /// Wakes the flusher.
    work: Notify,
    /// Wakes callers that wait for room.
    room: Notify,
    completed: watch::Sender<Completed>,
}

struct State<B> {
    open: B,
    /// The cap on rows now; `max_rows` unless it adapts.
    cap: usize,
    flusher: FlusherState,
    /// When the first row of the open buffer was added.
    opened: Option<Instant>,
    /// Batches sealed so far.
    sealed: u64,
    /// How long the last flush took that needed no retry.
    flush_time: Option<Duration>,
    /// Calls of `flush` that wait.
    waiting: Vec<Arc<Waiting>>,
    flush_requested: bool,
    closing: bool,
    /// Why nothing is accepted any more, once that is so.
    refusal: Option<Error>,
    counters: Counters,
}

impl<B: Buffer> State<B> {
    /// For how long a first row gathers others beside flushes in flight, where a lane is free; `None` until the buffer is half full.
    fn gathering_time(&self) -> Option<Duration> {
        match B::GATHERS {
            Gathers::Rows => self.flush_time,
            Gathers::Keys => Some(self.flush_time.map_or(KEYS_GATHER, |time| time.min(KEYS_GATHER))),
        }
    }

    /// Seals the buffer, and gives it its number.
    fn seal(&mut self) -> B::Sealed {
        self.sealed += 1;
        self.flush_requested = false;
        self.open.seal()
    }

    /// Takes what is buffered, to be answered with an error.
    fn abandon_open(&mut self, why: &Error) -> Option<B::Sealed> {
        let rows = self.open.rows();
        if rows == 0 {
            return None;
        }
        self.counters.abandon(rows as u64);
        let sealed = self.seal();
        self.tell(self.sealed, why);
        Some(sealed)
    }

    /// Tells those who wait for a batch that it failed as a whole.
    fn tell(&mut self, batch: u64, failure: &Error) {
        for waiting in self.waiting.iter().filter(|waiting| batch <= waiting.last) {
            waiting.failure.get_or_init(|| failure.clone());
        }
    }
}

/// A key beside look-ups in flight gathers others for no longer than this: somebody waits for it, and the last look-up may have hung.
const KEYS_GATHER: Duration = Duration::from_millis(5);

#[derive(Clone, Copy, PartialEq)]
enum FlusherState {
    /// It will look at the buffer by itself, or only the end of a flush can change anything.
    Busy,
    /// Waiting for a first row.
    Idle,
    /// Waiting for more rows, or for the linger to end.
    Lingering,
    /// Waiting for enough rows to flush them beside others.
    Gathering,
}

/// A call of `flush` that waits.
struct Waiting {
    /// The last batch it waits for, counted from 1. Batches that end from now on up to this one were all before the call.
    last: u64,
    /// The first failure of a batch as a whole.
    failure: OnceLock<Error>,
}

/// How far the flusher came.
#[derive(Clone, Copy, Debug, Default)]
struct Completed {
    /// Batches that ended, but those after one that hasn't.
    batches: u64,
    ended: bool,
}

impl<B: Buffer> Engine<B> {
    /// An engine that runs on the present runtime, with at least one lane.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub(crate) fn start(limits: Limits, buffer: B, lanes: Vec<impl Flusher<B>>) -> Result<Arc<Self>> {
        limits.validate()?;
        let cap = match limits.latency_target {
            Some(_) => limits.max_rows.min(ADAPTIVE_START),
            None => limits.max_rows,
        };
        let state = State {
            open: buffer,
            cap,
            flusher: FlusherState::Busy,
            opened: None,
            sealed: 0,
            flush_time: None,
            waiting: Vec::new(),
            flush_requested: false,
            closing: false,
            refusal: None,
            counters: Counters::of(B::GATHERS),
        };
        let engine = Arc::new(Engine {
            limits,
            state: Mutex::new(state),
            work: Notify::new(),
            room: Notify::new(),
            completed: watch::Sender::new(Completed::default()),
        });
        tokio::spawn(FlusherTask::new(Arc::clone(&engine), lanes).run());
        Ok(engine)
    }

    pub(crate) fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Adds by `append`, once there is room. `append` adds something or fails, and adds nothing then.
    pub(crate) async fn add<T>(&self, mut append: impl FnMut(&mut B) -> Result<T>) -> Result<T> {
        // A caller whose adds are always ready would starve a flusher on the same thread.
        tokio::task::consume_budget().await;
        loop {
            if let Some(added) = self.try_add(&mut append)? {
                return Ok(added);
            }
            if self.limits.when_full == WhenFull::Reject {
                let message = "the buffer is full: try again later, or have callers wait (WhenFull::Wait)";
                return Err(Error::new(ErrorKind::BufferFull, message));
            }
            let mut room = std::pin::pin!(self.room.notified());
            // Registered before the second look, so that room made in between is not missed.
            room.as_mut().enable();
            if let Some(added) = self.try_add(&mut append)? {
                return Ok(added);
            }
            room.await;
        }
    }

    /// Adds by `append` if there is room now; `None` where there isn't.
    pub(crate) fn offer<T>(&self, mut append: impl FnMut(&mut B) -> Result<T>) -> Result<Option<T>> {
        self.try_add(&mut append)
    }

    /// Adds now; `None` where the buffer is full.
    #[inline]
    fn try_add<T>(&self, append: &mut impl FnMut(&mut B) -> Result<T>) -> Result<Option<T>> {
        // One way in and one way out of the lock: it is the hottest one.
        let added = self.add_to(&mut self.lock(), append);
        let Some((added, wake)) = added? else { return Ok(None) };
        if wake {
            self.work.notify_one();
        }
        Ok(Some(added))
    }

    /// Adds to the open buffer, and says whether the flusher must be woken.
    #[inline]
    fn add_to<T>(
        &self,
        state: &mut State<B>,
        append: &mut impl FnMut(&mut B) -> Result<T>,
    ) -> Result<Option<(T, bool)>> {
        if let Some(refusal) = &state.refusal {
            return Err(refusal.clone());
        }
        if self.is_full(state) {
            return Ok(None);
        }
        let before = state.open.rows();
        let added = append(&mut state.open)?;
        state.counters.added += (state.open.rows() - before) as u64;
        if before == 0 {
            state.opened = Some(Instant::now());
        }
        let wake = match state.flusher {
            FlusherState::Busy => false,
            FlusherState::Idle => true,
            FlusherState::Lingering => self.is_full(state),
            FlusherState::Gathering => self.is_half_full(state),
        };
        if wake {
            // Busy from now on, so that only the first row wakes it.
            state.flusher = FlusherState::Busy;
        }
        Ok(Some((added, wake)))
    }

    /// Flushes what is buffered now and waits until it, and all before it, is answered.
    ///
    /// # Errors
    /// The failure of a batch that failed as a whole meanwhile.
    pub(crate) async fn flush(&self) -> Result<()> {
        let waiting = {
            let mut state = self.lock();
            let buffered = state.open.rows() > 0;
            state.flush_requested |= buffered;
            let last = state.sealed + u64::from(buffered);
            if last <= self.completed.borrow().batches {
                return Ok(());
            }
            let waiting = Arc::new(Waiting { last, failure: OnceLock::new() });
            if state.waiting.len() == state.waiting.capacity() {
                // Those who gave up make room before it grows.
                state.waiting.retain(|waiting| Arc::strong_count(waiting) > 1);
            }
            state.waiting.push(Arc::clone(&waiting));
            waiting
        };
        self.work.notify_one();
        let last = waiting.last;
        let completed = self.wait_for(|completed| completed.batches >= last || completed.ended).await;
        match waiting.failure.get() {
            Some(error) => Err(error.clone()),
            None if completed.batches < last => Err(closed("the flush was abandoned")),
            None => Ok(()),
        }
    }

    /// Takes in nothing more; what is buffered drains.
    pub(crate) fn close_soon(&self) {
        let mut state = self.lock();
        state.closing = true;
        state.refusal.get_or_insert_with(|| closed("it was closed before"));
        drop(state);
        self.work.notify_one();
        self.room.notify_waiters();
    }

    /// Takes in nothing more, and waits until everything is answered.
    pub(crate) async fn close(&self) {
        self.close_soon();
        self.wait_for(|completed| completed.ended).await;
    }

    /// Refuses everything from now on, and abandons what was buffered. The first reason stands.
    fn poison(&self, error: &Error) {
        let mut state = self.lock();
        let poisoned = state.refusal.take().filter(|refusal| refusal.kind() == ErrorKind::Poisoned);
        let refusal = poisoned.unwrap_or_else(|| {
            let message = format!("a flush before may be lost, so nothing more is accepted: {error}");
            Error::new(ErrorKind::Poisoned, message).with_source(error.clone())
        });
        state.refusal = Some(refusal.clone());
        let buffered = state.abandon_open(&refusal);
        drop(state);
        self.room.notify_waiters();
        if let Some(buffered) = buffered {
            buffered.abandon(&refusal);
        }
    }

    /// Takes in nothing more, and abandons what is buffered.
    pub(crate) fn abandon_buffered(&self, why: &Error) {
        let mut state = self.lock();
        state.closing = true;
        state.refusal.get_or_insert_with(|| closed("it was closed before"));
        let buffered = state.abandon_open(why);
        drop(state);
        if let Some(buffered) = buffered {
            buffered.abandon(why);
        }
        self.work.notify_one();
        self.room.notify_waiters();
    }

    pub(crate) fn statistics(&self) -> Statistics {
        let state = self.lock();
        state.counters.snapshot(state.open.rows() as u64, state.cap)
    }

    async fn wait_for(&self, reached: impl FnMut(&Completed) -> bool) -> Completed {
        let mut completed = self.completed.subscribe();
        // The sender lives in self, so waiting can't fail.
        match completed.wait_for(reached).await {
            Ok(completed) => *completed,
            Err(_) => Completed { ended: true, ..Completed::default() },
        }
    }

    #[inline]
    fn is_full(&self, state: &State<B>) -> bool {
        state.open.rows() >= state.cap || state.open.bytes() >= self.limits.max_bytes
    }

    /// Whether there is enough to be flushed beside others.
    fn is_half_full(&self, state: &State<B>) -> bool {
        state.open.rows() >= state.cap.div_ceil(2) || state.open.bytes() >= self.limits.max_bytes.div_ceil(2)
    }

    #[inline]
    fn lock(&self) -> MutexGuard<'_, State<B>> {
        // A panic inside `append` (a record's own code) leaves at worst a row of that record behind; the state itself is sound.
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// What the flusher does next, with these flushes in flight and this lane free.
    fn next<F: Flusher<B>>(&self, flights: &[Flight<F::Reach>], lane: &F, lanes: usize) -> Next<B, F> {
        let mut state = self.lock();
        state.flusher = FlusherState::Busy;
        let Some(reason) = self.due(&state, !flights.is_empty()) else {
            return self.wait(&mut state, flights.is_empty());
        };
        let reach = (lanes > 1).then(|| lane.reach(&state.open));
        let fits = |flight: &Flight<F::Reach>| match (&reach, &flight.reach) {
            (Some(reach), Some(other)) => reach.allows(other),
            _ => false,
        };
        if !flights.iter().all(fits) {
            return Next::Wait { until: None };
        }
        let rows = state.open.rows();
        let waited = state.opened.take().map_or(Duration::ZERO, |opened| opened.elapsed());
        let sealed = state.seal();
        state.counters.in_flight += rows as u64;
        let flight = Flight {
            batch: state.sealed,
            rows,
            allowed: state.cap,
            reason,
            waited,
            started: Instant::now(),
            reach,
        };
        Next::Flush(flight, sealed)
    }

    /// Waits until the flusher is woken, or a time has come.
    async fn wait_for_work(&self, until: Option<Instant>) {
        let notified = self.work.notified();
        match until {
            Some(until) => drop(tokio::time::timeout_at(until, notified).await),
            None => notified.await,
        }
    }

    /// For what the flusher waits where nothing is due.
    fn wait<F: Flusher<B>>(&self, state: &mut State<B>, idle: bool) -> Next<B, F> {
        if state.closing && idle {
            return Next::End;
        }
        let (waits_for, wait) = match state.opened.filter(|_| state.open.rows() > 0) {
            None => (FlusherState::Idle, None),
            // A time that the clock can't tell never comes: then only a full buffer is flushed, or one that somebody asks for.
            Some(opened) if idle || !self.limits.linger.is_zero() => {
                (FlusherState::Lingering, opened.checked_add(self.limits.linger))
            }
            Some(opened) => (FlusherState::Gathering, state.gathering_time().map(|time| opened + time)),
        };
        state.flusher = waits_for;
        Next::Wait { until: wait }
    }

    /// Keeps account of a flush that ended. `earliest` is the first batch that is still in flight.
    fn end<R>(&self, flight: &Flight<R>, flushed: Flushed, earliest: Option<u64>) {
        let took = flight.started.elapsed();
        if let Some(error) = &flushed.poison {
            self.poison(error);
        }
        let mut state = self.lock();
        let Flight { batch, rows, allowed, reason, waited, .. } = *flight;
        state.counters.record(&flushed, reason, rows, allowed, waited, took);
        state.cap = adapted(&self.limits, state.cap, allowed, rows, took);
        if flushed.retries == 0 {
            state.flush_time = Some(took);
        }
        if let Some(failure) = &flushed.failure {
            state.tell(batch, failure);
        }
        let batches = earliest.map_or(state.sealed, |earliest| earliest - 1);
        state.waiting.retain(|waiting| waiting.last > batches && Arc::strong_count(waiting) > 1);
        drop(state);
        self.completed.send_modify(|completed| completed.batches = batches);
    }

    /// Why a flush should start now; `beside` others or alone.
    fn due(&self, state: &State<B>, beside: bool) -> Option<FlushReason> {
        let rows = state.open.rows();
        if rows == 0 {
            return None;
        }
        let waits = |time| state.opened.is_none_or(|opened| opened.elapsed() >= time);
        if rows >= state.cap {
            Some(FlushReason::Rows)
        } else if state.open.bytes() >= self.limits.max_bytes {
            Some(FlushReason::Bytes)
        } else if state.closing {
            Some(FlushReason::Close)
        } else if state.flush_requested {
            Some(FlushReason::Explicit)
        } else if !self.limits.linger.is_zero() {
            waits(self.limits.linger).then_some(FlushReason::Linger)
        } else {
            let worthwhile = || self.is_half_full(state) || state.gathering_time().is_some_and(waits);
            (!beside || worthwhile()).then_some(FlushReason::Idle)
        }
    }
}

fn closed(message: &str) -> Error {
    Error::new(ErrorKind::Closed, message)
}

/// What ended the task that flushes: the beginning of a sentence.
pub(crate) fn end_of_task() -> &'static str {
    if std::thread::panicking() { "a panic ended the task that flushes" } else { "the runtime ended" }
}

/// The cap on rows, now `cap`, after a flush of `rows` of the `allowed` that took so long. Flushes that ran beside each other move it once,
/// not once each.
fn adapted(limits: &Limits, cap: usize, allowed: usize, rows: usize, took: Duration) -> usize {
    match limits.latency_target {
        Some(target) if took > target => cap.min(allowed * 7 / 10).max(1),
        Some(_) if rows >= cap => (cap + (cap / 8).max(1)).min(limits.max_rows),
        _ => cap,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_cap_rises_by_an_eighth_and_falls_to_seven_tenths() {
        let target = Duration::from_millis(10);
        let limits = Limits { max_rows: 1_200, latency_target: Some(target), ..Limits::default() };
        assert_eq!(adapted(&limits, 800, 800, 800, target), 900);
        assert_eq!(adapted(&limits, 1_100, 1_100, 1_100, target), 1_200, "never above max_rows");
        assert_eq!(adapted(&limits, 800, 800, 799, target), 800, "a flush that wasn't full says nothing");
        assert_eq!(adapted(&limits, 800, 800, 3, target * 2), 560);
        assert_eq!(adapted(&limits, 1, 1, 1, target * 2), 1);
        assert_eq!(adapted(&limits, 1, 1, 1, target), 2);
        assert_eq!(
            adapted(&limits, 560, 800, 800, target * 2),
            560,
            "cut once for flushes that ran together"
        );
        assert_eq!(adapted(&limits, 392, 800, 800, target * 2), 392, "never raised by one that was too slow");
        assert_eq!(adapted(&limits, 900, 800, 800, target), 900, "raised once");
        let fixed = Limits { latency_target: None, ..limits };
        assert_eq!(adapted(&fixed, 800, 800, 800, Duration::from_secs(9)), 800);
    }

    #[test]
    fn limits_out_of_bounds_are_refused_by_name() {
        for (limits, name) in [
            (Limits { max_rows: 0, ..Limits::default() }, "max_rows"),
            (Limits { max_bytes: 2 << 30, ..Limits::default() }, "max_bytes"),
            (Limits { latency_target: Some(Duration::ZERO), ..Limits::default() }, "latency_target"),
        ] {
            let error = limits.validate().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidConfig);
            assert!(error.to_string().contains(name), "{error}");
        }
        Limits::default().validate().unwrap();
    }
}
