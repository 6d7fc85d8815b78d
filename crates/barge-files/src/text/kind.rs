//! The types that text can be parsed as, and the columns of a text file.

use std::fmt;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, Schema, TimeUnit};
use barge_core::{Error, ErrorKind, Result};

use crate::names::suggestion;
use crate::options::ReadOptions;

pub(crate) const EXTENSION_NAME: &str = "ARROW:extension:name";
pub(crate) const UUID: &str = "arrow.uuid";
pub(crate) const JSON: &str = "arrow.json";

/// What a value must be to stand in a column.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Kind {
    Boolean,
    Int8,
    Int16,
    Int32,
    Int64,
    UInt8,
    UInt16,
    UInt32,
    UInt64,
    Float32,
    Float64,
    Decimal { precision: u8, scale: i8 },
    Text,
    Json,
    Binary,
    FixedBinary(i32),
    Uuid,
    Date,
    Time,
    Timestamp { unit: TimeUnit, zone: Option<Arc<str>> },
    List { item: Box<Column>, length: Option<i32> },
}

/// Who says that the column has this type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// The first rows of the file, so many.
    Sample(usize),
    /// The caller or the target table.
    Told,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Column {
    pub(crate) field: FieldRef,
    pub(crate) kind: Kind,
    pub(crate) origin: Origin,
}

impl Kind {
    /// The kind of a field.
    ///
    /// # Errors
    /// `Unsupported`: text cannot be parsed as the field's type.
    pub(crate) fn of_field(field: &Field) -> Result<Kind> {
        let extension = field.metadata().get(EXTENSION_NAME).map(String::as_str);
        Ok(match field.data_type() {
            DataType::Boolean => Kind::Boolean,
            DataType::Int8 => Kind::Int8,
            DataType::Int16 => Kind::Int16,
            DataType::Int32 => Kind::Int32,
            DataType::Int64 => Kind::Int64,
            DataType::UInt8 => Kind::UInt8,
            DataType::UInt16 => Kind::UInt16,
            DataType::UInt32 => Kind::UInt32,
            DataType::UInt64 => Kind::UInt64,
            DataType::Float32 => Kind::Float32,
            DataType::Float64 => Kind::Float64,
            DataType::Decimal128(precision, scale) => Kind::Decimal { precision: *precision, scale: *scale },
            DataType::Utf8 if extension == Some(JSON) => Kind::Json,
            DataType::Utf8 => Kind::Text,
            DataType::Binary => Kind::Binary,
            DataType::FixedSizeBinary(16) if extension == Some(UUID) => Kind::Uuid,
            DataType::FixedSizeBinary(bytes) => Kind::FixedBinary(*bytes),
            DataType::Date32 => Kind::Date,
            DataType::Time64(TimeUnit::Microsecond) => Kind::Time,
            DataType::Timestamp(unit, zone) => Kind::Timestamp { unit: *unit, zone: zone.clone() },
            DataType::List(item) => Kind::List { item: Box::new(Column::told(item.clone())?), length: None },
            DataType::FixedSizeList(item, length) => {
                Kind::List { item: Box::new(Column::told(item.clone())?), length: Some(*length) }
            }
            other => {
                let message = format!("column {}: text cannot be read as {other}", field.name());
                return Err(Error::new(ErrorKind::Unsupported, message));
            }
        })
    }

    /// The Arrow type. A list's has the item's field as it was given.
    pub(crate) fn data_type(&self) -> DataType {
        match self {
            Kind::Boolean => DataType::Boolean,
            Kind::Int8 => DataType::Int8,
            Kind::Int16 => DataType::Int16,
            Kind::Int32 => DataType::Int32,
            Kind::Int64 => DataType::Int64,
            Kind::UInt8 => DataType::UInt8,
            Kind::UInt16 => DataType::UInt16,
            Kind::UInt32 => DataType::UInt32,
            Kind::UInt64 => DataType::UInt64,
            Kind::Float32 => DataType::Float32,
            Kind::Float64 => DataType::Float64,
            Kind::Decimal { precision, scale } => DataType::Decimal128(*precision, *scale),
            Kind::Text | Kind::Json => DataType::Utf8,
            Kind::Binary => DataType::Binary,
            Kind::FixedBinary(bytes) => DataType::FixedSizeBinary(*bytes),
            Kind::Uuid => DataType::FixedSizeBinary(16),
            Kind::Date => DataType::Date32,
            Kind::Time => DataType::Time64(TimeUnit::Microsecond),
            Kind::Timestamp { unit, zone } => DataType::Timestamp(*unit, zone.clone()),
            Kind::List { item, length: None } => DataType::List(item.field.clone()),
            Kind::List { item, length: Some(length) } => DataType::FixedSizeList(item.field.clone(), *length),
        }
    }
}

