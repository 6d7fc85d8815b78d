//! The binary forms of PostgreSQL's values, read.

use std::borrow::Cow;
use std::str;

use postgres_types::{Kind as TypeKind, Type};

use super::numeric::literal;
use crate::encode::{EPOCH_DAYS, EPOCH_MICROS};
use crate::fit::text::{DATES, DAY, TIMESTAMPS};
use crate::fit::value::Value;
use crate::types::{Kind, PgType};

/// Why a value can't be read.
pub(super) type Misfit = String;

/// How the bytes of a column are read.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Source {
    Bool,
    Int2,
    Int4,
    Int8,
    /// An object's number, of 32 bits without a sign.
    Oid,
    Float4,
    Float8,
    Numeric,
    Text,
    /// Text whose blanks at the end are padding.
    Padded,
    /// The type `"char"`: one byte.
    Byte,
    Json,
    Jsonb,
    Bytea,
    Date,
    Time,
    Timestamp,
    Timestamptz,
    Uuid,
    Array(Box<Source>),
}

impl Source {
    /// How a type is read; nothing for a type whose binary form isn't known here.
    pub(super) fn of(column_type: &Type) -> Option<Source> {
        match column_type.kind() {
            TypeKind::Domain(base) => return Source::of(base),
            TypeKind::Enum(_) => return Some(Source::Text),
            TypeKind::Array(item) => {
                return match Source::of(item)? {
                    // A domain over an array, as the element of another.
                    Source::Array(_) => None,
                    item => Some(Source::Array(Box::new(item))),
                };
            }
            _ => {}
        }
        Some(match *column_type {
            Type::BOOL => Source::Bool,
            Type::INT2 => Source::Int2,
            Type::INT4 => Source::Int4,
            Type::INT8 => Source::Int8,
            Type::OID => Source::Oid,
            Type::FLOAT4 => Source::Float4,
            Type::FLOAT8 => Source::Float8,
            Type::NUMERIC => Source::Numeric,
            // A function that returns nothing gives an empty text.
            Type::TEXT | Type::VARCHAR | Type::NAME | Type::XML | Type::UNKNOWN | Type::VOID => Source::Text,
            Type::BPCHAR => Source::Padded,
            Type::CHAR => Source::Byte,
            Type::JSON => Source::Json,
            Type::JSONB => Source::Jsonb,
            Type::BYTEA => Source::Bytea,
            Type::DATE => Source::Date,
            Type::TIME => Source::Time,
            Type::TIMESTAMP => Source::Timestamp,
            Type::TIMESTAMPTZ => Source::Timestamptz,
            Type::UUID => Source::Uuid,
            _ if column_type.name() == "citext" => Source::Text,
            _ => return None,
        })
    }

    /// The type of the same values, for the Arrow type in which they are best read.
    pub(super) fn pg_type(&self) -> PgType {
        let kind = match self {
            Source::Bool => Kind::Bool,
            Source::Int2 => Kind::Int2,
            Source::Int4 => Kind::Int4,
            Source::Int8 | Source::Oid => Kind::Int8,
            Source::Float4 => Kind::Float4,
            Source::Float8 => Kind::Float8,
            Source::Numeric => Kind::Numeric(None),
            Source::Text | Source::Padded | Source::Byte => Kind::Text,
            Source::Json => Kind::Json,
            Source::Jsonb => Kind::Jsonb,
            Source::Bytea => Kind::Bytea,
            Source::Date => Kind::Date,
            Source::Time => Kind::Time(6),
            Source::Timestamp => Kind::Timestamp(6),
            Source::Timestamptz => Kind::Timestamptz(6),
            Source::Uuid => Kind::Uuid,
            Source::Array(item) => Kind::Array(Box::new(item.pg_type())),
        };
        PgType { kind, sql: String::new(), collation: None }
    }

