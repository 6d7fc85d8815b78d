//! A connection's thread: it takes commands in order and answers each.
//!
//! A command that was sent is carried out, whether or not somebody still waits for its answer: a dropped future never leaves the
//! database half-way.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, Sender, channel};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use barge_core::{Error, ErrorKind, Result};
use futures::StreamExt;
use futures::stream::BoxStream;
use tokio::sync::oneshot::error::TryRecvError;
use tokio::sync::{Notify, oneshot};

use crate::connection::Connection;

/// How long the thread looks out for the next command before it sleeps, where the one before came as soon. Waking a sleeping
/// thread costs a task that awaits row by row more than the commit itself; an idle store costs nothing.
const SPIN: Duration = Duration::from_micros(150);
/// How long a caller looks out for its answer, letting other tasks run in between, before it sleeps: for the same reason,
/// and only where the calls before were as short.
const LOOK_OUT: Duration = Duration::from_micros(250);

/// Whether there is a processor to wait on while the other side works on another.
static STAYS_AWAKE: LazyLock<bool> =
    LazyLock::new(|| std::thread::available_parallelism().is_ok_and(|processors| processors.get() > 1));

enum Command {
    Run(Box<dyn FnOnce(&mut Connection) + Send>),
    Stop,
}

/// The way to a connection's thread. The thread ends, and the connection closes, when it is stopped or the last clone is dropped.
#[derive(Clone)]
pub(crate) struct Worker {
    commands: Sender<Command>,
    stopped: Arc<AtomicBool>,
    /// How long calls took lately, in nanoseconds.
    lately: Arc<AtomicU64>,
}

impl Worker {
    /// Starts a thread and opens its connection there.
    pub(crate) async fn start(
        name: &str,
        open: impl FnOnce() -> Result<Connection> + Send + 'static,
    ) -> Result<(Self, Ended)> {
        let (commands, received) = channel();
        let (opened, answer) = oneshot::channel();
        let (ending, ended) = oneshot::channel();
        std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || {
                match open() {
                    Ok(connection) => {
                        if opened.send(Ok(())).is_ok() {
                            serve(connection, &received);
                        }
                    }
                    Err(error) => drop(opened.send(Err(error))),
                }
                // Whoever waits is told by the drop too.
                let _ = ending.send(());
            })
            .map_err(|error| Error::from(error).context("starting the database's thread"))?;
        answer.await.map_err(|_| panicked())??;
        Ok((Worker { commands, stopped: Arc::default(), lately: Arc::default() }, Ended(ended)))
    }

    /// Has the thread do something, and waits for the answer.
    pub(crate) async fn call<T: Send + 'static>(
        &self,
        command: impl FnOnce(&mut Connection) -> T + Send + 'static,
    ) -> Result<T> {
        let (reply, answer) = oneshot::channel();
        let nearly_done = Arc::new(Notify::new());
        let tell = Arc::clone(&nearly_done);
        self.send(move |connection| {
            connection.nearly_done = Some(tell);
            let answer = command(connection);
            connection.nearly_done = None;
            // Nobody may be waiting any more.
            let _ = reply.send(answer);
        })?;
        let answer = self.answer(answer, &nearly_done).await;
        answer.map_err(|Gone| gone(&self.stopped))
    }

    /// Has the thread give parts one after another, which can be worked on while it goes on, until so many wait to be taken. What it gives them
    /// to says false once the stream was dropped.
    pub(crate) fn parts<T: Send + 'static>(
        &self,
        ahead_max: usize,
        command: impl FnOnce(&mut Connection, &mut dyn FnMut(T) -> bool) -> Result<()> + Send + 'static,
    ) -> Result<BoxStream<'static, Result<T>>> {
        let (parts, received) = tokio::sync::mpsc::channel(ahead_max);
        self.send(move |connection| {
            let mut give = |part| parts.blocking_send(Part::Next(part)).is_ok();
            let ended = command(connection, &mut give);
            // Nobody may be waiting any more.
            let _ = parts.blocking_send(Part::End(ended));
        })?;
        let stopped = Arc::clone(&self.stopped);
        let parts = futures::stream::unfold(Some((received, stopped)), |state| async move {
            let (mut received, stopped) = state?;
            let part = look_out(|| received.try_recv().ok()).await;
            let part = match part {
                Some(part) => Some(part),
                None => received.recv().await,
            };
            match part {
                Some(Part::Next(part)) => Some((Ok(part), Some((received, stopped)))),
                Some(Part::End(Ok(()))) => None,
                Some(Part::End(Err(error))) => Some((Err(error), None)),
                None => Some((Err(gone(&stopped)), None)),
            }
        });
        Ok(parts.boxed())
    }

    /// Waits for an answer: awake where it should come soon.
    async fn answer<T>(
        &self,
        mut answer: oneshot::Receiver<T>,
        nearly_done: &Notify,
    ) -> std::result::Result<T, Gone> {
        let sent = Instant::now();
        let lately = self.lately.load(Ordering::Relaxed);
        if lately > LOOK_OUT.as_nanos() as u64 {
            tokio::select! {
                biased;
                answer = &mut answer => return self.took(sent, lately, answer.map_err(|_| Gone)),
                () = nearly_done.notified() => {}
            }
        }
        let early = look_out(|| match answer.try_recv() {
            Ok(answer) => Some(Ok(answer)),
            Err(TryRecvError::Empty) => None,
            // It must not be asked again.
            Err(TryRecvError::Closed) => Some(Err(Gone)),
        });
        let answer = match early.await {
            Some(answer) => answer,
            None => answer.await.map_err(|_| Gone),
        };
        self.took(sent, lately, answer)
    }

    fn took<T>(&self, sent: Instant, lately: u64, answer: T) -> T {
        let took = u64::try_from(sent.elapsed().as_nanos()).unwrap_or(u64::MAX / 2);
        self.lately.store((lately / 4) * 3 + took / 4, Ordering::Relaxed);
        answer
    }

    /// Has the thread do something, without waiting.
    pub(crate) fn send(&self, command: impl FnOnce(&mut Connection) + Send + 'static) -> Result<()> {
        self.commands.send(Command::Run(Box::new(command))).map_err(|_| closed())
    }

    /// Has the thread end once it has done what was sent before.
    pub(crate) fn stop(&self) {
        self.stopped.store(true, Ordering::Release);
        // It may have ended already.
        let _ = self.commands.send(Command::Stop);
    }
}

