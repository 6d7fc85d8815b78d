//! One result column on its way into an Arrow array.

use std::sync::Arc;

use arrow::array::*;
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::*;
use barge_core::record::is_uuid;
use barge_core::{Error, ErrorKind, Result};

use crate::read::convert::{
    Misfit, append_vector, as_str, boolean, decimal, integer, real, shown, single, text, utf8,
};
use crate::read::json::array_of_json;
use crate::statement::Value;
use crate::temporal::{parse_date, parse_time, parse_timestamp, parse_uuid};

/// Gathers the values of a column.
pub(crate) struct ColumnReader {
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
    /// Checked to be UTF-8 at the end, all at once.
    Text(BinaryBuilder),
    Binary(BinaryBuilder),
    FixedBinary(FixedSizeBinaryBuilder, usize),
    Uuid(FixedSizeBinaryBuilder),
    Date(Date32Builder),
    Time(Time64MicrosecondBuilder),
    Timestamp {
        builder: TimestampMicrosecondBuilder,
        utc: bool,
    },
    Decimal {
        builder: Decimal128Builder,
        precision: u8,
        scale: i8,
    },
    Vectors(ListBuilder<Float32Builder>),
    FixedVectors(FixedSizeListBuilder<Float32Builder>, usize),
    /// Lists of other types: the JSON texts, made a list at the end.
    Json(Vec<Option<serde_json::Value>>),
    /// A type that the array is cast to from another of these.
    Cast(Box<ColumnReader>),
    /// A column whose type its first values decide.
    Undecided(Vec<Owned>),
}

/// A value kept until its column's type is known.
enum Owned {
    Null,
    Integer(i64),
    Real(f64),
    Text(Vec<u8>),
    Blob(Vec<u8>),
}

impl ColumnReader {
    /// A reader of a column's type.
    ///
    /// # Errors
    /// `Unsupported` for a type that SQLite can't hold.
    pub(crate) fn new(field: FieldRef) -> Result<Self> {
        Ok(ColumnReader { values: Values::new(&field)?, field })
    }

    /// A reader that takes the type of the first values.
    pub(crate) fn undecided(name: String) -> Self {
        ColumnReader {
            field: Arc::new(Field::new(name, DataType::Utf8, true)),
            values: Values::Undecided(Vec::new()),
        }
    }

    /// Makes room for rows that are sure to come.
    pub(crate) fn reserve(&mut self, rows: usize) {
        match &mut self.values {
            Values::Int64(builder) => *builder = Int64Builder::with_capacity(rows),
            Values::Float64(builder) => *builder = Float64Builder::with_capacity(rows),
            Values::Text(builder) => *builder = BinaryBuilder::with_capacity(rows, rows * 16),
            _ => {}
        }
    }

    /// Whether it holds bytes that are no text.
    pub(crate) fn is_binary(&self) -> bool {
        matches!(self.values, Values::Binary(_) | Values::FixedBinary(..))
    }

    pub(crate) fn name(&self) -> &str {
        self.field.name()
    }

    /// The column's field; its type is final once the first batch was taken.
    pub(crate) fn field(&self) -> FieldRef {
        Arc::clone(&self.field)
    }

    /// Appends a value.
    ///
    /// # Errors
    /// What it is and what was wanted.
    #[inline]
    pub(crate) fn append(&mut self, value: Value<'_>) -> Result<(), Misfit> {
        match (&mut self.values, value) {
            (Values::Int64(builder), Value::Integer(value)) => builder.append_value(value),
            (Values::Float64(builder), Value::Real(value)) => builder.append_value(value),
            (Values::Text(builder), Value::Text(value)) => builder.append_value(value),
            (Values::Undecided(values), value) => values.push(value.into()),
            (values, Value::Null) => values.append_null(),
            (values, value) => values.append(value).ok_or_else(|| {
                let extension = if is_uuid(&self.field) { " (a UUID)" } else { "" };
                format!("{} can't be read as {}{extension}", shown(value), self.field.data_type())
            })?,
        }
        Ok(())
    }

