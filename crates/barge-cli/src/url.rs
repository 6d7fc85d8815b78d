//! Database URLs, as people type them.

use barge::Database;
#[cfg(feature = "duckdb")]
use barge::duckdb::DuckDbOptions;
use barge::postgres::PostgresOptions;
use barge::sqlite::SqliteOptions;

use crate::Stop;
use crate::args::BatchLimits;

/// What to write, in messages.
#[cfg(not(feature = "duckdb"))]
const STORES: &str =
    "there are sqlite, as in sqlite:tasks.db, and postgres, as in postgres://user@host/database";
#[cfg(feature = "duckdb")]
const STORES: &str = "there are sqlite, as in sqlite:tasks.db, duckdb, as in duckdb:market.duckdb, and postgres, as in postgres://user@host/database";

/// Connections beside those that write: one for questions about tables.
const CONNECTIONS_BESIDE: usize = 1;

/// A URL that a database can have.
#[derive(Clone)]
pub(crate) enum Url {
    Sqlite(String),
    #[cfg(feature = "duckdb")]
    DuckDb(String),
    /// The options, and whether the URL says how many connections there may be.
    Postgres(Box<PostgresOptions>, Option<usize>),
}

impl Url {
    /// Reads a URL; opens nothing.
    ///
    /// # Errors
    /// `Usage` for one that no database can have. What it says never repeats more than the scheme and a file's path: a password may
    /// stand in the rest.
    pub(crate) fn parse(url: &str) -> Result<Self, Stop> {
        let usage = |message: String| Err(Stop::Usage(message));
        match scheme(url) {
            Some("sqlite") => match SqliteOptions::from_url(url) {
                Ok(_) => Ok(Url::Sqlite(url.to_owned())),
                Err(error) => usage(error.message().to_owned()),
            },
            Some("postgres" | "postgresql") => match PostgresOptions::from_url(url) {
                Ok(options) => Ok(Url::Postgres(Box::new(options), pool_size(url))),
                Err(error) => usage(error.message().to_owned()),
            },
            #[cfg(feature = "duckdb")]
            Some("duckdb") => match DuckDbOptions::from_url(url) {
                Ok(_) => Ok(Url::DuckDb(url.to_owned())),
                Err(error) => usage(error.message().to_owned()),
            },
            #[cfg(not(feature = "duckdb"))]
            Some("duckdb") => usage(format!(
                "duckdb: this program was built without it, with the feature `duckdb` it has it; {STORES}"
            )),
            Some(scheme) => usage(format!("{scheme}: there is no such store; {STORES}")),
            None if url.is_empty() => usage(format!("the database's URL is empty; {STORES}")),
            None => {
                usage(format!("{url} is a path, not a database's URL: write sqlite:{url} for an SQLite file"))
            }
        }
    }

    /// Over how many connections rows may be written at a time, where so many are asked for, and they come from another database, if they do.
    ///
    /// # Errors
    /// `Usage` where the store has one only.
    #[cfg_attr(not(feature = "duckdb"), expect(unused_variables, reason = "only DuckDB minds the source"))]
    pub(crate) fn connections(&self, asked: Option<usize>, source: Option<&Url>) -> Result<usize, Stop> {
        match (self, asked) {
            (Url::Sqlite(_), None | Some(1)) => Ok(1),
            (Url::Sqlite(_), Some(_)) => Err(Stop::Usage(
                "--connections: SQLite has one writer at a time; leave the option out".into(),
            )),
            (Url::Postgres(..), Some(asked)) => Ok(asked),
            // The source is opened first, and the two share an instance, whose settings are those of a reader.
            #[cfg(feature = "duckdb")]
            (Url::DuckDb(own), asked) if matches!(source, Some(Url::DuckDb(other)) if is_same_database(own, other)) => {
                match asked {
                    None | Some(1) => Ok(1),
                    Some(_) => Err(Stop::Usage(
                        "--connections: within one DuckDB file, rows are read and written by one instance, which writes over one \
                         connection; leave the option out"
                            .into(),
                    )),
                }
            }
            #[cfg(feature = "duckdb")]
            (Url::DuckDb(_), asked) => Ok(asked.unwrap_or_else(duckdb_connections)),
            (Url::Postgres(_, most), None) => {
                Ok(default_connections().min(most.unwrap_or(usize::MAX)).max(1))
            }
        }
    }

