//! Requests of any kind gather here and are handled together: a database call, an HTTP call, a message. See [`Batcher`].

use std::future::Future;
use std::ops::Deref;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;

use super::answer::{Cell, Ticket};
use super::{Abandon, Buffer, Engine, Flushed, Flusher, Limits, Retry, Statistics, WhenFull, end_of_task};
use crate::{Error, ErrorKind, Result};

/// A batch of requests, in the order in which they came. A retry gets the same batch again.
#[derive(Debug)]
pub struct Requests<Q>(Arc<Vec<Q>>);

impl<Q> Requests<Q> {
    pub(crate) fn new(requests: Vec<Q>) -> Self {
        Requests(Arc::new(requests))
    }
}

impl<Q> Clone for Requests<Q> {
    fn clone(&self) -> Self {
        Requests(Arc::clone(&self.0))
    }
}

impl<Q> Deref for Requests<Q> {
    type Target = [Q];

    fn deref(&self) -> &[Q] {
        &self.0
    }
}

type Handler<Q, A> = Box<dyn FnMut(Requests<Q>) -> BoxFuture<'static, Result<Vec<Result<A>>>> + Send>;

/// Each request's answer, taken by whoever asked.
type Answers<A> = Mutex<Vec<Option<Result<A>>>>;

/// Sets up a [`Batcher`]; made by [`Batcher::builder`].
#[must_use = "a batcher begins with start()"]
pub struct BatcherBuilder<Q, A> {
    handler: Handler<Q, A>,
    size: fn(&Q) -> usize,
    limits: Limits,
    retry: Retry,
}

impl<Q: Send + Sync + 'static, A: Send + 'static> BatcherBuilder<Q, A> {
    /// Takes all limits at once.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// The most requests in one batch; see [`Limits::max_rows`]. Defaults to 10,000.
    pub fn max_rows(mut self, rows: usize) -> Self {
        self.limits.max_rows = rows;
        self
    }

    /// The most bytes in one batch, as [`size`](Self::size) counts them. Defaults to 8 MiB.
    pub fn max_bytes(mut self, bytes: usize) -> Self {
        self.limits.max_bytes = bytes;
        self
    }

    /// The longest wait for more requests; see [`Limits::linger`]. Defaults to none.
    pub fn linger(mut self, linger: Duration) -> Self {
        self.limits.linger = linger;
        self
    }

    /// How long a full batch should take; see [`Limits::latency_target`]. Defaults to no target.
    pub fn latency_target(mut self, target: Duration) -> Self {
        self.limits.latency_target = Some(target);
        self
    }

    /// What to do with a request when the buffer is full. Defaults to waiting.
    pub fn when_full(mut self, when_full: WhenFull) -> Self {
        self.limits.when_full = when_full;
        self
    }

    /// How many bytes a request takes. Defaults to the size of its type, without what it points to.
    pub fn size(mut self, size: fn(&Q) -> usize) -> Self {
        self.size = size;
        self
    }

    /// When a batch that failed with a retryable error is handed to the handler again. Defaults to one minute of tries.
    pub fn retry(mut self, retry: Retry) -> Self {
        self.retry = retry;
        self
    }

    /// Starts the batcher on the present tokio runtime.
    ///
    /// # Errors
    /// `InvalidConfig` for a setting out of bounds.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn start(self) -> Result<Batcher<Q, A>> {
        self.retry.validate()?;
        let open = Open { requests: Vec::new(), bytes: 0, size: self.size, cell: Arc::new(Cell::default()) };
        let engine =
            Engine::start(self.limits, open, vec![Sink { handler: self.handler, retry: self.retry }])?;
        Ok(Batcher { handle: Arc::new(Handle { engine }) })
    }
}

/// Gathers requests and hands them to a handler in batches; cheap to clone and share.
///
/// One batch is handled at a time, and requests that come meanwhile form the next: a lone request is handled at
/// once, and under load batches grow by themselves. A batch that fails with a retryable error is handled again, the same requests
/// in the same order, before any that came later.
///
/// Dropping the last clone lets what is buffered drain. If the runtime ends first, the requests are answered with
/// `Closed`. Dropping the future of [`call`](Batcher::call) while it waits for room means that the request was not accepted; later,
/// that nobody hears its answer.
///
/// ```
/// use barge_core::{Batcher, Requests};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> barge_core::Result<()> {
/// let squares = Batcher::builder(|numbers: Requests<u64>| async move {
///     // One call for the whole batch; one answer for each request, in order.
///     Ok(numbers.iter().map(|number| Ok(number * number)).collect())
/// })
/// .start()?;
/// assert_eq!(squares.call(12).await?, 144);
/// # Ok(())
/// # }
/// ```
pub struct Batcher<Q: Send + Sync + 'static, A: Send + 'static> {
    handle: Arc<Handle<Q, A>>,
}

