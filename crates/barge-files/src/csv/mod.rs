//! CSV: records from bytes by `csv-core`, and what is wrong with a record as a whole.
//!
//! `csv-core` unescapes but does not tell which fields were quoted, nor whether a quote was left open. A record has quotes
//! exactly when its text is longer than its values and delimiters; only then is its text walked once more ([`quotes`]).

mod quotes;
mod records;
mod sniff;
mod writer;

use std::collections::HashSet;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use barge_core::{Error, ErrorKind, Result};

use crate::options::ReadOptions;
use crate::source::Chunk;
use crate::text::batch::{Columns, Fault, Waiting};
use crate::text::cells::{Cells, Place, Tag};
use crate::text::convert::Syntax;
use crate::text::kind::{check_asked, told_columns};
use crate::window::Window;
use records::{Record, Records};
pub(crate) use writer::CsvWriter;

/// How much the delimiter is guessed from.
const SNIFF_BYTES: usize = 64 << 10;

/// More columns than any database takes.
const COLUMNS_MAX: usize = 100_000;

pub(crate) struct CsvReader {
    records: Records,
    names: Vec<String>,
    /// The line of the header that the names are from.
    header_line: Option<u64>,
    columns: Columns,
    cells: Cells,
    /// Rows of `cells` given out already.
    given: usize,
    rejected: Waiting,
    batch_rows: usize,
    batch_bytes: usize,
    nulls: Vec<Vec<u8>>,
    /// Which fields of the last record are quoted; empty where none is.
    quoted: Vec<bool>,
    /// Whether the empty field, and nothing else, is NULL: the common case.
    empty_is_null: bool,
    /// Rows met so far, rejected ones included.
    rows: u64,
}

impl CsvReader {
    pub(crate) fn new(mut window: Window, options: &ReadOptions) -> Result<CsvReader> {
        window.skip_byte_order_mark()?;
        window.fill_to(SNIFF_BYTES);
        // Not all that is ahead: how much that is depends on the reads.
        let sample = &window.ahead()[..window.ahead().len().min(SNIFF_BYTES)];
        let quote = options.csv.quote;
        let delimiter = options.csv.delimiter.unwrap_or_else(|| {
            sniff::by_name(window.input().path()).unwrap_or_else(|| sniff::delimiter(sample, quote))
        });
        let mut records = Records::new(window, delimiter, quote);
        let (names, header_line) = header(&mut records, options)?;
        check_asked(records.window.name(), &names, options)?;
        let mut reader = CsvReader {
            records,
            cells: Cells::new(names.len()),
            names,
            header_line,
            columns: Columns { columns: Vec::new(), schema: Arc::new(arrow::datatypes::Schema::empty()) },
            given: 0,
            rejected: Waiting::default(),
            batch_rows: options.batch_rows,
            batch_bytes: options.batch_bytes,
            nulls: options.csv.nulls.iter().map(|null| null.clone().into_bytes()).collect(),
            quoted: Vec::new(),
            empty_is_null: options.csv.nulls.len() == 1 && options.csv.nulls[0].is_empty(),
            rows: 0,
        };
        reader.gather(options.sample_rows);
        let told = told_columns(&reader.names, options.schema.as_deref(), options)?;
        reader.columns = Columns::settle(&reader.names, told, &reader.cells, Syntax::Csv);
        Ok(reader)
    }

    pub(crate) fn schema(&self) -> &SchemaRef {
        &self.columns.schema
    }

    pub(crate) fn header_line(&self) -> Option<u64> {
        self.header_line
    }

    pub(crate) fn bytes(&self) -> (u64, Option<u64>) {
        let input = self.records.window.input();
        (input.bytes_read(), input.bytes_total())
    }

    pub(crate) fn next_chunk(&mut self) -> Result<Option<Chunk>> {
        if self.given == self.cells.rows() && self.rejected.is_empty() {
            self.cells.clear();
            self.given = 0;
            self.records.window.release();
            self.gather(self.batch_rows);
            if self.cells.rows() == 0 && self.rejected.is_empty() {
                return self.records.window.check().map(|()| None);
            }
        } else if self.given == 0 {
            // The sample alone would make a small chunk.
            self.gather(self.batch_rows);
        }
        let rows = self.given..(self.given + self.batch_rows).min(self.cells.rows());
        self.given = rows.end;
        let window = &self.records.window;
        let mut chunk = self.columns.chunk(window, &self.cells, rows, Syntax::Csv)?;
        self.rejected.join(&mut chunk);
        Ok(Some(chunk))
    }

    /// Reads records until there are so many, or the bytes' limit is reached, or the file ends.
    fn gather(&mut self, rows: usize) {
        while self.cells.rows() < rows
            && self.cells.bytes() < self.batch_bytes
            && !self.rejected.is_full(rows, self.batch_bytes)
        {
            let start = self.cells.bytes();
            let Some(record) = self.records.next(&mut self.cells) else { break };
            self.rows += 1;
            if let Err((column, kind, reason)) = self.take(start, &record) {
                self.cells.rewind(start);
                let column = column.and_then(|column| self.names.get(column)).map(String::as_str);
                let fault = Fault { column, kind, reason: &reason };
                let window = &self.records.window;
                let raw = &window.bytes()[record.raw_start..record.raw_end];
                let mut rejected = fault.reject(window, record.line, self.rows, raw);
                rejected.last_line = record.last_line;
                self.rejected.push(rejected);
            }
        }
        self.cells.finish();
    }

