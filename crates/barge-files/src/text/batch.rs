//! Cells to chunks: the columns together, and the rows that are wrong taken out.

use std::borrow::Cow;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{ArrayRef, BooleanArray, RecordBatch, RecordBatchOptions};
use arrow::compute::filter_record_batch;
use arrow::datatypes::{Schema, SchemaRef};
use barge_core::{Error, ErrorKind, Result};

use super::cells::{Cells, Tag};
use super::convert::{Conversion, Rejects, Syntax};
use super::infer::infer;
use super::kind::Column;
use crate::source::{Chunk, LineNumbers, RejectedLine};
use crate::window::Window;

/// The columns of a text file, settled.
#[derive(Clone, Debug)]
pub(crate) struct Columns {
    pub(crate) columns: Vec<Column>,
    pub(crate) schema: SchemaRef,
}

impl Columns {
    /// Takes the told columns, and infers the others from a sample.
    pub(crate) fn settle(
        names: &[String],
        told: Vec<Option<Column>>,
        sample: &Cells,
        syntax: Syntax,
    ) -> Columns {
        let settle = |(index, told): (usize, Option<Column>)| {
            told.unwrap_or_else(|| {
                Column::inferred(&names[index], infer(sample, index, syntax), sample.rows())
            })
        };
        let columns: Vec<Column> = told.into_iter().enumerate().map(settle).collect();
        let fields: Vec<_> = columns.iter().map(|column| column.field.clone()).collect();
        Columns { columns, schema: Arc::new(Schema::new(fields)) }
    }

    /// Converts some rows of the cells. The window holds the text that their places point into.
    pub(crate) fn chunk(
        &self,
        window: &Window,
        cells: &Cells,
        rows: Range<usize>,
        syntax: Syntax,
    ) -> Result<Chunk> {
        let mut rejects = Rejects::new(rows.len());
        let convert = |(index, column): (usize, &Column)| {
            Conversion { cells, rows: rows.clone(), index, column, syntax }.array(&mut rejects)
        };
        let arrays: Vec<ArrayRef> = self.columns.iter().enumerate().map(convert).collect::<Result<_, _>>()?;
        let options = RecordBatchOptions::new().with_row_count(Some(rows.len()));
        let mut batch = RecordBatch::try_new_with_options(self.schema.clone(), arrays, &options)?;
        if !rejects.faults.is_empty() {
            batch = filter_record_batch(&batch, &BooleanArray::from(rejects.ok.clone()))?;
        }
        let lines =
            rows.clone().zip(&rejects.ok).filter(|(_, ok)| **ok).map(|(row, _)| cells.place(row).line);
        let lines = LineNumbers::from_lines(lines.collect());
        let mut rejected: Vec<RejectedLine> = Vec::with_capacity(rejects.faults.len());
        for (row, column, wrong) in &rejects.faults {
            let (row, index) = (rows.start + row, *column);
            let column = &self.columns[index];
            let place = cells.place(row);
            let start = place.raw_start as usize;
            let text = &window.bytes()[start..start + place.raw_bytes as usize];
            let reason = wrong.explain(column, cells.get(row, index).1);
            let fault =
                Fault { column: Some(column.field.name()), kind: ErrorKind::InvalidValue, reason: &reason };
            let mut line = fault.reject(window, place.line, place.row, text);
            if syntax == Syntax::Csv {
                line.values = self.values(cells, row, window.rejected_bytes_max());
            }
            rejected.push(line);
        }
        rejected.sort_by_key(|rejected| rejected.row);
        Ok(Chunk { batch, lines, rejected, dead_letter: None })
    }
}

impl Columns {
    /// A row's values as text, if they are not too large to be kept.
    fn values(&self, cells: &Cells, row: usize, bytes_max: usize) -> Vec<(String, Option<String>)> {
        if cells.bytes_of(&(row..row + 1)) > bytes_max {
            return Vec::new();
        }
        let value = |(index, column): (usize, &Column)| {
            let (tag, bytes) = cells.get(row, index);
            let text = std::str::from_utf8(bytes).ok()?;
            Some((column.field.name().clone(), (tag != Tag::Null).then(|| text.to_owned())))
        };
        // Without one value, for it is not text, the others are no row.
        self.columns.iter().enumerate().map(value).collect::<Option<_>>().unwrap_or_default()
    }
}

/// Rejected lines that wait for the next chunk, and the bytes of their text: they are in memory as those of rows are.
#[derive(Debug, Default)]
pub(crate) struct Waiting {
    lines: Vec<RejectedLine>,
    bytes: usize,
}

impl Waiting {
    pub(crate) fn push(&mut self, line: RejectedLine) {
        self.bytes += line.raw.len();
        self.lines.push(line);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }

    /// Whether so many lines, or so many bytes of them, are there.
    pub(crate) fn is_full(&self, lines: usize, bytes: usize) -> bool {
        self.lines.len() >= lines || self.bytes >= bytes
    }

    /// Moves them to the chunk's own, in the order of the file.
    pub(crate) fn join(&mut self, chunk: &mut Chunk) {
        if !self.lines.is_empty() {
            chunk.rejected.append(&mut self.lines);
            chunk.rejected.sort_by_key(|rejected| rejected.row);
        }
        self.bytes = 0;
    }
}

/// Why a line is rejected.
pub(crate) struct Fault<'a> {
    pub(crate) column: Option<&'a str>,
    pub(crate) kind: ErrorKind,
    pub(crate) reason: &'a str,
}

impl Fault<'_> {
    /// Rejects a line whose text is `raw`, or, where the row is too large, begins with it.
    pub(crate) fn reject(&self, window: &Window, line: u64, row: u64, raw: &[u8]) -> RejectedLine {
        let file = window.name();
        let place = match self.column {
            Some(column) => format!("{file}, line {line}, column {column}"),
            None => format!("{file}, line {line}"),
        };
        let (raw_text, is_whole) = bounded(raw, window.rejected_bytes_max());
        let line_breaks = memchr::memchr_iter(b'\n', raw).count() as u64;
        RejectedLine {
            line,
            last_line: line + line_breaks,
            row,
            column: self.column.map(str::to_owned),
            raw: raw_text,
            is_whole,
            values: Vec::new(),
            error: Error::new(self.kind, format!("{place}: {}", self.reason)),
        }
    }
}

/// A row's text, cut to what a rejected line may hold, and whether it is the whole text as it stands in the file.
fn bounded(raw: &[u8], max: usize) -> (String, bool) {
    const MARK: &str = "…";
    let text = String::from_utf8_lossy(&raw[..raw.len().min(max + 1)]);
    if text.len() <= max && raw.len() <= max {
        let is_whole = matches!(text, Cow::Borrowed(_));
        return (text.into_owned(), is_whole);
    }
    let cut = text.floor_char_boundary(max.saturating_sub(MARK.len()));
    (format!("{}{MARK}", &text[..cut]), false)
}
