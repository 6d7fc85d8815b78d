//! A store in memory, for tests of what stands on a store.
//!
//! It keeps every promise of the store interface that has nothing to do with SQL: constraints, outcomes, drawn keys,
//! tokens, transactions that are invisible until they commit. It has no threads of its own and waits only for tokio's
//! locks and timers, so tests may pause the clock. One transaction writes at a time; readers see the last commit.
//! Plain code over speed: for a store that costs nothing there is [`NullStore`](crate::NullStore).

mod definition;
mod state;
mod statement;
mod transaction;

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, RwLock};
use std::time::Duration;

use arrow::array::RecordBatch;
use async_trait::async_trait;
use barge_core::store::{Capabilities, Description, LookUp, Query, RecordStream, Target};
use barge_core::{Dialect, Error, ErrorKind, Result, Store, Table, TableName, Transaction};
use tokio::sync::Semaphore;

use self::state::State;
use self::transaction::MemoryTransaction;
use crate::Value;
pub use definition::{MemoryRow, MemoryTable};

/// A store in memory. Clones share its tables.
#[derive(Clone)]
pub struct MemoryStore(Arc<Shared>);

struct Shared {
    committed: RwLock<State>,
    /// One permit: the right to write. Closed with the store.
    gate: Arc<Semaphore>,
    options: Options,
    commits: AtomicU64,
    steps: AtomicU64,
    /// How often a latency was drawn.
    draws: AtomicU64,
}

#[derive(Clone, Copy, Default)]
struct Options {
    commit_can_be_unknown: bool,
    failure_ends_transaction: bool,
    commit_time: Duration,
    latency: Duration,
}

impl Default for MemoryStore {
    fn default() -> Self {
        MemoryStore::new()
    }
}

impl MemoryStore {
    /// A store without tables.
    pub fn new() -> Self {
        MemoryStore::with(Options::default())
    }

    fn with(options: Options) -> Self {
        MemoryStore(Arc::new(Shared {
            committed: RwLock::default(),
            gate: Arc::new(Semaphore::new(1)),
            options,
            commits: AtomicU64::new(0),
            steps: AtomicU64::new(0),
            draws: AtomicU64::new(0),
        }))
    }

    /// An empty store like this one that says its commits can be cut off, so that flushes claim tokens.
    #[must_use]
    pub fn commit_can_be_unknown(&self) -> Self {
        MemoryStore::with(Options { commit_can_be_unknown: true, ..self.0.options })
    }

    /// An empty store like this one in which a step that fails takes its transaction with it, as in a store without savepoints.
    #[must_use]
    pub fn failure_ends_transaction(&self) -> Self {
        MemoryStore::with(Options { failure_ends_transaction: true, ..self.0.options })
    }

    /// An empty store like this one whose commits take some time.
    #[must_use]
    pub fn commit_time(&self, commit_time: Duration) -> Self {
        MemoryStore::with(Options { commit_time, ..self.0.options })
    }

    /// An empty store like this one before which lies a network: look-ups and commits take up to so long until they're done, and again until they're
    /// answered. The times vary, the same way in each run.
    #[must_use]
    pub fn latency(&self, latency: Duration) -> Self {
        MemoryStore::with(Options { latency, ..self.0.options })
    }

    /// A message is on its way.
    async fn travel(&self) {
        let most = self.0.options.latency;
        if !most.is_zero() {
            let draw = self.0.draws.fetch_add(1, Ordering::Relaxed).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            tokio::time::sleep(most.mul_f64((draw >> 11) as f64 / (1_u64 << 53) as f64)).await;
        }
    }

    /// Creates a table where there is none of its name. Not while a transaction is open.
    ///
    /// # Errors
    /// `MissingColumn` where a key names no column; `Busy` while a transaction is open.
    pub fn create(&self, table: MemoryTable) -> Result<()> {
        let Ok(_permit) = self.0.gate.try_acquire() else {
            return Err(Error::new(ErrorKind::Busy, "a transaction is open"));
        };
        let mut state = self.committed();
        state.create(table)?;
        self.set_committed(state);
        Ok(())
    }

    /// Drops a table, if it is there. Not while a transaction is open.
    pub fn drop_table(&self, table: impl Into<TableName>) {
        let mut state = self.committed();
        state.drop_table(&table.into());
        self.set_committed(state);
    }

