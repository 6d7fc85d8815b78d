//! The seam between the engine and a database.
//!
//! A [`Store`] opens [`Transaction`]s; a transaction applies [`Step`]s: one operation over one record batch, run as a fixed
//! number of statements. Each store owns its SQL. The seam's promises:
//!
//! - **A step is applied whole or not at all.** After an error of [`Transaction::apply`] the transaction is as it was before
//!   the step, or it is gone; [`Transaction::is_open`] tells which. A store without savepoints keeps the promise by replaying
//!   what it applied before.
//! - **`Ok` means what it says.** A transaction in which a statement failed in a way the store couldn't undo refuses to commit.
//!   A failed commit says whether it was rolled back or whether nobody knows.
//! - **Every row is answered.** Outcomes are given row by row where they're asked for, and as counts where not.
//! - **Equal or rejected.** A value is stored so that it reads back equal, or [`Store::check`] or the step refuses its row.
//! - **Unsupported before anything is done.** What a store can't do it refuses before it touches a row.

mod check;
mod description;
mod look_up;
mod observer;
mod statement;
mod target;

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;

use arrow::array::{Int64Array, RecordBatch};
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use futures::Stream;

pub use check::check_values;
pub use description::{
    Action, DescribedColumn, Description, ForeignKey, KeyEquality, Reference, TableKind, UniqueKey,
};
pub use look_up::{Direction, LookUp, OrderBy};
pub use observer::{Change, ChangedRows, CommitObserver, CommitOutcome};
pub(crate) use observer::{Earlier, Fence, Observers};
pub use statement::{Alters, changes_session};
pub(crate) use statement::{changes_no_rows, ends_transaction};
pub use target::Target;

use crate::{Error, Result, Table, TableName};

/// The name of the column that holds a row's place in its batch, counted from 0.
pub const ORDINAL: &str = "_ordinal";

/// Which SQL a store speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Dialect {
    /// SQLite.
    Sqlite,
    /// PostgreSQL.
    Postgres,
    /// DuckDB.
    DuckDb,
    /// None: a store that runs no SQL.
    None,
}

/// SQL text, with variants for the stores that need another.
///
/// ```
/// use barge_core::{Dialect, Sql};
///
/// let sql = Sql::new("SELECT 1").on(Dialect::DuckDb, "SELECT 2");
/// assert_eq!(sql.text(Dialect::Sqlite), "SELECT 1");
/// assert_eq!(sql.text(Dialect::DuckDb), "SELECT 2");
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sql {
    text: String,
    variants: Vec<(Dialect, String)>,
}

impl Sql {
    /// SQL for every store.
    pub fn new(text: impl Into<String>) -> Self {
        Sql { text: text.into(), variants: Vec::new() }
    }

    /// The same with another text for one store.
    #[must_use]
    pub fn on(mut self, dialect: Dialect, text: impl Into<String>) -> Self {
        self.variants.push((dialect, text.into()));
        self
    }

    /// The text for a store.
    pub fn text(&self, dialect: Dialect) -> &str {
        let variant = self.variants.iter().rev().find(|(variant, _)| *variant == dialect);
        variant.map_or(&self.text, |(_, text)| text)
    }
}

impl<T: Into<String>> From<T> for Sql {
    fn from(text: T) -> Self {
        Sql::new(text)
    }
}

/// What to do with the rows of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Operation {
    /// Add each row; a row whose key is there already is an error.
    Insert,
    /// Add each row whose key is not there; leave the others as they are.
    InsertIfAbsent,
    /// Add each row, or set its columns where the key is there.
    Upsert,
    /// Set the columns of the rows that are there.
    Update,
    /// Remove the rows that are there.
    Delete,
}

impl Operation {
    /// Whether it finds rows by key, and so needs one.
    pub fn is_keyed(self) -> bool {
        self != Operation::Insert
    }

