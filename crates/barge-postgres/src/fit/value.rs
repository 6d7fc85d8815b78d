//! One value between Arrow and PostgreSQL: as the one form, as the other, without loss, or not at all.
//!
//! Fitting and decoding share these conversions. Fitting goes there and back again: a value fits a column where what would be
//! read from it, in the type that was given, is the value.

use std::borrow::Cow;
use std::fmt;

use arrow::datatypes::{DataType, Field, TimeUnit};
use barge_core::record::is_uuid;

use super::number::{plain, within};
use super::text::*;
use crate::types::Kind;

/// A value, whatever the type it came from.
#[derive(Clone, Debug)]
pub(crate) enum Value<'a> {
    Bool(bool),
    Int(i128),
    Single(f32),
    Double(f64),
    /// A plain literal; see [`super::number`].
    Number(Cow<'a, str>),
    Text(Cow<'a, str>),
    Bytes(Cow<'a, [u8]>),
    Uuid([u8; 16]),
    /// Days from 1970-01-01.
    Date(i32),
    /// Microseconds since midnight.
    Time(i64),
    /// Microseconds from 1970-01-01T00:00.
    Timestamp {
        micros: i64,
        utc: bool,
    },
}

/// What a type holds: as much of an Arrow or a PostgreSQL type as a conversion has to know.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Form {
    Bool,
    Int {
        min: i128,
        max: i128,
    },
    Single,
    Double,
    /// With precision and scale, where it has a bound.
    Number(Option<(u32, i32)>),
    Text,
    Bytes,
    FixedBytes(usize),
    Uuid,
    Date,
    /// In a unit of so many microseconds; finer units hold each of them.
    Time {
        unit: i64,
    },
    Timestamp {
        utc: bool,
        unit: i64,
        /// Whether it counts nanoseconds, for which 64 bits end in the year 2262.
        nanos: bool,
    },
}

impl Form {
    /// The form of an Arrow type; nothing for lists, and for types that no column of PostgreSQL holds.
    pub(crate) fn of_arrow(field: &Field) -> Option<Form> {
        let int = |min: i128, max: i128| Some(Form::Int { min, max });
        match field.data_type() {
            DataType::Boolean => Some(Form::Bool),
            DataType::Int8 => int(i8::MIN.into(), i8::MAX.into()),
            DataType::Int16 => int(i16::MIN.into(), i16::MAX.into()),
            DataType::Int32 => int(i32::MIN.into(), i32::MAX.into()),
            DataType::Int64 => int(i64::MIN.into(), i64::MAX.into()),
            DataType::UInt8 => int(0, u8::MAX.into()),
            DataType::UInt16 => int(0, u16::MAX.into()),
            DataType::UInt32 => int(0, u32::MAX.into()),
            DataType::UInt64 => int(0, u64::MAX.into()),
            DataType::Float32 => Some(Form::Single),
            DataType::Float64 => Some(Form::Double),
            &DataType::Decimal32(precision, scale)
            | &DataType::Decimal64(precision, scale)
            | &DataType::Decimal128(precision, scale)
            | &DataType::Decimal256(precision, scale) => {
                // A scale below zero adds zeros that the precision doesn't count, as in PostgreSQL.
                Some(Form::Number(Some((precision.into(), scale.into()))))
            }
            DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => Some(Form::Text),
            DataType::Binary | DataType::LargeBinary | DataType::BinaryView => Some(Form::Bytes),
            DataType::FixedSizeBinary(_) if is_uuid(field) => Some(Form::Uuid),
            DataType::FixedSizeBinary(width) => Some(Form::FixedBytes(usize::try_from(*width).ok()?)),
            DataType::Date32 | DataType::Date64 => Some(Form::Date),
            DataType::Time32(unit) | DataType::Time64(unit) => Some(Form::Time { unit: unit_micros(*unit) }),
            DataType::Timestamp(unit, timezone) => Some(Form::Timestamp {
                utc: timezone.is_some(),
                unit: unit_micros(*unit),
                nanos: *unit == TimeUnit::Nanosecond,
            }),
            _ => None,
        }
    }

    /// The form of a column's values; nothing for arrays. JSON is text here.
    pub(crate) fn of_kind(kind: &Kind) -> Option<Form> {
        let int = |min: i64, max: i64| Form::Int { min: min.into(), max: max.into() };
        Some(match kind {
            Kind::Bool => Form::Bool,
            Kind::Int2 => int(i16::MIN.into(), i16::MAX.into()),
            Kind::Int4 => int(i32::MIN.into(), i32::MAX.into()),
            Kind::Int8 => int(i64::MIN, i64::MAX),
            Kind::Float4 => Form::Single,
            Kind::Float8 => Form::Double,
            Kind::Numeric(bound) => Form::Number(*bound),
            Kind::Text
            | Kind::Varchar(_)
            | Kind::Char(_)
            | Kind::Json
            | Kind::Jsonb
            | Kind::Enum
            | Kind::Other => Form::Text,
            Kind::Bytea => Form::Bytes,
            Kind::Uuid => Form::Uuid,
            Kind::Date => Form::Date,
            Kind::Time(_) => Form::Time { unit: 1 },
            Kind::Timestamp(_) => Form::Timestamp { utc: false, unit: 1, nanos: false },
            Kind::Timestamptz(_) => Form::Timestamp { utc: true, unit: 1, nanos: false },
            Kind::Array(_) => return None,
        })
    }

    /// Whether any value of this form can be one of the other.
    pub(crate) fn meets(&self, other: &Form) -> bool {
        use Form::*;
        let is_number = |form: &Form| matches!(form, Int { .. } | Single | Double | Number(_));
        match (self, other) {
            (Text, _) | (_, Text) => true,
            (one, other) if is_number(one) => is_number(other) || *other == Bool,
            (Bool, other) => *other == Bool || is_number(other),
            (Bytes | FixedBytes(_) | Uuid, other) => matches!(other, Bytes | FixedBytes(_) | Uuid),
            (Date | Timestamp { .. }, other) => matches!(other, Date | Timestamp { .. }),
            (Time { .. }, other) => matches!(other, Time { .. }),
            _ => false,
        }
    }
}

/// Microseconds in a unit; a nanosecond counts as one, since only whole microseconds come here.
fn unit_micros(unit: TimeUnit) -> i64 {
    match unit {
        TimeUnit::Second => 1_000_000,
        TimeUnit::Millisecond => 1_000,
        TimeUnit::Microsecond | TimeUnit::Nanosecond => 1,
    }
}

impl<'a> Value<'a> {
    /// The value in a form; nothing where the form can't hold it exactly. A decimal becomes the nearest float, as everywhere.
    pub(crate) fn into_form(self, form: &Form) -> Option<Value<'a>> {
        Some(match *form {
            Form::Bool => Value::Bool(self.boolean()?),
            Form::Int { min, max } => Value::Int(self.integer().filter(|value| (min..=max).contains(value))?),
            Form::Single => Value::Single(self.single()?),
            Form::Double => Value::Double(self.double()?),
            Form::Number(bound) => {
                let literal = self.number()?;
                Value::Number(match bound {
                    Some((precision, scale)) => within(literal, precision, scale)?,
                    None => literal,
                })
            }
            Form::Text => Value::Text(self.text()?),
            Form::Bytes => Value::Bytes(self.bytes()?),
            Form::FixedBytes(width) => Value::Bytes(self.bytes().filter(|bytes| bytes.len() == width)?),
            Form::Uuid => Value::Uuid(self.uuid()?),
            Form::Date => Value::Date(self.date()?),
            Form::Time { unit } => Value::Time(self.time().filter(|micros| micros % unit == 0)?),
            Form::Timestamp { utc, unit, nanos } => {
                let micros = self.timestamp(utc).filter(|micros| micros % unit == 0)?;
                if nanos {
                    micros.checked_mul(1_000)?;
                }
                Value::Timestamp { micros, utc }
            }
        })
    }

    fn boolean(&self) -> Option<bool> {
        match self {
            Value::Bool(value) => Some(*value),
            Value::Text(text) => match text.as_ref() {
                "true" => Some(true),
                "false" => Some(false),
                _ => None,
            },
            other => match other.integer()? {
                0 => Some(false),
                1 => Some(true),
                _ => None,
            },
        }
    }

    fn integer(&self) -> Option<i128> {
        match self {
            Value::Bool(value) => Some((*value).into()),
            Value::Int(value) => Some(*value),
            Value::Single(value) => whole((*value).into()),
            Value::Double(value) => whole(*value),
            Value::Number(literal) => super::number::scaled(literal, 0),
            Value::Text(text) => text.parse().ok(),
            _ => None,
        }
    }

    fn double(&self) -> Option<f64> {
        match self {
            Value::Single(value) => Some((*value).into()),
            Value::Double(value) => Some(*value),
            Value::Number(text) | Value::Text(text) => text.parse().ok(),
            other => {
                let value = other.integer()?;
                let double = value as f64;
                (whole(double) == Some(value)).then_some(double)
            }
        }
    }

    fn single(&self) -> Option<f32> {
        match self {
            Value::Single(value) => Some(*value),
            // Not by way of a double, which would round twice.
            Value::Number(text) | Value::Text(text) => text.parse().ok(),
            other => {
                let value = other.double()?;
                let single = value as f32;
                (f64::from(single) == value || value.is_nan()).then_some(single)
            }
        }
    }

    fn number(self) -> Option<Cow<'a, str>> {
        match self {
            Value::Number(literal) => Some(literal),
            Value::Text(text) => plain(text),
            // Rust writes floats without an exponent: their shortest decimal.
            Value::Single(value) if value.is_finite() && value != 0.0 => Some(value.to_string().into()),
            Value::Double(value) if value.is_finite() && value != 0.0 => Some(value.to_string().into()),
            Value::Single(0.0) | Value::Double(0.0) => Some("0".into()),
            Value::Single(value) => Some(single_text(value).as_str().to_owned().into()),
            Value::Double(value) => Some(double_text(value).as_str().to_owned().into()),
            other => Some(other.integer()?.to_string().into()),
        }
    }

    fn text(self) -> Option<Cow<'a, str>> {
        let short = |text: ShortText| Some(Cow::Owned(text.as_str().to_owned()));
        match self {
            Value::Text(text) | Value::Number(text) => Some(text),
            Value::Bool(value) => Some(if value { "true".into() } else { "false".into() }),
            Value::Int(value) => Some(value.to_string().into()),
            Value::Single(value) => short(single_text(value)),
            Value::Double(value) => short(double_text(value)),
            Value::Bytes(Cow::Borrowed(bytes)) => std::str::from_utf8(bytes).ok().map(Cow::Borrowed),
            Value::Bytes(Cow::Owned(bytes)) => String::from_utf8(bytes).ok().map(Cow::Owned),
            Value::Uuid(bytes) => short(uuid_text(&bytes)),
            Value::Date(_) => short(date_text(self.date()?)),
            Value::Time(_) => short(time_text(self.time()?)),
            Value::Timestamp { utc, .. } => short(timestamp_text(self.timestamp(utc)?, utc)),
        }
    }

    fn bytes(self) -> Option<Cow<'a, [u8]>> {
        match self {
            Value::Bytes(bytes) => Some(bytes),
            Value::Text(Cow::Borrowed(text)) => Some(Cow::Borrowed(text.as_bytes())),
            Value::Text(Cow::Owned(text)) => Some(Cow::Owned(text.into_bytes())),
            Value::Uuid(bytes) => Some(Cow::Owned(bytes.to_vec())),
            _ => None,
        }
    }

    fn uuid(&self) -> Option<[u8; 16]> {
        match self {
            Value::Uuid(bytes) => Some(*bytes),
            Value::Bytes(bytes) => bytes.as_ref().try_into().ok(),
            Value::Text(text) => uuid::Uuid::try_parse(text).ok().map(uuid::Uuid::into_bytes),
            _ => None,
        }
    }

    fn date(&self) -> Option<i32> {
        let days = match self {
            Value::Date(days) => *days,
            Value::Timestamp { micros, .. } if micros.rem_euclid(DAY) == 0 => {
                i32::try_from(micros.div_euclid(DAY)).ok()?
            }
            Value::Text(text) => parse_date(text)?,
            _ => return None,
        };
        DATES.contains(&days).then_some(days)
    }

    fn time(&self) -> Option<i64> {
        let micros = match self {
            Value::Time(micros) => *micros,
            Value::Text(text) => parse_time(text)?,
            _ => return None,
        };
        (0..DAY).contains(&micros).then_some(micros)
    }

    fn timestamp(&self, utc: bool) -> Option<i64> {
        let micros = match self {
            Value::Timestamp { micros, .. } => *micros,
            Value::Date(days) => i64::from(*days) * DAY,
            Value::Text(text) => {
                let (micros, has_offset) = parse_timestamp(text)?;
                // A wall-clock time has no offset; "Z" at most, which moves nothing.
                if !utc && has_offset && !text.ends_with(['Z', 'z', 'C']) {
                    return None;
                }
                micros
            }
            _ => return None,
        };
        TIMESTAMPS.contains(&micros).then_some(micros)
    }
}

