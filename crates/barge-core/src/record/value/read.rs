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
    if !T::NULLABLE
        && let Some(row) = first_null(array)
    {
        return Err(invalid("the value is NULL: read the column as an Option")
            .with_column(name)
            .with_row(row as u64));
    }
    T::bind(array).map_err(|error| error.with_column(name))
}

fn first_null(array: &ArrayRef) -> Option<usize> {
    let nulls = array.logical_nulls()?;
    (0..nulls.len()).find(|&row| nulls.is_null(row))
}

/// The field of `T`'s column under a name, with no options.
pub fn column_field<T: super::ColumnType>(name: &str) -> FieldRef {
    std::sync::Arc::new(super::field::<T>(name, super::ColumnOptions::default()))
}

/// The array as another type; an error that names the row where a value does not survive.
pub(super) fn cast(array: &ArrayRef, data_type: &DataType) -> Result<ArrayRef> {
    if array.data_type() == data_type {
        return Ok(array.clone());
    }
    // Arrow parses text in the zone "UTC" only with its time zone tables; the offset means the same.
    if let (DataType::Utf8, DataType::Timestamp(unit, Some(zone))) = (array.data_type(), data_type)
        && zone.as_ref() == "UTC"
    {
        let times = cast(array, &DataType::Timestamp(*unit, Some("+00:00".into())))?;
        return cast(&cast(&times, &DataType::Int64)?, data_type);
    }
    let strict = CastOptions { safe: false, ..CastOptions::default() };
    // Without `strict`, what doesn't survive becomes NULL: the way to find it.
    let lenient = CastOptions { safe: true, ..CastOptions::default() };
    let cast = match cast_with_options(array, data_type, &strict) {
        Ok(cast) => cast,
        Err(error) => {
            let message = format!("{} can't be read as {data_type}: {error}", array.data_type());
            let cast = cast_with_options(array, data_type, &lenient).ok();
            let row =
                cast.and_then(|cast| (0..array.len()).find(|&row| cast.is_null(row) && !array.is_null(row)));
            return Err(match row {
                Some(row) => invalid(message).with_row(row as u64),
                None => invalid(message),
            });
        }
    };
    if may_round(array.data_type(), data_type) {
        let back = cast_with_options(&cast, array.data_type(), &lenient)?;
        if back.as_ref() != array.as_ref() {
            let row = (0..array.len()).find(|&row| array.slice(row, 1) != back.slice(row, 1)).unwrap_or(0);
            let message = format!("a {} can't be read as {data_type} without loss", array.data_type());
            return Err(invalid(message).with_row(row as u64));
        }
    }
    Ok(cast)
}

/// Whether Arrow's cast between the types may round instead of failing.
fn may_round(from: &DataType, to: &DataType) -> bool {
    let measured = |data_type: &DataType| data_type.is_numeric() || data_type.is_temporal();
    measured(from) && (measured(to) || to == &DataType::Boolean) && !(from.is_integer() && to.is_integer())
}
