//! The one error of Barge: what kind it is, whether trying again can help, and which row, column and constraint
//! it speaks of.

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;

/// A result whose error is [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong, the same on every store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A row repeats a value that a key or a unique index allows once.
    UniqueViolation,
    /// A row names a parent that does not exist, or removes one that is still named.
    ForeignKeyViolation,
    /// A row has no value in a column that needs one.
    NotNullViolation,
    /// A row fails a CHECK constraint, or a trigger refused it.
    CheckViolation,
    /// A value cannot be stored so that it comes back equal.
    InvalidValue,
    /// The table does not exist.
    MissingTable,
    /// The table has no such column, or the row's type lacks one the operation needs.
    MissingColumn,
    /// The database, a file or a directory may not be written or read by this user.
    Permission,
    /// The database refused the statement itself.
    Statement,
    /// Another connection holds a lock. Retryable.
    Busy,
    /// The database ended the transaction to break a deadlock. Retryable.
    Deadlock,
    /// The database ended the transaction because it could not be put in order with others. Retryable.
    SerializationFailure,
    /// The connection went away. Retryable.
    ConnectionLost,
    /// The time allowed ran out.
    Timeout,
    /// The buffer is full and the writer was told to say so instead of waiting. Retryable.
    BufferFull,
    /// A row or a value is larger than can be sent or stored.
    TooLarge,
    /// The disk or a quota is full.
    DiskFull,
    /// The writer, batcher or database was closed before.
    Closed,
    /// A failure of durability came before; nothing more is accepted.
    Poisoned,
    /// The store cannot keep the promise the operation makes. Nothing was done.
    Unsupported,
    /// A setting, a URL or the shape of a record type is wrong.
    InvalidConfig,
    /// Reading or writing a file failed.
    Io,
    /// A handler failed, a [`Batcher`](crate::Batcher)'s or a [`Loader`](crate::Loader)'s; or what reads the rows of a look-up panicked.
    Handler,
}

impl ErrorKind {
    /// Whether the kind speaks of one row's data, so that the row's neighbours can go on without it.
    pub fn is_row(self) -> bool {
        use ErrorKind::*;
        matches!(
            self,
            UniqueViolation
                | ForeignKeyViolation
                | NotNullViolation
                | CheckViolation
                | InvalidValue
                | TooLarge
        )
    }

    /// The kind's name as it is written in dead letters and logs, for example `UniqueViolation`.
    pub fn as_str(self) -> &'static str {
        use ErrorKind::*;
        match self {
            UniqueViolation => "UniqueViolation",
            ForeignKeyViolation => "ForeignKeyViolation",
            NotNullViolation => "NotNullViolation",
            CheckViolation => "CheckViolation",
            InvalidValue => "InvalidValue",
            MissingTable => "MissingTable",
            MissingColumn => "MissingColumn",
            Permission => "Permission",
            Statement => "Statement",
            Busy => "Busy",
            Deadlock => "Deadlock",
            SerializationFailure => "SerializationFailure",
            ConnectionLost => "ConnectionLost",
            Timeout => "Timeout",
            BufferFull => "BufferFull",
            TooLarge => "TooLarge",
            DiskFull => "DiskFull",
            Closed => "Closed",
            Poisoned => "Poisoned",
            Unsupported => "Unsupported",
            InvalidConfig => "InvalidConfig",
            Io => "Io",
            Handler => "Handler",
        }
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Any failure of Barge.
///
/// Cloning is cheap: one failure may answer many rows. `Display` prints the message with what it speaks of;
/// the cause, where there is one, is in [`source`](StdError::source).
///
/// ```
/// use barge_core::{Error, ErrorKind};
///
/// let error = Error::new(ErrorKind::UniqueViolation, "the key is there already")
///     .with_table("tasks")
///     .with_column("id")
///     .with_row(7);
/// assert_eq!(error.kind(), ErrorKind::UniqueViolation);
/// assert!(!error.is_retryable());
/// assert_eq!(error.to_string(), "table tasks, row 7, column id: the key is there already");
/// ```
#[derive(Clone)]
pub struct Error(Arc<Inner>);

#[derive(Clone)]
struct Inner {
    kind: ErrorKind,
    message: String,
    table: Option<String>,
    row: Option<u64>,
    column: Option<String>,
    constraint: Option<String>,
    code: Option<String>,
    retryable: bool,
    source: Option<Arc<dyn StdError + Send + Sync>>,
}

impl Error {
    /// An error of a kind, with a message that says what was being done and what to do about it.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        use ErrorKind::*;
        Error(Arc::new(Inner {
            kind,
            message: message.into(),
            table: None,
            row: None,
            column: None,
            constraint: None,
            code: None,
            retryable: matches!(kind, Busy | Deadlock | SerializationFailure | ConnectionLost | BufferFull),
            source: None,
        }))
    }

    /// A batch handler's own failure. `retryable` says whether the same batch may be handed to it again.
    pub fn handler(source: impl Into<Box<dyn StdError + Send + Sync>>, retryable: bool) -> Self {
        let source = source.into();
        let mut error = Error::new(ErrorKind::Handler, source.to_string());
        let inner = error.inner();
        inner.retryable = retryable;
        inner.source = Some(Arc::from(source));
        error
    }

    fn inner(&mut self) -> &mut Inner {
        Arc::make_mut(&mut self.0)
    }

