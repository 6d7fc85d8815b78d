//! One value of a row, with a total order: what the in-memory store keeps and what tests compare.
//!
//! Integers of every width are one variant, and so are floats, so that values compare by what they are and not by the type
//! of the column they were read from. NaN equals itself and −0.0 equals 0.0.

use std::cmp::Ordering;
use std::sync::Arc;

use arrow::array::*;
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::datatypes::*;
use barge_core::{Error, ErrorKind, Result};

/// A value of a column.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Value {
    /// No value.
    Null,
    /// True or false.
    Bool(bool),
    /// An integer of any width.
    Int(i128),
    /// A float of either width.
    Float(Float),
    /// A decimal: `unscaled` × 10^−`scale`, without trailing zeros.
    Decimal {
        /// All digits, as an integer.
        unscaled: i128,
        /// How many of them follow the point.
        scale: i8,
    },
    /// Text; JSON too.
    Text(Arc<str>),
    /// Bytes; UUIDs too.
    Binary(Arc<[u8]>),
    /// Days from 1970-01-01.
    Date(i32),
    /// Microseconds from midnight.
    Time(i64),
    /// Microseconds from 1970-01-01.
    Timestamp {
        /// The microseconds.
        micros: i64,
        /// Whether the time is in UTC, or in a zone that only the application knows.
        utc: bool,
    },
    /// A list.
    List(Arc<[Value]>),
}

/// A float with a total order, in which NaN equals NaN and −0.0 equals 0.0.
#[derive(Clone, Copy, Debug)]
pub struct Float(pub f64);

impl Ord for Float {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.partial_cmp(&other.0).unwrap_or_else(|| self.0.is_nan().cmp(&other.0.is_nan()))
    }
}

impl PartialOrd for Float {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Float {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Float {}

macro_rules! from_integer {
    ($($type:ty),*) => {$(
        impl From<$type> for Value {
            fn from(value: $type) -> Self {
                Value::Int(value.into())
            }
        }
    )*};
}

from_integer!(i8, i16, i32, i64, u8, u16, u32, u64);

impl From<bool> for Value {
    fn from(value: bool) -> Self {
        Value::Bool(value)
    }
}

impl From<f64> for Value {
    fn from(value: f64) -> Self {
        Value::Float(Float(value))
    }
}

impl From<f32> for Value {
    fn from(value: f32) -> Self {
        Value::Float(Float(value.into()))
    }
}

impl From<&str> for Value {
    fn from(value: &str) -> Self {
        Value::Text(value.into())
    }
}

impl From<String> for Value {
    fn from(value: String) -> Self {
        Value::Text(value.into())
    }
}

impl From<&[u8]> for Value {
    fn from(value: &[u8]) -> Self {
        Value::Binary(value.into())
    }
}

impl<T: Into<Value>> From<Option<T>> for Value {
    fn from(value: Option<T>) -> Self {
        value.map_or(Value::Null, Into::into)
    }
}

impl Value {
    /// A decimal, with its trailing zeros removed.
    pub fn decimal(unscaled: i128, scale: i8) -> Self {
        let (mut unscaled, mut scale) = (unscaled, scale);
        while unscaled % 10 == 0 && scale > 0 {
            unscaled /= 10;
            scale -= 1;
        }
        Value::Decimal { unscaled, scale }
    }

    /// A list of values.
    pub fn list(values: impl IntoIterator<Item = Value>) -> Self {
        Value::List(values.into_iter().collect())
    }

    /// Whether it is NULL.
    pub fn is_null(&self) -> bool {
        *self == Value::Null
    }

    /// The integer, where it is one.
    pub fn as_int(&self) -> Option<i128> {
        match self {
            Value::Int(value) => Some(*value),
            _ => None,
        }
    }