    /// How large a batch becomes where nothing else is said. Measured on SQLite and PostgreSQL: from 5,000 to 50,000 rows the speed is the same
    /// within a few percent. DuckDB writes whole row groups past its log.
    pub(crate) fn batch_limits(&self) -> BatchLimits {
        match self {
            #[cfg(feature = "duckdb")]
            Url::DuckDb(_) => BatchLimits { rows: 122_880, bytes: 64 << 20 },
            Url::Sqlite(_) | Url::Postgres(..) => BatchLimits { rows: 10_000, bytes: 8 << 20 },
        }
    }

    /// Opens the database, to write over so many connections.
    pub(crate) async fn open(self, connections: usize) -> Result<Database, Stop> {
        Ok(match self {
            Url::Sqlite(url) => barge::open(&url).await?,
            #[cfg(feature = "duckdb")]
            Url::DuckDb(url) => {
                let options = DuckDbOptions::from_url(&url)?.writers(connections);
                // A connection's thread waits awake for DuckDB's own, and takes a core from the other connections.
                let options = match options.setting("threads") {
                    None if connections > 1 => options.set("threads", "1"),
                    _ => options,
                };
                Database::new(options.open().await?)
            }
            Url::Postgres(options, most) => {
                let options = match most {
                    Some(most) if most >= connections => *options,
                    _ => options.pool_size(connections + CONNECTIONS_BESIDE),
                };
                Database::new(options.open().await?)
            }
        })
    }

    /// Opens the database only to look into it: one that isn't there is not made.
    pub(crate) async fn open_to_look(self) -> Result<Database, Stop> {
        self.open_to_look_beside(None).await
    }

    /// The same, where another database is written meanwhile, which may be this one.
    #[cfg_attr(not(feature = "duckdb"), expect(unused_variables, reason = "only DuckDB minds"))]
    pub(crate) async fn open_to_look_beside(self, written: Option<&Url>) -> Result<Database, Stop> {
        Ok(match self {
            Url::Sqlite(url) => barge::open(&with_parameter(&url, "read_only=true")).await?,
            // In one process, a file of DuckDB's is open for writing to everybody or to nobody.
            #[cfg(feature = "duckdb")]
            Url::DuckDb(url) => match written {
                Some(Url::DuckDb(other)) if is_same_database(&url, other) => {
                    barge::open(&with_parameter(&url, "create=false")).await?
                }
                // One in memory is as new, and has nothing that could be changed.
                _ if DuckDbOptions::from_url(&url)?.path().is_none() => barge::open(&url).await?,
                _ => barge::open(&with_parameter(&url, "read_only=true")).await?,
            },
            Url::Postgres(options, _) => Database::new(options.open().await?),
        })
    }
}

/// Whether two URLs name one file that is there.
#[cfg(feature = "duckdb")]
fn is_same_database(left: &str, right: &str) -> bool {
    let (Ok(left), Ok(right)) = (DuckDbOptions::from_url(left), DuckDbOptions::from_url(right)) else {
        return false;
    };
    left.path().zip(right.path()).is_some_and(|(left, right)| crate::query::is_same_file(left, right))
}

/// The connections of a load where nothing else is said: one for each core, for the server is seldom on a smaller machine, and one that waits
/// for its commit meanwhile; but not so many that others would feel it. Measured on two cores with the server beside: one connection is as
/// fast as `psql \copy`, two and three take about three quarters of its time, and four no less.
fn default_connections() -> usize {
    const MAX: usize = 4;
    std::thread::available_parallelism().map_or(1, usize::from).saturating_add(1).min(MAX)
}

/// The same for DuckDB, whose inserts keep a core busy for each connection. Measured on two cores with 1,000,000 rows of CSV and a key: two connections
/// take 0.7 times the time of one where DuckDB has one thread, and 0.86 times where it has more; three take 0.75 times.
#[cfg(feature = "duckdb")]
fn duckdb_connections() -> usize {
    const MAX: usize = 4;
    std::thread::available_parallelism().map_or(1, usize::from).min(MAX)
}

/// The number of connections that a PostgreSQL URL allows, where it says one.
fn pool_size(url: &str) -> Option<usize> {
    let (_, parameters) = url.split_once('?')?;
    // Of two, the later one counts.
    let size = parameters.rsplit('&').find_map(|parameter| parameter.strip_prefix("pool_size="));
    size?.parse().ok()
}

