//! Rows as JSON, for dead letters: every value of every type, so that it can be loaded again.

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::*;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use serde_json::{Map, Value};

use super::table::{is_json, is_uuid};

/// One row of a batch as a JSON object.
///
/// Numbers and booleans stay what they are; NaN and infinities become `"NaN"`, `"inf"`, `"-inf"`; decimals, dates, times
/// and UUIDs become text; binary becomes text of `\x` and hexadecimal digits; JSON columns are embedded; lists become
/// arrays.
pub fn row_to_json(batch: &RecordBatch, row: usize) -> Map<String, Value> {
    let schema = batch.schema();
    let fields = schema.fields().iter().zip(batch.columns());
    fields.map(|(field, array)| (field.name().clone(), value_to_json(field, array, row))).collect()
}

/// One value as JSON, by the rules of [`row_to_json`].
pub fn value_to_json(field: &Field, array: &dyn Array, row: usize) -> Value {
    if array.is_null(row) {
        return Value::Null;
    }
    match array.data_type() {
        DataType::Boolean => array.as_boolean().value(row).into(),
        DataType::Int8 => array.as_primitive::<Int8Type>().value(row).into(),
        DataType::Int16 => array.as_primitive::<Int16Type>().value(row).into(),
        DataType::Int32 => array.as_primitive::<Int32Type>().value(row).into(),
        DataType::Int64 => array.as_primitive::<Int64Type>().value(row).into(),
        DataType::UInt8 => array.as_primitive::<UInt8Type>().value(row).into(),
        DataType::UInt16 => array.as_primitive::<UInt16Type>().value(row).into(),
        DataType::UInt32 => array.as_primitive::<UInt32Type>().value(row).into(),
        DataType::UInt64 => array.as_primitive::<UInt64Type>().value(row).into(),
        DataType::Float32 => {
            // Through its own shortest text, so that 0.1 stays 0.1 and does not become 0.10000000149.
            let value = array.as_primitive::<Float32Type>().value(row);
            float_to_json(if value.is_finite() {
                value.to_string().parse().unwrap_or(f64::from(value))
            } else {
                value.into()
            })
        }
        DataType::Float64 => float_to_json(array.as_primitive::<Float64Type>().value(row)),
        DataType::Utf8 if is_json(field) => {
            let text = array.as_string::<i32>().value(row);
            serde_json::from_str(text).unwrap_or_else(|_| text.into())
        }
        DataType::Utf8 => array.as_string::<i32>().value(row).into(),
        DataType::Binary => hexadecimal(array.as_binary::<i32>().value(row)).into(),
        DataType::FixedSizeBinary(_) => {
            let bytes = array.as_fixed_size_binary().value(row);
            match uuid::Uuid::from_slice(bytes) {
                Ok(uuid) if is_uuid(field) => uuid.to_string().into(),
                _ => hexadecimal(bytes).into(),
            }
        }
        DataType::LargeBinary => hexadecimal(array.as_binary::<i64>().value(row)).into(),
        DataType::BinaryView => hexadecimal(array.as_binary_view().value(row)).into(),
        DataType::Timestamp(_, timezone) => timestamp_to_json(array, row, timezone.is_some()),
        DataType::List(item) => list_to_json(item, array.as_list::<i32>().value(row).as_ref()),
        DataType::LargeList(item) => list_to_json(item, array.as_list::<i64>().value(row).as_ref()),
        DataType::FixedSizeList(item, _) => {
            list_to_json(item, array.as_fixed_size_list().value(row).as_ref())
        }
        _ => match ArrayFormatter::try_new(array, &FormatOptions::default()) {
            Ok(formatter) => formatter.value(row).to_string().into(),
            // Not as it should be, but never NULL, which would look like no value.
            Err(_) => format!("{:?}", array.slice(row, 1)).into(),
        },
    }
}

/// ISO 8601, with a `Z` where the time is UTC: Arrow itself can't write the named time zone `UTC`. A time that no calendar has
/// is its number.
fn timestamp_to_json(array: &dyn Array, row: usize, utc: bool) -> Value {
    let (number, time) = match array.data_type() {
        DataType::Timestamp(TimeUnit::Second, _) => {
            let array = array.as_primitive::<TimestampSecondType>();
            (array.value(row), array.value_as_datetime(row))
        }
        DataType::Timestamp(TimeUnit::Millisecond, _) => {
            let array = array.as_primitive::<TimestampMillisecondType>();
            (array.value(row), array.value_as_datetime(row))
        }
        DataType::Timestamp(TimeUnit::Nanosecond, _) => {
            let array = array.as_primitive::<TimestampNanosecondType>();
            (array.value(row), array.value_as_datetime(row))
        }
        _ => {
            let array = array.as_primitive::<TimestampMicrosecondType>();
            (array.value(row), array.value_as_datetime(row))
        }
    };
    match time {
        Some(time) if utc => format!("{time:?}Z").into(),
        Some(time) => format!("{time:?}").into(),
        None => number.into(),
    }
}

fn list_to_json(item: &Field, values: &dyn Array) -> Value {
    (0..values.len()).map(|index| value_to_json(item, values, index)).collect()
}

fn float_to_json(value: f64) -> Value {
    match serde_json::Number::from_f64(value) {
        Some(number) => Value::Number(number),
        None => value.to_string().into(),
    }
}

fn hexadecimal(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::from("\\x"), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn values_keep_what_json_alone_would_lose() {
        let floats: ArrayRef = Arc::new(Float64Array::from(vec![f64::NAN, f64::NEG_INFINITY, 0.1]));
        let small: ArrayRef = Arc::new(Float32Array::from(vec![0.1_f32, 1.0, 2.5]));
        let bytes: ArrayRef = Arc::new(BinaryArray::from(vec![b"\x00\xff".as_ref(), b"", b"a"]));
        let batch =
            RecordBatch::try_from_iter([("float", floats), ("small", small), ("bytes", bytes)]).unwrap();
        assert_eq!(
            Value::from(row_to_json(&batch, 0)),
            json!({"float": "NaN", "small": 0.1, "bytes": "\\x00ff"})
        );
        assert_eq!(
            Value::from(row_to_json(&batch, 1)),
            json!({"float": "-inf", "small": 1.0, "bytes": "\\x"})
        );
    }

    #[test]
    fn times_are_iso_8601_whatever_their_unit_and_zone() {
        let shown = |array: ArrayRef| {
            let field = Field::new("at", array.data_type().clone(), true);
            value_to_json(&field, array.as_ref(), 0)
        };
        let micros = TimestampMicrosecondArray::from(vec![1_500_000]);
        assert_eq!(shown(Arc::new(micros.clone())), json!("1970-01-01T00:00:01.500"));
        assert_eq!(shown(Arc::new(micros.with_timezone("UTC"))), json!("1970-01-01T00:00:01.500Z"));
        let seconds = TimestampSecondArray::from(vec![-1]).with_timezone("Europe/Berlin");
        assert_eq!(shown(Arc::new(seconds)), json!("1969-12-31T23:59:59Z"));
        assert_eq!(shown(Arc::new(TimestampMicrosecondArray::from(vec![i64::MAX]))), json!(i64::MAX));
        assert_eq!(shown(Arc::new(Date32Array::from(vec![1]))), json!("1970-01-02"));
        assert_eq!(shown(Arc::new(Time64MicrosecondArray::from(vec![1]))), json!("00:00:00.000001"));
    }
}
