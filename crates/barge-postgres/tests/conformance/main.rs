//! PostgreSQL keeps every promise of the store interface: over connections of its own, with statements kept prepared, through PgBouncer in
//! transaction mode, and without what distributed databases lack; and flushes into it do what their rows, one by one, would have done.
//!
//! Needs PostgreSQL's programs (`initdb`, `postgres`), or `BARGE_TEST_POSTGRES_URL`, and `pgbouncer`.

#![allow(clippy::unwrap_used, reason = "helpers of tests may unwrap as tests do")]

mod flushes;

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use barge_core::{Dialect, Store, Table};
use barge_postgres::{PostgresOptions, Without};
use barge_testkit::conformance::{Constraints, Feature, Harness, Support, ddl};
use barge_testkit::servers::{self, PgBouncer, PoolMode, TestDatabase};

/// How the database is reached.
#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Plain,
    StatementsKept,
    WithoutParts,
    ThroughPgBouncer,
}

/// A database of its own for each store.
struct Postgres {
    kind: Kind,
    databases: Mutex<Vec<TestDatabase>>,
    pooler: Option<PgBouncer>,
}

impl Postgres {
    fn new(kind: Kind) -> Self {
        let pooler = (kind == Kind::ThroughPgBouncer)
            .then(|| servers::pgbouncer(&servers::postgres(), PoolMode::Transaction));
        Postgres { kind, databases: Mutex::default(), pooler }
    }

    fn url(&self) -> String {
        let database = servers::postgres().database();
        let url = match &self.pooler {
            Some(pooler) => pooler.url(database.name()),
            None => database.url(),
        };
        self.databases.lock().unwrap().push(database);
        url
    }
}

#[async_trait]
impl Harness for Postgres {
    async fn store(&self) -> Arc<dyn Store> {
        let options = PostgresOptions::from_url(&self.url()).unwrap();
        let options = match self.kind {
            Kind::StatementsKept => options.statement_cache(100),
            Kind::WithoutParts => options.without(Without::default().copy().temporary().xmax()),
            _ => options,
        };
        let store = Arc::new(options.open().await.unwrap());
        let mut transaction = store.begin().await.unwrap();
        transaction.execute("CREATE EXTENSION IF NOT EXISTS citext").await.unwrap();
        transaction.commit().await.unwrap();
        store
    }

    fn supports(&self, feature: Feature) -> Support {
        match feature {
            Feature::OneWriter => Support::Absent,
            _ => Support::Kept,
        }
    }

    async fn create(&self, store: &Arc<dyn Store>, table: &Table, constraints: &Constraints) {
        let mut transaction = store.begin().await.unwrap();
        for statement in ddl(Dialect::Postgres, table, constraints) {
            transaction.execute(&statement).await.unwrap();
        }
        transaction.commit().await.unwrap();
    }
}

mod plain {
    use super::{Kind, Postgres};

    barge_testkit::conformance_suite!(Postgres::new(Kind::Plain));
}

mod statements_kept {
    use super::{Kind, Postgres};

    barge_testkit::conformance_suite!(Postgres::new(Kind::StatementsKept));
}

mod without_parts {
    use super::{Kind, Postgres};

    barge_testkit::conformance_suite!(Postgres::new(Kind::WithoutParts));
}

mod through_pgbouncer {
    use super::{Kind, Postgres};

    barge_testkit::conformance_suite!(Postgres::new(Kind::ThroughPgBouncer));
}

/// A failure through the pooler is hard to understand without its log.
impl Drop for Postgres {
    fn drop(&mut self) {
        if let (Some(pooler), true) = (&self.pooler, std::thread::panicking()) {
            eprintln!("PgBouncer's log:\n{}", pooler.log());
        }
    }
}
