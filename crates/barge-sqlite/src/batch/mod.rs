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
    /// The rows in the order in which they are read, where that isn't the batch's own.
    order: Option<Vec<u32>>,
    /// The first row and the end of the rows that the next statement sees.
    range: Cell<(usize, usize)>,
    /// The row that a statement read last.
    last: Cell<usize>,
}

impl BoundBatch {
    pub(crate) fn new(columns: Vec<Cells>, rows: usize) -> Self {
        BoundBatch { columns, order: None, range: Cell::new((0, rows)), last: Cell::new(0) }
    }

    /// Has the rows read in the order of their only column, where that holds integers: a search for each then goes through the tree
    /// from left to right, and finds most pages in the processor's cache. Not for statements that rely on the batch's order.
    pub(crate) fn sorted(mut self) -> Self {
        if let [column] = self.columns.as_slice() {
            self.order = column.sorted_rows();
        }
        self
    }

    /// The row that is read at a position.
    #[inline]
    fn row_at(&self, position: usize) -> usize {
        self.order.as_ref().map_or(position, |order| order[position] as usize)
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
