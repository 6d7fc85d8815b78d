//! The scalar types of the type table in docs/types.md.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, BinaryBuilder, BooleanArray, BooleanBuilder, Decimal128Array,
    FixedSizeBinaryArray, FixedSizeBinaryBuilder, PrimitiveArray, PrimitiveBuilder, StringArray,
};
use arrow::datatypes::*;
use chrono::{DateTime, Datelike, NaiveDate, NaiveDateTime, NaiveTime, Timelike, Utc};
use rust_decimal::Decimal;
use uuid::Uuid;

use super::read::cast;
use super::{
    ColumnOptions, ColumnType, DecimalBuilder, FromColumn, JsonBuilder, TextBuilder, ToColumn, invalid,
};
use crate::{Error, ErrorKind, Result};

macro_rules! primitive {
    ($($rust:ty => $arrow:ident),* $(,)?) => {$(
        impl ColumnType for $rust {
            fn data_type(_: ColumnOptions) -> DataType {
                $arrow::DATA_TYPE
            }
        }

        impl ToColumn for $rust {
            type Builder = PrimitiveBuilder<$arrow>;

            #[inline]
            fn append(&self, builder: &mut Self::Builder) -> usize {
                builder.append_value(*self);
                size_of::<Self>()
            }
        }

        impl FromColumn for $rust {
            type Array = PrimitiveArray<$arrow>;

            fn bind(array: &ArrayRef) -> Result<Self::Array> {
                Ok(cast(array, &$arrow::DATA_TYPE)?.as_primitive().clone())
            }

            #[inline]
            fn get(array: &Self::Array, row: usize) -> Result<Self> {
                Ok(array.value(row))
            }
        }
    )*};
}

primitive! {
    i8 => Int8Type, i16 => Int16Type, i32 => Int32Type, i64 => Int64Type,
    u8 => UInt8Type, u16 => UInt16Type, u32 => UInt32Type, u64 => UInt64Type,
    f32 => Float32Type, f64 => Float64Type,
}

impl ColumnType for bool {
    fn data_type(_: ColumnOptions) -> DataType {
        DataType::Boolean
    }
}

impl ToColumn for bool {
    type Builder = BooleanBuilder;

    #[inline]
    fn append(&self, builder: &mut Self::Builder) -> usize {
        builder.append_value(*self);
        1
    }
}

impl FromColumn for bool {
    type Array = BooleanArray;

    fn bind(array: &ArrayRef) -> Result<Self::Array> {
        Ok(cast(array, &DataType::Boolean)?.as_boolean().clone())
    }

    #[inline]
    fn get(array: &Self::Array, row: usize) -> Result<Self> {
        Ok(array.value(row))
    }
}

/// The bytes an offset takes beside a text's or a blob's own.
const OFFSET_BYTES: usize = size_of::<i32>();

/// Arrow's offsets of text and binary are `i32`: one batch's values of one column together have to stay below 2 GiB.
#[inline]
fn check_room(held: usize, bytes: usize) -> Result<()> {
    if held + bytes <= i32::MAX as usize {
        return Ok(());
    }
    let message =
        format!("the value of {bytes} bytes is too large: one batch's values of a column hold 2 GiB");
    Err(Error::new(ErrorKind::TooLarge, message))
}

impl ColumnType for str {
    fn data_type(_: ColumnOptions) -> DataType {
        DataType::Utf8
    }
}

impl ToColumn for str {
    type Builder = TextBuilder;

    #[inline]
    fn check(&self, builder: &Self::Builder) -> Result<()> {
        check_room(builder.values_slice().len(), self.len())
    }

    #[inline]
    fn append(&self, builder: &mut Self::Builder) -> usize {
        builder.append_value(self);
        self.len() + OFFSET_BYTES
    }
}

impl ColumnType for [u8] {
    fn data_type(_: ColumnOptions) -> DataType {
        DataType::Binary
    }
}

impl ToColumn for [u8] {
    type Builder = BinaryBuilder;

    #[inline]
    fn check(&self, builder: &Self::Builder) -> Result<()> {
        check_room(builder.values_slice().len(), self.len())
    }

    #[inline]
    fn append(&self, builder: &mut Self::Builder) -> usize {
        builder.append_value(self);
        self.len() + OFFSET_BYTES
    }
}

