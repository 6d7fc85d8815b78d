//! One connection: statements over batches, and the transaction that is open on it.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Int64Type, Schema};
use barge_core::store::{CommitError, Description, ORDINAL};
use barge_core::{Error, ErrorKind, Result, TableName};

use crate::constraints::{each, text};
use crate::error::{error_of, leaves_commit_unknown};
use crate::journal::{Entry, Journal};
use crate::options::Instance;
use crate::plan::Plans;
use crate::raw::{BoundBatch, Failure, Handle, Lent, Prepared};

/// A connection, used by one call at a time.
pub(crate) struct Connection {
    pub(crate) handle: Arc<Handle>,
    instance: Arc<Instance>,
    /// What the database that was opened is called in statements.
    pub(crate) catalog: Arc<str>,
    /// Whether somebody's SQL may have changed what is kept in the session: settings, the current schema, temporary tables.
    pub(crate) session_changed: bool,
    /// Whether a transaction may be open on it that couldn't be ended.
    pub(crate) unfit: bool,
    pub(crate) plans: Plans,
    /// The tables that look-ups read, as they were when first read.
    pub(crate) look_ups: HashMap<TableName, Arc<Description>>,
    /// What the open transaction did; `None` where none is open.
    pub(crate) journal: Option<Journal>,
    /// Another connection, which sees what is committed. Opened when needed.
    aside: Option<Box<Connection>>,
}

impl Connection {
    pub(crate) fn new(handle: Arc<Handle>, instance: Arc<Instance>) -> Result<Self> {
        let mut connection = Connection {
            handle,
            instance,
            catalog: "".into(),
            session_changed: false,
            unfit: false,
            plans: Plans::default(),
            look_ups: HashMap::new(),
            journal: None,
            aside: None,
        };
        // UUIDs, JSON and 128-bit integers come as what they are; and texts, whatever the database's settings, in the arrays that are
        // read here. That these are short of room is met by reading in parts.
        connection.run("SET SESSION arrow_lossless_conversion = true")?;
        for setting in ["arrow_large_buffer_size", "produce_arrow_string_view", "arrow_output_list_view"] {
            connection.run(&format!("SET {setting} = false"))?;
        }
        // Text that becomes a TIMESTAMPTZ is in UTC where it doesn't say otherwise. Without its ICU extension DuckDB knows no time zones.
        if let Err(error) = connection.run("SET SESSION TimeZone = 'UTC'") {
            tracing::debug!(%error, "DuckDB was built without time zones");
        }
        let current = connection.read("SELECT current_database()", None)?;
        connection.catalog = each(&current, |batch, row| text(batch, 0, row)).concat().into();
        Ok(connection)
    }

    pub(crate) fn error(&self, failure: Failure) -> Error {
        error_of(failure, &self.instance.name)
    }

    /// Runs one statement.
    pub(crate) fn run(&mut self, sql: &str) -> Result<u64> {
        self.execute_over(sql, None)
    }

    fn execute_over(&mut self, sql: &str, batch: Option<&Arc<BoundBatch>>) -> Result<u64> {
        self.try_execute(sql, batch).map_err(|failure| self.error(failure))
    }

    /// Runs one statement over a batch that it names as the handle's relation.
    pub(crate) fn try_execute(&self, sql: &str, batch: Option<&Arc<BoundBatch>>) -> Result<u64, Failure> {
        let _lent = batch.map(|batch| self.handle.lend(batch));
        Prepared::new(&self.handle, sql)?.execute()
    }

    /// Reads all rows of one statement, in DuckDB's own types.
    pub(crate) fn read(&mut self, sql: &str, batch: Option<&Arc<BoundBatch>>) -> Result<Vec<RecordBatch>> {
        let read = || -> Result<Vec<RecordBatch>, Failure> {
            let lent: Option<Lent> = batch.map(|batch| self.handle.lend(batch));
            let mut rows = Prepared::new(&self.handle, sql)?.rows(lent)?;
            let mut batches = Vec::new();
            while let Some(batch) = rows.next()? {
                batches.push(batch);
            }
            Ok(batches)
        };
        read().map_err(|failure| self.error(failure))
    }

    /// Reads the integers of a statement's one column, NULL among them.
    pub(crate) fn integers(
        &mut self,
        sql: &str,
        batch: Option<&Arc<BoundBatch>>,
    ) -> Result<Vec<Option<i64>>> {
        let mut integers = Vec::new();
        for rows in self.read(sql, batch)? {
            let column = arrow::compute::cast(rows.column(0), &DataType::Int64)?;
            integers.extend(column.as_primitive::<Int64Type>());
        }
        Ok(integers)
    }

