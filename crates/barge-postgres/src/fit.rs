//! Values made to fit a column, or rejected.
//!
//! The server rounds, pads and cuts in silence, so Barge casts itself. An array of the column's own type is only checked for
//! what the column would change; any other is cast as a whole where that loses nothing, or value by value, there and back
//! again: what would come back otherwise than it went is rejected.

mod arrow;
mod check;
mod json;
mod list;
pub(crate) mod number;
pub(crate) mod text;
pub(crate) mod value;

use std::sync::Arc;

use ::arrow::array::*;
use ::arrow::compute::cast;
use ::arrow::datatypes::*;
use barge_core::record::is_json;
use barge_core::{Error, ErrorKind, Result};

use crate::decode::Builder;
use crate::types::{Kind, PgType};
use check::Rejected;
use value::Form;

/// An array made to fit a column.
#[derive(Debug)]
pub(crate) struct Fitted {
    /// The values, in the one Arrow type of the column's kind; a rejected row's may be anything.
    pub(crate) array: ArrayRef,
    /// The rows that the column can't hold equal, each once, in order, and why.
    pub(crate) rejected: Vec<(usize, String)>,
}

/// Makes an array fit a column.
///
/// The result's type is the one the column is best read in, except that text and binary keep their Arrow kind (`LargeUtf8`,
/// `BinaryView`, …), and that a numeric is a `Decimal128` of any scale or the text of plain literals.
///
/// # Errors
/// `Unsupported` where no value of the array's type can be one of the column's.
pub(crate) fn fit(array: &ArrayRef, field: &Field, to: &PgType) -> Result<Fitted> {
    let mut rejected = Rejected::new();
    let (array, field) = unpacked(array, field)?;
    let array = match &to.kind {
        _ if array.data_type().is_null() => new_null_array(&to.arrow_type(), array.len()),
        Kind::Array(element) => list::fit_lists(&array, &field, to, element, &mut rejected)?,
        _ => {
            let fitted = match cast_whole(&array, &to.kind, &mut rejected)? {
                Some(fitted) => fitted,
                None => cast_values(&array, &field, to, &mut rejected)?,
            };
            check::check(fitted, to, is_json(&field), &mut rejected)
        }
    };
    rejected.sort_by_key(|(row, _)| *row);
    rejected.dedup_by_key(|(row, _)| *row);
    Ok(Fitted { array, rejected })
}

/// That two types never meet, and what to do.
fn mismatch(field: &Field, to: &PgType) -> Error {
    let message = format!(
        "values of type {} can't be stored in a column of type {}: change the column's type, or give a type that it holds, {}",
        field.data_type(),
        to.sql,
        to.arrow_type()
    );
    Error::new(ErrorKind::Unsupported, message).with_column(field.name())
}

/// An array without a dictionary or runs; half floats as floats, which hold each of them.
fn unpacked(array: &ArrayRef, field: &Field) -> Result<(ArrayRef, Field)> {
    let plain = match array.data_type() {
        DataType::Dictionary(_, value) => value.as_ref().clone(),
        DataType::RunEndEncoded(_, value) => value.data_type().clone(),
        DataType::Float16 => DataType::Float32,
        plain => return Ok((Arc::clone(array), field.clone().with_data_type(plain.clone()))),
    };
    unpacked(&cast(array, &plain)?, field)
}

/// Casts a whole array at once where that loses nothing, or where what is lost is seen at once.
fn cast_whole(array: &ArrayRef, kind: &Kind, rejected: &mut Rejected) -> Result<Option<ArrayRef>> {
    use DataType::*;
    let same = || Ok(Some(Arc::clone(array)));
    match (kind, array.data_type()) {
        (Kind::Bool, Boolean)
        | (Kind::Int2, Int16)
        | (Kind::Int4, Int32)
        | (Kind::Int8, Int64)
        | (Kind::Float4, Float32)
        | (Kind::Float8, Float64)
        | (Kind::Numeric(_), Decimal128(..))
        | (Kind::Bytea, Binary | LargeBinary | BinaryView | FixedSizeBinary(_))
        | (Kind::Uuid, FixedSizeBinary(16))
        | (Kind::Date, Date32)
        | (Kind::Time(_), Time64(TimeUnit::Microsecond)) => same(),
        (
            Kind::Text
            | Kind::Varchar(_)
            | Kind::Char(_)
            | Kind::Json
            | Kind::Jsonb
            | Kind::Enum
            | Kind::Other,
            Utf8 | LargeUtf8 | Utf8View,
        ) => same(),
        (Kind::Int2, other) if other.is_integer() => narrowed(array, &Int16, kind, rejected),
        (Kind::Int4, other) if other.is_integer() => narrowed(array, &Int32, kind, rejected),
        (Kind::Int8, other) if other.is_integer() => narrowed(array, &Int64, kind, rejected),
        (Kind::Float8, Float32) => Ok(Some(cast(array, &Float64)?)),
        (Kind::Numeric(_), other) if other.is_integer() => Ok(Some(cast(array, &Decimal128(20, 0))?)),
        (Kind::Numeric(_), Decimal32(precision, scale) | Decimal64(precision, scale)) => {
            Ok(Some(cast(array, &Decimal128(*precision, *scale))?))
        }
        (Kind::Timestamp(_), Timestamp(unit, _)) => Ok(Some(timestamps(array, *unit, false, rejected))),
        (Kind::Timestamptz(_), Timestamp(unit, _)) => Ok(Some(timestamps(array, *unit, true, rejected))),
        _ => Ok(None),
    }
}

