//! SQLite's values from Arrow arrays: each column resolved once into typed slices, so that a cell costs a branch and no
//! cast.
//!
//! Integers, reals, text and blobs are lent from the arrays; what SQLite has no type for is written as text (docs/types.md):
//! dates and times as ISO 8601, decimals with all the digits of their scale, UUIDs with hyphens, lists as JSON. A list of
//! `f32` is a blob, little-endian.

use std::borrow::Cow;

use arrow::array::*;
use arrow::buffer::{BooleanBuffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::*;
use barge_core::record::{is_uuid, value_to_json};
use barge_core::{Error, ErrorKind, Result};

use crate::affinity::Affinity;
use crate::temporal::{date_text, time_text, timestamp_text, uuid_text};

/// Takes one cell. Text and blobs come lent for as long as the [`Cells`] live, or only for the call.
pub(crate) trait Sink<'a> {
    fn null(&mut self);
    fn integer(&mut self, value: i64);
    fn real(&mut self, value: f64);
    fn text(&mut self, value: &'a str);
    fn blob(&mut self, value: &'a [u8]);
    fn short_lived_text(&mut self, value: &str);
    fn short_lived_blob(&mut self, value: &[u8]);
}

/// One column's cells.
#[derive(Debug)]
pub(crate) struct Cells {
    nulls: Option<NullBuffer>,
    values: Values,
}

#[derive(Debug)]
enum Values {
    Null,
    Boolean(BooleanBuffer),
    Int8(ScalarBuffer<i8>),
    Int16(ScalarBuffer<i16>),
    Int32(ScalarBuffer<i32>),
    Int64(ScalarBuffer<i64>),
    UInt8(ScalarBuffer<u8>),
    UInt16(ScalarBuffer<u16>),
    UInt32(ScalarBuffer<u32>),
    /// None is above `i64::MAX`: `check` refuses those.
    UInt64(ScalarBuffer<u64>),
    Float32(ScalarBuffer<f32>),
    Float64(ScalarBuffer<f64>),
    /// Reals for a TEXT column, where SQLite would keep only 15 digits of them.
    Float32Text(ScalarBuffer<f32>),
    Float64Text(ScalarBuffer<f64>),
    Text(StringArray),
    LargeText(LargeStringArray),
    TextView(StringViewArray),
    Binary(BinaryArray),
    LargeBinary(LargeBinaryArray),
    BinaryView(BinaryViewArray),
    FixedBinary(FixedSizeBinaryArray),
    Uuid(FixedSizeBinaryArray),
    Date(ScalarBuffer<i32>),
    Time(ScalarBuffer<i64>),
    Timestamp {
        micros: ScalarBuffer<i64>,
        utc: bool,
    },
    Decimal {
        values: ScalarBuffer<i128>,
        scale: i8,
    },
    /// Lists of `f32` of any length.
    Vectors {
        values: ScalarBuffer<f32>,
        offsets: OffsetBuffer<i32>,
    },
    /// Lists of `f32` of one length.
    FixedVectors {
        values: ScalarBuffer<f32>,
        length: usize,
    },
    Json {
        array: ArrayRef,
        field: FieldRef,
    },
}

impl Cells {
    /// The cells of an array for a column of an affinity.
    ///
    /// # Errors
    /// `Unsupported` for types that SQLite can't hold.
    pub(crate) fn new(field: &FieldRef, array: &ArrayRef, affinity: Affinity) -> Result<Self> {
        let array = base_array(field, array)?;
        let nulls = array.logical_nulls().filter(|nulls| nulls.null_count() > 0);
        Ok(Cells { nulls, values: Values::new(field, &array, affinity)? })
    }

    /// The rows in the order of their values, where these are integers and out of order.
    pub(crate) fn sorted_rows(&self) -> Option<Vec<u32>> {
        let Values::Int64(values) = &self.values else { return None };
        if values.is_sorted() {
            return None;
        }
        let mut rows: Vec<u32> = (0..u32::try_from(values.len()).ok()?).collect();
        rows.sort_unstable_by_key(|row| values[*row as usize]);
        Some(rows)
    }

    /// Gives a cell to a sink.
    ///
    /// # Panics
    /// Where the row is beyond the array's end.
    #[inline]
    pub(crate) fn put<'a>(&'a self, row: usize, sink: &mut impl Sink<'a>) {
        match &self.nulls {
            Some(nulls) if nulls.is_null(row) => sink.null(),
            _ => self.values.put(row, sink),
        }
    }
}

/// Whether SQLite can hold the type.
pub(crate) fn is_supported(data_type: &DataType) -> bool {
    base_type(data_type).is_some()
}

/// The type as which an array is read: its own where [`Values`] knows it, else the nearest that it casts to without loss.
fn base_type(data_type: &DataType) -> Option<DataType> {
    use DataType::*;
    Some(match data_type {
        Null | Boolean | Int8 | Int16 | Int32 | Int64 | UInt8 | UInt16 | UInt32 | UInt64 | Float32
        | Float64 | Utf8 | LargeUtf8 | Utf8View | Binary | LargeBinary | BinaryView | FixedSizeBinary(_)
        | Date32 => data_type.clone(),
        Float16 => Float32,
        Date64 => Date32,
        Time32(_) | Time64(_) => Time64(TimeUnit::Microsecond),
        Timestamp(_, timezone) => Timestamp(TimeUnit::Microsecond, timezone.clone()),
        Decimal32(precision, scale) | Decimal64(precision, scale) | Decimal128(precision, scale) => {
            Decimal128(*precision, *scale)
        }
        List(item) | FixedSizeList(item, _) => return base_type(item.data_type()).map(|_| data_type.clone()),
        LargeList(item) => return base_type(item.data_type()).map(|_| List(item.clone())),
        Dictionary(_, value) => return base_type(value),
        _ => return None,
    })
}

pub(crate) fn base_array<'a>(field: &Field, array: &'a ArrayRef) -> Result<Cow<'a, ArrayRef>> {
    let base = base_type(array.data_type()).ok_or_else(|| {
        let message = format!("SQLite can't hold values of type {}", array.data_type());
        Error::new(ErrorKind::Unsupported, message).with_column(field.name())
    })?;
    if &base == array.data_type() {
        return Ok(Cow::Borrowed(array));
    }
    let options = CastOptions { safe: false, ..CastOptions::default() };
    let cast = cast_with_options(array, &base, &options);
    Ok(Cow::Owned(cast.map_err(|error| Error::from(error).with_column(field.name()))?))
}