    /// The values so far as an array.
    pub(crate) fn finish(&mut self) -> Result<ArrayRef> {
        if let Values::Undecided(values) = &mut self.values {
            let values = std::mem::take(values);
            self.field = Arc::new(Field::new(self.field.name(), type_of(&values), true));
            self.values = Values::new(&self.field)?;
            for (row, value) in values.iter().enumerate() {
                self.append(value.into()).map_err(|message| self.misfit(message).with_row(row as u64))?;
            }
        }
        let array = self.values.finish(&self.field)?;
        if array.data_type() == self.field.data_type() {
            return Ok(array);
        }
        let options = CastOptions { safe: false, ..CastOptions::default() };
        cast_with_options(&array, self.field.data_type(), &options)
            .map_err(|error| self.misfit(error.to_string()))
    }

    fn misfit(&self, message: String) -> Error {
        Error::new(ErrorKind::InvalidValue, message).with_column(self.name())
    }
}

/// Texts of bytes that SQLite calls text.
fn texts(field: &Field, bytes: BinaryArray) -> Result<StringArray> {
    let (offsets, values, nulls) = bytes.clone().into_parts();
    StringArray::try_new(offsets, values, nulls).map_err(|error| {
        let misfit = bytes.iter().enumerate().find_map(|(row, bytes)| Some((row, utf8(bytes?).err()?)));
        let (row, message) = misfit.unwrap_or_else(|| (0, error.to_string()));
        Error::new(ErrorKind::InvalidValue, message).with_column(field.name()).with_row(row as u64)
    })
}

impl Values {
    fn new(field: &FieldRef) -> Result<Self> {
        Ok(match field.data_type() {
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
            DataType::Utf8 => Values::Text(BinaryBuilder::new()),
            DataType::Binary => Values::Binary(BinaryBuilder::new()),
            DataType::FixedSizeBinary(16) if is_uuid(field) => Values::Uuid(FixedSizeBinaryBuilder::new(16)),
            DataType::FixedSizeBinary(width) => {
                let size = usize::try_from(*width).unwrap_or(0);
                Values::FixedBinary(FixedSizeBinaryBuilder::new(*width), size)
            }
            DataType::Date32 => Values::Date(Date32Builder::new()),
            DataType::Time64(TimeUnit::Microsecond) => Values::Time(Time64MicrosecondBuilder::new()),
            DataType::Timestamp(TimeUnit::Microsecond, timezone) => Values::Timestamp {
                builder: TimestampMicrosecondBuilder::new().with_data_type(field.data_type().clone()),
                utc: timezone.is_some(),
            },
            &DataType::Decimal128(precision, scale) => Values::Decimal {
                builder: Decimal128Builder::new().with_data_type(field.data_type().clone()),
                precision,
                scale,
            },
            DataType::List(item) if item.data_type() == &DataType::Float32 => {
                Values::Vectors(ListBuilder::new(Float32Builder::new()).with_field(item.clone()))
            }
            DataType::FixedSizeList(item, length) if item.data_type() == &DataType::Float32 => {
                let builder = FixedSizeListBuilder::new(Float32Builder::new(), *length);
                Values::FixedVectors(builder.with_field(item.clone()), usize::try_from(*length).unwrap_or(0))
            }
            DataType::List(_) | DataType::FixedSizeList(..) => Values::Json(Vec::new()),
            other => {
                let base = base_type(other).ok_or_else(|| {
                    Error::new(ErrorKind::Unsupported, format!("SQLite holds no values of type {other}"))
                        .with_column(field.name())
                })?;
                let base = Field::new(field.name(), base, true);
                Values::Cast(Box::new(ColumnReader::new(Arc::new(base))?))
            }
        })
    }

    fn append_null(&mut self) {
        match self {
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
            Values::FixedBinary(builder, _) | Values::Uuid(builder) => builder.append_null(),
            Values::Date(builder) => builder.append_null(),
            Values::Time(builder) => builder.append_null(),
            Values::Timestamp { builder, .. } => builder.append_null(),
            Values::Decimal { builder, .. } => builder.append_null(),
            Values::Vectors(builder) => builder.append_null(),
            Values::FixedVectors(builder, length) => {
                builder.values().append_value_n(0.0, *length);
                builder.append(false);
            }
            Values::Json(values) => values.push(None),
            Values::Cast(inner) => inner.values.append_null(),
            Values::Undecided(values) => values.push(Owned::Null),
        }
    }

