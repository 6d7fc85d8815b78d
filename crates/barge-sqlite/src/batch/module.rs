//! The virtual table behind `{batch}`: `barge_batch_N(?1)`, N columns, with a [`BoundBatch`] bound to `?1` as a pointer.
//!
//! Constraints, each of which an experiment taught: columns have no type, so that comparisons take the target's affinity; the table
//! costs 10⁹ to start, so that the planner never puts it inside a loop; rows come in the batch's order, so that `ORDER BY
//! _ordinal` sorts nothing.
//!
//! Lifetime: the statement's binding holds one reference to the batch and every open cursor another. Text and blobs are lent to
//! SQLite (`SQLITE_STATIC`) from arrays that live as long as the batch; SQLite drops every register that points to them when
//! the statement is reset, and the binding is taken away only after that (see [`Statement`](crate::statement::Statement)).
//! No panic crosses into C.

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::ptr;
use std::rc::Rc;

use libsqlite3_sys as ffi;

use super::BoundBatch;
use super::Sink;

/// The name under which a batch's pointer is bound: SQLite hands it out only to who knows the name.
pub(crate) const POINTER_TYPE: &CStr = c"barge_batch";

/// What starting a scan is said to cost, and so what putting it inside a loop would cost for each turn.
const COST: f64 = 1e9;

/// The name of the table for a number of columns.
pub(crate) fn table_name(columns: usize) -> String {
    format!("barge_batch_{columns}")
}

/// Registers the table for a number of columns.
///
/// # Safety
/// `db` must be an open connection.
pub(crate) unsafe fn register(db: *mut ffi::sqlite3, columns: usize) -> c_int {
    let Ok(name) = CString::new(table_name(columns)) else { return ffi::SQLITE_MISUSE };
    // SAFETY: `db` is open; SQLite copies the name; the module is static; the client data is a number, never followed.
    unsafe {
        ffi::sqlite3_create_module_v2(db, name.as_ptr(), &raw const MODULE.0, columns as *mut c_void, None)
    }
}

struct Module(ffi::sqlite3_module);

// SAFETY: nothing in it is ever changed.
unsafe impl Sync for Module {}

// Without xCreate the table is there by its name and nobody can CREATE another; without xUpdate it is read-only.
static MODULE: Module = Module(ffi::sqlite3_module {
    iVersion: 0,
    xCreate: None,
    xConnect: Some(connect),
    xBestIndex: Some(best_index),
    xDisconnect: Some(disconnect),
    xDestroy: None,
    xOpen: Some(open),
    xClose: Some(close),
    xFilter: Some(filter),
    xNext: Some(next),
    xEof: Some(eof),
    xColumn: Some(column),
    xRowid: Some(rowid),
    xUpdate: None,
    xBegin: None,
    xSync: None,
    xCommit: None,
    xRollback: None,
    xFindFunction: None,
    xRename: None,
    xSavepoint: None,
    xRelease: None,
    xRollbackTo: None,
    xShadowName: None,
    xIntegrity: None,
});

/// SQLite sees only `base`, which therefore comes first.
#[repr(C)]
struct Table {
    base: ffi::sqlite3_vtab,
    /// The number of the batch's columns, which is the place of `_ordinal`; the argument comes after it.
    columns: c_int,
}

#[repr(C)]
struct Cursor {
    base: ffi::sqlite3_vtab_cursor,
    batch: Option<Rc<BoundBatch>>,
    position: usize,
    end: usize,
    /// The position at which the batch tells somebody; `usize::MAX`, which is none, where nobody wants to know.
    watched: usize,
}

/// Runs a callback so that a panic becomes an error.
fn guarded(callback: impl FnOnce() -> c_int) -> c_int {
    catch_unwind(AssertUnwindSafe(callback)).unwrap_or(ffi::SQLITE_INTERNAL)
}

unsafe extern "C" fn connect(
    db: *mut ffi::sqlite3,
    client: *mut c_void,
    _: c_int,
    _: *const *const c_char,
    table: *mut *mut ffi::sqlite3_vtab,
    _: *mut *mut c_char,
) -> c_int {
    guarded(|| {
        let columns = client as usize;
        let names: String = (0..columns).map(|column| format!("c{column}, ")).collect();
        let Ok(sql) = CString::new(format!("CREATE TABLE batch({names}_ordinal, argument HIDDEN)")) else {
            return ffi::SQLITE_INTERNAL;
        };
        // SAFETY: SQLite calls with its own open connection and copies the text.
        let code = unsafe { ffi::sqlite3_declare_vtab(db, sql.as_ptr()) };
        if code != ffi::SQLITE_OK {
            return code;
        }
        let base = ffi::sqlite3_vtab { pModule: ptr::null(), nRef: 0, zErrMsg: ptr::null_mut() };
        let new = Box::new(Table { base, columns: columns as c_int });
        // SAFETY: SQLite gives room for the pointer; `disconnect` frees the box.
        unsafe { *table = Box::into_raw(new).cast() };
        ffi::SQLITE_OK
    })
}

