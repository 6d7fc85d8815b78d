//! Lists made to fit a column of arrays: their items are fitted all at once.

use std::sync::Arc;

use arrow::array::*;
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::compute::cast;
use arrow::datatypes::*;
use barge_core::{Error, ErrorKind, Result};

use super::check::Rejected;
use super::{fit, mismatch};
use crate::types::PgType;

/// The lists of an array, whatever kind of list they are.
struct Lists {
    item: FieldRef,
    items: ArrayRef,
    /// Where each list begins and ends among the items; the first begins at 0.
    offsets: OffsetBuffer<i32>,
    nulls: Option<NullBuffer>,
}

/// Fits lists to a column whose elements are of a type.
///
/// # Errors
/// `Unsupported` for lists of lists.
pub(super) fn fit_lists(
    array: &ArrayRef,
    field: &Field,
    to: &PgType,
    element: &PgType,
    rejected: &mut Rejected,
) -> Result<ArrayRef> {
    let Some(lists) = lists(array)? else { return Err(mismatch(field, to)) };
    if lists.item.data_type().is_nested() {
        let message = format!(
            "a {} can't be stored in a column of type {}: an array of PostgreSQL has one dimension here; keep nested lists as jsonb",
            field.data_type(),
            to.sql
        );
        return Err(Error::new(ErrorKind::Unsupported, message).with_column(field.name()));
    }
    // Documents in lists weren't checked before, so the items count as plain text.
    let item = match lists.item.data_type() {
        DataType::Utf8 => Field::new(lists.item.name(), DataType::Utf8, true),
        _ => lists.item.as_ref().clone(),
    };
    let fitted = fit(&lists.items, &item, element).map_err(|error| error.with_column(field.name()))?;
    for (index, message) in fitted.rejected {
        let row = lists.offsets.partition_point(|offset| *offset as usize <= index) - 1;
        if lists.nulls.as_ref().is_none_or(|nulls| nulls.is_valid(row)) {
            let place = index - lists.offsets[row] as usize;
            rejected.push((row, format!("element {place}: {message}")));
        }
    }
    let item = element.field(Field::LIST_FIELD_DEFAULT_NAME).with_data_type(fitted.array.data_type().clone());
    Ok(Arc::new(ListArray::try_new(Arc::new(item), lists.offsets, fitted.array, lists.nulls)?))
}

fn lists(array: &ArrayRef) -> Result<Option<Lists>> {
    Ok(Some(match array.data_type() {
        DataType::List(item) => {
            let lists = array.as_list::<i32>();
            let (first, end) = (lists.value_offsets()[0], lists.value_offsets()[lists.len()]);
            let offsets: Vec<i32> = lists.value_offsets().iter().map(|offset| offset - first).collect();
            Lists {
                item: Arc::clone(item),
                items: lists.values().slice(first as usize, (end - first) as usize),
                offsets: OffsetBuffer::new(offsets.into()),
                nulls: lists.nulls().cloned(),
            }
        }
        DataType::LargeList(item) => {
            // Fails only where a list begins beyond 2³¹ items.
            return lists(&cast(array, &DataType::List(Arc::clone(item)))?);
        }
        DataType::FixedSizeList(item, length) => {
            let lists = array.as_fixed_size_list();
            let length = usize::try_from(*length).unwrap_or(0);
            Lists {
                item: Arc::clone(item),
                items: Arc::clone(lists.values()),
                offsets: OffsetBuffer::from_lengths(std::iter::repeat_n(length, lists.len())),
                nulls: lists.nulls().cloned(),
            }
        }
        _ => return Ok(None),
    }))
}
