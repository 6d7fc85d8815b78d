//! Arrow arrays to text: each value as the readers take it back, by the same [`Kind`]s.

use std::io::Write;
use std::ops::Range;

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, BooleanArray, Date32Array, Decimal128Array, FixedSizeBinaryArray,
    FixedSizeListArray, Float32Array, Float64Array, Int64Array, ListArray, StringArray,
    Time64MicrosecondArray, TimestampMicrosecondArray, UInt64Array,
};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Date32Type, Decimal128Type, DecimalType, Float32Type, Float64Type};
use arrow::datatypes::{Int64Type, Time64MicrosecondType, TimeUnit, TimestampMicrosecondType, UInt64Type};
use arrow::error::ArrowError;
use arrow::temporal_conversions::{date32_to_datetime, time64us_to_time, timestamp_us_to_datetime};
use serde::de::IgnoredAny;

use super::kind::Kind;

/// 0001-01-01 and 9999-12-31, the first and the last day that text is read for.
const DAYS: Range<i32> = -719_162..2_932_897;
const MICROS_A_DAY: i64 = 86_400_000_000;

/// The values of a column.
pub(crate) struct Values {
    array: ArrayRef,
    cells: Cells,
}

enum Cells {
    Boolean(BooleanArray),
    Int(Int64Array),
    UInt(UInt64Array),
    Float32(Float32Array),
    Float64(Float64Array),
    Decimal(Decimal128Array),
    Text(StringArray),
    Json(StringArray),
    Binary(BinaryArray),
    FixedBinary(FixedSizeBinaryArray),
    Uuid(FixedSizeBinaryArray),
    Date(Date32Array),
    Time(Time64MicrosecondArray),
    Timestamp { values: TimestampMicrosecondArray, utc: bool },
    List(ListArray, Box<Values>),
    FixedList(FixedSizeListArray, Box<Values>),
}

/// Why a value has no text: what follows "the value".
pub(crate) type Unwritable = String;

impl Values {
    /// The values of an array, whose type is the kind's.
    pub(crate) fn new(kind: &Kind, array: &ArrayRef) -> Result<Values, ArrowError> {
        let cells = match kind {
            Kind::Boolean => Cells::Boolean(array.as_boolean().clone()),
            Kind::Int8 | Kind::Int16 | Kind::Int32 | Kind::Int64 => {
                Cells::Int(cast(array, &DataType::Int64)?.as_primitive::<Int64Type>().clone())
            }
            Kind::UInt8 | Kind::UInt16 | Kind::UInt32 | Kind::UInt64 => {
                Cells::UInt(cast(array, &DataType::UInt64)?.as_primitive::<UInt64Type>().clone())
            }
            Kind::Float32 => Cells::Float32(array.as_primitive::<Float32Type>().clone()),
            Kind::Float64 => Cells::Float64(array.as_primitive::<Float64Type>().clone()),
            Kind::Decimal { .. } => Cells::Decimal(array.as_primitive::<Decimal128Type>().clone()),
            Kind::Text => Cells::Text(array.as_string().clone()),
            Kind::Json => Cells::Json(array.as_string().clone()),
            Kind::Binary => Cells::Binary(array.as_binary().clone()),
            Kind::FixedBinary(_) => Cells::FixedBinary(array.as_fixed_size_binary().clone()),
            Kind::Uuid => Cells::Uuid(array.as_fixed_size_binary().clone()),
            Kind::Date => Cells::Date(array.as_primitive::<Date32Type>().clone()),
            Kind::Time => Cells::Time(array.as_primitive::<Time64MicrosecondType>().clone()),
            // Other units were made plain before, or refused.
            Kind::Timestamp { zone, .. } => {
                let micros = cast(array, &DataType::Timestamp(TimeUnit::Microsecond, zone.clone()))?;
                Cells::Timestamp {
                    values: micros.as_primitive::<TimestampMicrosecondType>().clone(),
                    utc: zone.is_some(),
                }
            }
            Kind::List { item, length: None } => {
                let list = array.as_list::<i32>();
                Cells::List(list.clone(), Box::new(Values::new(&item.kind, list.values())?))
            }
            Kind::List { item, length: Some(_) } => {
                let list = array.as_fixed_size_list();
                Cells::FixedList(list.clone(), Box::new(Values::new(&item.kind, list.values())?))
            }
        };
        Ok(Values { array: array.clone(), cells })
    }

    #[inline]
    pub(crate) fn is_null(&self, row: usize) -> bool {
        self.array.is_null(row)
    }

    /// Adds a value that is not NULL, as bare text.
    pub(crate) fn append_text(&self, row: usize, out: &mut Vec<u8>) -> Result<(), Unwritable> {
        match &self.cells {
            Cells::Boolean(values) => {
                out.extend_from_slice(if values.value(row) { b"true" } else { b"false" })
            }
            Cells::Int(values) => append(out, format_args!("{}", values.value(row))),
            Cells::UInt(values) => append(out, format_args!("{}", values.value(row))),
            // The shortest text that is read back as the same float.
            Cells::Float32(values) => append(out, format_args!("{:?}", values.value(row))),
            Cells::Float64(values) => append(out, format_args!("{:?}", values.value(row))),
            Cells::Decimal(values) => {
                let text =
                    Decimal128Type::format_decimal(values.value(row), values.precision(), values.scale());
                out.extend_from_slice(text.as_bytes());
            }
            Cells::Text(values) | Cells::Json(values) => out.extend_from_slice(values.value(row).as_bytes()),
            Cells::Binary(values) => append_hexadecimal(out, values.value(row)),
            Cells::FixedBinary(values) => append_hexadecimal(out, values.value(row)),
            Cells::Uuid(values) => append_uuid(out, values.value(row)),
            Cells::Date(values) => return append_date(out, values.value(row)),
            Cells::Time(values) => return append_time(out, values.value(row)),
            Cells::Timestamp { values, utc } => return append_timestamp(out, values.value(row), *utc),
            Cells::List(..) | Cells::FixedList(..) => return self.append_json(row, out),
        }
        Ok(())
    }