    /// Adds a record's cells, or says what is wrong with it: the column, where there is one, the kind and the reason.
    #[inline]
    fn take(&mut self, start: usize, record: &Record) -> Result<(), (Option<usize>, ErrorKind, String)> {
        let raw = &self.records.window.bytes()[record.raw_start..record.raw_end];
        if record.too_large {
            return Err(self.records.too_large(record));
        }
        let values = self.cells.bytes() - start;
        let quoted = raw.len() != values + record.fields - 1;
        self.quoted.clear();
        if quoted {
            for field in quotes::fields(raw, self.records.delimiter, self.records.quote) {
                if let Some(trouble) = field.trouble {
                    return Err(self.records.quote_fault(record, self.quoted.len(), trouble));
                }
                self.quoted.push(field.quoted);
            }
        }
        if record.fields != self.names.len() {
            let plural = if record.fields == 1 { "" } else { "s" };
            let reason = format!(
                "the line has {} field{plural} where {} are expected",
                record.fields,
                self.names.len()
            );
            return Err((None, ErrorKind::InvalidValue, reason));
        }
        let ends = &self.records.ends[..record.fields];
        if !quoted && self.empty_is_null {
            let mut last = 0;
            for &end in ends {
                self.cells.push_cell(start + end, if end == last { Tag::Null } else { Tag::Bare });
                last = end;
            }
        } else {
            self.push_tagged(start, record.fields);
        }
        let raw_bytes = (record.raw_end - record.raw_start) as u32;
        let place =
            Place { line: record.line, row: self.rows, raw_start: record.raw_start as u32, raw_bytes };
        self.cells.push_row(place);
        Ok(())
    }

    /// Adds the cells of a record that has quotes, or where other words than the empty one are NULL.
    fn push_tagged(&mut self, start: usize, fields: usize) {
        let mut last = start;
        for index in 0..fields {
            let end = start + self.records.ends[index];
            let value = self.cells.written(last..end);
            let tag = if self.quoted.get(index) == Some(&true) {
                Tag::Quoted
            } else if self.nulls.iter().any(|null| null == value) {
                Tag::Null
            } else {
                Tag::Bare
            };
            self.cells.push_cell(end, tag);
            last = end;
        }
    }
}

/// Reads the header, or makes up names, and checks them. Gives the header's line too, where the names are from there.
fn header(records: &mut Records, options: &ReadOptions) -> Result<(Vec<String>, Option<u64>)> {
    let file = records.window.name().clone();
    let refuse = |kind: ErrorKind, message: String| Err(Error::new(kind, format!("{file}{message}")));
    let mut cells = Cells::new(0);
    // Without a header the first record is still looked at, for the number of columns, and then read again.
    let checkpoint = records.checkpoint();
    let Some(record) = records.next(&mut cells) else {
        records.window.check()?;
        return refuse(ErrorKind::Io, " is empty: it has no header and no rows".into());
    };
    let raw = &records.window.bytes()[record.raw_start..record.raw_end];
    if record.too_large || record.fields > COLUMNS_MAX {
        let message =
            format!(", line {}: the first line is no header: it is too large. Is this CSV?", record.line);
        return refuse(ErrorKind::Io, message);
    }
    if let Some((field, trouble)) = quotes::trouble(raw, records.delimiter, records.quote) {
        let (_, _, reason) = records.quote_fault(&record, field, trouble);
        return refuse(ErrorKind::Io, format!(", line {}: {reason}", record.line));
    }
    let starts = std::iter::once(0).chain(records.ends.iter().copied());
    let fields: Vec<Vec<u8>> = starts
        .zip(&records.ends[..record.fields])
        .map(|(start, &end)| cells.written(start..end).trim_ascii().to_vec())
        .collect();
    if !options.csv.has_header {
        records.restore(checkpoint);
        let made_up = (1..=fields.len()).map(|number| format!("column_{number}")).collect();
        let names = options.csv.columns.clone().unwrap_or(made_up);
        return Ok((check_names(&file, names, fields.len())?, None));
    }
    if let Some(names) = &options.csv.columns {
        return Ok((check_names(&file, names.clone(), fields.len())?, None));
    }
    let mut names = Vec::with_capacity(fields.len());
    let mut seen = HashSet::new();
    for (index, field) in fields.into_iter().enumerate() {
        match String::from_utf8(field) {
            Ok(name) if name.is_empty() => {
                let message = format!(
                    ", line {}: column {} has no name in the header: give it one, or name all columns yourself",
                    record.line,
                    index + 1
                );
                return refuse(ErrorKind::Io, message);
            }
            Ok(name) if !seen.insert(name.clone()) => {
                let message =
                    format!(" has two columns named {name}: rename one, or name all columns yourself");
                return refuse(ErrorKind::Io, message);
            }
            Ok(name) => names.push(name),
            Err(error) => {
                let shown = crate::text::parse::show(error.as_bytes());
                let message = format!(", line {}: the header's {shown} is not valid UTF-8", record.line);
                return refuse(ErrorKind::Io, message);
            }
        }
    }
    Ok((names, Some(record.line)))
}

/// Holds names that options give, or that are made up, against the file's number of columns.
fn check_names(file: &str, names: Vec<String>, fields: usize) -> Result<Vec<String>> {
    let refuse = |message: String| Err(Error::new(ErrorKind::InvalidConfig, message));
    if names.len() != fields {
        let plural = if fields == 1 { "" } else { "s" };
        return refuse(format!("{file} has {fields} column{plural}, and {} were named for it", names.len()));
    }
    let mut seen = HashSet::new();
    for name in &names {
        if name.is_empty() {
            return refuse(format!("{file}: a column was given an empty name"));
        }
        if !seen.insert(name) {
            return refuse(format!("{file}: two columns were given the name {name}"));
        }
    }
    Ok(names)
}
