//! Columns made plain: each type of Arrow that stores don't know becomes one they know, or is refused when the file is
//! opened.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, RecordBatch, RecordBatchOptions, StringBuilder, new_null_array,
};
use arrow::compute::{CastOptions, can_cast_types, cast_with_options, concat, filter_record_batch};
use arrow::datatypes::{
    DataType, Date64Type, Field, FieldRef, Float32Type, Float64Type, Schema, SchemaRef, Time64NanosecondType,
    TimeUnit, TimestampNanosecondType,
};
use arrow::error::ArrowError;
use arrow::json::writer::{EncoderOptions, make_encoder};
use barge_core::{Error, ErrorKind, Result};

use crate::text::kind::{EXTENSION_NAME, JSON, UUID};

const MICROSECOND: TimeUnit = TimeUnit::Microsecond;
const MILLIS_A_DAY: i64 = 86_400_000;

/// How each column of a file becomes plain.
pub(crate) struct Plain {
    schema: SchemaRef,
    /// The field as the file has it, and the steps to take.
    columns: Vec<(FieldRef, Vec<Step>)>,
}

#[derive(Clone, Debug, PartialEq)]
enum Step {
    Cast(DataType),
    Json,
}

/// A row, a column and a reason.
pub(crate) type Fault = (usize, String, String);

impl Plain {
    /// # Errors
    /// `Unsupported`: a column's type has no plain counterpart.
    pub(crate) fn new(file: &str, schema: &Schema) -> Result<Plain> {
        let mut fields = Vec::new();
        let mut columns = Vec::new();
        for field in schema.fields() {
            let steps = steps(field, field.data_type()).ok_or_else(|| {
                let (name, data_type) = (field.name(), field.data_type());
                let message = format!(
                    "{file}, column {name}: values of type {data_type} cannot be loaded, nor written as text: make text of them before"
                );
                Error::new(ErrorKind::Unsupported, message)
            })?;
            fields.push(plain_field(field, &steps));
            columns.push((field.clone(), steps));
        }
        let schema = Arc::new(Schema::new_with_metadata(fields, schema.metadata().clone()));
        Ok(Plain { schema, columns })
    }

    pub(crate) fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// Makes a batch plain. Rows with a value that has no plain form are left out: gives for each row whether
    /// it stayed, and why the others did not.
    pub(crate) fn convert(&self, batch: &RecordBatch) -> Result<(RecordBatch, Vec<bool>, Vec<Fault>)> {
        let rows = batch.num_rows();
        let (mut ok, mut faults) = (vec![true; rows], Vec::new());
        let mut arrays = Vec::with_capacity(self.columns.len());
        for ((field, steps), array) in self.columns.iter().zip(batch.columns()) {
            let mut array = array.clone();
            for step in steps {
                array = step.run(field, array, |row, reason| {
                    if std::mem::replace(&mut ok[row], false) {
                        faults.push((row, field.name().clone(), reason));
                    }
                })?;
            }
            arrays.push(array);
        }
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        let mut plain = RecordBatch::try_new_with_options(self.schema.clone(), arrays, &options)?;
        if !faults.is_empty() {
            plain = filter_record_batch(&plain, &BooleanArray::from(ok.clone()))?;
            faults.sort_by_key(|(row, _, _)| *row);
        }
        Ok((plain, ok, faults))
    }
}

impl Step {
    fn run(
        &self,
        field: &FieldRef,
        array: ArrayRef,
        mut reject: impl FnMut(usize, String),
    ) -> Result<ArrayRef, ArrowError> {
        let target = match self {
            Step::Json => {
                if !is_finite(&array) {
                    let rows = (0..array.len()).filter(|&row| !is_finite(&array.slice(row, 1)));
                    rows.for_each(|row| reject(row, "JSON has neither NaN nor infinities".into()));
                }
                return json(field, &array);
            }
            Step::Cast(target) => target,
        };
        if *array.data_type() == DataType::Date64 {
            for (row, value) in array.as_primitive::<Date64Type>().iter().enumerate() {
                if let Some(value) = value.filter(|value| value % MILLIS_A_DAY != 0) {
                    reject(row, format!("{value} ms is a date with a time of day, which a date cannot hold"));
                }
            }
        }
        for row in rows_with_nanoseconds(&array) {
            reject(row, "it has nanoseconds, and times are kept to the microsecond: round it before".into());
        }
        let options = CastOptions { safe: false, ..CastOptions::default() };
        if let Ok(cast) = cast_with_options(&array, target, &options) {
            return Ok(cast);
        }
        // Some value does not fit. Row by row, so that only the rows concerned are lost.
        let mut parts = Vec::with_capacity(array.len());
        for row in 0..array.len() {
            parts.push(cast_with_options(&array.slice(row, 1), target, &options).unwrap_or_else(|error| {
                reject(row, format!("the value does not fit {target}: {error}"));
                new_null_array(target, 1)
            }));
        }
        concat(&parts.iter().map(AsRef::as_ref).collect::<Vec<_>>())
    }
}

