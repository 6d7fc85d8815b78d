//! Records one after another: their fields in the store of cells, their text in the window, their lines.

use barge_core::ErrorKind;
use csv_core::ReadRecordResult;

use super::quotes::{self, Trouble};
use crate::text::cells::Cells;
use crate::window::Window;

pub(super) struct Records {
    pub(super) window: Window,
    pub(super) delimiter: u8,
    pub(super) quote: Option<u8>,
    /// The ends of the last record's fields, from the record's start in the cells.
    pub(super) ends: Vec<usize>,
    core: csv_core::Reader,
    /// The line that the next byte stands on.
    line: u64,
    /// The last record ended with a carriage return, whose line feed may come.
    after_return: bool,
}

/// A record read. Its values were written behind the last cell.
pub(super) struct Record {
    /// Its text in the window, without the line break at its end. Cut where it is too large.
    pub(super) raw_start: usize,
    pub(super) raw_end: usize,
    pub(super) line: u64,
    pub(super) last_line: u64,
    pub(super) fields: usize,
    /// It is larger than a row may be, and its values are gone.
    pub(super) too_large: bool,
    /// A quote still open where a record became too large.
    open: Option<(usize, Trouble)>,
}

/// A place to read again from, while the window has not been released.
pub(super) struct Checkpoint {
    pos: usize,
    line: u64,
}

impl Records {
    pub(super) fn new(window: Window, delimiter: u8, quote: Option<u8>) -> Records {
        let core = core_reader(delimiter, quote);
        Records { window, delimiter, quote, ends: vec![0; 64], core, line: 1, after_return: false }
    }

    pub(super) fn checkpoint(&self) -> Checkpoint {
        Checkpoint { pos: self.window.pos, line: self.line }
    }

    /// Goes back. Only for a place from before the first record.
    pub(super) fn restore(&mut self, checkpoint: Checkpoint) {
        self.core = core_reader(self.delimiter, self.quote);
        self.window.pos = checkpoint.pos;
        self.line = checkpoint.line;
        self.after_return = false;
    }

    /// The next record, or `None` at the end of the file, and where reading failed: the window knows which. A record cut
    /// off by a failure is not given out.
    #[inline]
    pub(super) fn next(&mut self, cells: &mut Cells) -> Option<Record> {
        if !self.skip_line_breaks() {
            return None;
        }
        let (raw_start, line, written) = (self.window.pos, self.line, cells.bytes());
        let newlines_before = self.core.line();
        let (mut fields, mut open, mut too_large) = (0, None, false);
        let ended_by_file = loop {
            let at_end = self.window.ahead().is_empty() && !self.window.fill();
            if at_end && self.window.failure().is_some() {
                cells.rewind(written);
                return None;
            }
            let input = self.window.ahead();
            let room = cells.room(input.len() + 1);
            let (result, read, wrote, ended) = self.core.read_record(input, room, &mut self.ends[fields..]);
            self.window.pos += read;
            cells.advance(wrote);
            fields += ended;
            match result {
                ReadRecordResult::Record => break at_end,
                // A record that the file's end cuts off inside is a record all the same.
                ReadRecordResult::End => return None,
                ReadRecordResult::OutputEndsFull => self.ends.resize(self.ends.len() * 2, 0),
                ReadRecordResult::InputEmpty | ReadRecordResult::OutputFull => {}
            }
            if self.window.pos - raw_start > self.window.row_bytes_max() + 1 {
                if !too_large {
                    open = self.open_quote(raw_start);
                }
                too_large = true;
                cells.rewind(written);
                fields = fields.min(1);
                self.window.cut(raw_start + self.kept_bytes());
            }
        };
        let mut raw_end = self.window.pos;
        let newlines = self.core.line() - newlines_before;
        self.line += newlines;
        let mut last_line = self.line;
        if !ended_by_file {
            let terminator = self.window.bytes()[raw_end - 1];
            last_line -= u64::from(terminator == b'\n');
            // The core counts line feeds only. One that follows the carriage return belongs to it.
            self.after_return = terminator == b'\r';
            self.line += u64::from(self.after_return);
            raw_end -= 1;
        }
        if !too_large && raw_end - raw_start > self.window.row_bytes_max() {
            open = self.open_quote(raw_start);
            too_large = true;
        }
        if too_large {
            cells.rewind(written);
            raw_end = raw_end.min(raw_start + self.kept_bytes());
        }
        Some(Record { raw_start, raw_end, line, last_line, fields, too_large, open })
    }

    /// Skips line breaks and counts them. False at the end of the file.
    #[inline]
    fn skip_line_breaks(&mut self) -> bool {
        loop {
            if self.window.ahead().is_empty() && !self.window.fill() {
                return false;
            }
            let byte = self.window.ahead()[0];
            let paired = std::mem::take(&mut self.after_return) && byte == b'\n';
            match byte {
                b'\n' => self.line += u64::from(!paired),
                b'\r' => {
                    self.after_return = true;
                    self.line += 1;
                }
                _ => return true,
            }
            self.window.pos += 1;
        }
    }

    /// How much of a row too large stays in memory.
    fn kept_bytes(&self) -> usize {
        self.window.rejected_bytes_max() + 1
    }

    /// The quote that is open where a record passes the limit.
    fn open_quote(&self, raw_start: usize) -> Option<(usize, Trouble)> {
        let raw = &self.window.bytes()[raw_start..raw_start + self.window.row_bytes_max()];
        quotes::trouble(raw, self.delimiter, self.quote).filter(|(_, trouble)| *trouble != Trouble::TextAfter)
    }

    /// What is said of a row too large: the column, where a quote is open, the kind and the reason.
    pub(super) fn too_large(&self, record: &Record) -> (Option<usize>, ErrorKind, String) {
        let max = self.window.row_bytes_max();
        let mut reason = format!("the row is larger than {max} bytes");
        let mut column = None;
        if let Some((field, Trouble::Open { line_breaks })) = &record.open {
            column = Some(*field);
            let opened = record.line + line_breaks;
            reason.push_str(&format!(
                ": a quote that opens on line {opened} is not closed within them; lines {} to {} were read as one row",
                record.line, record.last_line
            ));
        }
        (column, ErrorKind::TooLarge, reason)
    }

    /// What is said of a record whose quotes are wrong.
    pub(super) fn quote_fault(
        &self,
        record: &Record,
        field: usize,
        trouble: Trouble,
    ) -> (Option<usize>, ErrorKind, String) {
        let reason = match trouble {
            Trouble::Open { line_breaks } => {
                let mut reason = format!(
                    "the quote that opens on line {} in field {} is never closed",
                    record.line + line_breaks,
                    field + 1
                );
                if record.last_line > record.line {
                    let (first, last) = (record.line, record.last_line);
                    reason.push_str(&format!("; lines {first} to {last} were read as one row"));
                }
                reason
            }
            Trouble::TextAfter => format!(
                "field {} goes on after its closing quote: a quote inside quotes is written twice",
                field + 1
            ),
        };
        (Some(field), ErrorKind::InvalidValue, reason)
    }
}

pub(super) fn core_reader(delimiter: u8, quote: Option<u8>) -> csv_core::Reader {
    let mut builder = csv_core::ReaderBuilder::new();
    builder.delimiter(delimiter);
    match quote {
        Some(quote) => builder.quote(quote),
        None => builder.quoting(false),
    };
    builder.build()
}
