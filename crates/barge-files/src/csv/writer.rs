//! CSV on the way out: what [`CsvReader`](super::CsvReader) reads back as it was.
//!
//! NULL is a word without quotes, by default the empty one; text that would be taken for it, or for another number of fields or
//! lines, is quoted, and so is the empty text. Text with any character that a reader may take for the delimiter is quoted too, so that guessing finds
//! the right one.

use std::path::Path;

use arrow::datatypes::Schema;
use barge_core::{Error, ErrorKind, Result};

use super::sniff;
use crate::text::values::{Unwritable, Values};
use crate::write_options::CsvWriteOptions;

pub(crate) struct CsvWriter {
    delimiter: u8,
    null: String,
    /// Whether there is one column: then a line may be empty, and an empty line is no row.
    alone: bool,
}

impl CsvWriter {
    /// # Errors
    /// `Unsupported` for names of columns that no header can hold.
    pub(crate) fn new(path: &Path, schema: &Schema, options: &CsvWriteOptions) -> Result<CsvWriter> {
        for field in schema.fields() {
            let name = field.name();
            if name.is_empty() || name.trim_ascii() != name {
                let message = format!(
                    "CSV can't hold the column name {name:?}, for the blanks around names are not read: give it another"
                );
                return Err(Error::new(ErrorKind::Unsupported, message));
            }
        }
        let delimiter = options.delimiter.or_else(|| sniff::by_name(path)).unwrap_or(b',');
        Ok(CsvWriter { delimiter, null: options.null.clone(), alone: schema.fields().len() == 1 })
    }

    /// Adds the line of names.
    pub(crate) fn header(&self, schema: &Schema, out: &mut Vec<u8>) {
        for (index, field) in schema.fields().iter().enumerate() {
            if index > 0 {
                out.push(self.delimiter);
            }
            let start = out.len();
            out.extend_from_slice(field.name().as_bytes());
            self.quote(start, out);
        }
        out.push(b'\n');
    }

    /// Adds a row's line, or says of which column the value can't be written.
    pub(crate) fn row(
        &self,
        columns: &[Values],
        row: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), (usize, Unwritable)> {
        for (index, values) in columns.iter().enumerate() {
            if index > 0 {
                out.push(self.delimiter);
            }
            if !values.is_null(row) {
                let start = out.len();
                values.append_text(row, out).map_err(|reason| (index, reason))?;
                self.quote(start, out);
            } else if self.alone && self.null.is_empty() {
                let reason =
                    "is NULL, and a line of one empty field is no row: choose a word for NULL (--null)";
                return Err((index, reason.into()));
            } else {
                out.extend_from_slice(self.null.as_bytes());
            }
        }
        out.push(b'\n');
        Ok(())
    }

    /// Quotes what was added, where it has to be.
    fn quote(&self, start: usize, out: &mut Vec<u8>) {
        let field = &out[start..];
        let is_plain = !field.is_empty()
            && field != self.null.as_bytes()
            && !field.starts_with(b"\xef\xbb\xbf")
            && !field.iter().any(|&byte| {
                byte == self.delimiter || matches!(byte, b'"' | b'\r' | b'\n' | b',' | b';' | b'\t' | b'|')
            });
        if is_plain {
            return;
        }
        let field = out.split_off(start);
        out.push(b'"');
        for part in field.split_inclusive(|&byte| byte == b'"') {
            out.extend_from_slice(part);
            if part.ends_with(b"\"") {
                out.push(b'"');
            }
        }
        out.push(b'"');
    }
}
