//! What the derives' code calls: the parts that are the same for every row type, kept out of the code they write.

use std::sync::Arc;

use arrow::datatypes::{Field, Schema, SchemaRef};
use chrono::{DateTime, NaiveDateTime, Utc};

use super::value::{ColumnBuilder, ColumnOptions, ToColumn, invalid};
use super::{Column, Record, Table, TableName};
use crate::Error;

/// A type that `created_at` and `updated_at` can fill in.
#[diagnostic::on_unimplemented(
    message = "a `created_at` or `updated_at` field can't be `{Self}`",
    label = "not a time that can be filled in",
    note = "make it `Option<DateTime<Utc>>` or `Option<NaiveDateTime>`: where it is None, the time of writing is filled in"
)]
pub trait FilledTime {}

impl FilledTime for Option<DateTime<Utc>> {}
impl FilledTime for Option<NaiveDateTime> {}

/// A type that a generated key can have.
#[diagnostic::on_unimplemented(
    message = "a generated key can't be `{Self}`",
    label = "not an Option",
    note = "make it an Option, for example `Option<i64>`: where it is None, the database draws the key"
)]
pub trait GeneratedKey {}

impl<T: ToColumn> GeneratedKey for Option<T> {}

/// Compiles for fields that `created_at` and `updated_at` can fill in.
pub fn assert_filled_time<T: FilledTime>() {}

/// Compiles for fields that can be a generated key.
pub fn assert_generated_key<T: GeneratedKey>() {}

/// An empty builder for a field's column.
pub fn builder<T: ToColumn + ?Sized>(options: ColumnOptions, rows: usize) -> T::Builder {
    T::Builder::with_capacity(&T::data_type(options), rows)
}

/// The table of a record.
pub fn table(name: TableName, columns: Vec<Column>) -> Table {
    match Table::new(name, columns) {
        Ok(table) => table,
        Err(error) => unreachable!("the derive checks what a table's columns must be: {error}"),
    }
}

/// The schema of a row that is read.
pub fn schema(fields: Vec<Field>) -> SchemaRef {
    Arc::new(Schema::new(fields))
}

/// A value that its column can't hold.
#[cold]
pub fn refused<R: Record>(error: Error, column: &str) -> Error {
    error.with_table(R::table().name().to_string()).with_column(column)
}

/// A value that its field can't hold.
#[cold]
pub fn unreadable(error: Error, column: &str, row: usize) -> Error {
    error.with_column(column).with_row(row as u64)
}

/// A text that stands for no variant.
#[cold]
pub fn unknown_text(text: &str, known: &str) -> Error {
    invalid(format!("'{text}' is none of the texts {known}"))
}
