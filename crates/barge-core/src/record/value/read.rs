//! From arrays to values: finding a column, checking its NULLs, casting it without loss.

use arrow::array::{Array, ArrayRef, RecordBatch};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, FieldRef};

use super::{FromColumn, invalid};
use crate::{Error, ErrorKind, Result};

/// Finds a column by name and binds it for reading as `T`. The derive of `FromRow` calls it for each field.
///
/// # Errors
/// `MissingColumn`; `InvalidValue` where a NULL stands in a column read as something other than an `Option`.
pub fn bind<T: FromColumn>(batch: &RecordBatch, name: &str) -> Result<T::Array> {
    let array = batch.column_by_name(name).ok_or_else(|| {
        let names: Vec<&str> =
            batch.schema_ref().fields().iter().map(|field| field.name().as_str()).collect();
        Error::new(
            ErrorKind::MissingColumn,
            format!("the result has no such column; it has {}", names.join(", ")),
        )
        .with_column(name)
    })?;
    if !T::NULLABLE && array.logical_null_count() > 0 {
        let row = (0..array.len()).find(|&row| array.is_null(row)).unwrap_or(0);
        return Err(invalid("the value is NULL: read the column as an Option")
            .with_column(name)
            .with_row(row as u64));
    }
    T::bind(array).map_err(|error| error.with_column(name))
}

/// The field of `T`'s column under a name, with no options.
pub fn column_field<T: super::ColumnType>(name: &str) -> FieldRef {
    std::sync::Arc::new(super::field::<T>(name, super::ColumnOptions::default()))
}

/// The array as another type; an error where a value does not survive.
pub(super) fn cast(array: &ArrayRef, data_type: &DataType) -> Result<ArrayRef> {
    if array.data_type() == data_type {
        return Ok(array.clone());
    }
    let options = CastOptions { safe: false, ..CastOptions::default() };
    let cast = cast_with_options(array, data_type, &options)
        .map_err(|error| invalid(format!("{} can't be read as {data_type}: {error}", array.data_type())))?;
    if loses(array.data_type(), data_type) {
        let back = cast_with_options(&cast, array.data_type(), &options)?;
        if let Some(row) = (0..array.len()).find(|&row| array.slice(row, 1) != back.slice(row, 1)) {
            return Err(invalid(format!(
                "a {} can't be read as {data_type} without loss",
                array.data_type()
            ))
            .with_row(row as u64));
        }
    }
    Ok(cast)
}

/// Whether Arrow's cast between the types may round instead of failing.
fn loses(from: &DataType, to: &DataType) -> bool {
    let numeric = |data_type: &DataType| data_type.is_numeric();
    numeric(from)
        && numeric(to)
        && (from.is_floating() || to.is_floating() || matches!(from, DataType::Decimal128(..)))
}
