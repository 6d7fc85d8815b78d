//! How a database is opened: its place and its settings.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use barge_core::{Error, ErrorKind, Result};

use crate::DuckDbStore;
use crate::connection::Connection;
use crate::error::error_of;
use crate::raw::{Database, Handle};

/// The time for which another transaction is waited for where nothing else is said.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// The most connections that read where nothing else is said.
const READERS_MAX: usize = 4;
/// The parameters a URL may have, for messages.
const PARAMETERS: &str =
    "busy_timeout=5s, readers=N, writers=N, create=true|false, read_only=true|false, set.NAME=VALUE";
const MALFORMED: &str = "a % must be followed by two hexadecimal digits";

/// How to open a database.
///
/// ```no_run
/// use std::time::Duration;
///
/// use barge_duckdb::DuckDbOptions;
///
/// # async fn open() -> barge_core::Result<()> {
/// let store = DuckDbOptions::file("market.duckdb")
///     .busy_timeout(Duration::from_secs(30))
///     .set("memory_limit", "4GB")
///     .open()
///     .await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DuckDbOptions {
    /// `None` for a database in memory.
    path: Option<PathBuf>,
    busy_timeout: Duration,
    readers: usize,
    writers: usize,
    create: bool,
    read_only: bool,
    settings: BTreeMap<String, String>,
}

impl DuckDbOptions {
    /// A database in a file, which is created where it is missing.
    pub fn file(path: impl Into<PathBuf>) -> Self {
        DuckDbOptions { path: Some(path.into()), ..DuckDbOptions::memory() }
    }

