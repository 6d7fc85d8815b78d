//! Tables, targets and batches for the tests.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::datatypes::{DataType, Field, FieldRef, Schema};
use barge_core::record::{Column, Role};
use barge_core::store::{Applied, AppliedRows, LookUp, Query, Step, Target};
use barge_core::{Operation, Result, Store, Table};

use crate::SqliteStore;

/// A new database in memory after some statements.
pub(super) async fn memory(statements: &[&str]) -> SqliteStore {
    let store = SqliteStore::open("sqlite::memory:").await.unwrap();
    run(&store, statements).await;
    store
}

/// A new database in a file, whose directory lives as long as the guard.
pub(super) async fn file(statements: &[&str]) -> (SqliteStore, tempfile::TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let store =
        SqliteStore::open(&format!("sqlite:{}", directory.path().join("a.db").display())).await.unwrap();
    run(&store, statements).await;
    (store, directory)
}

pub(super) async fn run(store: &SqliteStore, statements: &[&str]) {
    let mut transaction = store.begin().await.unwrap();
    for statement in statements {
        transaction.execute(statement).await.unwrap();
    }
    transaction.commit().await.unwrap();
}

/// A batch of named columns.
pub(super) fn batch(columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
    let rows = columns.first().map_or(0, |(_, array)| array.len());
    let fields: Vec<FieldRef> = columns
        .iter()
        .map(|(name, array)| Arc::new(Field::new(*name, array.data_type().clone(), true)) as FieldRef)
        .collect();
    let arrays = columns.into_iter().map(|(_, array)| array).collect();
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), arrays, &options).unwrap()
}

pub(super) async fn target(
    store: &SqliteStore,
    table: &str,
    operation: Operation,
    batch: &RecordBatch,
    key: &[&str],
) -> Result<Arc<Target>> {
    let table = Table::of_schema(table, batch.schema_ref(), key)?;
    let description = Arc::new(store.describe(table.name()).await?);
    Ok(Arc::new(Target::new(&table, operation, description)?))
}

/// A target whose key SQLite draws.
pub(super) async fn generated(
    store: &SqliteStore,
    table: &str,
    batch: &RecordBatch,
    key: &str,
) -> Arc<Target> {
    let columns = batch.schema_ref().fields().iter().map(|field| {
        let role = if field.name() == key { Role::GeneratedKey } else { Role::Plain };
        Column::new(Arc::clone(field)).with_role(role)
    });
    let table = Table::new(table, columns.collect()).unwrap();
    let description = Arc::new(store.describe(table.name()).await.unwrap());
    Arc::new(Target::new(&table, Operation::Insert, description).unwrap())
}

pub(super) fn step(target: &Arc<Target>, batch: &RecordBatch) -> Step {
    Step { target: Arc::clone(target), batch: target.project(batch).unwrap(), outcomes: true }
}

/// Applies one batch in a transaction of its own.
pub(super) async fn write(
    store: &SqliteStore,
    table: &str,
    operation: Operation,
    batch: &RecordBatch,
    key: &[&str],
) -> Result<Applied> {
    let target = target(store, table, operation, batch, key).await?;
    let applied = store.transact(None, &[step(&target, batch)]).await?;
    Ok(applied.unwrap().remove(0))
}

/// The same row by row.
pub(super) async fn write_rows(
    store: &SqliteStore,
    table: &str,
    operation: Operation,
    batch: &RecordBatch,
    key: &[&str],
) -> Result<AppliedRows> {
    let target = target(store, table, operation, batch, key).await?;
    let mut transaction = store.begin().await?;
    let applied = transaction.apply_rows(&step(&target, batch)).await?;
    transaction.commit().await?;
    Ok(applied)
}

/// The rows of a query as text, cells parted by `|`.
pub(super) async fn rows(store: &SqliteStore, sql: &str) -> Vec<String> {
    let stream = store.query(Query::new(sql)).await.unwrap();
    let mut rows = Vec::new();
    for batch in stream.collect().await.unwrap() {
        for row in 0..batch.num_rows() {
            let cells = batch.columns().iter().map(|array| {
                let shown = arrow::util::display::array_value_to_string(array, row).unwrap();
                if array.is_null(row) { "NULL".to_owned() } else { shown }
            });
            rows.push(cells.collect::<Vec<_>>().join("|"));
        }
    }
    rows
}

pub(super) fn field(name: &str, data_type: DataType) -> Field {
    Field::new(name, data_type, true)
}

pub(super) fn look_up(table: &str, fields: Vec<Field>, keys: RecordBatch) -> LookUp {
    let names: Vec<String> = keys.schema_ref().fields().iter().map(|field| field.name().clone()).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    LookUp::new(Arc::new(Table::of_schema(table, &Schema::new(fields), &names).unwrap()), keys)
}
