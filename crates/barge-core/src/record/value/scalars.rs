//! Numbers, text, binary and UUIDs.

use std::borrow::Cow;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BinaryArray, BinaryBuilder, BooleanArray, BooleanBuilder, FixedSizeBinaryArray,
    FixedSizeBinaryBuilder, PrimitiveArray, PrimitiveBuilder, StringArray,
};
use arrow::datatypes::*;
use uuid::Uuid;

use super::read::cast;
use super::{ColumnOptions, ColumnType, FromColumn, TextBuilder, ToColumn, invalid};
use crate::{Error, ErrorKind, Result};

macro_rules! primitive {
    ($($rust:ty => $arrow:ident),* $(,)?) => {$(
        impl ColumnType for $rust {
            fn data_type(_: ColumnOptions) -> DataType {
                $arrow::DATA_TYPE
            }
        }

        impl ToColumn for $rust {
            type Builder = PrimitiveBuilder<$arrow>;

            #[inline]
            fn append(&self, builder: &mut Self::Builder) -> usize {
                builder.append_value(*self);
                size_of::<Self>()
            }
        }

        impl FromColumn for $rust {
            type Array = PrimitiveArray<$arrow>;

            fn bind(array: &ArrayRef) -> Result<Self::Array> {
                Ok(cast(array, &$arrow::DATA_TYPE)?.as_primitive().clone())
            }

            #[inline]
            fn get(array: &Self::Array, row: usize) -> Result<Self> {
                Ok(array.value(row))
            }
        }
    )*};
}

primitive! {
    i8 => Int8Type, i16 => Int16Type, i32 => Int32Type, i64 => Int64Type,
    u8 => UInt8Type, u16 => UInt16Type, u32 => UInt32Type, u64 => UInt64Type,
    f32 => Float32Type, f64 => Float64Type,
}

impl ColumnType for bool {
    fn data_type(_: ColumnOptions) -> DataType {
        DataType::Boolean
    }
}

impl ToColumn for bool {
    type Builder = BooleanBuilder;

    #[inline]
    fn append(&self, builder: &mut Self::Builder) -> usize {
        builder.append_value(*self);
        1
    }
}

impl FromColumn for bool {
    type Array = BooleanArray;

    fn bind(array: &ArrayRef) -> Result<Self::Array> {
        Ok(cast(array, &DataType::Boolean)?.as_boolean().clone())
    }

    #[inline]
    fn get(array: &Self::Array, row: usize) -> Result<Self> {
        Ok(array.value(row))
    }
}

/// The bytes an offset takes beside a text's or a blob's own.
pub(super) const OFFSET_BYTES: usize = size_of::<i32>();

/// Arrow's offsets of text and binary are `i32`: one batch's values of one column together have to stay below 2 GiB.
#[inline]
pub(super) fn check_room(held: usize, bytes: usize) -> Result<()> {
    if held + bytes <= i32::MAX as usize {
        return Ok(());
    }
    let message =
        format!("the value of {bytes} bytes is too large: one batch's values of a column hold 2 GiB");
    Err(Error::new(ErrorKind::TooLarge, message))
}

impl ColumnType for str {
    fn data_type(_: ColumnOptions) -> DataType {
        DataType::Utf8
    }
}

impl ToColumn for str {
    type Builder = TextBuilder;

    #[inline]
    fn check(&self, builder: &Self::Builder) -> Result<()> {
        check_room(builder.values_slice().len(), self.len())
    }

    #[inline]
    fn append(&self, builder: &mut Self::Builder) -> usize {
        builder.append_value(self);
        self.len() + OFFSET_BYTES
    }
}

impl ColumnType for [u8] {
    fn data_type(_: ColumnOptions) -> DataType {
        DataType::Binary
    }
}

impl ToColumn for [u8] {
    type Builder = BinaryBuilder;

    #[inline]
    fn check(&self, builder: &Self::Builder) -> Result<()> {
        check_room(builder.values_slice().len(), self.len())
    }

    #[inline]
    fn append(&self, builder: &mut Self::Builder) -> usize {
        builder.append_value(self);
        self.len() + OFFSET_BYTES
    }
}

