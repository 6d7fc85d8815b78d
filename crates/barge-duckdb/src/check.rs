//! Which rows can't be stored so that they come back equal.

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Decimal128Type, Field};
use barge_core::record::is_json;
use barge_core::store::Target;
use barge_core::{Error, ErrorKind, Result};

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
        match misfits(array, &column.field, &own) {
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
fn misfits(array: &ArrayRef, field: &Field, own: &DuckType) -> Result<Vec<(usize, String)>> {
    let converted = convert(array, field, &own.field(field.name()))?;
    let mut misfits = converted.misfits;
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
        Kind::Json if !is_json(field) => check_text(&|text| {
            let parsed = serde_json::from_str::<serde::de::IgnoredAny>(text);
            parsed.err().map(|error| format!("no JSON: {error}"))
        })?,
        Kind::Huge { signed: false } => {
            for (row, value) in converted.array.as_primitive::<Decimal128Type>().iter().enumerate() {
                if value.is_some_and(|value| value < 0) {
                    misfits.push((row, "the column holds no negative numbers".into()));
                }
            }
        }
        _ => {}
    }
    misfits.sort_by_key(|(row, _)| *row);
    misfits.dedup_by_key(|(row, _)| *row);
    misfits.retain(|(row, _)| array.is_valid(*row));
    Ok(misfits)
}