    /// The committed rows of a table, oldest first, all columns in the table's order; none where there is no such table.
    pub fn rows(&self, table: impl Into<TableName>) -> Vec<Vec<Value>> {
        match self.committed().table(&table.into()) {
            Ok(table) => table.rows.values().map(|row| row.to_vec()).collect(),
            Err(_) => Vec::new(),
        }
    }

    /// Transactions committed so far.
    pub fn commits(&self) -> u64 {
        self.0.commits.load(Ordering::Relaxed)
    }

    /// Steps applied without an error so far, whether they were committed or not.
    pub fn steps(&self) -> u64 {
        self.0.steps.load(Ordering::Relaxed)
    }

    fn committed(&self) -> State {
        // The state is replaced as a whole, so a panic elsewhere leaves it sound.
        self.0.committed.read().unwrap_or_else(|poisoned| poisoned.into_inner()).clone()
    }

    fn set_committed(&self, state: State) {
        *self.0.committed.write().unwrap_or_else(|poisoned| poisoned.into_inner()) = state;
    }

    fn open(&self) -> Result<()> {
        if self.0.gate.is_closed() { Err(closed()) } else { Ok(()) }
    }
}

#[async_trait]
impl Store for MemoryStore {
    fn dialect(&self) -> Dialect {
        Dialect::None
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities {
            commit_can_be_unknown: self.0.options.commit_can_be_unknown,
            generated_keys: true,
            reuses_keys: false,
            foreign_keys: true,
            sql: false,
        }
    }

    async fn describe(&self, table: &TableName) -> Result<Description> {
        self.open()?;
        self.committed().describe(table)
    }

    async fn tables(&self) -> Result<Vec<TableName>> {
        self.open()?;
        Ok(self.committed().tables.into_keys().collect())
    }

    /// Text that [`Transaction::execute`] of this store understands, and nothing else does.
    fn create_table_sql(&self, table: &Table) -> Result<String> {
        for column in table.columns() {
            Value::array(column.field.data_type(), &[])
                .map_err(|error| error.with_table(table.name().to_string()).with_column(column.name()))?;
        }
        Ok(MemoryTable::new(table).to_text())
    }

    fn check(&self, target: &Target, batch: &RecordBatch) -> Vec<(usize, Error)> {
        let mut rejected: Vec<(usize, Error)> = Vec::new();
        for (index, array) in batch.columns().iter().enumerate() {
            let Some(described) =
                target.described(index).filter(|described| described.data_type != *array.data_type())
            else {
                continue;
            };
            for row in 0..array.len() {
                let message = match Value::read(array, row) {
                    Ok(value) if value.fit(&described.data_type).is_some() => continue,
                    Ok(value) => format!("{value:?} doesn't fit {}", described.data_type),
                    Err(error) => error.message().to_owned(),
                };
                let error = Error::new(ErrorKind::InvalidValue, message)
                    .with_table(target.table().to_string())
                    .with_column(&described.name);
                rejected.push((row, error));
            }
        }
        rejected.sort_by_key(|(row, _)| *row);
        rejected.dedup_by_key(|(row, _)| *row);
        rejected
    }

    async fn key_groups(&self, target: &Target, keys: &RecordBatch) -> Result<Vec<u32>> {
        self.open()?;
        self.committed().key_groups(target, keys)
    }

    async fn begin(&self) -> Result<Box<dyn Transaction>> {
        let permit = self.0.gate.clone().acquire_owned().await.map_err(|_| closed())?;
        Ok(Box::new(MemoryTransaction::new(self.clone(), permit)))
    }

    async fn query(&self, _query: Query) -> Result<RecordStream> {
        Err(no_sql())
    }

    async fn look_up(&self, look_up: LookUp) -> Result<RecordStream> {
        self.open()?;
        self.travel().await;
        let found = self.committed().look_up(&look_up).map(RecordStream::from);
        self.travel().await;
        found
    }

    async fn close(&self) -> Result<()> {
        // Waits for the transaction that is open and those that wait already. Closed before: nothing to wait for.
        let permit = self.0.gate.acquire().await;
        self.0.gate.close();
        drop(permit);
        Ok(())
    }
}

impl fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tables: Vec<TableName> = self.committed().tables.into_keys().collect();
        f.debug_struct("MemoryStore").field("tables", &tables).finish_non_exhaustive()
    }
}

fn closed() -> Error {
    Error::new(ErrorKind::Closed, "the store was closed")
}

fn no_sql() -> Error {
    Error::new(ErrorKind::Unsupported, "a store in memory runs no SQL")
}
