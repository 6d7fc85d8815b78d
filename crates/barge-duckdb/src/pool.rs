//! Connections lent to one call at a time.
//!
//! DuckDB's calls block, so each runs on a thread where that is allowed, and takes its connection with it. Who owns the connection
//! ends what it began: a call whose caller is gone runs to its end, and then its lease is dropped, which rolls back.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use barge_core::{Error, ErrorKind, Result};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::connection::Connection;
use crate::options::Instance;

/// A number of connections, opened when needed.
pub(crate) struct Pool {
    /// `None` once closed.
    instance: Mutex<Option<Arc<Instance>>>,
    connections_max: usize,
    permits: Arc<Semaphore>,
    idle: Mutex<Vec<Connection>>,
}

/// A connection lent out. Dropping it rolls back what is open and gives it back.
pub(crate) struct Lease {
    pool: Arc<Pool>,
    /// `None` until first used.
    connection: Option<Connection>,
    /// Given back after the connection: fields are dropped after `drop` ran.
    _permit: OwnedSemaphorePermit,
}

impl Pool {
    pub(crate) fn new(instance: Arc<Instance>, connections_max: usize) -> Arc<Self> {
        let permits = Arc::new(Semaphore::new(connections_max));
        let instance = Mutex::new(Some(instance));
        Arc::new(Pool { instance, connections_max, permits, idle: Mutex::default() })
    }

    /// Waits for a connection that is free. In the order in which it was asked for.
    pub(crate) async fn lease(self: &Arc<Self>) -> Result<Lease> {
        self.lease_for(1).await
    }

    /// Waits for a connection beside which no other is lent.
    pub(crate) async fn lease_alone(self: &Arc<Self>) -> Result<Lease> {
        self.lease_for(self.all()).await
    }

    async fn lease_for(self: &Arc<Self>, permits: u32) -> Result<Lease> {
        let permit = Arc::clone(&self.permits).acquire_many_owned(permits).await.map_err(|_| closed())?;
        // The one used last: what it knows of tables is newest.
        let connection = self.idle().pop();
        Ok(Lease { pool: Arc::clone(self), connection, _permit: permit })
    }

    fn all(&self) -> u32 {
        u32::try_from(self.connections_max).unwrap_or(u32::MAX)
    }

    /// Waits until no connection is lent. Later calls fail with `Closed`.
    ///
    /// # Errors
    /// `Busy` where one is still lent when the time is over.
    pub(crate) async fn close(&self, wait: Duration) -> Result<()> {
        let Ok(_permits) = tokio::time::timeout(wait, self.permits.acquire_many(self.all())).await else {
            let message =
                format!("a transaction or a query's stream was still open after {wait:?}: end it first");
            return Err(Error::new(ErrorKind::Busy, message));
        };
        self.permits.close();
        Ok(())
    }

    /// Closes the connections, none of which is lent, and lets go of the instance. The last to do so closes the file.
    pub(crate) fn clear(&self) {
        self.idle().clear();
        drop(lock(&self.instance).take());
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Connection>> {
        lock(&self.idle)
    }
}

impl Lease {
    /// Has the connection do something on a thread that may block, and gives it back with the answer. Dropping the future stops nothing.
    pub(crate) async fn run<T: Send + 'static>(
        mut self,
        command: impl FnOnce(&mut Connection) -> Result<T> + Send + 'static,
    ) -> Result<(Lease, Result<T>)> {
        let done = tokio::task::spawn_blocking(move || {
            let answer = self.connection().and_then(command);
            (self, answer)
        });
        done.await.map_err(|error| match error.is_panic() {
            true => Error::new(
                ErrorKind::Poisoned,
                "the database's thread panicked, which is a bug in Barge: what was asked for may not have been done",
            ),
            false => closed(),
        })
    }

    /// The same for the one thing that the connection is needed for.
    pub(crate) async fn once<T: Send + 'static>(
        self,
        command: impl FnOnce(&mut Connection) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.run(command).await?.1
    }

    pub(crate) fn connection(&mut self) -> Result<&mut Connection> {
        if self.connection.is_none() {
            let instance = lock(&self.pool.instance).clone().ok_or_else(closed)?;
            self.connection = Some(instance.connect()?);
        }
        self.connection.as_mut().ok_or_else(closed)
    }

    /// Whether a transaction is open on it.
    pub(crate) fn in_transaction(&self) -> bool {
        self.connection.as_ref().is_some_and(Connection::in_transaction)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let Some(mut connection) = self.connection.take() else { return };
        connection.roll_back();
        // After a panic nobody knows what state it is in. And what somebody set in the session is not for whoever comes next.
        if !std::thread::panicking() && !connection.session_changed && !connection.unfit {
            self.pool.idle().push(connection);
        }
    }
}

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing is done under these locks that could leave what they guard half-changed.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(crate) fn closed() -> Error {
    Error::new(ErrorKind::Closed, "the database was closed")
}
