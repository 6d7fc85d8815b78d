//! The store: connections that write, one at a time but for inserts, and others that read.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Poll, ready};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use barge_core::store::{
    Applied, Capabilities, CommitError, Description, LookUp, Operation, Query, RecordStream, Step, Target,
    Token,
};
use barge_core::{Dialect, Error, ErrorKind, Result, Store, Table, TableName, Transaction};
use futures::Stream;
use tokio::sync::{mpsc, oneshot};

use crate::check::check;
use crate::connection::Connection;
use crate::ddl::create_table_sql;
use crate::options::DuckDbOptions;
use crate::pool::{Lease, Pool, closed, lock};
use crate::raw::Handle;
use crate::transaction::DuckDbTransaction;
use crate::types::DuckType;

/// Batches read ahead of who takes them.
const BATCHES_AHEAD: usize = 2;

/// A database in DuckDB.
///
/// Writes go one transaction after another, in the order in which they were asked for: so they never conflict with each other. Only batches of
/// inserts may go beside each other, where [`DuckDbOptions::writers`] says so. Other connections read at the same time, and see what was committed.
/// Calls run on tokio's threads for what blocks.
///
/// A file is open in one process at a time, and in one instance within it: stores of one file share it, and where their transactions
/// conflict, one fails with `SerializationFailure`, which is retryable. Dropping the store closes its connections once they have done
/// what was asked of them, without waiting. Dropping a call's future doesn't stop its work.
pub struct DuckDbStore {
    options: Arc<DuckDbOptions>,
    /// What DuckDB calls the database.
    catalog: Arc<str>,
    /// An insert takes one; whatever else writes, or may, has all of them to itself.
    writers: Arc<Pool>,
    /// For streams.
    readers: Arc<Pool>,
    /// For questions about tables and keys, which flushes ask too: no stream makes them wait.
    questions: Arc<Pool>,
    closed: AtomicBool,
}

impl DuckDbStore {
    /// Opens a database by its URL; see [`DuckDbOptions::from_url`] and [`DuckDbOptions::open`].
    ///
    /// # Errors
    /// As those.
    pub async fn open(url: &str) -> Result<Self> {
        DuckDbOptions::from_url(url)?.open().await
    }

    pub(crate) async fn with_options(options: DuckDbOptions) -> Result<Self> {
        let options = Arc::new(options);
        let own = Arc::clone(&options);
        let instance = tokio::task::spawn_blocking(move || own.instance()).await;
        let instance = Arc::new(instance.map_err(|_| closed())??);
        let writers = Pool::new(Arc::clone(&instance), options.writers_max());
        let questions = Pool::new(Arc::clone(&instance), 1);
        let readers = Pool::new(instance, options.readers_max());
        // A first connection shows whether the database works.
        let catalog = writers.lease().await?.once(|connection| Ok(Arc::clone(&connection.catalog))).await?;
        Ok(DuckDbStore { options, catalog, writers, readers, questions, closed: AtomicBool::new(false) })
    }

    fn check_open(&self) -> Result<()> {
        if self.closed.load(Ordering::Acquire) { Err(closed()) } else { Ok(()) }
    }

    /// Waits for a connection that is free, for the busy timeout at most.
    async fn lease(
        &self,
        free: impl Future<Output = Result<Lease>>,
        taken: impl FnOnce() -> String,
    ) -> Result<Lease> {
        self.check_open()?;
        let wait = self.options.lock_wait();
        match tokio::time::timeout(wait, free).await {
            Ok(lease) => {
                self.check_open()?;
                lease
            }
            Err(_) => {
                let message = format!("{} has {}, for {wait:?}", self.options.name(), taken());
                Err(Error::new(ErrorKind::Busy, message))
            }
        }
    }

    async fn write(&self, beside: Beside) -> Result<Lease> {
        let taken = || "one transaction at a time that writes, and another was open".to_owned();
        match beside {
            Beside::Inserts => self.lease(self.writers.lease(), taken).await,
            Beside::Nothing => self.lease(self.writers.lease_alone(), taken).await,
        }
    }

