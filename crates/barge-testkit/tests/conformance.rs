//! The store in memory keeps every promise that has nothing to do with SQL, by itself and behind faults that never strike.

#![allow(clippy::unwrap_used, reason = "helpers of tests may unwrap as tests do")]

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use barge_core::{Store, Table};
use barge_testkit::conformance::{Constraints, Feature, Harness, Support};
use barge_testkit::{FaultPlan, FaultStore, MemoryStore, MemoryTable};

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
        store.create(MemoryTable::constrained(table, constraints)).unwrap();
    }
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
