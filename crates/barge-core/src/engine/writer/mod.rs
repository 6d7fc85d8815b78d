//! Rows gather here, table by table, and leave in batches; every row is answered. See [`Writer`].

pub(crate) mod answers;
mod buffer;
mod dead_letter;
pub(crate) mod flush;
pub(crate) mod keys;
pub(crate) mod plan;
mod reach;
mod replay;
mod report;
mod sink;

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arrow::array::RecordBatch;

pub use answers::{BatchReceipt, Receipt};
pub use report::{Rejected, Report};

use crate::database::{Core, Database};
use crate::engine::{Engine, LANES_MAX, Limits, Retry, Statistics, WhenFull};
use crate::record::Table;
use crate::store::Operation;
use crate::{Error, ErrorKind, Record, Result};
use buffer::{Rows, batch_bytes};
use sink::{Outcomes, Sink};

/// How a writer behaves.
#[derive(Clone, Debug, PartialEq)]
pub struct WriterConfig {
    /// When it flushes, and how large its buffer may grow.
    pub limits: Limits,
    /// When a failed flush is tried again. Defaults to one minute of tries.
    pub retry: Retry,
    /// Whether a flush writes all its rows or none: one bad row then takes its flush with it. Defaults to no: bad rows are left
    /// out.
    pub atomic: bool,
    /// How many flushes may be in flight at a time, 1 to 64. More than 1 declares that the order of plain inserts doesn't matter.
    /// Defaults to 1: a flush starts when the one before has ended, and rows commit in the order in which they came.
    ///
    /// Worth it where one flush at a time leaves the database idle: over a network, or where a commit waits for a disk that takes several
    /// at once. Of no use on SQLite, which writes one transaction at a time.
    ///
    /// What is given up is the order of rows of different flushes: later ones may commit before earlier ones, and stay where an earlier flush fails
    /// or poisons the writer. Of two inserts of one key either may win. Rows of one flush keep their order. All else holds: a flush goes alone,
    /// after all before it and before all behind it, if any of its rows is to be upserted, updated, deleted or inserted if absent, or is of a
    /// view, of a table with triggers or of one that the writer meets for the first time; or if there is a foreign key among its tables,
    /// or between one of them and a table in flight.
    ///
    /// A second flush starts once the buffer is half full, or its first row has waited as long as the last flush took; full
    /// buffers, `linger`, [`flush`](Writer::flush) and [`close`](Writer::close) start one at once. Each flush takes a connection, and memory for up to
    /// [`max_bytes`](Limits::max_bytes), beside the open buffer's.
    pub unordered_flushes: usize,
    /// Where rejected rows are appended, as JSON lines that `barge load` reads back. Defaults to nowhere.
    pub dead_letter: Option<PathBuf>,
    /// How many rejected rows the report holds in full, at least 1. All are counted. Defaults to 100.
    pub max_reported: usize,
}

impl Default for WriterConfig {
    fn default() -> Self {
        WriterConfig {
            limits: Limits::default(),
            retry: Retry::default(),
            atomic: false,
            unordered_flushes: 1,
            dead_letter: None,
            max_reported: 100,
        }
    }
}

impl WriterConfig {
    /// Whether the settings make sense.
    ///
    /// # Errors
    /// `InvalidConfig`, naming the setting.
    pub fn validate(&self) -> Result<()> {
        self.limits.validate()?;
        self.retry.validate()?;
        if !(1..=LANES_MAX).contains(&self.unordered_flushes) {
            let message = format!(
                "unordered_flushes is {}; it must be between 1 and {LANES_MAX}",
                self.unordered_flushes
            );
            return Err(Error::new(ErrorKind::InvalidConfig, message));
        }
        if self.max_reported == 0 {
            return Err(Error::new(ErrorKind::InvalidConfig, "max_reported is 0; it must be at least 1"));
        }
        Ok(())
    }
}