    async fn ask<T: Send + 'static>(
        &self,
        command: impl FnOnce(&mut Connection) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let taken = || "one connection for questions about tables, and it was asked others".to_owned();
        self.lease(self.questions.lease(), taken).await?.once(command).await
    }

    /// Streams what a reader gives.
    async fn stream(
        &self,
        give: impl FnOnce(&mut Connection, &mut dyn FnMut(RecordBatch) -> bool) -> Result<()> + Send + 'static,
    ) -> Result<RecordStream> {
        let taken = || {
            let readers = self.options.readers_max();
            format!("{readers} connections that read (see `readers`), and streams were open on all of them")
        };
        let lease = self.lease(self.readers.lease(), taken).await?;
        let (started, schema) = oneshot::channel::<Result<SchemaRef>>();
        let (batches, received) = mpsc::channel(BATCHES_AHEAD);
        let given_up = GivenUp::default();
        let running = Arc::clone(&given_up.running);
        let reading = lease.run(move |connection| {
            *lock(&running) = Some(Arc::clone(&connection.handle));
            let mut started = Some(started);
            let given = give(connection, &mut |batch| {
                if let Some(started) = started.take()
                    && started.send(Ok(batch.schema())).is_err()
                {
                    return false;
                }
                batch.num_rows() == 0 || batches.blocking_send(Ok(Read::Rows(batch))).is_ok()
            });
            // From here on nothing may be interrupted: the connection goes to somebody else.
            *lock(&running) = None;
            // Nobody may be listening any more.
            let _ = match (given, started.take()) {
                (Err(error), Some(started)) => started.send(Err(error)).is_ok(),
                (given, _) => batches.blocking_send(given.map(|()| Read::End)).is_ok(),
            };
            Ok(())
        });
        tokio::spawn(async move { drop(reading.await) });
        let schema = schema.await.map_err(|_| broken_off())??;
        Ok(RecordStream::new(schema, until_end(received, given_up)))
    }
}

/// What may write at the same time.
#[derive(Clone, Copy)]
enum Beside {
    /// Other batches that only insert. Where two of them have the same key, the later one fails and is retried, or its row is refused.
    Inserts,
    Nothing,
}

impl Beside {
    fn of(steps: &[Step]) -> Self {
        match steps.iter().all(|step| step.target.operation == Operation::Insert) {
            true => Beside::Inserts,
            false => Beside::Nothing,
        }
    }
}

/// What a reading thread sends.
enum Read {
    Rows(RecordBatch),
    /// All was sent.
    End,
}

/// The batches up to the end that the reading thread tells of, or its error. A thread that is gone without a word has sent a part only.
fn until_end(
    mut received: mpsc::Receiver<Result<Read>>,
    given_up: GivenUp,
) -> impl Stream<Item = Result<RecordBatch>> + Send + 'static {
    let mut ended = false;
    futures::stream::poll_fn(move |context| {
        // The stream owns it: dropping the one ends the query.
        let _ = &given_up;
        if ended {
            return Poll::Ready(None);
        }
        let next = match ready!(received.poll_recv(context)) {
            Some(Ok(Read::Rows(batch))) => Some(Ok(batch)),
            Some(Ok(Read::End)) => None,
            Some(Err(error)) => Some(Err(error)),
            None => Some(Err(broken_off())),
        };
        ended = !matches!(next, Some(Ok(_)));
        Poll::Ready(next)
    })
}

fn broken_off() -> Error {
    let message = "reading broke off: the runtime ended, or the thread panicked, which is a bug in Barge";
    Error::new(ErrorKind::Closed, message)
}

/// Ends a query that nobody reads any more, when dropped.
#[derive(Default)]
struct GivenUp {
    /// The connection, while the query runs on it.
    running: Arc<Mutex<Option<Arc<Handle>>>>,
}

impl Drop for GivenUp {
    fn drop(&mut self) {
        // The lock is held so that the query doesn't end, and another begin, before it is interrupted.
        if let Some(handle) = &*lock(&self.running) {
            handle.interrupt();
        }
    }
}

#[async_trait]
impl Store for DuckDbStore {
    fn dialect(&self) -> Dialect {
        Dialect::DuckDb
    }

    fn capabilities(&self) -> Capabilities {
        // A COMMIT inside the process is not cut off: it is unknown only where the disk fails, and then no second try helps.
        Capabilities {
            commit_can_be_unknown: false,
            generated_keys: true,
            reuses_keys: false,
            foreign_keys: true,
            sql: true,
        }
    }

    async fn describe(&self, table: &TableName) -> Result<Description> {
        let table = table.clone();
        self.ask(move |connection| connection.describe(&table)).await
    }

    async fn tables(&self) -> Result<Vec<TableName>> {
        self.ask(Connection::tables).await
    }

    fn create_table_sql(&self, table: &Table) -> Result<String> {
        create_table_sql(table, &self.catalog)
    }

    fn check(&self, target: &Target, batch: &RecordBatch) -> Vec<(usize, Error)> {
        check(target, batch)
    }

    async fn key_groups(&self, target: &Target, keys: &RecordBatch) -> Result<Vec<u32>> {
        let (types, keys) = (key_types(target, keys)?, keys.clone());
        self.ask(move |connection| connection.key_groups(&types, &keys)).await
    }

    async fn begin(&self) -> Result<Box<dyn Transaction>> {
        Ok(Box::new(DuckDbTransaction::begin(self.write(Beside::Nothing).await?).await?))
    }

