//! DuckDB's C interface: all `unsafe` of this crate.
//!
//! What is owned here is freed here: a [`Handle`] keeps its database open, a statement its connection, a result its statement and the
//! batch that both may read. Text comes from DuckDB as UTF-8 and is copied at once.

mod appender;
mod batch;
mod parts;
mod statement;
#[cfg(test)]
mod tests;

use std::ffi::{CStr, CString, c_char};
use std::fmt;
use std::path::Path;
use std::ptr;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};

use libduckdb_sys as ffi;

pub(crate) use appender::{Place, append};
pub(crate) use batch::{BoundBatch, Lent};
pub(crate) use statement::{Prepared, Rows};

/// What DuckDB said: its message begins with the kind of error, as in `Constraint Error: …`.
#[derive(Clone, Debug)]
pub(crate) struct Failure(pub(crate) String);

impl Failure {
    /// # Safety
    /// `message` is null or a string that ends with a NUL.
    unsafe fn of(message: *const c_char) -> Failure {
        if message.is_null() {
            return Failure("DuckDB gave no reason".into());
        }
        // SAFETY: as the caller says.
        Failure(unsafe { CStr::from_ptr(message) }.to_string_lossy().into_owned())
    }

    /// Takes what a call returned that returns error data, which is null where all went well.
    ///
    /// # Safety
    /// `error` is null or error data that nobody else destroys.
    unsafe fn check(mut error: ffi::duckdb_error_data) -> Result<(), Failure> {
        if error.is_null() {
            return Ok(());
        }
        // SAFETY: the error data is there until it is destroyed below, once.
        unsafe {
            let has_error = ffi::duckdb_error_data_has_error(error);
            let failure = Failure::of(ffi::duckdb_error_data_message(error))
                .with_class(ffi::duckdb_error_data_error_type(error));
            ffi::duckdb_destroy_error_data(&raw mut error);
            if has_error { Err(failure) } else { Ok(()) }
        }
    }
}

