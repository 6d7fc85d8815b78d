//! SQLite's result codes and messages as Barge's errors.

use std::ffi::c_int;

use barge_core::{Error, ErrorKind};
use libsqlite3_sys as ffi;

use crate::statement::Failure;

/// The error of a failed statement on a database. `file` is what messages about the database itself name.
pub(crate) fn error_of(failure: Failure, file: &str) -> Error {
    let kind = kind_of(&failure);
    let message = match kind {
        ErrorKind::Io if failure.primary() == ffi::SQLITE_CORRUPT => {
            format!("{file} is damaged: {}", failure.message)
        }
        ErrorKind::Io if failure.primary() == ffi::SQLITE_NOTADB => {
            format!("{file} is not an SQLite database")
        }
        ErrorKind::Io => format!("{file} can't be read or written: {}", failure.message),
        ErrorKind::DiskFull => format!("no room left to write {file}: {}", failure.message),
        ErrorKind::Permission => format!("{file} can't be opened or written: {}", failure.message),
        ErrorKind::Busy => {
            format!("another connection holds a lock on {file} ({}); try again", failure.message)
        }
        _ => failure.message.clone(),
    };
    let error = described(Error::new(kind, message), kind, &failure.message);
    error.with_code(code_name(failure.code)).with_source(failure)
}

/// The kind of a failure.
pub(crate) fn kind_of(failure: &Failure) -> ErrorKind {
    match failure.code {
        ffi::SQLITE_CONSTRAINT_UNIQUE | ffi::SQLITE_CONSTRAINT_PRIMARYKEY | ffi::SQLITE_CONSTRAINT_ROWID => {
            return ErrorKind::UniqueViolation;
        }
        ffi::SQLITE_CONSTRAINT_FOREIGNKEY => return ErrorKind::ForeignKeyViolation,
        ffi::SQLITE_CONSTRAINT_NOTNULL => return ErrorKind::NotNullViolation,
        ffi::SQLITE_CONSTRAINT_DATATYPE => return ErrorKind::InvalidValue,
        _ => {}
    }
    match failure.primary() {
        ffi::SQLITE_CONSTRAINT => ErrorKind::CheckViolation,
        ffi::SQLITE_MISMATCH => ErrorKind::InvalidValue,
        ffi::SQLITE_TOOBIG => ErrorKind::TooLarge,
        ffi::SQLITE_FULL => ErrorKind::DiskFull,
        ffi::SQLITE_BUSY | ffi::SQLITE_LOCKED => ErrorKind::Busy,
        ffi::SQLITE_READONLY | ffi::SQLITE_PERM | ffi::SQLITE_CANTOPEN | ffi::SQLITE_AUTH => {
            ErrorKind::Permission
        }
        ffi::SQLITE_IOERR | ffi::SQLITE_CORRUPT | ffi::SQLITE_NOTADB | ffi::SQLITE_NOMEM => ErrorKind::Io,
        _ if failure.message.starts_with("no such table") => ErrorKind::MissingTable,
        _ if failure.message.starts_with("no such column")
            || failure.message.contains(" has no column named ") =>
        {
            ErrorKind::MissingColumn
        }
        _ => ErrorKind::Statement,
    }
}

/// Adds the table, column and constraint that SQLite's message names.
fn described(error: Error, kind: ErrorKind, message: &str) -> Error {
    let after = |prefix: &str| message.split_once(prefix).map(|(_, rest)| rest.trim());
    match kind {
        ErrorKind::UniqueViolation => match after("UNIQUE constraint failed: ") {
            Some(rest) => match rest.strip_prefix("index ") {
                Some(index) => error.with_constraint(index.trim_matches('\'')),
                None => with_columns(error, rest),
            },
            None => error,
        },
        ErrorKind::NotNullViolation => match after("NOT NULL constraint failed: ") {
            Some(column) => with_columns(error, column),
            None => error,
        },
        ErrorKind::CheckViolation => match after("CHECK constraint failed: ") {
            Some(constraint) => error.with_constraint(constraint),
            None => error,
        },
        ErrorKind::InvalidValue => match after(" value in ").or_else(|| after(" column ")) {
            // "cannot store TEXT value in INTEGER column t.a"
            Some(rest) => match rest.split_once("column ") {
                Some((_, column)) => with_columns(error, column),
                None => error,
            },
            None => error,
        },
        ErrorKind::MissingTable => match after("no such table: ") {
            Some(table) => error.with_table(table),
            None => error,
        },
        ErrorKind::MissingColumn => {
            match after("no such column: ").or_else(|| after(" has no column named ")) {
                Some(column) => error.with_column(column.rsplit('.').next().unwrap_or(column)),
                None => error,
            }
        }
        _ => error,
    }
}

/// Reads `t.a, t.b`. Names that hold dots or commas come out wrong here; where the target is known its own names are used.
fn with_columns(error: Error, list: &str) -> Error {
    let columns: Vec<&str> =
        list.split(", ").map(|column| column.split_once('.').map_or(column, |(_, name)| name)).collect();
    let error = match list.split_once('.') {
        Some((table, _)) => error.with_table(table),
        None => error,
    };
    error.with_column(columns.join(", "))
}

/// Whether a failure of COMMIT leaves open whether the transaction is on disk: syncing or the journal's end failed.
pub(crate) fn leaves_commit_unknown(failure: &Failure) -> bool {
    failure.primary() == ffi::SQLITE_IOERR
}

