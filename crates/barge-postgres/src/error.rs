//! PostgreSQL's failures as Barge's errors.

use std::error::Error as _;

use barge_core::{Error, ErrorKind};
use tokio_postgres::error::{DbError, Severity, SqlState};

/// The error of a failed call.
pub(crate) fn error_of(error: tokio_postgres::Error) -> Error {
    match error.as_db_error() {
        Some(failure) => of_failure(failure).with_source(error),
        None => of_connection(error),
    }
}

/// Whether an error says that the connection is of no more use, though it may be open: the server ends it, has become a standby, or a kept
/// statement is not what it was.
pub(crate) fn is_of_connection(error: &tokio_postgres::Error) -> bool {
    error.as_db_error().is_some_and(|failure| {
        is_fatal(failure)
            || matches!(failure.code().code(), READ_ONLY | "42P05" | "26000")
            || is_stale_plan(failure)
    })
}

/// Whether the server closes the connection with it. A server of before 9.6 says so in its own language alone.
fn is_fatal(failure: &DbError) -> bool {
    match failure.parsed_severity() {
        Some(severity) => matches!(severity, Severity::Fatal | Severity::Panic),
        None => matches!(failure.severity(), "FATAL" | "PANIC"),
    }
}

/// SQLSTATE of a write in a transaction that only reads.
pub(crate) const READ_ONLY: &str = "25006";

/// A statement that was kept prepared gives other columns than when it was.
fn is_stale_plan(failure: &DbError) -> bool {
    failure.routine() == Some("RevalidateCachedQuery")
}

/// The kind of what the server said. Where the code leaves it open, the server's function that said it decides: its name is not translated.
fn kind_of_failure(failure: &DbError) -> ErrorKind {
    let kind = kind_of(failure.code());
    match failure.routine() {
        _ if is_stale_plan(failure) => ErrorKind::ConnectionLost,
        // A policy refuses a row; without the privilege to write at all, another function would.
        Some("ExecWithCheckOptions") => ErrorKind::CheckViolation,
        // RAISE with a code of its own, in a trigger.
        Some("exec_stmt_raise") if !kind.is_row() && !Error::new(kind, "").is_retryable() => {
            ErrorKind::CheckViolation
        }
        _ => kind,
    }
}

/// What the server said.
fn of_failure(failure: &DbError) -> Error {
    let mut message = failure.message().to_owned();
    for more in [failure.detail(), failure.hint()].into_iter().flatten() {
        message.push_str(": ");
        message.push_str(more.trim_end_matches('.'));
    }
    let mut error = Error::new(kind_of_failure(failure), message).with_code(failure.code().code());
    if let Some(constraint) = failure.constraint() {
        error = error.with_constraint(constraint);
    }
    if let Some(column) = failure.column() {
        error = error.with_column(column);
    }
    error
}

/// What the connection, and not the server, reports.
fn of_connection(error: tokio_postgres::Error) -> Error {
    let cause = error.source().map(|source| format!(": {source}")).unwrap_or_default();
    let message = format!("{error}{cause}");
    let io = error.source().and_then(|source| source.downcast_ref::<std::io::Error>());
    // A certificate that isn't trusted comes as a failure of the connection; it will not be trusted the next time either.
    let is_distrust = io.and_then(std::io::Error::get_ref).is_some_and(|cause| cause.is::<rustls::Error>());
    let kind = match error.is_closed() || io.is_some() {
        true if is_distrust => ErrorKind::Permission,
        true => ErrorKind::ConnectionLost,
        false => ErrorKind::Statement,
    };
    Error::new(kind, message).with_source(error)
}

/// The error of a connection that could not be made. The server may be starting, or a network may be down: worth another try, but
/// for a wrong password, database or certificate.
pub(crate) fn of_connecting(error: tokio_postgres::Error, server: &str) -> Error {
    let known = error_of(error);
    let kind = match known.kind() {
        // A password that is missing, a parameter that contradicts another.
        ErrorKind::Statement if known.message().starts_with("invalid configuration") => {
            ErrorKind::InvalidConfig
        }
        ErrorKind::Statement if known.code().is_none() => ErrorKind::ConnectionLost,
        kind => kind,
    };
    let mut new = Error::new(kind, format!("connecting to {server}: {}", known.message()));
    if let Some(code) = known.code() {
        new = new.with_code(code);
    }
    new.with_source(known)
}

