//! DuckDB's messages as Barge's errors.

use barge_core::{Error, ErrorKind};

use crate::raw::Failure;

const OUT_OF_MEMORY: &str = "Out of Memory Error";

/// The error of a failed statement on a database. `file` is what messages about the database itself name.
pub(crate) fn error_of(failure: Failure, file: &str) -> Error {
    let kind = kind_of(&failure);
    let (class, text) = parts(&failure.0);
    let said = text.lines().next().unwrap_or(text);
    let message = match kind {
        ErrorKind::Busy if class == OUT_OF_MEMORY => {
            format!("DuckDB's memory is taken, see its setting memory_limit: {said}")
        }
        ErrorKind::Busy => format!(
            "another process holds {file}, and a DuckDB file is open in one process at a time: close it there, or open it in both \
             to be read only ({said})"
        ),
        ErrorKind::DiskFull => format!("no room left to write {file}: {said}"),
        ErrorKind::Io | ErrorKind::Permission | ErrorKind::Poisoned => {
            format!("{file} can't be read or written: {said}")
        }
        ErrorKind::SerializationFailure => format!("another transaction changed the same rows: {said}"),
        ErrorKind::UniqueViolation | ErrorKind::ForeignKeyViolation => said.to_owned(),
        _ => text.to_owned(),
    };
    let error = named(Error::new(kind, message), text);
    let error = if class.is_empty() { error } else { error.with_code(class) };
    error.with_source(failure)
}

/// The class of error and the rest of a message, as in `Constraint Error: …`.
fn parts(message: &str) -> (&str, &str) {
    match message.split_once(": ") {
        Some((class, text)) if class.ends_with("Error") => (class, text),
        _ => ("", message),
    }
}

/// The kind of a failure.
pub(crate) fn kind_of(failure: &Failure) -> ErrorKind {
    let (class, text) = parts(&failure.0);
    let says = |part: &str| text.contains(part);
    match class.trim_end_matches(" Error") {
        // Other statements hold it, and let it go.
        _ if class == OUT_OF_MEMORY => ErrorKind::Busy,
        "Constraint" if says("NOT NULL constraint failed") => ErrorKind::NotNullViolation,
        "Constraint" if says("CHECK constraint failed") => ErrorKind::CheckViolation,
        "Constraint" if says("foreign key constraint") => ErrorKind::ForeignKeyViolation,
        "Constraint" if says("constraint violation") || says("Duplicate key") => ErrorKind::UniqueViolation,
        "Constraint" => ErrorKind::CheckViolation,
        "Conversion" | "Out of Range" | "Mismatch Type" | "Invalid type" => ErrorKind::InvalidValue,
        "TransactionContext" => match text.split_once("Failed to commit: ") {
            Some((_, reason)) => kind_of_commit(reason),
            None if says("onflict") => ErrorKind::SerializationFailure,
            None => ErrorKind::Statement,
        },
        "Catalog" if says("write-write conflict") => ErrorKind::SerializationFailure,
        "Catalog" if says("Table with name") && says("does not exist") => ErrorKind::MissingTable,
        // The Appender's own words.
        _ if text.starts_with("Table ") && says("could not be found") => ErrorKind::MissingTable,
        _ if text == "the column must exist in the table" => ErrorKind::MissingColumn,
        "Binder" if is_missing_column(text) => ErrorKind::MissingColumn,
        "IO" if says("Could not set lock") || says("Conflicting lock") => ErrorKind::Busy,
        "IO" if says("No space left") || says("could not allocate") => ErrorKind::DiskFull,
        "IO" if says("ermission denied") => ErrorKind::Permission,
        "IO" | "Serialization" | "Corrupt" => ErrorKind::Io,
        "Permission" => ErrorKind::Permission,
        _ if says("read-only mode") => ErrorKind::Permission,
        "FATAL" | "INTERNAL" => ErrorKind::Poisoned,
        "Not implemented" => ErrorKind::Unsupported,
        _ => ErrorKind::Statement,
    }
}

/// The kind of a failure of COMMIT by its reason, which names no class. Constraints that statements found met, and COMMIT doesn't, were broken by
/// what another transaction committed in between.
fn kind_of_commit(reason: &str) -> ErrorKind {
    // A file's name may hold any of the other words.
    let is_file = ["Could not write", "Could not read", "Could not open", "Could not truncate"]
        .iter()
        .any(|words| reason.starts_with(words));
    let says = |words: &[&str]| words.iter().any(|word| reason.contains(word));
    match reason {
        _ if says(&["No space left", "Disk quota", "File too large"]) => ErrorKind::DiskFull,
        _ if is_file || says(&["fsync"]) => ErrorKind::Io,
        _ if says(&[
            "onstraint",
            "onflict",
            "uplicate key",
            "has been altered",
            "has been deleted",
            "dropped",
        ]) =>
        {
            ErrorKind::SerializationFailure
        }
        _ => ErrorKind::Io,
    }
}

fn is_missing_column(text: &str) -> bool {
    (text.contains("eferenced") && text.contains("column") && text.contains("not found"))
        || text.contains("does not have a column")
        || text.contains("Column with name")
}