    /// Appends what isn't NULL; `None` where it doesn't fit.
    fn append(&mut self, value: Value<'_>) -> Option<()> {
        macro_rules! integer {
            ($builder:ident) => {
                $builder.append_value(integer(value)?.try_into().ok()?)
            };
        }
        match self {
            Values::Boolean(builder) => builder.append_value(boolean(value)?),
            Values::Int8(builder) => integer!(builder),
            Values::Int16(builder) => integer!(builder),
            Values::Int32(builder) => integer!(builder),
            Values::Int64(builder) => integer!(builder),
            Values::UInt8(builder) => integer!(builder),
            Values::UInt16(builder) => integer!(builder),
            Values::UInt32(builder) => integer!(builder),
            Values::UInt64(builder) => integer!(builder),
            Values::Float32(builder) => builder.append_value(single(value)?),
            Values::Float64(builder) => builder.append_value(real(value)?),
            Values::Text(builder) => builder.append_value(text(value)?.as_bytes()),
            Values::Binary(builder) => match value {
                Value::Blob(bytes) | Value::Text(bytes) => builder.append_value(bytes),
                _ => return None,
            },
            Values::FixedBinary(builder, size) => match value {
                Value::Blob(bytes) if bytes.len() == *size => builder.append_value(bytes).ok()?,
                _ => return None,
            },
            Values::Uuid(builder) => match value {
                Value::Blob(bytes) if bytes.len() == 16 => builder.append_value(bytes).ok()?,
                value => builder.append_value(parse_uuid(as_str(value)?)?).ok()?,
            },
            Values::Date(builder) => builder.append_value(parse_date(as_str(value)?)?),
            Values::Time(builder) => builder.append_value(parse_time(as_str(value)?)?),
            Values::Timestamp { builder, utc } => {
                let text = as_str(value)?;
                let (micros, has_offset) = parse_timestamp(text)?;
                // A wall-clock time has no offset; "Z" at most, which moves nothing.
                if !*utc && has_offset && !text.ends_with(['Z', 'z', 'C']) {
                    return None;
                }
                builder.append_value(micros);
            }
            Values::Decimal { builder, precision, scale } => {
                builder.append_value(decimal(value, *precision, *scale)?);
            }
            Values::Vectors(builder) => {
                append_vector(builder.values(), value, None)?;
                builder.append(true);
            }
            Values::FixedVectors(builder, length) => {
                append_vector(builder.values(), value, Some(*length))?;
                builder.append(true);
            }
            Values::Json(values) => match serde_json::from_str(as_str(value)?).ok()? {
                list @ serde_json::Value::Array(_) => values.push(Some(list)),
                _ => return None,
            },
            Values::Cast(inner) => return inner.append(value).ok(),
            Values::Undecided(values) => values.push(value.into()),
        }
        Some(())
    }

    fn finish(&mut self, field: &FieldRef) -> Result<ArrayRef> {
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
            Values::Text(builder) => Arc::new(texts(field, builder.finish())?),
            Values::Binary(builder) => Arc::new(builder.finish()),
            Values::FixedBinary(builder, _) | Values::Uuid(builder) => Arc::new(builder.finish()),
            Values::Date(builder) => Arc::new(builder.finish()),
            Values::Time(builder) => Arc::new(builder.finish()),
            Values::Timestamp { builder, .. } => Arc::new(builder.finish()),
            Values::Decimal { builder, .. } => Arc::new(builder.finish()),
            Values::Vectors(builder) => Arc::new(builder.finish()),
            Values::FixedVectors(builder, _) => Arc::new(builder.finish()),
            Values::Json(values) => array_of_json(field, &std::mem::take(values))?,
            Values::Cast(inner) => return inner.finish(),
            Values::Undecided(_) => new_null_array(&DataType::Utf8, 0),
        })
    }
}