/// The kind of an SQLSTATE.
pub(crate) fn kind_of(code: &SqlState) -> ErrorKind {
    use ErrorKind::*;
    match code.code() {
        // An exclusion constraint refuses a row because of another one, as a unique key does.
        "23505" | "23P01" => UniqueViolation,
        "23503" | "23001" => ForeignKeyViolation,
        "23502" => NotNullViolation,
        // A CHECK, a view's CHECK OPTION, and what a trigger raises.
        "23514" | "44000" => CheckViolation,
        "42P01" | "3F000" => MissingTable,
        "42703" => MissingColumn,
        "42501" => Permission,
        "3D000" => InvalidConfig,
        "40P01" => Deadlock,
        "40001" => SerializationFailure,
        // Too many connections, and a lock that was not to be waited for.
        "55P03" | "53300" | "55006" => Busy,
        "57014" | "25P03" => Timeout,
        "53100" => DiskFull,
        "57P01" | "57P02" | "57P03" | "57P05" => ConnectionLost,
        "0A000" => Unsupported,
        // Another client's statement of the same name, behind a pooler: the next connection may do.
        "42P05" | "26000" => ConnectionLost,
        // What PL/pgSQL itself raises in a trigger.
        code if code.starts_with("P0") => CheckViolation,
        code if code.starts_with("22") => InvalidValue,
        code if code.starts_with("08") => ConnectionLost,
        code if code.starts_with("28") => Permission,
        code if code.starts_with("54") => TooLarge,
        code if code.starts_with("58") => Io,
        _ => Statement,
    }
}

/// Whether a failure of COMMIT leaves open whether it happened. An ERROR is the server's word that it didn't.
pub(crate) fn leaves_commit_unknown(error: &tokio_postgres::Error) -> bool {
    let Some(failure) = error.as_db_error() else { return true };
    let said_no = match failure.parsed_severity() {
        Some(severity) => severity == Severity::Error,
        None => failure.severity() == "ERROR",
    };
    // "statement completion unknown", in so many words; and a pooler that lost its server.
    !said_no || failure.code().code() == "40003" || failure.code().code().starts_with("08")
}

/// Whether an error is the server's word that it didn't do what it was asked, so that a COMMIT sent behind found nothing to commit. What a pooler says of a
/// server that it lost is not: that one may have had the COMMIT already.
pub(crate) fn is_refusal(error: &Error) -> bool {
    error.code().is_some_and(|code| !code.starts_with("08"))
}

/// The error of a transaction that is gone.
pub(crate) fn ended() -> Error {
    Error::new(ErrorKind::Statement, "the transaction was ended by an earlier error")
}

/// The error of a store that was closed.
pub(crate) fn closed() -> Error {
    Error::new(ErrorKind::Closed, "the database was closed before")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_sorted_by_what_they_mean_for_the_caller() {
        for (code, kind, retryable) in [
            ("23505", ErrorKind::UniqueViolation, false),
            ("22003", ErrorKind::InvalidValue, false),
            ("40P01", ErrorKind::Deadlock, true),
            ("40001", ErrorKind::SerializationFailure, true),
            ("57P01", ErrorKind::ConnectionLost, true),
            ("08006", ErrorKind::ConnectionLost, true),
            ("53300", ErrorKind::Busy, true),
            ("28P01", ErrorKind::Permission, false),
            ("54000", ErrorKind::TooLarge, false),
            ("XX000", ErrorKind::Statement, false),
        ] {
            let found = kind_of(&SqlState::from_code(code));
            assert_eq!(found, kind, "{code}");
            assert_eq!(Error::new(found, "").is_retryable(), retryable, "{code}");
        }
    }
}
