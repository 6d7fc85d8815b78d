//! Statements and what they give.

use std::ffi::{CStr, c_char};
use std::ptr;
use std::sync::Arc;

use arrow::array::{RecordBatch, StructArray};
use arrow::datatypes::{Schema, SchemaRef};
use arrow::ffi::{FFI_ArrowArray, FFI_ArrowSchema, from_ffi};
use libduckdb_sys as ffi;

use super::batch::{Chunk, LogicalType};
use super::parts::Parts;
use super::{Failure, Handle, Lent, c_string};

/// A statement ready to be run.
pub(crate) struct Prepared {
    statement: ffi::duckdb_prepared_statement,
    // Let go after the statement was destroyed.
    handle: Arc<Handle>,
}

// SAFETY: a statement may be used from any thread, by one at a time.
unsafe impl Send for Prepared {}

/// The statements of a text, parsed.
struct Extracted {
    statements: ffi::duckdb_extracted_statements,
    count: u64,
}

impl Drop for Extracted {
    fn drop(&mut self) {
        // SAFETY: they're destroyed once.
        unsafe { ffi::duckdb_destroy_extracted(&raw mut self.statements) };
    }
}

impl Extracted {
    fn new(handle: &Handle, sql: &str) -> Result<Self, Failure> {
        let sql = c_string(sql)?;
        let mut extracted = Extracted { statements: ptr::null_mut(), count: 0 };
        // SAFETY: the connection is open; the pointers live through the calls.
        unsafe {
            extracted.count = ffi::duckdb_extract_statements(
                handle.connection,
                sql.as_ptr(),
                &raw mut extracted.statements,
            );
            let error = ffi::duckdb_extract_statements_error(extracted.statements);
            if extracted.count == 0 && !error.is_null() {
                return Err(Failure::of(error));
            }
        }
        Ok(extracted)
    }
}

impl Prepared {
    /// Prepares a text of exactly one statement.
    pub(crate) fn new(handle: &Arc<Handle>, sql: &str) -> Result<Self, Failure> {
        let extracted = Extracted::new(handle, sql)?;
        match extracted.count {
            1 => Prepared::extracted(handle, &extracted, 0),
            0 => Err(Failure("Parser Error: the text holds no statement".into())),
            _ => Err(Failure(
                "Parser Error: the text holds more than one statement: run them one by one".into(),
            )),
        }
    }

    /// Prepares and runs the statements of a text one after the other, and says how many rows the last one changed. `before` sees
    /// each before it is run.
    pub(crate) fn run_all(
        handle: &Arc<Handle>,
        sql: &str,
        mut before: impl FnMut(&Prepared),
    ) -> Result<u64, Failure> {
        let extracted = Extracted::new(handle, sql)?;
        if extracted.count == 0 {
            return Err(Failure("Parser Error: the text holds no statement".into()));
        }
        let mut changed = 0;
        for index in 0..extracted.count {
            let statement = Prepared::extracted(handle, &extracted, index)?;
            if statement.ends_transaction() {
                return Err(Failure(
                    "Parser Error: BEGIN, COMMIT and ROLLBACK are the transaction's own calls".into(),
                ));
            }
            before(&statement);
            changed = statement.execute()?;
        }
        Ok(changed)
    }

    fn extracted(handle: &Arc<Handle>, extracted: &Extracted, index: u64) -> Result<Self, Failure> {
        let mut prepared = Prepared { statement: ptr::null_mut(), handle: Arc::clone(handle) };
        // SAFETY: the connection is open and the statement among the extracted ones. On failure too there is a statement, which holds the
        // reason.
        unsafe {
            let state = ffi::duckdb_prepare_extracted_statement(
                handle.connection,
                extracted.statements,
                index,
                &raw mut prepared.statement,
            );
            if state != ffi::DuckDBSuccess {
                return Err(Failure::of(ffi::duckdb_prepare_error(prepared.statement)));
            }
        }
        Ok(prepared)
    }

