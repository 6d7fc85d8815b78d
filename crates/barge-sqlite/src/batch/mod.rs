//! `{batch}`: a record batch as a relation that SQLite reads in place.
//!
//! Two parts: [`cells`] makes SQLite's values from Arrow arrays in plain Rust; [`module`] is the virtual table that hands
//! them to SQLite.

pub(crate) mod cells;
pub(crate) mod module;

use std::cell::Cell;

pub(crate) use cells::Cells;

/// A batch while a statement reads it, and which of its rows the statement sees.
///
/// It lives on one thread, the connection's.
#[derive(Debug)]
pub(crate) struct BoundBatch {
    pub(crate) columns: Vec<Cells>,
    /// The first row and the end of the rows that the next statement sees.
    range: Cell<(usize, usize)>,
    /// The row that a statement read last.
    last: Cell<usize>,
}

impl BoundBatch {
    pub(crate) fn new(columns: Vec<Cells>, rows: usize) -> Self {
        BoundBatch { columns, range: Cell::new((0, rows)), last: Cell::new(0) }
    }

    /// Shows the statements that start from now on one row only. Its ordinal stays what it is in the batch.
    pub(crate) fn show_row(&self, row: usize) {
        self.range.set((row, row + 1));
    }

    /// The row that a statement read last: where an insert failed, the row it failed on.
    pub(crate) fn last_row(&self) -> usize {
        self.last.get()
    }
}
