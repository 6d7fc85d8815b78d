//! A connection's thread: it takes commands in order and answers each.
//!
//! A command that was sent is carried out, whether or not somebody still waits for its answer: a dropped future never leaves the
//! database half-way.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, TryRecvError, channel};
use std::time::{Duration, Instant};

use barge_core::{Error, ErrorKind, Result};
use tokio::sync::oneshot;

use crate::connection::Connection;

/// How long the thread looks out for the next command before it sleeps. Waking a sleeping thread costs a task that awaits row by
/// row more than the commit itself. Only after work, so that an idle store costs nothing.
const SPIN: Duration = Duration::from_micros(20);

enum Command {
    Run(Box<dyn FnOnce(&mut Connection) + Send>),
    Stop,
}

/// The way to a connection's thread. The thread ends, and the connection closes, when it is stopped or the last clone is dropped.
#[derive(Clone)]
pub(crate) struct Worker {
    commands: Sender<Command>,
    stopped: Arc<AtomicBool>,
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
        Ok((Worker { commands, stopped: Arc::default() }, Ended(ended)))
    }

    /// Has the thread do something, and waits for the answer.
    pub(crate) async fn call<T: Send + 'static>(
        &self,
        command: impl FnOnce(&mut Connection) -> T + Send + 'static,
    ) -> Result<T> {
        let (reply, answer) = oneshot::channel();
        self.send(move |connection| {
            // Nobody may be waiting any more.
            let _ = reply.send(command(connection));
        })?;
        answer.await.map_err(|_| if self.stopped.load(Ordering::Acquire) { closed() } else { panicked() })
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

fn panicked() -> Error {
    Error::new(
        ErrorKind::Poisoned,
        "the database's thread panicked, which is a bug in Barge: what was asked for may not have been done",
    )
}

fn serve(mut connection: Connection, commands: &Receiver<Command>) {
    while let Some(Command::Run(command)) = next(commands) {
        let done = catch_unwind(AssertUnwindSafe(|| command(&mut connection)));
        if done.is_err() {
            connection.roll_back();
        }
    }
}

/// The next command; `None` where no more can come.
fn next(commands: &Receiver<Command>) -> Option<Command> {
    let until = Instant::now() + SPIN;
    loop {
        match commands.try_recv() {
            Ok(command) => return Some(command),
            Err(TryRecvError::Disconnected) => return None,
            Err(TryRecvError::Empty) if Instant::now() >= until => return commands.recv().ok(),
            Err(TryRecvError::Empty) => std::hint::spin_loop(),
        }
    }
}