    /// Whether it only reads.
    pub(crate) fn reads(&self) -> bool {
        matches!(
            self.kind(),
            ffi::duckdb_statement_type_DUCKDB_STATEMENT_TYPE_SELECT
                | ffi::duckdb_statement_type_DUCKDB_STATEMENT_TYPE_EXPLAIN
        )
    }

    /// Whether it explains another.
    pub(crate) fn explains(&self) -> bool {
        self.kind() == ffi::duckdb_statement_type_DUCKDB_STATEMENT_TYPE_EXPLAIN
    }

    /// Whether it begins or ends a transaction.
    pub(crate) fn ends_transaction(&self) -> bool {
        self.kind() == ffi::duckdb_statement_type_DUCKDB_STATEMENT_TYPE_TRANSACTION
    }

    /// Whether it may change what later statements of the session see or do, beside what they find in tables.
    pub(crate) fn changes_session(&self, sql: &str) -> bool {
        match self.kind() {
            ffi::duckdb_statement_type_DUCKDB_STATEMENT_TYPE_SET
            | ffi::duckdb_statement_type_DUCKDB_STATEMENT_TYPE_VARIABLE_SET
            | ffi::duckdb_statement_type_DUCKDB_STATEMENT_TYPE_PRAGMA
            | ffi::duckdb_statement_type_DUCKDB_STATEMENT_TYPE_PREPARE => true,
            // Temporary tables and the like; one that is not so costs a connection made anew.
            ffi::duckdb_statement_type_DUCKDB_STATEMENT_TYPE_CREATE
            | ffi::duckdb_statement_type_DUCKDB_STATEMENT_TYPE_CREATE_FUNC => {
                sql.to_ascii_lowercase().contains("temp")
            }
            _ => false,
        }
    }

    fn kind(&self) -> ffi::duckdb_statement_type {
        // SAFETY: the statement is prepared.
        unsafe { ffi::duckdb_prepared_statement_type(self.statement) }
    }

    /// Runs it to its end, and says how many rows it changed.
    pub(crate) fn execute(&self) -> Result<u64, Failure> {
        Ok(self.run()?.rows_changed())
    }

    /// Runs it to its end, and keeps its rows.
    pub(crate) fn rows(self, lent: Option<Lent>) -> Result<Rows, Failure> {
        let result = self.run()?;
        Rows::new(result, self, lent)
    }

    fn run(&self) -> Result<QueryResult, Failure> {
        let mut result = QueryResult::default();
        // SAFETY: the statement is prepared; on failure too the result is ours, and holds the reason.
        let state = unsafe { ffi::duckdb_execute_prepared(self.statement, &raw mut result.raw) };
        if state == ffi::DuckDBSuccess { Ok(result) } else { Err(result.failure()) }
    }

    /// Runs it until its first rows are there; the others are computed as they're read.
    pub(crate) fn stream(self, lent: Option<Lent>) -> Result<Rows, Failure> {
        let mut pending = Pending(ptr::null_mut());
        let mut result = QueryResult::default();
        // SAFETY: the statement is prepared, the pending result and the result are ours, and hold the reason on failure.
        unsafe {
            if ffi::duckdb_pending_prepared_streaming(self.statement, &raw mut pending.0)
                != ffi::DuckDBSuccess
            {
                return Err(Failure::of(ffi::duckdb_pending_error(pending.0)));
            }
            if ffi::duckdb_execute_pending(pending.0, &raw mut result.raw) != ffi::DuckDBSuccess {
                return Err(result.failure());
            }
        }
        result.computing = Some(Arc::clone(&self.handle));
        Rows::new(result, self, lent)
    }
}

impl Drop for Prepared {
    fn drop(&mut self) {
        // SAFETY: it is destroyed once; a null pointer is left alone.
        unsafe { ffi::duckdb_destroy_prepare(&raw mut self.statement) };
    }
}

