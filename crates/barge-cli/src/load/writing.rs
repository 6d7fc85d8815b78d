//! Where flushes run: a runtime of their own, so that they can be given up while the program goes on to account for their rows.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use barge::{Database, Error, Result, Writer, WriterConfig};
use tokio::runtime::{Handle, Runtime};

/// How long a load that is ended early goes on writing what it has read: a little less than service managers wait after SIGTERM.
pub(crate) const DRAIN_MAX: Duration = Duration::from_secs(8);

/// The writer's runtime.
pub(crate) struct Writing {
    handle: Handle,
    state: Mutex<State>,
}

struct State {
    /// `None` once it was given up.
    runtime: Option<Runtime>,
    /// Whether all is written, so that there is nothing to give up.
    over: bool,
}

impl Writing {
    pub(crate) fn new() -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("barge-write")
            .enable_all()
            .build()
            .map_err(|error| Error::from(error).context("the threads that write can't start"))?;
        let handle = runtime.handle().clone();
        Ok(Writing { handle, state: Mutex::new(State { runtime: Some(runtime), over: false }) })
    }

    /// Starts a writer there.
    pub(crate) fn writer(&self, database: &Database, config: WriterConfig) -> Result<Writer> {
        let _inside = self.handle.enter();
        database.writer().config(config).try_start()
    }

    /// Ends flushes that are under way or waiting: whether their rows were written isn't known then, and their receipts say so.
    pub(crate) fn give_up(&self) {
        let mut state = self.state();
        if !state.over {
            state.end();
        }
    }

    pub(crate) fn is_given_up(&self) -> bool {
        self.state().runtime.is_none()
    }

    /// Notes that every row is answered. Connections live on here, for what comes after.
    pub(crate) fn is_over(&self) {
        self.state().over = true;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Without waiting, which threads that run tasks must not.
    fn end(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Drop for Writing {
    fn drop(&mut self) {
        self.state().end();
    }
}
