//! A prepared statement, as thin as speed needs: rows are read cell by cell without a copy, and a batch is bound as a pointer.
//!
//! Every run ends with a reset and, where a batch was bound, with its release, in this order: SQLite's registers may
//! point into the batch's arrays until the reset.

use std::cell::Cell;
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::marker::PhantomData;
use std::ptr::{self, NonNull};
use std::rc::Rc;
use std::slice;

use libsqlite3_sys as ffi;

use crate::batch::BoundBatch;
use crate::batch::cells::Sink;
use crate::batch::module::POINTER_TYPE;

/// What SQLite reported.
#[derive(Clone, Debug)]
pub(crate) struct Failure {
    /// The extended result code.
    pub(crate) code: c_int,
    pub(crate) message: String,
}

impl Failure {
    /// The connection's last failure.
    ///
    /// # Safety
    /// `db` must be an open connection of this thread.
    pub(crate) unsafe fn last(db: *mut ffi::sqlite3) -> Self {
        // SAFETY: the caller's; the message is copied before anything else happens to the connection.
        unsafe {
            let message = CStr::from_ptr(ffi::sqlite3_errmsg(db)).to_string_lossy().into_owned();
            Failure { code: ffi::sqlite3_extended_errcode(db), message }
        }
    }

    /// The code without what extends it.
    pub(crate) fn primary(&self) -> c_int {
        self.code & 0xff
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

/// A prepared statement. Belongs to one connection and must be dropped before it.
#[derive(Debug)]
pub(crate) struct Statement {
    raw: NonNull<ffi::sqlite3_stmt>,
    columns: usize,
    has_batch: Cell<bool>,
}

/// A value in a result row.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Value<'a> {
    Null,
    Integer(i64),
    Real(f64),
    /// Not checked to be UTF-8: SQLite stores what it is given.
    Text(&'a [u8]),
    Blob(&'a [u8]),
}

impl Value<'_> {
    /// How long a text or blob is.
    #[inline]
    pub(crate) fn bytes(self) -> usize {
        match self {
            Value::Text(bytes) | Value::Blob(bytes) => bytes.len(),
            _ => 0,
        }
    }
}

impl Statement {
    /// Prepares the first statement of a text. `None` where it holds none. The `&str` is what follows it.
    ///
    /// # Safety
    /// `db` must be an open connection of this thread that outlives the statement.
    pub(crate) unsafe fn prepare(db: *mut ffi::sqlite3, sql: &str) -> Result<(Option<Self>, &str), Failure> {
        let Ok(length) = c_int::try_from(sql.len()) else {
            return Err(Failure {
                code: ffi::SQLITE_TOOBIG,
                message: "the statement's text is too long".into(),
            });
        };
        let (mut raw, mut tail) = (ptr::null_mut(), ptr::null());
        let start = sql.as_ptr().cast::<c_char>();
        // SAFETY: the text has `length` bytes; SQLite reads no further and keeps its own copy.
        let code = unsafe {
            let flags = ffi::SQLITE_PREPARE_PERSISTENT;
            ffi::sqlite3_prepare_v3(db, start, length, flags, &raw mut raw, &raw mut tail)
        };
        if code != ffi::SQLITE_OK {
            // SAFETY: the connection is open.
            return Err(unsafe { Failure::last(db) });
        }
        // SAFETY: SQLite sets the tail inside the text or at its end.
        let used = unsafe { tail.offset_from(start) };
        let tail = usize::try_from(used).ok().and_then(|used| sql.get(used..)).unwrap_or_default();
        let statement = NonNull::new(raw).map(|raw| {
            // SAFETY: the statement was just prepared.
            let columns = unsafe { ffi::sqlite3_column_count(raw.as_ptr()) } as usize;
            Statement { raw, columns, has_batch: Cell::new(false) }
        });
        Ok((statement, tail))
    }

    /// Starts a run. Dropping the run resets the statement and releases what was bound.
    pub(crate) fn run(&self) -> Run<'_> {
        Run { statement: self }
    }

    /// Starts a run over a batch, bound to `?1`. A statement without `?1` sees nothing of it.
    pub(crate) fn run_over(&self, batch: &Rc<BoundBatch>) -> Run<'_> {
        self.bind_batch(batch);
        self.run()
    }

