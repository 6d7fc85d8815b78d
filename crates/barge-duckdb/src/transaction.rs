//! A transaction: the connection that writes, held.

use arrow::array::RecordBatch;
use async_trait::async_trait;
use barge_core::store::{Applied, AppliedRows, CommitError, Description, LookUp, Query, Step, Target, Token};
use barge_core::{Result, TableName, Transaction};

use crate::connection::{Connection, ended};
use crate::pool::Lease;
use crate::store::key_types;

/// An open transaction. Dropping it has it rolled back on a thread that may block; a call that is under way ends first.
pub(crate) struct DuckDbTransaction {
    /// `None` while a call is under way, and for good where such a call's future was dropped.
    lease: Option<Lease>,
}

impl DuckDbTransaction {
    pub(crate) async fn begin(lease: Lease) -> Result<Self> {
        let (lease, begun) = lease.run(Connection::begin).await?;
        begun?;
        Ok(DuckDbTransaction { lease: Some(lease) })
    }

    async fn call<T: Send + 'static>(
        &mut self,
        command: impl FnOnce(&mut Connection) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let lease = self.lease.take().ok_or_else(ended)?;
        let answer = lease.run(|connection| match connection.in_transaction() {
            true => command(connection),
            false => Err(ended()),
        });
        let (lease, answer) = answer.await?;
        self.lease = Some(lease);
        answer
    }

    /// A statement that can't be done again: one that fails ends the transaction.
    async fn call_once<T: Send + 'static>(
        &mut self,
        writes: bool,
        command: impl FnOnce(&mut Connection) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.call(move |connection| {
            if let Some(journal) = &mut connection.journal {
                journal.push_sql(writes);
            }
            let answer = command(connection);
            if answer.is_err() {
                connection.roll_back();
            }
            answer
        })
        .await
    }
}

#[async_trait]
impl Transaction for DuckDbTransaction {
    async fn apply(&mut self, step: &Step) -> Result<Applied> {
        let step = step.clone();
        self.call(move |connection| connection.apply(&step)).await
    }

    async fn apply_rows(&mut self, step: &Step) -> Result<AppliedRows> {
        let step = step.clone();
        self.call(move |connection| connection.apply_rows(&step)).await
    }

    async fn over(&mut self, query: &Query) -> Result<RecordBatch> {
        let query = query.clone();
        self.call_once(true, move |connection| connection.over(&query)).await
    }

    async fn execute(&mut self, sql: &str) -> Result<u64> {
        let sql = sql.to_owned();
        self.call_once(true, move |connection| connection.execute(&sql)).await
    }

    async fn describe(&mut self, table: &TableName) -> Result<Description> {
        let table = table.clone();
        self.call(move |connection| connection.describe(&table)).await
    }

    async fn key_groups(&mut self, target: &Target, keys: &RecordBatch) -> Result<Vec<u32>> {
        let (types, keys) = (key_types(target, keys)?, keys.clone());
        self.call(move |connection| connection.key_groups(&types, &keys)).await
    }

    async fn look_up(&mut self, look_up: &LookUp) -> Result<RecordBatch> {
        let look_up = look_up.clone();
        self.call_once(false, move |connection| connection.look_up(&look_up)).await
    }

    async fn claim(&mut self, token: &Token) -> Result<bool> {
        let token = token.clone();
        self.call(move |connection| {
            let claimed = connection.claim(&token);
            if claimed.is_err() {
                connection.roll_back();
            }
            claimed
        })
        .await
    }

    fn is_open(&self) -> bool {
        self.lease.as_ref().is_some_and(Lease::in_transaction)
    }

    async fn commit(mut self: Box<Self>) -> Result<(), CommitError> {
        let lease = self.lease.take().ok_or_else(ended)?;
        match lease.once(|connection| Ok(connection.commit())).await {
            Ok(committed) => committed,
            Err(error) => Err(CommitError::Unknown { error, applied: () }),
        }
    }

    async fn rollback(mut self: Box<Self>) -> Result<()> {
        let Some(lease) = self.lease.take() else { return Ok(()) };
        lease
            .once(|connection| {
                connection.roll_back();
                Ok(())
            })
            .await
    }
}

impl Drop for DuckDbTransaction {
    fn drop(&mut self) {
        // Without a runtime the lease is dropped here, and rolls back here.
        if let Some(lease) = self.lease.take().filter(Lease::in_transaction)
            && let Ok(runtime) = tokio::runtime::Handle::try_current()
        {
            runtime.spawn_blocking(move || drop(lease));
        }
    }
}
