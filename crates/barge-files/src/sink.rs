//! A file being written: from record batches to its last byte.

use std::collections::HashSet;
use std::fmt;
use std::io::Write;
use std::path::Path;

use arrow::array::RecordBatch;
use arrow::datatypes::{Schema, SchemaRef};
use barge_core::{Error, ErrorKind, Result};

use crate::csv::CsvWriter;
use crate::json::JsonWriter;
use crate::native::NativeWriter;
use crate::options::{Compression, Format};
use crate::output::{self, Compressed, Output};
use crate::text::lines::{Columns, LineWriter, Lines};
use crate::write_options::WriteOptions;

/// A file that is being written.
///
/// It is there under its name once [`finish`](Sink::finish) has returned, and not before: until then, and where anything fails, the
/// name stands for what it stood for before. Dropping a sink that isn't finished removes what was written, unless it
/// went to standard output, a pipe or a device.
///
/// ```
/// # fn main() -> barge_core::Result<()> {
/// # use std::sync::Arc;
/// # use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
/// use barge_files::{ReadOptions, Sink, Source, WriteOptions};
///
/// let id: ArrayRef = Arc::new(Int64Array::from(vec![1, 2]));
/// let name: ArrayRef = Arc::new(StringArray::from(vec![Some("Ada"), None]));
/// let batch = RecordBatch::try_from_iter([("id", id), ("name", name)])?;
///
/// let folder = tempfile::tempdir()?;
/// let path = folder.path().join("people.csv.gz");
/// let mut sink = Sink::create(&path, &batch.schema(), &WriteOptions::default())?;
/// sink.write(&batch)?;
/// assert!(!path.exists());
/// let written = sink.finish()?;
/// assert_eq!(written.rows, 2);
///
/// let mut source = Source::open(&path, &ReadOptions::default())?;
/// let chunk = source.next_chunk()?.expect("two rows are there");
/// assert_eq!(chunk.batch.columns(), batch.columns());
/// # Ok(())
/// # }
/// ```
pub struct Sink {
    format: Format,
    compression: Compression,
    schema: SchemaRef,
    writer: Writer,
    output: Output,
    rows: u64,
    failed: Option<Error>,
}

enum Writer {
    Lines(Box<LineWriter<Compressed>>),
    Native(Box<NativeWriter>),
}

/// What a file that was written holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    /// Its rows.
    pub rows: u64,
    /// Its size.
    pub bytes: u64,
}

impl Sink {
    /// Begins a file. The path `-` is standard output; what is there and is no regular file is written to directly, and opening a pipe
    /// waits for its reader.
    ///
    /// # Errors
    /// `InvalidConfig` where the options make no sense, don't say the format, or the file is there and isn't to be replaced;
    /// `Unsupported` for columns that the format can't hold; `Io` or `Permission` where the file can't be made.
    pub fn create(path: impl AsRef<Path>, schema: &SchemaRef, options: &WriteOptions) -> Result<Sink> {
        let path = path.as_ref();
        Self::check(path, options)?;
        let open = || Output::open(path, options.overwrite);
        Sink::new(path, schema, options, open)
    }

    /// Begins to write to a writer. The name stands in messages, and says the format where the options don't. What is written isn't
    /// taken back where something fails.
    ///
    /// # Errors
    /// As [`create`](Sink::create).
    pub fn to_writer(
        name: &str,
        writer: impl Write + Send + 'static,
        schema: &SchemaRef,
        options: &WriteOptions,
    ) -> Result<Sink> {
        options.validate()?;
        Sink::new(Path::new(name), schema, options, || Ok(Output::to_writer(name, Box::new(writer))))
    }

    /// Whether a file can be written, as far as that can be told without its columns.
    ///
    /// # Errors
    /// As [`create`](Sink::create).
    pub fn check(path: &Path, options: &WriteOptions) -> Result<()> {
        options.validate()?;
        options.settle(path)?;
        if path != Path::new("-") {
            output::check(path, options.overwrite)?;
        }
        Ok(())
    }