struct Pending(ffi::duckdb_pending_result);

impl Drop for Pending {
    fn drop(&mut self) {
        // SAFETY: it is destroyed once.
        unsafe { ffi::duckdb_destroy_pending(&raw mut self.0) };
    }
}

struct QueryResult {
    raw: ffi::duckdb_result,
    /// The connection that still computes the rows, where they are computed as they're read.
    computing: Option<Arc<Handle>>,
}

// SAFETY: a result may be used from any thread, by one at a time.
unsafe impl Send for QueryResult {}

impl Default for QueryResult {
    fn default() -> Self {
        // SAFETY: the C struct is plain data, and DuckDB takes a zeroed one for one without a result.
        QueryResult { raw: unsafe { std::mem::zeroed() }, computing: None }
    }
}

impl QueryResult {
    fn failure(&mut self) -> Failure {
        // SAFETY: the result is there until it is dropped.
        unsafe { Failure::of(ffi::duckdb_result_error(&raw mut self.raw)) }
    }

    /// The next rows; `None` at the end, and where computing them failed.
    fn fetch(&mut self) -> Option<Chunk> {
        // SAFETY: the result is there; the call takes a copy of the plain struct and keeps nothing. The chunk is ours.
        let chunk = Chunk(unsafe { ffi::duckdb_fetch_chunk(self.raw) });
        if chunk.0.is_null() {
            // The query has ended, and with it a transaction of its own.
            self.computing = None;
            return None;
        }
        Some(chunk)
    }

    fn rows_changed(mut self) -> u64 {
        // SAFETY: the result is there.
        unsafe { ffi::duckdb_rows_changed(&raw mut self.raw) }
    }

    /// Whether it is one of rows, and not of a number of changes, or nothing.
    fn has_rows(&self) -> bool {
        // SAFETY: the result is there; the call takes a copy of the plain struct and keeps nothing.
        let kind = unsafe { ffi::duckdb_result_return_type(self.raw) };
        kind == ffi::duckdb_result_type_DUCKDB_RESULT_TYPE_QUERY_RESULT
    }
}

impl Drop for QueryResult {
    fn drop(&mut self) {
        // DuckDB ends a query of which rows are left when the connection runs the next one, not before: until then its transaction is
        // open, so that nothing can be checkpointed, and it holds what it reads. Reading it to its end, which an interrupted one
        // is near, ends it here.
        if let Some(handle) = self.computing.clone() {
            handle.interrupt();
            while self.fetch().is_some() {}
        }
        // SAFETY: it is destroyed once; a zeroed one is left alone.
        unsafe { ffi::duckdb_destroy_result(&raw mut self.raw) };
    }
}

/// The rows of a statement, read in order, as Arrow.
pub(crate) struct Rows {
    result: QueryResult,
    options: ArrowOptions,
    exported: FFI_ArrowSchema,
    schema: SchemaRef,
    /// A stream that has ended may not be asked again.
    ended: bool,
    /// What was fetched and is not given yet.
    parts: Parts,
    // What the result may read, in the order in which it may go.
    _statement: Prepared,
    _lent: Option<Lent>,
}

impl Rows {
    fn new(mut result: QueryResult, statement: Prepared, lent: Option<Lent>) -> Result<Self, Failure> {
        // SAFETY: the result is there; the options are ours.
        let options = ArrowOptions(unsafe { ffi::duckdb_result_get_arrow_options(&raw mut result.raw) });
        let (exported, schema) = if result.has_rows() {
            result_schema(&mut result, &options)?
        } else {
            (FFI_ArrowSchema::empty(), Arc::new(Schema::empty()))
        };
        let ended = schema.fields().is_empty();
        let parts = Parts::default();
        Ok(Rows { result, options, exported, schema, ended, parts, _statement: statement, _lent: lent })
    }

    pub(crate) fn schema(&self) -> &SchemaRef {
        &self.schema
    }

