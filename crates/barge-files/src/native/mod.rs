//! Parquet and Arrow IPC: formats that hold columns and types of their own. Batches are cut to `batch_rows` and their
//! columns made plain.

mod plain;
mod writer;

use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow::error::ArrowError;
use arrow::ipc::reader::{FileReader, StreamReader};
use barge_core::{Error, ErrorKind, Result};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::file::metadata::ParquetMetaData;

use crate::input::Input;
use crate::options::{Format, ReadOptions};
use crate::source::{Chunk, LineNumbers, RejectedLine};
pub(crate) use plain::{Plain, has_bytes_inside};
pub(crate) use writer::NativeWriter;

type Batches = Box<dyn Iterator<Item = Result<RecordBatch, ArrowError>> + Send>;

pub(crate) struct NativeReader {
    name: Arc<str>,
    format: Format,
    batches: Batches,
    plain: Plain,
    batch_rows: usize,
    /// What is left of the last batch read.
    rest: Option<RecordBatch>,
    /// Rows given out, rejected ones included.
    rows: u64,
    extent: Extent,
}

/// How much there is to read.
enum Extent {
    /// A footer tells the rows; the bytes are reckoned from them.
    Rows { rows: u64, bytes: Option<u64> },
    /// A footer tells the batches; the bytes are reckoned from them.
    Batches { read: u64, batches: u64, bytes: Option<u64> },
    /// Only the bytes that have passed are known.
    Bytes { read: Arc<AtomicU64>, bytes: Option<u64> },
}

/// Opens a Parquet file.
pub(crate) fn open_parquet(input: Input, options: &ReadOptions) -> Result<NativeReader> {
    let name = input.name().clone();
    check_not_empty(&input)?;
    let (file, bytes) = input.into_file()?;
    let (builder, rows) = guard(&name, Format::Parquet, || {
        let builder = ParquetRecordBatchReaderBuilder::try_new(file)?;
        let rows = builder.metadata().file_metadata().num_rows();
        Ok((builder, u64::try_from(rows).unwrap_or(0)))
    })?;
    let schema = builder.schema().clone();
    let batch_rows = rows_within(builder.metadata(), options);
    let reader = guard(&name, Format::Parquet, || Ok(builder.with_batch_size(batch_rows).build()?))?;
    let extent = Extent::Rows { rows, bytes };
    NativeReader::new(name, Format::Parquet, Box::new(reader), schema, batch_rows, extent)
}

/// Opens an Arrow IPC file or stream: the file format begins with a magic word, the stream with a message.
pub(crate) fn open_ipc(input: Input, options: &ReadOptions) -> Result<NativeReader> {
    let (name, format) = (input.name().clone(), Format::ArrowIpc);
    check_not_empty(&input)?;
    if input.head().starts_with(b"ARROW1") {
        let (file, bytes) = input.into_file()?;
        let reader = guard(&name, format, || FileReader::try_new_buffered(file, None))?;
        let (schema, batches) = (reader.schema(), reader.num_batches() as u64);
        let extent = Extent::Batches { read: 0, batches, bytes };
        return NativeReader::new(name, format, Box::new(reader), schema, options.batch_rows, extent);
    }
    let extent = Extent::Bytes { read: input.counter(), bytes: input.bytes_total() };
    let reader = guard(&name, format, || StreamReader::try_new_buffered(input, None))?;
    let schema = reader.schema();
    NativeReader::new(name, format, Box::new(reader), schema, options.batch_rows, extent)
}

impl NativeReader {
    fn new(
        name: Arc<str>,
        format: Format,
        batches: Batches,
        schema: SchemaRef,
        batch_rows: usize,
        extent: Extent,
    ) -> Result<NativeReader> {
        let mut names = HashSet::new();
        if let Some(field) = schema.fields().iter().find(|field| !names.insert(field.name().as_str())) {
            let message = format!("{name} has two columns named {}: rename one", field.name());
            return Err(Error::new(ErrorKind::Io, message));
        }
        let plain = Plain::new(&name, &schema)?;
        Ok(NativeReader { name, format, batches, plain, batch_rows, rest: None, rows: 0, extent })
    }

