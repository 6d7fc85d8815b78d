//! Values gathered into one Arrow array.

use std::sync::Arc;

use arrow::array::*;
use arrow::buffer::OffsetBuffer;
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::*;
use barge_core::{Error, ErrorKind, Result};

use crate::fit::number::{POWERS, parts};
use crate::fit::value::{Form, Value};

/// Gathers the values of a column, or of the items of a list.
pub(crate) struct Builder {
    field: FieldRef,
    values: Values,
}

enum Values {
    Boolean(BooleanBuilder),
    Int8(Int8Builder),
    Int16(Int16Builder),
    Int32(Int32Builder),
    Int64(Int64Builder),
    UInt8(UInt8Builder),
    UInt16(UInt16Builder),
    UInt32(UInt32Builder),
    UInt64(UInt64Builder),
    Float32(Float32Builder),
    Float64(Float64Builder),
    Text(StringBuilder),
    Binary(BinaryBuilder),
    FixedBinary(FixedSizeBinaryBuilder),
    Date(Date32Builder),
    Time(Time64MicrosecondBuilder),
    Timestamp(TimestampMicrosecondBuilder),
    Decimal { builder: Decimal128Builder, precision: u8, scale: i8 },
    WideDecimal { builder: Decimal256Builder, scale: i8 },
    List(Box<List>),
}

/// The lists of a column: all their items, and where each list ends.
struct List {
    items: Builder,
    ends: Vec<i32>,
    valid: NullBufferBuilder,
    /// How many items each must have, where the type says it.
    length: Option<usize>,
}

impl Builder {
    /// A builder of a field's type.
    ///
    /// # Errors
    /// `Unsupported` for a type that no value of PostgreSQL is read as.
    pub(crate) fn new(field: FieldRef) -> Result<Self> {
        let Some(values) = Values::new(&base_type(field.data_type()), &field)? else {
            let message = format!("nothing in PostgreSQL is read as {}", field.data_type());
            return Err(Error::new(ErrorKind::Unsupported, message).with_column(field.name()));
        };
        Ok(Builder { field, values })
    }

    pub(crate) fn field(&self) -> &FieldRef {
        &self.field
    }

    /// What the values must be to be appended; nothing for lists.
    pub(crate) fn form(&self) -> Option<Form> {
        match self.field.data_type() {
            DataType::Dictionary(_, value) => {
                Form::of_arrow(&self.field.as_ref().clone().with_data_type(value.as_ref().clone()))
            }
            _ => Form::of_arrow(&self.field),
        }
    }

    /// The items of lists.
    pub(crate) fn items(&mut self) -> Option<&mut Builder> {
        match &mut self.values {
            Values::List(list) => Some(&mut list.items),
            _ => None,
        }
    }

    /// Ends a list of the items appended since the last one. Nothing where it has the wrong length, or all of them are too many.
    pub(crate) fn end_list(&mut self) -> Option<()> {
        let Values::List(list) = &mut self.values else { return None };
        let end = i32::try_from(list.items.len()).ok()?;
        let length = (end - list.ends.last().copied().unwrap_or(0)) as usize;
        list.length.is_none_or(|wanted| wanted == length).then_some(())?;
        list.ends.push(end);
        list.valid.append_non_null();
        Some(())
    }

    /// The scale and precision, where it gathers decimals of 128 bits.
    pub(crate) fn decimal(&self) -> Option<(u8, i8)> {
        match &self.values {
            Values::Decimal { precision, scale, .. } => Some((*precision, *scale)),
            _ => None,
        }
    }

    /// Appends an integer of 10^-scale; nothing where it has too many digits.
    pub(crate) fn append_scaled(&mut self, value: i128) -> Option<()> {
        let Values::Decimal { builder, precision, .. } = &mut self.values else { return None };
        (value.unsigned_abs() < POWERS[usize::from(*precision)].unsigned_abs())
            .then(|| builder.append_value(value))
    }

    pub(crate) fn append_null(&mut self) {
        match &mut self.values {
            Values::Boolean(builder) => builder.append_null(),
            Values::Int8(builder) => builder.append_null(),
            Values::Int16(builder) => builder.append_null(),
            Values::Int32(builder) => builder.append_null(),
            Values::Int64(builder) => builder.append_null(),
            Values::UInt8(builder) => builder.append_null(),
            Values::UInt16(builder) => builder.append_null(),
            Values::UInt32(builder) => builder.append_null(),
            Values::UInt64(builder) => builder.append_null(),
            Values::Float32(builder) => builder.append_null(),
            Values::Float64(builder) => builder.append_null(),
            Values::Text(builder) => builder.append_null(),
            Values::Binary(builder) => builder.append_null(),
            Values::FixedBinary(builder) => builder.append_null(),
            Values::Date(builder) => builder.append_null(),
            Values::Time(builder) => builder.append_null(),
            Values::Timestamp(builder) => builder.append_null(),
            Values::Decimal { builder, .. } => builder.append_null(),
            Values::WideDecimal { builder, .. } => builder.append_null(),
            Values::List(list) => {
                for _ in 0..list.length.unwrap_or(0) {
                    list.items.append_null();
                }
                // As many items as were counted before.
                list.ends.push(list.items.len() as i32);
                list.valid.append_null();
            }
        }
    }

