//! How Rust types become columns and come back.
//!
//! [`ColumnType`] says which Arrow type, [`ToColumn`] appends a value, [`FromColumn`] reads one. A value that the Arrow
//! type can't hold is refused by [`ToColumn::check`], which the derive calls for all fields before it appends any: a
//! row is appended whole or not at all.

mod builders;
mod decimals;
mod json;
mod nested;
mod read;
mod scalars;
mod times;

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, RecordBatch, TimestampMicrosecondArray};
use arrow::datatypes::{DataType, Field, TimeUnit};

pub use builders::{ColumnBuilder, DecimalBuilder, JsonBuilder, TextBuilder};
pub use decimals::DecimalArray;
pub use nested::{FixedListBuilder, ListBuilder, ListElement};
pub use read::{bind, column_field};

use crate::record::{Role, Table};
use crate::{Error, ErrorKind, Result};

/// The metadata key under which Arrow keeps an extension type's name.
const EXTENSION_TYPE_NAME: &str = "ARROW:extension:name";

/// What the field's attributes add to its Rust type.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ColumnOptions {
    /// Precision and scale, from `#[record(decimal(p, s))]`.
    pub decimal: Option<(u8, i8)>,
}

/// The column type of a Rust type.
#[diagnostic::on_unimplemented(
    message = "`{Self}` can't be a column",
    label = "no column type",
    note = "columns are integers up to 64 bits, floats, bool, text, bytes, chrono's dates and times, Uuid, Decimal, JSON, lists of \
            those and Options; see docs/types.md",
    note = "an enum without fields becomes text with `#[derive(TextEnum)]`, and `#[record(skip)]` leaves a field out"
)]
pub trait ColumnType {
    /// Whether the column can hold NULL.
    const NULLABLE: bool = false;
    /// The Arrow extension type's name, for example `arrow.uuid`.
    const EXTENSION: Option<&'static str> = None;
    /// Whether it is a decimal, or holds them, so that [`ColumnOptions::decimal`] says something.
    const DECIMAL: bool = false;

    /// The Arrow type.
    fn data_type(options: ColumnOptions) -> DataType;
}

/// A value that can be written.
#[diagnostic::on_unimplemented(
    message = "`{Self}` can't be written to a column",
    label = "no column type",
    note = "columns are integers up to 64 bits, floats, bool, text, bytes, chrono's dates and times, Uuid, Decimal, JSON, lists of \
            those and Options; see docs/types.md",
    note = "an enum without fields becomes text with `#[derive(TextEnum)]`, and `#[record(skip)]` leaves a field out"
)]
pub trait ToColumn: ColumnType {
    /// Gathers the column's values. The same for a borrowed and an owned type.
    type Builder: ColumnBuilder;

    /// Whether the column can hold this value.
    ///
    /// # Errors
    /// `InvalidValue`, saying the value and what was expected.
    #[inline]
    fn check(&self, _builder: &Self::Builder) -> Result<()> {
        Ok(())
    }

    /// Appends the value, which [`check`](ToColumn::check) has passed, and returns its size in bytes.
    fn append(&self, builder: &mut Self::Builder) -> usize;
}

/// A value that can be read.
#[diagnostic::on_unimplemented(
    message = "`{Self}` can't be read from a column",
    label = "not a type that is read",
    note = "a row that is read owns its values: String instead of &str, Vec<u8> instead of &[u8]; see docs/types.md",
    note = "an enum without fields is read from text with `#[derive(TextEnum)]`, and `#[record(skip)]` leaves a field out"
)]
pub trait FromColumn: ColumnType + Sized {
    /// The typed array it is read from.
    type Array;

    /// Takes the array as the type this value is read from. `array` has the type that [`ColumnType::data_type`] says, or
    /// another that casts to it without loss.
    ///
    /// # Errors
    /// `InvalidValue` where a value doesn't survive the cast.
    fn bind(array: &ArrayRef) -> Result<Self::Array>;

    /// Reads one row, which isn't NULL unless the type is an `Option`.
    ///
    /// # Errors
    /// `InvalidValue` where the type can't hold the value.
    fn get(array: &Self::Array, row: usize) -> Result<Self>;
}

