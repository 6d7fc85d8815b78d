//! Keys to look rows up by.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, FieldRef, Schema};

use super::Table;
use super::value::{ColumnBuilder, ColumnOptions, ToColumn};
use crate::{Error, ErrorKind, Result};

/// A key of a row: one value, or a tuple of as many as the key has columns, in the order of the record's fields.
///
/// Number types need not match the column's: `get_all::<Task>(&[1, 2])` finds `i64` keys.
pub trait Key: Sized {
    #[doc(hidden)]
    fn arrays(keys: &[Self], types: &[&DataType]) -> Result<Vec<ArrayRef>>;

    #[doc(hidden)]
    const WIDTH: usize;
}

impl<T: ToColumn> Key for T {
    const WIDTH: usize = 1;

    fn arrays(keys: &[Self], types: &[&DataType]) -> Result<Vec<ArrayRef>> {
        Ok(vec![column(keys, |key| key, types[0])?])
    }
}

macro_rules! tuple_key {
    ($width:literal: $($name:ident $index:tt),*) => {
        impl<$($name: ToColumn),*> Key for ($($name,)*) {
            const WIDTH: usize = $width;

            fn arrays(keys: &[Self], types: &[&DataType]) -> Result<Vec<ArrayRef>> {
                Ok(vec![$(column(keys, |key| &key.$index, types[$index])?),*])
            }
        }
    };
}

tuple_key!(1: A 0);
tuple_key!(2: A 0, B 1);
tuple_key!(3: A 0, B 1, C 2);
tuple_key!(4: A 0, B 1, C 2, D 3);

fn column<K, T: ToColumn>(keys: &[K], part: impl Fn(&K) -> &T, data_type: &DataType) -> Result<ArrayRef> {
    let decimal = match data_type {
        &DataType::Decimal128(precision, scale) => Some((precision, scale)),
        _ => None,
    };
    let own_type = T::data_type(ColumnOptions { decimal });
    let mut builder = T::Builder::with_capacity(&own_type, keys.len());
    for (row, key) in keys.iter().enumerate() {
        part(key).check(&builder).map_err(|error| error.with_row(row as u64))?;
        part(key).append(&mut builder);
    }
    let array = builder.finish();
    if &own_type == data_type {
        return Ok(array);
    }
    if !(own_type.is_integer() && data_type.is_integer()) {
        return Err(Error::new(
            ErrorKind::InvalidConfig,
            format!("the key column is {data_type}, but the keys given are {own_type}"),
        ));
    }
    let options = CastOptions { safe: false, ..CastOptions::default() };
    Ok(cast_with_options(&array, data_type, &options)?)
}

/// The keys as a record batch whose columns are the key columns of `table`.
pub(crate) fn key_batch<K: Key>(table: &Table, keys: &[K]) -> Result<RecordBatch> {
    let fields: Vec<FieldRef> =
        table.key().into_iter().map(|index| Arc::clone(&table.columns()[index].field)).collect();
    let named = |error: Error| error.with_table(table.name().to_string());
    if fields.len() != K::WIDTH {
        let message =
            format!("the key has {} columns, but {} values are given a key", fields.len(), K::WIDTH);
        return Err(named(Error::new(ErrorKind::InvalidConfig, message)));
    }
    let types: Vec<&DataType> = fields.iter().map(|field| field.data_type()).collect();
    let arrays = K::arrays(keys, &types).map_err(named)?;
    let options = RecordBatchOptions::new().with_row_count(Some(keys.len()));
    let fields: Vec<FieldRef> =
        fields.iter().map(|field| Arc::new((**field).clone().with_nullable(true))).collect();
    Ok(RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), arrays, &options)?)
}
