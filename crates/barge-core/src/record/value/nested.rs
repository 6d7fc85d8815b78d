//! Lists: `Vec<T>` of any column type, and `[f32; N]` for embeddings.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, FixedSizeListArray, Float32Array, ListArray, PrimitiveBuilder};
use arrow::buffer::{NullBuffer, OffsetBuffer};
use arrow::datatypes::{DataType, Field, FieldRef, Float32Type};

use super::read::cast;
use super::{ColumnBuilder, ColumnOptions, ColumnType, FromColumn, ToColumn, invalid};
use crate::Result;

/// A type that may stand in a `Vec`. All column types but `u8`: a `Vec<u8>` is binary, not a list.
pub trait ListElement: ColumnType {}

macro_rules! list_element {
    ($($rust:ty),* $(,)?) => { $(impl ListElement for $rust {})* };
}

list_element! {
    bool, i8, i16, i32, i64, u16, u32, u64, f32, f64, String, &str, Vec<u8>, &[u8], chrono::NaiveDate, chrono::NaiveTime,
    chrono::DateTime<chrono::Utc>, chrono::NaiveDateTime, uuid::Uuid, serde_json::Value, rust_decimal::Decimal,
}

impl<T: ListElement> ListElement for Option<T> {}

fn element_field<T: ColumnType>(options: ColumnOptions) -> FieldRef {
    Arc::new(super::field::<T>("item", options))
}

impl<T: ListElement> ColumnType for Vec<T> {
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
    rows: usize,
    length: i32,
}

impl<B: ColumnBuilder> ColumnBuilder for ListBuilder<B> {
    fn with_capacity(data_type: &DataType, rows: usize) -> Self {
        let DataType::List(item) = data_type else {
            unreachable!("only types that map to List use this builder")
        };
        let values = B::with_capacity(item.data_type(), rows);
        ListBuilder { item: item.clone(), values, ends: vec![0], valid: Vec::new(), rows, length: 0 }
    }

    fn append_null(&mut self) {
        self.ends.push(self.length);
        self.valid.push(false);
    }

    fn finish(&mut self) -> ArrayRef {
        let values = self.values.finish();
        self.values = B::with_capacity(self.item.data_type(), self.rows);
        self.length = 0;
        let offsets = OffsetBuffer::new(std::mem::replace(&mut self.ends, vec![0]).into());
        let nulls = NullBuffer::from(std::mem::take(&mut self.valid));
        let nulls = (nulls.null_count() > 0).then_some(nulls);
        Arc::new(ListArray::new(self.item.clone(), offsets, values, nulls))
    }
}

impl<T: ToColumn + ListElement> ToColumn for Vec<T> {
    type Builder = ListBuilder<T::Builder>;

    fn check(&self, builder: &Self::Builder) -> Result<()> {
        if i32::try_from(self.len()).is_err() {
            return Err(invalid(format!("a list of {} values is too long", self.len())));
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

impl<T: FromColumn + ListElement> FromColumn for Vec<T> {
    type Array = (ListArray, T::Array);

    fn bind(array: &ArrayRef) -> Result<Self::Array> {
        let list = match array.data_type() {
            DataType::List(_) => array.as_list::<i32>().clone(),
            _ => cast(array, &Self::data_type(ColumnOptions::default()))?.as_list::<i32>().clone(),
        };
        if !T::NULLABLE && list.values().null_count() > 0 {
            return Err(invalid("a list holds NULL: read it as Vec<Option<_>>"));
        }
        let values = T::bind(list.values())?;
        Ok((list, values))
    }

    fn get((list, values): &Self::Array, row: usize) -> Result<Self> {
        let offsets = list.value_offsets();
        (offsets[row] as usize..offsets[row + 1] as usize).map(|index| T::get(values, index)).collect()
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
        self.values.append_slice(&vec![0.0; self.length as usize]);
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
        let list = cast(array, &Self::data_type(ColumnOptions::default()))?.as_fixed_size_list().clone();
        let values = list.values().as_primitive::<Float32Type>().clone();
        Ok((list, values))
    }

    fn get((list, values): &Self::Array, row: usize) -> Result<Self> {
        let start = list.value_offset(row) as usize;
        let slice = values.values().get(start..start + N).and_then(|slice| slice.try_into().ok());
        slice.ok_or_else(|| invalid(format!("a list of other than {N} values")))
    }
}
