//! The builders behind each column: Arrow's own where one fits.

use std::io;
use std::sync::Arc;

use arrow::array::{
    ArrayBuilder, ArrayRef, ArrowPrimitiveType, BinaryBuilder, BooleanBuilder, Decimal128Builder,
    FixedSizeBinaryBuilder, PrimitiveBuilder, StringBuilder,
};
use arrow::datatypes::DataType;

/// Gathers one column's values.
pub trait ColumnBuilder: Send + 'static {
    /// An empty builder for a type, with room for `rows` values.
    fn with_capacity(data_type: &DataType, rows: usize) -> Self;

    /// Appends NULL.
    fn append_null(&mut self);

    /// Takes the values built so far, leaving the builder empty.
    fn finish(&mut self) -> ArrayRef;
}

impl<T: ArrowPrimitiveType> ColumnBuilder for PrimitiveBuilder<T> {
    fn with_capacity(data_type: &DataType, rows: usize) -> Self {
        PrimitiveBuilder::with_capacity(rows).with_data_type(data_type.clone())
    }

    fn append_null(&mut self) {
        PrimitiveBuilder::append_null(self);
    }

    fn finish(&mut self) -> ArrayRef {
        ArrayBuilder::finish(self)
    }
}

impl ColumnBuilder for BooleanBuilder {
    fn with_capacity(_: &DataType, rows: usize) -> Self {
        BooleanBuilder::with_capacity(rows)
    }

    fn append_null(&mut self) {
        BooleanBuilder::append_null(self);
    }

    fn finish(&mut self) -> ArrayRef {
        ArrayBuilder::finish(self)
    }
}

/// Text, and enums stored as text.
pub type TextBuilder = StringBuilder;

/// The room set aside for a text or binary value before its size is known, in bytes.
const ASSUMED_VALUE_BYTES: usize = 16;

impl ColumnBuilder for StringBuilder {
    fn with_capacity(_: &DataType, rows: usize) -> Self {
        StringBuilder::with_capacity(rows, rows * ASSUMED_VALUE_BYTES)
    }

    fn append_null(&mut self) {
        StringBuilder::append_null(self);
    }

    fn finish(&mut self) -> ArrayRef {
        ArrayBuilder::finish(self)
    }
}

impl ColumnBuilder for BinaryBuilder {
    fn with_capacity(_: &DataType, rows: usize) -> Self {
        BinaryBuilder::with_capacity(rows, rows * ASSUMED_VALUE_BYTES)
    }

    fn append_null(&mut self) {
        BinaryBuilder::append_null(self);
    }

    fn finish(&mut self) -> ArrayRef {
        ArrayBuilder::finish(self)
    }
}

impl ColumnBuilder for FixedSizeBinaryBuilder {
    fn with_capacity(data_type: &DataType, rows: usize) -> Self {
        let DataType::FixedSizeBinary(width) = data_type else {
            unreachable!("only types that map to FixedSizeBinary use this builder")
        };
        FixedSizeBinaryBuilder::with_capacity(rows, *width)
    }

    fn append_null(&mut self) {
        FixedSizeBinaryBuilder::append_null(self);
    }

    fn finish(&mut self) -> ArrayRef {
        ArrayBuilder::finish(self)
    }
}

/// Decimals of one precision and scale.
pub struct DecimalBuilder {
    pub(super) values: Decimal128Builder,
    pub(super) precision: u8,
    pub(super) scale: i8,
}

impl ColumnBuilder for DecimalBuilder {
    fn with_capacity(data_type: &DataType, rows: usize) -> Self {
        let &DataType::Decimal128(precision, scale) = data_type else {
            unreachable!("only types that map to Decimal128 use this builder")
        };
        let values = Decimal128Builder::with_capacity(rows).with_data_type(data_type.clone());
        DecimalBuilder { values, precision, scale }
    }

    fn append_null(&mut self) {
        self.values.append_null();
    }

    fn finish(&mut self) -> ArrayRef {
        Arc::new(self.values.finish())
    }
}

/// JSON, kept as its text.
pub struct JsonBuilder(pub(super) StringBuilder);

impl ColumnBuilder for JsonBuilder {
    fn with_capacity(data_type: &DataType, rows: usize) -> Self {
        JsonBuilder(ColumnBuilder::with_capacity(data_type, rows))
    }

    fn append_null(&mut self) {
        self.0.append_null();
    }

    fn finish(&mut self) -> ArrayRef {
        ColumnBuilder::finish(&mut self.0)
    }
}

/// Lets serde_json write straight into the column.
impl io::Write for JsonBuilder {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let text =
            std::str::from_utf8(bytes).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
        std::fmt::Write::write_str(&mut self.0, text).map_err(io::Error::other)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