    /// Names the table.
    #[must_use]
    pub fn with_table(mut self, table: impl Into<String>) -> Self {
        self.inner().table = Some(table.into());
        self
    }

    /// Names the row by its place: its ordinal in the batch, counted from 0.
    #[must_use]
    pub fn with_row(mut self, ordinal: u64) -> Self {
        self.inner().row = Some(ordinal);
        self
    }

    /// The same of no row in particular.
    pub(crate) fn without_row(self) -> Self {
        self.map_row(|_| None)
    }

    /// Whether it speaks of the connection or the database, not of rows or their table.
    pub(crate) fn is_whole(&self) -> bool {
        use ErrorKind::*;
        self.is_retryable() || matches!(self.kind(), DiskFull | Io | Timeout | Closed | Poisoned | BufferFull)
    }

    /// The same of another row, where it speaks of one: of what is told for this one's place.
    pub(crate) fn map_row(mut self, to: impl FnOnce(usize) -> Option<usize>) -> Self {
        if let Some(row) = self.0.row {
            self.inner().row = usize::try_from(row).ok().and_then(to).map(|row| row as u64);
        }
        self
    }

    /// Names the column.
    #[must_use]
    pub fn with_column(mut self, column: impl Into<String>) -> Self {
        self.inner().column = Some(column.into());
        self
    }

    /// Names the constraint.
    #[must_use]
    pub fn with_constraint(mut self, constraint: impl Into<String>) -> Self {
        self.inner().constraint = Some(constraint.into());
        self
    }

    /// Adds the database's own code: an SQLSTATE or a result code.
    #[must_use]
    pub fn with_code(mut self, code: impl Into<String>) -> Self {
        self.inner().code = Some(code.into());
        self
    }

    /// Adds the cause.
    #[must_use]
    pub fn with_source(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.inner().source = Some(Arc::from(source.into()));
        self
    }

    /// The same failure, to be tried again whatever its kind.
    pub(crate) fn into_retryable(mut self) -> Self {
        self.inner().retryable = true;
        self
    }

    /// Puts what was being done before the message: `context: message`.
    #[must_use]
    pub fn context(mut self, context: impl fmt::Display) -> Self {
        let inner = self.inner();
        inner.message = format!("{context}: {}", inner.message);
        self
    }

    /// What kind of failure it is.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// Whether the same call may succeed later, with nothing about it changed.
    pub fn is_retryable(&self) -> bool {
        self.0.retryable
    }

    /// Whether it speaks of one row: of its data, as [`ErrorKind::is_row`] says, or of what a store can't do with just this row.
    pub fn is_row(&self) -> bool {
        self.0.kind.is_row() || (self.0.kind == ErrorKind::Unsupported && self.0.row.is_some())
    }

    /// The message alone, without table, row and column.
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// The table, where the failure speaks of one.
    pub fn table(&self) -> Option<&str> {
        self.0.table.as_deref()
    }

    /// The row's ordinal in its batch, counted from 0, where the failure speaks of one row.
    pub fn row(&self) -> Option<u64> {
        self.0.row
    }

    /// The column, where the failure speaks of one.
    pub fn column(&self) -> Option<&str> {
        self.0.column.as_deref()
    }

    /// The constraint's name, where the database told it.
    pub fn constraint(&self) -> Option<&str> {
        self.0.constraint.as_deref()
    }

    /// The database's own code: an SQLSTATE, or a result code such as `SQLITE_CONSTRAINT_UNIQUE`.
    pub fn code(&self) -> Option<&str> {
        self.0.code.as_deref()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut separator = "";
        if let Some(table) = &self.0.table {
            write!(f, "table {table}")?;
            separator = ", ";
        }
        if let Some(row) = self.0.row {
            write!(f, "{separator}row {row}")?;
            separator = ", ";
        }
        if let Some(column) = &self.0.column {
            write!(f, "{separator}column {column}")?;
            separator = ", ";
        }
        if !separator.is_empty() {
            f.write_str(": ")?;
        }
        f.write_str(&self.0.message)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("Error");
        debug.field("kind", &self.0.kind).field("message", &self.0.message);
        for (name, value) in [
            ("table", &self.0.table),
            ("column", &self.0.column),
            ("constraint", &self.0.constraint),
            ("code", &self.0.code),
        ] {
            if let Some(value) = value {
                debug.field(name, value);
            }
        }
        if let Some(row) = self.0.row {
            debug.field("row", &row);
        }
        if let Some(source) = &self.0.source {
            debug.field("source", source);
        }
        debug.finish()
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_deref().map(|source| source as _)
    }
}

impl From<std::io::Error> for Error {
    fn from(error: std::io::Error) -> Self {
        use std::io::ErrorKind as Io;
        let kind = match error.kind() {
            Io::StorageFull | Io::QuotaExceeded => ErrorKind::DiskFull,
            Io::PermissionDenied | Io::ReadOnlyFilesystem => ErrorKind::Permission,
            Io::TimedOut => ErrorKind::Timeout,
            _ => ErrorKind::Io,
        };
        Error::new(kind, error.to_string()).with_source(error)
    }
}

impl From<arrow::error::ArrowError> for Error {
    fn from(error: arrow::error::ArrowError) -> Self {
        Error::new(ErrorKind::InvalidValue, error.to_string()).with_source(error)
    }
}
