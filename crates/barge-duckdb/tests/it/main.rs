//! What DuckDB does beside the promises that all stores share: files and processes, conflicts, memory, its own types.

#![allow(clippy::unwrap_used, reason = "helpers of tests may unwrap as tests do")]

extern crate barge_core as barge;

mod commits;
mod conflicts;
mod files;
mod foreign_keys;
mod memory;
mod neighbours;
mod rows;
mod sessions;
mod streams;
mod types;

use std::sync::Arc;

use arrow::array::RecordBatch;
use barge_core::record::Column;
use barge_core::store::{Operation, Query, Step, Target};
use barge_core::{Store, Table};
use barge_duckdb::DuckDbStore;

/// Runs statements, each in a transaction of its own.
async fn execute(store: &DuckDbStore, statements: &[&str]) {
    for statement in statements {
        let mut transaction = store.begin().await.unwrap();
        transaction.execute(statement).await.unwrap();
        transaction.commit().await.unwrap();
    }
}

async fn query(store: &DuckDbStore, sql: &str) -> RecordBatch {
    store.query(Query::new(sql)).await.unwrap().into_batch().await.unwrap()
}

/// The one number that a query gives.
async fn number(store: &DuckDbStore, sql: &str) -> i64 {
    use arrow::array::AsArray;
    let rows = query(store, sql).await;
    let numbers = arrow::compute::cast(rows.column(0), &arrow::datatypes::DataType::Int64).unwrap();
    numbers.as_primitive::<arrow::datatypes::Int64Type>().value(0)
}

/// A step whose batch's columns are the table's by name; the first so many are the key.
async fn step(
    store: &DuckDbStore,
    table: &str,
    operation: Operation,
    batch: RecordBatch,
    key: usize,
) -> Step {
    use barge_core::record::Role;
    let schema = batch.schema();
    let columns = schema.fields().iter().enumerate().map(|(place, field)| {
        let column = Column::new((**field).clone());
        if place < key { column.with_role(Role::Key) } else { column }
    });
    let table = Table::new(table, columns.collect()).unwrap();
    let description = Arc::new(store.describe(table.name()).await.unwrap());
    let target = Arc::new(Target::new(&table, operation, description).unwrap());
    let batch = target.project(&batch).unwrap();
    Step { target, batch, outcomes: true }
}
