//! A database as an application holds it: [`Database`], and transactions of several operations, [`Tx`].

mod by;
mod codec;
mod descriptions;
pub(crate) mod loading;
mod look_up;
mod transaction;

use std::future::Future;
use std::sync::Arc;

use arrow::array::RecordBatch;

use crate::engine::Retry;
use crate::engine::loader::LoaderBuilder;
use crate::engine::writer::WriterBuilder;
use crate::engine::writer::answers::Answers;
use crate::engine::writer::flush::{FlushOptions, flush, prepare};
use crate::engine::writer::plan::Part;
use crate::record::batch_of;
use crate::store::{
    CommitError, CommitObserver, Description, Observers, Operation, Outcome, Query, RecordStream, Sql, Store,
    Target,
};
pub use by::LookUpBy;
pub(crate) use descriptions::Asked;
use descriptions::Descriptions;
use loading::{ByColumns, ByKey};
use look_up::{Place, Wanted};
pub use transaction::Tx;

use crate::{Error, FromRow, Key, Keys, Record, Result, Table, TableName};

/// A database: a store, and what Barge remembers of it. Cheap to clone and share.
///
/// Dropping the future of a call that writes takes nothing back: what the store was asked for it may still do and commit, whole or not at all.
/// Only a [`Tx`] that was not committed is rolled back for sure. A call that reads can be dropped at any time.
#[derive(Clone, Debug)]
pub struct Database {
    core: Arc<Core>,
}

/// What every handle, writer and transaction of one database shares.
#[derive(Debug)]
pub(crate) struct Core {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) observers: Observers,
    descriptions: Descriptions,
    retry: Retry,
}

impl Core {
    /// The database as everybody sees it.
    pub(crate) fn ask(&self) -> Asked<'_> {
        Asked::Store(&*self.store)
    }

    /// A record's table held against the database's.
    pub(crate) async fn target(&self, table: &Table, operation: Operation) -> Result<Arc<Target>> {
        self.descriptions.target(&mut self.ask(), table, operation).await
    }

    /// Whether a description is the one remembered.
    pub(crate) fn is_current(&self, description: &Arc<Description>) -> bool {
        self.descriptions.holds(description)
    }

    /// Forgets how a table was described.
    pub(crate) fn forget(&self, table: &TableName) {
        self.descriptions.forget(table);
    }

    /// Forgets the tables that changed since they were described, and says whether any did.
    pub(crate) async fn forget_changed(&self, targets: impl Iterator<Item = &Arc<Target>>) -> bool {
        let mut changed = false;
        for target in targets {
            let now = self.store.describe(target.table()).await;
            if now.is_ok_and(|now| now != *target.description) {
                self.descriptions.forget(target.table());
                changed = true;
            }
        }
        changed
    }

    /// The rows as a part ready to send, or the first one's reason why not. `None` where none is to be sent.
    fn part<R: Record>(&self, target: Arc<Target>, records: &[R]) -> Result<Option<Part>> {
        let named = |error: Error| error.with_table(R::table().name().to_string());
        let batch = batch_of(records).map_err(named)?;
        let prepared = prepare(self, target, &batch, (0..records.len() as u32).collect()).map_err(named)?;
        match prepared.rejected.into_iter().next() {
            Some((_, error)) => Err(error),
            None => Ok(prepared.part),
        }
    }
}

/// Whether rows may have failed because they were held against their table as it was once.
fn may_be_of_shape(error: &Error) -> bool {
    use crate::ErrorKind::{InvalidValue, MissingColumn, MissingTable, NotNullViolation, Statement};
    matches!(error.kind(), MissingTable | MissingColumn | Statement | InvalidValue | NotNullViolation)
}

/// What an operation over many rows did: all of them.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Written {
    outcomes: Vec<Outcome>,
    keys: Vec<Option<i64>>,
}

