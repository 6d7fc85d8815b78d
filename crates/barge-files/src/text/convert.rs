//! Cells to Arrow arrays, one column at a time.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, ArrowPrimitiveType, BinaryArray, BooleanArray, BooleanBufferBuilder, FixedSizeBinaryArray,
    FixedSizeListArray, ListArray, NullBufferBuilder, PrimitiveArray, StringArray,
};
use arrow::buffer::{Buffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::compute::cast;
use arrow::datatypes::{
    DataType, Date32Type, Decimal128Type, Float32Type, Float64Type, Int8Type, Int16Type, Int32Type,
    Int64Type, Time64MicrosecondType, TimeUnit, TimestampMicrosecondType, UInt8Type, UInt16Type, UInt32Type,
    UInt64Type,
};
use arrow::error::ArrowError;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use super::cells::{Cells, Place, Tag, is_decodable};
use super::kind::{Column, Kind};
use super::parse::{self, Wrong};
use super::{number, temporal};

/// The rows found wrong so far; of each only the first fault.
pub(crate) struct Rejects {
    /// For each row converted, whether nothing is wrong with it.
    pub(crate) ok: Vec<bool>,
    /// Row (from the first converted), column, fault.
    pub(crate) faults: Vec<(usize, usize, Wrong)>,
}

impl Rejects {
    pub(crate) fn new(rows: usize) -> Rejects {
        Rejects { ok: vec![true; rows], faults: Vec::new() }
    }

    #[cold]
    fn add(&mut self, row: usize, column: usize, wrong: Wrong) {
        if std::mem::replace(&mut self.ok[row], false) {
            self.faults.push((row, column, wrong));
        }
    }
}

/// Which syntax the cells come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Syntax {
    /// Any text is text; an empty field that is quoted is NULL but in columns of text.
    Csv,
    /// Strings are strings; a column of JSON takes each value as it stands.
    Json,
}

/// The cells of one column over some rows.
pub(crate) struct Conversion<'a> {
    pub(crate) cells: &'a Cells,
    pub(crate) rows: Range<usize>,
    pub(crate) index: usize,
    pub(crate) column: &'a Column,
    pub(crate) syntax: Syntax,
}