/// Sets up a [`Writer`]; made by [`Database::writer`].
#[derive(Clone, Debug)]
#[must_use = "a writer begins with start()"]
pub struct WriterBuilder {
    database: Database,
    config: WriterConfig,
}

impl WriterBuilder {
    pub(crate) fn new(database: Database) -> Self {
        WriterBuilder { database, config: WriterConfig::default() }
    }

    /// Takes all settings at once.
    pub fn config(mut self, config: WriterConfig) -> Self {
        self.config = config;
        self
    }

    /// The most rows in one flush; see [`Limits::max_rows`]. Defaults to 10,000.
    pub fn max_rows(mut self, rows: usize) -> Self {
        self.config.limits.max_rows = rows;
        self
    }

    /// The most bytes in one flush; see [`Limits::max_bytes`]. Defaults to 8 MiB.
    pub fn max_bytes(mut self, bytes: usize) -> Self {
        self.config.limits.max_bytes = bytes;
        self
    }

    /// The longest wait for more rows before a flush; see [`Limits::linger`]. Defaults to none.
    pub fn linger(mut self, linger: Duration) -> Self {
        self.config.limits.linger = linger;
        self
    }

    /// How long a full flush should take; see [`Limits::latency_target`]. Defaults to no target.
    pub fn latency_target(mut self, target: Duration) -> Self {
        self.config.limits.latency_target = Some(target);
        self
    }

    /// What to do with a row when the buffer is full. Defaults to waiting.
    pub fn when_full(mut self, when_full: WhenFull) -> Self {
        self.config.limits.when_full = when_full;
        self
    }

    /// When failed flushes are tried again. Defaults to one minute of tries.
    pub fn retry(mut self, retry: Retry) -> Self {
        self.config.retry = retry;
        self
    }

    /// All rows of a flush, or none; see [`WriterConfig::atomic`].
    pub fn atomic(mut self) -> Self {
        self.config.atomic = true;
        self
    }

    /// The order of plain inserts doesn't matter: up to so many flushes of them may be in flight at a time. See
    /// [`WriterConfig::unordered_flushes`] for what is given up.
    pub fn unordered(mut self, flushes_in_flight: usize) -> Self {
        self.config.unordered_flushes = flushes_in_flight;
        self
    }

    /// The file to which rejected rows are appended; see [`WriterConfig::dead_letter`].
    pub fn dead_letter(mut self, path: impl Into<PathBuf>) -> Self {
        self.config.dead_letter = Some(path.into());
        self
    }

    /// Starts the writer on the present tokio runtime.
    ///
    /// # Panics
    /// Where a setting is out of bounds or the dead letter file can't be opened: use [`try_start`](Self::try_start) for settings
    /// that come from outside. Outside a tokio runtime.
    pub fn start(self) -> Writer {
        match self.try_start() {
            Ok(writer) => writer,
            Err(error) => panic!("the writer can't start: {error}"),
        }
    }

    /// Starts the writer on the present tokio runtime.
    ///
    /// # Errors
    /// `InvalidConfig` for a setting out of bounds; `Io` or `Permission` where the dead letter file can't be opened.
    ///
    /// # Panics
    /// Outside a tokio runtime.
    pub fn try_start(self) -> Result<Writer> {
        self.config.validate()?;
        let outcomes = Arc::new(Mutex::new(Outcomes::new(&self.config)?));
        let core = self.database.core().clone();
        let lanes = Sink::lanes(&core, &self.config);
        let engine = Engine::start(self.config.limits, Rows::new(Arc::clone(&outcomes)), lanes)?;
        Ok(Writer { handle: Arc::new(Handle { engine, outcomes, core }) })
    }
}

