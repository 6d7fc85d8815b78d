//! JSON lines: an object a line. The columns are the keys that the sample has, in the order they are met; a key
//! that a row lacks is NULL. Numbers keep the digits they are written with until they have a type.
//!
//! A file whose first object is a dead letter holds dead letters: see [`letters`].

mod letters;
mod lines;
mod object;
mod writer;

use std::sync::Arc;

use arrow::datatypes::{Schema, SchemaRef};
use barge_core::{Error, ErrorKind, Result};

use crate::options::ReadOptions;
use crate::source::{Chunk, DeadLetter, RejectedLine};
use crate::text::batch::{Columns, Fault, Waiting};
use crate::text::cells::{Cells, Place};
use crate::text::convert::Syntax;
use crate::text::kind::{check_asked, told_columns};
use crate::text::parse::first_rows;
use crate::window::Window;
use letters::{Letter, Letters};
use lines::{Line, Lines};
use object::{Keys, Mismatch};
pub(crate) use writer::JsonWriter;

pub(crate) struct JsonReader {
    lines: Lines,
    keys: Keys,
    columns: Columns,
    cells: Cells,
    /// Rows of `cells` given out already.
    given: usize,
    rejected: Waiting,
    /// Rows met so far, rejected ones included.
    rows: u64,
    letters: Option<Letters>,
    options: ReadOptions,
}

impl JsonReader {
    pub(crate) fn new(mut window: Window, options: &ReadOptions) -> Result<JsonReader> {
        window.skip_byte_order_mark()?;
        let mut reader = JsonReader {
            lines: Lines::new(window),
            keys: Keys::default(),
            columns: Columns { columns: Vec::new(), schema: Arc::new(Schema::empty()) },
            cells: Cells::new(0),
            given: 0,
            rejected: Waiting::default(),
            rows: 0,
            letters: None,
            options: options.clone(),
        };
        if reader.sample()? {
            let name = reader.lines.name().clone();
            reader.letters = Some(Letters::new(name, options));
            reader.gather_letters()?;
        } else {
            check_asked(reader.lines.name(), reader.keys.names(), options)?;
            reader.cells = Cells::new(reader.keys.names().len());
            reader.gather(options.sample_rows);
            let told = told_columns(reader.keys.names(), options.schema.as_deref(), options)?;
            reader.columns = Columns::settle(reader.keys.names(), told, &reader.cells, Syntax::Json);
        }
        Ok(reader)
    }

    pub(crate) fn schema(&self) -> &SchemaRef {
        &self.columns.schema
    }

    pub(crate) fn dead_letter(&self) -> Option<&DeadLetter> {
        self.letters.as_ref()?.current()
    }

    pub(crate) fn bytes(&self) -> (u64, Option<u64>) {
        let input = self.lines.window().input();
        (input.bytes_read(), input.bytes_total())
    }

    pub(crate) fn next_chunk(&mut self) -> Result<Option<Chunk>> {
        if self.given == self.cells.rows() && self.rejected.is_empty() {
            self.cells.clear();
            self.given = 0;
            self.lines.release();
            if self.letters.is_some() {
                self.gather_letters()?;
            } else {
                self.gather(self.options.batch_rows);
            }
            if self.cells.rows() == 0 && self.rejected.is_empty() {
                return self.lines.window().check().map(|()| None);
            }
        } else if self.given == 0 && self.letters.is_none() {
            // The sample alone would make a small chunk.
            self.gather(self.options.batch_rows);
        }
        let rows = self.given..(self.given + self.options.batch_rows).min(self.cells.rows());
        self.given = rows.end;
        let window = self.lines.window();
        let mut chunk = self.columns.chunk(window, &self.cells, rows, Syntax::Json)?;
        chunk.dead_letter = self.dead_letter().cloned();
        self.rejected.join(&mut chunk);
        Ok(Some(chunk))
    }

    /// Gathers the keys of the first rows, then goes back to the start. True where the file holds dead letters.
    fn sample(&mut self) -> Result<bool> {
        let start = self.lines.position();
        self.lines.keep_whole(true);
        let (mut fault, mut lines) = (None, 0);
        while lines < self.options.sample_rows && self.lines.window().pos < self.options.batch_bytes {
            let Some(line) = self.lines.next() else { break };
            lines += 1;
            let raw = &self.lines.window().bytes()[line.raw_start..line.raw_end];
            if lines == 1 && raw.trim_ascii_start().starts_with(b"[") {
                let name = self.lines.name();
                let message = format!(
                    "{name} holds a JSON array, not JSON lines: write one object a line, without brackets"
                );
                return Err(Error::new(ErrorKind::Io, message));
            }
            match self.lines.text(&line).and_then(|text| Ok((text, self.keys.gather(text)?))) {
                Ok((text, first)) if first && letters::is_letter(text) => {
                    self.lines.restore(start);
                    return Ok(true);
                }
                Ok(_) => {}
                Err(reason) if fault.is_none() => fault = Some((line.line, reason)),
                Err(_) => {}
            }
        }
        if self.keys.names().is_empty() {
            return Err(self.no_objects(fault));
        }
        self.lines.restore(start);
        Ok(false)
    }

