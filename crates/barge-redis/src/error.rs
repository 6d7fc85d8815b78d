//! Redis's failures as Barge's errors.

use std::io;

use barge_core::{Error, ErrorKind};
use redis::{RedisError, ServerError, Value};

/// The error of a command that the server refused.
pub(crate) fn of_server(error: &ServerError, server: &str) -> Error {
    let code = error.code();
    let details = error.details().unwrap_or_default();
    let message = match code {
        "MOVED" => format!("{server} is one node of a cluster: use redis-cluster:// ({details})"),
        "ERR" => format!("{server}: {details}"),
        _ => format!("{server}: {code} {details}"),
    };
    Error::new(kind_of(code, details), message.trim_end()).with_code(code)
}

/// The error of a connection.
pub(crate) fn of_connection(error: RedisError, server: &str) -> Error {
    let kind = match error.kind() {
        redis::ErrorKind::Io if error.is_timeout() => ErrorKind::Timeout,
        // What isn't Redis's protocol: it can't be told where the next answer begins, so the connection is of no more use.
        _ => ErrorKind::ConnectionLost,
    };
    Error::new(kind, format!("{server}: {error}")).with_source(error)
}

/// The error of a connection that couldn't be made.
pub(crate) fn of_connecting(error: io::Error, server: &str) -> Error {
    // A certificate that isn't trusted now won't be the next time either.
    let is_distrust = error.get_ref().is_some_and(|cause| cause.is::<rustls::Error>());
    let kind = if is_distrust { ErrorKind::Permission } else { ErrorKind::ConnectionLost };
    Error::new(kind, format!("connecting to {server}: {error}")).with_source(error)
}

/// The error of an answer that is none to its command.
pub(crate) fn of_answer(answer: &Value, server: &str) -> Error {
    match answer {
        Value::ServerError(error) => of_server(error, server),
        // Not the answer itself, which may be somebody's data.
        _ => Error::new(
            ErrorKind::Unsupported,
            format!("{server} gave an answer of another type than Redis's"),
        ),
    }
}

/// Whether an error says that the connection is of no more use.
pub(crate) fn is_of_connection(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::ConnectionLost | ErrorKind::Timeout)
}

/// The kind of what a server said: the word that begins its error, and the rest.
fn kind_of(code: &str, details: &str) -> ErrorKind {
    match code {
        "NOAUTH" | "WRONGPASS" | "NOPERM" | "DENIED" => ErrorKind::Permission,
        "LOADING" | "BUSY" | "TRYAGAIN" | "CLUSTERDOWN" | "MASTERDOWN" | "NOREPLICAS" => ErrorKind::Busy,
        // The server has become a replica: whoever connects anew may find the one that took its place.
        "READONLY" => ErrorKind::ConnectionLost,
        // Its memory is full, or its disk is and it was told to write nothing then.
        "OOM" | "MISCONF" => ErrorKind::DiskFull,
        "MOVED" | "ASK" | "CROSSSLOT" => ErrorKind::InvalidConfig,
        "ERR" => kind_of_details(details),
        _ => ErrorKind::Statement,
    }
}

/// The kind of an error that has no word of its own, or has it within what a script failed with, as before Redis 7.
fn kind_of_details(details: &str) -> ErrorKind {
    let has = |text| details.contains(text);
    match () {
        () if has("-OOM ") || has("-MISCONF ") => ErrorKind::DiskFull,
        () if has("-READONLY ") => ErrorKind::ConnectionLost,
        () if has("-NOPERM ") || has("The user executing the script") => ErrorKind::Permission,
        () if has("max number of clients") => ErrorKind::Busy,
        () if has("DB index") || has("SELECT is not allowed") || has("cluster support disabled") => {
            ErrorKind::InvalidConfig
        }
        () if has("without any password configured") || has("invalid password") => ErrorKind::Permission,
        () if has("unknown command") || has("unknown subcommand") => ErrorKind::Unsupported,
        () => ErrorKind::Statement,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(line: &str) -> Error {
        let answer = redis::parse_redis_value(format!("-{line}\r\n").as_bytes()).unwrap();
        of_answer(&answer, "Redis at h:1")
    }

    #[test]
    fn what_servers_say_has_a_kind() {
        use ErrorKind::*;
        for (line, kind) in [
            ("NOAUTH Authentication required.", Permission),
            ("WRONGPASS invalid username-password pair or user is disabled.", Permission),
            ("NOPERM this user has no permissions to run the 'get' command", Permission),
            ("ERR The user executing the script can't run this command or subcommand", Permission),
            ("ERR AUTH <password> called without any password configured for the default user.", Permission),
            ("LOADING Redis is loading the dataset in memory", Busy),
            ("BUSY Redis is busy running a script.", Busy),
            ("CLUSTERDOWN Hash slot not served", Busy),
            ("ERR max number of clients reached", Busy),
            ("READONLY You can't write against a read only replica.", ConnectionLost),
            ("OOM command not allowed when used memory > 'maxmemory'.", DiskFull),
            ("MISCONF Redis is configured to save RDB snapshots", DiskFull),
            ("ERR Error running script (call to f_1): @user_script:1: -OOM command not allowed", DiskFull),
            ("ERR Error running script (call to f_1): @user_script:1: -READONLY You can't", ConnectionLost),
            ("MOVED 3999 127.0.0.1:6381", InvalidConfig),
            ("ERR This instance has cluster support disabled", InvalidConfig),
            ("ERR DB index is out of range", InvalidConfig),
            ("ERR unknown command `EVALSHA`, with args beginning with: ", Unsupported),
            ("WRONGTYPE Operation against a key holding the wrong kind of value", Statement),
            ("ERR something else", Statement),
        ] {
            let error = told(line);
            assert_eq!(error.kind(), kind, "{error}");
            assert!(error.code().is_some() && error.message().contains("Redis at h:1"), "{error}");
        }
        assert!(told("MOVED 3999 127.0.0.1:6381").message().contains("redis-cluster://"));
    }
}