    /// Binds a batch to the connection's statements.
    pub(crate) fn bind(&self, batch: RecordBatch) -> Result<Arc<BoundBatch>> {
        let bound = BoundBatch::new(&self.handle, batch).map_err(|failure| self.error(failure))?;
        Ok(Arc::new(bound))
    }

    /// Another connection of the same instance, which sees what is committed.
    pub(crate) fn aside(&mut self) -> Result<&mut Connection> {
        let aside = match self.aside.take() {
            Some(aside) => aside,
            None => Box::new(self.instance.connect()?),
        };
        Ok(self.aside.insert(aside))
    }

    /// Whether a transaction is open.
    pub(crate) fn in_transaction(&self) -> bool {
        self.journal.is_some()
    }

    /// Begins a transaction.
    pub(crate) fn begin(&mut self) -> Result<()> {
        self.run("BEGIN TRANSACTION")?;
        self.journal = Some(Journal::default());
        Ok(())
    }

    /// Commits. Whatever happens, no transaction is open afterwards.
    pub(crate) fn commit(&mut self) -> Result<(), CommitError> {
        if self.journal.take().is_none() {
            return Err(ended().context("there is nothing to commit").into());
        }
        let Err(failure) = self.try_execute("COMMIT", None) else { return Ok(()) };
        let unknown = leaves_commit_unknown(&failure);
        let error = self.error(failure).context("the transaction was not committed");
        // DuckDB has rolled back already, or does so now.
        let _ = self.try_execute("ROLLBACK", None);
        Err(match unknown {
            true => CommitError::Unknown { error, applied: () },
            false => CommitError::RolledBack(error),
        })
    }

    /// Rolls back, if a transaction is open.
    pub(crate) fn roll_back(&mut self) {
        if self.journal.take().is_none() {
            return;
        }
        // Whoever gave up a look-up may interrupt the first try.
        let first = self.try_execute("ROLLBACK", None);
        if let Err(failure) = first.or_else(|_| self.try_execute("ROLLBACK", None)) {
            // DuckDB may have ended it itself; if not, whoever comes next must not find it.
            self.unfit = true;
            tracing::error!(%failure, database = %self.instance.name, "rolling back failed");
        }
    }

    /// After a statement failed: the transaction as it was before it, in a new one; or gone, where that can't be.
    ///
    /// # Errors
    /// `SerializationFailure` where what was done before has another effect now, as somebody else wrote meanwhile.
    pub(crate) fn restore(&mut self) -> Result<()> {
        let before = self.journal.take_if(|journal| journal.entries().is_some());
        if before.is_some() {
            self.journal = Some(Journal::default());
        }
        self.roll_back();
        let Some(before) = before else { return Ok(()) };
        self.begin()?;
        let (entries, run) = before.into_entries();
        if let Some(journal) = &mut self.journal {
            journal.set_run(run);
        }
        for entry in entries {
            if let Err(error) = self.again(entry) {
                self.roll_back();
                return Err(error);
            }
        }
        Ok(())
    }

    fn again(&mut self, entry: Entry) -> Result<()> {
        let differs = || {
            let message = "another transaction wrote while this one was done again after a failed statement";
            Error::new(ErrorKind::SerializationFailure, message)
        };
        match &entry {
            Entry::Claim(token) => {
                if !self.claim_token(token)? {
                    return Err(differs());
                }
            }
            Entry::Step(applied) => {
                let plan = self.plan(&applied.target)?;
                let (batch, keys) = applied.rows()?;
                let rows = plan.fit(&batch, keys.as_ref())?;
                let matched = match (&plan.matching, &applied.matched) {
                    (Some(matching), Some(_)) => Some(self.matched(&plan, matching, &rows)?),
                    _ => None,
                };
                let written = self.write(&plan, &rows).map_err(|failure| self.error(failure))?;
                if written != applied.affected || matched != applied.matched {
                    return Err(differs());
                }
                if keys.is_some() {
                    self.draw_once(&plan)?;
                }
            }
        }
        if let Some(journal) = &mut self.journal {
            journal.push(entry);
        }
        Ok(())
    }
}

/// Columns with their places' names `c0`, `c1`, …, and with [`ORDINAL`].
pub(crate) fn with_ordinals(columns: Vec<(Field, ArrayRef)>, rows: usize) -> Result<RecordBatch> {
    let (mut fields, mut arrays): (Vec<Field>, Vec<ArrayRef>) = columns.into_iter().unzip();
    fields.push(Field::new(ORDINAL, DataType::Int64, false));
    arrays.push(Arc::new(Int64Array::from_iter_values(0..rows as i64)));
    Ok(RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays)?)
}

pub(crate) fn ended() -> Error {
    Error::new(ErrorKind::Statement, "the transaction was ended by an earlier error")
}
