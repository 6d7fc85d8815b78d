//! Look-ups: which rows of a table, by which keys, in which order.

use std::sync::Arc;

use arrow::array::RecordBatch;

use crate::Table;

/// Which way rows are ordered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// The least value first, NULL last.
    Ascending,
    /// NULL first, then the greatest value.
    Descending,
}

/// A column that rows are ordered by. NULL counts as greater than every value, on every store.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct OrderBy {
    /// The column.
    pub column: String,
    /// Which way.
    pub direction: Direction,
}

/// A look-up of rows by some columns, the key's or others.
///
/// A key that no row can have finds nothing and is no error: one that holds NULL, or a value that the column can't hold.
#[derive(Clone, Debug)]
pub struct LookUp {
    /// The table and the columns wanted.
    pub table: Arc<Table>,
    /// The keys: columns of the table, by name. A key that repeats finds its rows each time. There may be any number of them: a store that can't
    /// take all in one statement cuts them, and still reads all rows of one moment.
    pub keys: RecordBatch,
    /// How the rows of one key follow each other, whatever comes between them; nothing is added that would break ties. Empty: in any order.
    pub order: Vec<OrderBy>,
    /// How many rows of each key are wanted, the first ones of the order. A store reads no more than these where an index gives them in order.
    pub limit: Option<u32>,
}

impl LookUp {
    /// All rows of each key, in any order.
    pub fn new(table: Arc<Table>, keys: RecordBatch) -> Self {
        LookUp { table, keys, order: Vec::new(), limit: None }
    }
}