unsafe extern "C" fn disconnect(table: *mut ffi::sqlite3_vtab) -> c_int {
    // SAFETY: `connect` made it, and SQLite calls this once, last.
    drop(unsafe { Box::from_raw(table.cast::<Table>()) });
    ffi::SQLITE_OK
}

unsafe extern "C" fn best_index(table: *mut ffi::sqlite3_vtab, info: *mut ffi::sqlite3_index_info) -> c_int {
    guarded(|| {
        // SAFETY: both live through this call; the arrays have the lengths beside them, or are null with length 0.
        let (table, info) = unsafe { (&*table.cast::<Table>(), &mut *info) };
        for index in 0..info.nConstraint as usize {
            // SAFETY: `index` is below the arrays' length.
            let constraint = unsafe { &*info.aConstraint.add(index) };
            if constraint.iColumn == table.columns + 1
                && constraint.usable != 0
                && c_int::from(constraint.op) == ffi::SQLITE_INDEX_CONSTRAINT_EQ
            {
                // SAFETY: as above.
                let usage = unsafe { &mut *info.aConstraintUsage.add(index) };
                (usage.argvIndex, usage.omit) = (1, 1);
                info.estimatedCost = COST;
                if info.nOrderBy == 1 {
                    // SAFETY: there is one.
                    let order = unsafe { &*info.aOrderBy };
                    info.orderByConsumed = c_int::from(order.iColumn == table.columns && order.desc == 0);
                }
                return ffi::SQLITE_OK;
            }
        }
        // No batch in this plan: SQLite must find another.
        ffi::SQLITE_CONSTRAINT
    })
}

unsafe extern "C" fn open(_: *mut ffi::sqlite3_vtab, cursor: *mut *mut ffi::sqlite3_vtab_cursor) -> c_int {
    let base = ffi::sqlite3_vtab_cursor { pVtab: ptr::null_mut() };
    let new = Box::new(Cursor { base, batch: None, position: 0, end: 0, watched: usize::MAX });
    // SAFETY: SQLite gives room for the pointer; `close` frees the box.
    unsafe { *cursor = Box::into_raw(new).cast() };
    ffi::SQLITE_OK
}

unsafe extern "C" fn close(cursor: *mut ffi::sqlite3_vtab_cursor) -> c_int {
    // SAFETY: `open` made it, and SQLite calls this once, last.
    let cursor = unsafe { Box::from_raw(cursor.cast::<Cursor>()) };
    guarded(|| {
        drop(cursor);
        ffi::SQLITE_OK
    })
}

unsafe extern "C" fn filter(
    cursor: *mut ffi::sqlite3_vtab_cursor,
    _: c_int,
    _: *const c_char,
    count: c_int,
    arguments: *mut *mut ffi::sqlite3_value,
) -> c_int {
    guarded(|| {
        // SAFETY: `open` made the cursor, and SQLite calls back one at a time.
        let cursor = unsafe { &mut *cursor.cast::<Cursor>() };
        (cursor.batch, cursor.position, cursor.end) = (None, 0, 0);
        if count != 1 {
            return ffi::SQLITE_OK;
        }
        // SAFETY: there is one argument. Only `Statement::bind_batch` binds pointers of this type, and they are of `BoundBatch`.
        let pointer = unsafe { ffi::sqlite3_value_pointer(*arguments, POINTER_TYPE.as_ptr()) };
        if pointer.is_null() {
            return ffi::SQLITE_OK;
        }
        let pointer = pointer.cast::<BoundBatch>().cast_const();
        // SAFETY: the pointer came from `Rc::into_raw` on this thread, and the binding still holds its reference.
        let batch = unsafe {
            Rc::increment_strong_count(pointer);
            Rc::from_raw(pointer)
        };
        // SAFETY: SQLite sets `pVtab` before it calls, to a table that `connect` made.
        let table = unsafe { &*cursor.base.pVtab.cast::<Table>() };
        if batch.columns.len() != table.columns as usize {
            return ffi::SQLITE_MISUSE;
        }
        (cursor.position, cursor.end) = batch.range.get();
        cursor.watched = batch.watched().unwrap_or(usize::MAX);
        cursor.batch = Some(batch);
        ffi::SQLITE_OK
    })
}