/// Writes rows in batches: one writer, any number of tables and operations; cheap to clone and share.
///
/// # What happens to a row
/// A row is buffered, flushed with its neighbours in one transaction, and answered: on its [`Receipt`], in the
/// [`Report`], and where configured in a dead letter file. What a flush did is what its rows, one by one in order of
/// arrival, would have done; rows that fail are left out and the rest commits. See docs/guarantees.md.
///
/// # When rows are flushed
/// As soon as the previous flush has ended; so a lone row leaves at once, and under load batches grow by
/// themselves up to the limits. A full buffer makes callers wait. Inserts whose order doesn't matter can be flushed several batches at a
/// time: [`unordered`](WriterBuilder::unordered).
///
/// # Closing, dropping, cancelling
/// [`close`](Writer::close) flushes, and accounts for every row. Dropping the last clone lets what is buffered drain in the
/// background. If the runtime ends first, the rows left go to the dead letter file, or their number is logged
/// as an error. Dropping the future of [`insert`](Writer::insert) before it is done means that the row was not accepted.
#[derive(Clone)]
pub struct Writer {
    handle: Arc<Handle>,
}

struct Handle {
    engine: Arc<Engine<Rows>>,
    outcomes: Arc<Mutex<Outcomes>>,
    /// Keeps the database open as long as the writer.
    core: Arc<Core>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.engine.close_soon();
    }
}

impl Writer {
    /// Adds a row. A row whose key is there already is rejected.
    ///
    /// # Errors
    /// `InvalidValue` or `TooLarge` where the record's columns can't hold the row, `BufferFull`, `Closed` or `Poisoned`: the row was not
    /// accepted. Failures of an accepted row are on its receipt.
    #[inline]
    pub fn insert<R: Record>(&self, row: &R) -> impl Future<Output = Result<Receipt>> {
        self.add(Operation::Insert, row)
    }

    /// Adds a row unless its key is there: then the outcome is `Unchanged`.
    ///
    /// # Errors
    /// As [`insert`](Writer::insert).
    #[inline]
    pub fn insert_if_absent<R: Record>(&self, row: &R) -> impl Future<Output = Result<Receipt>> {
        self.add(Operation::InsertIfAbsent, row)
    }

    /// Adds a row, or sets its columns where the key is there.
    ///
    /// # Errors
    /// As [`insert`](Writer::insert).
    #[inline]
    pub fn upsert<R: Record>(&self, row: &R) -> impl Future<Output = Result<Receipt>> {
        self.add(Operation::Upsert, row)
    }

    /// Sets the columns of the row with this key. Where there is none, the outcome is `NotFound`.
    ///
    /// # Errors
    /// As [`insert`](Writer::insert).
    #[inline]
    pub fn update<R: Record>(&self, row: &R) -> impl Future<Output = Result<Receipt>> {
        self.add(Operation::Update, row)
    }

    /// Removes the row with this key; the record's other columns are not looked at. Where there is none, the outcome is
    /// `NotFound`.
    ///
    /// # Errors
    /// As [`insert`](Writer::insert).
    #[inline]
    pub fn delete<R: Record>(&self, row: &R) -> impl Future<Output = Result<Receipt>> {
        self.add(Operation::Delete, row)
    }

    /// Does what `operation` says with a row: the other methods by a name known at run time.
    ///
    /// # Errors
    /// As [`insert`](Writer::insert).
    #[inline]
    pub fn add<R: Record>(&self, operation: Operation, row: &R) -> impl Future<Output = Result<Receipt>> {
        // No future of its own around the engine's: each layer costs a row some nanoseconds.
        self.handle.engine.add(move |rows| {
            let arrival = rows.append(operation, row)?;
            Ok(Receipt::new(rows.cell(), arrival))
        })
    }