/// The type that can hold every value: integers, reals with integers among them, text with numbers among it, blobs.
fn type_of(values: &[Owned]) -> DataType {
    let any = |test: fn(&Owned) -> bool| values.iter().any(test);
    if any(|value| matches!(value, Owned::Blob(_))) {
        DataType::Binary
    } else if any(|value| matches!(value, Owned::Text(_))) {
        DataType::Utf8
    } else if any(|value| matches!(value, Owned::Real(_))) {
        DataType::Float64
    } else if any(|value| matches!(value, Owned::Integer(_))) {
        DataType::Int64
    } else {
        DataType::Utf8
    }
}

/// The type as which a column is read that is then cast to another.
fn base_type(data_type: &DataType) -> Option<DataType> {
    use DataType::*;
    Some(match data_type {
        Null => Utf8,
        LargeUtf8 | Utf8View => Utf8,
        LargeBinary | BinaryView => Binary,
        Float16 => Float32,
        Date64 => Date32,
        Time32(_) | Time64(_) => Time64(TimeUnit::Microsecond),
        Timestamp(_, timezone) => Timestamp(TimeUnit::Microsecond, timezone.clone()),
        Decimal32(precision, scale) | Decimal64(precision, scale) => Decimal128(*precision, *scale),
        LargeList(item) => List(item.clone()),
        Dictionary(_, value) => value.as_ref().clone(),
        _ => return None,
    })
}

impl From<Value<'_>> for Owned {
    fn from(value: Value<'_>) -> Self {
        match value {
            Value::Null => Owned::Null,
            Value::Integer(value) => Owned::Integer(value),
            Value::Real(value) => Owned::Real(value),
            Value::Text(bytes) => Owned::Text(bytes.to_vec()),
            Value::Blob(bytes) => Owned::Blob(bytes.to_vec()),
        }
    }
}

impl<'a> From<&'a Owned> for Value<'a> {
    fn from(value: &'a Owned) -> Self {
        match value {
            Owned::Null => Value::Null,
            Owned::Integer(value) => Value::Integer(*value),
            Owned::Real(value) => Value::Real(*value),
            Owned::Text(bytes) => Value::Text(bytes),
            Owned::Blob(bytes) => Value::Blob(bytes),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(data_type: DataType, value: Value<'_>) -> Result<ArrayRef, Misfit> {
        let mut reader = ColumnReader::new(Arc::new(Field::new("x", data_type, true))).unwrap();
        reader.append(value)?;
        reader.finish().map_err(|error| error.to_string())
    }

    #[test]
    fn numbers_are_read_across_storage_classes_only_without_loss() {
        assert_eq!(read(DataType::Int64, Value::Text(b"12")).unwrap().as_ref(), &Int64Array::from(vec![12]));
        assert_eq!(read(DataType::Int64, Value::Real(3.0)).unwrap().as_ref(), &Int64Array::from(vec![3]));
        assert!(read(DataType::Int64, Value::Real(3.5)).unwrap_err().contains("3.5"));
        assert!(read(DataType::Int8, Value::Integer(128)).is_err());
        assert!(read(DataType::Float64, Value::Integer((1 << 53) + 1)).is_err());
        assert!(read(DataType::Float32, Value::Real(0.1)).is_err());
        assert_eq!(read(DataType::Utf8, Value::Integer(5)).unwrap().as_ref(), &StringArray::from(vec!["5"]));
        assert!(read(DataType::Utf8, Value::Text(b"\xff")).unwrap_err().contains("UTF-8"));
        assert!(read(DataType::Boolean, Value::Integer(2)).is_err());
    }

    #[test]
    fn wall_clock_times_take_no_offset() {
        let naive = DataType::Timestamp(TimeUnit::Microsecond, None);
        assert!(read(naive.clone(), Value::Text(b"2024-01-02 03:04:05")).is_ok());
        assert!(read(naive, Value::Text(b"2024-01-02 03:04:05+01:00")).is_err());
        let utc = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
        assert!(read(utc, Value::Text(b"2024-01-02 03:04:05+01:00")).is_ok());
    }
}
