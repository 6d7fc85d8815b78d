//! What can be known of a row before it is sent: NULLs where none is allowed, times that no store holds, malformed JSON.

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Date32Type, Int64Type, TimeUnit};

use super::{Operation, TableKind, Target};
use crate::record::{Role, is_json};
use crate::{Error, ErrorKind};

/// Microseconds from 1970 of 0001-01-01T00:00:00 and of 9999-12-31T23:59:59.999999.
const TIMES: std::ops::RangeInclusive<i64> = -62_135_596_800_000_000..=253_402_300_799_999_999;
/// The same in days.
const DATES: std::ops::RangeInclusive<i32> = -719_162..=2_932_896;

/// The rows that no store can hold equal, or that the table's NOT NULL columns refuse: each once, with its first reason, in
/// order.
pub fn check_values(target: &Target, batch: &RecordBatch) -> Vec<(usize, Error)> {
    let mut rejected: Vec<(usize, Error)> = Vec::new();
    for (index, array) in batch.columns().iter().enumerate() {
        let mut reject = |row: usize, kind: ErrorKind, message: String| {
            let error = Error::new(kind, message)
                .with_table(target.table().to_string())
                .with_column(target.columns[index].name());
            rejected.push((row, error));
        };
        if array.null_count() > 0 && refuses_null(target, index) {
            let nulls = array.logical_nulls();
            for row in (0..array.len()).filter(|&row| nulls.as_ref().is_some_and(|nulls| nulls.is_null(row)))
            {
                reject(row, ErrorKind::NotNullViolation, "the column allows no NULL".into());
            }
        }
        check_range(array, &mut reject);
        if is_json(&target.columns[index].field)
            && let Some(texts) = array.as_string_opt::<i32>()
        {
            for (row, text) in texts.iter().enumerate() {
                if let Some(Err(error)) = text.map(serde_json::from_str::<serde::de::IgnoredAny>) {
                    reject(row, ErrorKind::InvalidValue, format!("no JSON: {error}"));
                }
            }
        }
    }
    rejected.sort_by_key(|(row, _)| *row);
    rejected.dedup_by_key(|(row, _)| *row);
    rejected
}

/// Whether a NULL in the column can't be stored. A trigger may fill it in, so tables with triggers are left to the database.
fn refuses_null(target: &Target, index: usize) -> bool {
    let column = &target.columns[index];
    if column.is_key() && target.operation.is_keyed() {
        return true;
    }
    if column.role == Role::GeneratedKey {
        return false;
    }
    let Some(described) = target.described(index) else { return false };
    !described.nullable
        && !described.identity
        && target.description.triggers.is_empty()
        && target.description.kind == TableKind::Table
        && target.operation != Operation::Delete
}

fn check_range(array: &ArrayRef, reject: &mut impl FnMut(usize, ErrorKind, String)) {
    match array.data_type() {
        DataType::Timestamp(TimeUnit::Microsecond, _) => {
            let Ok(micros) = cast(array, &DataType::Int64) else { return };
            for (row, value) in micros.as_primitive::<Int64Type>().iter().enumerate() {
                if let Some(value) = value.filter(|value| !TIMES.contains(value)) {
                    let message = format!("{value} µs from 1970 is outside the years 1 to 9999");
                    reject(row, ErrorKind::InvalidValue, message);
                }
            }
        }
        DataType::Date32 => {
            for (row, value) in array.as_primitive::<Date32Type>().iter().enumerate() {
                if let Some(value) = value.filter(|value| !DATES.contains(value)) {
                    let message = format!("{value} days from 1970-01-01 is outside the years 1 to 9999");
                    reject(row, ErrorKind::InvalidValue, message);
                }
            }
        }
        _ => {}
    }
}
