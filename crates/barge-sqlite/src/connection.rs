//! One connection on its own thread: cached statements, the batch tables, transactions.

use std::collections::{HashMap, HashSet};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use barge_core::store::{CommitError, ORDINAL};
use barge_core::{Error, ErrorKind, Result};
use libsqlite3_sys as ffi;
use tokio::sync::Notify;

use crate::affinity::Affinity;
use crate::batch::{BoundBatch, Cells, module};
use crate::error::{error_of, error_of_rusqlite, leaves_commit_unknown};
use crate::plan::Plans;
use crate::statement::{Failure, Statement};

/// Statements kept prepared beside the steps' own. The least recently used goes.
const STATEMENTS_MAX: usize = 128;

/// A connection. Its thread alone uses it.
pub(crate) struct Connection {
    // Statements come before the connection: fields are dropped in this order.
    pub(crate) plans: Plans,
    statements: HashMap<String, Cached>,
    /// Counts uses of `statements`.
    uses: u64,
    /// The column counts for which a batch table is registered.
    batch_tables: HashSet<usize>,
    /// What messages call the database.
    pub(crate) name: String,
    busy_timeout: Duration,
    /// Whether deferred foreign keys are checked with every step and row of the open transaction.
    pub(crate) checks_deferred: bool,
    /// Whom to tell when the command under way is nearly done.
    pub(crate) nearly_done: Option<Arc<Notify>>,
    pub(crate) inner: rusqlite::Connection,
}

struct Cached {
    statement: Rc<Statement>,
    used: u64,
}

impl Connection {
    pub(crate) fn new(inner: rusqlite::Connection, name: String, busy_timeout: Duration) -> Self {
        Connection {
            plans: Plans::default(),
            statements: HashMap::new(),
            uses: 0,
            batch_tables: HashSet::new(),
            name,
            busy_timeout,
            checks_deferred: false,
            nearly_done: None,
            inner,
        }
    }

    pub(crate) fn raw(&self) -> *mut ffi::sqlite3 {
        // SAFETY: nobody closes it through the pointer, and it is used on this thread only.
        unsafe { self.inner.handle() }
    }

    /// An error with the file's name where it speaks of the file.
    pub(crate) fn error(&self, failure: Failure) -> Error {
        error_of(failure, &self.name)
    }

    pub(crate) fn rusqlite_error(&self, error: rusqlite::Error) -> Error {
        error_of_rusqlite(error, &self.name)
    }

    /// Prepares a text of exactly one statement, without keeping it.
    pub(crate) fn prepare(&self, sql: &str) -> Result<Statement> {
        // SAFETY: the connection is open, and statements are dropped before it.
        let prepare = |sql| unsafe { Statement::prepare(self.raw(), sql) };
        let (statement, tail) =
            prepare(sql).map_err(|failure| self.error(failure).context(shortened(sql)))?;
        let Some(statement) = statement else {
            return Err(Error::new(ErrorKind::Statement, "the text holds no statement"));
        };
        match prepare(tail) {
            Ok((None, _)) => Ok(statement),
            _ => Err(Error::new(
                ErrorKind::Statement,
                "the text holds more than one statement: run them one by one",
            )),
        }
    }

    /// The statement of a text, prepared once.
    pub(crate) fn statement(&mut self, sql: &str) -> Result<Rc<Statement>> {
        self.uses += 1;
        if let Some(cached) = self.statements.get_mut(sql) {
            cached.used = self.uses;
            return Ok(Rc::clone(&cached.statement));
        }
        let statement = Rc::new(self.prepare(sql)?);
        if self.statements.len() >= STATEMENTS_MAX {
            let oldest = self.statements.iter().min_by_key(|(_, cached)| cached.used);
            if let Some(oldest) = oldest.map(|(sql, _)| sql.clone()) {
                self.statements.remove(&oldest);
            }
        }
        let cached = Cached { statement: Rc::clone(&statement), used: self.uses };
        self.statements.insert(sql.to_owned(), cached);
        Ok(statement)
    }

    /// Runs a statement that returns nothing.
    pub(crate) fn run(&mut self, sql: &str) -> Result<()> {
        let statement = self.statement(sql)?;
        statement.run().finish().map_err(|failure| self.error(failure))
    }

    /// The first cell of the first row as an integer.
    pub(crate) fn integer(&mut self, sql: &str) -> Result<Option<i64>> {
        let statement = self.statement(sql)?;
        let mut run = statement.run();
        let row = run.next().map_err(|failure| self.error(failure))?;
        Ok(row.and_then(|row| match row.value(0) {
            crate::statement::Value::Integer(value) => Some(value),
            _ => None,
        }))
    }

    /// Makes `barge_batch_N` known for a number of columns.
    pub(crate) fn batch_table(&mut self, columns: usize) -> Result<String> {
        if self.batch_tables.insert(columns) {
            // SAFETY: the connection is open.
            let code = unsafe { module::register(self.raw(), columns) };
            if code != ffi::SQLITE_OK {
                self.batch_tables.remove(&columns);
                // SAFETY: the connection is open.
                return Err(self.error(unsafe { Failure::last(self.raw()) }));
            }
        }
        Ok(module::table_name(columns))
    }