    fn new(
        path: &Path,
        schema: &SchemaRef,
        options: &WriteOptions,
        open: impl FnOnce() -> Result<(Output, output::Stream)>,
    ) -> Result<Sink> {
        let (format, compression) = options.settle(path)?;
        check_names(schema)?;
        let lines = match format {
            Format::Csv => Some(Lines::Csv(CsvWriter::new(path, schema, &options.csv)?)),
            Format::JsonLines => Some(Lines::Json(JsonWriter::new(schema)?)),
            Format::Parquet | Format::ArrowIpc => {
                NativeWriter::check(schema, format)?;
                None
            }
        };
        // What the format can't hold is said before anything is there.
        let lines = match lines {
            Some(lines) => Some((lines, Columns::new(format, schema)?)),
            None => None,
        };
        let (output, stream) = open()?;
        let writer = match lines {
            Some((lines, columns)) => Compressed::new(stream, compression)
                .map_err(Error::from)
                .map(|stream| Writer::Lines(Box::new(LineWriter::new(schema, lines, columns, stream)))),
            None => NativeWriter::new(path, schema, format, options, stream)
                .map(|writer| Writer::Native(Box::new(writer))),
        };
        let writer = writer.map_err(|error| output.failure(error))?;
        Ok(Sink { format, compression, schema: schema.clone(), writer, output, rows: 0, failed: None })
    }

    /// The file's name as messages have it.
    pub fn name(&self) -> &str {
        self.output.name()
    }

    /// The file's format.
    pub fn format(&self) -> Format {
        self.format
    }

    /// The file's compression as a whole.
    pub fn compression(&self) -> Compression {
        self.compression
    }

    /// Writes rows. They have the columns that the file was begun with.
    ///
    /// # Errors
    /// `InvalidValue` for a value that the format can't hold, `DiskFull` or `Io` where the file can't be written on. Every later call returns
    /// the same error.
    pub fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        let written = match &mut self.writer {
            _ if !same_types(&batch.schema(), &self.schema) => {
                Err(Error::new(ErrorKind::InvalidValue, "the rows have other columns than those before"))
            }
            Writer::Lines(writer) => writer.write(batch),
            Writer::Native(writer) => writer.write(batch),
        };
        self.rows += batch.num_rows() as u64;
        written.map_err(|error| self.failed.insert(self.output.failure(error)).clone())
    }

    /// Writes what is left, forces the file to the disk, and puts it in its place.
    ///
    /// # Errors
    /// As [`write`](Sink::write); then there is no file. `InvalidConfig` where a file of the name came into being meanwhile.
    pub fn finish(self) -> Result<Written> {
        if let Some(error) = self.failed {
            return Err(error);
        }
        let stream = match self.writer {
            Writer::Lines(writer) => writer.finish().and_then(|stream| Ok(stream.finish()?)),
            Writer::Native(writer) => writer.finish(),
        };
        let stream = stream.map_err(|error| self.output.failure(error))?;
        let (rows, bytes) = (self.rows, self.output.counter());
        self.output.finish(stream)?;
        Ok(Written { rows, bytes: bytes.load(std::sync::atomic::Ordering::Relaxed) })
    }
}

impl fmt::Debug for Sink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sink")
            .field("name", &self.output.name())
            .field("format", &self.format)
            .field("compression", &self.compression)
            .field("schema", &self.schema)
            .field("rows", &self.rows)
            .finish()
    }
}

/// No format can hold a row without columns, and two columns of one name could not be told apart by who reads them.
fn check_names(schema: &Schema) -> Result<()> {
    let refuse = |message: String| Err(Error::new(ErrorKind::Unsupported, message));
    if schema.fields().is_empty() {
        return refuse("there are no columns to write".into());
    }
    let mut names = HashSet::new();
    match schema.fields().iter().find(|field| !names.insert(field.name().as_str())) {
        Some(field) => {
            refuse(format!("two columns are named {}: give one another name, with AS", field.name()))
        }
        None => Ok(()),
    }
}

/// Whether two schemas have the same columns. What else they say of them makes no difference to how rows are written.
fn same_types(left: &Schema, right: &Schema) -> bool {
    left.fields().len() == right.fields().len()
        && left
            .fields()
            .iter()
            .zip(right.fields())
            .all(|(left, right)| left.name() == right.name() && left.data_type() == right.data_type())
}