impl Conversion<'_> {
    /// The column's array. A wrong value is null there, and its row is among the rejects.
    pub(crate) fn array(&self, rejects: &mut Rejects) -> Result<ArrayRef, ArrowError> {
        let inferred = self.column.is_inferred();
        // A narrower integer is parsed as the widest, and then must fit.
        macro_rules! integer {
            ($type:ty, $parse:path) => {
                Arc::new(self.primitive::<$type>(rejects, |bytes| {
                    if inferred && !number::is_plain_integer(bytes) {
                        $parse(bytes)?;
                        return Err(Wrong::NotPlain);
                    }
                    $parse(bytes)?.try_into().map_err(|_| Wrong::OutOfRange)
                }))
            };
        }
        Ok(match &self.column.kind {
            Kind::Boolean => self.boolean(rejects),
            Kind::Int8 => integer!(Int8Type, number::int64),
            Kind::Int16 => integer!(Int16Type, number::int64),
            Kind::Int32 => integer!(Int32Type, number::int64),
            Kind::Int64 => integer!(Int64Type, number::int64),
            Kind::UInt8 => integer!(UInt8Type, number::uint64),
            Kind::UInt16 => integer!(UInt16Type, number::uint64),
            Kind::UInt32 => integer!(UInt32Type, number::uint64),
            Kind::UInt64 => integer!(UInt64Type, number::uint64),
            Kind::Float32 => Arc::new(self.primitive::<Float32Type>(rejects, number::float32)),
            Kind::Float64 => Arc::new(self.primitive::<Float64Type>(rejects, |bytes| {
                if inferred && !(number::is_plain_float(bytes) && number::keeps_digits(bytes)) {
                    number::float64(bytes)?;
                    return Err(Wrong::NotPlain);
                }
                number::float64(bytes)
            })),
            Kind::Decimal { precision, scale } => {
                let parse = |bytes: &[u8]| number::decimal(bytes, *precision, *scale);
                let array = self.primitive::<Decimal128Type>(rejects, parse);
                Arc::new(array.with_precision_and_scale(*precision, *scale)?)
            }
            Kind::Date => Arc::new(self.primitive::<Date32Type>(rejects, temporal::date)),
            Kind::Time => Arc::new(self.primitive::<Time64MicrosecondType>(rejects, temporal::time)),
            Kind::Timestamp { unit: TimeUnit::Microsecond, zone } => {
                let parse = if zone.is_some() { temporal::instant } else { temporal::local };
                let array = self.primitive::<TimestampMicrosecondType>(rejects, parse);
                Arc::new(array.with_timezone_opt(zone.clone()))
            }
            &Kind::Timestamp { unit, ref zone } => {
                let parse = |bytes: &[u8]| temporal::in_unit(bytes, unit, zone.is_some());
                let numbers = self.primitive::<Int64Type>(rejects, parse);
                cast(&numbers, &DataType::Timestamp(unit, zone.clone()))?
            }
            Kind::Text => self.text(rejects)?,
            Kind::Json => self.json(rejects)?,
            Kind::Binary => self.binary(rejects)?,
            Kind::FixedBinary(bytes) => self.fixed_binary(*bytes, rejects)?,
            Kind::Uuid => self.uuid(rejects)?,
            Kind::List { item, length } => self.list(item, *length, rejects)?,
        })
    }

    /// The value of a cell in a column that is not text: `None` for NULL.
    #[inline]
    fn value(&self, row: usize) -> Option<&[u8]> {
        let (tag, bytes) = self.cells.get(row, self.index);
        let null = tag == Tag::Null || bytes.is_empty() && tag == Tag::Quoted && self.syntax == Syntax::Csv;
        (!null).then_some(bytes)
    }

    /// Gives each cell's value, or `None`, to `push`; where that fails, rejects the row and pushes `None`.
    #[inline]
    fn each(&self, rejects: &mut Rejects, mut push: impl FnMut(Option<&[u8]>) -> Result<(), Wrong>) {
        for row in self.rows.clone() {
            if let Err(wrong) = push(self.value(row)) {
                rejects.add(row - self.rows.start, self.index, wrong);
                // A null is never wrong.
                let _ = push(None);
            }
        }
    }

    #[inline]
    fn primitive<T: ArrowPrimitiveType>(
        &self,
        rejects: &mut Rejects,
        parse: impl Fn(&[u8]) -> Result<T::Native, Wrong>,
    ) -> PrimitiveArray<T> {
        let mut values = Vec::with_capacity(self.rows.len());
        let mut nulls = NullBufferBuilder::new(self.rows.len());
        self.each(rejects, |value| {
            match value {
                Some(bytes) => {
                    values.push(trimmed(bytes, &parse)?);
                    nulls.append_non_null();
                }
                None => {
                    values.push(T::Native::default());
                    nulls.append_null();
                }
            }
            Ok(())
        });
        PrimitiveArray::new(ScalarBuffer::from(values), nulls.finish())
    }

    fn boolean(&self, rejects: &mut Rejects) -> ArrayRef {
        let inferred = self.column.is_inferred();
        let mut values = BooleanBufferBuilder::new(self.rows.len());
        let mut nulls = NullBufferBuilder::new(self.rows.len());
        self.each(rejects, |value| {
            match value {
                Some(bytes) => {
                    values.append(trimmed(bytes, |bytes| parse::boolean(bytes, inferred))?);
                    nulls.append_non_null();
                }
                None => {
                    values.append(false);
                    nulls.append_null();
                }
            }
            Ok(())
        });
        Arc::new(BooleanArray::new(values.finish(), nulls.finish()))
    }

    /// Gathers values of varying length. `append` adds the value to the bytes, or fails and leaves what it added to be
    /// taken back.
    fn bytes(
        &self,
        rejects: &mut Rejects,
        mut append: impl FnMut(Tag, &[u8], &mut Vec<u8>) -> Result<(), Wrong>,
    ) -> (OffsetBuffer<i32>, Vec<u8>, Option<NullBuffer>) {
        let rows = self.rows.len();
        let mut values = Vec::with_capacity(self.cells.bytes_of(&self.rows) / self.cells.columns.max(1));
        let mut offsets = Vec::with_capacity(rows + 1);
        let mut nulls = NullBufferBuilder::new(rows);
        offsets.push(0);
        for row in self.rows.clone() {
            let (tag, bytes) = self.cells.get(row, self.index);
            let start = values.len();
            if tag == Tag::Null {
                nulls.append_null();
            } else if let Err(wrong) = append(tag, bytes, &mut values) {
                values.truncate(start);
                rejects.add(row - self.rows.start, self.index, wrong);
                nulls.append_null();
            } else {
                nulls.append_non_null();
            }
            // All cells together stay below 2 GiB by the limits on batches and rows.
            offsets.push(values.len() as i32);
        }
        (OffsetBuffer::new(ScalarBuffer::from(offsets)), values, nulls.finish())
    }

    fn text(&self, rejects: &mut Rejects) -> Result<ArrayRef, ArrowError> {
        let ascii = self.cells.is_ascii();
        let (offsets, values, nulls) = self.bytes(rejects, |_, bytes, values| {
            if !ascii {
                check_utf8(bytes)?;
            }
            values.extend_from_slice(bytes);
            Ok(())
        });
        Ok(Arc::new(StringArray::try_new(offsets, Buffer::from_vec(values), nulls)?))
    }

    fn json(&self, rejects: &mut Rejects) -> Result<ArrayRef, ArrowError> {
        let (offsets, values, nulls) = self.bytes(rejects, |tag, bytes, values| {
            check_utf8(bytes)?;
            if self.syntax == Syntax::Json {
                if tag == Tag::Quoted {
                    let text = String::from_utf8_lossy(bytes);
                    return serde_json::to_writer(values, &text).map_err(|error| json_fault(&error));
                }
            } else {
                serde_json::from_slice::<IgnoredAny>(bytes).map_err(|error| json_fault(&error))?;
            }
            values.extend_from_slice(bytes);
            Ok(())
        });
        Ok(Arc::new(StringArray::try_new(offsets, Buffer::from_vec(values), nulls)?))
    }

    fn binary(&self, rejects: &mut Rejects) -> Result<ArrayRef, ArrowError> {
        let (offsets, values, nulls) =
            self.bytes(rejects, |_, bytes, values| parse::hexadecimal(bytes.trim_ascii(), values));
        Ok(Arc::new(BinaryArray::try_new(offsets, Buffer::from_vec(values), nulls)?))
    }

    fn fixed_binary(&self, width: i32, rejects: &mut Rejects) -> Result<ArrayRef, ArrowError> {
        let bytes_each = usize::try_from(width).unwrap_or(0);
        let mut values = Vec::with_capacity(self.rows.len() * bytes_each);
        let mut nulls = NullBufferBuilder::new(self.rows.len());
        self.each(rejects, |value| {
            let start = values.len();
            match value {
                Some(bytes) => {
                    let parsed = parse::hexadecimal(bytes.trim_ascii(), &mut values);
                    let found = values.len() - start;
                    if parsed.is_err() || found != bytes_each {
                        values.truncate(start);
                        parsed?;
                        return Err(Wrong::Bytes { expected: width, found });
                    }
                    nulls.append_non_null();
                }
                None => {
                    values.resize(start + bytes_each, 0);
                    nulls.append_null();
                }
            }
            Ok(())
        });
        Ok(Arc::new(FixedSizeBinaryArray::try_new(width, Buffer::from_vec(values), nulls.finish())?))
    }

    fn uuid(&self, rejects: &mut Rejects) -> Result<ArrayRef, ArrowError> {
        let mut values = Vec::with_capacity(self.rows.len() * 16);
        let mut nulls = NullBufferBuilder::new(self.rows.len());
        self.each(rejects, |value| {
            match value {
                Some(bytes) => {
                    values.extend_from_slice(&parse::uuid(bytes.trim_ascii())?);
                    nulls.append_non_null();
                }
                None => {
                    values.extend_from_slice(&[0; 16]);
                    nulls.append_null();
                }
            }
            Ok(())
        });
        Ok(Arc::new(FixedSizeBinaryArray::try_new(16, Buffer::from_vec(values), nulls.finish())?))
    }

    /// Items of all lists go to cells of their own, which are converted as one column.
    fn list(
        &self,
        item: &Column,
        length: Option<i32>,
        rejects: &mut Rejects,
    ) -> Result<ArrayRef, ArrowError> {
        let mut items = Cells::new(1);
        // For each item the list it stands in, and where the lists end.
        let (mut owners, mut offsets) = (Vec::new(), vec![0]);
        let mut nulls = NullBufferBuilder::new(self.rows.len());
        let mut list = 0;
        let mut push = |value: Option<(Tag, &[u8])>| {
            let before = items.rows();
            match value {
                Some((tag, bytes)) => {
                    let values = Items::parse(tag, bytes, &item.kind)?;
                    if let Some(expected) = length.filter(|&length| length as usize != values.len()) {
                        return Err(Wrong::Items { expected, found: values.len() });
                    }
                    values.push_to(&mut items);
                    nulls.append_non_null();
                }
                None => {
                    (0..length.unwrap_or(0)).for_each(|_| push_item(&mut items, b"", Tag::Null));
                    nulls.append_null();
                }
            }
            owners.resize(owners.len() + items.rows() - before, list);
            offsets.push(items.rows() as i32);
            list += 1;
            Ok(())
        };
        for row in self.rows.clone() {
            let (tag, _) = self.cells.get(row, self.index);
            if let Err(wrong) = push(self.value(row).map(|bytes| (tag, bytes))) {
                rejects.add(row - self.rows.start, self.index, wrong);
                // A null is never wrong.
                let _ = push(None);
            }
        }
        items.finish();
        let mut item_rejects = Rejects::new(items.rows());
        let conversion =
            Conversion { cells: &items, rows: 0..items.rows(), index: 0, column: item, syntax: Syntax::Json };
        let values = conversion.array(&mut item_rejects)?;
        for (row, _, wrong) in item_rejects.faults {
            let message = wrong.describe(&item.kind, items.get(row, 0).1).into();
            let index = row - offsets[owners[row]] as usize;
            rejects.add(owners[row], self.index, Wrong::Item { index, message });
        }
        let (field, nulls) = (item.field.clone(), nulls.finish());
        Ok(match length {
            Some(length) => Arc::new(FixedSizeListArray::try_new(field, length, values, nulls)?),
            None => {
                let offsets = OffsetBuffer::new(ScalarBuffer::from(offsets));
                Arc::new(ListArray::try_new(field, offsets, values, nulls)?)
            }
        })
    }
}