/// The integer that a float is.
fn whole(value: f64) -> Option<i128> {
    // Below 2 to the power of 127, so that nothing saturates.
    (value.fract() == 0.0 && value.abs() < 1.7e38).then_some(value as i128)
}

/// Equal to a program: NaN is NaN, and −0.0 is 0.0.
impl PartialEq for Value<'_> {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Value::Bool(one), Value::Bool(other)) => one == other,
            (Value::Int(one), Value::Int(other)) => one == other,
            (Value::Single(one), Value::Single(other)) => one == other || one.is_nan() && other.is_nan(),
            (Value::Double(one), Value::Double(other)) => one == other || one.is_nan() && other.is_nan(),
            (Value::Number(one), Value::Number(other)) => one == other,
            (Value::Text(one), Value::Text(other)) => one == other,
            (Value::Bytes(one), Value::Bytes(other)) => one == other,
            (Value::Uuid(one), Value::Uuid(other)) => one == other,
            (Value::Date(one), Value::Date(other)) => one == other,
            (Value::Time(one), Value::Time(other)) => one == other,
            (Value::Timestamp { micros: one, utc }, Value::Timestamp { micros: other, utc: other_utc }) => {
                one == other && utc == other_utc
            }
            _ => false,
        }
    }
}

/// A value for a message, shortened.
impl fmt::Display for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const CHARACTERS_MAX: usize = 60;
        match self {
            Value::Bool(value) => value.fmt(f),
            Value::Int(value) => value.fmt(f),
            Value::Single(value) => single_text(*value).fmt(f),
            Value::Double(value) => double_text(*value).fmt(f),
            Value::Number(text) if text.len() <= CHARACTERS_MAX => f.write_str(text),
            Value::Number(text) => write!(f, "{}…", &text[..CHARACTERS_MAX]),
            Value::Text(text) => match text.char_indices().nth(CHARACTERS_MAX) {
                Some((end, _)) => write!(f, "'{}…'", &text[..end]),
                None => write!(f, "'{text}'"),
            },
            Value::Bytes(bytes) => write!(f, "a binary value of {} bytes", bytes.len()),
            Value::Uuid(bytes) => uuid_text(bytes).fmt(f),
            Value::Date(days) if DATES.contains(days) => date_text(*days).fmt(f),
            Value::Date(days) => write!(f, "{days} days from 1970-01-01"),
            Value::Time(micros) if (0..DAY).contains(micros) => time_text(*micros).fmt(f),
            Value::Time(micros) => write!(f, "{micros} µs since midnight"),
            Value::Timestamp { micros, utc } if TIMESTAMPS.contains(micros) => {
                timestamp_text(*micros, *utc).fmt(f)
            }
            Value::Timestamp { micros, .. } => write!(f, "{micros} µs from 1970"),
        }
    }
}