/// Types that are written as what they dereference to.
macro_rules! written_as {
    ($($owned:ty => $borrowed:ty),* $(,)?) => {$(
        impl ColumnType for $owned {
            fn data_type(options: ColumnOptions) -> DataType {
                <$borrowed>::data_type(options)
            }
        }

        impl ToColumn for $owned {
            type Builder = <$borrowed as ToColumn>::Builder;

            #[inline]
            fn check(&self, builder: &Self::Builder) -> Result<()> {
                <$borrowed>::check(self, builder)
            }

            #[inline]
            fn append(&self, builder: &mut Self::Builder) -> usize {
                <$borrowed>::append(self, builder)
            }
        }
    )*};
}

written_as! {
    String => str, Box<str> => str, Arc<str> => str, Cow<'_, str> => str,
    Vec<u8> => [u8], Box<[u8]> => [u8], Arc<[u8]> => [u8], Cow<'_, [u8]> => [u8],
}

macro_rules! read_as {
    ($arrow:expr, $array:ty, $downcast:ident: $($owned:ty),* $(,)?) => {$(
        impl FromColumn for $owned {
            type Array = $array;

            fn bind(array: &ArrayRef) -> Result<Self::Array> {
                Ok(cast(array, &$arrow)?.$downcast().clone())
            }

            #[inline]
            fn get(array: &Self::Array, row: usize) -> Result<Self> {
                Ok(array.value(row).into())
            }
        }
    )*};
}

read_as!(DataType::Utf8, StringArray, as_string: String, Box<str>, Arc<str>);
read_as!(DataType::Binary, BinaryArray, as_binary: Vec<u8>, Box<[u8]>, Arc<[u8]>);

/// Read as owned.
impl FromColumn for Cow<'_, str> {
    type Array = StringArray;

    fn bind(array: &ArrayRef) -> Result<Self::Array> {
        String::bind(array)
    }

    #[inline]
    fn get(array: &Self::Array, row: usize) -> Result<Self> {
        String::get(array, row).map(Cow::Owned)
    }
}

/// Read as owned.
impl FromColumn for Cow<'_, [u8]> {
    type Array = BinaryArray;

    fn bind(array: &ArrayRef) -> Result<Self::Array> {
        Vec::<u8>::bind(array)
    }

    #[inline]
    fn get(array: &Self::Array, row: usize) -> Result<Self> {
        Vec::<u8>::get(array, row).map(Cow::Owned)
    }
}

/// Days from 1970-01-01. Years before 1 and after 9999 are refused.
impl ColumnType for NaiveDate {
    fn data_type(_: ColumnOptions) -> DataType {
        DataType::Date32
    }
}

impl ToColumn for NaiveDate {
    type Builder = PrimitiveBuilder<Date32Type>;

    #[inline]
    fn check(&self, _: &Self::Builder) -> Result<()> {
        check_year(self.year(), self)
    }

    #[inline]
    fn append(&self, builder: &mut Self::Builder) -> usize {
        builder.append_value(Date32Type::from_naive_date(*self));
        4
    }
}

impl FromColumn for NaiveDate {
    type Array = PrimitiveArray<Date32Type>;

    fn bind(array: &ArrayRef) -> Result<Self::Array> {
        Ok(cast(array, &DataType::Date32)?.as_primitive().clone())
    }

    fn get(array: &Self::Array, row: usize) -> Result<Self> {
        array
            .value_as_date(row)
            .ok_or_else(|| invalid(format!("{} days from 1970-01-01 is no date", array.value(row))))
    }
}

/// Microseconds since midnight; nanoseconds are truncated. A leap second is refused.
impl ColumnType for NaiveTime {
    fn data_type(_: ColumnOptions) -> DataType {
        DataType::Time64(TimeUnit::Microsecond)
    }
}

impl ToColumn for NaiveTime {
    type Builder = PrimitiveBuilder<Time64MicrosecondType>;

    #[inline]
    fn check(&self, _: &Self::Builder) -> Result<()> {
        refuse_leap_second(self.nanosecond(), self)
    }

    #[inline]
    fn append(&self, builder: &mut Self::Builder) -> usize {
        let micros =
            i64::from(self.num_seconds_from_midnight()) * 1_000_000 + i64::from(self.nanosecond() / 1_000);
        builder.append_value(micros);
        8
    }
}

impl FromColumn for NaiveTime {
    type Array = PrimitiveArray<Time64MicrosecondType>;

    fn bind(array: &ArrayRef) -> Result<Self::Array> {
        Ok(cast(array, &DataType::Time64(TimeUnit::Microsecond))?.as_primitive().clone())
    }

    fn get(array: &Self::Array, row: usize) -> Result<Self> {
        array.value_as_time(row).ok_or_else(|| invalid(format!("{} µs is no time of day", array.value(row))))
    }
}

