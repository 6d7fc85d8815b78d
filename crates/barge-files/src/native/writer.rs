//! Parquet and Arrow IPC on the way out.

use std::path::Path;

use arrow::array::RecordBatch;
use arrow::datatypes::{Schema, SchemaRef};
use arrow::error::ArrowError;
use arrow::ipc::writer::{FileWriter, StreamWriter};
use barge_core::{Error, ErrorKind, Result};
use parquet::arrow::{ArrowSchemaConverter, ArrowWriter};
use parquet::basic::{Compression, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::properties::WriterProperties;

use super::Plain;
use crate::options::Format;
use crate::output::Stream;
use crate::write_options::WriteOptions;

pub(crate) enum NativeWriter {
    Parquet(Box<ArrowWriter<Stream>>),
    IpcFile(FileWriter<Stream>),
    IpcStream(StreamWriter<Stream>),
}

impl NativeWriter {
    /// Whether the format can hold the columns.
    ///
    /// # Errors
    /// `Unsupported`.
    pub(crate) fn check(schema: &Schema, format: Format) -> Result<()> {
        if format != Format::Parquet {
            return Ok(());
        }
        // The converter panics at some types, none of which could be loaded again.
        Plain::new(&format.to_string(), schema)?;
        ArrowSchemaConverter::new().convert(schema).map(|_| ()).map_err(|error| {
            Error::new(ErrorKind::Unsupported, format!("Parquet can't hold these columns: {error}"))
                .with_source(error)
        })
    }

    pub(crate) fn new(
        path: &Path,
        schema: &SchemaRef,
        format: Format,
        options: &WriteOptions,
        stream: Stream,
    ) -> Result<NativeWriter> {
        Ok(match format {
            Format::Parquet => {
                let properties = WriterProperties::builder()
                    .set_compression(Compression::ZSTD(ZstdLevel::default()))
                    .set_max_row_group_row_count(Some(options.row_group_rows))
                    .set_max_row_group_bytes(Some(options.row_group_bytes))
                    .set_created_by(concat!("barge ", env!("CARGO_PKG_VERSION")).to_owned())
                    .build();
                let writer = ArrowWriter::try_new(stream, schema.clone(), Some(properties));
                NativeWriter::Parquet(Box::new(writer.map_err(failed)?))
            }
            _ if is_stream(path) => NativeWriter::IpcStream(StreamWriter::try_new(stream, schema)?),
            _ => NativeWriter::IpcFile(FileWriter::try_new(stream, schema)?),
        })
    }

    pub(crate) fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        match self {
            NativeWriter::Parquet(writer) => writer.write(batch).map_err(failed),
            NativeWriter::IpcFile(writer) => Ok(writer.write(batch)?),
            NativeWriter::IpcStream(writer) => Ok(writer.write(batch)?),
        }
    }

    /// Writes what is left, and the footer.
    pub(crate) fn finish(self) -> Result<Stream> {
        match self {
            NativeWriter::Parquet(writer) => writer.into_inner().map_err(failed),
            NativeWriter::IpcFile(writer) => Ok(writer.into_inner()?),
            NativeWriter::IpcStream(writer) => Ok(writer.into_inner()?),
        }
    }
}

/// Whether Arrow IPC is written as a stream: into standard output, which is read as it comes, and where the name asks for it.
fn is_stream(path: &Path) -> bool {
    path == Path::new("-") || path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("arrows"))
}

fn failed(error: ParquetError) -> Error {
    Error::from(ArrowError::from(error))
}