impl Written {
    fn new(answers: Answers) -> Result<Self> {
        if let Some((_, error)) = answers.rejected.into_iter().next() {
            return Err(error);
        }
        let outcomes =
            answers.outcomes.into_iter().map(|outcome| outcome.unwrap_or(Outcome::Unchanged)).collect();
        if let Some(untold) = answers.untold {
            return Err(untold);
        }
        Ok(Written { outcomes, keys: answers.generated })
    }

    /// Each row's outcome, in the order given.
    pub fn outcomes(&self) -> &[Outcome] {
        &self.outcomes
    }

    /// Each row's key, in the order given, where the record's key is `generated`; else empty.
    pub fn keys(&self) -> &[Option<i64>] {
        &self.keys
    }

    /// How many rows had an outcome.
    pub fn count(&self, outcome: Outcome) -> usize {
        self.outcomes.iter().filter(|&&other| other == outcome).count()
    }
}

impl Database {
    /// A database over a store. Applications use `barge::open`.
    pub fn new(store: impl Store) -> Self {
        Database::over(Arc::new(store))
    }

    /// A database over a store that is shared already.
    pub fn over(store: Arc<dyn Store>) -> Self {
        let core = Core {
            store,
            observers: Observers::default(),
            descriptions: Descriptions::default(),
            retry: Retry::default(),
        };
        Database { core: Arc::new(core) }
    }

    pub(crate) fn of(core: Arc<Core>) -> Self {
        Database { core }
    }

    pub(crate) fn core(&self) -> &Arc<Core> {
        &self.core
    }

