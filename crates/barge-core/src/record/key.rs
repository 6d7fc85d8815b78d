//! Keys to look rows up by.

use std::hash::Hash;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::compute::cast;
use arrow::datatypes::{DataType, FieldRef, Schema};

use super::value::{ColumnBuilder, ColumnOptions, FromColumn, ToColumn};
use super::{Table, TableName};
use crate::{Error, ErrorKind, Result};

/// A key of a row: one value, or a tuple of as many as the key has columns, in the order of the record's fields.
///
/// Number types need not match the column's: `get_all::<Task, _>(&[1, 2])` finds `i64` keys. A key that the columns can't hold finds nothing: it is
/// no error, and the other keys are looked up.
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

/// A key that a loader can hold: it owns its values, and can be compared.
pub trait OwnedKey: Key + Hash + Eq + Clone + Send + Sync + 'static {
    /// Reads keys from their columns, which hold no NULL.
    #[doc(hidden)]
    fn read(arrays: &[ArrayRef]) -> Result<Vec<Self>>;
}

impl<T: ToColumn + FromColumn + Hash + Eq + Clone + Send + Sync + 'static> OwnedKey for T {
    fn read(arrays: &[ArrayRef]) -> Result<Vec<Self>> {
        let array = T::bind(part(arrays, 0)?)?;
        (0..arrays[0].len()).map(|row| T::get(&array, row)).collect()
    }
}

macro_rules! owned_tuple_key {
    ($($name:ident $index:tt),*) => {
        impl<$($name: ToColumn + FromColumn + Hash + Eq + Clone + Send + Sync + 'static),*> OwnedKey for ($($name,)*) {
            fn read(arrays: &[ArrayRef]) -> Result<Vec<Self>> {
                let columns = ($($name::bind(part(arrays, $index)?)?,)*);
                (0..arrays[0].len()).map(|row| Ok(($($name::get(&columns.$index, row)?,)*))).collect()
            }
        }
    };
}

owned_tuple_key!(A 0);
owned_tuple_key!(A 0, B 1);
owned_tuple_key!(A 0, B 1, C 2);
owned_tuple_key!(A 0, B 1, C 2, D 3);

fn part(arrays: &[ArrayRef], index: usize) -> Result<&ArrayRef> {
    arrays.get(index).ok_or_else(|| Error::new(ErrorKind::InvalidConfig, "the key has fewer columns"))
}

/// One part of each key, in its column's type. A value that no row of the column can have is NULL, which finds nothing.
fn column<K, T: ToColumn>(keys: &[K], part: impl Fn(&K) -> &T, data_type: &DataType) -> Result<ArrayRef> {
    let decimal = match data_type {
        &DataType::Decimal128(precision, scale) => Some((precision, scale)),
        _ => None,
    };
    let own_type = T::data_type(ColumnOptions { decimal });
    let mut builder = T::Builder::with_capacity(&own_type, keys.len());
    for key in keys {
        match part(key).check(&builder) {
            Ok(()) => {
                part(key).append(&mut builder);
            }
            Err(_) => builder.append_null(),
        }
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
    // What doesn't fit becomes NULL.
    Ok(cast(&array, data_type)?)
}

/// The keys as a record batch whose columns are the key columns of `table`.
pub(crate) fn key_batch<K: Key>(table: &Table, keys: &[K]) -> Result<RecordBatch> {
    let fields: Vec<FieldRef> =
        table.key().into_iter().map(|index| Arc::clone(&table.columns()[index].field)).collect();
    keys_as(table.name(), &fields, keys)
}

/// The keys as a record batch with columns of a table.
pub(crate) fn keys_as<K: Key>(table: &TableName, fields: &[FieldRef], keys: &[K]) -> Result<RecordBatch> {
    let named = |error: Error| error.with_table(table.to_string());
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

/// Keys to look rows up by: a slice, vector or array of [`Key`]s, or a record batch that has the columns by name.
pub trait Keys {
    #[doc(hidden)]
    fn into_batch(self, table: &TableName, fields: &[FieldRef]) -> Result<RecordBatch>;
}

impl<K: Key> Keys for &[K] {
    fn into_batch(self, table: &TableName, fields: &[FieldRef]) -> Result<RecordBatch> {
        keys_as(table, fields, self)
    }
}

impl<K: Key> Keys for &Vec<K> {
    fn into_batch(self, table: &TableName, fields: &[FieldRef]) -> Result<RecordBatch> {
        keys_as(table, fields, self)
    }
}

impl<K: Key, const LENGTH: usize> Keys for &[K; LENGTH] {
    fn into_batch(self, table: &TableName, fields: &[FieldRef]) -> Result<RecordBatch> {
        keys_as(table, fields, self)
    }
}

impl Keys for &RecordBatch {
    fn into_batch(self, table: &TableName, fields: &[FieldRef]) -> Result<RecordBatch> {
        let schema = self.schema();
        let place = |name: &str| {
            let exact = schema.index_of(name).ok();
            exact.or_else(|| schema.fields().iter().position(|field| field.name().eq_ignore_ascii_case(name)))
        };
        let places = fields.iter().map(|field| {
            place(field.name()).ok_or_else(|| {
                let names: Vec<&str> = schema.fields().iter().map(|field| field.name().as_str()).collect();
                let message = format!("the keys lack this column; they have {}", names.join(", "));
                Error::new(ErrorKind::MissingColumn, message)
                    .with_table(table.to_string())
                    .with_column(field.name())
            })
        });
        let keys = self.project(&places.collect::<Result<Vec<_>>>()?)?;
        let own = keys.schema();
        let named = own.fields().iter().zip(fields);
        let named: Vec<FieldRef> = named
            .map(|(own, field)| {
                Arc::new((**own).clone().with_name(field.name()).with_nullable(true)) as FieldRef
            })
            .collect();
        Ok(RecordBatch::try_new(Arc::new(Schema::new(named)), keys.columns().to_vec())?)
    }
}