    pub(crate) fn schema(&self) -> &SchemaRef {
        self.plain.schema()
    }

    pub(crate) fn next_chunk(&mut self) -> Result<Option<Chunk>> {
        let Some(batch) = self.next_batch()? else { return Ok(None) };
        let first = self.rows + 1;
        self.rows += batch.num_rows() as u64;
        let (batch, ok, faults) = self.plain.convert(&batch)?;
        let rows = ok.iter().enumerate().filter(|(_, ok)| **ok).map(|(row, _)| first + row as u64);
        let lines = LineNumbers::from_lines(rows.collect());
        let reject = |(row, column, reason): (usize, String, String)| {
            let row = first + row as u64;
            let message = format!("{}, row {row}, column {column}: {reason}", self.name);
            let error = Error::new(ErrorKind::InvalidValue, message);
            RejectedLine {
                line: row,
                last_line: row,
                row,
                column: Some(column),
                raw: String::new(),
                is_whole: false,
                values: Vec::new(),
                error,
            }
        };
        Ok(Some(Chunk {
            batch,
            lines,
            rejected: faults.into_iter().map(reject).collect(),
            dead_letter: None,
        }))
    }

    /// The next rows as the file has them, at most `batch_rows`.
    fn next_batch(&mut self) -> Result<Option<RecordBatch>> {
        let batch = loop {
            if let Some(rest) = self.rest.take() {
                break rest;
            }
            let batches = &mut self.batches;
            let Some(batch) = guard(&self.name, self.format, || batches.next().transpose())? else {
                return Ok(None);
            };
            if let Extent::Batches { read, .. } = &mut self.extent {
                *read += 1;
            }
            if batch.num_rows() > 0 {
                break batch;
            }
        };
        let rows = batch.num_rows().min(self.batch_rows);
        if rows < batch.num_rows() {
            self.rest = Some(batch.slice(rows, batch.num_rows() - rows));
        }
        Ok(Some(batch.slice(0, rows)))
    }

    /// Bytes read, bytes in all and rows in all, as far as they are known, after so many rows.
    pub(crate) fn progress(&self, rows_read: u64) -> (u64, Option<u64>, Option<u64>) {
        let share = |bytes: Option<u64>, part: u64, whole: u64| {
            let bytes = u128::from(bytes.unwrap_or(0));
            (bytes * u128::from(part) / u128::from(whole.max(1))) as u64
        };
        match &self.extent {
            Extent::Rows { rows, bytes } => (share(*bytes, rows_read, *rows), *bytes, Some(*rows)),
            Extent::Batches { read, batches, bytes } => (share(*bytes, *read, *batches), *bytes, None),
            Extent::Bytes { read, bytes } => (read.load(Ordering::Relaxed), *bytes, None),
        }
    }
}

/// Rows that hold about `batch_bytes` by the sizes in the footer, at most `batch_rows`.
fn rows_within(metadata: &ParquetMetaData, options: &ReadOptions) -> usize {
    let bytes: i64 = metadata.row_groups().iter().map(|group| group.total_byte_size()).sum();
    let rows: i64 = metadata.file_metadata().num_rows();
    let bytes_each = usize::try_from(bytes / rows.max(1)).unwrap_or(0).max(1);
    (options.batch_bytes / bytes_each).clamp(1, options.batch_rows)
}

fn check_not_empty(input: &Input) -> Result<()> {
    if input.head().is_empty() {
        return Err(Error::new(ErrorKind::Io, format!("{} is empty", input.name())));
    }
    Ok(())
}

/// Runs a step of a decoder. Decoders meet damaged files with errors, and now and then with a panic.
fn guard<T>(name: &str, format: Format, step: impl FnOnce() -> Result<T, ArrowError>) -> Result<T> {
    let damaged = |reason: &dyn std::fmt::Display| {
        Error::new(
            ErrorKind::Io,
            format!("cannot read {name}: it is truncated, damaged or not {format}: {reason}"),
        )
    };
    // What the step leaves half done is not used again: a source that failed stays failed.
    match catch_unwind(AssertUnwindSafe(step)) {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(damaged(&error).with_source(error)),
        Err(_) => Err(damaged(&"the decoder gave up")),
    }
}
