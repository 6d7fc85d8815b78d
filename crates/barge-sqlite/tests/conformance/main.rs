//! SQLite keeps every promise of the store interface: in a file, in memory, and behind faults that never strike; and flushes
//! into it do what their rows, one by one, would have done.
//!
//! In memory there is one connection, so a look-up or query while a transaction is open is `Busy`.

#![allow(clippy::unwrap_used, reason = "helpers of tests may unwrap as tests do")]

mod flushes;

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use barge_core::{Dialect, Store, Table};
use barge_sqlite::SqliteOptions;
use barge_testkit::conformance::{Constraints, Feature, Harness, Support, ddl};
use barge_testkit::{FaultPlan, FaultStore};

/// Where the database is, and what stands before it.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    File,
    Memory,
    FileBehindFaults,
}

struct Sqlite {
    kind: Kind,
    directory: tempfile::TempDir,
    stores: Mutex<usize>,
}

impl Sqlite {
    fn new(kind: Kind) -> Self {
        Sqlite { kind, directory: tempfile::tempdir().unwrap(), stores: Mutex::default() }
    }

    /// A path that no store of this harness has.
    fn path(&self) -> PathBuf {
        let mut stores = self.stores.lock().unwrap();
        *stores += 1;
        self.directory.path().join(format!("{stores}.db"))
    }
}

#[async_trait]
impl Harness for Sqlite {
    async fn store(&self) -> Arc<dyn Store> {
        let options = match self.kind {
            Kind::Memory => SqliteOptions::memory().busy_timeout(Duration::from_millis(100)),
            Kind::File | Kind::FileBehindFaults => SqliteOptions::file(self.path()),
        };
        let store = Arc::new(options.open().await.unwrap());
        match self.kind {
            Kind::FileBehindFaults => Arc::new(FaultStore::new(store, FaultPlan::default())),
            Kind::File | Kind::Memory => store,
        }
    }

    fn supports(&self, feature: Feature) -> Support {
        match feature {
            Feature::ConcurrentReads if self.kind == Kind::Memory => Support::Refused,
            _ => Support::Kept,
        }
    }

    async fn create(&self, store: &Arc<dyn Store>, table: &Table, constraints: &Constraints) {
        let mut transaction = store.begin().await.unwrap();
        for statement in ddl(Dialect::Sqlite, table, constraints) {
            transaction.execute(&statement).await.unwrap();
        }
        transaction.commit().await.unwrap();
    }
}

mod file {
    use super::{Kind, Sqlite};

    barge_testkit::conformance_suite!(Sqlite::new(Kind::File));
}

mod memory {
    use super::{Kind, Sqlite};

    barge_testkit::conformance_suite!(Sqlite::new(Kind::Memory));
}

mod file_behind_faults {
    use super::{Kind, Sqlite};

    barge_testkit::conformance_suite!(Sqlite::new(Kind::FileBehindFaults));
}