/// Integers as narrower ones: what doesn't fit becomes NULL in the cast.
fn narrowed(
    array: &ArrayRef,
    narrow: &DataType,
    kind: &Kind,
    rejected: &mut Rejected,
) -> Result<Option<ArrayRef>> {
    let fitted = cast(array, narrow)?;
    if fitted.null_count() > array.null_count() {
        let Some(Form::Int { min, max }) = Form::of_kind(kind) else { return Ok(None) };
        let wide = cast(array, &DataType::Decimal128(20, 0))?;
        let wide = wide.as_primitive::<Decimal128Type>();
        for row in (0..array.len()).filter(|&row| fitted.is_null(row) && array.is_valid(row)) {
            let message = format!("{} is outside the column's range, {min} to {max}", wide.value(row));
            rejected.push((row, message));
        }
    }
    Ok(Some(fitted))
}

/// Timestamps of any unit as microseconds.
fn timestamps(array: &ArrayRef, unit: TimeUnit, utc: bool, rejected: &mut Rejected) -> ArrayRef {
    let timezone = utc.then_some("UTC");
    if let Some(micros) = array.as_primitive_opt::<TimestampMicrosecondType>() {
        let is_same = array.data_type() == &DataType::Timestamp(unit, timezone.map(Into::into));
        return if is_same {
            Arc::clone(array)
        } else {
            Arc::new(micros.clone().with_timezone_opt(timezone))
        };
    }
    let values = match unit {
        TimeUnit::Second => array.as_primitive::<TimestampSecondType>().values(),
        TimeUnit::Millisecond => array.as_primitive::<TimestampMillisecondType>().values(),
        _ => array.as_primitive::<TimestampNanosecondType>().values(),
    };
    let micros = values.iter().enumerate().map(|(row, value)| match arrow::micros(*value, unit) {
        Ok(micros) => micros,
        Err(message) => {
            if array.is_valid(row) {
                rejected.push((row, message));
            }
            0
        }
    });
    let values: Vec<i64> = micros.collect();
    let micros = TimestampMicrosecondArray::new(values.into(), array.nulls().cloned());
    Arc::new(micros.with_timezone_opt(timezone))
}

/// Casts value by value, there and back again.
fn cast_values(array: &ArrayRef, field: &Field, to: &PgType, rejected: &mut Rejected) -> Result<ArrayRef> {
    let forms = Form::of_arrow(field).zip(Form::of_kind(&to.kind));
    let Some((from, into)) = forms.filter(|(from, into)| from.meets(into)) else {
        return Err(mismatch(field, to));
    };
    let data_type = match to.kind {
        Kind::Numeric(_) => DataType::Utf8,
        _ => to.arrow_type(),
    };
    let mut builder = Builder::new(Arc::new(Field::new(field.name(), data_type, true)))?;
    for row in 0..array.len() {
        if array.is_null(row) {
            builder.append_null();
            continue;
        }
        let fitted = arrow::value_at(array, field, row).and_then(|value| {
            let fitted = value.clone().into_form(&into);
            let fitted = fitted.ok_or_else(|| format!("{value} doesn't fit a column of type {}", to.sql))?;
            match fitted.clone().into_form(&from) {
                Some(back) if back == value => Ok(fitted),
                Some(back) => {
                    Err(format!("{value} would come back as {back} from a column of type {}", to.sql))
                }
                None => Err(format!("{value} would not come back from a column of type {}", to.sql)),
            }
        });
        let appended = fitted.and_then(|fitted| {
            builder.append(fitted).ok_or_else(|| "the values of one batch have more than 2 GB".to_owned())
        });
        if let Err(message) = appended {
            rejected.push((row, message));
            builder.append_null();
        }
    }
    builder.finish()
}

#[cfg(test)]
mod tests;
