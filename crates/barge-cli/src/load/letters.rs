//! The dead letter file: rejected rows, and lines that were no rows, as JSON lines that `barge load` reads back.
//!
//! The layout is the one of the library's writer, with the file and line beside:
//! `{"barge":1,"table":…,"operation":…,"file":…,"line":…,"error":{…},"row":{…}}`. A line that could not be parsed has its
//! values as `row` where it could be divided into the columns, and its `text`.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use barge::{Error, Operation, Result, TableName};
use barge_files::RejectedLine;
use serde_json::{Map, Value, json};

/// An open dead letter file.
pub(crate) struct Letters {
    path: PathBuf,
    file: File,
    /// Lines not written yet.
    lines: Vec<u8>,
    /// Whether some could not be written.
    failed: bool,
}

/// Bytes of letters that are written at once.
const BUFFER_BYTES: usize = 256 << 10;

/// Where a letter's row was going, and where it came from.
pub(crate) struct Address<'a> {
    pub(crate) table: &'a TableName,
    pub(crate) operation: Operation,
    pub(crate) file: &'a str,
}

impl Letters {
    /// Opens the file for appending, and makes it where it isn't there.
    ///
    /// # Errors
    /// `Io` or `Permission`, naming the file.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(path);
        let file = file.map_err(|error| unwritable(path, error))?;
        Ok(Letters { path: path.to_owned(), file, lines: Vec::new(), failed: false })
    }

    /// Keeps a row that the database, or the check before it, refused.
    pub(crate) fn row(
        &mut self,
        to: &Address<'_>,
        line: u64,
        error: &Error,
        row: Map<String, Value>,
    ) -> Result<()> {
        let mut letter = head(to, line, error);
        letter.insert("row".into(), row.into());
        self.push(letter)
    }

    /// Keeps a line that could not become a row.
    pub(crate) fn line(&mut self, to: &Address<'_>, line: &RejectedLine) -> Result<()> {
        let mut letter = head(to, line.line, &line.error);
        if let Some(column) = &line.column {
            letter["error"]["column"] = column.clone().into();
        }
        if let Some(row) = row_of(line) {
            letter.insert("row".into(), row);
        }
        if !line.raw.is_empty() {
            letter.insert("text".into(), line.raw.clone().into());
        }
        self.push(letter)
    }

    fn push(&mut self, letter: Map<String, Value>) -> Result<()> {
        serde_json::to_writer(&mut self.lines, &letter).map_err(std::io::Error::from)?;
        self.lines.push(b'\n');
        if self.lines.len() >= BUFFER_BYTES { self.flush() } else { Ok(()) }
    }

    /// Writes what was kept: whole lines.
    ///
    /// # Errors
    /// `DiskFull` or `Io`, naming the file.
    pub(crate) fn flush(&mut self) -> Result<()> {
        let written = self.file.write_all(&self.lines);
        self.lines.clear();
        self.failed |= written.is_err();
        written.map_err(|error| unwritable(&self.path, error))
    }
}

impl Letters {
    /// Whether everything that was to be kept is in the file.
    pub(crate) fn is_whole(&self) -> bool {
        !self.failed && self.lines.is_empty()
    }
}

fn unwritable(path: &Path, error: std::io::Error) -> Error {
    Error::from(error).context(format!("the dead letter file {} can't be written", path.display()))
}

fn head(to: &Address<'_>, line: u64, error: &Error) -> Map<String, Value> {
    let mut letter = Map::new();
    letter.insert("barge".into(), 1.into());
    letter.insert("table".into(), to.table.name().into());
    if let Some(schema) = to.table.schema() {
        letter.insert("schema".into(), schema.into());
    }
    letter.insert("operation".into(), to.operation.as_str().into());
    letter.insert("file".into(), to.file.into());
    letter.insert("line".into(), line.into());
    let mut reason = json!({"kind": error.kind().as_str(), "message": error.message()});
    for (name, value) in
        [("column", error.column()), ("constraint", error.constraint()), ("code", error.code())]
    {
        if let Some(value) = value {
            reason[name] = value.into();
        }
    }
    letter.insert("error".into(), reason);
    letter
}

/// What a rejected line says of its row: its values, or the JSON object that it is.
fn row_of(line: &RejectedLine) -> Option<Value> {
    if !line.values.is_empty() {
        let value = |text: &Option<String>| text.clone().map_or(Value::Null, Value::String);
        return Some(Value::Object(
            line.values.iter().map(|(name, text)| (name.clone(), value(text))).collect(),
        ));
    }
    let mut object: Map<String, Value> = serde_json::from_str(&line.raw).ok()?;
    match object.get("barge") {
        // The line is a letter itself.
        Some(_) => object.remove("row").filter(Value::is_object),
        None => Some(object.into()),
    }
}
