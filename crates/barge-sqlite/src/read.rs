//! Result rows as Arrow arrays: cells go from SQLite's row straight into builders.
//!
//! A column's type is the one wanted; else the one its declared type says; else, for an expression, the one its first
//! values have. Everything Barge writes reads back equal, and what others wrote is read where it means the same: numbers
//! written as text, whole reals as integers, times in the forms that SQLite's functions take. What doesn't fit is an `InvalidValue`
//! that names column and row, never a NULL.

mod column;
mod convert;
mod json;

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray, RecordBatch, RecordBatchOptions};
use arrow::datatypes::{Field, FieldRef, Int64Type, Schema, SchemaRef};
use barge_core::store::Query;
use barge_core::{Error, ErrorKind, Result};
use libsqlite3_sys as ffi;

use crate::affinity::Affinity;
use crate::connection::{Connection, bind};
use crate::describe::read_as;
use crate::statement::{Failure, Statement};

use column::ColumnReader;

/// Rows in a batch of a stream.
pub(crate) const BATCH_ROWS: usize = 4_096;
/// Bytes of text and blobs at which a batch of a stream is full, whatever its rows: huge values must not add up.
const BATCH_BYTES: usize = 4 << 20;

/// Turns result rows into record batches of one schema.
pub(crate) struct Reader {
    columns: Vec<ColumnReader>,
    schema: Option<SchemaRef>,
    /// Whether the first column says which key a row is of: then errors name the key.
    by_key: bool,
    rows_before: u64,
    rows: usize,
    /// Bytes of text and blobs in these rows.
    bytes: usize,
}

impl Reader {
    /// A reader for a statement's result; `wanted` gives types by column name.
    pub(crate) fn new(statement: &Statement, wanted: Option<&Schema>) -> Result<Self> {
        let columns = (0..statement.columns()).map(|index| {
            let name = statement.column_name(index);
            let field = wanted.and_then(|schema| schema.field_with_name(&name).ok());
            match field {
                Some(field) => ColumnReader::new(Arc::new(field.clone().with_nullable(true))),
                None => match statement.declared_type(index) {
                    Some(declared) => ColumnReader::new(Arc::new(Field::new(name, read_as(&declared), true))),
                    None => Ok(ColumnReader::undecided(name)),
                },
            }
        });
        Ok(Reader {
            columns: columns.collect::<Result<_>>()?,
            schema: None,
            by_key: false,
            rows_before: 0,
            rows: 0,
            bytes: 0,
        })
    }

    /// A reader for a look-up's columns, of known types: the place of the key and what is wanted of its rows.
    pub(crate) fn by_key(fields: impl Iterator<Item = FieldRef>, rows: usize) -> Result<Self> {
        let mut columns = fields.map(ColumnReader::new).collect::<Result<Vec<_>>>()?;
        columns.iter_mut().for_each(|column| column.reserve(rows));
        Ok(Reader { columns, schema: None, by_key: true, rows_before: 0, rows: 0, bytes: 0 })
    }

    /// Reads rows until the batch is full or the result ends; whether there may be more. Without a limit of rows there is none of bytes:
    /// the result is wanted whole.
    pub(crate) fn read(
        &mut self,
        run: &mut crate::statement::Run<'_>,
        rows_max: usize,
        failed: impl Fn(Failure) -> Error,
    ) -> Result<bool> {
        let bytes_max = if rows_max == usize::MAX { usize::MAX } else { BATCH_BYTES };
        while self.rows < rows_max && self.bytes < bytes_max {
            let Some(row) = run.next().map_err(&failed)? else { return Ok(false) };
            for (index, column) in self.columns.iter_mut().enumerate() {
                let value = row.value(index);
                self.bytes += value.bytes();
                if let Err(message) = column.append(value) {
                    let place = match self.by_key {
                        true => row.integer(0) as u64,
                        false => self.rows_before + self.rows as u64,
                    };
                    let error = Error::new(ErrorKind::InvalidValue, message);
                    return Err(error.with_column(column.name()).with_row(place));
                }
            }
            self.rows += 1;
        }
        Ok(true)
    }