/// What a message says was expected, to follow "is not".
impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Kind::Boolean => f.write_str("a boolean (true or false)"),
            Kind::Int8 | Kind::Int16 | Kind::Int32 | Kind::Int64 => f.write_str("an integer"),
            Kind::UInt8 | Kind::UInt16 | Kind::UInt32 | Kind::UInt64 => {
                f.write_str("a whole number, 0 or more")
            }
            Kind::Float32 | Kind::Float64 => f.write_str("a number"),
            Kind::Decimal { .. } => f.write_str("a decimal number"),
            Kind::Text => f.write_str("text in UTF-8"),
            Kind::Json => f.write_str("valid JSON"),
            Kind::Binary => f.write_str("bytes in hexadecimal, as in \\x00ff"),
            Kind::FixedBinary(bytes) => write!(f, "{bytes} bytes in hexadecimal, as in \\x00ff"),
            Kind::Uuid => f.write_str("a UUID"),
            Kind::Date => f.write_str("a date, as in 2024-02-29"),
            Kind::Time => f.write_str("a time of day, as in 23:59:59.999999"),
            Kind::Timestamp { zone: None, .. } => f.write_str("a timestamp, as in 2024-02-29 23:59:59"),
            Kind::Timestamp { zone: Some(_), .. } => f.write_str("a timestamp, as in 2024-02-29T23:59:59Z"),
            Kind::List { item, length: None } => write!(f, "a JSON array, each item {}", item.kind),
            Kind::List { item, length: Some(length) } => {
                write!(f, "a JSON array of {length}, each item {}", item.kind)
            }
        }
    }
}

impl Column {
    /// A column of an existing table: its field, made nullable because a file's cells may be.
    pub(crate) fn told(field: FieldRef) -> Result<Column> {
        let kind = Kind::of_field(&field)?;
        let field =
            if field.is_nullable() { field } else { Arc::new(field.as_ref().clone().with_nullable(true)) };
        Ok(Column { field, kind, origin: Origin::Told })
    }

    fn of_type(name: &str, data_type: DataType) -> Result<Column> {
        Column::told(Arc::new(Field::new(name, data_type, true)))
    }

    /// A column whose kind the sample shows.
    pub(crate) fn inferred(name: &str, kind: Kind, sample_rows: usize) -> Column {
        let mut field = Field::new(name, kind.data_type(), true);
        if kind == Kind::Json {
            field = field.with_metadata([(EXTENSION_NAME.to_owned(), JSON.to_owned())].into());
        }
        Column { field: Arc::new(field), kind, origin: Origin::Sample(sample_rows) }
    }

    /// Whether the type was inferred: then only what prints back the same is taken for a number.
    pub(crate) fn is_inferred(&self) -> bool {
        matches!(self.origin, Origin::Sample(_))
    }
}

/// Checks that the options name no column that is not there.
///
/// # Errors
/// `InvalidConfig`: `text_columns` or `types` name such a column.
pub(crate) fn check_asked(file: &str, names: &[String], options: &ReadOptions) -> Result<()> {
    let mut asked = options.text_columns.iter().chain(options.types.iter().map(|(name, _)| name));
    let Some(name) = asked.find(|name| !names.contains(name)) else { return Ok(()) };
    let near = suggestion(name, names.iter().map(String::as_str));
    let message = format!("{file} has no column {name}{near}; its columns are {}", names.join(", "));
    Err(Error::new(ErrorKind::InvalidConfig, message))
}

/// The columns that options settle, `None` where the sample must. The order of precedence is `text_columns`, `types`,
/// `schema`.
///
/// # Errors
/// `Unsupported`: text cannot be read as a column's type.
pub(crate) fn told_columns(
    names: &[String],
    schema: Option<&Schema>,
    options: &ReadOptions,
) -> Result<Vec<Option<Column>>> {
    let told = |name: &String| {
        if options.text_columns.contains(name) {
            return Column::of_type(name, DataType::Utf8).map(Some);
        }
        if let Some((_, data_type)) = options.types.iter().find(|(column, _)| column == name) {
            return Column::of_type(name, data_type.clone()).map(Some);
        }
        let Some((_, field)) = schema.and_then(|schema| schema.fields().find(name)) else { return Ok(None) };
        Column::told(field.clone()).map(Some)
    };
    names.iter().map(told).collect()
}
