//! Lists: `Vec<T>` and `[T]` of scalar column types, and `[f32; N]` for embeddings.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, FixedSizeListArray, Float32Array, ListArray, PrimitiveBuilder};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::datatypes::{DataType, Field, FieldRef, Float32Type};

use super::read::cast;
use super::{ColumnBuilder, ColumnOptions, ColumnType, FromColumn, ToColumn, invalid};
use crate::{Error, ErrorKind, Result};

/// A type that may stand in a `Vec`: a scalar, or an `Option` of one. Not `u8`, as a `Vec<u8>` is binary and no list, and no
/// list, as not all databases have lists of lists.
#[diagnostic::on_unimplemented(
    message = "a list of `{Self}` can't be a column",
    label = "not a type for the values of a list",
    note = "a list holds scalars or Options of them, and no lists; bytes are `Vec<u8>` or `&[u8]`, without an Option inside",
    note = "see docs/types.md for the types of columns"
)]
pub trait ListElement: ColumnType {}

macro_rules! list_element {
    ($($rust:ty),* $(,)?) => { $(impl ListElement for $rust {})* };
}

list_element! {
    bool, i8, i16, i32, i64, u16, u32, u64, f32, f64, chrono::NaiveDate, chrono::NaiveTime, chrono::DateTime<chrono::Utc>,
    chrono::NaiveDateTime, uuid::Uuid, serde_json::Value, rust_decimal::Decimal, String, &str, Box<str>, Arc<str>,
    Cow<'_, str>, Vec<u8>, &[u8], Box<[u8]>, Arc<[u8]>, Cow<'_, [u8]>,
}

impl<T: ListElement> ListElement for Option<T> {}

fn element_field<T: ColumnType>(options: ColumnOptions) -> FieldRef {
    Arc::new(super::field::<T>("item", options))
}

impl<T: ListElement> ColumnType for [T] {
    const NULLABLE: bool = {
        // Read for its assertions only.
        let _ = T::NULLABLE;
        false
    };
    const DECIMAL: bool = T::DECIMAL;

    fn data_type(options: ColumnOptions) -> DataType {
        DataType::List(element_field::<T>(options))
    }
}

/// Lists of values of one type.
pub struct ListBuilder<B> {
    item: FieldRef,
    values: B,
    ends: Vec<i32>,
    valid: Vec<bool>,
    /// How many values there are, which is the last of `ends`.
    length: i32,
}

impl<B: ColumnBuilder> ColumnBuilder for ListBuilder<B> {
    fn with_capacity(data_type: &DataType, rows: usize) -> Self {
        let DataType::List(item) = data_type else {
            unreachable!("only types that map to List use this builder")
        };
        let values = B::with_capacity(item.data_type(), rows);
        ListBuilder { item: item.clone(), values, ends: vec![0], valid: Vec::new(), length: 0 }
    }

    fn append_null(&mut self) {
        self.ends.push(self.length);
        self.valid.push(false);
    }

    fn finish(&mut self) -> ArrayRef {
        let values = self.values.finish();
        self.length = 0;
        let offsets = OffsetBuffer::new(std::mem::replace(&mut self.ends, vec![0]).into());
        let nulls = NullBuffer::from(std::mem::take(&mut self.valid));
        let nulls = (nulls.null_count() > 0).then_some(nulls);
        Arc::new(ListArray::new(self.item.clone(), offsets, values, nulls))
    }
}

impl<T: ToColumn + ListElement> ToColumn for [T] {
    type Builder = ListBuilder<T::Builder>;

    fn check(&self, builder: &Self::Builder) -> Result<()> {
        let length = i32::try_from(self.len()).ok().and_then(|length| builder.length.checked_add(length));
        if length.is_none() {
            let message =
                format!("the list of {} values is too long: a batch holds {}", self.len(), i32::MAX);
            return Err(Error::new(ErrorKind::TooLarge, message));
        }
        self.iter().try_for_each(|value| value.check(&builder.values))
    }

    fn append(&self, builder: &mut Self::Builder) -> usize {
        let bytes: usize = self.iter().map(|value| value.append(&mut builder.values)).sum();
        builder.length += self.len() as i32;
        builder.ends.push(builder.length);
        builder.valid.push(true);
        bytes + size_of::<i32>()
    }
}

/// Lists that are written as the slice they dereference to.
macro_rules! written_as_slice {
    ($($owned:ty $(: $bound:ident)?),* $(,)?) => {$(
        impl<T: ListElement $(+ $bound)?> ColumnType for $owned {
            const NULLABLE: bool = <[T]>::NULLABLE;
            const DECIMAL: bool = <[T]>::DECIMAL;

            fn data_type(options: ColumnOptions) -> DataType {
                <[T]>::data_type(options)
            }
        }

        impl<T: ToColumn + ListElement $(+ $bound)?> ToColumn for $owned {
            type Builder = ListBuilder<T::Builder>;

            #[inline]
            fn check(&self, builder: &Self::Builder) -> Result<()> {
                <[T]>::check(self, builder)
            }

            #[inline]
            fn append(&self, builder: &mut Self::Builder) -> usize {
                <[T]>::append(self, builder)
            }
        }
    )*};
}