/// A list's items as they are written.
enum Items<'a> {
    Json(Vec<&'a RawValue>),
    /// Of PostgreSQL's way to write an array; the tag is that of those that are not NULL.
    Literal(Vec<Option<Vec<u8>>>, Tag),
}

impl<'a> Items<'a> {
    /// A JSON array, or text such as `{1,2,NULL}`. In JSON, what stands in braces and not in quotes is an object.
    fn parse(tag: Tag, bytes: &'a [u8], kind: &Kind) -> Result<Self, Wrong> {
        if tag != Tag::Nested && bytes.trim_ascii_start().starts_with(b"{") {
            let values = parse::array_literal(bytes.trim_ascii()).ok_or(Wrong::Malformed)?;
            if *kind != Kind::Json {
                return Ok(Items::Literal(values, Tag::Quoted));
            }
            let is_json = |value: &Vec<u8>| serde_json::from_slice::<IgnoredAny>(value).is_ok();
            return match values.iter().flatten().all(is_json) {
                true => Ok(Items::Literal(values, Tag::Nested)),
                false => Err(Wrong::Malformed),
            };
        }
        let values: Vec<&RawValue> = serde_json::from_slice(bytes).map_err(|_| Wrong::Malformed)?;
        if !values.iter().all(|value| is_decodable(value)) {
            return Err(Wrong::Malformed);
        }
        Ok(Items::Json(values))
    }