    /// A new database in memory, which ends with the store.
    pub fn memory() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        DuckDbOptions {
            path: None,
            busy_timeout: BUSY_TIMEOUT,
            readers: cores.min(READERS_MAX),
            writers: 1,
            create: true,
            read_only: false,
            settings: BTreeMap::new(),
        }
    }

    /// Options from a URL: `duckdb:PATH`, `duckdb://PATH` or `duckdb::memory:`, with settings as query parameters:
    /// `duckdb:market.duckdb?busy_timeout=500ms&set.memory_limit=4GB`. A `%` and two hexadecimal digits stand for a byte, so that a
    /// path may hold `?` and `%`.
    ///
    /// # Errors
    /// `InvalidConfig`, naming what is wrong and the parameters there are.
    pub fn from_url(url: &str) -> Result<Self> {
        let invalid = |message: String| Error::new(ErrorKind::InvalidConfig, format!("{url}: {message}"));
        let rest = url.strip_prefix("duckdb:").ok_or_else(|| {
            invalid("a DuckDB URL begins with duckdb:, as in duckdb:market.duckdb or duckdb::memory:".into())
        })?;
        let (place, parameters) = rest.split_once('?').unwrap_or((rest, ""));
        let mut options = match place.strip_prefix("//").unwrap_or(place) {
            ":memory:" => DuckDbOptions::memory(),
            "" => {
                let message = "the path is missing, as in duckdb:market.duckdb or duckdb::memory:";
                return Err(invalid(message.into()));
            }
            path => DuckDbOptions::file(decoded(path).ok_or_else(|| invalid(MALFORMED.into()))?),
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
            "busy_timeout" => {
                self.busy_timeout(duration(value).ok_or_else(|| wrong("a time such as 5s or 500ms"))?)
            }
            "readers" => self.readers(value.parse().map_err(|_| wrong("a number"))?),
            "writers" => self.writers(value.parse().map_err(|_| wrong("a number"))?),
            "read_only" => self.read_only(value.parse().map_err(|_| wrong("true or false"))?),
            "create" => self.create(value.parse().map_err(|_| wrong("true or false"))?),
            _ => match name.strip_prefix("set.") {
                Some(setting) if !setting.is_empty() => self.set(setting, value),
                _ => return Err(format!("there is no parameter {name}; there are {PARAMETERS}")),
            },
        })
    }

    /// How long to wait until the transaction that is open has ended, before a call fails with `Busy`. Defaults to 5 seconds; zero
    /// waits not at all.
    #[must_use]
    pub fn busy_timeout(mut self, timeout: Duration) -> Self {
        self.busy_timeout = timeout;
        self
    }

    /// The most connections that read beside those that write, opened when needed. At least 1; defaults to the number of cores,
    /// at most 4. DuckDB itself spreads a query over cores.
    #[must_use]
    pub fn readers(mut self, readers: usize) -> Self {
        self.readers = readers.max(1);
        self
    }

    /// How many transactions that only insert may write at the same time, each over a connection of its own. Anything else that writes goes alone,
    /// after those before it. A writer sends its flushes side by side only where it was told that their order doesn't matter
    /// (`WriterBuilder::unordered`). Two inserts of one key may conflict then: one fails with `SerializationFailure`, which is retryable, or is refused.
    /// At least 1; defaults to 1.
    #[must_use]
    pub fn writers(mut self, writers: usize) -> Self {
        self.writers = writers.max(1);
        self
    }

    /// Whether a missing file is created. Defaults to true.
    #[must_use]
    pub fn create(mut self, create: bool) -> Self {
        self.create = create;
        self
    }

    /// Whether the file is left as it is: it must be there, and what would write fails with `Permission`. Several processes may have a
    /// file open at a time if all of them say so. Defaults to false.
    #[must_use]
    pub fn read_only(mut self, read_only: bool) -> Self {
        self.read_only = read_only;
        self
    }

    /// Sets one of DuckDB's own settings for the whole database, such as `threads` or `memory_limit`.
    #[must_use]
    pub fn set(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.settings.insert(name.into().to_ascii_lowercase(), value.into());
        self
    }

    /// Opens the database. A file that this process has open already is shared: DuckDB allows one instance of a file.
    ///
    /// # Errors
    /// `Busy` where another process has the file open, naming it and, where it is known, the process; `Io` or `Permission` where the file
    /// can't be opened or is no database; `InvalidConfig` for a setting that DuckDB doesn't take, or where the file is open already
    /// with other settings.
    pub async fn open(self) -> Result<DuckDbStore> {
        DuckDbStore::with_options(self).await
    }

    /// The file; `None` for a database in memory.
    pub fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    /// One of DuckDB's own settings, where it was given.
    pub fn setting(&self, name: &str) -> Option<&str> {
        self.settings.get(&name.to_ascii_lowercase()).map(String::as_str)
    }

    pub(crate) fn lock_wait(&self) -> Duration {
        self.busy_timeout
    }

    pub(crate) fn readers_max(&self) -> usize {
        self.readers
    }

    pub(crate) fn writers_max(&self) -> usize {
        self.writers
    }

    /// What messages call the database.
    pub(crate) fn name(&self) -> String {
        match &self.path {
            Some(path) => path.display().to_string(),
            None => "the database in memory".into(),
        }
    }

    /// Opens the instance.
    pub(crate) fn instance(&self) -> Result<Instance> {
        let path = self.path.as_deref().map(|path| self.checked(path)).transpose()?;
        let mut settings: Vec<(String, String)> =
            self.settings.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
        if self.read_only {
            settings.push(("access_mode".into(), "READ_ONLY".into()));
        }
        let name = self.name();
        let database = Database::open(path.as_deref(), &settings).map_err(|failure| {
            let is_setting =
                ["setting", "option", "configuration"].iter().any(|word| failure.0.contains(word));
            let error = error_of(failure, &name);
            match error.kind() {
                ErrorKind::Statement if is_setting => {
                    let message = error.message().to_owned();
                    Error::new(ErrorKind::InvalidConfig, message).with_source(error)
                }
                ErrorKind::Statement => {
                    Error::new(ErrorKind::Io, error.message().to_owned()).with_source(error)
                }
                _ => error,
            }
            .context(format!("opening {name}"))
        })?;
        Ok(Instance { database: Arc::new(database), name: name.into() })
    }

    /// The file's one path, however it is written: DuckDB shares an instance by its path.
    fn checked(&self, path: &Path) -> Result<PathBuf> {
        let shown = path.display();
        let fail = |message: String| Err(Error::new(ErrorKind::Io, message));
        if path.is_dir() {
            return fail(format!("{shown} is a directory, not a database file"));
        }
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        if !parent.is_dir() {
            return fail(format!("{shown} can't be opened: there is no directory {}", parent.display()));
        }
        if (self.read_only || !self.create) && !path.exists() {
            return fail(format!("{shown} does not exist, and creating it was not allowed"));
        }
        if path.to_str().is_none() {
            return fail(format!("{shown} can't be opened: DuckDB takes names in UTF-8 only"));
        }
        if let Some(other) = other_format(path)? {
            return fail(format!("{shown} is no DuckDB database{other}"));
        }
        let canonical = match (path.canonicalize(), path.file_name()) {
            (Ok(path), _) => path,
            (Err(_), Some(name)) => parent.canonicalize()?.join(name),
            (Err(error), None) => return Err(error.into()),
        };
        Ok(canonical)
    }
}

