//! What a flush did is what its rows, one by one, would have done: random operations through a writer, held against a
//! [`Reference`] that takes one row after another.
//!
//! [`for_each`] draws cases, prints the seed of one that fails and makes it smaller; [`check`] runs one on a store. What a
//! flush is beside its rows one by one stands in `reference.rs`, once for every reference. Two things the guarantees except
//! are not drawn: values in between that only a CHECK would notice, where rows coalesce, and rows that need each other.
//!
//! The seed of a failure is taken back: `BARGE_FLUSH_SEED=4711 cargo nextest run flush`. `PROPTEST_CASES` says how many cases
//! are drawn.

// These are tests, though they are compiled as a library.
#![allow(clippy::unwrap_used)]

mod generate;
mod model;
mod reference;
mod tables;

use std::sync::Arc;
use std::time::Duration;

use barge_core::store::LookUp;
use barge_core::{Database, ErrorKind, Operation, Outcome, Store};
use proptest::test_runner::{Config, RngSeed, TestCaseError, TestError, TestRunner};

use crate::Value;
use crate::conformance::{Harness, fixture};
pub use model::Model;
use reference::Flushes;
pub use reference::Reference;
pub use tables::{Actions, Shape, Tables};

/// One row's answer.
pub type Answer = Result<Outcome, ErrorKind>;

/// A row on its way: the values are the shape's columns.
#[derive(Clone, Debug)]
pub struct Write {
    /// What to do with it.
    pub operation: Operation,
    /// Which table, and which of its columns: an index into [`Tables::shapes`].
    pub shape: usize,
    /// Its values.
    pub row: Vec<Value>,
}

/// What a caller of a writer does.
#[derive(Clone, Debug)]
pub enum Act {
    /// Adds rows of one table with one operation.
    Add(Vec<Write>),
    /// Waits until all before is answered.
    Flush,
}

/// A random run of a writer.
#[derive(Clone, Debug)]
pub struct Case {
    /// What the tables' foreign keys do.
    pub actions: Actions,
    /// The caller's part.
    pub acts: Vec<Act>,
    /// Rows of a flush at most.
    pub max_rows: usize,
    /// All rows of a flush or none.
    pub atomic: bool,
    /// Whether receipts are kept, so that outcomes are computed.
    pub receipts: bool,
    /// How many flushes of plain inserts may be in flight; see [`Case::unordered`].
    pub unordered_flushes: usize,
}

impl Case {
    /// The same case for a writer with several flushes in flight, but for inserts whose order would show and that may go beside others: of
    /// rows that have a key. They are inserted if absent.
    #[must_use]
    pub fn unordered(mut self, flushes_in_flight: usize) -> Self {
        self.unordered_flushes = flushes_in_flight;
        for act in &mut self.acts {
            let Act::Add(writes) = act else { continue };
            for write in writes.iter_mut().filter(|write| write.operation == Operation::Insert) {
                let shows = !matches!(tables::SHAPES[write.shape].0, tables::KEYLESS | "nodes" | "gauges");
                if shows {
                    write.operation = Operation::InsertIfAbsent;
                }
            }
        }
        self
    }
}

/// Draws so many cases, unless `PROPTEST_CASES` says otherwise, and checks each. Panics with the seed and the smallest
/// case found where one fails.
pub fn for_each(cases: u32, check: impl Fn(Case) -> Result<(), TestCaseError>) {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seed = number("BARGE_FLUSH_SEED").unwrap_or_else(|| uuid::Uuid::new_v4().as_u64_pair().0);
    let config = Config {
        cases: number("PROPTEST_CASES").map_or(cases, |cases| cases as u32),
        rng_seed: RngSeed::Fixed(seed),
        failure_persistence: None,
        max_shrink_iters: 20_000,
        max_shrink_time: 20_000,
        ..Config::default()
    };
    match TestRunner::new(config).run(&generate::case(), check) {
        Ok(()) => {}
        Err(TestError::Fail(why, case)) => panic!("BARGE_FLUSH_SEED={seed}: {why}\n{case}"),
        Err(TestError::Abort(why)) => panic!("BARGE_FLUSH_SEED={seed}: {why}"),
    }
}