    fn len(&self) -> usize {
        match self {
            Items::Json(values) => values.len(),
            Items::Literal(values, _) => values.len(),
        }
    }

    fn push_to(self, items: &mut Cells) {
        match self {
            Items::Json(values) => values.into_iter().for_each(|value| {
                items.push_json(Some(value));
                items.push_row(NOWHERE);
            }),
            Items::Literal(values, tag) => values.into_iter().for_each(|value| match value {
                Some(value) => push_item(items, &value, tag),
                None => push_item(items, b"", Tag::Null),
            }),
        }
    }
}

/// The place of an item, which is its list's.
const NOWHERE: Place = Place { line: 0, row: 0, raw_start: 0, raw_bytes: 0 };

fn push_item(items: &mut Cells, bytes: &[u8], tag: Tag) {
    items.push(bytes, tag);
    items.push_row(NOWHERE);
}

/// Parses a value; where that fails, without the white space around it.
#[inline]
fn trimmed<T>(bytes: &[u8], parse: impl Fn(&[u8]) -> Result<T, Wrong>) -> Result<T, Wrong> {
    parse(bytes).or_else(|wrong| {
        let inner = bytes.trim_ascii();
        if inner.len() == bytes.len() { Err(wrong) } else { parse(inner) }
    })
}

fn check_utf8(bytes: &[u8]) -> Result<(), Wrong> {
    std::str::from_utf8(bytes).map(|_| ()).map_err(|error| Wrong::Utf8(error.valid_up_to()))
}

fn json_fault(error: &serde_json::Error) -> Wrong {
    Wrong::Json(error.to_string().into())
}