/// chrono shows a leap second as a second of more than 10⁹ nanoseconds; no store can hold one.
#[inline]
fn refuse_leap_second(nanosecond: u32, value: &dyn fmt::Display) -> Result<()> {
    if nanosecond < 1_000_000_000 {
        return Ok(());
    }
    Err(invalid(format!("{value} is a leap second, which can't be stored")))
}

/// The years that every store can hold and show in four digits.
#[inline]
fn check_year(year: i32, value: &dyn fmt::Display) -> Result<()> {
    if (1..=9999).contains(&year) {
        return Ok(());
    }
    Err(invalid(format!("{value} is outside the years 1 to 9999, which can be stored")))
}

/// Microseconds from 1970-01-01, UTC; nanoseconds are truncated. A leap second is refused, and so are years before 1 and after
/// 9999.
impl ColumnType for DateTime<Utc> {
    fn data_type(_: ColumnOptions) -> DataType {
        DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
    }
}

impl ToColumn for DateTime<Utc> {
    type Builder = PrimitiveBuilder<TimestampMicrosecondType>;

    #[inline]
    fn check(&self, _: &Self::Builder) -> Result<()> {
        check_year(self.naive_utc().year(), self)?;
        refuse_leap_second(self.nanosecond(), self)
    }

    #[inline]
    fn append(&self, builder: &mut Self::Builder) -> usize {
        builder.append_value(self.timestamp_micros());
        8
    }
}

impl FromColumn for DateTime<Utc> {
    type Array = PrimitiveArray<TimestampMicrosecondType>;

    fn bind(array: &ArrayRef) -> Result<Self::Array> {
        Ok(cast(array, &<Self as ColumnType>::data_type(ColumnOptions::default()))?.as_primitive().clone())
    }

    fn get(array: &Self::Array, row: usize) -> Result<Self> {
        let micros = array.value(row);
        DateTime::from_timestamp_micros(micros)
            .ok_or_else(|| invalid(format!("{micros} µs from 1970 is no time")))
    }
}

/// Microseconds from 1970-01-01 in a time zone that only the application knows; else as `DateTime<Utc>`.
impl ColumnType for NaiveDateTime {
    fn data_type(_: ColumnOptions) -> DataType {
        DataType::Timestamp(TimeUnit::Microsecond, None)
    }
}

impl ToColumn for NaiveDateTime {
    type Builder = PrimitiveBuilder<TimestampMicrosecondType>;

    #[inline]
    fn check(&self, _: &Self::Builder) -> Result<()> {
        check_year(self.year(), self)?;
        refuse_leap_second(self.nanosecond(), self)
    }

    #[inline]
    fn append(&self, builder: &mut Self::Builder) -> usize {
        builder.append_value(self.and_utc().timestamp_micros());
        8
    }
}

impl FromColumn for NaiveDateTime {
    type Array = PrimitiveArray<TimestampMicrosecondType>;

    fn bind(array: &ArrayRef) -> Result<Self::Array> {
        Ok(cast(array, &<Self as ColumnType>::data_type(ColumnOptions::default()))?.as_primitive().clone())
    }

    fn get(array: &Self::Array, row: usize) -> Result<Self> {
        <DateTime<Utc> as FromColumn>::get(array, row).map(|time| time.naive_utc())
    }
}

impl ColumnType for Uuid {
    const EXTENSION: Option<&'static str> = Some("arrow.uuid");

    fn data_type(_: ColumnOptions) -> DataType {
        DataType::FixedSizeBinary(16)
    }
}

impl ToColumn for Uuid {
    type Builder = FixedSizeBinaryBuilder;

    #[inline]
    fn append(&self, builder: &mut Self::Builder) -> usize {
        // The builder was made for 16 bytes, and a UUID has 16.
        let appended = builder.append_value(self.as_bytes());
        debug_assert!(appended.is_ok());
        16
    }
}

impl FromColumn for Uuid {
    type Array = FixedSizeBinaryArray;

    fn bind(array: &ArrayRef) -> Result<Self::Array> {
        if array.data_type().is_string() {
            return uuids_from_text(cast(array, &DataType::Utf8)?.as_string());
        }
        Ok(cast(array, &DataType::FixedSizeBinary(16))?.as_fixed_size_binary().clone())
    }

    fn get(array: &Self::Array, row: usize) -> Result<Self> {
        Uuid::from_slice(array.value(row)).map_err(|error| invalid(format!("no UUID: {error}")))
    }
}

