//! Gather, seal, flush, answer: the one mechanism beneath [`Batcher`](crate::Batcher) and [`Writer`](crate::Writer).
//!
//! Callers add to an open buffer under one short lock. One task, the flusher, seals the buffer when a flush can start,
//! hands the sealed batch to whoever flushes it, and goes on with what gathered meanwhile. So batches form while the
//! previous flush is under way, a lone row leaves at once, and under load batches grow by themselves.
//!
//! # Invariants
//! - A buffer below its limits takes any one addition, so memory is bounded by `max_bytes` and one row, twice: once
//!   in flight, once open.
//! - One flush is in flight at a time, and batches are flushed in the order in which they were sealed.
//! - An addition is done inside one poll: an `add` that was dropped while it waited has added nothing.
//! - `completed` counts sealed batches whose flush ended, whatever the end; `flush` and `close` wait on it alone.

pub(crate) mod answer;
pub mod batcher;

mod limits;
mod retry;
mod statistics;
pub mod writer;

use std::collections::VecDeque;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::task::Poll;
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use limits::ADAPTIVE_START;
pub use limits::{Limits, WhenFull};
pub use retry::Retry;
pub(crate) use statistics::{Counters, Flushed};
pub use statistics::{FlushReason, Statistics};

use crate::{Error, ErrorKind, Result};

/// What callers add to.
pub(crate) trait Buffer: Send + 'static {
    type Sealed: Send + 'static;

    fn rows(&self) -> usize;
    fn bytes(&self) -> usize;
    /// Takes everything, leaving the buffer empty.
    fn seal(&mut self) -> Self::Sealed;
}

/// Flushes sealed batches and answers their rows.
pub(crate) trait Flusher<S>: Send + 'static {
    /// Flushes one batch. `Err` where the batch as a whole failed; its rows are answered all the same.
    fn flush(&mut self, sealed: S) -> impl Future<Output = Flushed> + Send;

    /// Answers the rows of a batch that will not be flushed.
    fn abandon(&mut self, sealed: S, why: &Error);
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
    flush_requested: bool,
    closing: bool,
    /// Why nothing is accepted any more, once that is so.
    refusal: Option<Error>,
    counters: Counters,
}

impl<B: Buffer> State<B> {
    /// Takes what is buffered, to be answered with an error.
    fn abandon_open(&mut self) -> Option<B::Sealed> {
        let rows = self.open.rows();
        self.counters.abandon(rows as u64);
        (rows > 0).then(|| self.open.seal())
    }
}

#[derive(Clone, Copy, PartialEq)]
enum FlusherState {
    /// Flushing; it will look at the buffer when it is done.
    Busy,
    /// Waiting for a first row.
    Idle,
    /// Waiting for more rows, or for the linger to end.
    Lingering,
}

/// Failures kept for those who wait: more than can come before a task that was woken runs.
const FAILURES_KEPT: usize = 64;

/// How far the flusher came.
#[derive(Clone, Debug, Default)]
struct Completed {
    batches: u64,
    /// The last batches that failed as a whole, counted from 1, and why. Whoever waits looks for one of two batches: the one in flight
    /// when it came, and the one that was open.
    failures: VecDeque<(u64, Error)>,
    ended: bool,
}

impl<B: Buffer> Engine<B> {
    /// An engine whose flusher runs on the present runtime.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub(crate) fn start(limits: Limits, buffer: B, flusher: impl Flusher<B::Sealed>) -> Result<Arc<Self>> {
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
            flush_requested: false,
            closing: false,
            refusal: None,
            counters: Counters::default(),
        };
        let engine = Arc::new(Engine {
            limits,
            state: Mutex::new(state),
            work: Notify::new(),
            room: Notify::new(),
            completed: watch::Sender::new(Completed::default()),
        });
        let task = FlusherTask { engine: Arc::clone(&engine), flusher };
        tokio::spawn(task.run());
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
                let message = "the buffer is full; wait, or let the writer wait (WhenFull::Wait)";
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
        let (target, before) = {
            let mut state = self.lock();
            let buffered = state.open.rows() > 0;
            state.flush_requested |= buffered;
            (state.sealed + u64::from(buffered), self.completed.borrow().batches)
        };
        self.work.notify_one();
        let completed = self.wait_for(|completed| completed.batches >= target || completed.ended).await;
        let mut failures = completed.failures.into_iter();
        match failures.find(|(batch, _)| (before + 1..=target).contains(batch)) {
            Some((_, error)) => Err(error),
            None if completed.batches < target => Err(closed("the flush was abandoned")),
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

    /// Refuses everything from now on, and returns what was buffered.
    pub(crate) fn poison(&self, error: &Error) -> Option<B::Sealed> {
        let mut state = self.lock();
        state.refusal = Some(
            Error::new(
                ErrorKind::Poisoned,
                format!("a flush before may be lost, so nothing more is accepted: {error}"),
            )
            .with_source(error.clone()),
        );
        let buffered = state.abandon_open();
        drop(state);
        self.room.notify_waiters();
        buffered
    }

    /// Takes in nothing more, and takes what is buffered away from the flusher.
    pub(crate) fn take_buffered(&self) -> Option<B::Sealed> {
        let mut state = self.lock();
        state.closing = true;
        state.refusal.get_or_insert_with(|| closed("it was closed before"));
        let buffered = state.abandon_open();
        drop(state);
        self.work.notify_one();
        self.room.notify_waiters();
        buffered
    }

    pub(crate) fn statistics(&self) -> Statistics {
        let state = self.lock();
        state.counters.snapshot(state.open.rows() as u64, state.cap)
    }

    async fn wait_for(&self, reached: impl FnMut(&Completed) -> bool) -> Completed {
        let mut completed = self.completed.subscribe();
        // The sender lives in self, so waiting can't fail.
        match completed.wait_for(reached).await {
            Ok(completed) => completed.clone(),
            Err(_) => Completed { ended: true, ..Completed::default() },
        }
    }

    #[inline]
    fn is_full(&self, state: &State<B>) -> bool {
        state.open.rows() >= state.cap || state.open.bytes() >= self.limits.max_bytes
    }

    #[inline]
    fn lock(&self) -> MutexGuard<'_, State<B>> {
        // A panic inside `append` (a record's own code) leaves at worst a row of that record behind; the state itself is sound.
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// Waits until a flush should start, and seals the buffer for it, which makes room. `None` at the end.
    async fn next(&self) -> Option<(B::Sealed, usize, FlushReason, Duration)> {
        loop {
            let deadline = {
                let mut state = self.lock();
                if let Some(reason) = self.due(&state) {
                    let rows = state.open.rows();
                    let sealed = state.open.seal();
                    let waited = state.opened.take().map_or(Duration::ZERO, |opened| opened.elapsed());
                    state.flusher = FlusherState::Busy;
                    state.flush_requested = false;
                    state.sealed += 1;
                    state.counters.in_flight = rows as u64;
                    return Some((sealed, rows, reason, waited));
                }
                if state.closing {
                    return None;
                }
                let lingering = state.open.rows() > 0;
                state.flusher = if lingering { FlusherState::Lingering } else { FlusherState::Idle };
                state.opened.filter(|_| lingering).map(|opened| opened + self.limits.linger)
            };
            match deadline {
                Some(deadline) => {
                    let _ = tokio::time::timeout_at(deadline, self.work.notified()).await;
                }
                None => self.work.notified().await,
            }
        }
    }

    /// Why a flush should start now.
    fn due(&self, state: &State<B>) -> Option<FlushReason> {
        let rows = state.open.rows();
        if rows == 0 {
            return None;
        }
        let lingered = || state.opened.is_none_or(|opened| opened.elapsed() >= self.limits.linger);
        if rows >= state.cap {
            Some(FlushReason::Rows)
        } else if state.open.bytes() >= self.limits.max_bytes {
            Some(FlushReason::Bytes)
        } else if state.closing {
            Some(FlushReason::Close)
        } else if state.flush_requested {
            Some(FlushReason::Explicit)
        } else if self.limits.linger.is_zero() {
            Some(FlushReason::Idle)
        } else if lingered() {
            Some(FlushReason::Linger)
        } else {
            None
        }
    }
}

