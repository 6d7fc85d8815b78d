//! How a database is opened: its place, its profile, its pragmas.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use barge_core::record::quote;
use barge_core::{Error, ErrorKind, Result};
use rusqlite::OpenFlags;

use crate::SqliteStore;
use crate::connection::Connection;
use crate::error::error_of_rusqlite;

/// The time for which a lock is waited for where nothing else is said.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// The most readers where nothing else is said.
const READERS_MAX: usize = 4;
/// The parameters a URL may have, for messages.
const PARAMETERS: &str = "profile=durable|balanced|fast, busy_timeout=5s, readers=N, create=true|false, read_only=true|false, attach.SCHEMA=PATH, pragma.NAME=VALUE";

/// What a commit survives, and what it costs. Every pragma it sets can be set otherwise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Profile {
    /// Every commit is on disk when it returns: it survives a power failure. Write-ahead log, `synchronous = FULL`.
    Durable,
    /// Commits survive the end of the process at any point; a power failure may lose the last ones, and never damages the
    /// file. Write-ahead log, `synchronous = NORMAL`. The default.
    #[default]
    Balanced,
    /// Nothing is synced: a power failure may damage the file. For loads that can be repeated from the start.
    /// Write-ahead log, `synchronous = OFF`.
    Fast,
}

/// How to open a database.
///
/// ```no_run
/// use std::time::Duration;
///
/// use barge_sqlite::{Profile, SqliteOptions};
///
/// # async fn open() -> barge_core::Result<()> {
/// let store = SqliteOptions::file("tasks.db")
///     .profile(Profile::Durable)
///     .busy_timeout(Duration::from_secs(30))
///     .pragma("cache_size", "-16000")
///     .open()
///     .await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SqliteOptions {
    /// `None` for a database in memory.
    path: Option<PathBuf>,
    profile: Profile,
    busy_timeout: Duration,
    readers: usize,
    create: bool,
    read_only: bool,
    attached: Vec<(String, PathBuf)>,
    pragmas: BTreeMap<String, String>,
}

impl SqliteOptions {
    /// A database in a file, which is created where it is missing.
    pub fn file(path: impl Into<PathBuf>) -> Self {
        SqliteOptions { path: Some(path.into()), ..SqliteOptions::memory() }
    }