/// Runs a case on a fresh store of the harness: tables, answers and numbers must be the reference's.
pub async fn check(
    case: &Case,
    harness: &dyn Harness,
    reference: impl Reference,
) -> Result<(), TestCaseError> {
    let tables = Tables::new(case.actions).in_store(harness);
    let store = harness.store().await;
    for (table, constraints) in &tables.definitions {
        harness.create(&store, table, constraints).await;
    }
    let db = Database::over(Arc::clone(&store));
    // Lingering long, so that a flush is so many rows or what `flush` says, and the reference knows which.
    let writer = db.writer().max_rows(case.max_rows).linger(Duration::from_secs(3_600));
    let writer = writer.unordered(case.unordered_flushes);
    let writer = if case.atomic { writer.atomic() } else { writer }.start();
    let mut flushes = Flushes::new(&tables, case, reference);
    let mut receipts = Vec::new();
    for act in &case.acts {
        let Act::Add(writes) = act else {
            writer.flush().await.unwrap();
            flushes.flush();
            continue;
        };
        let shape = &tables.shapes[writes[0].shape];
        let rows: Vec<Vec<Value>> = writes.iter().map(|write| write.row.clone()).collect();
        let batch = fixture::batch(shape.view.columns(), &rows);
        let receipt = writer.add_batch(&shape.view, writes[0].operation, &batch).await.unwrap();
        receipts.extend(case.receipts.then_some(receipt));
        writes.iter().for_each(|write| flushes.add(write.clone()));
    }
    let report = writer.close().await.unwrap();
    flushes.flush();
    if flushes.reference.is_undecided() {
        store.close().await.unwrap();
        return Ok(());
    }
    if case.receipts {
        let mut answers = Vec::new();
        for receipt in receipts {
            answers.extend(receipt.outcomes().await.into_iter().map(|answer| answer.map_err(|e| e.kind())));
        }
        same(&answers, &flushes.answers, "answers")?;
    }
    for (place, (table, _)) in tables.definitions.iter().enumerate() {
        let written = rows_of(&*store, &tables, place).await;
        same(&written, &flushes.reference.rows(table.name().name()), table.name().name())?;
    }
    let count = |counts: fn(&Answer) -> bool| flushes.answers.iter().filter(|answer| counts(answer)).count();
    let expected = [
        count(|_| true),
        count(Result::is_ok),
        count(Result::is_err),
        count(|answer| matches!(answer, Ok(Outcome::Unchanged | Outcome::NotFound))),
    ];
    let numbers = &report.statistics;
    let told = [numbers.added, numbers.committed, numbers.rejected, numbers.without_effect];
    same(&told, &expected.map(|count| count as u64), "added, committed, rejected, without effect")?;
    store.close().await.unwrap();
    Ok(())
}

/// The rows of a table, sorted, whatever their keys.
async fn rows_of(store: &dyn Store, tables: &Tables, place: usize) -> Vec<Vec<Value>> {
    let (table, _) = &tables.definitions[place];
    let columns: Vec<_> = table.key().into_iter().map(|index| table.columns()[index].clone()).collect();
    let keys = fixture::batch(&columns, &tables.keys(place));
    let found = store.look_up(LookUp::new(Arc::clone(table), keys)).await.unwrap();
    let mut rows: Vec<Vec<Value>> =
        fixture::found(&found.into_batch().await.unwrap()).into_iter().map(|(_, row)| row).collect();
    rows.sort();
    rows
}

fn same<T: PartialEq + std::fmt::Debug>(got: &T, expected: &T, what: &str) -> Result<(), TestCaseError> {
    if got == expected {
        return Ok(());
    }
    Err(TestCaseError::fail(format!("{what}: {got:?}\nbut one by one: {expected:?}")))
}
