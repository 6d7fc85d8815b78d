//! A file being read: from its first bytes to chunks of rows.

use std::fmt;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use barge_core::{Error, Result};

use crate::csv::CsvReader;
use crate::input::Input;
use crate::json::JsonReader;
use crate::native::{self, NativeReader};
use crate::options::{Compression, Format, ReadOptions};
use crate::window::Window;

/// A file that is being read.
///
/// Dropping it closes the file; nothing else is lost, since nothing is read ahead but buffers.
pub struct Source {
    name: Arc<str>,
    format: Format,
    compression: Compression,
    reader: Reader,
    rows_read: u64,
    failed: Option<Error>,
}

/// Some rows of a file, and the lines among them that could not become rows.
#[derive(Debug)]
pub struct Chunk {
    /// The rows. It may have none while `rejected` has some.
    pub batch: RecordBatch,
    /// Where each row of the batch comes from.
    pub lines: LineNumbers,
    /// The lines that are not rows, in the file's order.
    pub rejected: Vec<RejectedLine>,
    /// The table and operation of all rows of this chunk, where the file holds dead letters.
    pub dead_letter: Option<DeadLetter>,
}

/// The table and operation that dead letters are meant for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct DeadLetter {
    /// The schema the table lives in, where the letter has one.
    pub schema: Option<Arc<str>>,
    /// The table's name, as the letter has it.
    pub table: Arc<str>,
    /// The operation's name, as the letter has it: `insert`, `upsert`, …
    pub operation: Arc<str>,
}

/// For each row of a batch, the line that it begins on (text formats) or its row number (Parquet, Arrow IPC). Both are
/// counted from 1; a CSV header is a line too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LineNumbers {
    /// The rows stand on consecutive lines.
    Range {
        /// The first row's line.
        first: u64,
        /// How many rows there are.
        rows: usize,
    },
    /// One number for each row.
    List(Vec<u64>),
}

impl LineNumbers {
    pub(crate) fn from_lines(lines: Vec<u64>) -> Self {
        match (lines.first(), lines.last()) {
            // Lines only grow, so that the ends tell whether any is missing.
            (Some(&first), Some(&last)) if last - first + 1 == lines.len() as u64 => {
                LineNumbers::Range { first, rows: lines.len() }
            }
            (None, _) => LineNumbers::Range { first: 0, rows: 0 },
            _ => LineNumbers::List(lines),
        }
    }

    /// The line of the batch's row, counted from 0; `None` past the last row.
    pub fn get(&self, row: usize) -> Option<u64> {
        match self {
            LineNumbers::Range { first, rows } => (row < *rows).then(|| first + row as u64),
            LineNumbers::List(lines) => lines.get(row).copied(),
        }
    }

    /// How many rows there are.
    pub fn len(&self) -> usize {
        match self {
            LineNumbers::Range { rows, .. } => *rows,
            LineNumbers::List(lines) => lines.len(),
        }
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A line that could not become a row.
#[derive(Clone, Debug)]
pub struct RejectedLine {
    /// The line it begins on, counted from 1; for Parquet and Arrow IPC the row number.
    pub line: u64,
    /// The line it ends on: another one where a quoted value holds line breaks.
    pub last_line: u64,
    /// The row number, counted from 1, rejected rows included and the header left out.
    pub row: u64,
    /// The column, where the fault lies in one.
    pub column: Option<String>,
    /// The line's text: at most [`ReadOptions::rejected_bytes_max`] bytes, the rest replaced by `…`; bytes that are not UTF-8
    /// by `U+FFFD`. Empty for Parquet and Arrow IPC.
    pub raw: String,
    /// Whether `raw` is the whole line, byte for byte.
    pub is_whole: bool,
    /// The line's values as text, by column, where it was divided into the columns; `None` in a value's place for NULL. Only for
    /// CSV, and only where they take no more bytes than `raw` may; else empty.
    pub values: Vec<(String, Option<String>)>,
    /// Why. The message names the file, line, column and value, and what was expected.
    pub error: Error,
}

impl fmt::Display for RejectedLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

/// How far a source has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Bytes read of the file as it is stored. For Parquet and Arrow IPC files reckoned from the rows.
    pub bytes_read: u64,
    /// The file's size, where it is known: not for a pipe.
    pub bytes_total: Option<u64>,
    /// Rows read, rejected ones included.
    pub rows_read: u64,
    /// The file's rows, where its footer tells.
    pub rows_total: Option<u64>,
}

enum Reader {
    Csv(Box<CsvReader>),
    Json(Box<JsonReader>),
    Native(Box<NativeReader>),
}

impl Source {
    /// Opens a file, or standard input for `-`, and reads enough of it to know its columns.
    ///
    /// Parquet and Arrow IPC files must be sought in: when they come compressed or from a pipe, they are first
    /// copied to a temporary file, without a name, in the system's directory for such files. An Arrow IPC stream is not.
    ///
    /// # Errors
    /// Each names the file. `Io` and `Permission`: it cannot be opened or read, is empty, truncated, or not of its format.
    /// `Io` as well where its header has an empty or repeated name. `InvalidConfig`: an option names a column it lacks, or
    /// makes no sense, alone or for this file. `Unsupported`: a column's type cannot be loaded.
    pub fn open(path: impl AsRef<Path>, options: &ReadOptions) -> Result<Source> {
        options.validate()?;
        Source::read(Input::open(path.as_ref())?, options)
    }