    /// A new database in memory, which ends with the store.
    pub fn memory() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        SqliteOptions {
            path: None,
            profile: Profile::default(),
            busy_timeout: BUSY_TIMEOUT,
            readers: cores.min(READERS_MAX),
            create: true,
            read_only: false,
            attached: Vec::new(),
            pragmas: BTreeMap::new(),
        }
    }

    /// Options from a URL: `sqlite:PATH`, `sqlite://PATH` or `sqlite::memory:`, with settings as query parameters:
    /// `sqlite:tasks.db?profile=durable&busy_timeout=500ms&pragma.cache_size=-16000`. A `%` and two hexadecimal digits stand
    /// for a byte, so that a path may hold `?` and `%`.
    ///
    /// # Errors
    /// `InvalidConfig`, naming what is wrong and the parameters there are.
    pub fn from_url(url: &str) -> Result<Self> {
        let invalid = |message: String| Error::new(ErrorKind::InvalidConfig, format!("{url}: {message}"));
        let rest = url.strip_prefix("sqlite:").ok_or_else(|| {
            invalid("an SQLite URL begins with sqlite:, as in sqlite:tasks.db or sqlite::memory:".into())
        })?;
        let (place, parameters) = rest.split_once('?').unwrap_or((rest, ""));
        let place = place.strip_prefix("//").unwrap_or(place);
        let mut options = match place {
            ":memory:" => SqliteOptions::memory(),
            "" => {
                return Err(invalid("the path is missing, as in sqlite:tasks.db or sqlite::memory:".into()));
            }
            path => SqliteOptions::file(decoded(path).ok_or_else(|| invalid(MALFORMED.into()))?),
        };
        for parameter in parameters.split('&').filter(|parameter| !parameter.is_empty()) {
            let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            let value = decoded(value).ok_or_else(|| invalid(MALFORMED.into()))?;
            options = options.with_parameter(name, &value).map_err(&invalid)?;
        }
        Ok(options)
    }

    fn with_parameter(self, name: &str, value: &str) -> Result<Self, String> {
        let wrong = |expected: &str| format!("{name}={value}: expected {expected}");
        Ok(match name {
            "profile" => self.profile(match value {
                "durable" => Profile::Durable,
                "balanced" => Profile::Balanced,
                "fast" => Profile::Fast,
                _ => return Err(wrong("durable, balanced or fast")),
            }),
            "busy_timeout" => {
                self.busy_timeout(duration(value).ok_or_else(|| wrong("a time such as 5s or 500ms"))?)
            }
            "readers" => self.readers(value.parse().map_err(|_| wrong("a number"))?),
            "read_only" => self.read_only(value.parse().map_err(|_| wrong("true or false"))?),
            "create" => self.create(value.parse().map_err(|_| wrong("true or false"))?),
            _ => match (name.strip_prefix("pragma."), name.strip_prefix("attach.")) {
                (Some(name), _) if is_pragma_name(name) => self.pragma(name, value),
                (_, Some(schema)) if !schema.is_empty() => self.attach(schema, value),
                _ => return Err(format!("there is no parameter {name}; there are {PARAMETERS}")),
            },
        })
    }

    /// What a commit survives. Defaults to [`Profile::Balanced`].
    #[must_use]
    pub fn profile(mut self, profile: Profile) -> Self {
        self.profile = profile;
        self
    }

    /// How long to wait for a lock that another connection or transaction holds, before the call fails with `Busy`. Defaults
    /// to 5 seconds; zero waits not at all.
    #[must_use]
    pub fn busy_timeout(mut self, timeout: Duration) -> Self {
        self.busy_timeout = timeout;
        self
    }

    /// The most connections that read beside the one that writes, each on a thread of its own, started when needed. At least 1;
    /// defaults to the number of cores, at most 4. A database in memory has one connection, which also reads.
    #[must_use]
    pub fn readers(mut self, readers: usize) -> Self {
        self.readers = readers.max(1);
        self
    }

    /// Whether a missing file is created. Defaults to true.
    #[must_use]
    pub fn create(mut self, create: bool) -> Self {
        self.create = create;
        self
    }

    /// Whether the file is left as it is: it must be there, its journal mode isn't changed, and what would write fails with `Permission`.
    /// Defaults to false.
    #[must_use]
    pub fn read_only(mut self, read_only: bool) -> Self {
        self.read_only = read_only;
        self
    }

    /// Attaches another database file as a schema, so that its tables are `schema.name`.
    #[must_use]
    pub fn attach(mut self, schema: impl Into<String>, path: impl Into<PathBuf>) -> Self {
        self.attached.push((schema.into(), path.into()));
        self
    }

    /// Sets a pragma on every connection, after those of the profile: a number or a word. `foreign_keys` is on unless it
    /// is set here.
    #[must_use]
    pub fn pragma(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.pragmas.insert(name.into().to_ascii_lowercase(), value.into());
        self
    }

    /// Opens the database.
    ///
    /// # Errors
    /// `Io` or `Permission` where the file can't be opened or is no database, naming it; `Busy` where another process holds its
    /// lock for longer than the busy timeout; `InvalidConfig` for a pragma that SQLite doesn't take.
    pub async fn open(self) -> Result<SqliteStore> {
        SqliteStore::with_options(self).await
    }

    pub(crate) fn in_memory(&self) -> bool {
        self.path.is_none()
    }

    pub(crate) fn lock_wait(&self) -> Duration {
        self.busy_timeout
    }

    /// Whether foreign keys are enforced.
    pub(crate) fn foreign_keys(&self) -> bool {
        let set = self.pragmas.get("foreign_keys").map(|value| value.to_ascii_lowercase());
        set.is_none_or(|value| matches!(value.as_str(), "on" | "1" | "true" | "yes"))
    }

    pub(crate) fn readers_max(&self) -> usize {
        self.readers
    }

    /// What messages call the database.
    pub(crate) fn name(&self) -> String {
        match &self.path {
            Some(path) => path.display().to_string(),
            None => "the database in memory".into(),
        }
    }

    /// Opens a connection: the one that writes, or one that only reads.
    pub(crate) fn connect(&self, access: Access) -> Result<Connection> {
        let name = self.name();
        let access = if self.read_only { Access::Read } else { access };
        let inner = match &self.path {
            Some(path) => self.open_file(path, access)?,
            None => {
                rusqlite::Connection::open_in_memory().map_err(|error| error_of_rusqlite(error, &name))?
            }
        };
        let milliseconds = self.busy_timeout.min(Duration::from_millis(i32::MAX as u64));
        inner.busy_timeout(milliseconds).map_err(|error| error_of_rusqlite(error, &name))?;
        self.set_pragmas(&inner, access).map_err(|error| error.context(format!("opening {name}")))?;
        Ok(Connection::new(inner, name, self.busy_timeout))
    }

    fn open_file(&self, path: &Path, access: Access) -> Result<rusqlite::Connection> {
        let mut flags = OpenFlags::SQLITE_OPEN_NO_MUTEX;
        flags |= match self.read_only {
            true => OpenFlags::SQLITE_OPEN_READ_ONLY,
            false => OpenFlags::SQLITE_OPEN_READ_WRITE,
        };
        if self.create && access == Access::Write {
            flags |= OpenFlags::SQLITE_OPEN_CREATE;
        }
        let shown = path.display();
        let fail = |kind, message: String| Err(Error::new(kind, message));
        if path.is_dir() {
            return fail(ErrorKind::Io, format!("{shown} is a directory, not a database file"));
        }
        if let Some(parent) =
            path.parent().filter(|parent| !parent.as_os_str().is_empty() && !parent.is_dir())
        {
            let message = format!("{shown} can't be opened: there is no directory {}", parent.display());
            return fail(ErrorKind::Io, message);
        }
        if (self.read_only || !self.create) && !path.exists() {
            return fail(ErrorKind::Io, format!("{shown} does not exist, and creating it was not allowed"));
        }
        // A name that begins with a colon would mean something else to SQLite.
        let path = if path.is_relative() { Path::new(".").join(path) } else { path.to_owned() };
        rusqlite::Connection::open_with_flags(&path, flags)
            .map_err(|error| error_of_rusqlite(error, &shown.to_string()))
    }

    fn set_pragmas(&self, connection: &rusqlite::Connection, access: Access) -> Result<()> {
        for (schema, path) in &self.attached {
            let path = path.to_string_lossy();
            connection
                .execute(&format!("ATTACH ?1 AS {}", quote(schema)), [&path])
                .map_err(|error| error_of_rusqlite(error, &path))?;
        }
        let mut pragmas: BTreeMap<&str, &str> = self.default_pragmas().into_iter().collect();
        pragmas.extend(self.pragmas.iter().map(|(name, value)| (name.as_str(), value.as_str())));
        // The page size can be chosen only before the journal is.
        if let Some(value) = pragmas.remove("page_size") {
            self.set_pragma(connection, "page_size", value)?;
        }
        if let Some(mode) = pragmas.remove("journal_mode")
            && access == Access::Write
        {
            self.set_journal_mode(connection, mode)?;
        }
        for (name, value) in pragmas {
            self.set_pragma(connection, name, value)?;
        }
        if access == Access::Read {
            self.set_pragma(connection, "query_only", "ON")?;
        }
        Ok(())
    }

    /// The pragmas of the profile, and those that bulk writes are faster with (measured: 1,000,000 rows by random keys).
    fn default_pragmas(&self) -> Vec<(&'static str, &'static str)> {
        let synchronous = match self.profile {
            Profile::Durable => "FULL",
            Profile::Balanced => "NORMAL",
            Profile::Fast => "OFF",
        };
        vec![
            ("journal_mode", if self.in_memory() { "MEMORY" } else { "WAL" }),
            ("synchronous", synchronous),
            ("foreign_keys", "ON"),
            ("temp_store", "MEMORY"),
            // 32 MiB, taken only as pages are read.
            ("cache_size", "-32768"),
            // 16 MiB of log before pages are moved to the file: a page that many commits change moves once.
            ("wal_autocheckpoint", "4096"),
            // A log that a long reader let grow is cut to 64 MiB when it starts again.
            ("journal_size_limit", "67108864"),
        ]
    }

    /// Sets the journal mode of every database. Another process that opens the file at the same moment makes this `Busy`, and SQLite
    /// doesn't wait here by itself.
    fn set_journal_mode(&self, connection: &rusqlite::Connection, mode: &str) -> Result<()> {
        let deadline = Instant::now() + self.busy_timeout;
        loop {
            match self.set_pragma(connection, "journal_mode", mode) {
                Err(error) if error.kind() == ErrorKind::Busy && Instant::now() < deadline => {
                    std::thread::sleep(Duration::from_millis(2));
                }
                result => return result,
            }
        }
    }

    fn set_pragma(&self, connection: &rusqlite::Connection, name: &str, value: &str) -> Result<()> {
        let plain = |text: &str| {
            let text = text.strip_prefix('-').unwrap_or(text);
            !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
        };
        if !is_pragma_name(name) || !plain(value) {
            let message = format!("pragma {name} = {value}: a pragma's value is a number or a word");
            return Err(Error::new(ErrorKind::InvalidConfig, message));
        }
        let run = || {
            let mut statement = connection.prepare(&format!("PRAGMA {name} = {value}"))?;
            let mut rows = statement.query([])?;
            while rows.next()?.is_some() {}
            Ok(())
        };
        run().map_err(|error: rusqlite::Error| error_of_rusqlite(error, &self.name()))
    }
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Profile::Durable => "durable",
            Profile::Balanced => "balanced",
            Profile::Fast => "fast",
        })
    }
}