/// The rows with times of which a microsecond isn't the end, also in lists. Casting would cut them off.
fn rows_with_nanoseconds(array: &ArrayRef) -> Vec<usize> {
    let finer = |value: Option<i64>| value.is_some_and(|value| value % 1_000 != 0);
    let has_some = |items: &ArrayRef| !rows_with_nanoseconds(items).is_empty();
    let in_lists = |all: &ArrayRef, list: &dyn Fn(usize) -> ArrayRef| match has_some(all) {
        true => (0..array.len()).filter(|&row| array.is_valid(row) && has_some(&list(row))).collect(),
        false => Vec::new(),
    };
    match array.data_type() {
        DataType::Timestamp(TimeUnit::Nanosecond, _) => {
            let times = array.as_primitive::<TimestampNanosecondType>();
            (0..array.len()).filter(|&row| finer(times.is_valid(row).then(|| times.value(row)))).collect()
        }
        DataType::Time64(TimeUnit::Nanosecond) => {
            let times = array.as_primitive::<Time64NanosecondType>();
            (0..array.len()).filter(|&row| finer(times.is_valid(row).then(|| times.value(row)))).collect()
        }
        DataType::List(_) => {
            in_lists(array.as_list::<i32>().values(), &|row| array.as_list::<i32>().value(row))
        }
        DataType::LargeList(_) => {
            in_lists(array.as_list::<i64>().values(), &|row| array.as_list::<i64>().value(row))
        }
        DataType::FixedSizeList(..) => {
            let lists = array.as_fixed_size_list();
            in_lists(lists.values(), &|row| lists.value(row))
        }
        _ => Vec::new(),
    }
}

/// Whether all numbers inside nested values are some that JSON has. It would be given null for the others.
fn is_finite(array: &ArrayRef) -> bool {
    let within = |items: &ArrayRef, offsets: &[i32]| {
        let (first, last) = (offsets[0] as usize, offsets[offsets.len() - 1] as usize);
        is_finite(&items.slice(first, last - first))
    };
    match array.data_type() {
        DataType::Float32 => array.as_primitive::<Float32Type>().iter().flatten().all(f32::is_finite),
        DataType::Float64 => array.as_primitive::<Float64Type>().iter().flatten().all(f64::is_finite),
        DataType::Struct(_) => array.as_struct().columns().iter().all(is_finite),
        DataType::List(_) => within(array.as_list::<i32>().values(), array.as_list::<i32>().value_offsets()),
        DataType::FixedSizeList(..) => is_finite(array.as_fixed_size_list().values()),
        DataType::Map(..) => {
            let (map, entries) = (array.as_map(), array.as_map().entries());
            entries.columns().iter().all(|column| within(column, map.value_offsets()))
        }
        _ => true,
    }
}

/// Whether there are bytes inside nested values. JSON has digits for them, which nobody reads as bytes again.
pub(crate) fn has_bytes_inside(data_type: &DataType) -> bool {
    let is_bytes = |field: &FieldRef| match field.data_type() {
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => {
            true
        }
        nested => has_bytes_inside(nested),
    };
    match data_type {
        DataType::Struct(fields) => fields.iter().any(is_bytes),
        DataType::Map(entries, _) => has_bytes_inside(entries.data_type()),
        DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) => {
            has_bytes_inside(item.data_type())
        }
        _ => false,
    }
}