/// The scheme of a URL. One letter before a colon is a drive.
fn scheme(url: &str) -> Option<&str> {
    let (scheme, _) = url.split_once(':')?;
    let is_scheme =
        scheme.len() > 1 && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte));
    // A file may have a colon in its name, and then hardly without an ending or a directory before it.
    (is_scheme && !scheme.contains('.')).then_some(scheme)
}

/// The URL with a parameter that has no file made, unless it says itself what to do.
fn with_parameter(url: &str, parameter: &str) -> String {
    let (path, parameters) = url.split_once('?').unwrap_or((url, ""));
    let mut names = parameters.split('&').map(|parameter| parameter.split('=').next().unwrap_or_default());
    match (names.any(|name| ["create", "read_only"].contains(&name)), parameters) {
        (true, _) => url.to_owned(),
        (false, "") => format!("{path}?{parameter}"),
        (false, _) => format!("{url}&{parameter}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(url: &str) -> String {
        match Url::parse(url) {
            Err(Stop::Usage(message)) => message,
            Err(Stop::Failure(error)) => panic!("{url}: {error}"),
            Ok(_) => String::new(),
        }
    }

    #[test]
    fn a_url_that_cannot_be_is_refused_with_what_to_write() {
        for url in ["sqlite:t.db", "postgres://", "postgresql://me:secret@host/db?sslmode=require"] {
            assert_eq!(message(url), "");
        }
        assert!(message("t.db").ends_with("write sqlite:t.db for an SQLite file"));
        assert!(message("/tmp/x.db").ends_with("write sqlite:/tmp/x.db for an SQLite file"));
        assert!(message("C:\\x.db").contains("sqlite:C:\\x.db"));
        assert!(message("sqlite:t.db?colour=red").contains("there is no parameter colour"));
        for (url, expected) in [
            ("oracle://me:secret@host", "oracle: there is no such store; there are sqlite"),
            ("", "and postgres, as in postgres://user@host/database"),
            ("postgres:me:secret@host", "it begins with postgres:// or postgresql://"),
            ("postgres://me:secret@host/db?colour=red", "there is no parameter colour"),
            ("postgres://host/db?colour=red&password=secret", "a parameter isn't known"),
            ("postgres://me:sec/secret@host/db", "there is an @ after the host"),
            ("postgres://me:secret@host:port/db", "port"),
        ] {
            let message = message(url);
            assert!(message.contains(expected) && !message.contains("secret"), "{url}: {message}");
        }
    }

    #[test]
    fn duckdb_is_there_where_it_was_built_in() {
        let message = message("duckdb:x?key=secret");
        let expected = if cfg!(feature = "duckdb") {
            "there is no parameter key"
        } else {
            "with the feature `duckdb` it has it"
        };
        assert!(message.contains(expected), "{message}");
        #[cfg(feature = "duckdb")]
        assert!(Url::parse("duckdb:market.duckdb?set.threads=2").is_ok());
    }

    #[test]
    fn connections_are_what_is_asked_for_or_what_the_url_allows() {
        let connections = |url: &str, asked| {
            let Ok(url) = Url::parse(url) else { panic!("{url}") };
            url.connections(asked, None).map_err(|_| ())
        };
        assert_eq!(connections("sqlite:t.db", None), Ok(1));
        assert_eq!(connections("sqlite:t.db", Some(2)), Err(()));
        assert!((2..=4).contains(&connections("postgres://h/d", None).unwrap()));
        assert_eq!(connections("postgres://h/d?pool_size=1&sslmode=disable", None), Ok(1));
        assert_eq!(connections("postgres://h/d?pool_size=1", Some(3)), Ok(3));
    }

    #[test]
    fn looking_makes_no_file_unless_that_is_asked_for() {
        assert_eq!(with_parameter("sqlite:a.db", "read_only=true"), "sqlite:a.db?read_only=true");
        assert_eq!(
            with_parameter("sqlite:a.db?readers=2", "read_only=true"),
            "sqlite:a.db?readers=2&read_only=true"
        );
        assert_eq!(with_parameter("sqlite:a.db?create=true", "read_only=true"), "sqlite:a.db?create=true");
    }
}