    fn bind_batch(&self, batch: &Rc<BoundBatch>) {
        unsafe extern "C" fn release(batch: *mut c_void) {
            // SAFETY: it is the reference that `bind_batch` gave away, given back once.
            drop(unsafe { Rc::from_raw(batch.cast::<BoundBatch>().cast_const()) });
        }
        let pointer = Rc::into_raw(Rc::clone(batch)).cast_mut().cast();
        // SAFETY: the statement is not running (every run resets it). SQLite calls `release` once: at the next binding, when it
        // is finalized, or at once where there is no `?1`.
        unsafe {
            ffi::sqlite3_bind_pointer(self.raw.as_ptr(), 1, pointer, POINTER_TYPE.as_ptr(), Some(release));
        }
        self.has_batch.set(true);
    }

    /// Binds a batch's row: its columns of the given places, to the parameters from `?1` on. What is bound is lent by the batch
    /// until the next [`release`](Statement::release).
    ///
    /// # Safety
    /// The statement must be released, or another row bound, before the batch is dropped.
    pub(crate) unsafe fn bind_row(&self, batch: &Rc<BoundBatch>, places: &[usize], row: usize) {
        self.has_batch.set(true);
        for (index, place) in places.iter().enumerate() {
            batch.columns[*place]
                .put(row, &mut Parameter { raw: self.raw.as_ptr(), index: index as c_int + 1 });
        }
    }

    /// Runs to its first row or its end, with what was bound left bound; whether there was a row.
    pub(crate) fn step_and_keep(&self) -> Result<bool, Failure> {
        let found = self.step();
        self.reset();
        found
    }

    /// Lets go of a bound batch.
    pub(crate) fn release(&self) {
        if self.has_batch.replace(false) {
            // SAFETY: the statement is not running.
            unsafe { ffi::sqlite3_clear_bindings(self.raw.as_ptr()) };
        }
    }

    /// Binds text to a parameter.
    pub(crate) fn bind_text(&self, index: c_int, text: &str) {
        let (pointer, length) = (text.as_ptr().cast(), text.len() as u64);
        // SAFETY: the statement is not running; SQLite copies the text.
        unsafe {
            let raw = self.raw.as_ptr();
            let keep = ffi::SQLITE_TRANSIENT();
            ffi::sqlite3_bind_text64(raw, index, pointer, length, keep, ffi::SQLITE_UTF8 as u8);
        }
    }

    /// Binds an integer to a parameter.
    pub(crate) fn bind_integer(&self, index: c_int, value: i64) {
        // SAFETY: the statement is not running.
        unsafe { ffi::sqlite3_bind_int64(self.raw.as_ptr(), index, value) };
    }

    /// The number of result columns; 0 for a statement that returns no rows.
    pub(crate) fn columns(&self) -> usize {
        self.columns
    }

    /// Whether running it leaves the database as it is.
    pub(crate) fn is_read_only(&self) -> bool {
        // SAFETY: the statement is alive.
        unsafe { ffi::sqlite3_stmt_readonly(self.raw.as_ptr()) != 0 }
    }

    /// A result column's name.
    pub(crate) fn column_name(&self, index: usize) -> String {
        // SAFETY: the statement is alive; SQLite's text is copied at once, and is null only where memory ran out.
        unsafe { text_of(ffi::sqlite3_column_name(self.raw.as_ptr(), index as c_int)).unwrap_or_default() }
    }

    /// The type with which the table's column behind a result column was declared; `None` for an expression.
    pub(crate) fn declared_type(&self, index: usize) -> Option<String> {
        // SAFETY: as above.
        unsafe { text_of(ffi::sqlite3_column_decltype(self.raw.as_ptr(), index as c_int)) }
    }