    /// Its name as dead letters and logs write it: `insert`, `insert_if_absent`, `upsert`, `update`, `delete`.
    pub fn as_str(self) -> &'static str {
        match self {
            Operation::Insert => "insert",
            Operation::InsertIfAbsent => "insert_if_absent",
            Operation::Upsert => "upsert",
            Operation::Update => "update",
            Operation::Delete => "delete",
        }
    }

    /// The operation of a name that [`as_str`](Operation::as_str) gives.
    pub fn from_name(name: &str) -> Option<Self> {
        use Operation::*;
        [Insert, InsertIfAbsent, Upsert, Update, Delete]
            .into_iter()
            .find(|operation| operation.as_str() == name)
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What became of a row. A rejected row has no outcome but an [`Error`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// It is new in the table.
    Inserted,
    /// It was there, and its columns were set.
    Updated,
    /// It was there and stays as it was (insert-if-absent), or a trigger kept it out.
    Unchanged,
    /// It was there and is gone.
    Deleted,
    /// No row has its key; nothing was done.
    NotFound,
}

/// One operation over one batch, applied whole or not at all: what its rows would do one after the other, in their order. Only
/// foreign keys may be looked at when all of them are done.
///
/// The batch has exactly the target's columns, in their order, at least one row, and passed [`Store::check`]. Keys of keyed operations are
/// unique within it, as the database compares them.
#[derive(Clone, Debug)]
pub struct Step {
    /// Which table, operation and columns.
    pub target: Arc<Target>,
    /// The rows.
    pub batch: RecordBatch,
    /// Whether each row's outcome (and generated key) is wanted, or counts are enough. Outcomes may cost a statement more.
    pub outcomes: bool,
}

/// What a step did.
#[derive(Clone, Debug, PartialEq)]
pub struct Applied {
    /// Rows that the database changed. Where a row sent is at most one row of the table, fewer than were sent and no error mean that
    /// the rest were not found or unchanged.
    pub affected: u64,
    /// Each row's outcome in the batch's order, where they were asked for. `None` all the same where the step is done, but it can't be told
    /// which of its rows a trigger kept out that the description doesn't know.
    pub outcomes: Option<Vec<Outcome>>,
    /// Each row's key, where the table draws keys and outcomes were asked for.
    pub generated: Option<Int64Array>,
    /// Statements it took.
    pub statements: u32,
}

/// What a step did row by row.
#[derive(Clone, Debug)]
pub struct AppliedRows {
    /// Each row's outcome, or why it was rejected, in the batch's order.
    pub outcomes: Vec<Result<Outcome>>,
    /// Each row's key, where the table draws keys; NULL for a rejected row.
    pub generated: Option<Int64Array>,
    /// Statements it took.
    pub statements: u32,
}

/// A statement that reads, possibly over a batch.
///
/// `{batch}` in the text stands for the batch as a relation: its columns, and [`ORDINAL`].
#[derive(Clone, Debug)]
pub struct Query {
    /// SQL in the store's own dialect.
    pub sql: String,
    /// What `{batch}` stands for.
    pub batch: Option<RecordBatch>,
    /// The types in which columns are wanted, by name. Other columns come as the store describes them.
    pub schema: Option<SchemaRef>,
}

impl Query {
    /// A query without a batch.
    pub fn new(sql: impl Into<String>) -> Self {
        Query { sql: sql.into(), batch: None, schema: None }
    }
}

/// A stream of record batches, read as fast as it is polled and no faster. Dropping it ends the query.
pub struct RecordStream {
    schema: SchemaRef,
    batches: Pin<Box<dyn Stream<Item = Result<RecordBatch>> + Send>>,
}

impl RecordStream {
    /// A stream of batches that all have one schema.
    pub fn new(schema: SchemaRef, batches: impl Stream<Item = Result<RecordBatch>> + Send + 'static) -> Self {
        // Fused: a stream that has ended may be asked again.
        RecordStream { schema, batches: Box::pin(futures::StreamExt::fuse(batches)) }
    }

    /// A stream of batches, the first of which is there even if it has no rows, and tells the schema.
    ///
    /// # Errors
    /// What comes in place of a first batch; `Statement` where nothing does.
    pub async fn of_parts(
        mut parts: impl Stream<Item = Result<RecordBatch>> + Send + Unpin + 'static,
    ) -> Result<Self> {
        let first = futures::StreamExt::next(&mut parts).await;
        let first = first.ok_or_else(|| {
            Error::new(crate::ErrorKind::Statement, "the store gave no rows and no columns")
        })??;
        let schema = first.schema();
        Ok(RecordStream::new(schema, futures::StreamExt::chain(futures::stream::iter([Ok(first)]), parts)))
    }

    /// The schema of every batch.
    pub fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// The next batch; `None` at the end.
    ///
    /// # Errors
    /// What the database reports while it reads. After an error the stream is at its end.
    pub async fn next(&mut self) -> Result<Option<RecordBatch>> {
        futures::StreamExt::next(&mut self.batches).await.transpose()
    }

    /// Reads the stream to its end, into one batch.
    ///
    /// # Errors
    /// As [`next`](RecordStream::next).
    pub async fn into_batch(self) -> Result<RecordBatch> {
        let schema = Arc::clone(self.schema());
        Ok(arrow::compute::concat_batches(&schema, &self.collect().await?)?)
    }

    /// Reads the stream to its end.
    ///
    /// # Errors
    /// As [`next`](RecordStream::next).
    pub async fn collect(mut self) -> Result<Vec<RecordBatch>> {
        let mut batches = Vec::new();
        while let Some(batch) = self.next().await? {
            batches.push(batch);
        }
        Ok(batches)
    }
}

/// A stream of one batch.
impl From<RecordBatch> for RecordStream {
    fn from(batch: RecordBatch) -> Self {
        RecordStream::new(batch.schema(), futures::stream::iter([Ok(batch)]))
    }
}

impl Stream for RecordStream {
    type Item = Result<RecordBatch>;

    fn poll_next(
        mut self: Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Self::Item>> {
        self.batches.as_mut().poll_next(context)
    }
}

impl fmt::Debug for RecordStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RecordStream").field("schema", &self.schema).finish_non_exhaustive()
    }
}

