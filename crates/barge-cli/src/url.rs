//! Database URLs, as people type them.

use barge::Database;
use barge::sqlite::SqliteOptions;

use crate::Stop;

/// Stores that are meant to come, and are asked for already.
const STORES_TO_COME: &[&str] = &["postgres", "postgresql", "duckdb"];

/// Opens a database of the command line, to write to it.
pub(crate) async fn open(url: &str) -> Result<Database, Stop> {
    check(url)?;
    Ok(barge::open(url).await?)
}

/// Opens a database only to look into it: one that isn't there is not made.
pub(crate) async fn open_to_look(url: &str) -> Result<Database, Stop> {
    check(url)?;
    Ok(barge::open(&untouched(url)).await?)
}

/// Refuses a URL that no database can have. What it says never repeats more than the scheme and a file's path: a password may stand
/// in the rest.
pub(crate) fn check(url: &str) -> Result<(), Stop> {
    let usage = |message: String| Err(Stop::Usage(message));
    match scheme(url) {
        Some("sqlite") => match SqliteOptions::from_url(url) {
            Ok(_) => Ok(()),
            Err(error) => usage(error.message().to_owned()),
        },
        Some(scheme) if STORES_TO_COME.contains(&scheme) => {
            usage(format!("{scheme}: this store isn't there yet; there is sqlite, as in sqlite:tasks.db"))
        }
        Some(scheme) => {
            usage(format!("{scheme}: there is no such store; there is sqlite, as in sqlite:tasks.db"))
        }
        None if url.is_empty() => usage("the database's URL is empty: write it as in sqlite:tasks.db".into()),
        None => {
            usage(format!("{url} is a path, not a database's URL: write sqlite:{url} for an SQLite file"))
        }
    }
}

/// The scheme of a URL. One letter before a colon is a drive.
fn scheme(url: &str) -> Option<&str> {
    let (scheme, _) = url.split_once(':')?;
    let is_scheme =
        scheme.len() > 1 && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte));
    // A file may have a colon in its name, and then hardly without an ending or a directory before it.
    (is_scheme && !scheme.contains('.')).then_some(scheme)
}

/// The URL with the parameter that leaves the file as it is, and makes none, unless it says itself what to do.
fn untouched(url: &str) -> String {
    let (path, parameters) = url.split_once('?').unwrap_or((url, ""));
    let mut names = parameters.split('&').map(|parameter| parameter.split('=').next().unwrap_or_default());
    match (names.any(|name| ["create", "read_only"].contains(&name)), parameters) {
        (true, _) => url.to_owned(),
        (false, "") => format!("{path}?read_only=true"),
        (false, _) => format!("{url}&read_only=true"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(url: &str) -> String {
        match check(url) {
            Err(Stop::Usage(message)) => message,
            Err(Stop::Failure(error)) => panic!("{url}: {error}"),
            Ok(()) => String::new(),
        }
    }

    #[test]
    fn a_url_that_cannot_be_is_refused_with_what_to_write() {
        assert_eq!(message("sqlite:t.db"), "");
        assert!(message("t.db").ends_with("write sqlite:t.db for an SQLite file"));
        assert!(message("/tmp/x.db").ends_with("write sqlite:/tmp/x.db for an SQLite file"));
        assert!(message("C:\\x.db").contains("sqlite:C:\\x.db"));
        for url in ["postgres://me:secret@host/db", "postgresql://me:secret@host/db", "duckdb:x?key=secret"] {
            let message = message(url);
            assert!(message.contains("isn't there yet") && !message.contains("secret"), "{message}");
        }
        assert!(message("oracle://me:secret@host").starts_with("oracle: there is no such store"));
        assert!(message("sqlite:t.db?colour=red").contains("there is no parameter colour"));
    }

    #[test]
    fn looking_makes_no_file_unless_that_is_asked_for() {
        assert_eq!(untouched("sqlite:a.db"), "sqlite:a.db?read_only=true");
        assert_eq!(untouched("sqlite:a.db?readers=2"), "sqlite:a.db?readers=2&read_only=true");
        assert_eq!(untouched("sqlite:a.db?create=true"), "sqlite:a.db?create=true");
    }
}
