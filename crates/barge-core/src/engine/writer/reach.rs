//! Which batches may be flushed beside each other, where inserts are declared unordered.

use std::sync::Arc;

use super::buffer::Rows;
use super::plan::same_table;
use crate::engine;
use crate::store::{Description, Operation, TableKind, Target};

/// What a batch touches.
#[derive(Debug)]
pub(crate) enum Reach {
    /// New rows of these tables, none of which has a foreign key to another of them, or to itself.
    Inserts(Vec<Arc<Description>>),
    /// What it reads or changes isn't known beforehand: it goes alone.
    Unknown,
}

impl Reach {
    /// The reach of the open buffer. `known` gives the target of a segment, where its table was described before: the first rows of a table
    /// go alone.
    pub(super) fn of(
        open: &Rows,
        known: impl Fn(&super::buffer::TableRef, Operation) -> Option<Arc<Target>>,
    ) -> Self {
        let mut tables: Vec<Arc<Description>> = Vec::new();
        for (table, operation) in open.segments() {
            let plain = |target: &Arc<Target>| {
                let description = &target.description;
                // A trigger may read and write whatever it likes.
                operation == Operation::Insert
                    && description.kind == TableKind::Table
                    && description.triggers.is_empty()
            };
            let Some(target) = known(table, operation).filter(plain) else { return Reach::Unknown };
            tables.push(Arc::clone(&target.description));
            if tables.iter().any(|other| are_related(other, &target.description)) {
                return Reach::Unknown;
            }
        }
        Reach::Inserts(tables)
    }
}

impl engine::Reach for Reach {
    fn allows(&self, other: &Self) -> bool {
        match (self, other) {
            (Reach::Inserts(own), Reach::Inserts(others)) => {
                !own.iter().any(|table| others.iter().any(|other| are_related(table, other)))
            }
            _ => false,
        }
    }
}

/// Whether either table has a foreign key to the other: a child that overtakes its parent would be rejected.
fn are_related(a: &Description, b: &Description) -> bool {
    // A partition is named by the key of its parents alone, but knows by whom.
    let names = |child: &Description, parent: &Description| {
        child.foreign_keys.iter().any(|key| same_table(&key.parent, &parent.name))
            || parent.referenced_by.iter().any(|reference| same_table(&reference.child, &child.name))
    };
    names(a, b) || names(b, a)
}