impl Values {
    fn new(field: &FieldRef, array: &ArrayRef, affinity: Affinity) -> Result<Self> {
        macro_rules! primitive {
            ($variant:ident, $arrow:ty) => {
                Values::$variant(array.as_primitive::<$arrow>().values().clone())
            };
        }
        let text = affinity == Affinity::Text;
        Ok(match array.data_type() {
            DataType::Null => Values::Null,
            DataType::Boolean => Values::Boolean(array.as_boolean().values().clone()),
            DataType::Int8 => primitive!(Int8, Int8Type),
            DataType::Int16 => primitive!(Int16, Int16Type),
            DataType::Int32 => primitive!(Int32, Int32Type),
            DataType::Int64 => primitive!(Int64, Int64Type),
            DataType::UInt8 => primitive!(UInt8, UInt8Type),
            DataType::UInt16 => primitive!(UInt16, UInt16Type),
            DataType::UInt32 => primitive!(UInt32, UInt32Type),
            DataType::UInt64 => primitive!(UInt64, UInt64Type),
            DataType::Float32 if text => primitive!(Float32Text, Float32Type),
            DataType::Float64 if text => primitive!(Float64Text, Float64Type),
            DataType::Float32 => primitive!(Float32, Float32Type),
            DataType::Float64 => primitive!(Float64, Float64Type),
            DataType::Utf8 => Values::Text(array.as_string().clone()),
            DataType::LargeUtf8 => Values::LargeText(array.as_string().clone()),
            DataType::Utf8View => Values::TextView(array.as_string_view().clone()),
            DataType::Binary => Values::Binary(array.as_binary().clone()),
            DataType::LargeBinary => Values::LargeBinary(array.as_binary().clone()),
            DataType::BinaryView => Values::BinaryView(array.as_binary_view().clone()),
            DataType::FixedSizeBinary(16) if is_uuid(field) => {
                Values::Uuid(array.as_fixed_size_binary().clone())
            }
            DataType::FixedSizeBinary(_) => Values::FixedBinary(array.as_fixed_size_binary().clone()),
            DataType::Date32 => primitive!(Date, Date32Type),
            DataType::Time64(_) => primitive!(Time, Time64MicrosecondType),
            DataType::Timestamp(_, timezone) => Values::Timestamp {
                micros: array.as_primitive::<TimestampMicrosecondType>().values().clone(),
                utc: timezone.is_some(),
            },
            DataType::Decimal128(_, scale) => Values::Decimal {
                values: array.as_primitive::<Decimal128Type>().values().clone(),
                scale: *scale,
            },
            DataType::List(item) if item.data_type() == &DataType::Float32 => {
                let lists = array.as_list::<i32>();
                Values::Vectors {
                    values: lists.values().as_primitive::<Float32Type>().values().clone(),
                    offsets: lists.offsets().clone(),
                }
            }
            DataType::FixedSizeList(item, length) if item.data_type() == &DataType::Float32 => {
                let lists = array.as_fixed_size_list();
                Values::FixedVectors {
                    values: lists.values().as_primitive::<Float32Type>().values().clone(),
                    length: usize::try_from(*length).unwrap_or(0),
                }
            }
            _ => Values::Json { array: array.clone(), field: field.clone() },
        })
    }