/// The name of a result code.
fn code_name(code: c_int) -> String {
    let name = match code {
        ffi::SQLITE_CONSTRAINT_UNIQUE => "SQLITE_CONSTRAINT_UNIQUE",
        ffi::SQLITE_CONSTRAINT_PRIMARYKEY => "SQLITE_CONSTRAINT_PRIMARYKEY",
        ffi::SQLITE_CONSTRAINT_ROWID => "SQLITE_CONSTRAINT_ROWID",
        ffi::SQLITE_CONSTRAINT_FOREIGNKEY => "SQLITE_CONSTRAINT_FOREIGNKEY",
        ffi::SQLITE_CONSTRAINT_NOTNULL => "SQLITE_CONSTRAINT_NOTNULL",
        ffi::SQLITE_CONSTRAINT_CHECK => "SQLITE_CONSTRAINT_CHECK",
        ffi::SQLITE_CONSTRAINT_TRIGGER => "SQLITE_CONSTRAINT_TRIGGER",
        ffi::SQLITE_CONSTRAINT_DATATYPE => "SQLITE_CONSTRAINT_DATATYPE",
        ffi::SQLITE_IOERR_FSYNC => "SQLITE_IOERR_FSYNC",
        ffi::SQLITE_IOERR_DIR_FSYNC => "SQLITE_IOERR_DIR_FSYNC",
        ffi::SQLITE_IOERR_WRITE => "SQLITE_IOERR_WRITE",
        ffi::SQLITE_BUSY_SNAPSHOT => "SQLITE_BUSY_SNAPSHOT",
        _ => match code & 0xff {
            ffi::SQLITE_ERROR => "SQLITE_ERROR",
            ffi::SQLITE_INTERNAL => "SQLITE_INTERNAL",
            ffi::SQLITE_PERM => "SQLITE_PERM",
            ffi::SQLITE_ABORT => "SQLITE_ABORT",
            ffi::SQLITE_BUSY => "SQLITE_BUSY",
            ffi::SQLITE_LOCKED => "SQLITE_LOCKED",
            ffi::SQLITE_NOMEM => "SQLITE_NOMEM",
            ffi::SQLITE_READONLY => "SQLITE_READONLY",
            ffi::SQLITE_INTERRUPT => "SQLITE_INTERRUPT",
            ffi::SQLITE_IOERR => "SQLITE_IOERR",
            ffi::SQLITE_CORRUPT => "SQLITE_CORRUPT",
            ffi::SQLITE_FULL => "SQLITE_FULL",
            ffi::SQLITE_CANTOPEN => "SQLITE_CANTOPEN",
            ffi::SQLITE_TOOBIG => "SQLITE_TOOBIG",
            ffi::SQLITE_CONSTRAINT => "SQLITE_CONSTRAINT",
            ffi::SQLITE_MISMATCH => "SQLITE_MISMATCH",
            ffi::SQLITE_AUTH => "SQLITE_AUTH",
            ffi::SQLITE_NOTADB => "SQLITE_NOTADB",
            _ => return format!("SQLITE_{code}"),
        },
    };
    name.to_owned()
}

/// An error of rusqlite's own calls, which open connections and set pragmas.
pub(crate) fn error_of_rusqlite(error: rusqlite::Error, file: &str) -> Error {
    match error {
        rusqlite::Error::SqliteFailure(code, message) => {
            let message = message.unwrap_or_else(|| code.to_string());
            error_of(Failure { code: code.extended_code, message }, file)
        }
        rusqlite::Error::SqlInputError { error: code, msg, .. } => {
            error_of(Failure { code: code.extended_code, message: msg }, file)
        }
        other => Error::new(ErrorKind::Statement, other.to_string()).with_source(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(code: c_int, message: &str) -> Error {
        error_of(Failure { code, message: message.into() }, "a.db")
    }

    #[test]
    fn messages_give_table_columns_and_constraint() {
        let unique = error(ffi::SQLITE_CONSTRAINT_UNIQUE, "UNIQUE constraint failed: t.a, t.b");
        assert_eq!(unique.kind(), ErrorKind::UniqueViolation);
        assert_eq!((unique.table(), unique.column()), (Some("t"), Some("a, b")));
        assert_eq!(unique.code(), Some("SQLITE_CONSTRAINT_UNIQUE"));
        let check = error(ffi::SQLITE_CONSTRAINT_CHECK, "CHECK constraint failed: positive");
        assert_eq!((check.kind(), check.constraint()), (ErrorKind::CheckViolation, Some("positive")));
        let strict = error(ffi::SQLITE_CONSTRAINT_DATATYPE, "cannot store TEXT value in INTEGER column t.n");
        assert_eq!((strict.kind(), strict.column()), (ErrorKind::InvalidValue, Some("n")));
        let missing = error(ffi::SQLITE_ERROR, "no such table: u");
        assert_eq!((missing.kind(), missing.table()), (ErrorKind::MissingTable, Some("u")));
        let index = error(ffi::SQLITE_CONSTRAINT_UNIQUE, "UNIQUE constraint failed: index 'by_lower'");
        assert_eq!(index.constraint(), Some("by_lower"));
    }

    #[test]
    fn errors_of_the_file_name_it() {
        assert!(error(ffi::SQLITE_NOTADB, "file is not a database").message().contains("a.db"));
        assert!(error(ffi::SQLITE_BUSY, "database is locked").is_retryable());
        assert_eq!(error(ffi::SQLITE_FULL, "database or disk is full").kind(), ErrorKind::DiskFull);
    }
}
