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
    /// How much of what was to be kept was.
    kept: Kept,
    /// Whether anything was kept from which a row can be had again.
    any: bool,
}

/// How much of the rows and lines that were not written is in the dead letter file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kept {
    /// Every row or line as it was read.
    #[default]
    All,
    /// Some are cut, or hold bytes that are no text; or of some there is only the reason.
    Part,
    /// Of all of them there is only the reason.
    Reasons,
    /// The file could not be written.
    Failed,
}

impl Kept {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Kept::All => "all",
            Kept::Part => "part",
            Kept::Reasons => "reasons",
            Kept::Failed => "failed",
        }
    }
}

/// Bytes of letters that are written at once.
const BUFFER_BYTES: usize = 256 << 10;

/// Where a letter's row was going, and where it came from.
pub(crate) struct Address<'a> {
    /// `None` where the line of a letter doesn't say it.
    pub(crate) table: Option<&'a TableName>,
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
        Ok(Letters { path: path.to_owned(), file, lines: Vec::new(), kept: Kept::All, any: false })
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
        self.any = true;
        self.push(letter)
    }

    /// Keeps a line that could not become a row. One that is a letter itself becomes that letter again, not a letter of a letter.
    pub(crate) fn line(&mut self, to: &Address<'_>, line: &RejectedLine) -> Result<()> {
        let mut letter = head(to, line.line, &line.error);
        if let Some(column) = &line.column {
            letter["error"]["column"] = column.clone().into();
        }
        let found = Found::in_line(line);
        let is_kept = found.row.is_some() || line.is_whole;
        self.any |= is_kept || !line.raw.is_empty();
        self.kept = self.kept.max(if is_kept { Kept::All } else { Kept::Part });
        letter.extend(found.address);
        for (name, value) in [("row", found.row), ("text", found.text)] {
            letter.extend(value.map(|value| (name.to_owned(), value)));
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
        if written.is_err() {
            self.kept = Kept::Failed;
        }
        written.map_err(|error| unwritable(&self.path, error))
    }
}

impl Letters {
    /// How much of what was to be kept is in the file.
    pub(crate) fn kept(&self) -> Kept {
        match self.kept {
            _ if !self.lines.is_empty() => Kept::Failed,
            Kept::Part if !self.any => Kept::Reasons,
            kept => kept,
        }
    }
}

fn unwritable(path: &Path, error: std::io::Error) -> Error {
    Error::from(error).context(format!("the dead letter file {} can't be written", path.display()))
}

fn head(to: &Address<'_>, line: u64, error: &Error) -> Map<String, Value> {
    let mut letter = Map::new();
    letter.insert("barge".into(), 1.into());
    letter.insert("table".into(), to.table.map_or("", TableName::name).into());
    if let Some(schema) = to.table.and_then(TableName::schema) {
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

/// What a rejected line says of its row.
#[derive(Default)]
struct Found {
    /// Its values, or the JSON object that it is.
    row: Option<Value>,
    /// The line as it was read.
    text: Option<Value>,
    /// Where the row was going, if the line is a letter itself.
    address: Map<String, Value>,
}

impl Found {
    fn in_line(line: &RejectedLine) -> Found {
        let text = (!line.raw.is_empty()).then(|| line.raw.clone().into());
        if !line.values.is_empty() {
            let value = |text: &Option<String>| text.clone().map_or(Value::Null, Value::String);
            let row = line.values.iter().map(|(name, text)| (name.clone(), value(text))).collect();
            return Found { row: Some(Value::Object(row)), text, ..Found::default() };
        }
        match serde_json::from_str::<Map<String, Value>>(&line.raw) {
            Ok(letter) if is_letter(&letter) => Found::in_letter(letter, text),
            Ok(object) => Found { row: Some(object.into()), text, ..Found::default() },
            Err(_) => Found { text, ..Found::default() },
        }
    }

    fn in_letter(mut letter: Map<String, Value>, text: Option<Value>) -> Found {
        let address = ["table", "schema", "operation"];
        let address = address
            .into_iter()
            .filter_map(|name| Some((name.to_owned(), letter.remove(name).filter(Value::is_string)?)));
        let address = address.collect();
        let row = letter.remove("row").filter(Value::is_object);
        // The line that the letter stands for, else the letter.
        let text = letter.remove("text").filter(Value::is_string).or(text);
        Found { row, text, address }
    }
}

fn is_letter(object: &Map<String, Value>) -> bool {
    ["barge", "table", "operation", "error"].iter().all(|name| object.contains_key(*name))
}