written_as_slice!(Vec<T>, Box<[T]>, Cow<'_, [T]>: Clone);

impl<T: FromColumn + ListElement> FromColumn for Vec<T> {
    /// Where each list starts and ends, and the values of all of them from the first list's first on.
    type Array = (OffsetBuffer<i32>, T::Array);

    fn bind(array: &ArrayRef) -> Result<Self::Array> {
        let list = match array.data_type() {
            DataType::List(_) => array.as_list::<i32>().clone(),
            DataType::LargeList(item) | DataType::FixedSizeList(item, _) | DataType::ListView(item) => {
                cast(array, &DataType::List(item.clone()))?.as_list::<i32>().clone()
            }
            other => return Err(invalid(format!("{other} can't be read as a list"))),
        };
        let offsets = list.offsets().clone();
        let (first, last) = (offsets[0] as usize, offsets[list.len()] as usize);
        let values = list.values().slice(first, last - first);
        if !T::NULLABLE {
            let range = |row: usize| offsets[row] as usize - first..offsets[row + 1] as usize - first;
            refuse_null_values(&list, &values, range, "Vec<Option<_>>")?;
        }
        Ok((offsets, T::bind(&values)?))
    }

    fn get((offsets, values): &Self::Array, row: usize) -> Result<Self> {
        let first = offsets[0];
        let range = (offsets[row] - first) as usize..(offsets[row + 1] - first) as usize;
        range.map(|index| T::get(values, index)).collect()
    }
}

/// Refuses a NULL inside a list. One that is behind a NULL list is nobody's.
fn refuse_null_values(
    list: &dyn Array,
    values: &ArrayRef,
    range: impl Fn(usize) -> Range<usize>,
    instead: &str,
) -> Result<()> {
    let Some(nulls) = values.logical_nulls().filter(|nulls| nulls.null_count() > 0) else { return Ok(()) };
    let row = (0..list.len())
        .filter(|&row| !list.is_null(row))
        .find(|&row| range(row).any(|index| nulls.is_null(index)));
    match row {
        Some(row) => {
            let message = format!("the list holds NULL: read the column as {instead}");
            Err(invalid(message).with_row(row as u64))
        }
        None => Ok(()),
    }
}

impl<const N: usize> ColumnType for [f32; N] {
    fn data_type(_: ColumnOptions) -> DataType {
        let item = Arc::new(Field::new("item", DataType::Float32, false));
        DataType::FixedSizeList(item, i32::try_from(N).unwrap_or(i32::MAX))
    }
}

/// Lists of `f32` that all have one length.
pub struct FixedListBuilder {
    item: FieldRef,
    length: i32,
    values: PrimitiveBuilder<Float32Type>,
    valid: Vec<bool>,
}

impl ColumnBuilder for FixedListBuilder {
    fn with_capacity(data_type: &DataType, rows: usize) -> Self {
        let DataType::FixedSizeList(item, length) = data_type else {
            unreachable!("only types that map to FixedSizeList use this builder")
        };
        let values = PrimitiveBuilder::with_capacity(rows * *length as usize);
        FixedListBuilder { item: item.clone(), length: *length, values, valid: Vec::with_capacity(rows) }
    }

    fn append_null(&mut self) {
        self.values.append_value_n(0.0, self.length as usize);
        self.valid.push(false);
    }

    fn finish(&mut self) -> ArrayRef {
        let rows = self.valid.len();
        let nulls = NullBuffer::from(std::mem::take(&mut self.valid));
        let nulls = (nulls.null_count() > 0).then_some(nulls);
        let values = Arc::new(self.values.finish());
        // The length is given beside the values, so that a list of zero values still counts its rows.
        let list =
            FixedSizeListArray::try_new_with_length(self.item.clone(), self.length, values, nulls, rows);
        match list {
            Ok(list) => Arc::new(list),
            Err(error) => unreachable!("{rows} rows of {} values were appended: {error}", self.length),
        }
    }
}

impl<const N: usize> ToColumn for [f32; N] {
    type Builder = FixedListBuilder;

    fn append(&self, builder: &mut Self::Builder) -> usize {
        builder.values.append_slice(self);
        builder.valid.push(true);
        N * size_of::<f32>()
    }
}

impl<const N: usize> FromColumn for [f32; N] {
    type Array = (FixedSizeListArray, Float32Array);

    fn bind(array: &ArrayRef) -> Result<Self::Array> {
        let length = i32::try_from(N).unwrap_or(i32::MAX);
        let list = match array.data_type() {
            DataType::FixedSizeList(_, own) if *own == length => array.clone(),
            DataType::List(item) | DataType::LargeList(item) | DataType::ListView(item) => {
                cast(array, &DataType::FixedSizeList(item.clone(), length))?
            }
            other => return Err(invalid(format!("{other} can't be read as a list of {N} values"))),
        };
        let list = list.as_fixed_size_list().clone();
        refuse_null_values(&list, list.values(), |row| row * N..(row + 1) * N, "Vec<Option<f32>>")?;
        let values = f32::bind(list.values())?;
        Ok((list, values))
    }

    fn get((list, values): &Self::Array, row: usize) -> Result<Self> {
        let start = list.value_offset(row) as usize;
        let slice = values.values().get(start..start + N).and_then(|slice| slice.try_into().ok());
        slice.ok_or_else(|| invalid(format!("a list of other than {N} values")))
    }
}