    /// Adds a value as JSON.
    pub(crate) fn append_json(&self, row: usize, out: &mut Vec<u8>) -> Result<(), Unwritable> {
        if self.is_null(row) {
            out.extend_from_slice(b"null");
            return Ok(());
        }
        let is_bare = match &self.cells {
            Cells::Boolean(_) | Cells::Int(_) | Cells::UInt(_) => true,
            Cells::Float32(values) => values.value(row).is_finite(),
            Cells::Float64(values) => values.value(row).is_finite(),
            Cells::Text(values) => {
                return serde_json::to_writer(out, values.value(row)).map_err(|error| error.to_string());
            }
            Cells::Json(values) => return embed(out, values.value(row)),
            Cells::Binary(values) => {
                append_json_bytes(out, values.value(row));
                return Ok(());
            }
            Cells::FixedBinary(values) => {
                append_json_bytes(out, values.value(row));
                return Ok(());
            }
            Cells::List(list, items) => {
                let ends = list.value_offsets();
                return append_list(out, items, ends[row] as usize..ends[row + 1] as usize);
            }
            Cells::FixedList(list, items) => {
                let first = list.value_offset(row) as usize;
                return append_list(out, items, first..first + list.value_length() as usize);
            }
            _ => false,
        };
        if is_bare {
            return self.append_text(row, out);
        }
        // What is left holds nothing that JSON would escape.
        out.push(b'"');
        self.append_text(row, out)?;
        out.push(b'"');
        Ok(())
    }
}

fn append(out: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    // Writing to memory can't fail.
    let _ = out.write_fmt(text);
}

const HEXADECIMAL: &[u8; 16] = b"0123456789abcdef";

fn append_digits(out: &mut Vec<u8>, bytes: &[u8]) {
    for byte in bytes {
        out.extend_from_slice(&[HEXADECIMAL[usize::from(byte >> 4)], HEXADECIMAL[usize::from(byte & 15)]]);
    }
}

fn append_hexadecimal(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(b"\\x");
    append_digits(out, bytes);
}

/// The same in JSON, where a backslash is written twice.
fn append_json_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    out.extend_from_slice(b"\"\\\\x");
    append_digits(out, bytes);
    out.push(b'"');
}

fn append_uuid(out: &mut Vec<u8>, bytes: &[u8]) {
    for (index, group) in [0..4, 4..6, 6..8, 8..10, 10..16].into_iter().enumerate() {
        if index > 0 {
            out.push(b'-');
        }
        append_digits(out, &bytes[group]);
    }
}

fn append_date(out: &mut Vec<u8>, days: i32) -> Result<(), Unwritable> {
    match date32_to_datetime(days).filter(|_| DAYS.contains(&days)) {
        Some(date) => append(out, format_args!("{}", date.date())),
        None => return Err(format!("is {days} days from 1970-01-01, which is not in the years 1 to 9999")),
    }
    Ok(())
}

fn append_time(out: &mut Vec<u8>, micros: i64) -> Result<(), Unwritable> {
    match time64us_to_time(micros).filter(|_| (0..MICROS_A_DAY).contains(&micros)) {
        Some(time) => append(out, format_args!("{time:?}")),
        None => return Err(format!("is {micros} µs after midnight, which is no time of day")),
    }
    Ok(())
}

fn append_timestamp(out: &mut Vec<u8>, micros: i64, utc: bool) -> Result<(), Unwritable> {
    let days = i32::try_from(micros.div_euclid(MICROS_A_DAY)).ok().filter(|days| DAYS.contains(days));
    match timestamp_us_to_datetime(micros).filter(|_| days.is_some()) {
        Some(time) => append(out, format_args!("{time:?}{}", if utc { "Z" } else { "" })),
        None => return Err(format!("is {micros} µs from 1970-01-01, which is not in the years 1 to 9999")),
    }
    Ok(())
}

/// JSON text as a part of a line: line breaks in it are white space, and become blanks.
fn embed(out: &mut Vec<u8>, text: &str) -> Result<(), Unwritable> {
    if serde_json::from_str::<IgnoredAny>(text).is_err() {
        return Err("is not valid JSON".into());
    }
    if text.trim_ascii() == "null" {
        return Err(
            "is the JSON null, which here can't be told from NULL: write CSV, Parquet or Arrow IPC".into()
        );
    }
    out.extend(text.bytes().map(|byte| if matches!(byte, b'\n' | b'\r') { b' ' } else { byte }));
    Ok(())
}

fn append_list(out: &mut Vec<u8>, items: &Values, range: Range<usize>) -> Result<(), Unwritable> {
    out.push(b'[');
    for index in range.clone() {
        if index > range.start {
            out.push(b',');
        }
        items.append_json(index, out).map_err(|reason| format!("has an item that {reason}"))?;
    }
    out.push(b']');
    Ok(())
}
