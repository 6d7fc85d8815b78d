//! Values of one Arrow type as another: equal, or not at all.
//!
//! An array is cast, and cast back: what comes back otherwise than it went doesn't fit. So values go to a column of another type,
//! and come from one, without being rounded, cut or read as something they are not.

use std::sync::Arc;

use arrow::array::*;
use arrow::compute::{CastOptions, SortOptions, cast_with_options};
use arrow::datatypes::*;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use barge_core::record::is_uuid;
use barge_core::{Error, ErrorKind, Result};
use uuid::Uuid;

/// An array in another type.
#[derive(Debug)]
pub(crate) struct Converted {
    /// The values; a misfit's may be anything.
    pub(crate) array: ArrayRef,
    /// The rows that don't fit, each once, in order, and why.
    pub(crate) misfits: Vec<(usize, String)>,
}

/// Makes an array one of another type.
///
/// # Errors
/// `Unsupported` where the two types have no values in common.
pub(crate) fn convert(array: &ArrayRef, from: &Field, to: &Field) -> Result<Converted> {
    let array = unpacked(array)?;
    let fits = |array| Ok(Converted { array, misfits: Vec::new() });
    if array.data_type() == to.data_type() {
        return fits(array);
    }
    if array.data_type().is_null() {
        return fits(new_null_array(to.data_type(), array.len()));
    }
    let from = from.clone().with_data_type(array.data_type().clone());
    if !have_common_values(&from, to) {
        return Err(mismatch(&from, to));
    }
    let converted = one_way(&array, &from, to)?;
    if never_loses(array.data_type(), to.data_type()) {
        return fits(converted);
    }
    let back = one_way(&converted, to, &from)?;
    let misfits = misfits(&array, &converted, &back, to)?;
    Ok(Converted { array: converted, misfits })
}

fn mismatch(from: &Field, to: &Field) -> Error {
    let message = format!(
        "values of type {} don't go with the type {}: change one of them",
        from.data_type(),
        to.data_type()
    );
    Error::new(ErrorKind::Unsupported, message).with_column(from.name())
}

/// An array without a dictionary or runs, of a type that arrow casts.
fn unpacked(array: &ArrayRef) -> Result<ArrayRef> {
    let plain = match array.data_type() {
        DataType::Dictionary(_, value) => value.as_ref().clone(),
        DataType::RunEndEncoded(_, value) => value.data_type().clone(),
        _ => return Ok(Arc::clone(array)),
    };
    unpacked(&arrow::compute::cast(array, &plain)?)
}

/// What sort of values a type has.
#[derive(PartialEq)]
enum Sort {
    Number,
    Text,
    Bytes,
    Uuid,
    Day,
    TimeOfDay,
    Moment,
    List,
    Other,
}

fn sort(field: &Field) -> Sort {
    use DataType::*;
    match field.data_type() {
        _ if is_uuid(field) => Sort::Uuid,
        Boolean => Sort::Number,
        number if number.is_numeric() => Sort::Number,
        Utf8 | LargeUtf8 | Utf8View => Sort::Text,
        Binary | LargeBinary | BinaryView | FixedSizeBinary(_) => Sort::Bytes,
        Date32 | Date64 => Sort::Day,
        Time32(_) | Time64(_) => Sort::TimeOfDay,
        Timestamp(..) => Sort::Moment,
        List(_) | LargeList(_) | FixedSizeList(..) | ListView(_) | LargeListView(_) => Sort::List,
        _ => Sort::Other,
    }
}

/// Text can be anything but a list; days are moments too; all else meets its own sort.
fn have_common_values(from: &Field, to: &Field) -> bool {
    use Sort::*;
    match (sort(from), sort(to)) {
        (Text, List) | (List, Text) | (Other, _) | (_, Other) => false,
        (Text, _) | (_, Text) | (Day, Moment) | (Moment, Day) | (Uuid, Bytes) | (Bytes, Uuid) => true,
        (from, to) => from == to,
    }
}