impl<T: ColumnType> ColumnType for Option<T> {
    const NULLABLE: bool = {
        assert!(!T::NULLABLE, "an Option of an Option can't be stored: NULL is the only None there is");
        true
    };
    const EXTENSION: Option<&'static str> = T::EXTENSION;
    const DECIMAL: bool = T::DECIMAL;

    fn data_type(options: ColumnOptions) -> DataType {
        T::data_type(options)
    }
}

impl<T: ToColumn> ToColumn for Option<T> {
    type Builder = T::Builder;

    #[inline]
    fn check(&self, builder: &Self::Builder) -> Result<()> {
        self.as_ref().map_or(Ok(()), |value| value.check(builder))
    }

    #[inline]
    fn append(&self, builder: &mut Self::Builder) -> usize {
        match self {
            Some(value) => value.append(builder),
            None => {
                builder.append_null();
                1
            }
        }
    }
}

impl<T: FromColumn> FromColumn for Option<T> {
    type Array = (Option<arrow::buffer::NullBuffer>, T::Array);

    fn bind(array: &ArrayRef) -> Result<Self::Array> {
        Ok((array.logical_nulls(), T::bind(array)?))
    }

    #[inline]
    fn get((nulls, values): &Self::Array, row: usize) -> Result<Self> {
        match nulls {
            Some(nulls) if nulls.is_null(row) => Ok(None),
            _ => T::get(values, row).map(Some),
        }
    }
}

impl<T: ColumnType + ?Sized> ColumnType for &T {
    const NULLABLE: bool = T::NULLABLE;
    const EXTENSION: Option<&'static str> = T::EXTENSION;
    const DECIMAL: bool = T::DECIMAL;

    fn data_type(options: ColumnOptions) -> DataType {
        T::data_type(options)
    }
}

impl<T: ToColumn + ?Sized> ToColumn for &T {
    type Builder = T::Builder;

    #[inline]
    fn check(&self, builder: &Self::Builder) -> Result<()> {
        (**self).check(builder)
    }

    #[inline]
    fn append(&self, builder: &mut Self::Builder) -> usize {
        (**self).append(builder)
    }
}

/// The field of a column of type `T`.
pub fn field<T: ColumnType + ?Sized>(name: &str, options: ColumnOptions) -> Field {
    let field = Field::new(name, T::data_type(options), T::NULLABLE);
    match T::EXTENSION {
        Some(extension) => {
            let key = EXTENSION_TYPE_NAME.to_owned();
            field.with_metadata(HashMap::from([(key, extension.to_owned())]))
        }
        None => field,
    }
}

pub(crate) fn invalid(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidValue, message)
}

/// Fills `created_at` and `updated_at` columns with the present time where they are NULL: one time for a whole batch, so
/// that a row costs no reading of the clock.
pub(crate) fn fill_times(table: &Table, batch: RecordBatch) -> Result<RecordBatch> {
    let fills = |role| matches!(role, Role::CreatedAt | Role::UpdatedAt);
    if !table.columns().iter().any(|column| fills(column.role)) {
        return Ok(batch);
    }
    let now = chrono::Utc::now().timestamp_micros();
    let columns = table.columns().iter().zip(batch.columns()).map(|(column, array)| {
        if fills(column.role) && array.null_count() > 0 { fill(array, now) } else { Ok(Arc::clone(array)) }
    });
    let columns = columns.collect::<Result<Vec<_>>>()?;
    Ok(RecordBatch::try_new(batch.schema(), columns)?)
}

fn fill(array: &ArrayRef, now: i64) -> Result<ArrayRef> {
    let DataType::Timestamp(TimeUnit::Microsecond, timezone) = array.data_type() else {
        return Err(Error::new(ErrorKind::InvalidConfig, "created_at and updated_at must be timestamps"));
    };
    let array = array.as_any().downcast_ref::<TimestampMicrosecondArray>().ok_or_else(|| {
        Error::new(ErrorKind::InvalidConfig, "created_at and updated_at must be timestamps")
    })?;
    let filled: TimestampMicrosecondArray = array.iter().map(|value| Some(value.unwrap_or(now))).collect();
    Ok(Arc::new(filled.with_timezone_opt(timezone.clone())))
}
