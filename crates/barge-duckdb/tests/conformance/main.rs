//! DuckDB keeps every promise of the store interface, in a file, in memory, and behind faults that never strike; and flushes into it do
//! what their rows, one by one, would have done.
//!
//! Its foreign keys do nothing but refuse, and within a transaction its indexes still show what the transaction removed: what that keeps it
//! from doing is `Unsupported`, row by row. It has no triggers, and its keys compare byte by byte whatever the collation.

#![allow(clippy::unwrap_used, reason = "helpers of tests may unwrap as tests do")]

mod flushes;

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use barge_core::{Dialect, Store, Table};
use barge_duckdb::DuckDbOptions;
use barge_testkit::conformance::{Constraints, Feature, Harness, Support, ddl};
use barge_testkit::{FaultPlan, FaultStore};

/// Where the database is, and what stands before it.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    File,
    Memory,
    MemoryBehindFaults,
}

struct DuckDb {
    kind: Kind,
    directory: tempfile::TempDir,
    stores: Mutex<usize>,
}

impl DuckDb {
    fn new(kind: Kind) -> Self {
        DuckDb { kind, directory: tempfile::tempdir().unwrap(), stores: Mutex::default() }
    }

    /// A path that no store of this harness has.
    fn path(&self) -> PathBuf {
        let mut stores = self.stores.lock().unwrap();
        *stores += 1;
        self.directory.path().join(format!("{stores}.duckdb"))
    }
}

#[async_trait]
impl Harness for DuckDb {
    async fn store(&self) -> Arc<dyn Store> {
        let options = match self.kind {
            Kind::Memory | Kind::MemoryBehindFaults => DuckDbOptions::memory(),
            Kind::File => DuckDbOptions::file(self.path()),
        };
        let store = Arc::new(options.open().await.unwrap());
        match self.kind {
            Kind::MemoryBehindFaults => Arc::new(FaultStore::new(store, FaultPlan::default())),
            Kind::File | Kind::Memory => store,
        }
    }

    fn supports(&self, feature: Feature) -> Support {
        match feature {
            Feature::ForeignKeysInTransactions => Support::Refused,
            Feature::ForeignKeyActions | Feature::Triggers | Feature::IgnoreCase => Support::Absent,
            _ => Support::Kept,
        }
    }

    async fn create(&self, store: &Arc<dyn Store>, table: &Table, constraints: &Constraints) {
        let mut transaction = store.begin().await.unwrap();
        for statement in ddl(Dialect::DuckDb, table, constraints) {
            transaction.execute(&statement).await.unwrap();
        }
        transaction.commit().await.unwrap();
    }
}

mod file {
    use super::{DuckDb, Kind};

    barge_testkit::conformance_suite!(DuckDb::new(Kind::File));
}

mod memory {
    use super::{DuckDb, Kind};

    barge_testkit::conformance_suite!(DuckDb::new(Kind::Memory));
}

mod memory_behind_faults {
    use super::{DuckDb, Kind};

    barge_testkit::conformance_suite!(DuckDb::new(Kind::MemoryBehindFaults));
}