/// Casts that keep every value.
fn never_loses(from: &DataType, to: &DataType) -> bool {
    use DataType::*;
    let bits = |data_type: &DataType| data_type.primitive_width().unwrap_or(0);
    match (from, to) {
        (Utf8 | LargeUtf8 | Utf8View, Utf8 | LargeUtf8 | Utf8View)
        | (Binary | LargeBinary | BinaryView | FixedSizeBinary(_), Binary | LargeBinary | BinaryView)
        | (Float32, Float64) => true,
        (Timestamp(from, _), Timestamp(to, _)) => from == to,
        (from, to) if from.is_signed_integer() && to.is_signed_integer() => bits(from) <= bits(to),
        (from, to) if from.is_unsigned_integer() && to.is_integer() => {
            bits(from) < bits(to) || (to.is_unsigned_integer() && bits(from) == bits(to))
        }
        _ => false,
    }
}

/// Casts; what can't be becomes NULL.
fn one_way(array: &ArrayRef, from: &Field, to: &Field) -> Result<ArrayRef> {
    let options = CastOptions { safe: true, ..CastOptions::default() };
    let cast = |array: &dyn Array, data_type: &DataType| {
        cast_with_options(array, data_type, &options).map_err(|_| mismatch(from, to))
    };
    match (sort(from), sort(to)) {
        (Sort::Uuid, Sort::Text) => {
            let uuids = array.as_fixed_size_binary();
            let text: StringArray = uuids
                .iter()
                .map(|bytes| {
                    bytes.and_then(|bytes| Uuid::from_slice(bytes).ok()).map(|uuid| uuid.to_string())
                })
                .collect();
            cast(&text, to.data_type())
        }
        (Sort::Text, Sort::Uuid) => {
            let text = cast(array, &DataType::Utf8)?;
            let mut uuids = FixedSizeBinaryBuilder::with_capacity(text.len(), 16);
            for text in text.as_string::<i32>() {
                match text.and_then(|text| Uuid::try_parse(text).ok()) {
                    Some(uuid) => uuids.append_value(uuid.as_bytes())?,
                    None => uuids.append_null(),
                }
            }
            Ok(Arc::new(uuids.finish()))
        }
        // A moment is in UTC, whatever zone it is shown in, and so is a clock's time that comes to be one.
        (Sort::Moment, Sort::Moment) => {
            let zone = |data_type: &DataType| match data_type {
                DataType::Timestamp(unit, _) => DataType::Timestamp(*unit, None),
                other => other.clone(),
            };
            let plain = relabelled(array, &zone(array.data_type()))?;
            let plain = cast(&plain, &zone(to.data_type()))?;
            relabelled(&plain, to.data_type())
        }
        _ => cast(array, to.data_type()),
    }
}

/// The same numbers as timestamps of the same unit in another zone.
fn relabelled(array: &ArrayRef, to: &DataType) -> Result<ArrayRef> {
    let data = array.to_data().into_builder().data_type(to.clone()).build()?;
    Ok(make_array(data))
}

/// The rows whose values didn't come back as they went.
fn misfits(
    array: &ArrayRef,
    converted: &ArrayRef,
    back: &ArrayRef,
    to: &Field,
) -> Result<Vec<(usize, String)>> {
    let compare = make_comparator(array, back, SortOptions::default())?;
    let options = FormatOptions::default().with_null("NULL");
    let mut misfits = Vec::new();
    let mut shown = None;
    for row in 0..array.len() {
        // Only whole values are told apart from NULL: a list keeps its NULLs, or differs.
        if array.is_null(row) || (converted.is_valid(row) && compare(row, row).is_eq()) {
            continue;
        }
        if shown.is_none() {
            shown = Some((
                ArrayFormatter::try_new(array, &options)?,
                ArrayFormatter::try_new(converted, &options)?,
            ));
        }
        let Some((before, after)) = &shown else { continue };
        let value = shortened(&before.value(row).to_string());
        let message = match converted.is_valid(row) {
            true => format!("{value} would become {}", shortened(&after.value(row).to_string())),
            false => format!("{value} is no value of type {}", to.data_type()),
        };
        misfits.push((row, message));
    }
    Ok(misfits)
}

/// A value for a message.
pub(crate) fn shortened(value: &str) -> String {
    const CHARACTERS_MAX: usize = 60;
    match value.char_indices().nth(CHARACTERS_MAX) {
        Some((end, _)) => format!("'{}…'", &value[..end]),
        None => format!("'{value}'"),
    }
}
