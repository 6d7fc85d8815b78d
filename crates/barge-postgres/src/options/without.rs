//! What a server that is not quite PostgreSQL lacks.

use super::parameters::Wrong;

/// Parts of PostgreSQL that are left alone, for servers that speak its protocol and lack them. All false by default: everything is used.
///
/// What is left always needs several `unnest` in a select list, in step, and in `FROM`, `generate_series`, `INSERT … ON CONFLICT`, `UPDATE … FROM`, `DELETE … USING`, `RETURNING` in common table
/// expressions, savepoints, and the catalog `pg_catalog`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Without {
    /// No `COPY … (FORMAT binary)`: inserts of many rows are statements over arrays instead, which takes about half as long again.
    pub copy: bool,
    /// No temporary tables and sequences: large batches travel as arrays, and the rows that fail are searched for by halves.
    pub temporary: bool,
    /// No system columns `xmax` and `xmin`: an upsert that has to tell new rows from old ones updates first and inserts then, as it does in
    /// partitioned tables; updates give every row back instead of a count.
    pub xmax: bool,
}

impl Without {
    /// The names of the parts, with commas between them.
    pub(super) fn parse(value: &str) -> Result<Self, Wrong> {
        let mut without = Without::default();
        for name in value.split(',').filter(|name| !name.is_empty()) {
            match name {
                "copy" => without.copy = true,
                "temporary" => without.temporary = true,
                "xmax" => without.xmax = true,
                _ => return Err(Wrong::Value("copy, temporary and xmax, with commas between them")),
            }
        }
        Ok(without)
    }

    /// Leaves COPY alone.
    #[must_use]
    pub fn copy(mut self) -> Self {
        self.copy = true;
        self
    }

    /// Leaves temporary tables and sequences alone.
    #[must_use]
    pub fn temporary(mut self) -> Self {
        self.temporary = true;
        self
    }

    /// Leaves the columns `xmax` and `xmin` alone.
    #[must_use]
    pub fn xmax(mut self) -> Self {
        self.xmax = true;
        self
    }
}