    /// Whether there is a row now.
    fn step(&self) -> Result<bool, Failure> {
        // SAFETY: the statement is alive and of this thread.
        match unsafe { ffi::sqlite3_step(self.raw.as_ptr()) } {
            ffi::SQLITE_ROW => Ok(true),
            ffi::SQLITE_DONE => Ok(false),
            // SAFETY: the statement's connection is open.
            _ => Err(unsafe { Failure::last(ffi::sqlite3_db_handle(self.raw.as_ptr())) }),
        }
    }

    fn reset(&self) {
        // SAFETY: the statement is alive. The code repeats the run's failure, which was reported already.
        unsafe { ffi::sqlite3_reset(self.raw.as_ptr()) };
    }
}

impl Drop for Statement {
    fn drop(&mut self) {
        // SAFETY: the connection outlives it, and nothing uses it afterwards.
        unsafe { ffi::sqlite3_finalize(self.raw.as_ptr()) };
    }
}

/// Where a cell of a row is bound.
struct Parameter {
    raw: *mut ffi::sqlite3_stmt,
    index: c_int,
}

// SAFETY of each call: the statement is alive and not running. What is lent lives in the batch, which the caller of `bind_row` keeps until it
// releases the statement; the rest SQLite copies. A value that is too long leaves NULL bound; `check` refused it before.
impl<'a> Sink<'a> for Parameter {
    #[inline]
    fn null(&mut self) {
        // SAFETY: see above.
        unsafe { ffi::sqlite3_bind_null(self.raw, self.index) };
    }

    #[inline]
    fn integer(&mut self, value: i64) {
        // SAFETY: see above.
        unsafe { ffi::sqlite3_bind_int64(self.raw, self.index, value) };
    }

    #[inline]
    fn real(&mut self, value: f64) {
        // SAFETY: see above.
        unsafe { ffi::sqlite3_bind_double(self.raw, self.index, value) };
    }

    #[inline]
    fn text(&mut self, value: &'a str) {
        // SAFETY: see above.
        unsafe { self.put_text(value, ffi::SQLITE_STATIC()) };
    }

    #[inline]
    fn blob(&mut self, value: &'a [u8]) {
        // SAFETY: see above.
        unsafe { self.put_blob(value, ffi::SQLITE_STATIC()) };
    }

    fn short_lived_text(&mut self, value: &str) {
        // SAFETY: see above.
        unsafe { self.put_text(value, ffi::SQLITE_TRANSIENT()) };
    }

    fn short_lived_blob(&mut self, value: &[u8]) {
        // SAFETY: see above.
        unsafe { self.put_blob(value, ffi::SQLITE_TRANSIENT()) };
    }
}

impl Parameter {
    /// # Safety
    /// The statement must be alive and not running; with `SQLITE_STATIC` the value must live until it is released.
    #[inline]
    unsafe fn put_text(&self, value: &str, keep: ffi::sqlite3_destructor_type) {
        let (start, length) = (value.as_ptr().cast(), value.len() as u64);
        // SAFETY: the caller's.
        unsafe {
            ffi::sqlite3_bind_text64(self.raw, self.index, start, length, keep, ffi::SQLITE_UTF8 as u8)
        };
    }

    /// # Safety
    /// As [`put_text`](Parameter::put_text).
    #[inline]
    unsafe fn put_blob(&self, value: &[u8], keep: ffi::sqlite3_destructor_type) {
        // A null pointer would make it NULL; an empty slice's pointer is never null.
        // SAFETY: the caller's.
        unsafe {
            ffi::sqlite3_bind_blob64(self.raw, self.index, value.as_ptr().cast(), value.len() as u64, keep)
        };
    }
}

/// A run of a statement.
pub(crate) struct Run<'s> {
    statement: &'s Statement,
}

impl Run<'_> {
    /// Goes to the next row; `None` at the end.
    pub(crate) fn next(&mut self) -> Result<Option<Row<'_>>, Failure> {
        let raw = self.statement.raw;
        Ok(self.statement.step()?.then_some(Row { raw, run: PhantomData }))
    }

    /// Runs to the end, over any rows.
    pub(crate) fn finish(mut self) -> Result<(), Failure> {
        while self.next()?.is_some() {}
        Ok(())
    }
}

