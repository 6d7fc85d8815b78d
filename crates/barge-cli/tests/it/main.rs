//! The program itself, run on real files and real databases. Needs a directory for temporary files, `sh` to send signals, and
//! PostgreSQL.

#![allow(clippy::unwrap_used)] // A test that cannot go on fails.

mod bad_input;
mod copy;
mod data_sets;
mod dead_letters;
#[cfg(feature = "duckdb")]
mod duckdb;
mod export;
mod formats;
mod inspect;
mod modes;
mod names;
mod postgres;
mod running;

use std::io::Write;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use rusqlite::types::Value as Cell;
use serde_json::Value;
use tempfile::TempDir;

/// A directory with a database, where the program runs.
struct Place {
    directory: TempDir,
}

/// What a run of the program gave.
#[derive(Debug)]
struct Run {
    status: i32,
    out: String,
    err: String,
}

impl Place {
    fn new() -> Self {
        Place { directory: tempfile::tempdir().unwrap() }
    }

    /// A place whose database has tables.
    fn with(sql: &str) -> Self {
        let place = Place::new();
        place.sql().execute_batch(sql).unwrap();
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        std::fs::write(self.path(name), content).unwrap();
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap()
    }

    fn sql(&self) -> rusqlite::Connection {
        let connection = rusqlite::Connection::open(self.path("test.db")).unwrap();
        connection.busy_timeout(std::time::Duration::from_secs(30)).unwrap();
        connection
    }

    /// The rows of a query, values joined by `|`, NULL as `∅`.
    fn rows(&self, sql: &str) -> Vec<String> {
        rows_of(&self.sql(), sql)
    }

    fn count(&self, table: &str) -> i64 {
        self.rows(&format!("SELECT count(*) FROM {table}"))[0].parse().unwrap()
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_barge"));
        command.args(arguments).current_dir(self.directory.path()).stdin(Stdio::null());
        for name in std::env::vars().map(|(name, _)| name).filter(|name| name.starts_with("PG")) {
            command.env_remove(name);
        }
        command.env_remove("BARGE_LOG").env_remove("RUST_LOG").env("HOME", self.directory.path());
        command
    }

    fn barge(&self, arguments: &[&str]) -> Run {
        Run::of(self.command(arguments).output().unwrap())
    }

    /// Runs the program with something on standard input.
    fn barge_with(&self, input: impl AsRef<[u8]>, arguments: &[&str]) -> Run {
        let mut child = self.start(arguments);
        // The program may end without having read everything.
        let _ = child.stdin.take().unwrap().write_all(input.as_ref());
        Run::of(child.wait_with_output().unwrap())
    }

    /// Starts the program with pipes.
    fn start(&self, arguments: &[&str]) -> Child {
        let mut command = self.command(arguments);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command.spawn().unwrap()
    }

    /// `barge load` into table t of the database.
    fn load(&self, file: &str, arguments: &[&str]) -> Run {
        self.barge(&[&["load", file, "--to", "sqlite:test.db", "--table", "t"], arguments].concat())
    }
}

impl Run {
    fn of(output: std::process::Output) -> Self {
        Run {
            status: output.status.code().unwrap_or(-1),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }

    #[track_caller]
    fn ends(self, status: i32) -> Self {
        assert_eq!(self.status, status, "{self:#?}");
        self
    }

    /// Whether the output has a line of these words, however they are spaced.
    fn has_line(&self, words: &str) -> bool {
        self.out.lines().any(|line| line.split_whitespace().collect::<Vec<_>>().join(" ") == words)
    }

    /// The summary, where it was asked for as JSON.
    #[track_caller]
    fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {self:#?}"))
    }

    /// The one message on standard error.
    #[track_caller]
    fn message(&self) -> &str {
        let message = self.err.strip_prefix("barge: ").unwrap_or_else(|| panic!("{self:#?}"));
        message.trim_end()
    }

    /// `[read, written, rejected]` of a summary in JSON.
    #[track_caller]
    fn counts(&self) -> [u64; 3] {
        let summary = self.json();
        ["rows_read", "rows_written", "rows_rejected"].map(|name| summary[name].as_u64().unwrap())
    }

    /// The messages of the rejected rows in a summary in JSON: `line: message`.
    #[track_caller]
    fn rejected(&self) -> Vec<String> {
        let summary = self.json();
        let told = summary["rejected"].as_array().unwrap().iter();
        told.map(|row| format!("{}: {}", row["line"], row["message"].as_str().unwrap())).collect()
    }
}

/// The rows of a query, values joined by `|`, NULL as `∅`.
fn rows_of(connection: &rusqlite::Connection, sql: &str) -> Vec<String> {
    let mut statement = connection.prepare(sql).unwrap();
    let columns = statement.column_count();
    let rows = statement.query_map([], |row| {
        let cell = |column| match row.get_unwrap(column) {
            Cell::Null => "∅".to_owned(),
            Cell::Integer(value) => value.to_string(),
            Cell::Real(value) => format!("{value:?}"),
            Cell::Text(value) => value,
            Cell::Blob(value) => format!("{value:x?}"),
        };
        Ok((0..columns).map(cell).collect::<Vec<_>>().join("|"))
    });
    rows.unwrap().collect::<Result<_, _>>().unwrap()
}
