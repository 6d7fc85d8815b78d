//! Batches as lines of text: CSV or JSON.

use std::io::{self, Write};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use barge_core::{Error, ErrorKind, Result};

use super::kind::Kind;
use super::values::Values;
use crate::csv::CsvWriter;
use crate::json::JsonWriter;
use crate::native::{Plain, has_bytes_inside};
use crate::options::Format;

/// Bytes of lines that are handed on at once.
const BLOCK_BYTES: usize = 256 << 10;

/// How a row becomes a line.
pub(crate) enum Lines {
    Csv(CsvWriter),
    Json(JsonWriter),
}

/// Columns that text can hold. Text is read as the plain types only, so that is how it is written.
pub(crate) struct Columns {
    plain: Plain,
    kinds: Vec<Kind>,
}

impl Columns {
    /// # Errors
    /// `Unsupported` for a column of a type that has no text.
    pub(crate) fn new(format: Format, schema: &SchemaRef) -> Result<Columns> {
        if let Some(field) = schema.fields().iter().find(|field| has_bytes_inside(field.data_type())) {
            let message = format!(
                "{format}, column {}: bytes inside other values would be read as text: make text of them before",
                field.name()
            );
            return Err(Error::new(ErrorKind::Unsupported, message));
        }
        let plain = Plain::new(&format.to_string(), schema)?;
        let kinds = plain.schema().fields().iter().map(|field| Kind::of_field(field));
        let kinds = kinds.collect::<Result<_>>()?;
        Ok(Columns { plain, kinds })
    }
}

/// Writes lines.
pub(crate) struct LineWriter<W> {
    lines: Lines,
    plain: Plain,
    kinds: Vec<Kind>,
    /// Lines not handed on yet.
    block: Vec<u8>,
    writer: W,
    rows: u64,
}

impl<W: Write> LineWriter<W> {
    pub(crate) fn new(schema: &SchemaRef, lines: Lines, columns: Columns, writer: W) -> LineWriter<W> {
        let Columns { plain, kinds } = columns;
        let mut block = Vec::with_capacity(BLOCK_BYTES + BLOCK_BYTES / 4);
        if let Lines::Csv(lines) = &lines {
            lines.header(schema, &mut block);
        }
        LineWriter { lines, plain, kinds, block, writer, rows: 0 }
    }

    /// # Errors
    /// `InvalidValue` for a value without a text; what the writer says.
    pub(crate) fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        let (batch, _, faults) = self.plain.convert(batch)?;
        if let Some((row, column, reason)) = faults.into_iter().next() {
            return Err(unwritable(self.rows + row as u64, &column, &reason));
        }
        let columns = self.kinds.iter().zip(batch.columns());
        let columns: Vec<Values> =
            columns.map(|(kind, array)| Values::new(kind, array)).collect::<Result<_, _>>()?;
        for row in 0..batch.num_rows() {
            let written = match &self.lines {
                Lines::Csv(lines) => lines.row(&columns, row, &mut self.block),
                Lines::Json(lines) => lines.row(&columns, row, &mut self.block),
            };
            if let Err((column, reason)) = written {
                let schema = batch.schema();
                let reason = format!("the value {reason}");
                return Err(unwritable(self.rows + row as u64, schema.field(column).name(), &reason));
            }
            if self.block.len() >= BLOCK_BYTES {
                self.hand_on()?;
            }
        }
        self.rows += batch.num_rows() as u64;
        Ok(())
    }

    /// Hands on what is left, and gives the writer back.
    pub(crate) fn finish(mut self) -> Result<W> {
        self.hand_on()?;
        Ok(self.writer)
    }

    fn hand_on(&mut self) -> io::Result<()> {
        self.writer.write_all(&self.block)?;
        self.block.clear();
        // One huge row must not keep its room for ever.
        self.block.shrink_to(2 * BLOCK_BYTES);
        Ok(())
    }
}

fn unwritable(row: u64, column: &str, reason: &str) -> Error {
    Error::new(ErrorKind::InvalidValue, format!("row {}, column {column}: {reason}", row + 1))
}
