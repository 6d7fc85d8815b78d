//! A record batch as a relation: a table function over the batch that is lent to the connection.
//!
//! DuckDB reads the Arrow arrays in place, a vector's worth of rows at a time. It takes what it is given for the owner of all
//! columns, but ties that to the first column's vector alone, so that the arrays are lent with a release that does nothing: the
//! batch itself is kept alive by the statement that was bound to it, and by whoever runs the statement, until its result is gone.

use std::ffi::{CString, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use arrow::array::{Array, RecordBatch, StructArray};
use arrow::datatypes::Schema;
use arrow::ffi::{FFI_ArrowArray, FFI_ArrowSchema};
use libduckdb_sys as ffi;

use super::{Failure, Handle, c_string};

/// A record batch as DuckDB's statements on one connection read it.
pub(crate) struct BoundBatch {
    batch: RecordBatch,
    names: Vec<CString>,
    types: Vec<LogicalType>,
    schema: ConvertedSchema,
    /// The connection whose statements read the batch: its settings decide how Arrow is converted. The connection holds the batches of
    /// statements that it runs, and so isn't held by them.
    handle: Weak<Handle>,
}

// SAFETY: nothing in it belongs to a thread: the arrays are immutable, and what DuckDB made of the schema is its own memory.
unsafe impl Send for BoundBatch {}
// SAFETY: a statement may scan one batch in several places, and at a time. All of them only read: the arrays, the types, which are
// copied when a statement is bound, and the converted schema, which DuckDB takes as constant. A scan's own position is in its own init data.
unsafe impl Sync for BoundBatch {}

impl BoundBatch {
    pub(crate) fn new(handle: &Arc<Handle>, batch: RecordBatch) -> Result<Self, Failure> {
        let schema = ConvertedSchema::new(handle, &batch.schema())?;
        let fields = batch.schema_ref().fields().iter();
        let names = fields.map(|field| c_string(field.name())).collect::<Result<Vec<_>, _>>()?;
        let handle = Arc::downgrade(handle);
        let mut bound = BoundBatch { batch, names, types: Vec::new(), schema, handle };
        // The types are told by a chunk alone; one without rows will do.
        let chunk = bound.chunk(0, 0)?;
        bound.types = (0..bound.names.len()).map(|column| chunk.column_type(column)).collect();
        Ok(bound)
    }

    pub(crate) fn rows(&self) -> usize {
        self.batch.num_rows()
    }

    /// Some of the rows, as vectors over the arrays' own memory: nothing of the chunk may outlive the batch.
    pub(super) fn chunk(&self, offset: usize, rows: usize) -> Result<Chunk, Failure> {
        let gone = || Failure("Connection Error: the batch's connection was closed".into());
        let handle = self.handle.upgrade().ok_or_else(gone)?;
        let rows = StructArray::from(self.batch.slice(offset, rows));
        let exported = FFI_ArrowArray::new(&rows.to_data());
        // SAFETY: arrow's struct and DuckDB's are the Arrow C data interface's, field by field. The copy is shallow: it is read while
        // `exported` lives, and its release does nothing, so that `exported` stays the only owner.
        let mut lent: ffi::ArrowArray = unsafe { ptr::read((&raw const exported).cast()) };
        lent.release = Some(release_nothing);
        let mut chunk = Chunk(ptr::null_mut());
        // SAFETY: the connection is open and the schema is that of the batch. DuckDB copies what it needs of `lent` within the call, but
        // for the buffers themselves, which the batch keeps.
        unsafe {
            Failure::check(ffi::duckdb_data_chunk_from_arrow(
                handle.connection,
                &raw mut lent,
                self.schema.0,
                &raw mut chunk.0,
            ))?;
        }
        Ok(chunk)
    }

    /// The rows in chunks of the size that DuckDB works with.
    pub(super) fn chunks(&self) -> impl Iterator<Item = Result<Chunk, Failure>> {
        let size = vector_size();
        (0..self.rows()).step_by(size).map(move |offset| self.chunk(offset, size.min(self.rows() - offset)))
    }
}

unsafe extern "C" fn release_nothing(array: *mut ffi::ArrowArray) {
    // SAFETY: DuckDB releases an array that it was given, which then has to say that it is released.
    unsafe { (*array).release = None };
}

fn vector_size() -> usize {
    // SAFETY: the call has no preconditions.
    usize::try_from(unsafe { ffi::duckdb_vector_size() }).unwrap_or(2048)
}

/// Rows as DuckDB's vectors.
pub(super) struct Chunk(pub(super) ffi::duckdb_data_chunk);

// SAFETY: a chunk may be used from any thread, by one at a time.
unsafe impl Send for Chunk {}

impl Chunk {
    pub(super) fn rows(&self) -> usize {
        // SAFETY: the chunk is there; no chunk has more rows than memory has places.
        unsafe { ffi::duckdb_data_chunk_get_size(self.0) as usize }
    }

    pub(super) fn columns(&self) -> usize {
        // SAFETY: as above.
        unsafe { ffi::duckdb_data_chunk_get_column_count(self.0) as usize }
    }

    /// A column, which the chunk owns.
    pub(super) fn vector(&self, column: usize) -> ffi::duckdb_vector {
        // SAFETY: the chunk is there; for a column that it lacks DuckDB gives null.
        unsafe { ffi::duckdb_data_chunk_get_vector(self.0, column as u64) }
    }

    pub(super) fn column_type(&self, column: usize) -> LogicalType {
        // SAFETY: the chunk has the column; the type is ours to destroy.
        unsafe { LogicalType(ffi::duckdb_vector_get_column_type(self.vector(column))) }
    }
}

impl Drop for Chunk {
    fn drop(&mut self) {
        // SAFETY: it is destroyed once; a null pointer is left alone.
        unsafe { ffi::duckdb_destroy_data_chunk(&raw mut self.0) };
    }
}

pub(super) struct LogicalType(pub(super) ffi::duckdb_logical_type);

impl Drop for LogicalType {
    fn drop(&mut self) {
        // SAFETY: it is destroyed once.
        unsafe { ffi::duckdb_destroy_logical_type(&raw mut self.0) };
    }
}

/// An Arrow schema in DuckDB's words.
struct ConvertedSchema(ffi::duckdb_arrow_converted_schema);

impl ConvertedSchema {
    fn new(handle: &Handle, schema: &Schema) -> Result<Self, Failure> {
        let mut exported = FFI_ArrowSchema::try_from(schema)
            .map_err(|error| Failure(format!("Not implemented Error: {error}")))?;
        let mut converted = ConvertedSchema(ptr::null_mut());
        // SAFETY: arrow's struct and DuckDB's are the Arrow C data interface's; DuckDB reads it within the call, and leaves its release to us.
        unsafe {
            let schema = (&raw mut exported).cast();
            Failure::check(ffi::duckdb_schema_from_arrow(handle.connection, schema, &raw mut converted.0))?;
        }
        Ok(converted)
    }
}

impl Drop for ConvertedSchema {
    fn drop(&mut self) {
        if !self.0.is_null() {
            // SAFETY: it is destroyed once.
            unsafe { ffi::duckdb_destroy_arrow_converted_schema(&raw mut self.0) };
        }
    }
}

/// The batch that is lent to a connection now.
type Slot = Arc<Mutex<Option<Arc<BoundBatch>>>>;

/// A connection's table function. DuckDB knows functions instance-wide, so each has a name of its own.
#[derive(Clone)]
pub(super) struct Function {
    slot: Slot,
    relation: String,
}

/// A batch on loan. Dropping it ends the loan.
pub(crate) struct Lent {
    slot: Slot,
}

impl Drop for Lent {
    fn drop(&mut self) {
        *self.slot.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

impl Function {
    /// # Safety
    /// The connection is open.
    pub(super) unsafe fn register(connection: ffi::duckdb_connection) -> Result<Self, Failure> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let name = format!("barge_batch_{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let slot = Slot::default();
        let c_name = c_string(&name)?;
        // SAFETY: the function is set up before it is registered, which copies it; the slot is freed by DuckDB once, by `drop_box`, when
        // the instance forgets the function.
        let state = unsafe {
            let mut function = ffi::duckdb_create_table_function();
            ffi::duckdb_table_function_set_name(function, c_name.as_ptr());
            let extra = Box::into_raw(Box::new(Arc::clone(&slot)));
            ffi::duckdb_table_function_set_extra_info(function, extra.cast(), Some(drop_box::<Slot>));
            ffi::duckdb_table_function_set_bind(function, Some(bind));
            ffi::duckdb_table_function_set_init(function, Some(init));
            ffi::duckdb_table_function_set_function(function, Some(scan));
            let state = ffi::duckdb_register_table_function(connection, function);
            ffi::duckdb_destroy_table_function(&raw mut function);
            state
        };
        if state != ffi::DuckDBSuccess {
            return Err(Failure(format!("Internal Error: DuckDB didn't take the table function {name}")));
        }
        Ok(Function { slot, relation: format!("{name}()") })
    }

    pub(super) fn lend(&self, batch: &Arc<BoundBatch>) -> Lent {
        *self.slot.lock().unwrap_or_else(PoisonError::into_inner) = Some(Arc::clone(batch));
        Lent { slot: Arc::clone(&self.slot) }
    }

    pub(super) fn relation(&self) -> &str {
        &self.relation
    }
}

unsafe extern "C" fn drop_box<T>(pointer: *mut c_void) {
    // SAFETY: DuckDB gives back, once, a pointer that `Box::into_raw` made of a `Box<T>`.
    drop(unsafe { Box::from_raw(pointer.cast::<T>()) });
}

/// Runs a callback's body; a panic becomes an error, as it must not unwind into C++.
fn guarded(body: impl FnOnce() -> Result<(), Failure>, set_error: impl FnOnce(*const std::ffi::c_char)) {
    let done = catch_unwind(AssertUnwindSafe(body));
    let failure = match done {
        Ok(Ok(())) => return,
        Ok(Err(failure)) => failure,
        Err(_) => Failure("reading the batch panicked, which is a bug in Barge".into()),
    };
    let message = c_string(&failure.0).unwrap_or_default();
    set_error(message.as_ptr());
}

unsafe extern "C" fn bind(info: ffi::duckdb_bind_info) {
    let body = || {
        // SAFETY: the extra info is the slot that `register` set; types and names live through the calls, which copy them; the bind data is freed
        // once, by `drop_box`.
        unsafe {
            let slot = &*ffi::duckdb_bind_get_extra_info(info).cast::<Slot>();
            let lent = slot.lock().unwrap_or_else(PoisonError::into_inner).clone();
            let batch = lent.ok_or_else(|| Failure("no batch is lent to this connection now".into()))?;
            for (name, data_type) in batch.names.iter().zip(&batch.types) {
                ffi::duckdb_bind_add_result_column(info, name.as_ptr(), data_type.0);
            }
            ffi::duckdb_bind_set_cardinality(info, batch.rows() as u64, true);
            let data = Box::into_raw(Box::new(batch));
            ffi::duckdb_bind_set_bind_data(info, data.cast(), Some(drop_box::<Arc<BoundBatch>>));
        }
        Ok(())
    };
    // SAFETY: DuckDB copies the message.
    guarded(body, |message| unsafe { ffi::duckdb_bind_set_error(info, message) });
}

unsafe extern "C" fn init(info: ffi::duckdb_init_info) {
    let position = Box::into_raw(Box::new(AtomicUsize::new(0)));
    // SAFETY: the position is freed once, by `drop_box`. One thread reads a batch, so that its rows come in their order.
    unsafe {
        ffi::duckdb_init_set_init_data(info, position.cast(), Some(drop_box::<AtomicUsize>));
        ffi::duckdb_init_set_max_threads(info, 1);
    }
}

unsafe extern "C" fn scan(info: ffi::duckdb_function_info, output: ffi::duckdb_data_chunk) {
    let body = || {
        // SAFETY: bind data and init data are what `bind` and `init` set. The output has the columns that `bind` told, as projections are
        // not pushed down; its vectors share the chunk's, which outlive it by being counted, and rest on the batch's memory.
        unsafe {
            let batch = &*ffi::duckdb_function_get_bind_data(info).cast::<Arc<BoundBatch>>();
            let position = &*ffi::duckdb_function_get_init_data(info).cast::<AtomicUsize>();
            let offset = position.fetch_add(vector_size(), Ordering::Relaxed);
            let rows = batch.rows().saturating_sub(offset).min(vector_size());
            if rows > 0 {
                let chunk = batch.chunk(offset, rows)?;
                for column in 0..batch.names.len() as u64 {
                    ffi::duckdb_vector_reference_vector(
                        ffi::duckdb_data_chunk_get_vector(output, column),
                        ffi::duckdb_data_chunk_get_vector(chunk.0, column),
                    );
                }
            }
            ffi::duckdb_data_chunk_set_size(output, rows as u64);
        }
        Ok(())
    };
    // SAFETY: DuckDB copies the message.
    guarded(body, |message| unsafe { ffi::duckdb_function_set_error(info, message) });
}