    /// The text, where it is one.
    pub fn as_text(&self) -> Option<&str> {
        match self {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// One value of an array.
    ///
    /// # Errors
    /// `Unsupported` for an array of a type that no record has.
    pub fn read(array: &dyn Array, row: usize) -> Result<Value> {
        use DataType::*;
        if array.is_null(row) {
            return Ok(Value::Null);
        }
        Ok(match array.data_type() {
            Boolean => array.as_boolean().value(row).into(),
            Int8 => array.as_primitive::<Int8Type>().value(row).into(),
            Int16 => array.as_primitive::<Int16Type>().value(row).into(),
            Int32 => array.as_primitive::<Int32Type>().value(row).into(),
            Int64 => array.as_primitive::<Int64Type>().value(row).into(),
            UInt8 => array.as_primitive::<UInt8Type>().value(row).into(),
            UInt16 => array.as_primitive::<UInt16Type>().value(row).into(),
            UInt32 => array.as_primitive::<UInt32Type>().value(row).into(),
            UInt64 => array.as_primitive::<UInt64Type>().value(row).into(),
            Float32 => array.as_primitive::<Float32Type>().value(row).into(),
            Float64 => array.as_primitive::<Float64Type>().value(row).into(),
            Decimal128(_, scale) => Value::decimal(array.as_primitive::<Decimal128Type>().value(row), *scale),
            Utf8 => array.as_string::<i32>().value(row).into(),
            LargeUtf8 => array.as_string::<i64>().value(row).into(),
            Binary => array.as_binary::<i32>().value(row).into(),
            LargeBinary => array.as_binary::<i64>().value(row).into(),
            FixedSizeBinary(_) => array.as_fixed_size_binary().value(row).into(),
            Date32 => Value::Date(array.as_primitive::<Date32Type>().value(row)),
            Time64(TimeUnit::Microsecond) => {
                Value::Time(array.as_primitive::<Time64MicrosecondType>().value(row))
            }
            Timestamp(TimeUnit::Microsecond, zone) => Value::Timestamp {
                micros: array.as_primitive::<TimestampMicrosecondType>().value(row),
                utc: zone.is_some(),
            },
            List(_) => read_list(array.as_list::<i32>().value(row).as_ref())?,
            FixedSizeList(..) => read_list(array.as_fixed_size_list().value(row).as_ref())?,
            other => return Err(unsupported(other)),
        })
    }

    /// The value as a column of another type would hold it; `None` where it would not be equal.
    pub fn fit(&self, data_type: &DataType) -> Option<Value> {
        use DataType::*;
        let same = || Some(self.clone());
        match (self, data_type) {
            (Value::Null, _) => same(),
            (Value::Bool(_), Boolean) => same(),
            (Value::Int(value), _) if data_type.is_integer() => {
                integer_range(data_type).contains(value).then(|| self.clone())
            }
            (Value::Int(value), Float32 | Float64) => {
                let float = Value::from(*value as f64).fit(data_type)?;
                matches!(float, Value::Float(Float(float)) if float as i128 == *value).then_some(float)
            }
            (Value::Float(Float(value)), _) if data_type.is_integer() => {
                let integer = *value as i128;
                let whole = integer as f64 == *value && integer.unsigned_abs() < 1 << 64;
                if whole { Value::Int(integer).fit(data_type) } else { None }
            }
            (Value::Float(Float(value)), Float32) => {
                (f64::from(*value as f32) == *value || value.is_nan()).then(|| self.clone())
            }
            (Value::Float(_), Float64) => same(),
            (Value::Decimal { unscaled, scale }, Decimal128(precision, most)) => {
                let rescaled =
                    10i128.checked_pow(u32::try_from(most - scale).ok()?)?.checked_mul(*unscaled)?;
                let digits = rescaled.unsigned_abs().checked_ilog10().map_or(1, |digits| digits + 1);
                (digits <= u32::from(*precision)).then(|| self.clone())
            }
            (Value::Text(_), Utf8 | LargeUtf8) => same(),
            (Value::Binary(_), Binary | LargeBinary) => same(),
            (Value::Binary(bytes), FixedSizeBinary(width)) => {
                (usize::try_from(*width) == Ok(bytes.len())).then(|| self.clone())
            }
            (Value::Date(_), Date32) => same(),
            (Value::Time(_), Time64(TimeUnit::Microsecond)) => same(),
            (Value::Timestamp { utc, .. }, Timestamp(TimeUnit::Microsecond, zone)) => {
                (*utc == zone.is_some()).then(|| self.clone())
            }
            (Value::List(values), List(item)) => {
                values.iter().map(|value| value.fit(item.data_type())).collect::<Option<_>>().map(Value::List)
            }
            (Value::List(values), FixedSizeList(item, length)) => {
                let fits = usize::try_from(*length) == Ok(values.len());
                if fits { self.fit(&List(item.clone())) } else { None }
            }
            _ => None,
        }
    }

    /// Values as an array.
    ///
    /// # Errors
    /// `InvalidValue`, with the row, where a value doesn't fit the type; `Unsupported` for a type that no record has.
    pub fn array(data_type: &DataType, values: &[Value]) -> Result<ArrayRef> {
        use DataType::*;
        let fitted: Vec<Value> = values
            .iter()
            .enumerate()
            .map(|(row, value)| value.fit(data_type).ok_or_else(|| misfit(value, data_type, row)))
            .collect::<Result<_>>()?;
        let values = fitted.as_slice();
        Ok(match data_type {
            Boolean => Arc::new(
                values
                    .iter()
                    .map(|value| (*value != Value::Null).then(|| *value == true.into()))
                    .collect::<BooleanArray>(),
            ),
            Int8 => integers::<Int8Type>(values),
            Int16 => integers::<Int16Type>(values),
            Int32 => integers::<Int32Type>(values),
            Int64 => integers::<Int64Type>(values),
            UInt8 => integers::<UInt8Type>(values),
            UInt16 => integers::<UInt16Type>(values),
            UInt32 => integers::<UInt32Type>(values),
            UInt64 => integers::<UInt64Type>(values),
            Float32 => Arc::new(
                floats(values).map(|value| value.map(|value| value as f32)).collect::<Float32Array>(),
            ),
            Float64 => Arc::new(floats(values).collect::<Float64Array>()),
            &Decimal128(_, most) => {
                let scaled = values.iter().map(|value| match value {
                    Value::Decimal { unscaled, scale } => Some(unscaled * 10i128.pow((most - scale) as u32)),
                    _ => None,
                });
                Arc::new(scaled.collect::<Decimal128Array>().with_data_type(data_type.clone()))
            }
            Utf8 => Arc::new(values.iter().map(Value::as_text).collect::<StringArray>()),
            LargeUtf8 => Arc::new(values.iter().map(Value::as_text).collect::<LargeStringArray>()),
            Binary => Arc::new(values.iter().map(Value::as_bytes).collect::<BinaryArray>()),
            LargeBinary => Arc::new(values.iter().map(Value::as_bytes).collect::<LargeBinaryArray>()),
            &FixedSizeBinary(width) => Arc::new(FixedSizeBinaryArray::try_from_sparse_iter_with_size(
                values.iter().map(Value::as_bytes),
                width,
            )?),
            Date32 => {
                Arc::new(times(values).map(|days| days.map(|days| days as i32)).collect::<Date32Array>())
            }
            Time64(TimeUnit::Microsecond) => Arc::new(times(values).collect::<Time64MicrosecondArray>()),
            Timestamp(TimeUnit::Microsecond, zone) => {
                Arc::new(times(values).collect::<TimestampMicrosecondArray>().with_timezone_opt(zone.clone()))
            }
            List(item) => {
                let lists = values.iter().map(Value::as_list);
                let offsets =
                    OffsetBuffer::from_lengths(lists.clone().map(|list| list.map_or(0, <[Value]>::len)));
                let nulls: NullBuffer =
                    lists.clone().map(|list| list.is_some()).collect::<Vec<bool>>().into();
                let items: Vec<Value> = lists.flatten().flatten().cloned().collect();
                let items = Value::array(item.data_type(), &items)?;
                Arc::new(ListArray::try_new(item.clone(), offsets, items, Some(nulls))?)
            }
            FixedSizeList(item, length) => {
                let empty = vec![zero(item.data_type()); usize::try_from(*length).unwrap_or(0)];
                let items: Vec<Value> =
                    values.iter().flat_map(|value| value.as_list().unwrap_or(&empty)).cloned().collect();
                let items = Value::array(item.data_type(), &items)?;
                let nulls: NullBuffer =
                    values.iter().map(|value| !value.is_null()).collect::<Vec<bool>>().into();
                let nulls = Some(nulls).filter(|nulls| nulls.null_count() > 0);
                Arc::new(FixedSizeListArray::try_new_with_length(
                    item.clone(),
                    *length,
                    items,
                    nulls,
                    values.len(),
                )?)
            }
            other => return Err(unsupported(other)),
        })
    }

    fn as_bytes(&self) -> Option<&[u8]> {
        match self {
            Value::Binary(bytes) => Some(bytes),
            _ => None,
        }
    }

    fn as_list(&self) -> Option<&[Value]> {
        match self {
            Value::List(values) => Some(values),
            _ => None,
        }
    }
}

fn read_list(array: &dyn Array) -> Result<Value> {
    (0..array.len()).map(|row| Value::read(array, row)).collect::<Result<_>>().map(Value::List)
}

fn integer_range(data_type: &DataType) -> std::ops::RangeInclusive<i128> {
    match data_type {
        DataType::Int8 => i8::MIN.into()..=i8::MAX.into(),
        DataType::Int16 => i16::MIN.into()..=i16::MAX.into(),
        DataType::Int32 => i32::MIN.into()..=i32::MAX.into(),
        DataType::Int64 => i64::MIN.into()..=i64::MAX.into(),
        DataType::UInt8 => 0..=u8::MAX.into(),
        DataType::UInt16 => 0..=u16::MAX.into(),
        DataType::UInt32 => 0..=u32::MAX.into(),
        _ => 0..=u64::MAX.into(),
    }
}

fn integers<T: ArrowPrimitiveType>(values: &[Value]) -> ArrayRef
where
    T::Native: TryFrom<i128>,
{
    let natives = values.iter().map(|value| T::Native::try_from(value.as_int()?).ok());
    Arc::new(natives.collect::<PrimitiveArray<T>>())
}

fn floats(values: &[Value]) -> impl Iterator<Item = Option<f64>> {
    values.iter().map(|value| match value {
        Value::Float(Float(value)) => Some(*value),
        _ => None,
    })
}

fn times(values: &[Value]) -> impl Iterator<Item = Option<i64>> {
    values.iter().map(|value| match value {
        Value::Date(days) => Some(i64::from(*days)),
        Value::Time(micros) | Value::Timestamp { micros, .. } => Some(*micros),
        _ => None,
    })
}

/// What stands in the places of a NULL list of fixed length, whose items may not be NULL.
fn zero(data_type: &DataType) -> Value {
    if data_type.is_floating() { 0.0.into() } else { Value::Null }
}

fn misfit(value: &Value, data_type: &DataType, row: usize) -> Error {
    Error::new(ErrorKind::InvalidValue, format!("{value:?} doesn't fit {data_type}")).with_row(row as u64)
}

fn unsupported(data_type: &DataType) -> Error {
    Error::new(ErrorKind::Unsupported, format!("no record has columns of {data_type}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_survive_their_arrays() {
        let item = Arc::new(Field::new("item", DataType::Float32, false));
        let cases: Vec<(DataType, Vec<Value>)> = vec![
            (DataType::Boolean, vec![true.into(), Value::Null, false.into()]),
            (DataType::UInt64, vec![u64::MAX.into(), Value::Null]),
            (DataType::Float32, vec![f32::MAX.into(), f64::NAN.into(), Value::Null]),
            (DataType::Decimal128(28, 4), vec![Value::decimal(12_300, 4), Value::Null]),
            (
                DataType::List(Arc::new(Field::new("item", DataType::Int64, true))),
                vec![Value::list([]), Value::list([1.into(), Value::Null]), Value::Null],
            ),
            (DataType::FixedSizeList(item, 2), vec![Value::list([1.5.into(), 2.5.into()]), Value::Null]),
        ];
        for (data_type, values) in cases {
            let array = Value::array(&data_type, &values).unwrap();
            let read: Vec<Value> = (0..values.len()).map(|row| Value::read(&array, row).unwrap()).collect();
            assert_eq!(read, values, "{data_type}");
        }
    }

    #[test]
    fn what_would_not_be_equal_does_not_fit() {
        assert_eq!(Value::from(128).fit(&DataType::Int8), None);
        assert_eq!(Value::from((1i64 << 53) + 1).fit(&DataType::Float64), None);
        assert_eq!(Value::from(0.1).fit(&DataType::Float32), None);
        assert_eq!(Value::decimal(12_345, 3).fit(&DataType::Decimal128(5, 2)), None);
        assert_eq!(Value::from("1").fit(&DataType::Int64), None);
        assert!(Value::from(-0.0) == Value::from(0.0) && Value::from(f64::NAN) == Value::from(f64::NAN));
    }
}