fn uuids_from_text(texts: &StringArray) -> Result<FixedSizeBinaryArray> {
    let mut builder = FixedSizeBinaryBuilder::with_capacity(texts.len(), 16);
    for (row, text) in texts.iter().enumerate() {
        match text {
            Some(text) => {
                let uuid = Uuid::parse_str(text)
                    .map_err(|_| invalid(format!("'{text}' is no UUID")).with_row(row as u64))?;
                builder.append_value(uuid.as_bytes())?;
            }
            None => builder.append_null(),
        }
    }
    Ok(builder.finish())
}

impl ColumnType for serde_json::Value {
    const EXTENSION: Option<&'static str> = Some("arrow.json");

    fn data_type(_: ColumnOptions) -> DataType {
        DataType::Utf8
    }
}

impl ToColumn for serde_json::Value {
    type Builder = JsonBuilder;

    fn check(&self, builder: &Self::Builder) -> Result<()> {
        let held = builder.0.values_slice().len();
        match json_size_max(self, JSON_DEPTH_MAX) {
            Some(bytes) if held + bytes <= i32::MAX as usize => Ok(()),
            Some(_) => check_room(held, self.to_string().len()),
            None => Err(invalid(format!(
                "the JSON is nested deeper than {JSON_DEPTH_MAX} levels, beyond which it can't be read back"
            ))),
        }
    }

    #[inline]
    fn append(&self, builder: &mut Self::Builder) -> usize {
        let before = builder.0.values_slice().len();
        // Writing a Value into memory fails only for maps with keys that aren't text, which Value can't hold.
        let written = serde_json::to_writer(&mut *builder, self);
        debug_assert!(written.is_ok());
        builder.0.append_value("");
        builder.0.values_slice().len() - before + OFFSET_BYTES
    }
}

/// serde_json reads no deeper nested arrays and objects.
const JSON_DEPTH_MAX: usize = 127;

/// An upper bound of the text's size in bytes; nothing where it is nested deeper than `depth`.
fn json_size_max(value: &serde_json::Value, depth: usize) -> Option<usize> {
    use serde_json::Value;
    // A byte may become an escape of six; the longest number has fewer than 32 digits.
    let text = |text: &str| text.len() * 6 + 2;
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => Some(32),
        Value::String(value) => Some(text(value)),
        Value::Array(values) => {
            let depth = depth.checked_sub(1)?;
            values.iter().try_fold(2, |sum, value| Some(sum + json_size_max(value, depth)? + 1))
        }
        Value::Object(values) => {
            let depth = depth.checked_sub(1)?;
            values
                .iter()
                .try_fold(2, |sum, (key, value)| Some(sum + text(key) + json_size_max(value, depth)? + 2))
        }
    }
}

impl FromColumn for serde_json::Value {
    type Array = StringArray;

    fn bind(array: &ArrayRef) -> Result<StringArray> {
        String::bind(array)
    }

    fn get(array: &StringArray, row: usize) -> Result<Self> {
        serde_json::from_str(array.value(row)).map_err(|error| invalid(format!("no JSON: {error}")))
    }
}

/// Where no `decimal(p, s)` is given: the widest that rust_decimal and Decimal128 share.
const DEFAULT_DECIMAL: (u8, i8) = (28, 10);

impl ColumnType for Decimal {
    const DECIMAL: bool = true;

    fn data_type(options: ColumnOptions) -> DataType {
        let (precision, scale) = options.decimal.unwrap_or(DEFAULT_DECIMAL);
        DataType::Decimal128(precision, scale)
    }
}

impl ToColumn for Decimal {
    type Builder = DecimalBuilder;

    fn check(&self, builder: &Self::Builder) -> Result<()> {
        match scaled(*self, builder.precision, builder.scale) {
            Some(_) => Ok(()),
            None => Err(invalid(format!(
                "{self} doesn't fit decimal({}, {}): at most {} digits, {} of them after the point",
                builder.precision, builder.scale, builder.precision, builder.scale
            ))),
        }
    }

    fn append(&self, builder: &mut Self::Builder) -> usize {
        builder.values.append_option(scaled(*self, builder.precision, builder.scale));
        16
    }
}

/// The decimal as an integer of 10^-scale, where that is exact and has at most `precision` digits.
fn scaled(value: Decimal, precision: u8, scale: i8) -> Option<i128> {
    let mantissa = value.mantissa();
    let shift = i32::from(scale) - value.scale() as i32;
    let power = 10_i128.checked_pow(shift.unsigned_abs())?;
    let scaled = if shift >= 0 {
        mantissa.checked_mul(power)?
    } else if mantissa % power == 0 {
        mantissa / power
    } else {
        return None;
    };
    (scaled.unsigned_abs() < 10_u128.checked_pow(u32::from(precision))?).then_some(scaled)
}