    #[inline]
    fn put<'a>(&'a self, row: usize, sink: &mut impl Sink<'a>) {
        match self {
            Values::Int64(values) => sink.integer(values[row]),
            Values::Text(values) => sink.text(values.value(row)),
            Values::Float64(values) => sink.real(values[row]),
            Values::Timestamp { micros, utc } => {
                sink.short_lived_text(timestamp_text(micros[row], *utc).as_str());
            }
            Values::Null => sink.null(),
            Values::Boolean(values) => sink.integer(values.value(row).into()),
            Values::Int8(values) => sink.integer(values[row].into()),
            Values::Int16(values) => sink.integer(values[row].into()),
            Values::Int32(values) => sink.integer(values[row].into()),
            Values::UInt8(values) => sink.integer(values[row].into()),
            Values::UInt16(values) => sink.integer(values[row].into()),
            Values::UInt32(values) => sink.integer(values[row].into()),
            Values::UInt64(values) => match i64::try_from(values[row]) {
                Ok(value) => sink.integer(value),
                // Only a query over a batch gets here unchecked: as text the value is at least not another.
                Err(_) => sink.short_lived_text(&values[row].to_string()),
            },
            Values::Float32(values) => sink.real(values[row].into()),
            Values::LargeText(values) => sink.text(values.value(row)),
            Values::TextView(values) => sink.text(values.value(row)),
            Values::Binary(values) => sink.blob(values.value(row)),
            Values::LargeBinary(values) => sink.blob(values.value(row)),
            Values::BinaryView(values) => sink.blob(values.value(row)),
            Values::FixedBinary(values) => sink.blob(values.value(row)),
            _ => self.put_written(row, sink),
        }
    }

    /// The cells that are written anew.
    fn put_written<'a>(&'a self, row: usize, sink: &mut impl Sink<'a>) {
        match self {
            Values::Uuid(values) => sink.short_lived_text(uuid_text(values.value(row)).as_str()),
            Values::Date(days) => sink.short_lived_text(date_text(days[row]).as_str()),
            Values::Time(micros) => sink.short_lived_text(time_text(micros[row]).as_str()),
            Values::Float32Text(values) => sink.short_lived_text(&values[row].to_string()),
            Values::Float64Text(values) => sink.short_lived_text(&real_text(values[row])),
            Values::Decimal { values, scale } => sink.short_lived_text(&decimal_text(values[row], *scale)),
            Values::Vectors { values, offsets } => {
                put_vector(&values[offsets[row] as usize..offsets[row + 1] as usize], sink);
            }
            Values::FixedVectors { values, length } => {
                put_vector(&values[row * length..(row + 1) * length], sink);
            }
            Values::Json { array, field } => {
                sink.short_lived_text(&value_to_json(field, array, row).to_string());
            }
            _ => sink.null(),
        }
    }
}

fn put_vector<'a>(values: &'a [f32], sink: &mut impl Sink<'a>) {
    let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    sink.short_lived_blob(&bytes);
}

/// A real as the shortest text that reads back equal.
pub(crate) fn real_text(value: f64) -> String {
    if value.is_finite() && (value.abs() >= 1e16 || (value != 0.0 && value.abs() < 1e-5)) {
        format!("{value:e}")
    } else {
        format!("{value:?}")
    }
}