    /// Appends a value that has the builder's form; nothing where it hasn't.
    #[inline]
    pub(crate) fn append(&mut self, value: Value<'_>) -> Option<()> {
        match (&mut self.values, value) {
            (Values::Int64(builder), Value::Int(value)) => builder.append_value(value.try_into().ok()?),
            (Values::Text(builder), Value::Text(text) | Value::Number(text)) => {
                let room = i32::MAX as usize - builder.values_slice().len();
                (text.len() <= room).then(|| builder.append_value(&text))?;
            }
            (Values::Float64(builder), Value::Double(value)) => builder.append_value(value),
            (Values::Boolean(builder), Value::Bool(value)) => builder.append_value(value),
            (Values::Int8(builder), Value::Int(value)) => builder.append_value(value.try_into().ok()?),
            (Values::Int16(builder), Value::Int(value)) => builder.append_value(value.try_into().ok()?),
            (Values::Int32(builder), Value::Int(value)) => builder.append_value(value.try_into().ok()?),
            (Values::UInt8(builder), Value::Int(value)) => builder.append_value(value.try_into().ok()?),
            (Values::UInt16(builder), Value::Int(value)) => builder.append_value(value.try_into().ok()?),
            (Values::UInt32(builder), Value::Int(value)) => builder.append_value(value.try_into().ok()?),
            (Values::UInt64(builder), Value::Int(value)) => builder.append_value(value.try_into().ok()?),
            (Values::Float32(builder), Value::Single(value)) => builder.append_value(value),
            (Values::Binary(builder), Value::Bytes(bytes)) => {
                let room = i32::MAX as usize - builder.values_slice().len();
                (bytes.len() <= room).then(|| builder.append_value(&bytes))?;
            }
            (Values::FixedBinary(builder), Value::Bytes(bytes)) => builder.append_value(&bytes).ok()?,
            (Values::FixedBinary(builder), Value::Uuid(bytes)) => builder.append_value(bytes).ok()?,
            (Values::Date(builder), Value::Date(days)) => builder.append_value(days),
            (Values::Time(builder), Value::Time(micros)) => builder.append_value(micros),
            (Values::Timestamp(builder), Value::Timestamp { micros, .. }) => builder.append_value(micros),
            (Values::Decimal { scale, .. }, Value::Number(literal)) => {
                let scale = (*scale).into();
                self.append_scaled(crate::fit::number::scaled(&literal, scale)?)?;
            }
            (Values::WideDecimal { builder, scale }, Value::Number(literal)) => {
                builder.append_value(wide(&literal, *scale)?);
            }
            _ => return None,
        }
        Some(())
    }

    /// How many values were appended.
    pub(crate) fn len(&self) -> usize {
        match &self.values {
            Values::Boolean(builder) => builder.len(),
            Values::Int8(builder) => builder.len(),
            Values::Int16(builder) => builder.len(),
            Values::Int32(builder) => builder.len(),
            Values::Int64(builder) => builder.len(),
            Values::UInt8(builder) => builder.len(),
            Values::UInt16(builder) => builder.len(),
            Values::UInt32(builder) => builder.len(),
            Values::UInt64(builder) => builder.len(),
            Values::Float32(builder) => builder.len(),
            Values::Float64(builder) => builder.len(),
            Values::Text(builder) => builder.len(),
            Values::Binary(builder) => builder.len(),
            Values::FixedBinary(builder) => builder.len(),
            Values::Date(builder) => builder.len(),
            Values::Time(builder) => builder.len(),
            Values::Timestamp(builder) => builder.len(),
            Values::Decimal { builder, .. } => builder.len(),
            Values::WideDecimal { builder, .. } => builder.len(),
            Values::List(list) => list.ends.len(),
        }
    }

    /// The values so far as an array of the field's type; the builder is empty again.
    pub(crate) fn finish(&mut self) -> Result<ArrayRef> {
        let array = self.values.finish(&self.field)?;
        if array.data_type() == self.field.data_type() {
            return Ok(array);
        }
        let options = CastOptions { safe: false, ..CastOptions::default() };
        cast_with_options(&array, self.field.data_type(), &options)
            .map_err(|error| Error::from(error).with_column(self.field.name()))
    }
}

