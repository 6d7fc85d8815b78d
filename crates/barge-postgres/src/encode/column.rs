//! One column on its way out: resolved once into typed slices, so that a value costs a branch and no cast.

use arrow::array::*;
use arrow::buffer::NullBuffer;
use arrow::datatypes::*;
use bytes::{BufMut, BytesMut};

use super::literal::put_list_literal;
use super::numeric::{put_literal, put_scaled};
use crate::types::{Kind, PgType};

/// Days and microseconds from 1970-01-01 to 2000-01-01, where PostgreSQL's calendar begins.
pub(crate) const EPOCH_DAYS: i32 = 10_957;
pub(crate) const EPOCH_MICROS: i64 = 946_684_800_000_000;

/// The version in front of a binary jsonb.
const JSONB_VERSION: u8 = 1;
/// The length that stands for NULL.
const NULL: i32 = -1;

/// How lists are written.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Lists {
    /// As binary arrays.
    Binary,
    /// As the text of array literals.
    Literal,
}

/// A column's values in the binary form of its type, each with its length in front.
pub(crate) struct Column<'a> {
    nulls: Option<&'a NullBuffer>,
    values: Values<'a>,
}

enum Values<'a> {
    Bool(&'a BooleanArray),
    Int2(&'a [i16]),
    Int4(&'a [i32]),
    Int8(&'a [i64]),
    Float4(&'a [f32]),
    Float8(&'a [f64]),
    Decimal {
        values: &'a [i128],
        scale: i32,
    },
    Literals(Bytes<'a>),
    Bytes(Bytes<'a>),
    Jsonb(Bytes<'a>),
    Date(&'a [i32]),
    Time(&'a [i64]),
    Timestamp(&'a [i64]),
    List {
        offsets: &'a [i32],
        items: Box<Column<'a>>,
        element: u32,
    },
    ListLiteral {
        offsets: &'a [i32],
        items: &'a ArrayRef,
        item: &'a PgType,
    },
    /// A type that `fit` doesn't give: only NULLs.
    Nulls,
}

/// Text or bytes, as Arrow keeps them.
enum Bytes<'a> {
    Small { offsets: &'a [i32], bytes: &'a [u8] },
    Large { offsets: &'a [i64], bytes: &'a [u8] },
    Text(&'a StringViewArray),
    View(&'a BinaryViewArray),
    Fixed { width: usize, bytes: &'a [u8] },
}

impl<'a> Bytes<'a> {
    fn new(array: &'a ArrayRef) -> Option<Self> {
        Some(match array.data_type() {
            DataType::Utf8 => Bytes::Small {
                offsets: array.as_string::<i32>().value_offsets(),
                bytes: array.as_string::<i32>().value_data(),
            },
            DataType::LargeUtf8 => Bytes::Large {
                offsets: array.as_string::<i64>().value_offsets(),
                bytes: array.as_string::<i64>().value_data(),
            },
            DataType::Binary => Bytes::Small {
                offsets: array.as_binary::<i32>().value_offsets(),
                bytes: array.as_binary::<i32>().value_data(),
            },
            DataType::LargeBinary => Bytes::Large {
                offsets: array.as_binary::<i64>().value_offsets(),
                bytes: array.as_binary::<i64>().value_data(),
            },
            DataType::Utf8View => Bytes::Text(array.as_string_view()),
            DataType::BinaryView => Bytes::View(array.as_binary_view()),
            DataType::FixedSizeBinary(width) => Bytes::Fixed {
                width: usize::try_from(*width).ok()?,
                bytes: array.as_fixed_size_binary().value_data(),
            },
            _ => return None,
        })
    }

    #[inline]
    fn get(&self, row: usize) -> &'a [u8] {
        match self {
            Bytes::Small { offsets, bytes } => &bytes[offsets[row] as usize..offsets[row + 1] as usize],
            Bytes::Large { offsets, bytes } => &bytes[offsets[row] as usize..offsets[row + 1] as usize],
            Bytes::Text(texts) => texts.value(row).as_bytes(),
            Bytes::View(values) => values.value(row),
            Bytes::Fixed { width, bytes } => &bytes[row * width..(row + 1) * width],
        }
    }
}

impl<'a> Column<'a> {
    /// The values of an array as [`fit`](crate::fit::fit) gives it.
    pub(crate) fn new(array: &'a ArrayRef, pg: &'a PgType, lists: Lists) -> Self {
        let values = Values::new(array, pg, lists);
        debug_assert!(
            values.is_some() || array.null_count() == array.len() || array.data_type().is_null(),
            "{} wasn't fitted to {}",
            array.data_type(),
            pg.sql
        );
        Column {
            nulls: array.nulls().filter(|nulls| nulls.null_count() > 0),
            values: values.unwrap_or(Values::Nulls),
        }
    }

    /// Whether any value is NULL.
    pub(crate) fn has_nulls(&self) -> bool {
        self.nulls.is_some() || matches!(self.values, Values::Nulls)
    }

    /// Appends a value with its length in front.
    #[inline]
    pub(crate) fn put(&self, row: usize, out: &mut BytesMut) {
        match self.nulls {
            Some(nulls) if nulls.is_null(row) => out.put_i32(NULL),
            _ => self.values.put(row, out),
        }
    }
}

impl<'a> Values<'a> {
    fn new(array: &'a ArrayRef, pg: &'a PgType, lists: Lists) -> Option<Self> {
        macro_rules! primitive {
            ($arrow:ty) => {
                array.as_primitive_opt::<$arrow>()?.values()
            };
        }
        Some(match &pg.kind {
            Kind::Bool => Values::Bool(array.as_boolean_opt()?),
            Kind::Int2 => Values::Int2(primitive!(Int16Type)),
            Kind::Int4 => Values::Int4(primitive!(Int32Type)),
            Kind::Int8 => Values::Int8(primitive!(Int64Type)),
            Kind::Float4 => Values::Float4(primitive!(Float32Type)),
            Kind::Float8 => Values::Float8(primitive!(Float64Type)),
            Kind::Numeric(_) => match array.data_type() {
                DataType::Decimal128(_, scale) => {
                    Values::Decimal { values: primitive!(Decimal128Type), scale: (*scale).into() }
                }
                _ => Values::Literals(Bytes::new(array)?),
            },
            Kind::Text | Kind::Varchar(_) | Kind::Char(_) | Kind::Enum | Kind::Other | Kind::Json => {
                Values::Bytes(Bytes::new(array)?)
            }
            Kind::Bytea | Kind::Uuid => Values::Bytes(Bytes::new(array)?),
            Kind::Jsonb => Values::Jsonb(Bytes::new(array)?),
            Kind::Date => Values::Date(primitive!(Date32Type)),
            Kind::Time(_) => Values::Time(primitive!(Time64MicrosecondType)),
            Kind::Timestamp(_) | Kind::Timestamptz(_) => {
                Values::Timestamp(primitive!(TimestampMicrosecondType))
            }
            Kind::Array(item) => {
                let list = array.as_list_opt::<i32>()?;
                let (offsets, items) = (list.value_offsets(), list.values());
                match lists {
                    Lists::Literal => Values::ListLiteral { offsets, items, item },
                    Lists::Binary => Values::List {
                        offsets,
                        items: Box::new(Column::new(items, item, lists)),
                        element: item.element_type()?.oid(),
                    },
                }
            }
        })
    }

    #[inline]
    fn put(&self, row: usize, out: &mut BytesMut) {
        match self {
            Values::Int8(values) => put_fixed(out, values[row].to_be_bytes()),
            Values::Bytes(values) => put_bytes(out, values.get(row)),
            Values::Float8(values) => put_fixed(out, values[row].to_be_bytes()),
            Values::Int4(values) => put_fixed(out, values[row].to_be_bytes()),
            // `fit` keeps to years that don't overflow; an unchecked one must not end the process.
            Values::Timestamp(values) => put_fixed(out, values[row].wrapping_sub(EPOCH_MICROS).to_be_bytes()),
            Values::Bool(values) => put_fixed(out, [values.value(row).into()]),
            Values::Int2(values) => put_fixed(out, values[row].to_be_bytes()),
            Values::Float4(values) => put_fixed(out, values[row].to_be_bytes()),
            Values::Date(values) => put_fixed(out, values[row].wrapping_sub(EPOCH_DAYS).to_be_bytes()),
            Values::Time(values) => put_fixed(out, values[row].to_be_bytes()),
            Values::Decimal { values, scale } => put_scaled(out, values[row], *scale),
            Values::Jsonb(values) => {
                let value = values.get(row);
                out.put_i32(value.len() as i32 + 1);
                out.put_u8(JSONB_VERSION);
                out.extend_from_slice(value);
            }
            Values::Nulls => out.put_i32(NULL),
            _ => self.put_varied(row, out),
        }
    }

    /// The values whose length is known only when they are written.
    fn put_varied(&self, row: usize, out: &mut BytesMut) {
        match self {
            // A literal is text from anywhere: `fit` made sure that it is one.
            Values::Literals(values) => {
                put_literal(out, std::str::from_utf8(values.get(row)).unwrap_or_default())
            }
            Values::List { offsets, items, element } => {
                let (first, end) = (offsets[row] as usize, offsets[row + 1] as usize);
                with_length(out, |out| put_array(out, items, first..end, *element));
            }
            Values::ListLiteral { offsets, items, item } => {
                let (first, end) = (offsets[row] as usize, offsets[row + 1] as usize);
                with_length(out, |out| put_list_literal(out, items, first..end, item));
            }
            _ => {}
        }
    }
}

/// Appends an array of one dimension in its binary form: dimensions, whether there are NULLs, the elements' type, the number
/// of elements, the first one's index. One without elements has no dimension.
pub(super) fn put_array(out: &mut BytesMut, items: &Column<'_>, rows: std::ops::Range<usize>, element: u32) {
    out.put_i32(i32::from(!rows.is_empty()));
    out.put_i32(items.has_nulls().into());
    out.put_u32(element);
    if rows.is_empty() {
        return;
    }
    out.put_i32(rows.len() as i32);
    out.put_i32(1);
    for row in rows {
        items.put(row, out);
    }
}

/// Appends what is written, with its length in front.
fn with_length(out: &mut BytesMut, write: impl FnOnce(&mut BytesMut)) {
    let start = out.len();
    out.put_i32(0);
    write(out);
    let length = (out.len() - start - 4) as i32;
    out[start..start + 4].copy_from_slice(&length.to_be_bytes());
}

#[inline]
fn put_bytes(out: &mut BytesMut, bytes: &[u8]) {
    out.extend_from_slice(&(bytes.len() as i32).to_be_bytes());
    out.extend_from_slice(bytes);
}

/// Length and value as one piece: one check of the room for both.
#[inline]
fn put_fixed<const SIZE: usize>(out: &mut BytesMut, value: [u8; SIZE]) {
    let mut bytes = [0; 12];
    bytes[..4].copy_from_slice(&(SIZE as i32).to_be_bytes());
    bytes[4..4 + SIZE].copy_from_slice(&value);
    out.extend_from_slice(&bytes[..4 + SIZE]);
}