/// A flush's proof of itself: claimed by the transaction's first statement, so that a retry after a COMMIT that was cut off
/// finds out whether the flush happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// The writer.
    pub writer: uuid::Uuid,
    /// Which of the writer's concurrent flushes.
    pub lane: u32,
    /// Grows with every flush of the lane, from 1.
    pub sequence: u64,
}

/// Why a commit did not succeed. `T` is what the transaction would have given, had it succeeded.
#[derive(Clone, Debug)]
pub enum CommitError<T = ()> {
    /// Nothing of the transaction is in the database.
    RolledBack(Error),
    /// The transaction may or may not be in the database.
    Unknown {
        /// What cut the commit off.
        error: Error,
        /// What was computed before, which stands if the transaction turns out to be there.
        applied: T,
    },
}

impl<T> CommitError<T> {
    /// The failure itself.
    pub fn error(&self) -> &Error {
        match self {
            CommitError::RolledBack(error) | CommitError::Unknown { error, .. } => error,
        }
    }

    /// The same with what was computed before.
    pub fn with_applied<U>(self, applied: U) -> CommitError<U> {
        match self {
            CommitError::RolledBack(error) => CommitError::RolledBack(error),
            CommitError::Unknown { error, .. } => CommitError::Unknown { error, applied },
        }
    }
}

impl<T> From<Error> for CommitError<T> {
    fn from(error: Error) -> Self {
        CommitError::RolledBack(error)
    }
}

impl<T> From<CommitError<T>> for Error {
    fn from(error: CommitError<T>) -> Self {
        match error {
            CommitError::RolledBack(error) => error,
            CommitError::Unknown { error, .. } => {
                error.context("the transaction may or may not have been committed")
            }
        }
    }
}

/// What a store can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// Whether a commit can be cut off, so that flushes claim a [`Token`].
    pub commit_can_be_unknown: bool,
    /// Whether keys can be drawn by the database and given back.
    pub generated_keys: bool,
    /// Whether it may draw the key of a row that was removed lately.
    pub reuses_keys: bool,
    /// Whether foreign keys are enforced.
    pub foreign_keys: bool,
    /// Whether [`Store::query`] and [`Transaction::over`] run SQL.
    pub sql: bool,
}

/// A database.
#[async_trait]
pub trait Store: Send + Sync + fmt::Debug + 'static {
    /// Which SQL it speaks.
    fn dialect(&self) -> Dialect;

    /// What it can do.
    fn capabilities(&self) -> Capabilities;

    /// Describes a table or view as it is in the database.
    ///
    /// # Errors
    /// `MissingTable`.
    async fn describe(&self, table: &TableName) -> Result<Description>;

    /// The tables and views that a user made, sorted by name.
    async fn tables(&self) -> Result<Vec<TableName>>;

    /// The statement that creates a table for a record type: `CREATE TABLE IF NOT EXISTS …`.
    ///
    /// # Errors
    /// `Unsupported` for a column type that the store can't hold.
    fn create_table_sql(&self, table: &Table) -> Result<String>;

    /// Which rows can't be stored so that they come back equal, with the first reason for each, in order. Pure computation over the
    /// arrays; the store need not repeat what [`check_values`] finds.
    fn check(&self, target: &Target, batch: &RecordBatch) -> Vec<(usize, Error)>;

    /// Numbers the rows of `keys` so that two rows have one number exactly where the database takes their keys as equal.
    /// Asked only where [`KeyEquality::Database`] says that comparing bytes isn't enough.
    async fn key_groups(&self, target: &Target, keys: &RecordBatch) -> Result<Vec<u32>>;

    /// Begins a transaction that writes. Waits for a connection.
    ///
    /// # Errors
    /// `Timeout` or `Busy` where none comes free in time, `ConnectionLost`.
    async fn begin(&self) -> Result<Box<dyn Transaction>>;

    /// Runs steps in a transaction of their own: all of them, or none. The way of nearly every flush, so that a
    /// store can make it one round trip.
    ///
    /// With a token, `None` says that a transaction with it was committed before, and nothing was done now.
    async fn transact(
        &self,
        token: Option<&Token>,
        steps: &[Step],
    ) -> Result<Option<Vec<Applied>>, CommitError<Vec<Applied>>> {
        let mut transaction = self.begin().await?;
        if let Some(token) = token
            && !transaction.claim(token).await?
        {
            return Ok(None);
        }
        let mut applied = Vec::with_capacity(steps.len());
        for step in steps {
            match transaction.apply(step).await {
                Ok(step) => applied.push(step),
                Err(error) => {
                    transaction.rollback().await?;
                    return Err(error.into());
                }
            }
        }
        match transaction.commit().await {
            Ok(()) => Ok(Some(applied)),
            Err(error) => Err(error.with_applied(applied)),
        }
    }

    /// Runs a statement that reads, outside any transaction, streaming its rows.
    ///
    /// # Errors
    /// `Statement` where the text is wrong or writes.
    async fn query(&self, query: Query) -> Result<RecordStream>;

    /// Reads the rows with the given keys, outside any transaction and all of one moment, streaming them: keys in any order, the rows of
    /// each as [`LookUp::order`] says. The first column is [`ORDINAL`], the key's place (`Int64`); the table's columns follow with the
    /// types the table says. A reader that is slow holds the store back, so that few rows are in memory.
    ///
    /// # Errors
    /// `Unsupported` where rows can't be ordered by a column as asked; then nothing was read. `InvalidValue` where a row can't be read: its `row()`
    /// is the place of the row's key, so that the others can be asked for without it.
    async fn look_up(&self, look_up: LookUp) -> Result<RecordStream>;

    /// Ends connections and waits until they're gone. Later calls fail with `Closed`.
    async fn close(&self) -> Result<()>;
}