unsafe extern "C" fn next(cursor: *mut ffi::sqlite3_vtab_cursor) -> c_int {
    // SAFETY: as in `filter`.
    let cursor = unsafe { &mut *cursor.cast::<Cursor>() };
    cursor.position += 1;
    if cursor.position == cursor.watched {
        return guarded(|| {
            cursor.batch.iter().for_each(|batch| batch.tell());
            ffi::SQLITE_OK
        });
    }
    ffi::SQLITE_OK
}

unsafe extern "C" fn eof(cursor: *mut ffi::sqlite3_vtab_cursor) -> c_int {
    // SAFETY: as in `filter`.
    let cursor = unsafe { &*cursor.cast::<Cursor>() };
    c_int::from(cursor.position >= cursor.end)
}

unsafe extern "C" fn rowid(cursor: *mut ffi::sqlite3_vtab_cursor, rowid: *mut ffi::sqlite3_int64) -> c_int {
    // SAFETY: as in `filter`; SQLite gives room for the number.
    unsafe { *rowid = (*cursor.cast::<Cursor>()).position as ffi::sqlite3_int64 };
    ffi::SQLITE_OK
}

unsafe extern "C" fn column(
    cursor: *mut ffi::sqlite3_vtab_cursor,
    context: *mut ffi::sqlite3_context,
    column: c_int,
) -> c_int {
    // SAFETY: as in `filter`.
    let cursor = unsafe { &*cursor.cast::<Cursor>() };
    guarded(|| {
        let Some(batch) = &cursor.batch else { return ffi::SQLITE_OK };
        let mut result = Result(context);
        let row = batch.row_at(cursor.position);
        batch.last.set(row);
        match batch.columns.get(column as usize) {
            Some(cells) => cells.put(row, &mut result),
            None if column as usize == batch.columns.len() => result.integer(row as i64),
            None => result.null(),
        }
        ffi::SQLITE_OK
    })
}

/// Where a cell goes.
struct Result(*mut ffi::sqlite3_context);

// SAFETY of each call: the context is SQLite's own and lives through the callback. What is lent (`'a`) lives in arrays that the
// binding keeps until the statement is reset; the rest SQLite copies before the call returns.
impl<'a> Sink<'a> for Result {
    #[inline]
    fn null(&mut self) {
        // SAFETY: see above.
        unsafe { ffi::sqlite3_result_null(self.0) };
    }

    #[inline]
    fn integer(&mut self, value: i64) {
        // SAFETY: see above.
        unsafe { ffi::sqlite3_result_int64(self.0, value) };
    }

    #[inline]
    fn real(&mut self, value: f64) {
        // SAFETY: see above.
        unsafe { ffi::sqlite3_result_double(self.0, value) };
    }

    #[inline]
    fn text(&mut self, value: &'a str) {
        // SAFETY: see above.
        unsafe { put_text(self.0, value, ffi::SQLITE_STATIC()) };
    }

    #[inline]
    fn blob(&mut self, value: &'a [u8]) {
        // SAFETY: see above.
        unsafe { put_blob(self.0, value, ffi::SQLITE_STATIC()) };
    }

    fn short_lived_text(&mut self, value: &str) {
        // SAFETY: see above.
        unsafe { put_text(self.0, value, ffi::SQLITE_TRANSIENT()) };
    }

    fn short_lived_blob(&mut self, value: &[u8]) {
        // SAFETY: see above.
        unsafe { put_blob(self.0, value, ffi::SQLITE_TRANSIENT()) };
    }
}

/// # Safety
/// The context must be of the running callback; with `SQLITE_STATIC` the value must outlive the statement's run.
#[inline]
unsafe fn put_text(context: *mut ffi::sqlite3_context, value: &str, keep: ffi::sqlite3_destructor_type) {
    let (pointer, length) = (value.as_ptr().cast(), value.len() as u64);
    // SAFETY: the caller's.
    unsafe { ffi::sqlite3_result_text64(context, pointer, length, keep, ffi::SQLITE_UTF8 as u8) };
}

/// # Safety
/// As [`put_text`].
#[inline]
unsafe fn put_blob(context: *mut ffi::sqlite3_context, value: &[u8], keep: ffi::sqlite3_destructor_type) {
    // A null pointer would make it NULL; an empty slice's pointer is never null.
    // SAFETY: the caller's.
    unsafe { ffi::sqlite3_result_blob64(context, value.as_ptr().cast(), value.len() as u64, keep) };
}