/// Nested values as JSON text.
fn json(field: &FieldRef, array: &ArrayRef) -> Result<ArrayRef, ArrowError> {
    let field = Arc::new(field.as_ref().clone().with_data_type(array.data_type().clone()));
    let options = EncoderOptions::default().with_explicit_nulls(true);
    let mut encoder = make_encoder(&field, array.as_ref(), &options)?;
    let mut texts = StringBuilder::with_capacity(array.len(), array.len() * 64);
    let mut text = Vec::new();
    for row in 0..array.len() {
        if array.is_null(row) {
            texts.append_null();
            continue;
        }
        text.clear();
        encoder.encode(row, &mut text);
        let text = std::str::from_utf8(&text).map_err(|error| ArrowError::JsonError(error.to_string()))?;
        texts.append_value(text);
    }
    Ok(Arc::new(texts.finish()))
}

fn plain_field(field: &FieldRef, steps: &[Step]) -> FieldRef {
    let mut plain = field.as_ref().clone().with_nullable(true);
    match steps.last() {
        None => {}
        Some(Step::Cast(data_type)) => plain = plain.with_data_type(data_type.clone()),
        Some(Step::Json) => {
            let mut metadata = field.metadata().clone();
            metadata.insert(EXTENSION_NAME.to_owned(), JSON.to_owned());
            plain = plain.with_data_type(DataType::Utf8).with_metadata(metadata);
        }
    }
    Arc::new(plain)
}

/// The steps that make a type plain; none where it is already; `None` where nothing does.
fn steps(field: &Field, data_type: &DataType) -> Option<Vec<Step>> {
    let to = |target: DataType| can_cast_types(data_type, &target).then(|| vec![Step::Cast(target)]);
    match data_type {
        DataType::Boolean
        | DataType::Int8
        | DataType::Int16
        | DataType::Int32
        | DataType::Int64
        | DataType::UInt8
        | DataType::UInt16
        | DataType::UInt32
        | DataType::UInt64
        | DataType::Float32
        | DataType::Float64
        | DataType::Decimal128(..)
        | DataType::Utf8
        | DataType::Binary
        | DataType::Date32
        | DataType::Time64(MICROSECOND)
        | DataType::Timestamp(MICROSECOND, _) => Some(Vec::new()),
        DataType::FixedSizeBinary(16) if is_uuid(field) => Some(Vec::new()),
        DataType::FixedSizeBinary(_) | DataType::LargeBinary | DataType::BinaryView => to(DataType::Binary),
        DataType::LargeUtf8 | DataType::Utf8View | DataType::Null => to(DataType::Utf8),
        DataType::Float16 => to(DataType::Float32),
        DataType::Date64 => to(DataType::Date32),
        DataType::Time32(_) | DataType::Time64(_) => to(DataType::Time64(MICROSECOND)),
        DataType::Timestamp(_, zone) => to(DataType::Timestamp(MICROSECOND, zone.clone())),
        DataType::Decimal32(precision, scale) | DataType::Decimal64(precision, scale) => {
            to(DataType::Decimal128(*precision, *scale))
        }
        DataType::Decimal256(precision, scale) if (-38..=38).contains(scale) => {
            to(DataType::Decimal128((*precision).min(38), *scale))
        }
        DataType::Struct(_) | DataType::Map(..) => Some(vec![Step::Json]),
        DataType::Dictionary(_, values) => {
            let mut unpacked = vec![Step::Cast(values.as_ref().clone())];
            unpacked.extend(steps(field, values)?);
            Some(unpacked)
        }
        DataType::List(item)
        | DataType::LargeList(item)
        | DataType::FixedSizeList(item, _)
        | DataType::ListView(item)
        | DataType::LargeListView(item) => list_steps(data_type, item),
        _ => None,
    }
}

fn list_steps(list: &DataType, item: &FieldRef) -> Option<Vec<Step>> {
    let item_steps = steps(item, item.data_type())?;
    if item_steps.contains(&Step::Json) {
        return Some(vec![Step::Json]);
    }
    let plain_item = match item_steps.last() {
        Some(Step::Cast(data_type)) => Arc::new(item.as_ref().clone().with_data_type(data_type.clone())),
        _ => item.clone(),
    };
    let target = match list {
        DataType::FixedSizeList(_, length) => DataType::FixedSizeList(plain_item, *length),
        _ => DataType::List(plain_item),
    };
    if target == *list {
        return Some(Vec::new());
    }
    can_cast_types(list, &target).then(|| vec![Step::Cast(target)])
}

fn is_uuid(field: &Field) -> bool {
    field.metadata().get(EXTENSION_NAME).is_some_and(|name| name == UUID)
}