/// A decimal with all the digits of its scale.
pub(crate) fn decimal_text(value: i128, scale: i8) -> String {
    let digits = value.unsigned_abs().to_string();
    let sign = if value < 0 { "-" } else { "" };
    let Ok(scale) = usize::try_from(scale) else {
        let zeros = if value == 0 { 0 } else { usize::from(scale.unsigned_abs()) };
        return format!("{sign}{digits}{}", "0".repeat(zeros));
    };
    if scale == 0 {
        return format!("{sign}{digits}");
    }
    let digits = format!("{digits:0>width$}", width = scale + 1);
    let (whole, fraction) = digits.split_at(digits.len() - scale);
    format!("{sign}{whole}.{fraction}")
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[derive(Default)]
    struct Shown(Vec<String>);

    impl<'a> Sink<'a> for Shown {
        fn null(&mut self) {
            self.0.push("NULL".into());
        }
        fn integer(&mut self, value: i64) {
            self.0.push(value.to_string());
        }
        fn real(&mut self, value: f64) {
            self.0.push(format!("{value:?}"));
        }
        fn text(&mut self, value: &'a str) {
            self.0.push(format!("'{value}'"));
        }
        fn blob(&mut self, value: &'a [u8]) {
            self.0.push(format!("{value:?}"));
        }
        fn short_lived_text(&mut self, value: &str) {
            self.0.push(format!("'{value}'"));
        }
        fn short_lived_blob(&mut self, value: &[u8]) {
            self.0.push(format!("{value:?}"));
        }
    }

    fn shown(array: impl Array + 'static, affinity: Affinity) -> Vec<String> {
        let array: ArrayRef = Arc::new(array);
        let field = Arc::new(Field::new("x", array.data_type().clone(), true));
        let cells = Cells::new(&field, &array, affinity).unwrap();
        let mut shown = Shown::default();
        (0..array.len()).for_each(|row| cells.put(row, &mut shown));
        shown.0
    }

    #[test]
    fn cells_follow_slices_and_nulls() {
        let numbers = Int64Array::from(vec![Some(1), None, Some(i64::MIN), Some(4)]);
        assert_eq!(shown(numbers.slice(1, 2), Affinity::Integer), ["NULL", "-9223372036854775808"]);
        let texts = StringArray::from(vec![Some("a"), Some("b\0c"), None]);
        assert_eq!(shown(texts.slice(1, 2), Affinity::Text), ["'b\0c'", "NULL"]);
        let vectors =
            ListArray::from_iter_primitive::<Float32Type, _, _>([Some(vec![Some(1.0)]), Some(vec![]), None]);
        assert_eq!(shown(vectors.slice(0, 3), Affinity::Blob), ["[0, 0, 128, 63]", "[]", "NULL"]);
        let fixed = FixedSizeListArray::from_iter_primitive::<Float32Type, _, _>(
            [Some(vec![Some(0.0)]), Some(vec![Some(1.0)])],
            1,
        );
        assert_eq!(shown(fixed.slice(1, 1), Affinity::Blob), ["[0, 0, 128, 63]"]);
    }

    #[test]
    fn what_sqlite_has_no_type_for_is_text() {
        assert_eq!(
            shown(Float64Array::from(vec![0.1, 1e300, -0.0, 5.0]), Affinity::Text),
            ["'0.1'", "'1e300'", "'-0.0'", "'5.0'"]
        );
        let decimals = Decimal128Array::from(vec![-5, 12_345]).with_precision_and_scale(10, 2).unwrap();
        assert_eq!(shown(decimals, Affinity::Text), ["'-0.05'", "'123.45'"]);
        assert_eq!(shown(Date32Array::from(vec![0]), Affinity::Text), ["'1970-01-01'"]);
        let lists = ListArray::from_iter_primitive::<Int64Type, _, _>([Some(vec![Some(1), None])]);
        assert_eq!(shown(lists, Affinity::Text), ["'[1,null]'"]);
        let seconds = TimestampSecondArray::from(vec![1]).with_timezone("UTC");
        assert_eq!(shown(seconds, Affinity::Text), ["'1970-01-01T00:00:01.000000Z'"]);
    }

    #[test]
    fn decimals_keep_their_scale() {
        assert_eq!(decimal_text(0, 3), "0.000");
        assert_eq!(decimal_text(i128::MIN, 0), i128::MIN.to_string());
        assert_eq!(decimal_text(7, -2), "700");
    }

    #[test]
    fn a_type_without_a_place_in_sqlite_is_refused() {
        let array: ArrayRef = Arc::new(IntervalYearMonthArray::from(vec![1]));
        let field = Arc::new(Field::new("x", array.data_type().clone(), true));
        assert_eq!(Cells::new(&field, &array, Affinity::Blob).unwrap_err().kind(), ErrorKind::Unsupported);
    }
}