/// Adds the table, column and constraint that the message names.
fn named(error: Error, text: &str) -> Error {
    let between = |before: &str, after: &str| {
        let (_, rest) = text.split_once(before)?;
        rest.split_once(after).map(|(part, _)| part)
    };
    match error.kind() {
        // Duplicate key "a: 1, b: x" violates …
        ErrorKind::UniqueViolation => match between("Duplicate key \"", "\" violates") {
            Some(values) => {
                let columns: Vec<&str> = values
                    .split(", ")
                    .filter_map(|part| part.split_once(": ").map(|(column, _)| column))
                    .collect();
                error.with_column(columns.join(", "))
            }
            None => error,
        },
        // NOT NULL constraint failed: t.a
        ErrorKind::NotNullViolation => {
            match text.split_once("failed: ").and_then(|(_, rest)| rest.split_once('.')) {
                Some((table, column)) => {
                    error.with_table(table).with_column(column.lines().next().unwrap_or(column))
                }
                None => error,
            }
        }
        // CHECK constraint failed on table t with expression CHECK((a > 0))
        ErrorKind::CheckViolation => match text.split_once("with expression ") {
            Some((_, expression)) => error.with_constraint(expression),
            None => error,
        },
        ErrorKind::MissingTable => match between("Table with name ", " does not exist") {
            Some(table) => error.with_table(table),
            None => error,
        },
        ErrorKind::MissingColumn => {
            let column = between("eferenced column \"", "\"")
                .or_else(|| between("column named \"", "\""))
                .or_else(|| between("update column ", " not found"))
                .or_else(|| between("column with name \"", "\""));
            match column {
                Some(column) => error.with_column(column),
                None => error,
            }
        }
        _ => error,
    }
}

/// Whether a failure of COMMIT leaves open whether the transaction is on disk. DuckDB finds conflicts before it writes, and takes back what it wrote to its
/// log where a write fails: it says so by `Failed to commit`. What a failed sync left on disk nobody knows, nor what was done when the instance is
/// beyond use.
pub(crate) fn leaves_commit_unknown(failure: &Failure) -> bool {
    match parts(&failure.0) {
        ("TransactionContext Error", text) => text.contains("fsync") || text.contains("truncate"),
        _ => matches!(kind_of(failure), ErrorKind::Io | ErrorKind::DiskFull | ErrorKind::Poisoned),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(message: &str) -> Error {
        error_of(Failure(message.into()), "a.duckdb")
    }

    #[test]
    fn messages_give_kind_table_column_and_constraint() {
        let unique = error("Constraint Error: Duplicate key \"a: 1, b: x\" violates unique constraint.");
        assert_eq!((unique.kind(), unique.column()), (ErrorKind::UniqueViolation, Some("a, b")));
        let null = error("Constraint Error: NOT NULL constraint failed: t.a");
        assert_eq!(
            (null.kind(), null.table(), null.column()),
            (ErrorKind::NotNullViolation, Some("t"), Some("a"))
        );
        let check =
            error("Constraint Error: CHECK constraint failed on table t with expression CHECK((b > 0))");
        assert_eq!((check.kind(), check.constraint()), (ErrorKind::CheckViolation, Some("CHECK((b > 0))")));
        let missing = error("Catalog Error: Table with name u does not exist!\nDid you mean \"v\"?");
        assert_eq!((missing.kind(), missing.table()), (ErrorKind::MissingTable, Some("u")));
        let column = error("Binder Error: Referenced column \"shoe\" not found in FROM clause!");
        assert_eq!((column.kind(), column.column()), (ErrorKind::MissingColumn, Some("shoe")));
        assert_eq!(error("Parser Error: syntax error").kind(), ErrorKind::Statement);
    }

    #[test]
    fn conflicts_are_tried_again_and_held_files_named() {
        let conflict =
            error("TransactionContext Error: Failed to commit: PRIMARY KEY or UNIQUE constraint violation");
        assert!(conflict.kind() == ErrorKind::SerializationFailure && conflict.is_retryable());
        let full =
            error("Out of Memory Error: failed to allocate data of size 16.0 MiB (90 MiB/95 MiB used)");
        assert!(full.kind() == ErrorKind::Busy && full.is_retryable());
        assert!(full.message().contains("memory_limit") && !full.message().contains("process"), "{full}");
        let held = error(
            "IO Error: Could not set lock on file \"/x/a.duckdb\": Conflicting lock is held in p (PID 7)",
        );
        assert_eq!(held.kind(), ErrorKind::Busy);
        let full = "TransactionContext Error: Failed to commit: Could not write file \"/conflict/a.duckdb.wal\": No space left on device";
        assert_eq!(error(full).kind(), ErrorKind::DiskFull);
        assert!(!error(full).is_retryable() && !leaves_commit_unknown(&Failure(full.into())));
        let synced = "TransactionContext Error: Failed to commit: Could not fsync file \"a.duckdb.wal\": Input/output error";
        assert_eq!(error(synced).kind(), ErrorKind::Io);
        assert!(leaves_commit_unknown(&Failure(synced.into())));
        assert!(leaves_commit_unknown(&Failure("FATAL Error: fsync failed!".into())));
        assert!(held.message().contains("a.duckdb") && held.message().contains("PID 7"), "{held}");
    }
}
