//! Flushes side by side: the task that flushes, and when it does.
//!
//! Each lane flushes one batch at a time. With one lane, a flush starts as soon as the one before has ended and something is
//! buffered. With several:
//!
//! - A batch goes beside others only where each of them [allows](Reach::allows) it. Where one doesn't, nothing starts until that one has ended; the
//!   buffer goes on gathering meanwhile. So a batch that nothing allows goes alone, and those behind it wait for it.
//! - With nothing in flight a lone row leaves at once. Beside others a flush starts once the buffer is half full, or its first row has waited
//!   as long as the last flush took: by then, with one lane, it would be on its way. So lanes take large batches under load, a
//!   trickle does not become a flood of small ones, and a flush that hangs holds nobody up for long. Keys gather for a few milliseconds at
//!   most. A limit that is reached, a linger that ends, `flush` and `close` start a flush at once.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::time::Instant;

use super::{Buffer, Engine, FlushReason, Flushed, Flusher, closed, end_of_task};

/// The most lanes: each has a batch in memory, and mostly a connection.
pub(crate) const LANES_MAX: usize = 64;

/// What a batch touches, as far as it matters to those flushed beside it.
pub(crate) trait Reach: Send + 'static {
    /// Whether this batch and another may be flushed at the same time.
    fn allows(&self, other: &Self) -> bool;
}

/// Nothing goes beside anything.
impl Reach for () {
    fn allows(&self, _other: &Self) -> bool {
        false
    }
}

/// A flush that is under way.
pub(super) struct Flight<R> {
    /// The batch's number, from 1 in the order of sealing.
    pub(super) batch: u64,
    pub(super) rows: usize,
    /// The cap on rows when it was sealed.
    pub(super) allowed: usize,
    pub(super) reason: FlushReason,
    /// How long its first row had waited.
    pub(super) waited: Duration,
    pub(super) started: Instant,
    /// `None` where there is one lane.
    pub(super) reach: Option<R>,
}

/// What to do next.
pub(super) enum Next<B: Buffer, F: Flusher<B>> {
    Flush(Flight<F::Reach>, B::Sealed),
    /// Wait until a flush ends, the engine's `work` is notified, or this time has come.
    Wait {
        until: Option<Instant>,
    },
    End,
}

/// A flush that ended: its lane, the batch's number and what it came to.
type Ended<F> = (F, u64, Flushed);

/// The task that flushes. Dropped before its end, as when its runtime shuts down, it abandons what is left.
pub(super) struct FlusherTask<B: Buffer, F: Flusher<B>> {
    engine: Arc<Engine<B>>,
    lanes: usize,
    /// The lanes without a flush; the next one to be used is the last.
    free: Vec<F>,
    flights: Vec<Flight<F::Reach>>,
}

impl<B: Buffer, F: Flusher<B>> FlusherTask<B, F> {
    pub(super) fn new(engine: Arc<Engine<B>>, mut lanes: Vec<F>) -> Self {
        lanes.reverse();
        FlusherTask { engine, lanes: lanes.len(), flights: Vec::with_capacity(lanes.len()), free: lanes }
    }

    pub(super) async fn run(mut self) {
        let mut flushes = Slots::new(self.lanes);
        loop {
            match self.next() {
                Next::Flush(flight, sealed) => {
                    let batch = flight.batch;
                    let Some(mut lane) = self.free.pop() else { unreachable!("found free just now") };
                    self.flights.push(flight);
                    flushes.start(async move {
                        let flushed = lane.flush(sealed).await;
                        (lane, batch, flushed)
                    });
                    // The flush goes on its way before callers who wait for room are woken: waking a thread takes longer.
                    let begun = poll_fn(|context| Poll::Ready(flushes.poll(context))).await;
                    self.engine.room.notify_waiters();
                    if let Poll::Ready(ended) = begun
                        && self.end(ended)
                    {
                        gather(&self.engine).await;
                    }
                }
                Next::Wait { until } => {
                    let none_free = self.free.is_empty();
                    let work = self.engine.wait_for_work(until);
                    if let Some(ended) = first(&mut flushes, work, none_free).await
                        && self.end(ended)
                    {
                        gather(&self.engine).await;
                    }
                }
                // Drop ends it, and finds nothing left.
                Next::End => return,
            }
        }
    }