/// Types that are written as what they dereference to.
macro_rules! written_as {
    ($($owned:ty => $borrowed:ty),* $(,)?) => {$(
        impl ColumnType for $owned {
            fn data_type(options: ColumnOptions) -> DataType {
                <$borrowed>::data_type(options)
            }
        }

        impl ToColumn for $owned {
            type Builder = <$borrowed as ToColumn>::Builder;

            #[inline]
            fn check(&self, builder: &Self::Builder) -> Result<()> {
                <$borrowed>::check(self, builder)
            }

            #[inline]
            fn append(&self, builder: &mut Self::Builder) -> usize {
                <$borrowed>::append(self, builder)
            }
        }
    )*};
}

written_as! {
    String => str, Box<str> => str, Arc<str> => str, Cow<'_, str> => str,
    Vec<u8> => [u8], Box<[u8]> => [u8], Arc<[u8]> => [u8], Cow<'_, [u8]> => [u8],
}

macro_rules! read_as {
    ($arrow:expr, $array:ty, $downcast:ident: $($owned:ty),* $(,)?) => {$(
        impl FromColumn for $owned {
            type Array = $array;

            fn bind(array: &ArrayRef) -> Result<Self::Array> {
                Ok(cast(array, &$arrow)?.$downcast().clone())
            }

            #[inline]
            fn get(array: &Self::Array, row: usize) -> Result<Self> {
                Ok(array.value(row).into())
            }
        }
    )*};
}

read_as!(DataType::Utf8, StringArray, as_string: String, Box<str>, Arc<str>);
read_as!(DataType::Binary, BinaryArray, as_binary: Vec<u8>, Box<[u8]>, Arc<[u8]>);

/// Read as owned.
impl FromColumn for Cow<'_, str> {
    type Array = StringArray;

    fn bind(array: &ArrayRef) -> Result<Self::Array> {
        String::bind(array)
    }

    #[inline]
    fn get(array: &Self::Array, row: usize) -> Result<Self> {
        String::get(array, row).map(Cow::Owned)
    }
}

/// Read as owned.
impl FromColumn for Cow<'_, [u8]> {
    type Array = BinaryArray;

    fn bind(array: &ArrayRef) -> Result<Self::Array> {
        Vec::<u8>::bind(array)
    }

    #[inline]
    fn get(array: &Self::Array, row: usize) -> Result<Self> {
        Vec::<u8>::get(array, row).map(Cow::Owned)
    }
}

impl ColumnType for Uuid {
    const EXTENSION: Option<&'static str> = Some("arrow.uuid");

    fn data_type(_: ColumnOptions) -> DataType {
        DataType::FixedSizeBinary(16)
    }
}

impl ToColumn for Uuid {
    type Builder = FixedSizeBinaryBuilder;

    #[inline]
    fn append(&self, builder: &mut Self::Builder) -> usize {
        // The builder was made for 16 bytes, and a UUID has 16.
        let appended = builder.append_value(self.as_bytes());
        debug_assert!(appended.is_ok());
        16
    }
}

impl FromColumn for Uuid {
    type Array = FixedSizeBinaryArray;

    fn bind(array: &ArrayRef) -> Result<Self::Array> {
        if array.data_type().is_string() {
            return uuids_from_text(cast(array, &DataType::Utf8)?.as_string());
        }
        Ok(cast(array, &DataType::FixedSizeBinary(16))?.as_fixed_size_binary().clone())
    }

    fn get(array: &Self::Array, row: usize) -> Result<Self> {
        Uuid::from_slice(array.value(row)).map_err(|error| invalid(format!("no UUID: {error}")))
    }
}

fn uuids_from_text(texts: &StringArray) -> Result<FixedSizeBinaryArray> {
    let mut builder = FixedSizeBinaryBuilder::with_capacity(texts.len(), 16);
    for (row, text) in texts.iter().enumerate() {
        match text {
            Some(text) => {
                let uuid = Uuid::parse_str(text)
                    .map_err(|_| invalid(format!("'{text}' is no UUID")).with_row(row as u64))?;
                builder.append_value(uuid.as_bytes())?;
            }
            None => builder.append_null(),
        }
    }
    Ok(builder.finish())
}