impl<Q: Send + Sync + 'static, A: Send + 'static> Clone for Batcher<Q, A> {
    fn clone(&self) -> Self {
        Batcher { handle: Arc::clone(&self.handle) }
    }
}

struct Handle<Q: Send + Sync + 'static, A: Send + 'static> {
    engine: Arc<Engine<Open<Q, A>>>,
}

impl<Q: Send + Sync + 'static, A: Send + 'static> Drop for Handle<Q, A> {
    fn drop(&mut self) {
        self.engine.close_soon();
    }
}

impl<Q: Send + Sync + 'static, A: Send + 'static> Batcher<Q, A> {
    /// Sets up a batcher over a handler, which gives one answer a request, in order, or fails for the whole batch.
    /// A failure is tried again where its error is [retryable](Error::is_retryable); see [`Error::handler`]. A handler that
    /// panics fails its batch, and the batcher goes on.
    pub fn builder<F, Fut>(mut handler: F) -> BatcherBuilder<Q, A>
    where
        F: FnMut(Requests<Q>) -> Fut + Send + 'static,
        Fut: Future<Output = Result<Vec<Result<A>>>> + Send + 'static,
    {
        BatcherBuilder {
            handler: Box::new(move |requests| handler(requests).boxed()),
            size: |_| size_of::<Q>(),
            limits: Limits::default(),
            retry: Retry::default(),
        }
    }

    /// Adds a request and waits for its answer.
    ///
    /// # Errors
    /// The request's own error, or the batch's; `BufferFull`, `Closed`.
    pub async fn call(&self, request: Q) -> Result<A> {
        self.submit(request).await?.await
    }

    /// Adds a request. Its answer is awaited on what is returned; dropping that cancels nothing.
    ///
    /// # Errors
    /// `BufferFull`, `Closed`: the request was not accepted.
    pub async fn submit(&self, request: Q) -> Result<Answer<A>> {
        let mut request = Some(request);
        let add = |open: &mut Open<Q, A>| {
            // The engine calls this once: it either adds or does not call at all.
            let Some(request) = request.take() else {
                return Err(Error::new(ErrorKind::Closed, "added already"));
            };
            open.bytes += (open.size)(&request);
            open.requests.push(request);
            let index = (open.requests.len() - 1) as u32;
            Ok(Answer(Ticket::new(Arc::clone(&open.cell), index)))
        };
        self.handle.engine.add(add).await
    }

    /// Handles what is buffered now, and waits until it, and all before it, is answered.
    ///
    /// # Errors
    /// The failure of a batch that failed as a whole.
    pub async fn flush(&self) -> Result<()> {
        self.handle.engine.flush().await
    }

    /// Takes in no more requests, handles what is buffered, and gives the final numbers. May be called again.
    pub async fn close(&self) -> Statistics {
        self.handle.engine.close().await;
        self.statistics()
    }

    /// As [`close`](Batcher::close), but gives up on what is still buffered after `deadline`: those requests are answered with
    /// `Timeout`. The batch that is being handled then is waited for.
    pub async fn close_within(&self, deadline: Duration) -> Statistics {
        if tokio::time::timeout(deadline, self.handle.engine.close()).await.is_err() {
            let message = format!("not handled within the {deadline:?} that close_within allowed");
            self.handle.engine.abandon_buffered(&Error::new(ErrorKind::Timeout, message));
            self.handle.engine.close().await;
        }
        self.statistics()
    }

    /// What the batcher did so far. A statement stands for a call of the handler.
    pub fn statistics(&self) -> Statistics {
        self.handle.engine.statistics()
    }
}

impl<Q: Send + Sync + 'static, A: Send + 'static> std::fmt::Debug for Batcher<Q, A> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Batcher")
            .field("statistics", &self.handle.engine.statistics())
            .finish_non_exhaustive()
    }
}

/// A request's answer to come. Dropping it cancels nothing.
#[must_use = "the request's answer comes here"]
pub struct Answer<A>(Ticket<Answers<A>>);