    /// Whether rows were read that no batch took.
    pub(crate) fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// The rows read so far as a batch.
    pub(crate) fn take(&mut self) -> Result<RecordBatch> {
        let mut arrays: Vec<ArrayRef> = Vec::with_capacity(self.columns.len());
        for column in &mut self.columns {
            let array = column.finish().map_err(|error| match (error.row(), arrays.first()) {
                (Some(row), Some(keys)) if self.by_key => {
                    error.with_row(keys.as_primitive::<Int64Type>().value(row as usize) as u64)
                }
                (Some(row), _) => error.with_row(self.rows_before + row),
                (None, _) => error,
            })?;
            arrays.push(array);
        }
        let schema = self.schema.get_or_insert_with(|| {
            Arc::new(Schema::new(self.columns.iter().map(ColumnReader::field).collect::<Vec<_>>()))
        });
        let options = RecordBatchOptions::new().with_row_count(Some(self.rows));
        let batch = RecordBatch::try_new_with_options(Arc::clone(schema), arrays, &options)?;
        self.rows_before += self.rows as u64;
        (self.rows, self.bytes) = (0, 0);
        Ok(batch)
    }
}

impl Connection {
    /// Runs a statement, over a batch where there is one, and collects its rows.
    pub(crate) fn over(&mut self, query: &Query) -> Result<RecordBatch> {
        let sql = self.over_batch(&query.sql, query.batch.as_ref())?;
        let statement = self.statement(&sql)?;
        let mut reader = Reader::new(&statement, query.schema.as_deref())?;
        let batch = query.batch.as_ref().map(|batch| bind(batch, |_| Affinity::Blob)).transpose()?;
        let mut run = match &batch {
            Some(batch) => statement.run_over(batch),
            None => statement.run(),
        };
        reader.read(&mut run, usize::MAX, |failure| self.error(failure))?;
        drop(run);
        reader.take()
    }

    /// Prepares a statement that only reads, and its reader.
    pub(crate) fn prepare_query(&mut self, query: &Query) -> Result<(std::rc::Rc<Statement>, Reader)> {
        let sql = self.over_batch(&query.sql, query.batch.as_ref())?;
        let statement = self.statement(&sql)?;
        let refused = |message: &str| Err(Error::new(ErrorKind::Statement, message));
        if !statement.is_read_only() {
            return refused("a query may only read: write in a transaction");
        }
        if statement.columns() == 0 {
            return refused("the statement returns no rows: run it in a transaction");
        }
        let reader = Reader::new(&statement, query.schema.as_deref())?;
        Ok((statement, reader))
    }

    /// Numbers keys so that equal ones, by the collations of the target's columns, have one number.
    pub(crate) fn key_groups(
        &mut self,
        collations: &[Option<String>],
        keys: &RecordBatch,
    ) -> Result<Vec<u32>> {
        let table = self.batch_table(keys.num_columns())?;
        let order =
            (0..keys.num_columns()).map(|index| match collations.get(index).and_then(Option::as_ref) {
                Some(collation) => format!("c{index} COLLATE {}", barge_core::record::quote(collation)),
                None => format!("c{index}"),
            });
        let order = order.collect::<Vec<_>>().join(", ");
        let sql = format!("SELECT _ordinal, dense_rank() OVER (ORDER BY {order}) FROM {table}(?1)");
        let statement = self.statement(&sql)?;
        let batch = bind(keys, |_| Affinity::Blob)?;
        let mut groups = vec![0; keys.num_rows()];
        let mut run = statement.run_over(&batch);
        while let Some(row) = run.next().map_err(|failure| self.error(failure))? {
            let place = usize::try_from(row.integer(0)).ok().and_then(|place| groups.get_mut(place));
            if let (Some(place), Ok(group)) = (place, u32::try_from(row.integer(1) - 1)) {
                *place = group;
            }
        }
        Ok(groups)
    }

    /// Runs one statement and returns the number of rows it changed.
    pub(crate) fn execute(&mut self, sql: &str) -> Result<u64> {
        let total = |connection: &Self| {
            // SAFETY: the connection is open.
            unsafe { ffi::sqlite3_total_changes64(connection.raw()) }
        };
        let statement = self.prepare(sql)?;
        let before = total(self);
        statement.run().finish().map_err(|failure| self.error(failure))?;
        // The number of changes is the last writing statement's, which need not be this one.
        Ok(if total(self) == before { 0 } else { self.changes() })
    }
}