    /// Does what `operation` says with every row of a record batch, whose schema is `table`'s. A batch larger than the limits goes
    /// in slices.
    ///
    /// Dropped before it is done, some of its rows may have been accepted.
    ///
    /// # Errors
    /// `InvalidConfig` where the batch's columns are not the table's; else as [`insert`](Writer::insert).
    pub async fn add_batch(
        &self,
        table: &Arc<Table>,
        operation: Operation,
        batch: &RecordBatch,
    ) -> Result<BatchReceipt> {
        check_shape(table, batch)?;
        let limits = self.handle.engine.limits();
        let row_bytes = (batch_bytes(batch) / batch.num_rows().max(1)).max(1);
        let mut receipt = BatchReceipt::default();
        let mut sent = 0;
        while sent < batch.num_rows() {
            let append = |rows: &mut Rows| {
                let room = limits.max_rows.saturating_sub(crate::engine::Buffer::rows(rows));
                let byte_room =
                    limits.max_bytes.saturating_sub(crate::engine::Buffer::bytes(rows)) / row_bytes;
                let taken = room.min(byte_room).clamp(1, batch.num_rows() - sent);
                let first = rows.append_batch(table, operation, batch.slice(sent, taken));
                receipt.push(rows.cell(), first, taken as u32);
                Ok(taken)
            };
            sent += self.handle.engine.add(append).await?;
        }
        Ok(receipt)
    }

    /// Flushes what is buffered now, and waits until it, and all before it, is answered.
    ///
    /// # Errors
    /// The failure of a flush that failed as a whole (a full disk, a lost connection). Rows rejected on their own account
    /// are no error here: they are on their receipts and in the report.
    pub async fn flush(&self) -> Result<()> {
        self.handle.engine.flush().await
    }

    /// Takes in no more rows, flushes what is buffered, and accounts for every row. May be called again, also
    /// on another clone: it gives the same report.
    ///
    /// # Errors
    /// None today; a report with rejected rows is not an error until [`Report::into_result`] makes it one.
    pub async fn close(&self) -> Result<Report> {
        self.handle.engine.close().await;
        Ok(self.report())
    }

    /// As [`close`](Writer::close), but gives up on what is still buffered after `deadline`: those rows are answered with
    /// `Timeout`, and go to the dead letter. Flushes that are under way then are waited for.
    ///
    /// # Errors
    /// As [`close`](Writer::close).
    pub async fn close_within(&self, deadline: Duration) -> Result<Report> {
        if tokio::time::timeout(deadline, self.handle.engine.close()).await.is_err() {
            let message = format!("not flushed within the {deadline:?} that close_within allowed");
            self.handle.engine.abandon_buffered(&Error::new(ErrorKind::Timeout, message));
            self.handle.engine.close().await;
        }
        Ok(self.report())
    }

    /// What the writer did so far.
    pub fn statistics(&self) -> Statistics {
        self.handle.engine.statistics()
    }

    /// The database it writes to.
    pub fn database(&self) -> Database {
        Database::of(self.handle.core.clone())
    }

    fn report(&self) -> Report {
        let outcomes = sink::lock(&self.handle.outcomes);
        Report {
            statistics: self.handle.engine.statistics(),
            rejected: outcomes.rejected.clone(),
            dead_letter_failure: outcomes.dead_letter_failure.clone(),
        }
    }
}

impl std::fmt::Debug for Writer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Writer").field("statistics", &self.statistics()).finish_non_exhaustive()
    }
}

/// Whether the batch's columns are those of the table: same names, same types, same order.
fn check_shape(table: &Table, batch: &RecordBatch) -> Result<()> {
    let wanted = table.schema().fields().iter().map(|field| (field.name(), field.data_type()));
    let schema = batch.schema();
    let given = schema.fields().iter().map(|field| (field.name(), field.data_type()));
    if wanted.clone().eq(given.clone()) {
        return Ok(());
    }
    let list = |columns: &mut dyn Iterator<Item = (&String, &arrow::datatypes::DataType)>| -> String {
        columns.map(|(name, data_type)| format!("{name} {data_type}")).collect::<Vec<_>>().join(", ")
    };
    let message = format!(
        "the batch's columns ({}) are not the table's ({})",
        list(&mut given.into_iter()),
        list(&mut wanted.into_iter())
    );
    Err(Error::new(ErrorKind::InvalidConfig, message).with_table(table.name().to_string()))
}