fn closed(message: &str) -> Error {
    Error::new(ErrorKind::Closed, message)
}

/// The task that flushes. Dropped before its end, as when its runtime shuts down, it abandons what is left.
struct FlusherTask<B: Buffer, F: Flusher<B::Sealed>> {
    engine: Arc<Engine<B>>,
    flusher: F,
}

impl<B: Buffer, F: Flusher<B::Sealed>> FlusherTask<B, F> {
    async fn run(mut self) {
        while let Some((sealed, rows, reason, waited)) = self.engine.next().await {
            let started = Instant::now();
            let flushed = {
                let mut flush = pin!(self.flusher.flush(sealed));
                // The flush goes on its way before callers who wait for room are woken: waking a thread takes longer.
                let begun = poll_fn(|context| Poll::Ready(flush.as_mut().poll(context))).await;
                self.engine.room.notify_waiters();
                match begun {
                    Poll::Ready(flushed) => flushed,
                    Poll::Pending => flush.await,
                }
            };
            let took = started.elapsed();
            let engine = &self.engine;
            if let Some(error) = &flushed.poison
                && let Some(buffered) = engine.poison(error)
            {
                let refusal = engine.lock().refusal.clone();
                self.flusher.abandon(buffered, refusal.as_ref().unwrap_or(error));
            }
            {
                let mut state = engine.lock();
                let allowed = state.cap;
                state.counters.record(&flushed, reason, rows, allowed, waited, took);
                state.cap = adapted(&engine.limits, allowed, rows, took);
            }
            engine.completed.send_modify(|completed| {
                completed.batches += 1;
                if let Some(error) = flushed.failure {
                    if completed.failures.len() == FAILURES_KEPT {
                        completed.failures.pop_front();
                    }
                    completed.failures.push_back((completed.batches, error));
                }
            });
        }
        // Drop ends it, and finds nothing left.
    }
}

impl<B: Buffer, F: Flusher<B::Sealed>> Drop for FlusherTask<B, F> {
    fn drop(&mut self) {
        let buffered = self.engine.take_buffered();
        self.engine.lock().counters.abandon_in_flight();
        if let Some(buffered) = buffered {
            let why = closed("the runtime ended before the batch was flushed");
            self.flusher.abandon(buffered, &why);
        }
        self.engine.completed.send_modify(|completed| completed.ended = true);
    }
}

/// The cap on rows after a flush of `rows` that took so long.
fn adapted(limits: &Limits, cap: usize, rows: usize, took: Duration) -> usize {
    match limits.latency_target {
        Some(target) if took > target => (cap * 7 / 10).max(1),
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
        assert_eq!(adapted(&limits, 800, 800, target), 900);
        assert_eq!(adapted(&limits, 1_100, 1_100, target), 1_200, "never above max_rows");
        assert_eq!(adapted(&limits, 800, 799, target), 800, "a flush that wasn't full says nothing");
        assert_eq!(adapted(&limits, 800, 3, target * 2), 560);
        assert_eq!(adapted(&limits, 1, 1, target * 2), 1);
        assert_eq!(adapted(&limits, 1, 1, target), 2);
        let fixed = Limits { latency_target: None, ..limits };
        assert_eq!(adapted(&fixed, 800, 800, Duration::from_secs(9)), 800);
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