    fn next(&self) -> Next<B, F> {
        match self.free.last() {
            Some(lane) => self.engine.next(&self.flights, lane, self.lanes),
            None => Next::Wait { until: None },
        }
    }

    /// Notes that a flush ended, and says whether somebody waited for it.
    fn end(&mut self, (lane, batch, flushed): Ended<F>) -> bool {
        self.free.push(lane);
        let Some(place) = self.flights.iter().position(|flight| flight.batch == batch) else {
            unreachable!("it was noted when it started")
        };
        let flight = self.flights.swap_remove(place);
        let earliest = self.flights.iter().map(|flight| flight.batch).min();
        let awaited = flushed.awaited;
        self.engine.end(&flight, flushed, earliest);
        awaited
    }
}

/// Lets those who were answered just now add what they have next, so that it goes in one flush and not in two: as long as more
/// comes, and not for long. Nothing is waited for: where nobody else runs, this is over in a microsecond.
async fn gather<B: Buffer>(engine: &Engine<B>) {
    let mut before = engine.lock().open.rows();
    for turn in 0..GATHER_TURNS {
        tokio::task::yield_now().await;
        let now = engine.lock().open.rows();
        // The first to be woken may need a turn to begin.
        if now == before && (now > 0 || turn > 0) {
            return;
        }
        before = now;
    }
}

/// How often at most others may run before the next flush starts.
const GATHER_TURNS: usize = 16;

impl<B: Buffer, F: Flusher<B>> Drop for FlusherTask<B, F> {
    fn drop(&mut self) {
        // Flushes in flight were dropped before, and abandoned their batches.
        self.engine.abandon_buffered(&closed(&format!("{} before the batch was flushed", end_of_task())));
        let all = {
            let mut state = self.engine.lock();
            state.counters.abandon_in_flight();
            // Whoever waited for the buffer has been told.
            self.flights.is_empty().then_some(state.sealed)
        };
        self.engine.completed.send_modify(|completed| {
            completed.batches = all.unwrap_or(completed.batches);
            completed.ended = true;
        });
    }
}

/// Waits for a flush to end; `None` where there is work before.
async fn first<E>(
    flushes: &mut Slots<impl Future<Output = E>>,
    work: impl Future<Output = ()>,
    none_free: bool,
) -> Option<E> {
    let mut work = pin!(work);
    poll_fn(|context| match flushes.poll(context) {
        Poll::Ready(ended) => Poll::Ready(Some(ended)),
        // Without a free lane, only a flush that ends gives anything to do.
        Poll::Pending if none_free => Poll::Pending,
        Poll::Pending => work.as_mut().poll(context).map(|()| None),
    })
    .await
}

/// Futures that are polled together. Their places are made once, so that starting one allocates nothing.
struct Slots<T>(Vec<Pin<Box<Option<T>>>>);

impl<T: Future> Slots<T> {
    fn new(slots: usize) -> Self {
        Slots((0..slots).map(|_| Box::pin(None)).collect())
    }

    fn start(&mut self, future: T) {
        match self.0.iter_mut().find(|slot| slot.is_none()) {
            Some(slot) => slot.set(Some(future)),
            None => unreachable!("there is a slot for each lane"),
        }
    }

    /// The output of one that ended.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<T::Output> {
        for slot in &mut self.0 {
            if let Some(future) = slot.as_mut().as_pin_mut()
                && let Poll::Ready(output) = future.poll(context)
            {
                slot.set(None);
                return Poll::Ready(output);
            }
        }
        Poll::Pending
    }
}
