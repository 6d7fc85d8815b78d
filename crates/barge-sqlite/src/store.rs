//! The store: one writer, its gate, and readers.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arrow::array::RecordBatch;
use arrow::datatypes::Schema;
use async_trait::async_trait;
use barge_core::store::{
    Applied, Capabilities, CommitError, Description, LookUp, Query, RecordStream, Step, Target, Token,
};
use barge_core::{Dialect, Error, ErrorKind, Result, Store, Table, TableName, Transaction};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::apply::Undo;
use crate::check::check;
use crate::connection::Connection;
use crate::ddl::create_table_sql;
use crate::options::{Access, SqliteOptions};
use crate::readers::{LOOK_UP_ROWS, Readers, each_batch};
use crate::thread::{Ended, Worker, closed};
use crate::transaction::SqliteTransaction;

/// A database in SQLite.
///
/// Writes go through one connection, one transaction after another, in the order in which they were asked for. A file is read by other
/// connections at the same time, which see what was committed; a database in memory has one connection, so that reading
/// waits for an open transaction, and fails with `Busy` when the busy timeout is over.
///
/// Dropping the store closes the connections once they have done what was asked of them, without waiting; an open transaction keeps
/// its own. Dropping a call's future doesn't stop its work.
pub struct SqliteStore {
    options: Arc<SqliteOptions>,
    writer: Worker,
    /// Taken when the store is closed.
    ended: Mutex<Option<Ended>>,
    /// Held by the one transaction that is open or under way. Fair.
    gate: Arc<Semaphore>,
    /// `None` for a database in memory.
    readers: Option<Readers>,
    closed: AtomicBool,
}

impl SqliteStore {
    /// Opens a database by its URL; see [`SqliteOptions::from_url`] and [`SqliteOptions::open`].
    ///
    /// # Errors
    /// As those.
    pub async fn open(url: &str) -> Result<Self> {
        SqliteOptions::from_url(url)?.open().await
    }

    pub(crate) async fn with_options(options: SqliteOptions) -> Result<Self> {
        let options = Arc::new(options);
        let own = Arc::clone(&options);
        let (writer, ended) = Worker::start("barge-write", move || own.connect(Access::Write)).await?;
        let readers = (!options.in_memory()).then(|| Readers::new(Arc::clone(&options)));
        Ok(SqliteStore {
            options,
            writer,
            ended: Mutex::new(Some(ended)),
            gate: Arc::new(Semaphore::new(1)),
            readers,
            closed: AtomicBool::new(false),
        })
    }

    fn check_open(&self) -> Result<()> {
        if self.closed.load(Ordering::Acquire) { Err(closed()) } else { Ok(()) }
    }

    /// Waits until no transaction is open, for the busy timeout at most.
    async fn gate(&self) -> Result<OwnedSemaphorePermit> {
        self.check_open()?;
        if let Ok(permit) = Arc::clone(&self.gate).try_acquire_owned() {
            return Ok(permit);
        }
        let permit = self.wait_for_gate().await?;
        self.check_open()?;
        Ok(permit)
    }

    async fn wait_for_gate(&self) -> Result<OwnedSemaphorePermit> {
        let waiting = Arc::clone(&self.gate).acquire_owned();
        match tokio::time::timeout(self.options.lock_wait(), waiting).await {
            Ok(permit) => permit.map_err(|_| closed()),
            Err(_) => Err(Error::new(
                ErrorKind::Busy,
                format!(
                    "{} has one connection{}, and a transaction was open on it for {:?}",
                    self.options.name(),
                    if self.options.in_memory() { "" } else { " that writes" },
                    self.options.lock_wait()
                ),
            )),
        }
    }

    /// Reads on a reader, or for a database in memory on its one connection, while no transaction is open.
    async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&mut Connection) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        match &self.readers {
            Some(readers) => {
                self.check_open()?;
                readers.take().await?.call(read).await?
            }
            None => {
                let permit = self.gate().await?;
                let call = self.writer.call(move |connection| {
                    let answer = read(connection);
                    drop(permit);
                    answer
                });
                call.await?
            }
        }
    }

    /// Reads the schema on the connection that writes, so that a transaction's own tables are seen while it is open.
    pub(crate) async fn schema<T: Send + 'static>(
        &self,
        read: impl FnOnce(&mut Connection) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        self.check_open()?;
        self.writer.call(read).await?
    }
}

/// The key columns' collations.
pub(crate) fn collations(target: &Target, keys: &RecordBatch) -> Vec<Option<String>> {
    let schema = keys.schema();
    let fields = schema.fields().iter();
    fields.map(|field| target.description.column(field.name())?.collation.clone()).collect()
}

#[async_trait]
impl Store for SqliteStore {
    fn dialect(&self) -> Dialect {
        Dialect::Sqlite
    }

    fn capabilities(&self) -> Capabilities {
        // A COMMIT inside the process is not cut off: it is unknown only where the disk fails, and then no second try helps.
        Capabilities {
            commit_can_be_unknown: false,
            generated_keys: true,
            reuses_keys: true,
            foreign_keys: self.options.foreign_keys(),
            sql: true,
        }
    }

    async fn describe(&self, table: &TableName) -> Result<Description> {
        let table = table.clone();
        self.schema(move |connection| connection.describe(&table)).await
    }