/// Decimals to read.
pub enum DecimalArray {
    /// Of one scale from 0.
    Scaled(Decimal128Array),
    /// Read from text, each with its own scale.
    Parsed(Vec<Decimal>),
}

impl FromColumn for Decimal {
    type Array = DecimalArray;

    fn bind(array: &ArrayRef) -> Result<Self::Array> {
        let data_type = match array.data_type() {
            DataType::Decimal128(_, 0..) => return Ok(DecimalArray::Scaled(array.as_primitive().clone())),
            text if text.is_string() => return decimals_from_text(cast(array, &DataType::Utf8)?.as_string()),
            integer if integer.is_integer() => DataType::Decimal128(20, 0),
            &DataType::Decimal32(_, scale)
            | &DataType::Decimal64(_, scale)
            | &DataType::Decimal128(_, scale)
            | &DataType::Decimal256(_, scale) => DataType::Decimal128(DECIMAL128_MAX_PRECISION, scale.max(0)),
            _ => DataType::Decimal128(DEFAULT_DECIMAL.0, DEFAULT_DECIMAL.1),
        };
        Ok(DecimalArray::Scaled(cast(array, &data_type)?.as_primitive().clone()))
    }

    fn get(array: &Self::Array, row: usize) -> Result<Self> {
        match array {
            DecimalArray::Scaled(array) => unscaled(array.value(row), array.scale()).ok_or_else(|| {
                let value = array.value_as_string(row);
                invalid(format!("{value} has more than the 28 digits a Decimal holds: read it as text"))
            }),
            DecimalArray::Parsed(values) => Ok(values[row]),
        }
    }
}

/// The decimal of an integer of 10^-scale, where a Decimal can hold it: zeros at its end need no room.
fn unscaled(mut value: i128, scale: i8) -> Option<Decimal> {
    let mut scale = u32::try_from(scale).ok()?;
    loop {
        match Decimal::try_from_i128_with_scale(value, scale) {
            Ok(decimal) => return Some(decimal),
            Err(_) if scale > 0 && value % 10 == 0 => {
                value /= 10;
                scale -= 1;
            }
            Err(_) => return None,
        }
    }
}

fn decimals_from_text(texts: &StringArray) -> Result<DecimalArray> {
    let parse = |text: &str| Decimal::from_str_exact(text).or_else(|_| Decimal::from_scientific(text)).ok();
    let values = texts.iter().enumerate().map(|(row, text)| match text {
        Some(text) => parse(text)
            .ok_or_else(|| invalid(format!("'{text}' is no decimal of 28 digits")).with_row(row as u64)),
        None => Ok(Decimal::ZERO),
    });
    values.collect::<Result<_>>().map(DecimalArray::Parsed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_decimal_fits_exactly_or_not_at_all() {
        let decimal = |text: &str| text.parse::<Decimal>().unwrap();
        assert_eq!(scaled(decimal("1.500"), 5, 2), Some(150));
        assert_eq!(scaled(decimal("-0.01"), 5, 2), Some(-1));
        assert_eq!(scaled(decimal("1.505"), 5, 2), None);
        assert_eq!(scaled(decimal("999.99"), 5, 2), Some(99_999));
        assert_eq!(scaled(decimal("1000"), 5, 2), None);
        assert_eq!(scaled(Decimal::MAX, 28, 10), None);
    }

    #[test]
    fn a_leap_second_is_refused_and_nanoseconds_are_truncated() {
        let time = NaiveTime::from_hms_nano_opt(1, 2, 3, 4_005_999).unwrap();
        let mut builder = PrimitiveBuilder::<Time64MicrosecondType>::new();
        time.check(&builder).unwrap();
        time.append(&mut builder);
        assert_eq!(builder.finish().value(0), 3_723_004_005);
        let leap = NaiveTime::from_hms_nano_opt(23, 59, 59, 1_500_000_000).unwrap();
        assert!(leap.check(&PrimitiveBuilder::new()).unwrap_err().to_string().contains("leap second"));
    }

    #[test]
    fn json_is_appended_as_its_text() {
        let mut builder = <JsonBuilder as super::super::ColumnBuilder>::with_capacity(&DataType::Utf8, 2);
        let value = serde_json::json!({"a": [1, "é"]});
        assert_eq!(value.append(&mut builder), r#"{"a":[1,"é"]}"#.len() + OFFSET_BYTES);
        let array = super::super::ColumnBuilder::finish(&mut builder);
        let bound = <serde_json::Value as FromColumn>::bind(&array).unwrap();
        assert_eq!(<serde_json::Value as FromColumn>::get(&bound, 0).unwrap(), value);
    }
}
