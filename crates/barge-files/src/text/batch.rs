//! Cells to chunks: the columns together, and the rows that are wrong taken out.

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

    /// Converts some rows of the cells. `raw` holds the text that their places point into.
    pub(crate) fn chunk(
        &self,
        file: &str,
        cells: &Cells,
        rows: Range<usize>,
        raw: &[u8],
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
            let text = &raw[start..start + place.raw_bytes as usize];
            let reason = wrong.explain(column, cells.get(row, index).1);
            let fault =
                Fault { column: Some(column.field.name()), kind: ErrorKind::InvalidValue, reason: &reason };
            let mut line = fault.reject(file, place.line, place.row, text);
            if syntax == Syntax::Csv {
                line.values = self.values(cells, row);
            }
            rejected.push(line);
        }
        rejected.sort_by_key(|rejected| rejected.row);
        Ok(Chunk { batch, lines, rejected, dead_letter: None })
    }
}

impl Columns {
    /// A row's values as text, if they are not too large to be kept.
    fn values(&self, cells: &Cells, row: usize) -> Vec<(String, Option<String>)> {
        if cells.bytes_of(&(row..row + 1)) > RejectedLine::RAW_BYTES_MAX {
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

/// Why a line is rejected.
pub(crate) struct Fault<'a> {
    pub(crate) column: Option<&'a str>,
    pub(crate) kind: ErrorKind,
    pub(crate) reason: &'a str,
}

impl Fault<'_> {
    pub(crate) fn reject(&self, file: &str, line: u64, row: u64, raw: &[u8]) -> RejectedLine {
        let place = match self.column {
            Some(column) => format!("{file}, line {line}, column {column}"),
            None => format!("{file}, line {line}"),
        };
        let line_breaks = memchr::memchr_iter(b'\n', raw).count() as u64;
        RejectedLine {
            line,
            last_line: line + line_breaks,
            row,
            column: self.column.map(str::to_owned),
            raw: bounded(raw),
            values: Vec::new(),
            error: Error::new(self.kind, format!("{place}: {}", self.reason)),
        }
    }
}

/// A row's text, cut to what a rejected line may hold.
fn bounded(raw: &[u8]) -> String {
    const MARK: &str = "…";
    let max = RejectedLine::RAW_BYTES_MAX;
    let text = String::from_utf8_lossy(&raw[..raw.len().min(max + 1)]);
    if text.len() <= max && raw.len() <= max {
        return text.into_owned();
    }
    let cut = text.floor_char_boundary(max - MARK.len());
    format!("{}{MARK}", &text[..cut])
}
