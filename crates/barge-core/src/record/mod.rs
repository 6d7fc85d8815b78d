//! What a row is: [`Record`] writes one into columns, [`FromRow`] reads one back, [`Table`] says where it lives.
//!
//! A record never exists as a value of its own between the application and the store: its fields are appended to Arrow
//! builders, one a column, and the store reads the finished arrays. The derives write the code; the traits in
//! [`value`] say how each Rust type becomes a column.

pub(crate) mod derived;
pub(crate) mod json;
mod key;
mod table;
pub mod value;

use std::any::Any;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::datatypes::SchemaRef;

pub use json::{row_to_json, value_to_json};
pub use key::{Key, Keys, OwnedKey};
pub(crate) use key::{key_batch, keys_as};
pub use table::{Column, Role, Table, TableName, is_json, is_uuid, quote};

use crate::Result;

/// A row that can be written: a struct whose fields are columns of one table.
///
/// Derive it. Fields may be borrowed (`&str`, `&[u8]`), and a record may hold fewer columns than the table has.
///
/// ```
/// # extern crate barge_core as barge;
/// use barge_core::Record;
///
/// #[derive(Record)]
/// #[record(table = "tasks")]
/// struct TaskDone<'a> {
///     #[record(key)]
///     id: i64,
///     status: &'a str,
/// }
///
/// assert_eq!(TaskDone::table().name().to_string(), "tasks");
/// assert_eq!(TaskDone::table().key(), [0]);
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a record",
    label = "a row to write must be a `Record`",
    note = "derive it on the struct: `#[derive(Record)]` with `#[record(table = \"…\")]`"
)]
pub trait Record {
    /// The builders of its columns. Rows of one type with one operation gather in one of them.
    type Columns: Columns;

    /// The table it belongs to, with this record's columns.
    fn table() -> &'static Table;

    /// Appends the row to its columns and returns its size in bytes.
    ///
    /// # Errors
    /// `InvalidValue` where a field's value does not fit its column's type; then nothing was appended.
    fn append(&self, columns: &mut Self::Columns) -> Result<usize>;
}

impl<R: Record> Record for &R {
    type Columns = R::Columns;

    fn table() -> &'static Table {
        R::table()
    }

    #[inline]
    fn append(&self, columns: &mut Self::Columns) -> Result<usize> {
        (**self).append(columns)
    }
}

/// The builders of a record type's columns.
pub trait Columns: Any + Send {
    /// Empty builders with room for `rows` rows.
    fn with_capacity(rows: usize) -> Self
    where
        Self: Sized;

    /// Takes the columns built so far, leaving the builders empty. Columns that fill themselves (`created_at`) hold
    /// NULL where the record did, and are filled when the batch is sealed.
    fn finish(&mut self) -> Vec<ArrayRef>;
}

/// A row that can be read: a struct whose fields are columns of a result.
///
/// Derive it. Columns are found by name, so their order doesn't matter and there may be more of them.
///
/// ```
/// # extern crate barge_core as barge;
/// use barge_core::FromRow;
///
/// #[derive(FromRow)]
/// struct Total {
///     account: String,
///     amount: Option<i64>,
/// }
/// # fn rows(batch: &arrow::array::RecordBatch) -> barge_core::Result<Vec<Total>> {
/// Total::from_batch(batch)
/// # }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` can't be read from a row",
    label = "a row to read must be `FromRow`",
    note = "derive it on the struct: `#[derive(FromRow)]`"
)]
pub trait FromRow: Sized {
    /// The columns it reads, with the types it would like to have them in.
    fn schema() -> SchemaRef;

    /// Reads every row of a batch, in order.
    ///
    /// # Errors
    /// `MissingColumn` where the batch lacks a column; `InvalidValue` where a value doesn't fit the field's type, or is
    /// NULL and the field isn't an `Option`. The error names column and row.
    fn from_batch(batch: &RecordBatch) -> Result<Vec<Self>>;
}

/// The columns built so far as one record batch, with `created_at` and `updated_at` columns filled with `now` where they
/// are NULL.
pub(crate) fn finish_batch(
    columns: &mut dyn ErasedColumns,
    table: &Table,
    rows: usize,
) -> Result<RecordBatch> {
    let arrays = columns.finish_columns();
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    let batch = RecordBatch::try_new_with_options(table.schema().clone(), arrays, &options)?;
    value::fill_times(table, batch)
}

/// [`Columns`] whose type is known only at run time.
pub(crate) trait ErasedColumns: Send {
    fn finish_columns(&mut self) -> Vec<ArrayRef>;
    fn as_any(&mut self) -> &mut dyn Any;
}

impl<C: Columns> ErasedColumns for C {
    fn finish_columns(&mut self) -> Vec<ArrayRef> {
        self.finish()
    }

    fn as_any(&mut self) -> &mut dyn Any {
        self
    }
}

/// A record batch of records of one type. The batch holds at most as many rows as given.
///
/// # Errors
/// As [`Record::append`]; the error names the row by its place among `records`.
pub fn batch_of<R: Record>(records: &[R]) -> Result<RecordBatch> {
    let mut columns = R::Columns::with_capacity(records.len());
    for (row, record) in records.iter().enumerate() {
        record.append(&mut columns).map_err(|error| error.with_row(row as u64))?;
    }
    finish_batch(&mut columns, R::table(), records.len())
}