    async fn tables(&self) -> Result<Vec<TableName>> {
        self.schema(|connection| connection.tables()).await
    }

    fn create_table_sql(&self, table: &Table) -> Result<String> {
        create_table_sql(table)
    }

    fn check(&self, target: &Target, batch: &RecordBatch) -> Vec<(usize, Error)> {
        check(target, batch)
    }

    async fn key_groups(&self, target: &Target, keys: &RecordBatch) -> Result<Vec<u32>> {
        let collations = collations(target, keys);
        let keys = keys.clone();
        // No table is read, so that nothing has to be waited for.
        self.schema(move |connection| connection.key_groups(&collations, &keys)).await
    }

    async fn begin(&self) -> Result<Box<dyn Transaction>> {
        let permit = self.gate().await?;
        Ok(Box::new(SqliteTransaction::begin(&self.writer, permit).await?))
    }

    async fn transact(
        &self,
        token: Option<&Token>,
        steps: &[Step],
    ) -> Result<Option<Vec<Applied>>, CommitError<Vec<Applied>>> {
        let permit = self.gate().await?;
        let (token, steps) = (token.cloned(), steps.to_vec());
        let call = self.writer.call(move |connection| {
            let applied = connection.transact(token.as_ref(), &steps);
            drop(permit);
            applied
        });
        call.await.map_err(|error| CommitError::Unknown { error, applied: Vec::new() })?
    }

    async fn query(&self, query: Query) -> Result<RecordStream> {
        self.check_open()?;
        if let Some(readers) = &self.readers {
            return readers.take().await?.stream(query).await;
        }
        let collected = self.read(move |connection| {
            let mut batches = Vec::new();
            each_batch(connection, &query, |batch| {
                batches.push(batch);
                true
            })?;
            Ok(batches)
        });
        let mut batches = collected.await?;
        // There is always a first batch; it may be empty.
        let schema = batches.first().map_or_else(|| Arc::new(Schema::empty()), RecordBatch::schema);
        batches.retain(|batch| batch.num_rows() > 0);
        Ok(RecordStream::new(schema, futures::stream::iter(batches.into_iter().map(Ok))))
    }

    async fn look_up(&self, look_up: LookUp) -> Result<RecordStream> {
        self.check_open()?;
        let parts = match &self.readers {
            Some(readers) => readers.take().await?.look_up(look_up)?,
            None => {
                let permit = self.gate().await?;
                // The thread also writes, so it can't wait for who reads: whatever is found, is found at once.
                self.writer.parts(Semaphore::MAX_PERMITS, move |connection, give| {
                    let read = connection.look_up_in_parts(&look_up, LOOK_UP_ROWS, give);
                    drop(permit);
                    read
                })?
            }
        };
        RecordStream::of_parts(parts).await
    }

    /// Waits for the transaction that is open and for queries, at most the busy timeout; then moves the log into the file.
    async fn close(&self) -> Result<()> {
        if self.closed.swap(true, Ordering::AcqRel) {
            return Ok(());
        }
        let closed = self.close_connections().await;
        if closed.is_err() {
            self.closed.store(false, Ordering::Release);
        }
        closed.map_err(|error| error.context(format!("closing {}", self.options.name())))
    }
}

impl SqliteStore {
    async fn close_connections(&self) -> Result<()> {
        let permit = self.wait_for_gate().await?;
        if let Some(readers) = &self.readers {
            readers.close(self.options.lock_wait()).await?;
            let checkpoint = |connection: &mut Connection| connection.run("PRAGMA wal_checkpoint(TRUNCATE)");
            if let Err(error) = self.writer.call(checkpoint).await? {
                // The log is read again when the file is next opened.
                tracing::debug!(%error, "the log stays beside the database");
            }
        }
        self.gate.close();
        self.writer.stop();
        drop(permit);
        let ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(ended) = ended {
            ended.wait().await;
        }
        Ok(())
    }
}

impl Connection {
    /// Runs steps in a transaction of their own, all or none; `None` where the token was claimed before.
    fn transact(
        &mut self,
        token: Option<&Token>,
        steps: &[Step],
    ) -> Result<Option<Vec<Applied>>, CommitError<Vec<Applied>>> {
        self.begin()?;
        let applied = self.claim_and_apply(token, steps);
        match applied {
            Ok(Some(applied)) => match self.commit() {
                Ok(()) => Ok(Some(applied)),
                Err(error) => Err(error.with_applied(applied)),
            },
            Ok(None) => {
                self.roll_back();
                Ok(None)
            }
            Err(error) => {
                self.roll_back();
                Err(error.into())
            }
        }
    }

    fn claim_and_apply(&mut self, token: Option<&Token>, steps: &[Step]) -> Result<Option<Vec<Applied>>> {
        if let Some(token) = token
            && !self.claim(token)?
        {
            return Ok(None);
        }
        let nearly_done = self.nearly_done.take();
        let mut applied = Vec::with_capacity(steps.len());
        for (place, step) in steps.iter().enumerate() {
            if place + 1 == steps.len() {
                self.nearly_done.clone_from(&nearly_done);
            }
            applied.push(self.apply(step, Undo::WithTheTransaction)?);
        }
        Ok(Some(applied))
    }
}

impl fmt::Debug for SqliteStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteStore").field("options", &self.options).finish_non_exhaustive()
    }
}
