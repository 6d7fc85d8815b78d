//! Lists read back from the JSON in which they are stored.

use std::sync::Arc;

use arrow::array::{ArrayRef, FixedSizeListArray, ListArray, StringArray};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::datatypes::{DataType, FieldRef};
use barge_core::record::is_json;
use barge_core::{Error, ErrorKind, Result};
use serde_json::Value as Json;

use super::column::ColumnReader;
use crate::statement::Value;

/// A list column from its JSON arrays.
pub(crate) fn array_of_json(field: &FieldRef, lists: &[Option<Json>]) -> Result<ArrayRef> {
    let lists: Vec<Option<&Json>> = lists.iter().map(Option::as_ref).collect();
    array_of(field, &lists)
}

fn array_of(field: &FieldRef, values: &[Option<&Json>]) -> Result<ArrayRef> {
    let misfit = |value: &Json| {
        let message = format!("{value} can't be read as {}", field.data_type());
        Error::new(ErrorKind::InvalidValue, message).with_column(field.name())
    };
    match field.data_type() {
        DataType::List(item) => {
            let (items, lengths) = flat(values).map_err(misfit)?;
            let items = array_of(item, &items)?;
            let nulls = NullBuffer::from_iter(values.iter().map(Option::is_some));
            let offsets = OffsetBuffer::from_lengths(lengths);
            Ok(Arc::new(ListArray::try_new(item.clone(), offsets, items, Some(nulls))?))
        }
        DataType::FixedSizeList(item, length) => {
            let size = usize::try_from(*length).unwrap_or(0);
            let mut items: Vec<Option<&Json>> = Vec::with_capacity(values.len() * size);
            for value in values {
                match value {
                    None => items.extend(std::iter::repeat_n(None, size)),
                    Some(Json::Array(list)) if list.len() == size => items.extend(list.iter().map(not_null)),
                    Some(other) => return Err(misfit(other)),
                }
            }
            let items = array_of(item, &items)?;
            let nulls = NullBuffer::from_iter(values.iter().map(Option::is_some));
            Ok(Arc::new(FixedSizeListArray::try_new(item.clone(), *length, items, Some(nulls))?))
        }
        _ if is_json(field) => {
            // Every element is a document; a null is one too, unless the list can hold NULL.
            let documents: StringArray = values
                .iter()
                .map(|value| match value {
                    Some(value) => Some(value.to_string()),
                    None if field.is_nullable() => None,
                    None => Some(Json::Null.to_string()),
                })
                .collect();
            Ok(Arc::new(documents))
        }
        _ => {
            let mut reader = ColumnReader::new(Arc::clone(field))?;
            for value in values {
                append(&mut reader, *value).map_err(|_| misfit(value.unwrap_or(&Json::Null)))?;
            }
            reader.finish()
        }
    }
}

/// The elements of all lists, one after another, and the lists' lengths.
fn flat<'a>(values: &[Option<&'a Json>]) -> Result<(Vec<Option<&'a Json>>, Vec<usize>), &'a Json> {
    let (mut items, mut lengths) = (Vec::new(), Vec::with_capacity(values.len()));
    for value in values {
        match value {
            None => lengths.push(0),
            Some(Json::Array(list)) => {
                lengths.push(list.len());
                items.extend(list.iter().map(not_null));
            }
            Some(other) => return Err(other),
        }
    }
    Ok((items, lengths))
}

fn not_null(value: &Json) -> Option<&Json> {
    (!value.is_null()).then_some(value)
}

fn append(reader: &mut ColumnReader, value: Option<&Json>) -> Result<(), String> {
    match value {
        None => reader.append(Value::Null),
        Some(Json::Bool(value)) => reader.append(Value::Integer((*value).into())),
        Some(Json::Number(number)) => match number.as_i64() {
            Some(integer) => reader.append(Value::Integer(integer)),
            // As its digits, from which an f32 and an integer above i64::MAX are read exactly.
            None => reader.append(Value::Text(number.to_string().as_bytes())),
        },
        Some(Json::String(text)) => match text.strip_prefix("\\x").filter(|_| reader.is_binary()) {
            Some(digits) => match bytes_of(digits) {
                Some(bytes) => reader.append(Value::Blob(&bytes)),
                None => Err("no hexadecimal digits".into()),
            },
            None => reader.append(Value::Text(text.as_bytes())),
        },
        Some(nested) => reader.append(Value::Text(nested.to_string().as_bytes())),
    }
}

fn bytes_of(digits: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> =
        digits.chars().map(|digit| digit.to_digit(16).map(|digit| digit as u8)).collect();
    let digits = digits?;
    (digits.len() % 2 == 0).then(|| digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect())
}