    /// A query's text with `{batch}` made a relation with the batch's column names.
    pub(crate) fn over_batch(&mut self, sql: &str, batch: Option<&RecordBatch>) -> Result<String> {
        const PLACE: &str = "{batch}";
        if !sql.contains(PLACE) {
            return Ok(sql.to_owned());
        }
        let Some(batch) = batch else {
            return Err(Error::new(
                ErrorKind::InvalidConfig,
                "the text names {batch}, but no batch is given",
            ));
        };
        let mut relation = String::from("(SELECT ");
        for (index, field) in batch.schema_ref().fields().iter().enumerate() {
            if field.name().eq_ignore_ascii_case(ORDINAL) {
                let message =
                    format!("a batch's column can't be called {ORDINAL}: it is the row's place in it");
                return Err(Error::new(ErrorKind::InvalidConfig, message).with_column(field.name()));
            }
            relation.push_str(&format!("c{index} AS {}, ", barge_core::record::quote(field.name())));
        }
        let table = self.batch_table(batch.num_columns())?;
        relation.push_str(&format!("{ORDINAL} FROM {table}(?1))"));
        Ok(sql.replace(PLACE, &relation))
    }

    /// Begins a transaction that writes: the lock is taken now, so that nothing later waits for it.
    pub(crate) fn begin(&mut self) -> Result<()> {
        self.checks_deferred = false;
        self.run("BEGIN IMMEDIATE")
    }

    /// Whether a foreign key is broken now that waits for COMMIT, where those are to be checked at once.
    pub(crate) fn breaks_deferred(&self) -> bool {
        let (mut now, mut highest) = (0, 0);
        // SAFETY: the connection is open, and the numbers live through the call.
        let code = unsafe {
            ffi::sqlite3_db_status(
                self.raw(),
                ffi::SQLITE_DBSTATUS_DEFERRED_FKS,
                &raw mut now,
                &raw mut highest,
                0,
            )
        };
        self.checks_deferred && code == ffi::SQLITE_OK && now != 0
    }

    /// Whether a transaction is open.
    pub(crate) fn in_transaction(&self) -> bool {
        !self.inner.is_autocommit()
    }

    /// Commits. Whatever happens, no transaction is open afterwards.
    pub(crate) fn commit(&mut self) -> Result<(), CommitError> {
        if !self.in_transaction() {
            let message = "the transaction was ended by an earlier error, so there is nothing to commit";
            return Err(Error::new(ErrorKind::Statement, message).into());
        }
        let statement = self.statement("COMMIT")?;
        let deadline = Instant::now() + self.busy_timeout;
        loop {
            let Err(failure) = statement.run().finish() else { return Ok(()) };
            if failure.primary() == ffi::SQLITE_BUSY && self.in_transaction() && Instant::now() < deadline {
                std::thread::sleep(Duration::from_millis(1));
                continue;
            }
            return Err(self.commit_failed(failure));
        }
    }

    fn commit_failed(&mut self, failure: Failure) -> CommitError {
        let unknown = leaves_commit_unknown(&failure);
        let error = if failure.code == ffi::SQLITE_CONSTRAINT_FOREIGNKEY && self.in_transaction() {
            self.deferred_violation(failure)
        } else {
            self.error(failure)
        };
        let error = error.context("the transaction was not committed");
        self.roll_back();
        if unknown { CommitError::Unknown { error, applied: () } } else { CommitError::RolledBack(error) }
    }

    /// Names the first row that a deferred foreign key refuses at COMMIT.
    fn deferred_violation(&mut self, failure: Failure) -> Error {
        let error = self.error(failure);
        let found = self.inner.query_row("PRAGMA foreign_key_check", [], |row| {
            Ok((row.get::<_, String>(0)?, row.get::<_, Option<i64>>(1)?, row.get::<_, String>(2)?))
        });
        let Ok((table, rowid, parent)) = found else { return error };
        let row = rowid.map_or_else(|| "a row".to_owned(), |rowid| format!("the row with rowid {rowid}"));
        error.context(format!("{row} names a row that {parent} doesn't have")).with_table(table)
    }

    /// Rolls back, if a transaction is open.
    pub(crate) fn roll_back(&mut self) {
        if self.in_transaction()
            && let Err(error) = self.run("ROLLBACK")
        {
            // SQLite's own ROLLBACK fails only where it was rolled back already.
            tracing::error!(%error, database = %self.name, "rolling back failed");
        }
    }
}

/// A batch as statements read it.
pub(crate) fn bind(batch: &RecordBatch, affinity: impl Fn(usize) -> Affinity) -> Result<Rc<BoundBatch>> {
    bound(batch, affinity).map(Rc::new)
}

/// A batch of keys to look up, which may be read in any order.
pub(crate) fn bind_keys(batch: &RecordBatch, affinity: impl Fn(usize) -> Affinity) -> Result<Rc<BoundBatch>> {
    let only_column = batch.num_columns() == 1;
    let bound = bound(batch, affinity)?;
    Ok(Rc::new(if only_column { bound.sorted_by(0) } else { bound }))
}

fn bound(batch: &RecordBatch, affinity: impl Fn(usize) -> Affinity) -> Result<BoundBatch> {
    let fields = batch.schema_ref().fields().iter().zip(batch.columns()).enumerate();
    let columns = fields.map(|(index, (field, array))| Cells::new(field, array, affinity(index)));
    Ok(BoundBatch::new(columns.collect::<Result<Vec<_>>>()?, batch.num_rows()))
}

/// A statement's text for a message.
fn shortened(sql: &str) -> String {
    const CHARACTERS_MAX: usize = 200;
    match sql.char_indices().nth(CHARACTERS_MAX) {
        Some((end, _)) => format!("{}…", &sql[..end]),
        None => sql.to_owned(),
    }
}
