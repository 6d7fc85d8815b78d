//! `{batch}`: a record batch as a relation that SQLite reads in place.
//!
//! Two parts: [`cells`] makes SQLite's values from Arrow arrays in plain Rust; [`module`] is the virtual table that hands
//! them to SQLite.

pub(crate) mod cells;
pub(crate) mod module;

use std::cell::{Cell, RefCell};
use std::sync::Arc;

pub(crate) use cells::{Cells, Sink};
use tokio::sync::Notify;

/// A batch while a statement reads it, and which of its rows the statement sees.
///
/// It lives on one thread, the connection's.
#[derive(Debug)]
pub(crate) struct BoundBatch {
    pub(crate) columns: Vec<Cells>,
    /// The rows in the order in which they are read, where that isn't the batch's own.
    order: Option<Vec<u32>>,
    /// The first position and the end of those that the next statement sees.
    range: Cell<(usize, usize)>,
    /// The row that a statement read last.
    last: Cell<usize>,
    /// Whom to tell when a statement comes to a position.
    watch: RefCell<Option<(usize, Arc<Notify>)>>,
}

impl BoundBatch {
    pub(crate) fn new(columns: Vec<Cells>, rows: usize) -> Self {
        BoundBatch {
            columns,
            order: None,
            range: Cell::new((0, rows)),
            last: Cell::new(0),
            watch: RefCell::default(),
        }
    }

    /// Has the rows read in the order of a column, where that holds integers: a search for each then goes through the tree
    /// from left to right, and finds most pages in the processor's cache. Not for statements that rely on the batch's order.
    pub(crate) fn sorted_by(mut self, column: usize) -> Self {
        self.order = self.columns.get(column).and_then(Cells::sorted_rows);
        self
    }

    /// The row that is read at a position.
    #[inline]
    pub(crate) fn row_at(&self, position: usize) -> usize {
        self.order.as_ref().map_or(position, |order| order[position] as usize)
    }

    /// Some cells of a row, for a message.
    pub(crate) fn shown(&self, places: &[usize], row: usize) -> String {
        let cells = places.iter().map(|place| {
            let mut shown = Shown(String::new());
            self.columns[*place].put(row, &mut shown);
            shown.0
        });
        cells.collect::<Vec<_>>().join(", ")
    }

    /// Puts what was found out position by position into the order of the rows.
    pub(crate) fn by_row<T: Clone>(&self, by_position: Vec<T>) -> Vec<T> {
        let Some(order) = &self.order else { return by_position };
        let mut by_row = by_position.clone();
        for (row, found) in order.iter().zip(by_position) {
            by_row[*row as usize] = found;
        }
        by_row
    }

    /// Has somebody told when the next statement comes to a position.
    pub(crate) fn tell_at(&self, position: usize, whom: Arc<Notify>) {
        self.watch.replace(Some((position, whom)));
    }

    /// The position at which somebody wants to be told.
    fn watched(&self) -> Option<usize> {
        self.watch.borrow().as_ref().map(|(position, _)| *position)
    }

    fn tell(&self) {
        if let Some((_, whom)) = self.watch.take() {
            whom.notify_one();
        }
    }

    /// Shows the statements that start from now on one row only, the one at a position. Its ordinal stays what it is in
    /// the batch.
    pub(crate) fn show_position(&self, position: usize) {
        self.range.set((position, position + 1));
    }

    /// The row that a statement read last: where an insert failed, the row it failed on.
    pub(crate) fn last_row(&self) -> usize {
        self.last.get()
    }
}

/// A cell as a message shows it.
struct Shown(String);

/// Characters of a text that a message shows.
const SHOWN_MAX: usize = 100;

impl Sink<'_> for Shown {
    fn null(&mut self) {
        self.0.push_str("NULL");
    }

    fn integer(&mut self, value: i64) {
        self.0 = value.to_string();
    }

    fn real(&mut self, value: f64) {
        self.0 = value.to_string();
    }

    fn text(&mut self, value: &str) {
        self.short_lived_text(value);
    }

    fn blob(&mut self, value: &[u8]) {
        self.short_lived_blob(value);
    }

    fn short_lived_text(&mut self, value: &str) {
        let shown: String = value.chars().take(SHOWN_MAX).collect();
        let more = if shown.len() < value.len() { "…" } else { "" };
        self.0 = format!("\"{shown}{more}\"");
    }

    fn short_lived_blob(&mut self, value: &[u8]) {
        self.0 = format!("a blob of {} bytes", value.len());
    }
}
