//! Which rows can't be stored so that they come back equal.

use std::sync::Arc;

use arrow::array::*;
use arrow::compute::cast;
use arrow::datatypes::*;
use barge_core::record::is_json;
use barge_core::store::Target;
use barge_core::{Error, ErrorKind, Result};

use crate::apply::no_drawn_keys;
use crate::convert::{convert, shortened};
use crate::types::{DuckType, Kind};

/// The rows that can't be stored equal: each once, with its first reason, in order.
pub(crate) fn check(target: &Target, batch: &RecordBatch) -> Vec<(usize, Error)> {
    let mut rejected: Vec<(usize, Error)> = Vec::new();
    for (index, array) in batch.columns().iter().enumerate() {
        let Some(described) = target.described(index) else { continue };
        let column = &target.columns[index];
        let own = DuckType::parse(&described.declared_type);
        let named = |row: usize, error: Error| {
            let error = error.with_table(target.table().to_string()).with_column(column.name());
            (row, error.with_row(row as u64))
        };
        match misfits(array, &column.field, &own, target.generated() == Some(index)) {
            Ok(misfits) => rejected.extend(
                misfits
                    .into_iter()
                    .map(|(row, message)| named(row, Error::new(ErrorKind::InvalidValue, message))),
            ),
            // The types have no values in common, so no row can be stored.
            Err(error) => rejected.extend((0..batch.num_rows()).map(|row| named(row, error.clone()))),
        }
    }
    rejected.sort_by_key(|(row, _)| *row);
    rejected.dedup_by_key(|(row, _)| *row);
    rejected
}

/// The rows of a column that its type can't hold, and why.
fn misfits(array: &ArrayRef, field: &Field, own: &DuckType, generated: bool) -> Result<Vec<(usize, String)>> {
    let converted = convert(array, field, &own.field(field.name()))?;
    let mut misfits = converted.misfits;
    misfits.extend(beyond_type(&converted.array));
    let mut check_text = |problem: &dyn Fn(&str) -> Option<String>| {
        let texts = cast(&converted.array, &DataType::Utf8)?;
        for (row, text) in texts.as_string::<i32>().iter().enumerate() {
            if let Some(problem) = text.and_then(problem) {
                misfits.push((row, problem));
            }
        }
        Ok::<_, Error>(())
    };
    match &own.kind {
        Kind::Enum(labels) => check_text(&|text| {
            let known = labels.iter().any(|label| label == text);
            (!known).then(|| format!("{} is none of {}", shortened(text), shortened(&labels.join(", "))))
        })?,
        Kind::Json if !is_json(field) => check_text(&no_json)?,
        Kind::List(item, _) if item.kind == Kind::Json => {
            let (items, rows) = items(&converted.array);
            let texts = cast(&items, &DataType::Utf8)?;
            for (text, row) in texts.as_string::<i32>().iter().zip(rows) {
                misfits.extend(text.and_then(no_json).map(|problem| (row, problem)));
            }
        }
        Kind::Huge { signed: false } => {
            for (row, value) in converted.array.as_primitive::<Decimal128Type>().iter().enumerate() {
                if value.is_some_and(|value| value < 0) {
                    misfits.push((row, "the column holds no negative numbers".into()));
                }
            }
        }
        _ => {}
    }
    if generated {
        let keys = cast(array, &DataType::Int64)?;
        misfits.extend(no_drawn_keys(array, &keys));
    }
    misfits.sort_by_key(|(row, _)| *row);
    misfits.dedup_by_key(|(row, _)| *row);
    misfits.retain(|(row, _)| array.is_valid(*row));
    Ok(misfits)
}

/// What the ends of the range are to DuckDB.
const INFINITE: &str = "an infinite date or timestamp, which can't be read again";

fn no_json(text: &str) -> Option<String> {
    let parsed = serde_json::from_str::<serde::de::IgnoredAny>(text);
    parsed.err().map(|error| format!("no JSON: {error}"))
}

/// The rows with numbers that an array of the type can hold, but the type can't: DuckDB takes them as they are.
fn beyond_type(array: &ArrayRef) -> Vec<(usize, String)> {
    let of_day = |units: i64| move |time: i64| !(0..86_400 * units).contains(&time);
    match array.data_type() {
        DataType::Decimal128(precision, _) if *precision < 38 => {
            let most = 10i128.pow(u32::from(*precision)) - 1;
            let digits = format!("more than {precision} digits");
            wrong(array.as_primitive::<Decimal128Type>(), |value| value.abs() > most, &digits)
        }
        DataType::Time64(TimeUnit::Microsecond) => {
            wrong(array.as_primitive::<Time64MicrosecondType>(), of_day(1_000_000), "no time of a day")
        }
        DataType::Date32 => {
            let is_end = |days: i32| [i32::MAX, -i32::MAX].contains(&days);
            wrong(array.as_primitive::<Date32Type>(), is_end, INFINITE)
        }
        DataType::Timestamp(..) => {
            let Ok(numbers) = cast(array, &DataType::Int64) else { return Vec::new() };
            let is_end = |number: i64| [i64::MAX, -i64::MAX].contains(&number);
            wrong(numbers.as_primitive::<Int64Type>(), is_end, INFINITE)
        }
        DataType::List(_) | DataType::FixedSizeList(..) => {
            let (items, rows) = items(array);
            beyond_type(&items).into_iter().map(|(item, problem)| (rows[item], problem)).collect()
        }
        _ => Vec::new(),
    }
}

fn wrong<T: ArrowPrimitiveType>(
    array: &PrimitiveArray<T>,
    is_wrong: impl Fn(T::Native) -> bool,
    problem: &str,
) -> Vec<(usize, String)> {
    let rows = array.iter().enumerate().filter(|(_, value)| value.is_some_and(&is_wrong));
    rows.map(|(row, value)| (row, format!("{:?}: {problem}", value.unwrap_or_default()))).collect()
}

/// The items of lists, and the row of each.
fn items(array: &ArrayRef) -> (ArrayRef, Vec<usize>) {
    match array.data_type() {
        DataType::List(_) => {
            let lists = array.as_list::<i32>();
            let (start, end) = (lists.value_offsets()[0], lists.value_offsets()[lists.len()]);
            let rows =
                (0..lists.len()).flat_map(|row| std::iter::repeat_n(row, lists.value_length(row) as usize));
            (lists.values().slice(start as usize, (end - start) as usize), rows.collect())
        }
        DataType::FixedSizeList(_, length) => {
            let length = *length as usize;
            let rows = (0..array.len()).flat_map(|row| std::iter::repeat_n(row, length)).collect();
            (Arc::clone(array.as_fixed_size_list().values()), rows)
        }
        _ => (new_empty_array(&DataType::Utf8), Vec::new()),
    }
}
