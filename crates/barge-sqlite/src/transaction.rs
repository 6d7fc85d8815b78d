//! A transaction: the store's gate, held, and its calls carried to the thread.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use arrow::array::RecordBatch;
use async_trait::async_trait;
use barge_core::store::{Applied, AppliedRows, CommitError, Description, LookUp, Query, Step, Target, Token};
use barge_core::{Error, ErrorKind, Result, TableName, Transaction};
use tokio::sync::OwnedSemaphorePermit;

use crate::apply::Undo;
use crate::connection::Connection;
use crate::store::collations;
use crate::thread::Worker;

/// An open transaction. It alone may use the connection until its permit is given back.
pub(crate) struct SqliteTransaction {
    worker: Worker,
    /// `None` once it was committed or rolled back.
    permit: Option<OwnedSemaphorePermit>,
    open: Arc<AtomicBool>,
}

impl SqliteTransaction {
    /// Begins a transaction. Where nobody waits for it any more, it is dropped on the thread and so rolled back.
    pub(crate) async fn begin(worker: &Worker, permit: OwnedSemaphorePermit) -> Result<Self> {
        let own = worker.clone();
        let begun = worker.call(move |connection| {
            connection.begin()?;
            let open = Arc::new(AtomicBool::new(true));
            Ok(SqliteTransaction { worker: own, permit: Some(permit), open })
        });
        begun.await?
    }

    async fn call<T: Send + 'static>(
        &self,
        command: impl FnOnce(&mut Connection) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        if !self.is_open() {
            return Err(ended());
        }
        let open = Arc::clone(&self.open);
        let answer = self.worker.call(move |connection| {
            // After a panic on the thread nothing is open, and nothing must be written outside a transaction.
            let answer = if connection.in_transaction() { command(connection) } else { Err(ended()) };
            open.store(connection.in_transaction(), Ordering::Release);
            answer
        });
        match answer.await {
            Ok(answer) => answer,
            Err(error) => {
                self.open.store(false, Ordering::Release);
                Err(error)
            }
        }
    }
}

#[async_trait]
impl Transaction for SqliteTransaction {
    async fn apply(&mut self, step: &Step) -> Result<Applied> {
        let step = step.clone();
        self.call(move |connection| connection.apply(&step, Undo::Alone)).await
    }

    async fn apply_rows(&mut self, step: &Step) -> Result<AppliedRows> {
        let step = step.clone();
        self.call(move |connection| connection.apply_rows(&step)).await
    }

    async fn over(&mut self, query: &Query) -> Result<RecordBatch> {
        let query = query.clone();
        self.call(move |connection| connection.over(&query)).await
    }

    async fn execute(&mut self, sql: &str) -> Result<u64> {
        let sql = sql.to_owned();
        self.call(move |connection| connection.execute(&sql)).await
    }

    async fn check_deferred_at_once(&mut self) -> Result<()> {
        self.call(|connection| {
            connection.checks_deferred = true;
            Ok(())
        })
        .await
    }

    async fn describe(&mut self, table: &TableName) -> Result<Description> {
        let table = table.clone();
        self.call(move |connection| connection.describe(&table)).await
    }

    async fn key_groups(&mut self, target: &Target, keys: &RecordBatch) -> Result<Vec<u32>> {
        let (collations, keys) = (collations(target, keys), keys.clone());
        self.call(move |connection| connection.key_groups(&collations, &keys)).await
    }

    async fn look_up(&mut self, look_up: &LookUp) -> Result<RecordBatch> {
        let look_up = look_up.clone();
        self.call(move |connection| connection.look_up(&look_up)).await
    }

    async fn claim(&mut self, token: &Token) -> Result<bool> {
        let token = token.clone();
        self.call(move |connection| connection.claim(&token)).await
    }

    fn is_open(&self) -> bool {
        self.open.load(Ordering::Acquire)
    }

    async fn commit(mut self: Box<Self>) -> Result<(), CommitError> {
        let permit = self.permit.take();
        let committed = self.worker.call(move |connection| {
            let committed = connection.commit();
            drop(permit);
            committed
        });
        committed.await.map_err(|error| CommitError::Unknown { error, applied: () })?
    }

    async fn rollback(mut self: Box<Self>) -> Result<()> {
        let permit = self.permit.take();
        let done = self.worker.call(move |connection| {
            connection.roll_back();
            drop(permit);
        });
        done.await
    }
}

impl Drop for SqliteTransaction {
    fn drop(&mut self) {
        if let Some(permit) = self.permit.take() {
            // The gate opens once the rollback is done. A thread that is gone has closed its connection, which rolls back too.
            let _ = self.worker.send(move |connection| {
                connection.roll_back();
                drop(permit);
            });
        }
    }
}

fn ended() -> Error {
    Error::new(ErrorKind::Statement, "the transaction was ended by an earlier error")
}