    /// Reads from any reader. The name stands in messages, and its ending tells format and compression as a path's does.
    ///
    /// # Errors
    /// As [`Source::open`].
    pub fn from_reader(
        name: &str,
        reader: impl Read + Send + 'static,
        options: &ReadOptions,
    ) -> Result<Source> {
        options.validate()?;
        Source::read(Input::from_reader(name, Box::new(reader))?, options)
    }

    fn read(input: Input, options: &ReadOptions) -> Result<Source> {
        let (name, compression) = (input.name().clone(), input.compression());
        let format = input.format(options.format);
        let window = |input| Window::new(input, options);
        let reader = match format {
            Format::Csv => Reader::Csv(Box::new(CsvReader::new(window(input), options)?)),
            Format::JsonLines => Reader::Json(Box::new(JsonReader::new(window(input), options)?)),
            Format::Parquet => Reader::Native(Box::new(native::open_parquet(input, options)?)),
            Format::ArrowIpc => Reader::Native(Box::new(native::open_ipc(input, options)?)),
        };
        Ok(Source { name, format, compression, reader, rows_read: 0, failed: None })
    }

    /// The file's name as messages have it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The file's format.
    pub fn format(&self) -> Format {
        self.format
    }

    /// The file's compression.
    pub fn compression(&self) -> Compression {
        self.compression
    }

    /// The columns of every chunk, all nullable. For dead letters, those of the first chunk: each chunk
    /// has the columns of its own letters.
    pub fn schema(&self) -> &SchemaRef {
        match &self.reader {
            Reader::Csv(reader) => reader.schema(),
            Reader::Json(reader) => reader.schema(),
            Reader::Native(reader) => reader.schema(),
        }
    }

    /// The line of the header, where a CSV file has one that names the columns.
    pub fn header_line(&self) -> Option<u64> {
        match &self.reader {
            Reader::Csv(reader) => reader.header_line(),
            Reader::Json(_) | Reader::Native(_) => None,
        }
    }

    /// The table and operation of the first letter, where the file holds dead letters. Each chunk has its own.
    pub fn dead_letter(&self) -> Option<&DeadLetter> {
        match &self.reader {
            Reader::Json(reader) => reader.dead_letter(),
            Reader::Csv(_) | Reader::Native(_) => None,
        }
    }

    /// The next rows, or `None` after the last.
    ///
    /// # Errors
    /// `Io` where the file cannot be read on: it is truncated or damaged, or the disk failed. All rows before that place
    /// have been given out by then, and the message tells how many. Every later call returns the same error.
    pub fn next_chunk(&mut self) -> Result<Option<Chunk>> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        let next = match &mut self.reader {
            Reader::Csv(reader) => reader.next_chunk(),
            Reader::Json(reader) => reader.next_chunk(),
            Reader::Native(reader) => reader.next_chunk(),
        };
        match next {
            Ok(chunk) => {
                let rows = |chunk: &Chunk| chunk.batch.num_rows() + chunk.rejected.len();
                self.rows_read += chunk.as_ref().map_or(0, rows) as u64;
                Ok(chunk)
            }
            Err(error) => {
                let message = format!("{} ({} rows were read before)", error.message(), self.rows_read);
                let error = Error::new(error.kind(), message).with_source(error);
                self.failed = Some(error.clone());
                Err(error)
            }
        }
    }

    /// How far it has come.
    pub fn progress(&self) -> Progress {
        let (bytes_read, bytes_total, rows_total) = match &self.reader {
            Reader::Csv(reader) => {
                let (read, total) = reader.bytes();
                (read, total, None)
            }
            Reader::Json(reader) => {
                let (read, total) = reader.bytes();
                (read, total, None)
            }
            Reader::Native(reader) => reader.progress(self.rows_read),
        };
        Progress { bytes_read, bytes_total, rows_read: self.rows_read, rows_total }
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Source")
            .field("name", &self.name)
            .field("format", &self.format)
            .field("compression", &self.compression)
            .field("schema", self.schema())
            .field("progress", &self.progress())
            .finish()
    }
}
