//! Batches are let go: the process doesn't grow over thousands of flushes.

use std::sync::Arc;

use arrow::array::{Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema};
use barge_core::Store;
use barge_core::store::{Operation, Query};
use barge_duckdb::DuckDbStore;

use super::{execute, step};

const ROWS: i64 = 5_000;
/// Each kept batch would take twenty times this, all in all.
const GROWTH_MAX: usize = 48 << 20;

fn batch() -> RecordBatch {
    let fields = vec![Field::new("id", DataType::Int64, false), Field::new("name", DataType::Utf8, true)];
    let names = StringArray::from_iter_values(
        (0..ROWS).map(|id| format!("the name of row number {id}, long enough")),
    );
    let ids = Int64Array::from_iter_values(0..ROWS);
    RecordBatch::try_new(Arc::new(Schema::new(fields)), vec![Arc::new(ids), Arc::new(names)]).unwrap()
}

/// The process's resident memory, in bytes.
fn resident() -> usize {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
    pages.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

#[tokio::test]
async fn thousands_of_batches_leave_nothing_behind() {
    if !cfg!(target_os = "linux") {
        return;
    }
    let store = DuckDbStore::open("duckdb::memory:").await.unwrap();
    execute(&store, &["CREATE TABLE t(id BIGINT PRIMARY KEY, name VARCHAR)"]).await;
    let insert = step(&store, "t", Operation::Insert, batch(), 1).await;
    let upsert = step(&store, "t", Operation::Upsert, batch(), 1).await;
    let mut before = 0;
    for round in 0..2_400 {
        if round == 400 {
            before = resident();
        }
        match round % 3 {
            0 => {
                let query = Query {
                    batch: Some(batch()),
                    ..Query::new("SELECT max(name), count(*) FROM {batch} AS b WHERE b.id % 2 = 0")
                };
                store.query(query).await.unwrap().into_batch().await.unwrap();
            }
            which => {
                let mut transaction = store.begin().await.unwrap();
                transaction.apply(if which == 1 { &insert } else { &upsert }).await.unwrap();
                transaction.rollback().await.unwrap();
            }
        }
    }
    let grown = resident().saturating_sub(before);
    assert!(grown < GROWTH_MAX, "the process grew by {} MiB over 2,000 batches", grown >> 20);
}