impl Failure {
    /// The failure with the kind of error before it, where its message lacks that.
    fn with_class(self, kind: ffi::duckdb_error_type) -> Failure {
        let class = match kind {
            ffi::duckdb_error_type_DUCKDB_ERROR_CONSTRAINT => "Constraint",
            ffi::duckdb_error_type_DUCKDB_ERROR_CATALOG => "Catalog",
            ffi::duckdb_error_type_DUCKDB_ERROR_CONVERSION => "Conversion",
            ffi::duckdb_error_type_DUCKDB_ERROR_OUT_OF_RANGE => "Out of Range",
            ffi::duckdb_error_type_DUCKDB_ERROR_TRANSACTION => "TransactionContext",
            ffi::duckdb_error_type_DUCKDB_ERROR_IO => "IO",
            ffi::duckdb_error_type_DUCKDB_ERROR_NOT_IMPLEMENTED => "Not implemented",
            ffi::duckdb_error_type_DUCKDB_ERROR_FATAL => "FATAL",
            ffi::duckdb_error_type_DUCKDB_ERROR_INTERNAL => "INTERNAL",
            _ => "Invalid Input",
        };
        match self.0.split_once(": ") {
            Some((said, _)) if said.ends_with(" Error") => self,
            Some(("Failed to append", rest)) => Failure(format!("{class} Error: {rest}")),
            _ => Failure(format!("{class} Error: {}", self.0)),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Failure {}

/// Text for DuckDB.
pub(crate) fn c_string(text: &str) -> Result<CString, Failure> {
    CString::new(text)
        .map_err(|_| Failure("Invalid Input Error: names and statements can't hold NUL characters".into()))
}

/// The instances of this process by file: a second opening of a file gets the first one's instance. Two instances of one file would
/// each overwrite what the other wrote.
struct Cache(ffi::duckdb_instance_cache);

// SAFETY: DuckDB's cache has a lock of its own.
unsafe impl Send for Cache {}
// SAFETY: as above.
unsafe impl Sync for Cache {}

// SAFETY: the call has no preconditions; the cache lives to the process's end.
static CACHE: LazyLock<Cache> = LazyLock::new(|| Cache(unsafe { ffi::duckdb_create_instance_cache() }));

/// An instance of DuckDB, open as long as somebody holds it.
pub(crate) struct Database {
    raw: ffi::duckdb_database,
    /// Table functions of connections that were closed: an instance never forgets one.
    functions: Mutex<Vec<batch::Function>>,
}

// SAFETY: a database may be used from any thread, by several at a time.
unsafe impl Send for Database {}
// SAFETY: as above.
unsafe impl Sync for Database {}

impl Database {
    /// Opens a file, or for `None` a new database in memory, with settings by name.
    pub(crate) fn open(path: Option<&Path>, settings: &[(String, String)]) -> Result<Self, Failure> {
        let config = Config::new(settings)?;
        let mut database = Database { raw: ptr::null_mut(), functions: Mutex::default() };
        let mut message: *mut c_char = ptr::null_mut();
        let state = match path {
            Some(path) => {
                let invalid = || Failure("IO Error: the file's name is not UTF-8".into());
                let path = c_string(path.to_str().ok_or_else(invalid)?)?;
                // SAFETY: all pointers live through the call.
                unsafe {
                    ffi::duckdb_get_or_create_from_cache(
                        CACHE.0,
                        path.as_ptr(),
                        &raw mut database.raw,
                        config.0,
                        &raw mut message,
                    )
                }
            }
            // SAFETY: as above; a null path means memory.
            None => unsafe {
                ffi::duckdb_open_ext(ptr::null(), &raw mut database.raw, config.0, &raw mut message)
            },
        };
        if state == ffi::DuckDBSuccess {
            return Ok(database);
        }
        // SAFETY: on failure the message is a string of ours to free, or null.
        unsafe {
            let failure = Failure::of(message);
            ffi::duckdb_free(message.cast());
            Err(failure)
        }
    }
}

impl Database {
    fn functions(&self) -> MutexGuard<'_, Vec<batch::Function>> {
        // A list that a panic left is whole.
        self.functions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Database {
    fn drop(&mut self) {
        // SAFETY: no connection is left, as each holds the database; closing twice is harmless.
        unsafe { ffi::duckdb_close(&raw mut self.raw) };
    }
}

struct Config(ffi::duckdb_config);

impl Config {
    fn new(settings: &[(String, String)]) -> Result<Self, Failure> {
        let mut config = Config(ptr::null_mut());
        // SAFETY: the pointer lives through the call.
        unsafe { ffi::duckdb_create_config(&raw mut config.0) };
        for (name, value) in settings {
            let (c_name, c_value) = (c_string(name)?, c_string(value)?);
            // SAFETY: the configuration was created above; the strings live through the call.
            let state = unsafe { ffi::duckdb_set_config(config.0, c_name.as_ptr(), c_value.as_ptr()) };
            if state != ffi::DuckDBSuccess {
                return Err(Failure(format!("Invalid Input Error: DuckDB doesn't take the setting {name}")));
            }
        }
        Ok(config)
    }
}

impl Drop for Config {
    fn drop(&mut self) {
        // SAFETY: it was created by `new`, and is destroyed once.
        unsafe { ffi::duckdb_destroy_config(&raw mut self.0) };
    }
}

/// A connection, with the table function over which its statements read batches.
pub(crate) struct Handle {
    connection: ffi::duckdb_connection,
    batches: batch::Function,
    // Closed after the connection: fields are dropped after `drop` ran.
    database: Arc<Database>,
}

// SAFETY: a connection may be used from any thread. DuckDB's own lock takes calls one after the other.
unsafe impl Send for Handle {}
// SAFETY: as above.
unsafe impl Sync for Handle {}

impl Handle {
    pub(crate) fn connect(database: &Arc<Database>) -> Result<Arc<Self>, Failure> {
        let mut connection = ptr::null_mut();
        // SAFETY: the database is open; the pointer lives through the call.
        if unsafe { ffi::duckdb_connect(database.raw, &raw mut connection) } != ffi::DuckDBSuccess {
            return Err(Failure("Connection Error: DuckDB gave no connection".into()));
        }
        let free = database.functions().pop();
        let batches = match free {
            Some(free) => Ok(free),
            // SAFETY: the connection is open.
            None => unsafe { batch::Function::register(connection) },
        };
        match batches {
            Ok(batches) => Ok(Arc::new(Handle { connection, batches, database: Arc::clone(database) })),
            Err(failure) => {
                // SAFETY: it was opened above, and nobody else knows it.
                unsafe { ffi::duckdb_disconnect(&raw mut connection) };
                Err(failure)
            }
        }
    }

    /// Lends a batch to the statements that are prepared and run while the loan lasts: `batch_relation()` reads it.
    pub(crate) fn lend(&self, batch: &Arc<BoundBatch>) -> Lent {
        self.batches.lend(batch)
    }

    /// Has the query that runs on the connection now, if one does, fail as soon as it can.
    pub(crate) fn interrupt(&self) {
        // SAFETY: the connection is open; the call is made for other threads.
        unsafe { ffi::duckdb_interrupt(self.connection) };
    }

    /// The relation of the batch that is lent, for a FROM clause.
    pub(crate) fn batch_relation(&self) -> &str {
        self.batches.relation()
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        // SAFETY: statements and results hold the handle, so none is left.
        unsafe { ffi::duckdb_disconnect(&raw mut self.connection) };
        self.database.functions().push(self.batches.clone());
    }
}
