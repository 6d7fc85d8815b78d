//! Rejected rows, kept in a file of JSON lines that `barge load` reads back.
//!
//! A line is `{"barge":1,"table":…,"schema":…,"operation":…,"error":{"kind":…,"message":…},"row":{…}}`, with the values of
//! [`row_to_json`](crate::record::row_to_json). Lines are appended, each flush's with one write.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use serde_json::json;

use super::report::Rejected;
use crate::{Error, Result};

/// An open dead letter file.
#[derive(Debug)]
pub(crate) struct DeadLetter {
    path: PathBuf,
    file: File,
}

impl DeadLetter {
    /// Opens the file for appending, and makes it where it isn't there: an unwritable path shows before any row is taken.
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(path).map_err(|error| {
            Error::from(error).context(format!("the dead letter file {} can't be written", path.display()))
        })?;
        Ok(DeadLetter { path: path.to_owned(), file })
    }

    pub(crate) fn append(&mut self, rejected: &[Rejected]) -> Result<()> {
        let mut lines = Vec::new();
        for rejected in rejected {
            let line = to_json(rejected);
            serde_json::to_writer(&mut lines, &line).map_err(std::io::Error::from)?;
            lines.push(b'\n');
        }
        self.file.write_all(&lines).and_then(|()| self.file.flush()).map_err(|error| {
            Error::from(error)
                .context(format!("the dead letter file {} can't be written", self.path.display()))
        })
    }
}

fn to_json(rejected: &Rejected) -> serde_json::Value {
    let error = &rejected.error;
    let mut reason = json!({"kind": error.kind().as_str(), "message": error.message()});
    for (name, value) in
        [("column", error.column()), ("constraint", error.constraint()), ("code", error.code())]
    {
        if let Some(value) = value {
            reason[name] = value.into();
        }
    }
    let mut line = json!({
        "barge": 1,
        "table": rejected.table.name(),
        "operation": rejected.operation.as_str(),
        "error": reason,
        "row": rejected.row,
    });
    if let Some(schema) = rejected.table.schema() {
        line["schema"] = schema.into();
    }
    line
}