/// What to say of a file that is there and no database of DuckDB's. DuckDB itself would look for an extension that reads it, on the network too.
fn other_format(path: &Path) -> Result<Option<&'static str>> {
    const MARK: std::ops::Range<usize> = 8..12;
    if !path.is_file() {
        return Ok(None);
    }
    let mut head = Vec::new();
    std::fs::File::open(path)?.take(16).read_to_end(&mut head)?;
    Ok(match &head[..] {
        head if head.get(MARK) == Some(b"DUCK") => None,
        b"SQLite format 3\0" => Some(": it is one of SQLite's, whose URL begins with sqlite:"),
        _ => Some(""),
    })
}

/// An open instance, from which connections come.
pub(crate) struct Instance {
    pub(crate) database: Arc<Database>,
    /// What messages call the database.
    pub(crate) name: Arc<str>,
}

impl Instance {
    pub(crate) fn connect(self: &Arc<Self>) -> Result<Connection> {
        let handle = Handle::connect(&self.database).map_err(|failure| error_of(failure, &self.name))?;
        Connection::new(handle, Arc::clone(self))
    }
}

/// A time such as `5s` or `500ms`.
fn duration(text: &str) -> Option<Duration> {
    let number = |digits: &str| digits.parse::<u64>().ok();
    match (text.strip_suffix("ms"), text.strip_suffix('s')) {
        (Some(digits), _) => number(digits).map(Duration::from_millis),
        (None, Some(digits)) => number(digits).map(Duration::from_secs),
        (None, None) => None,
    }
}

/// Text in which `%` and two hexadecimal digits stand for a byte.
fn decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
        let (high, low) = (digit(rest.next())?, digit(rest.next())?);
        bytes.push((high * 16 + low) as u8);
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_says_place_and_settings() {
        let options = DuckDbOptions::from_url(
            "duckdb:a%3fb.duckdb?busy_timeout=500ms&readers=2&writers=3&create=false&set.Threads=3",
        );
        let expected = DuckDbOptions::file("a?b.duckdb")
            .busy_timeout(Duration::from_millis(500))
            .readers(2)
            .writers(3)
            .create(false)
            .set("threads", "3");
        let options = options.unwrap();
        assert_eq!(options, expected);
        assert_eq!((options.setting("THREADS"), options.setting("memory_limit")), (Some("3"), None));
        assert_eq!(DuckDbOptions::from_url("duckdb::memory:").unwrap(), DuckDbOptions::memory());
        assert_eq!(DuckDbOptions::from_url("duckdb:///x/y").unwrap(), DuckDbOptions::file("/x/y"));
    }

    #[test]
    fn a_url_that_cannot_be_says_what_is_wrong() {
        for (url, said) in [
            ("sqlite:x", "begins with duckdb:"),
            ("duckdb:", "the path is missing"),
            ("duckdb:x?colour=red", "there is no parameter colour"),
            ("duckdb:x?busy_timeout=5", "a time such as 5s"),
            ("duckdb:x%2", "hexadecimal"),
        ] {
            let error = DuckDbOptions::from_url(url).unwrap_err();
            assert!(error.kind() == ErrorKind::InvalidConfig && error.message().contains(said), "{error}");
        }
    }
}
