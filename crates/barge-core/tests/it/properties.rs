//! The writer against a model that takes one row after another, over the store in memory; see `barge_testkit::flushes`.

use std::sync::Arc;

use async_trait::async_trait;
use barge_core::{Store, Table};
use barge_testkit::conformance::{Constraints, Harness};
use barge_testkit::flushes::{self, Model};
use barge_testkit::{FaultPlan, FaultStore, MemoryStore, MemoryTable, Point};

struct Memory(MemoryStore);

#[async_trait]
impl Harness for Memory {
    async fn store(&self) -> Arc<dyn Store> {
        Arc::new(self.0.clone())
    }

    async fn create(&self, _store: &Arc<dyn Store>, table: &Table, constraints: &Constraints) {
        self.0.create(MemoryTable::constrained(table, constraints)).unwrap();
    }
}

fn check_over(store: fn() -> MemoryStore) {
    flushes::for_each(3_000, |case| {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        runtime.block_on(flushes::check(&case, &Memory(store()), Model::default()))
    });
}

#[test]
fn a_flush_does_what_its_rows_would_have_done_one_by_one() {
    check_over(MemoryStore::new);
}

#[test]
fn a_flush_that_claims_a_token_does_so_too() {
    check_over(|| MemoryStore::new().commit_can_be_unknown());
}

/// A step that fails takes its transaction with it: what was accepted before is sent again.
#[test]
fn a_flush_whose_transactions_end_does_so_too() {
    check_over(|| MemoryStore::new().failure_ends_transaction());
}

/// A store in memory with delays, cut commits and failures that pass, by a seed.
struct Faulty(MemoryStore, u64);

#[async_trait]
impl Harness for Faulty {
    async fn store(&self) -> Arc<dyn Store> {
        // The test reads through it, too.
        let plan = FaultPlan::from_seed(self.1).sparing(Point::Read);
        Arc::new(FaultStore::new(Arc::new(self.0.clone()), plan))
    }

    async fn create(&self, _store: &Arc<dyn Store>, table: &Table, constraints: &Constraints) {
        self.0.create(MemoryTable::constrained(table, constraints)).unwrap();
    }
}

/// Inserts whose order doesn't show go beside each other, through faults that mix up their order; all else goes alone, so that the whole does
/// what its rows would have done one by one.
#[test]
fn unordered_flushes_do_so_where_order_does_not_show() {
    flushes::for_each(3_000, |case| {
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let (flushes, seed) =
            (2 + case.acts.len() % 3, case.acts.len() as u64 * 1_009 + case.max_rows as u64);
        let case = case.unordered(flushes);
        let harness = Faulty(MemoryStore::new(), seed);
        runtime.block_on(flushes::check(&case, &harness, Model::default()))
    });
}