impl Drop for Run<'_> {
    fn drop(&mut self) {
        self.statement.reset();
        self.statement.release();
    }
}

/// The row on which a run stands, until it goes on.
#[derive(Clone, Copy)]
pub(crate) struct Row<'r> {
    raw: NonNull<ffi::sqlite3_stmt>,
    run: PhantomData<&'r ()>,
}

impl<'r> Row<'r> {
    /// A cell, as SQLite has it.
    #[inline]
    pub(crate) fn value(&self, index: usize) -> Value<'r> {
        // SAFETY: the statement stands on a row as long as `'r`: going on needs the run mutably. The value is read on the
        // connection's own thread, where no mutex is needed, and as its own type only, so that SQLite converts nothing and the
        // pointers stay valid.
        unsafe {
            let value = ffi::sqlite3_column_value(self.raw.as_ptr(), index as c_int);
            match ffi::sqlite3_value_type(value) {
                ffi::SQLITE_INTEGER => Value::Integer(ffi::sqlite3_value_int64(value)),
                ffi::SQLITE_FLOAT => Value::Real(ffi::sqlite3_value_double(value)),
                ffi::SQLITE_TEXT => {
                    let start = ffi::sqlite3_value_text(value);
                    Value::Text(bytes_of(start, ffi::sqlite3_value_bytes(value)))
                }
                ffi::SQLITE_BLOB => {
                    let start = ffi::sqlite3_value_blob(value).cast();
                    Value::Blob(bytes_of(start, ffi::sqlite3_value_bytes(value)))
                }
                _ => Value::Null,
            }
        }
    }

    /// A cell as an integer; 0 where it is none.
    #[inline]
    pub(crate) fn integer(&self, index: usize) -> i64 {
        // SAFETY: as in `value`.
        unsafe { ffi::sqlite3_column_int64(self.raw.as_ptr(), index as c_int) }
    }
}

/// # Safety
/// `start` must be null or point to `length` bytes that live as long as `'a`.
#[inline]
unsafe fn bytes_of<'a>(start: *const u8, length: c_int) -> &'a [u8] {
    if start.is_null() || length <= 0 {
        return &[];
    }
    // SAFETY: the caller's.
    unsafe { slice::from_raw_parts(start, length as usize) }
}

/// # Safety
/// `text` must be null or end with a NUL.
pub(crate) unsafe fn text_of(text: *const c_char) -> Option<String> {
    // SAFETY: the caller's.
    (!text.is_null()).then(|| unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned())
}

/// What SQLite knows of a column without reading anything.
pub(crate) struct ColumnMetadata {
    /// The type as it was declared; empty without one.
    pub(crate) declared: String,
    pub(crate) collation: String,
    pub(crate) not_null: bool,
    /// Whether the table draws keys that never repeat.
    pub(crate) autoincrement: bool,
}

/// What SQLite knows of a column. `None` for views.
///
/// # Safety
/// `db` must be an open connection of this thread.
pub(crate) unsafe fn column_metadata(
    db: *mut ffi::sqlite3,
    schema: &str,
    table: &str,
    column: &str,
) -> Option<ColumnMetadata> {
    let (schema, table, column) =
        (CString::new(schema).ok()?, CString::new(table).ok()?, CString::new(column).ok()?);
    let (mut declared, mut collation) = (ptr::null(), ptr::null());
    let (mut not_null, mut key, mut autoincrement) = (0, 0, 0);
    // SAFETY: every pointer lives through the call; the text it gives is copied at once.
    unsafe {
        let code = ffi::sqlite3_table_column_metadata(
            db,
            schema.as_ptr(),
            table.as_ptr(),
            column.as_ptr(),
            &raw mut declared,
            &raw mut collation,
            &raw mut not_null,
            &raw mut key,
            &raw mut autoincrement,
        );
        (code == ffi::SQLITE_OK).then(|| ColumnMetadata {
            declared: text_of(declared).unwrap_or_default(),
            collation: text_of(collation).unwrap_or_default(),
            not_null: not_null != 0,
            autoincrement: autoincrement != 0,
        })
    }
}
