//! Files of every format, good and bad, read to the end. Needs nothing but a directory for temporary files.

#![allow(clippy::unwrap_used)] // A test that cannot go on fails.

mod boundaries;
mod csv;
mod input;
mod json;
mod native;
mod sink;

use std::io::Read;

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::compute::concat_batches;
use arrow::datatypes::{DataType, TimestampMicrosecondType};
use arrow::util::display::array_value_to_string;
use barge_core::Result;
use barge_files::{Chunk, ReadOptions, RejectedLine, Source};

/// Everything a file gave.
struct Outcome {
    types: Vec<String>,
    batch: RecordBatch,
    lines: Vec<u64>,
    rejected: Vec<RejectedLine>,
}

impl Outcome {
    /// The rows, values joined by `|`, NULL as `∅`.
    fn rows(&self) -> Vec<String> {
        let value = |column: &dyn Array, row| match column.data_type() {
            _ if column.is_null(row) => "∅".to_owned(),
            // Arrow prints zones by name only with a feature of its own.
            DataType::Timestamp(_, Some(zone)) => {
                assert_eq!(&**zone, "UTC");
                let local =
                    column.as_primitive::<TimestampMicrosecondType>().clone().with_timezone_opt(None::<&str>);
                array_value_to_string(&local, row).unwrap() + "Z"
            }
            _ => array_value_to_string(column, row).unwrap(),
        };
        let row =
            |row| self.batch.columns().iter().map(|column| value(column, row)).collect::<Vec<_>>().join("|");
        (0..self.batch.num_rows()).map(row).collect()
    }

    fn reasons(&self) -> Vec<String> {
        self.rejected.iter().map(ToString::to_string).collect()
    }
}

fn read_source(mut source: Source) -> Result<Outcome> {
    let types = source
        .schema()
        .fields()
        .iter()
        .map(|field| format!("{}: {}", field.name(), field.data_type()))
        .collect();
    let schema = source.schema().clone();
    let (mut batches, mut lines, mut rejected) = (Vec::new(), Vec::new(), Vec::new());
    while let Some(Chunk { batch, lines: numbers, rejected: bad, .. }) = source.next_chunk()? {
        assert_eq!(batch.num_rows(), numbers.len());
        lines.extend((0..numbers.len()).map(|row| numbers.get(row).unwrap()));
        assert_eq!(numbers.get(numbers.len()), None);
        batches.push(batch);
        rejected.extend(bad);
    }
    let read = lines.len() + rejected.len();
    assert_eq!(source.progress().rows_read, read as u64);
    Ok(Outcome { types, batch: concat_batches(&schema, &batches).unwrap(), lines, rejected })
}

fn read_with(name: &str, content: impl AsRef<[u8]>, options: &ReadOptions) -> Result<Outcome> {
    let content = std::io::Cursor::new(content.as_ref().to_vec());
    read_source(Source::from_reader(name, content, options)?)
}

fn read(name: &str, content: impl AsRef<[u8]>) -> Outcome {
    read_with(name, content, &ReadOptions::default()).unwrap()
}

fn failure(name: &str, content: impl AsRef<[u8]>) -> String {
    let error = read_with(name, content, &ReadOptions::default()).err().expect("the file is refused");
    assert_ne!(error.kind(), barge_core::ErrorKind::Handler);
    error.to_string()
}

/// Gives one to three bytes at a time, as a slow pipe does.
struct Trickle<R>(R, usize);

impl<R: Read> Read for Trickle<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.1 = self.1 % 3 + 1;
        let bytes = self.1.min(buffer.len());
        self.0.read(&mut buffer[..bytes])
    }
}
