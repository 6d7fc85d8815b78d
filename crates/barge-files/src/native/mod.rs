//! Parquet and Arrow IPC. Under construction.

use arrow::datatypes::SchemaRef;
use barge_core::{Error, ErrorKind, Result};

use crate::input::Input;
use crate::options::ReadOptions;
use crate::source::Chunk;

pub(crate) struct NativeReader {
    schema: SchemaRef,
}

pub(crate) fn open_parquet(_: Input, _: &ReadOptions) -> Result<NativeReader> {
    Err(Error::new(ErrorKind::Unsupported, "Parquet cannot be read yet"))
}
pub(crate) fn open_ipc(_: Input, _: &ReadOptions) -> Result<NativeReader> {
    Err(Error::new(ErrorKind::Unsupported, "Arrow IPC cannot be read yet"))
}

impl NativeReader {
    pub(crate) fn schema(&self) -> &SchemaRef {
        &self.schema
    }
    pub(crate) fn next_chunk(&mut self) -> Result<Option<Chunk>> {
        Ok(None)
    }
    pub(crate) fn progress(&self, rows: u64) -> (u64, Option<u64>, Option<u64>) {
        (rows, None, None)
    }
}