    /// One value that is no array.
    #[inline]
    pub(super) fn value<'a>(&self, bytes: &'a [u8]) -> Result<Value<'a>, Misfit> {
        Ok(match self {
            Source::Text | Source::Json => Value::Text(Cow::Borrowed(utf8(bytes)?)),
            Source::Int8 => Value::Int(i64::from_be_bytes(fixed(bytes)?).into()),
            Source::Int4 => Value::Int(i32::from_be_bytes(fixed(bytes)?).into()),
            Source::Int2 => Value::Int(i16::from_be_bytes(fixed(bytes)?).into()),
            Source::Float8 => Value::Double(f64::from_be_bytes(fixed(bytes)?)),
            Source::Float4 => Value::Single(f32::from_be_bytes(fixed(bytes)?)),
            Source::Bool => Value::Bool(fixed::<1>(bytes)? != [0]),
            Source::Timestamp => timestamp(bytes, false)?,
            Source::Timestamptz => timestamp(bytes, true)?,
            Source::Date => date(bytes)?,
            Source::Time => time(bytes)?,
            Source::Uuid => Value::Uuid(fixed(bytes)?),
            Source::Bytea => Value::Bytes(Cow::Borrowed(bytes)),
            Source::Numeric => {
                let literal = literal(bytes).ok_or("the server sent a numeric that can't be read")?;
                Value::Number(Cow::Owned(literal))
            }
            Source::Padded => Value::Text(Cow::Borrowed(utf8(bytes)?.trim_end_matches(' '))),
            Source::Jsonb => match bytes {
                [1, text @ ..] => Value::Text(Cow::Borrowed(utf8(text)?)),
                _ => return Err("the server sent a jsonb of a version that can't be read".into()),
            },
            Source::Oid => Value::Int(u32::from_be_bytes(fixed(bytes)?).into()),
            Source::Byte => match fixed(bytes)? {
                [0] => Value::Text(Cow::Borrowed("")),
                [1..=127] => Value::Text(Cow::Borrowed(utf8(bytes)?)),
                [byte] => return Err(format!("the byte {byte} is no ASCII character")),
            },
            Source::Array(_) => return Err("an array isn't one value".into()),
        })
    }
}

fn utf8(bytes: &[u8]) -> Result<&str, Misfit> {
    str::from_utf8(bytes).map_err(|error| format!("the text is not UTF-8: {error}"))
}

#[inline]
fn fixed<const SIZE: usize>(bytes: &[u8]) -> Result<[u8; SIZE], Misfit> {
    bytes.try_into().map_err(|_| format!("the server sent {} bytes where {SIZE} belong", bytes.len()))
}

fn date(bytes: &[u8]) -> Result<Value<'_>, Misfit> {
    match i32::from_be_bytes(fixed(bytes)?) {
        i32::MAX => Err("the date is infinity, which can't be read".into()),
        i32::MIN => Err("the date is -infinity, which can't be read".into()),
        days => match days.checked_add(EPOCH_DAYS).filter(|days| DATES.contains(days)) {
            Some(days) => Ok(Value::Date(days)),
            None => Err(format!("{days} days from 2000-01-01 is outside the years 1 to 9999")),
        },
    }
}

fn time(bytes: &[u8]) -> Result<Value<'_>, Misfit> {
    match i64::from_be_bytes(fixed(bytes)?) {
        DAY => Err("24:00:00 is no time of a day, and can't be read as one".into()),
        micros => Ok(Value::Time(micros)),
    }
}

fn timestamp(bytes: &[u8], utc: bool) -> Result<Value<'_>, Misfit> {
    match i64::from_be_bytes(fixed(bytes)?) {
        i64::MAX => Err("the timestamp is infinity, which can't be read".into()),
        i64::MIN => Err("the timestamp is -infinity, which can't be read".into()),
        micros => match micros.checked_add(EPOCH_MICROS).filter(|micros| TIMESTAMPS.contains(micros)) {
            Some(micros) => Ok(Value::Timestamp { micros, utc }),
            None => Err(format!("{micros} µs from 2000 is outside the years 1 to 9999")),
        },
    }
}

/// The elements of a binary array, NULL where nothing.
pub(super) struct Elements<'a> {
    bytes: &'a [u8],
    left: usize,
}

/// Reads an array's head: dimensions, whether there are NULLs, the elements' type, then length and first index of each
/// dimension.
pub(super) fn elements(bytes: &[u8]) -> Result<Elements<'_>, Misfit> {
    let cut = || Misfit::from("the server sent an array that ends too early");
    let (words, rest) = bytes.split_at_checked(12).ok_or_else(cut)?;
    match i32::from_be_bytes(fixed(&words[..4])?) {
        0 => return Ok(Elements { bytes: &[], left: 0 }),
        1 => {}
        dimensions => {
            return Err(format!("the array has {dimensions} dimensions, and only one can be read"));
        }
    }
    let (words, bytes) = rest.split_at_checked(8).ok_or_else(cut)?;
    let left = usize::try_from(i32::from_be_bytes(fixed(&words[..4])?)).map_err(|_| cut())?;
    Ok(Elements { bytes, left })
}

impl Elements<'_> {
    /// How many are still to come.
    pub(super) fn left(&self) -> usize {
        self.left
    }
}

impl<'a> Iterator for Elements<'a> {
    type Item = Result<Option<&'a [u8]>, Misfit>;

    fn next(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        let element = || {
            let (length, rest) = self.bytes.split_first_chunk()?;
            let length = i32::from_be_bytes(*length);
            if length == -1 {
                return Some((None, rest));
            }
            let (element, rest) = rest.split_at_checked(usize::try_from(length).ok()?)?;
            Some((Some(element), rest))
        };
        let Some((element, rest)) = element() else {
            self.left = 0;
            return Some(Err("the server sent an array that ends too early".into()));
        };
        self.bytes = rest;
        Some(Ok(element))
    }
}
