//! Where flushes run: a runtime of their own, so that they can be given up while the program goes on to account for their rows.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use barge::{Database, Error, Result, Writer, WriterConfig};
use tokio::runtime::{Handle, Runtime};

/// How long a load that was interrupted goes on writing what it has read: a little less than service managers wait after SIGTERM.
pub(crate) const DRAIN_MAX: Duration = Duration::from_secs(8);

/// The writer's runtime.
pub(crate) struct Writing {
    handle: Handle,
    /// `None` once it was given up.
    runtime: Mutex<Option<Runtime>>,
}

impl Writing {
    pub(crate) fn new() -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("barge-write")
            .enable_all()
            .build()
            .map_err(|error| Error::from(error).context("the threads that write can't start"))?;
        Ok(Writing { handle: runtime.handle().clone(), runtime: Mutex::new(Some(runtime)) })
    }

    /// Starts a writer there.
    pub(crate) fn writer(&self, database: &Database, config: WriterConfig) -> Result<Writer> {
        let _inside = self.handle.enter();
        database.writer().config(config).try_start()
    }

    /// Ends flushes that are under way or waiting: whether their rows were written isn't known then, and their receipts say so.
    pub(crate) fn give_up(&self) {
        if let Some(runtime) = self.runtime.lock().unwrap_or_else(PoisonError::into_inner).take() {
            runtime.shutdown_background();
        }
    }

    pub(crate) fn is_given_up(&self) -> bool {
        self.runtime.lock().unwrap_or_else(PoisonError::into_inner).is_none()
    }
}

impl Drop for Writing {
    fn drop(&mut self) {
        // A runtime that is dropped as it is would wait, which the one that runs this must not.
        self.give_up();
    }
}