    /// The store beneath.
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.core.store
    }

    /// Sets up a writer: rows gather in it and leave in batches. See [`Writer`](crate::Writer).
    pub fn writer(&self) -> WriterBuilder {
        WriterBuilder::new(self.clone())
    }

    /// Creates the record's table where it doesn't exist. A table that exists is left as it is, whatever its columns.
    ///
    /// # Errors
    /// `Unsupported` for a column type that the store can't hold, `Permission`, `Statement`.
    pub async fn create_table<R: Record>(&self) -> Result<()> {
        self.create(R::table()).await
    }

    /// Creates a table where it doesn't exist; as [`create_table`](Database::create_table).
    ///
    /// # Errors
    /// As [`create_table`](Database::create_table).
    pub async fn create(&self, table: &Table) -> Result<()> {
        let sql = self.core.store.create_table_sql(table)?;
        self.execute(sql).await?;
        Ok(())
    }

    /// Describes a table: columns, keys, foreign keys, defaults, triggers.
    ///
    /// # Errors
    /// `MissingTable`.
    pub async fn describe(&self, table: &TableName) -> Result<Arc<Description>> {
        self.core.descriptions.ask(&mut self.core.ask(), table).await
    }

    /// The tables and views of the database, sorted by name.
    ///
    /// # Errors
    /// What the connection reports.
    pub async fn tables(&self) -> Result<Vec<TableName>> {
        self.core.store.tables().await
    }

    /// Runs one statement in a transaction of its own, and returns the number of rows it changed. What Barge remembers of tables is
    /// forgotten where the statement may have changed them: where it begins with another word than INSERT, UPDATE, DELETE or MERGE. Locks held by others and deadlocks are waited for as in [`retry`](Database::retry).
    ///
    /// # Errors
    /// `Statement`, and what the database reports.
    pub async fn execute(&self, sql: impl Into<Sql>) -> Result<u64> {
        let sql = sql.into();
        self.retry(|mut tx| {
            let sql = sql.clone();
            async move {
                let changed = tx.execute(sql).await?;
                Ok((tx, changed))
            }
        })
        .await
    }

    /// Runs a statement that reads, streaming its rows.
    ///
    /// # Errors
    /// `Statement` where the text is wrong or writes.
    pub async fn query(&self, sql: impl Into<Sql>) -> Result<RecordStream> {
        let sql = sql.into().text(self.core.store.dialect()).to_owned();
        self.core.store.query(Query::new(sql)).await
    }

    /// Runs a statement that reads over a batch, which the text calls `{batch}`, streaming its rows.
    ///
    /// # Errors
    /// As [`query`](Database::query).
    pub async fn query_over(&self, batch: &RecordBatch, sql: impl Into<Sql>) -> Result<RecordStream> {
        let sql = sql.into().text(self.core.store.dialect()).to_owned();
        self.core.store.query(Query { batch: Some(batch.clone()), ..Query::new(sql) }).await
    }

    /// Runs a statement that reads, and collects its rows.
    ///
    /// # Errors
    /// As [`query`](Database::query); `MissingColumn` and `InvalidValue` where the rows aren't of type `R`.
    pub async fn query_all<R: FromRow>(&self, sql: impl Into<Sql>) -> Result<Vec<R>> {
        let sql = sql.into().text(self.core.store.dialect()).to_owned();
        let mut stream =
            self.core.store.query(Query { schema: Some(R::schema()), ..Query::new(sql) }).await?;
        let mut rows = Vec::new();
        while let Some(batch) = stream.next().await? {
            rows.extend(R::from_batch(&batch)?);
        }
        Ok(rows)
    }

    /// The rows with these keys, in the keys' order; `None` where there is none. One statement, unless the keys are more bytes than a store takes in
    /// one. A key that no row can have finds nothing.
    ///
    /// # Errors
    /// `InvalidConfig` where the record has no key or the keys are of another type; `MissingTable`, `MissingColumn`.
    pub async fn get_all<R: Record + FromRow, K: Key>(&self, keys: &[K]) -> Result<Vec<Option<R>>> {
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        self.find::<R, _>(&Wanted::new::<R, K>(keys)?).await
    }

    /// The rows of each key by other columns, which need not be unique, in the keys' order: all orders of each user, or the newest of each.
    /// One round trip, as for [`get_all`](Database::get_all). [`LookUpBy`] says in which order a key's rows come, and how many.
    ///
    /// ```
    /// # extern crate barge_core as barge;
    /// use barge_core::Direction::Descending;
    /// use barge_core::{Database, FromRow, LookUpBy, Record, Result};
    ///
    /// #[derive(Record, FromRow)]
    /// #[record(table = "orders")]
    /// struct Order {
    ///     #[record(key)]
    ///     id: i64,
    ///     user_id: i64,
    ///     status: String,
    /// }
    ///
    /// # async fn orders(db: &Database) -> Result<()> {
    /// let of_users: Vec<Vec<Order>> = db.get_by("user_id", &[1, 2, 3]).await?;
    ///
    /// let newest = LookUpBy::columns(["user_id", "status"]).order_by("created_at", Descending).limit(10);
    /// let open = db.get_by::<Order, _>(newest, &[(1, "open"), (2, "open")]).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// `MissingColumn`, naming the table's columns, before anything is looked up; `InvalidConfig` where the keys are of another type or a
    /// column has no order; `Unsupported` where the store can't order by it (decimals on SQLite); `MissingTable`; `InvalidValue` where a row can't be
    /// read, with its key's place among the keys as [`row`](Error::row).
    pub async fn get_by<R: Record + FromRow, K: Key>(
        &self,
        by: impl Into<LookUpBy>,
        keys: &[K],
    ) -> Result<Vec<Vec<R>>> {
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let core = &self.core;
        let wanted = Wanted::by::<R, K>(&core.descriptions, &mut core.ask(), &by.into(), keys).await?;
        self.find::<R, _>(&wanted).await
    }

    async fn find<R: FromRow, P: Place<R>>(&self, wanted: &Wanted) -> Result<Vec<P>> {
        let of_key = |error| wanted.error(error);
        let mut found = self.core.store.look_up(wanted.look_up.clone()).await.map_err(of_key)?;
        let mut rows = wanted.rows::<R, P>();
        while let Some(part) = found.next().await.map_err(of_key)? {
            rows.take(&part)?;
        }
        Ok(rows.found)
    }

    /// The rows of each key as a stream of record batches, for results that are large: the store reads as fast as the stream is polled, so that
    /// memory stays flat whatever the number of rows. The first column, `_ordinal`, is the place of the row's key among the keys; the
    /// table's columns follow. Keys come in any order, the rows of each as `by` says. All rows are of one moment.
    ///
    /// A database in memory (SQLite) gathers the result first. Until the stream ends it holds one of the store's connections: drop it where the rest is not
    /// wanted.
    ///
    /// ```
    /// # extern crate barge_core as barge;
    /// # use barge_core::{Database, FromRow, Record, Result};
    /// # #[derive(Record, FromRow)]
    /// # #[record(table = "orders")]
    /// # struct Order { #[record(key)] id: i64, user_id: i64 }
    /// # async fn orders(db: &Database, users: &[i64]) -> Result<()> {
    /// let mut found = db.look_up(Order::table(), "user_id", users).await?;
    /// while let Some(batch) = found.next().await? {
    ///     for order in Order::from_batch(&batch)? {
    ///         println!("{} {}", order.user_id, order.id);
    ///     }
    /// }
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    /// As [`get_by`](Database::get_by).
    pub async fn look_up(
        &self,
        table: &Table,
        by: impl Into<LookUpBy>,
        keys: impl Keys,
    ) -> Result<RecordStream> {
        let core = &self.core;
        let look_up = look_up::look_up(&core.descriptions, &mut core.ask(), table, &by.into(), keys).await?;
        core.store.look_up(look_up).await
    }

    /// Sets up a loader: rows that are asked for by key one by one are looked up together, through caches. See [`Loader`](crate::Loader).
    pub fn loader<R: Record + FromRow + Send + Sync + 'static>(&self) -> LoaderBuilder<ByKey<R>> {
        LoaderBuilder::by_key(self.clone())
    }

    /// Sets up a loader that looks rows up by other columns, which need not be unique: all orders of a user, or the newest ten. It
    /// gives `None` for a key without rows.
    ///
    /// ```
    /// # extern crate barge_core as barge;
    /// # use std::sync::Arc;
    /// use barge_core::Direction::Descending;
    /// # use barge_core::{Database, FromRow, LookUpBy, Record, Result};
    /// # #[derive(Record, FromRow)]
    /// # #[record(table = "orders")]
    /// # struct Order { #[record(key)] id: i64, user_id: i64 }
    /// # async fn orders(db: &Database) -> Result<()> {
    /// let newest = LookUpBy::from("user_id").order_by("id", Descending).limit(10);
    /// let orders = db.loader_by::<Order>(newest).start();
    /// let of_user: Arc<[Order]> = orders.load(7).await?.unwrap_or_default();
    /// # Ok(())
    /// # }
    /// ```
    pub fn loader_by<R: Record + FromRow + Send + Sync + 'static>(
        &self,
        by: impl Into<LookUpBy>,
    ) -> LoaderBuilder<ByColumns<R>> {
        LoaderBuilder::by_columns(self.clone(), by.into())
    }

    /// Adds all rows, or none. One transaction.
    ///
    /// # Errors
    /// The first failing row's error, with its place among `records`. Locks held by others and deadlocks are tried again for a minute.
    pub async fn insert_all<R: Record>(&self, records: &[R]) -> Result<Written> {
        self.write_all(Operation::Insert, records).await
    }

    /// Adds all rows whose keys are not there, or fails as a whole. One transaction.
    ///
    /// # Errors
    /// As [`insert_all`](Database::insert_all).
    pub async fn insert_all_if_absent<R: Record>(&self, records: &[R]) -> Result<Written> {
        self.write_all(Operation::InsertIfAbsent, records).await
    }

    /// Adds or updates all rows, or none. One transaction.
    ///
    /// # Errors
    /// As [`insert_all`](Database::insert_all).
    pub async fn upsert_all<R: Record>(&self, records: &[R]) -> Result<Written> {
        self.write_all(Operation::Upsert, records).await
    }

    /// Updates all rows, or none. One transaction. A row that isn't there is no failure: its outcome is `NotFound`.
    ///
    /// # Errors
    /// As [`insert_all`](Database::insert_all).
    pub async fn update_all<R: Record>(&self, records: &[R]) -> Result<Written> {
        self.write_all(Operation::Update, records).await
    }

    /// Removes all rows with the records' keys, or none. One transaction. A row that isn't there is no failure: its outcome is
    /// `NotFound`.
    ///
    /// # Errors
    /// As [`insert_all`](Database::insert_all).
    pub async fn delete_all<R: Record>(&self, records: &[R]) -> Result<Written> {
        self.write_all(Operation::Delete, records).await
    }

    async fn write_all<R: Record>(&self, operation: Operation, records: &[R]) -> Result<Written> {
        if records.is_empty() {
            return Ok(Written::default());
        }
        let target = self.core.target(R::table(), operation).await?;
        match self.write_to(&target, records).await {
            // A table that changed since it was described: the same rows may go through.
            Err(error)
                if may_be_of_shape(&error) && self.core.forget_changed([&target].into_iter()).await =>
            {
                let target = self.core.target(R::table(), operation).await?;
                self.write_to(&target, records).await
            }
            written => written,
        }
    }

    async fn write_to<R: Record>(&self, target: &Arc<Target>, records: &[R]) -> Result<Written> {
        let part = self.core.part(Arc::clone(target), records)?;
        let Some(part) = part else { return Ok(Written::default()) };
        let options = FlushOptions {
            rows: records.len() as u32,
            outcomes: true,
            atomic: true,
            retry: &self.core.retry,
            token: None,
        };
        let (answers, flushed) = flush(&self.core, std::slice::from_ref(&part), Vec::new(), &options).await;
        if let Some(error) = flushed.failure {
            return Err(error);
        }
        match answers.rejected.iter().find(|(arrival, error)| error.row() == Some((*arrival).into())) {
            Some((_, own)) => Err(own.clone()),
            None => Written::new(answers),
        }
    }

    /// Begins a transaction of several operations. Dropping it rolls it back.
    ///
    /// # Errors
    /// `Busy` or `Timeout` where another transaction holds the store for too long.
    pub async fn begin(&self) -> Result<Tx> {
        Tx::begin(&self.core).await
    }

    /// Runs a transaction, and runs it again from its start after a deadlock, a serialization failure, a lock held by
    /// another connection or a connection lost before COMMIT; for a minute at most.
    ///
    /// ```
    /// # use barge_core::{Database, Result, Tx};
    /// # async fn transfer(db: &Database) -> Result<u64> {
    /// db.retry(|mut tx: Tx| async move {
    ///     let changed = tx.execute("UPDATE accounts SET balance = balance + 1 WHERE id = 7").await?;
    ///     Ok((tx, changed))
    /// })
    /// .await
    /// # }
    /// ```
    ///
    /// # Errors
    /// The last failure. A commit that may or may not have happened is not tried again.
    pub async fn retry<T, F, Fut>(&self, mut run: F) -> Result<T>
    where
        F: FnMut(Tx) -> Fut,
        Fut: Future<Output = Result<(Tx, T)>>,
    {
        let mut attempts = self.core.retry.start();
        loop {
            let attempt = async {
                let (tx, value) = run(self.begin().await?).await?;
                tx.end().await.map(|()| value)
            };
            match attempt.await {
                Ok(value) => return Ok(value),
                Err(error @ CommitError::Unknown { .. }) => return Err(error.into()),
                Err(CommitError::RolledBack(error)) => attempts.next(error).await?,
            }
        }
    }

    /// Adds an observer of commits, told of every transaction that writes through this database from now on.
    pub fn observe(&self, observer: Arc<dyn CommitObserver>) {
        self.core.observers.add(observer);
    }

    /// Closes the store and waits until its connections are gone. Writers are closed first, by whoever holds them.
    ///
    /// # Errors
    /// What the store reports while it closes.
    pub async fn close(&self) -> Result<()> {
        self.core.store.close().await
    }
}
