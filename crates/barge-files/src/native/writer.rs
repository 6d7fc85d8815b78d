//! Parquet and Arrow IPC on the way out.

use std::path::Path;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Field, FieldRef, Schema, SchemaRef, TimeUnit};
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
    /// And the columns as Parquet has them.
    Parquet(Box<ArrowWriter<Stream>>, SchemaRef),
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
                let schema = without_seconds(schema);
                let writer = ArrowWriter::try_new(stream, schema.clone(), Some(properties));
                NativeWriter::Parquet(Box::new(writer.map_err(failed)?), schema)
            }
            _ if is_stream(path) => NativeWriter::IpcStream(StreamWriter::try_new(stream, schema)?),
            _ => NativeWriter::IpcFile(FileWriter::try_new(stream, schema)?),
        })
    }

    pub(crate) fn write(&mut self, batch: &RecordBatch) -> Result<()> {
        match self {
            NativeWriter::Parquet(writer, schema) => writer.write(&as_schema(batch, schema)?).map_err(failed),
            NativeWriter::IpcFile(writer) => Ok(writer.write(batch)?),
            NativeWriter::IpcStream(writer) => Ok(writer.write(batch)?),
        }
    }

    /// Writes what is left, and the footer.
    pub(crate) fn finish(self) -> Result<Stream> {
        match self {
            NativeWriter::Parquet(writer, _) => writer.into_inner().map_err(failed),
            NativeWriter::IpcFile(writer) => Ok(writer.into_inner()?),
            NativeWriter::IpcStream(writer) => Ok(writer.into_inner()?),
        }
    }
}

/// Times in milliseconds where they have seconds, which to Parquet would be plain numbers.
fn without_seconds(schema: &SchemaRef) -> SchemaRef {
    let fields: Vec<FieldRef> = schema.fields().iter().map(field_without_seconds).collect();
    Arc::new(Schema::new_with_metadata(fields, schema.metadata().clone()))
}

fn field_without_seconds(field: &FieldRef) -> FieldRef {
    let data_type = match field.data_type() {
        DataType::Timestamp(TimeUnit::Second, zone) => {
            DataType::Timestamp(TimeUnit::Millisecond, zone.clone())
        }
        DataType::Time32(TimeUnit::Second) => DataType::Time32(TimeUnit::Millisecond),
        DataType::List(item) => DataType::List(field_without_seconds(item)),
        DataType::LargeList(item) => DataType::LargeList(field_without_seconds(item)),
        DataType::FixedSizeList(item, length) => {
            DataType::FixedSizeList(field_without_seconds(item), *length)
        }
        _ => return Arc::clone(field),
    };
    Arc::new(Field::clone(field).with_data_type(data_type))
}

/// The rows in the types of a schema.
fn as_schema(batch: &RecordBatch, schema: &SchemaRef) -> Result<RecordBatch> {
    // A value beyond the type fails and isn't left out.
    let options = CastOptions { safe: false, ..CastOptions::default() };
    let columns = batch.columns().iter().zip(schema.fields());
    let columns = columns.map(|(column, field)| match column.data_type() == field.data_type() {
        true => Ok(Arc::clone(column)),
        false => cast_with_options(column, field.data_type(), &options),
    });
    Ok(RecordBatch::try_new(Arc::clone(schema), columns.collect::<Result<_, _>>()?)?)
}

/// Whether Arrow IPC is written as a stream: into standard output, which is read as it comes, and where the name asks for it.
fn is_stream(path: &Path) -> bool {
    path == Path::new("-") || path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("arrows"))
}

fn failed(error: ParquetError) -> Error {
    Error::from(ArrowError::from(error))
}
