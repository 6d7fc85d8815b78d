//! Dead letters: rejected rows kept with their reason, to be loaded again. A line is an object with at least
//!
//! ```json
//! {"barge": 1, "table": "tasks", "operation": "upsert", "error": "…", "row": {"id": 7, "status": "DONE"}}
//! ```
//!
//! `barge` is the version of this layout; what `error` holds is for people and not read. `row` has one key a column. Any type
//! may be written as a string: bytes as `"\\x00ff"`, decimals, `"NaN"`, `"inf"` and `"-inf"` have to be. A
//! column of JSON holds its value as it stands, not a string of JSON. `schema` may say where the table is. A letter without
//! `row` stands for a line that could not be divided into columns: it is rejected again.
//!
//! A chunk has letters of one table, one operation and one set of columns, so that a partial update stays one.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use barge_core::Result;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use crate::options::ReadOptions;
use crate::source::DeadLetter;
use crate::text::batch::Columns;
use crate::text::cells::Cells;
use crate::text::convert::Syntax;
use crate::text::kind::{Column, told_columns};

const VERSION: u64 = 1;

#[derive(Deserialize)]
pub(super) struct Letter<'a> {
    barge: u64,
    #[serde(borrow)]
    table: Cow<'a, str>,
    #[serde(borrow, default)]
    schema: Option<Cow<'a, str>>,
    #[serde(borrow)]
    operation: Cow<'a, str>,
    #[serde(rename = "error")]
    _error: IgnoredAny,
    #[serde(borrow, default)]
    row: Option<&'a RawValue>,
}

impl<'a> Letter<'a> {
    /// Reads a letter, or says why the line is none.
    pub(super) fn parse(text: &'a str) -> Result<Letter<'a>, String> {
        let letter: Letter<'a> = serde_json::from_str(text).map_err(|error| {
            let message = error.to_string();
            let reason = message.rsplit_once(" at line ").map_or(message.as_str(), |(reason, _)| reason);
            format!("not a dead letter as the lines before it: {reason}")
        })?;
        if letter.barge != VERSION {
            return Err(format!(
                "a dead letter of version {}; only version {VERSION} is known",
                letter.barge
            ));
        }
        Ok(letter)
    }

    /// The row as it is written, or why there is none.
    pub(super) fn row(&self) -> Result<&'a str, String> {
        let row = self.row.map(RawValue::get);
        row.ok_or_else(|| "the letter has no row: correct the line that it stands for, and load that".into())
    }
}

/// Whether a line is a dead letter, of whatever version.
pub(super) fn is_letter(text: &str) -> bool {
    serde_json::from_str::<Letter<'_>>(text).is_ok()
}

/// A table's schema, where one is given, and its name.
type QualifiedName = (Option<Arc<str>>, Arc<str>);

/// Where the letters being read are meant for.
pub(super) struct Letters {
    file: Arc<str>,
    options: ReadOptions,
    current: Option<DeadLetter>,
    told: Vec<Option<Column>>,
    /// What is known of each table, asked once.
    schemas: HashMap<QualifiedName, Option<SchemaRef>>,
}

impl Letters {
    pub(super) fn new(file: Arc<str>, options: &ReadOptions) -> Letters {
        let options = options.clone();
        Letters { file, options, current: None, told: Vec::new(), schemas: HashMap::new() }
    }

    pub(super) fn current(&self) -> Option<&DeadLetter> {
        self.current.as_ref()
    }

    /// Whether a letter has the table and operation of those before it.
    pub(super) fn is_current(&self, letter: &Letter<'_>) -> bool {
        self.current.as_ref().is_some_and(|current| {
            *current.table == *letter.table
                && *current.operation == *letter.operation
                && current.schema.as_deref() == letter.schema.as_deref()
        })
    }

    /// Starts on letters of another table, operation, or set of columns.
    ///
    /// # Errors
    /// `Unsupported`: text cannot be read as the type of one of the table's columns.
    pub(super) fn begin(&mut self, letter: &Letter<'_>, names: &[String]) -> Result<()> {
        let letter = DeadLetter {
            schema: letter.schema.as_deref().map(Into::into),
            table: letter.table.as_ref().into(),
            operation: letter.operation.as_ref().into(),
        };
        let table = (letter.schema.clone(), letter.table.clone());
        let ask = || self.options.tables.as_ref().and_then(|tables| tables(&letter));
        let known = self.schemas.entry(table).or_insert_with(ask);
        let schema = known.as_ref().or(self.options.schema.as_ref());
        self.told = told_columns(names, schema.map(AsRef::as_ref), &self.options)
            .map_err(|error| error.context(format!("{}, letters for table {}", self.file, letter.table)))?;
        self.current = Some(letter);
        Ok(())
    }

    /// The columns of the letters gathered. Where no table tells a type, these letters show it.
    pub(super) fn columns(&self, names: &[String], cells: &Cells) -> Columns {
        Columns::settle(names, self.told.clone(), cells, Syntax::Json)
    }
}