    fn no_objects(&self, fault: Option<(u64, String)>) -> Error {
        let name = self.lines.name();
        let message = match (fault, self.lines.window().failure()) {
            (None, Some(failure)) => return failure.clone(),
            (Some((line, reason)), _) => format!("{name} holds no JSON objects; line {line}: {reason}"),
            (None, None) => format!("{name} is empty: it has no objects, so no columns"),
        };
        Error::new(ErrorKind::Io, message)
    }

    fn is_full(&self, rows: usize) -> bool {
        self.cells.rows() >= rows
            || self.cells.bytes() >= self.options.batch_bytes
            || self.rejected.is_full(rows, self.options.batch_bytes)
    }

    /// Reads objects until there are so many, or the bytes' limit is reached, or the file ends.
    fn gather(&mut self, rows: usize) {
        while !self.is_full(rows) {
            let Some(line) = self.lines.next() else { break };
            self.rows += 1;
            let text = self.lines.text(&line);
            let pushed = text.and_then(|text| {
                self.keys
                    .push(text, &mut self.cells)
                    .map_err(|mismatch| mismatch.reason(self.options.sample_rows))
            });
            self.account(&line, pushed);
        }
        self.cells.finish();
    }

    /// Reads dead letters of one table, one operation and one set of columns.
    fn gather_letters(&mut self) -> Result<()> {
        let Some(letters) = &mut self.letters else { return Ok(()) };
        while self.cells.rows() < self.options.batch_rows
            && self.cells.bytes() < self.options.batch_bytes
            && !self.rejected.is_full(self.options.batch_rows, self.options.batch_bytes)
        {
            let Some(line) = self.lines.next() else { break };
            let letter = self.lines.text(&line).and_then(Letter::parse);
            let pushed = match letter.and_then(|letter| Ok((letter.row()?, letter))) {
                Ok((row, letter)) => {
                    let fits = letters.is_current(&letter) && self.keys.is_exactly(row);
                    if !fits && self.cells.rows() > 0 {
                        self.lines.unread(&line);
                        break;
                    }
                    if !fits && let Ok(keys) = Keys::of(row) {
                        letters.begin(&letter, keys.names())?;
                        self.cells = Cells::new(keys.names().len());
                        self.keys = keys;
                    }
                    self.keys.push(row, &mut self.cells).map_err(|mismatch| mismatch.reason(1))
                }
                Err(reason) => Err(reason),
            };
            self.rows += 1;
            let fault = place(&line, self.rows, pushed, &mut self.cells, &self.lines);
            fault.into_iter().for_each(|line| self.rejected.push(line));
        }
        self.cells.finish();
        self.columns = letters.columns(self.keys.names(), &self.cells);
        Ok(())
    }

    fn account(&mut self, line: &Line, pushed: Result<(), String>) {
        let fault = place(line, self.rows, pushed, &mut self.cells, &self.lines);
        fault.into_iter().for_each(|line| self.rejected.push(line));
    }
}

/// Ends a row that was pushed, or rejects its line.
fn place(
    line: &Line,
    row: u64,
    pushed: Result<(), String>,
    cells: &mut Cells,
    lines: &Lines,
) -> Option<RejectedLine> {
    match pushed {
        Ok(()) => {
            let raw_bytes = (line.raw_end - line.raw_start) as u32;
            cells.push_row(Place { line: line.line, row, raw_start: line.raw_start as u32, raw_bytes });
            None
        }
        Err(reason) => {
            let kind = if line.too_large { ErrorKind::TooLarge } else { ErrorKind::InvalidValue };
            let raw = &lines.window().bytes()[line.raw_start..line.raw_end];
            Some(Fault { column: None, kind, reason: &reason }.reject(lines.window(), line.line, row, raw))
        }
    }
}

impl Mismatch {
    fn reason(self, sample_rows: usize) -> String {
        match self {
            Mismatch::Invalid(reason) => reason,
            Mismatch::UnknownKey(key) => format!(
                "the key {key:?} is none of the columns, which were taken from the {}: \
                 use a larger --sample-rows",
                first_rows(sample_rows)
            ),
        }
    }
}
