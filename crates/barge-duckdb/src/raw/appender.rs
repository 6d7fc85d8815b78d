//! Appending a batch to a table through DuckDB's Appender.

use std::ffi::CString;
use std::ptr;

use libduckdb_sys as ffi;

use super::batch::BoundBatch;
use super::{Failure, Handle, c_string};

/// A table's whole name.
pub(crate) struct Place {
    catalog: CString,
    schema: CString,
    table: CString,
}

impl Place {
    pub(crate) fn new(catalog: &str, schema: &str, table: &str) -> Result<Self, Failure> {
        Ok(Place { catalog: c_string(catalog)?, schema: c_string(schema)?, table: c_string(table)? })
    }
}

struct Appender(ffi::duckdb_appender);

impl Appender {
    fn check(&self, state: ffi::duckdb_state) -> Result<(), Failure> {
        if state == ffi::DuckDBSuccess {
            return Ok(());
        }
        // SAFETY: the appender is there until it is dropped; the error data is ours.
        unsafe { Failure::check(ffi::duckdb_appender_error_data(self.0)) }?;
        Err(Failure("Internal Error: DuckDB's appender failed without a reason".into()))
    }
}

impl Drop for Appender {
    fn drop(&mut self) {
        // What wasn't flushed is not to be: destroying an appender would flush it.
        // SAFETY: the appender is cleared and destroyed once.
        unsafe {
            ffi::duckdb_appender_clear(self.0);
            ffi::duckdb_appender_destroy(&raw mut self.0);
        }
    }
}

/// Appends a batch's rows to the given columns of a table. To be called inside a transaction: one that fails leaves a part of the rows behind.
pub(crate) fn append(
    handle: &Handle,
    place: &Place,
    columns: &[CString],
    batch: &BoundBatch,
) -> Result<(), Failure> {
    let mut appender = Appender(ptr::null_mut());
    // SAFETY: the connection is open, and all strings live through the calls. On failure too there is an appender, which holds the reason.
    unsafe {
        let created = ffi::duckdb_appender_create_ext(
            handle.connection,
            place.catalog.as_ptr(),
            place.schema.as_ptr(),
            place.table.as_ptr(),
            &raw mut appender.0,
        );
        appender.check(created)?;
        for column in columns {
            appender.check(ffi::duckdb_appender_add_column(appender.0, column.as_ptr()))?;
        }
    }
    for chunk in batch.chunks() {
        // SAFETY: both are there; the appender copies the rows.
        appender.check(unsafe { ffi::duckdb_append_data_chunk(appender.0, chunk?.0) })?;
    }
    // SAFETY: the appender is there.
    appender.check(unsafe { ffi::duckdb_appender_flush(appender.0) })
}