    /// Batches that only insert may go beside each other; see [`DuckDbOptions::writers`].
    async fn transact(
        &self,
        token: Option<&Token>,
        steps: &[Step],
    ) -> Result<Option<Vec<Applied>>, CommitError<Vec<Applied>>> {
        let lease = self.write(Beside::of(steps)).await?;
        let (token, steps) = (token.cloned(), steps.to_vec());
        let done = lease.once(move |connection| Ok(connection.transact(token.as_ref(), &steps)));
        match done.await {
            Ok(done) => done,
            Err(error) => Err(CommitError::Unknown { error, applied: Vec::new() }),
        }
    }

    async fn query(&self, query: Query) -> Result<RecordStream> {
        self.stream(move |connection, wanted| connection.each_batch(&query, wanted)).await
    }

    async fn look_up(&self, look_up: LookUp) -> Result<RecordStream> {
        self.stream(move |connection, wanted| connection.each_found(&look_up, wanted)).await
    }

    /// Waits for the transaction that is open and for streams, at most the busy timeout; then moves the log into the file.
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

impl DuckDbStore {
    async fn close_connections(&self) -> Result<()> {
        let wait = self.options.lock_wait();
        let writer = match tokio::time::timeout(wait, self.writers.lease_alone()).await {
            Ok(lease) => lease?,
            Err(_) => {
                let message = format!("a transaction was still open after {wait:?}: end it first");
                return Err(Error::new(ErrorKind::Busy, message));
            }
        };
        self.readers.close(wait).await?;
        self.questions.close(wait).await?;
        let (readers, questions) = (Arc::clone(&self.readers), Arc::clone(&self.questions));
        let (writer, checkpoint) = writer
            .run(move |connection| {
                readers.clear();
                questions.clear();
                connection.run("CHECKPOINT")
            })
            .await?;
        if let Err(error) = checkpoint {
            // Another store of the same file may be at work; the log is read again when the file is next opened.
            tracing::debug!(%error, "the log stays beside the database");
        }
        drop(writer);
        self.writers.close(wait).await?;
        let writers = Arc::clone(&self.writers);
        // Closing may write.
        tokio::task::spawn_blocking(move || writers.clear()).await.map_err(|_| closed())
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
        match self.claim_and_apply(token, steps) {
            Ok(Some(applied)) => {
                self.commit().map_err(|error| error.with_applied(applied.clone())).map(|()| Some(applied))
            }
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
        steps.iter().map(|step| self.apply(step)).collect::<Result<_>>().map(Some)
    }
}

impl fmt::Debug for DuckDbStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DuckDbStore").field("options", &self.options).finish_non_exhaustive()
    }
}

/// The types of a target's keys.
pub(crate) fn key_types(target: &Target, keys: &RecordBatch) -> Result<Vec<DuckType>> {
    let schema = keys.schema();
    let types = schema.fields().iter().map(|field| match target.description.column(field.name()) {
        Some(described) => Ok(DuckType::parse(&described.declared_type)),
        None => DuckType::for_field(field),
    });
    types.collect()
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, Int64Array};

    use super::*;

    /// To whoever reads, a thread that panicked must not look like one that was done.
    #[tokio::test]
    async fn a_panic_while_reading_is_no_end() {
        let store = DuckDbStore::open("duckdb::memory:").await.unwrap();
        let ids: ArrayRef = Arc::new(Int64Array::from(vec![1]));
        let batch = RecordBatch::try_from_iter([("id", ids)]).unwrap();
        let mut stream = store
            .stream(move |_, wanted| {
                wanted(batch);
                panic!("a bug");
            })
            .await
            .unwrap();
        assert_eq!(stream.next().await.unwrap().unwrap().num_rows(), 1);
        let error = stream.next().await.unwrap_err();
        assert!(error.kind() == ErrorKind::Closed && error.message().contains("panicked"), "{error:?}");
        assert!(stream.next().await.unwrap().is_none());
        store.close().await.unwrap();
    }

    /// Inserts go beside each other, as many as there may be; all else goes alone.
    #[tokio::test]
    async fn only_inserts_go_beside_each_other() {
        let options = DuckDbOptions::memory().writers(2).busy_timeout(std::time::Duration::from_millis(50));
        let store = options.open().await.unwrap();
        let (first, second) =
            (store.write(Beside::Inserts).await.unwrap(), store.write(Beside::Inserts).await.unwrap());
        for beside in [Beside::Inserts, Beside::Nothing] {
            assert_eq!(store.write(beside).await.err().map(|error| error.kind()), Some(ErrorKind::Busy));
        }
        drop(first);
        assert_eq!(store.write(Beside::Nothing).await.err().map(|error| error.kind()), Some(ErrorKind::Busy));
        drop(second);
        let alone = store.write(Beside::Nothing).await.unwrap();
        assert_eq!(store.write(Beside::Inserts).await.err().map(|error| error.kind()), Some(ErrorKind::Busy));
        drop(alone);
        store.close().await.unwrap();
    }
}