/// What a connection may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    Write,
    Read,
}

const MALFORMED: &str = "a % must be followed by two hexadecimal digits, and the bytes must be UTF-8";

fn is_pragma_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [byte, tail @ ..] = rest {
        rest = tail;
        if *byte != b'%' {
            bytes.push(*byte);
            continue;
        }
        let [high, low, tail @ ..] = rest else { return None };
        let digit = |byte: u8| (byte as char).to_digit(16);
        bytes.push((digit(*high)? * 16 + digit(*low)?) as u8);
        rest = tail;
    }
    String::from_utf8(bytes).ok()
}

fn duration(text: &str) -> Option<Duration> {
    let (number, unit) = match text.strip_suffix("ms") {
        Some(number) => (number, 1),
        None => (text.strip_suffix('s')?, 1_000),
    };
    Some(Duration::from_millis(number.parse::<u64>().ok()?.checked_mul(unit)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_gives_path_and_settings() {
        let options = SqliteOptions::from_url(
            "sqlite:a%3Fb/c.db?profile=durable&busy_timeout=500ms&readers=2&create=false&pragma.cache_size=-16000",
        );
        let expected = SqliteOptions::file("a?b/c.db")
            .profile(Profile::Durable)
            .busy_timeout(Duration::from_millis(500))
            .readers(2)
            .create(false)
            .pragma("cache_size", "-16000");
        assert_eq!(options.unwrap(), expected);
        assert_eq!(SqliteOptions::from_url("sqlite:///tmp/a.db").unwrap(), SqliteOptions::file("/tmp/a.db"));
        assert!(SqliteOptions::from_url("sqlite::memory:").unwrap().in_memory());
    }

    #[test]
    fn a_wrong_url_says_what_is_wrong_and_what_there_is() {
        for (url, part) in [
            ("sqlite:a.db?cache=5", "there is no parameter cache; there are profile="),
            ("sqlite:a.db?profile=quick", "expected durable, balanced or fast"),
            ("sqlite:a.db?busy_timeout=5", "a time such as 5s"),
            ("sqlite:", "the path is missing"),
            ("postgres:x", "begins with sqlite:"),
            ("sqlite:a%zz", "hexadecimal"),
        ] {
            let error = SqliteOptions::from_url(url).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidConfig);
            assert!(error.message().contains(part), "{error}");
        }
    }

    #[test]
    fn a_pragma_cannot_carry_a_statement() {
        let error = SqliteOptions::memory().pragma("cache_size", "1; DROP TABLE t").connect(Access::Write);
        assert_eq!(error.err().unwrap().kind(), ErrorKind::InvalidConfig);
    }
}