impl<A> Future for Answer<A> {
    type Output = Result<A>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let index = self.0.index as usize;
        let answers = ready!(self.0.poll_answers(context));
        let mut answers = answers.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        let answer = answers.get_mut(index).and_then(Option::take);
        Poll::Ready(
            answer.unwrap_or_else(|| Err(Error::new(ErrorKind::Closed, "the answer was taken already"))),
        )
    }
}

impl<A> std::fmt::Debug for Answer<A> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Answer").field("request", &self.0.index).finish_non_exhaustive()
    }
}

struct Open<Q, A> {
    requests: Vec<Q>,
    bytes: usize,
    size: fn(&Q) -> usize,
    cell: Arc<Cell<Answers<A>>>,
}

/// A batch of requests. Dropped unanswered, as when the runtime ends, it answers that it was closed.
struct Sealed<Q, A> {
    requests: Requests<Q>,
    cell: Arc<Cell<Answers<A>>>,
}

impl<Q: Send + Sync + 'static, A: Send + 'static> Buffer for Open<Q, A> {
    type Sealed = Sealed<Q, A>;

    fn rows(&self) -> usize {
        self.requests.len()
    }

    fn bytes(&self) -> usize {
        self.bytes
    }

    fn seal(&mut self) -> Self::Sealed {
        self.bytes = 0;
        Sealed {
            requests: Requests::new(std::mem::take(&mut self.requests)),
            cell: std::mem::replace(&mut self.cell, Arc::new(Cell::default())),
        }
    }
}

impl<Q, A> Sealed<Q, A> {
    fn fail(&self, error: &Error) {
        self.cell.answer(Mutex::new(self.requests.iter().map(|_| Some(Err(error.clone()))).collect()));
    }
}

impl<Q, A> Drop for Sealed<Q, A> {
    fn drop(&mut self) {
        if self.cell.get().is_none() {
            let message = format!("{} before the batch was handled", end_of_task());
            self.fail(&Error::new(ErrorKind::Closed, message));
        }
    }
}

impl<Q: Send + Sync + 'static, A: Send + 'static> Abandon for Sealed<Q, A> {
    fn abandon(self, why: &Error) {
        self.fail(why);
    }
}

struct Sink<Q, A> {
    handler: Handler<Q, A>,
    retry: Retry,
}

impl<Q: Send + Sync + 'static, A: Send + 'static> Sink<Q, A> {
    async fn handle(&mut self, requests: &Requests<Q>) -> Result<Vec<Result<A>>> {
        let panicked = |_| Err(Error::new(ErrorKind::Handler, "the batch handler panicked"));
        let handling = std::panic::catch_unwind(AssertUnwindSafe(|| (self.handler)(requests.clone())));
        let answers = match handling {
            Ok(handling) => AssertUnwindSafe(handling).catch_unwind().await.unwrap_or_else(panicked),
            Err(panic) => panicked(panic),
        }?;
        if answers.len() != requests.len() {
            let message =
                format!("the batch handler gave {} answers to {} requests", answers.len(), requests.len());
            return Err(Error::new(ErrorKind::Handler, message));
        }
        Ok(answers)
    }
}

impl<Q: Send + Sync + 'static, A: Send + 'static> Flusher<Open<Q, A>> for Sink<Q, A> {
    type Reach = ();

    fn reach(&self, _open: &Open<Q, A>) {}

    async fn flush(&mut self, sealed: Sealed<Q, A>) -> Flushed {
        let retry = self.retry.clone();
        let mut attempts = retry.start_flush();
        let handled = loop {
            match self.handle(&sealed.requests).await {
                Ok(answers) => break Ok(answers),
                Err(error) => {
                    if let Err(error) = attempts.next(error).await {
                        break Err(error);
                    }
                }
            }
        };
        let retries = attempts.retries.into();
        let rows = sealed.requests.len() as u64;
        match handled {
            Ok(answers) => {
                let rejected = answers.iter().filter(|answer| answer.is_err()).count() as u64;
                sealed.cell.answer(Mutex::new(answers.into_iter().map(Some).collect()));
                Flushed {
                    committed: rows - rejected,
                    rejected,
                    statements: 1,
                    round_trips: 1,
                    retries,
                    awaited: true,
                    ..Flushed::default()
                }
            }
            Err(error) => {
                sealed.fail(&error);
                Flushed {
                    rejected: rows,
                    statements: 1,
                    round_trips: 1,
                    retries,
                    failure: Some(error),
                    ..Flushed::default()
                }
            }
        }
    }
}
