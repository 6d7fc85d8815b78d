//! JSON lines. Under construction.

use arrow::datatypes::SchemaRef;
use barge_core::{Error, ErrorKind, Result};

use crate::options::ReadOptions;
use crate::source::{Chunk, DeadLetter};
use crate::window::Window;

pub(crate) struct JsonReader {
    schema: SchemaRef,
}

impl JsonReader {
    pub(crate) fn new(_: Window, _: &ReadOptions) -> Result<JsonReader> {
        Err(Error::new(ErrorKind::Unsupported, "JSON lines cannot be read yet"))
    }
    pub(crate) fn schema(&self) -> &SchemaRef {
        &self.schema
    }
    pub(crate) fn dead_letter(&self) -> Option<&DeadLetter> {
        None
    }
    pub(crate) fn next_chunk(&mut self) -> Result<Option<Chunk>> {
        Ok(None)
    }
    pub(crate) fn bytes(&self) -> (u64, Option<u64>) {
        (0, None)
    }
}
