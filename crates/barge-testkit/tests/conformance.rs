//! The store in memory keeps every promise that has nothing to do with SQL, by itself and behind faults that never strike.

#![allow(clippy::unwrap_used, reason = "helpers of tests may unwrap as tests do")]

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use barge_core::{Store, Table};
use barge_testkit::conformance::{Constraints, Feature, Harness, Support};
use barge_testkit::{FaultPlan, FaultStore, MemoryStore, MemoryTable, Value};

/// How the store is made.
#[derive(Clone, Copy)]
enum Kind {
    Plain,
    FailureEndsTransaction,
    BehindFaults,
}

struct Memory {
    kind: Kind,
    last: Mutex<MemoryStore>,
}

impl Memory {
    fn new(kind: Kind) -> Self {
        Memory { kind, last: Mutex::default() }
    }
}

#[async_trait]
impl Harness for Memory {
    async fn store(&self) -> Arc<dyn Store> {
        let store = match self.kind {
            Kind::Plain | Kind::BehindFaults => MemoryStore::new(),
            Kind::FailureEndsTransaction => MemoryStore::new().failure_ends_transaction(),
        };
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = store.clone();
        match self.kind {
            Kind::BehindFaults => Arc::new(FaultStore::new(Arc::new(store), FaultPlan::default())),
            _ => Arc::new(store),
        }
    }

    fn supports(&self, feature: Feature) -> Support {
        if feature == Feature::Sql { Support::Refused } else { Support::Kept }
    }

    async fn create(&self, _store: &Arc<dyn Store>, table: &Table, constraints: &Constraints) {
        let store = self.last.lock().unwrap().clone();
        store.create(memory_table(table, constraints)).unwrap();
    }
}

fn memory_table(table: &Table, constraints: &Constraints) -> MemoryTable {
    let mut memory = MemoryTable::new(table);
    if constraints.keyless {
        memory = memory.without_key();
    }
    for unique in &constraints.unique {
        memory = memory.unique(&names(unique));
    }
    for key in &constraints.foreign_keys {
        let parent = key.parent.clone();
        let (columns, parents) = (names(&key.columns), names(&key.parent_columns));
        memory = memory.foreign_key(&columns, parent, &parents, key.on_delete, key.on_update);
    }
    for (column, least) in constraints.at_least.clone() {
        let name = format!("{column}_least");
        memory = memory
            .check(name, move |row| row.get(&column).is_null() || *row.get(&column) >= Value::from(least));
    }
    for (column, value) in &constraints.defaults {
        memory = memory.default(column, value.clone());
    }
    for column in &constraints.ignore_case {
        memory = memory.ignore_case(column);
    }
    for (column, least) in constraints.keep_out_below.clone() {
        let name = format!("{column}_trigger");
        memory = memory
            .keep_out(name, move |row| !row.get(&column).is_null() && *row.get(&column) < Value::from(least));
    }
    memory
}

fn names(names: &[String]) -> Vec<&str> {
    names.iter().map(String::as_str).collect()
}

mod plain {
    use super::{Kind, Memory};

    barge_testkit::conformance_suite!(Memory::new(Kind::Plain));
}

mod failure_ends_transaction {
    use super::{Kind, Memory};

    barge_testkit::conformance_suite!(Memory::new(Kind::FailureEndsTransaction));
}

mod behind_faults {
    use super::{Kind, Memory};

    barge_testkit::conformance_suite!(Memory::new(Kind::BehindFaults));
}