impl Values {
    fn new(base: &DataType, field: &Field) -> Result<Option<Self>> {
        Ok(Some(match base {
            DataType::Boolean => Values::Boolean(BooleanBuilder::new()),
            DataType::Int8 => Values::Int8(Int8Builder::new()),
            DataType::Int16 => Values::Int16(Int16Builder::new()),
            DataType::Int32 => Values::Int32(Int32Builder::new()),
            DataType::Int64 => Values::Int64(Int64Builder::new()),
            DataType::UInt8 => Values::UInt8(UInt8Builder::new()),
            DataType::UInt16 => Values::UInt16(UInt16Builder::new()),
            DataType::UInt32 => Values::UInt32(UInt32Builder::new()),
            DataType::UInt64 => Values::UInt64(UInt64Builder::new()),
            DataType::Float32 => Values::Float32(Float32Builder::new()),
            DataType::Float64 => Values::Float64(Float64Builder::new()),
            DataType::Utf8 => Values::Text(StringBuilder::new()),
            DataType::Binary => Values::Binary(BinaryBuilder::new()),
            DataType::FixedSizeBinary(width) => Values::FixedBinary(FixedSizeBinaryBuilder::new(*width)),
            DataType::Date32 => Values::Date(Date32Builder::new()),
            DataType::Time64(_) => Values::Time(Time64MicrosecondBuilder::new()),
            DataType::Timestamp(..) => {
                Values::Timestamp(TimestampMicrosecondBuilder::new().with_data_type(base.clone()))
            }
            &DataType::Decimal128(precision, scale) => {
                let builder = Decimal128Builder::new().with_data_type(base.clone());
                Values::Decimal { builder, precision, scale }
            }
            &DataType::Decimal256(_, scale) => {
                let builder = Decimal256Builder::new().with_data_type(base.clone());
                Values::WideDecimal { builder, scale }
            }
            DataType::List(item) => Values::list(item, None)?,
            DataType::FixedSizeList(item, length) => Values::list(item, usize::try_from(*length).ok())?,
            _ => return Ok(None),
        }))
        .map_err(|error: Error| error.with_column(field.name()))
    }

    fn list(item: &FieldRef, length: Option<usize>) -> Result<Self> {
        let (items, valid) = (Builder::new(Arc::clone(item))?, NullBufferBuilder::new(0));
        Ok(Values::List(Box::new(List { items, ends: Vec::new(), valid, length })))
    }

    fn finish(&mut self, field: &Field) -> Result<ArrayRef> {
        Ok(match self {
            Values::Boolean(builder) => Arc::new(builder.finish()),
            Values::Int8(builder) => Arc::new(builder.finish()),
            Values::Int16(builder) => Arc::new(builder.finish()),
            Values::Int32(builder) => Arc::new(builder.finish()),
            Values::Int64(builder) => Arc::new(builder.finish()),
            Values::UInt8(builder) => Arc::new(builder.finish()),
            Values::UInt16(builder) => Arc::new(builder.finish()),
            Values::UInt32(builder) => Arc::new(builder.finish()),
            Values::UInt64(builder) => Arc::new(builder.finish()),
            Values::Float32(builder) => Arc::new(builder.finish()),
            Values::Float64(builder) => Arc::new(builder.finish()),
            Values::Text(builder) => Arc::new(builder.finish()),
            Values::Binary(builder) => Arc::new(builder.finish()),
            Values::FixedBinary(builder) => Arc::new(builder.finish()),
            Values::Date(builder) => Arc::new(builder.finish()),
            Values::Time(builder) => Arc::new(builder.finish()),
            Values::Timestamp(builder) => Arc::new(builder.finish()),
            Values::Decimal { builder, .. } => Arc::new(builder.finish()),
            Values::WideDecimal { builder, .. } => Arc::new(builder.finish()),
            Values::List(list) => {
                return list.finish().map_err(|error| error.with_column(field.name()));
            }
        })
    }
}

impl List {
    fn finish(&mut self) -> Result<ArrayRef> {
        let (item, items) = (Arc::clone(self.items.field()), self.items.finish()?);
        let (ends, valid) = (std::mem::take(&mut self.ends), self.valid.finish());
        Ok(match self.length {
            Some(length) => Arc::new(FixedSizeListArray::try_new_with_length(
                item,
                length as i32,
                items,
                valid,
                ends.len(),
            )?),
            None => {
                let offsets: Vec<i32> = std::iter::once(0).chain(ends).collect();
                Arc::new(ListArray::try_new(item, OffsetBuffer::new(offsets.into()), items, valid)?)
            }
        })
    }
}

/// The type that is gathered, which the array is then cast to its own from without loss.
fn base_type(data_type: &DataType) -> DataType {
    use DataType::*;
    match data_type {
        LargeUtf8 | Utf8View => Utf8,
        LargeBinary | BinaryView => Binary,
        Date64 => Date32,
        Time32(_) | Time64(_) => Time64(TimeUnit::Microsecond),
        Timestamp(_, timezone) => Timestamp(TimeUnit::Microsecond, timezone.clone()),
        Decimal32(precision, scale) | Decimal64(precision, scale) => Decimal128(*precision, *scale),
        LargeList(item) => List(Arc::clone(item)),
        Dictionary(_, value) => base_type(value),
        other => other.clone(),
    }
}

/// A literal of the form's precision and scale as an integer of 256 bits.
fn wide(literal: &str, scale: i8) -> Option<i256> {
    let parts = parts(literal)?;
    let mut digits = if parts.negative { String::from("-") } else { String::new() };
    digits.push_str(parts.whole);
    digits.push_str(parts.fraction);
    if scale < 0 && parts.whole != "0" {
        digits.truncate(digits.len().checked_sub(scale.unsigned_abs().into())?);
    }
    i256::from_string(&digits)
}
