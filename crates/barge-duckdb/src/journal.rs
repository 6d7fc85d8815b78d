//! What a transaction did, so that it can be done again.
//!
//! DuckDB has no savepoints: a statement that fails takes its transaction with it. So the steps that went through are kept, and after
//! a failure they are applied again in a new transaction. Where somebody ran SQL of their own or read, what they saw may have
//! decided what came after, and so such a transaction is not done again: it is gone.

use arrow::array::Int64Array;
use barge_core::TableName;
use barge_core::store::{Step, Target, Token};

/// The bytes of steps that are kept. A transaction with more of them is gone when a statement fails.
const BYTES_MAX: usize = 256 << 20;

/// One thing that a transaction did.
#[derive(Clone)]
pub(crate) enum Entry {
    Claim(Token),
    Step {
        step: Step,
        /// The keys that were drawn for its rows.
        keys: Option<Int64Array>,
        /// The rows it changed. If they're others when it is done again, somebody else wrote meanwhile.
        affected: u64,
    },
}

/// What the open transaction did.
#[derive(Default)]
pub(crate) struct Journal {
    entries: Vec<Entry>,
    bytes: usize,
    /// Whether something was done that can't be done again.
    incomplete: bool,
    /// The tables of which rows or their values may be gone.
    released: Vec<TableName>,
    /// Whether SQL was run that may have written anything.
    ran_sql: bool,
    wrote: bool,
}

impl Journal {
    pub(crate) fn push(&mut self, entry: Entry) {
        if let Entry::Step { step, .. } = &entry {
            self.wrote = true;
            self.bytes += step.batch.get_array_memory_size();
            let target = &step.target;
            if releases(target) && !self.released.contains(target.table()) {
                self.released.push(target.table().clone());
            }
        }
        self.entries.push(entry);
        if self.bytes > BYTES_MAX {
            self.incomplete = true;
        }
        if self.incomplete {
            self.entries = Vec::new();
        }
    }

    /// Notes that somebody read, or ran a statement of their own.
    pub(crate) fn push_sql(&mut self, writes: bool) {
        self.incomplete = true;
        self.entries = Vec::new();
        self.ran_sql |= writes;
        self.wrote |= writes;
    }

    /// What was done, where it can be done again.
    pub(crate) fn entries(&self) -> Option<&[Entry]> {
        (!self.incomplete).then_some(&self.entries)
    }

    /// How many things were done.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Forgets what was done after the first so many things: it is to be undone.
    pub(crate) fn truncate(&mut self, len: usize) {
        self.entries.truncate(len);
    }

    /// Whether nothing was written yet.
    pub(crate) fn is_clean(&self) -> bool {
        !self.wrote
    }

    /// Whether a parent of the target's rows may be gone that DuckDB's index still shows: it then takes children without a parent.
    pub(crate) fn may_lack_parents(&self, target: &Target) -> bool {
        let mut parents = target.description.foreign_keys.iter().map(|key| &key.parent);
        let released = |parent: &TableName| {
            self.released.iter().any(|table| table.name().eq_ignore_ascii_case(parent.name()))
        };
        parents.any(|parent| self.ran_sql || released(parent))
    }
}

/// Whether a step may take away a key that foreign keys name.
fn releases(target: &Target) -> bool {
    use barge_core::Operation::*;
    let referenced = || target.description.referenced_by.iter().flat_map(|reference| &reference.columns);
    match target.operation {
        Delete => true,
        Insert | InsertIfAbsent => false,
        Update | Upsert => target.assigned().any(|index| {
            referenced().any(|column| column.eq_ignore_ascii_case(target.columns[index].name()))
        }),
    }
}
