//! One value of an Arrow array.

use std::borrow::Cow;

use arrow::array::*;
use arrow::datatypes::*;
use barge_core::record::is_uuid;

use super::number::{digits_text, scaled_text};
use super::text::{DATES, TIMESTAMPS};
use super::value::Value;

/// Milliseconds in a day.
const DAY_MILLIS: i64 = 86_400_000;

/// The value at a row that isn't NULL. Times become microseconds.
///
/// # Errors
/// What is wrong with a value that has no other form: a finer time than microseconds, a time before the year 1 or after 9999.
pub(super) fn value_at<'a>(array: &'a dyn Array, field: &Field, row: usize) -> Result<Value<'a>, String> {
    macro_rules! int {
        ($arrow:ty) => {
            Value::Int(array.as_primitive::<$arrow>().value(row).into())
        };
    }
    Ok(match array.data_type() {
        DataType::Boolean => Value::Bool(array.as_boolean().value(row)),
        DataType::Int8 => int!(Int8Type),
        DataType::Int16 => int!(Int16Type),
        DataType::Int32 => int!(Int32Type),
        DataType::Int64 => int!(Int64Type),
        DataType::UInt8 => int!(UInt8Type),
        DataType::UInt16 => int!(UInt16Type),
        DataType::UInt32 => int!(UInt32Type),
        DataType::UInt64 => int!(UInt64Type),
        DataType::Float32 => Value::Single(array.as_primitive::<Float32Type>().value(row)),
        DataType::Float64 => Value::Double(array.as_primitive::<Float64Type>().value(row)),
        DataType::Utf8 => text(array.as_string::<i32>().value(row)),
        DataType::LargeUtf8 => text(array.as_string::<i64>().value(row)),
        DataType::Utf8View => text(array.as_string_view().value(row)),
        DataType::Binary => bytes(array.as_binary::<i32>().value(row)),
        DataType::LargeBinary => bytes(array.as_binary::<i64>().value(row)),
        DataType::BinaryView => bytes(array.as_binary_view().value(row)),
        DataType::FixedSizeBinary(_) => {
            let value = array.as_fixed_size_binary().value(row);
            match value.try_into() {
                Ok(uuid) if is_uuid(field) => Value::Uuid(uuid),
                _ => bytes(value),
            }
        }
        DataType::Decimal32(..)
        | DataType::Decimal64(..)
        | DataType::Decimal128(..)
        | DataType::Decimal256(..) => Value::Number(decimal(array, row).into()),
        DataType::Date32 => date(array.as_primitive::<Date32Type>().value(row).into())?,
        DataType::Date64 => {
            let millis = array.as_primitive::<Date64Type>().value(row);
            if millis % DAY_MILLIS != 0 {
                return Err(format!("{millis} ms from 1970-01-01 is no whole day"));
            }
            date(millis / DAY_MILLIS)?
        }
        DataType::Time32(unit) => time(array, *unit, row)?,
        DataType::Time64(unit) => time(array, *unit, row)?,
        DataType::Timestamp(unit, timezone) => {
            let micros = micros(timestamp(array, *unit, row), *unit)?;
            Value::Timestamp { micros, utc: timezone.is_some() }
        }
        other => return Err(format!("a value of type {other} has no other form")),
    })
}

fn text(text: &str) -> Value<'_> {
    Value::Text(Cow::Borrowed(text))
}

fn bytes(bytes: &[u8]) -> Value<'_> {
    Value::Bytes(Cow::Borrowed(bytes))
}

fn decimal(array: &dyn Array, row: usize) -> String {
    match array.data_type() {
        DataType::Decimal32(_, scale) => {
            scaled_text(array.as_primitive::<Decimal32Type>().value(row).into(), (*scale).into())
        }
        DataType::Decimal64(_, scale) => {
            scaled_text(array.as_primitive::<Decimal64Type>().value(row).into(), (*scale).into())
        }
        DataType::Decimal256(_, scale) => {
            let value = array.as_primitive::<Decimal256Type>().value(row).to_string();
            let digits = value.strip_prefix('-').unwrap_or(&value);
            digits_text(digits.len() < value.len(), digits.to_owned(), (*scale).into())
        }
        _ => {
            let decimals = array.as_primitive::<Decimal128Type>();
            scaled_text(decimals.value(row), decimals.scale().into())
        }
    }
}

fn date(days: i64) -> Result<Value<'static>, String> {
    match i32::try_from(days).ok().filter(|days| DATES.contains(days)) {
        Some(days) => Ok(Value::Date(days)),
        None => Err(format!("{days} days from 1970-01-01 is outside the years 1 to 9999")),
    }
}

fn time(array: &dyn Array, unit: TimeUnit, row: usize) -> Result<Value<'_>, String> {
    let value = match unit {
        TimeUnit::Second => array.as_primitive::<Time32SecondType>().value(row).into(),
        TimeUnit::Millisecond => array.as_primitive::<Time32MillisecondType>().value(row).into(),
        TimeUnit::Microsecond => array.as_primitive::<Time64MicrosecondType>().value(row),
        TimeUnit::Nanosecond => array.as_primitive::<Time64NanosecondType>().value(row),
    };
    in_micros(value, unit).map(Value::Time)
}

fn timestamp(array: &dyn Array, unit: TimeUnit, row: usize) -> i64 {
    match unit {
        TimeUnit::Second => array.as_primitive::<TimestampSecondType>().value(row),
        TimeUnit::Millisecond => array.as_primitive::<TimestampMillisecondType>().value(row),
        TimeUnit::Microsecond => array.as_primitive::<TimestampMicrosecondType>().value(row),
        TimeUnit::Nanosecond => array.as_primitive::<TimestampNanosecondType>().value(row),
    }
}

/// A timestamp of a unit in microseconds.
pub(super) fn micros(value: i64, unit: TimeUnit) -> Result<i64, String> {
    let micros = in_micros(value, unit)?;
    if TIMESTAMPS.contains(&micros) {
        return Ok(micros);
    }
    Err(format!("{micros} µs from 1970 is outside the years 1 to 9999"))
}

fn in_micros(value: i64, unit: TimeUnit) -> Result<i64, String> {
    let times = |factor| {
        value
            .checked_mul(factor)
            .ok_or_else(|| format!("{value} {} is beyond what microseconds count", shown(unit)))
    };
    match unit {
        TimeUnit::Second => times(1_000_000),
        TimeUnit::Millisecond => times(1_000),
        TimeUnit::Microsecond => Ok(value),
        TimeUnit::Nanosecond if value % 1_000 == 0 => Ok(value / 1_000),
        TimeUnit::Nanosecond => Err(format!("{value} ns is finer than microseconds")),
    }
}

fn shown(unit: TimeUnit) -> &'static str {
    match unit {
        TimeUnit::Second => "s",
        TimeUnit::Millisecond => "ms",
        TimeUnit::Microsecond => "µs",
        TimeUnit::Nanosecond => "ns",
    }
}