/// The thread let go of a command without an answer.
struct Gone;

/// What the thread gives of something that comes in parts.
enum Part<T> {
    Next(T),
    End(Result<()>),
}

/// Looks for something again and again, letting other tasks run in between; `None` where it doesn't come soon.
async fn look_out<T>(mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let until = Instant::now() + LOOK_OUT;
    loop {
        match look() {
            Some(found) => return Some(found),
            None if !*STAYS_AWAKE || Instant::now() >= until => return None,
            None => tokio::task::yield_now().await,
        }
    }
}

/// Tells when a thread has closed its connection.
#[derive(Debug)]
pub(crate) struct Ended(oneshot::Receiver<()>);

impl Ended {
    pub(crate) async fn wait(self) {
        // An error says the same: the thread is gone.
        let _ = self.0.await;
    }
}

pub(crate) fn closed() -> Error {
    Error::new(ErrorKind::Closed, "the database was closed")
}

/// Why a thread gives no answer.
fn gone(stopped: &AtomicBool) -> Error {
    if stopped.load(Ordering::Acquire) { closed() } else { panicked() }
}

fn panicked() -> Error {
    Error::new(
        ErrorKind::Poisoned,
        "the database's thread panicked, which is a bug in Barge: what was asked for may not have been done",
    )
}

fn serve(mut connection: Connection, commands: &Receiver<Command>) {
    let mut spin = Duration::ZERO;
    loop {
        let idle = Instant::now();
        let Some(Command::Run(command)) = next(commands, spin) else { return };
        spin = if *STAYS_AWAKE && idle.elapsed() < SPIN { SPIN } else { Duration::ZERO };
        let done = catch_unwind(AssertUnwindSafe(|| command(&mut connection)));
        if done.is_err() {
            connection.roll_back();
        }
    }
}

/// The next command; `None` where no more can come.
fn next(commands: &Receiver<Command>, spin: Duration) -> Option<Command> {
    let until = Instant::now() + spin;
    loop {
        match commands.try_recv() {
            Ok(command) => return Some(command),
            Err(mpsc::TryRecvError::Disconnected) => return None,
            Err(mpsc::TryRecvError::Empty) if Instant::now() >= until => return commands.recv().ok(),
            Err(mpsc::TryRecvError::Empty) => std::hint::spin_loop(),
        }
    }
}