/// A transaction that writes. Dropping it rolls it back.
#[async_trait]
pub trait Transaction: Send {
    /// Applies a step, whole or not at all.
    ///
    /// # Errors
    /// The first row's failure, or the statement's. Then the transaction is as it was before, or gone: see
    /// [`is_open`](Transaction::is_open).
    async fn apply(&mut self, step: &Step) -> Result<Applied>;

    /// Applies a step row by row, in the batch's order, leaving out the rows that fail: what [`apply`](Transaction::apply)
    /// can't do because it fails. Keys may repeat. The store finds the failing rows in its cheapest way, so long as the
    /// effect and the outcomes are those of applying each row alone, in order.
    ///
    /// # Errors
    /// A failure that is no row's own; then the transaction is as before, or gone.
    async fn apply_rows(&mut self, step: &Step) -> Result<AppliedRows>;

    /// The same of a step that went whole before, and of which some row failed so: what a store can tell by that failure, it need not find out
    /// again. It is a hint, and nothing rests on it.
    ///
    /// # Errors
    /// As [`apply_rows`](Transaction::apply_rows).
    async fn apply_refused(&mut self, step: &Step, _refused: &Error) -> Result<AppliedRows> {
        self.apply_rows(step).await
    }

    /// Runs a statement over a batch, reading or writing, and collects the rows it returns.
    ///
    /// # Errors
    /// As [`apply`](Transaction::apply).
    async fn over(&mut self, query: &Query) -> Result<RecordBatch>;

    /// Runs one statement, without a batch, and returns the number of rows it changed.
    async fn execute(&mut self, sql: &str) -> Result<u64>;

    /// Has constraints that wait for COMMIT checked with every row instead, from now on to the transaction's end, so that a row that breaks
    /// one is known. Does nothing where a store has none.
    async fn check_deferred_at_once(&mut self) -> Result<()> {
        Ok(())
    }

    /// Describes a table as this transaction sees it, over no other connection; as [`Store::describe`]. A table that isn't there leaves the
    /// transaction as it was.
    async fn describe(&mut self, table: &TableName) -> Result<Description>;

    /// Numbers keys over no other connection; as [`Store::key_groups`].
    async fn key_groups(&mut self, target: &Target, keys: &RecordBatch) -> Result<Vec<u32>>;

    /// Reads rows by key inside the transaction; as [`Store::look_up`], with all rows at once.
    async fn look_up(&mut self, look_up: &LookUp) -> Result<RecordBatch>;

    /// Claims a token; false where a committed transaction claimed it before. Must be the first call.
    async fn claim(&mut self, token: &Token) -> Result<bool>;

    /// Whether the transaction goes on. False after an error that ended it.
    fn is_open(&self) -> bool;

    /// Commits. Refused where the transaction is gone.
    async fn commit(self: Box<Self>) -> Result<(), CommitError>;

    /// Rolls back and waits until it is done.
    async fn rollback(self: Box<Self>) -> Result<()>;
}