    /// The next rows, of some bytes at most where they're computed as they're read; `None` at the end.
    pub(crate) fn next(&mut self) -> Result<Option<RecordBatch>, Failure> {
        if let Some(part) = self.parts.next()? {
            return self.convert(&part).map(Some);
        }
        if self.ended {
            return Ok(None);
        }
        let is_stream = self.result.computing.is_some();
        let Some(chunk) = self.result.fetch() else {
            self.ended = true;
            // SAFETY: the result is there.
            let error = unsafe { ffi::duckdb_result_error(&raw mut self.result.raw) };
            // SAFETY: the message lives as long as the result.
            let failed = !error.is_null() && unsafe { *error } != 0;
            // SAFETY: as above.
            return if failed { Err(unsafe { Failure::of(error) }) } else { Ok(None) };
        };
        if !is_stream {
            return self.convert(&chunk).map(Some);
        }
        self.parts = Parts::new(chunk);
        match self.parts.next()? {
            Some(part) => self.convert(&part).map(Some),
            None => self.next(),
        }
    }

    fn convert(&self, chunk: &Chunk) -> Result<RecordBatch, Failure> {
        let mut array = FFI_ArrowArray::empty();
        // SAFETY: the chunk is one of the result, whose types the options and the schema tell. DuckDB's struct and arrow's are the
        // Arrow C data interface's; the array owns copies of the rows, and `from_ffi` takes it over.
        let data = unsafe {
            let out = (&raw mut array).cast();
            Failure::check(ffi::duckdb_data_chunk_to_arrow(self.options.0, chunk.0, out))?;
            from_ffi(array, &self.exported)
        };
        let rows = data.map_err(|error| Failure(format!("Not implemented Error: {error}")))?;
        let rows = StructArray::from(rows);
        let (_, columns, _) = rows.into_parts();
        let batch = RecordBatch::try_new(Arc::clone(&self.schema), columns);
        batch.map_err(|error| Failure(format!("Not implemented Error: {error}")))
    }
}

fn result_schema(
    result: &mut QueryResult,
    options: &ArrowOptions,
) -> Result<(FFI_ArrowSchema, SchemaRef), Failure> {
    let mut exported = FFI_ArrowSchema::empty();
    // SAFETY: the result is there, and has so many columns; names live as long as it does, types are ours. DuckDB fills the schema, whose
    // release frees it.
    unsafe {
        let count = ffi::duckdb_column_count(&raw mut result.raw);
        let types: Vec<LogicalType> = (0..count)
            .map(|column| LogicalType(ffi::duckdb_column_logical_type(&raw mut result.raw, column)))
            .collect();
        let mut names: Vec<*const c_char> =
            (0..count).map(|column| ffi::duckdb_column_name(&raw mut result.raw, column)).collect();
        let empty: &CStr = c"";
        names.iter_mut().filter(|name| name.is_null()).for_each(|name| *name = empty.as_ptr());
        let mut raw_types: Vec<ffi::duckdb_logical_type> = types.iter().map(|own| own.0).collect();
        let out = (&raw mut exported).cast();
        Failure::check(ffi::duckdb_to_arrow_schema(
            options.0,
            raw_types.as_mut_ptr(),
            names.as_mut_ptr(),
            count,
            out,
        ))?;
    }
    let schema =
        Schema::try_from(&exported).map_err(|error| Failure(format!("Not implemented Error: {error}")))?;
    Ok((exported, Arc::new(schema)))
}

struct ArrowOptions(ffi::duckdb_arrow_options);

// SAFETY: options are plain settings, read by one thread at a time.
unsafe impl Send for ArrowOptions {}

impl Drop for ArrowOptions {
    fn drop(&mut self) {
        // SAFETY: they're destroyed once.
        unsafe { ffi::duckdb_destroy_arrow_options(&raw mut self.0) };
    }
}
