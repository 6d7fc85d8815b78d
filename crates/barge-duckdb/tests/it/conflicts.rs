//! Transactions of two stores on one file, which conflict where they write the same rows.

use std::sync::Arc;

use arrow::array::{Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema};
use barge_core::record::Column;
use barge_core::store::{CommitError, Operation};
use barge_core::{Database, ErrorKind, Store, Table};
use barge_duckdb::{DuckDbOptions, DuckDbStore};

use super::{execute, number, step};

fn rows(ids: impl IntoIterator<Item = i64>, n: i64) -> RecordBatch {
    let ids: Int64Array = ids.into_iter().collect::<Vec<_>>().into();
    let n = Int64Array::from_value(n, ids.len());
    let fields = vec![Field::new("id", DataType::Int64, false), Field::new("n", DataType::Int64, true)];
    RecordBatch::try_new(Arc::new(Schema::new(fields)), vec![Arc::new(ids), Arc::new(n)]).unwrap()
}

async fn two_stores(directory: &tempfile::TempDir) -> (DuckDbStore, DuckDbStore) {
    let path = directory.path().join("shared.duckdb");
    let one = DuckDbOptions::file(&path).open().await.unwrap();
    let other = DuckDbOptions::file(&path).open().await.unwrap();
    execute(
        &one,
        &["CREATE TABLE t(id BIGINT PRIMARY KEY, n BIGINT)", "INSERT INTO t SELECT range, 0 FROM range(8)"],
    )
    .await;
    (one, other)
}

#[tokio::test]
async fn a_conflict_is_a_failure_that_can_be_tried_again() {
    let directory = tempfile::tempdir().unwrap();
    let (one, other) = two_stores(&directory).await;
    // Over the same row, at once.
    let update = step(&one, "t", Operation::Update, rows([1], 1), 1).await;
    let mut first = one.begin().await.unwrap();
    let mut second = other.begin().await.unwrap();
    first.apply(&update).await.unwrap();
    let error = second.apply(&update).await.unwrap_err();
    assert!(error.kind() == ErrorKind::SerializationFailure && error.is_retryable(), "{error:?}");
    drop(second);
    first.commit().await.unwrap();
    // Over the same key, which shows at COMMIT.
    let insert = step(&one, "t", Operation::Insert, rows([100], 1), 1).await;
    let mut first = one.begin().await.unwrap();
    let mut second = other.begin().await.unwrap();
    first.apply(&insert).await.unwrap();
    second.apply(&insert).await.unwrap();
    first.commit().await.unwrap();
    let Err(CommitError::RolledBack(error)) = second.commit().await else { panic!("both were committed") };
    assert!(error.kind() == ErrorKind::SerializationFailure && error.is_retryable(), "{error:?}");
    assert_eq!(number(&one, "SELECT count(*) FROM t").await, 9);
}

/// A transaction that is done again after a row failed must find what it found before, or fail.
#[tokio::test]
async fn what_is_done_again_finds_the_same() {
    let directory = tempfile::tempdir().unwrap();
    let (one, other) = two_stores(&directory).await;
    let update = step(&one, "t", Operation::Update, rows([1, 2], 5), 1).await;
    let twice = step(&one, "t", Operation::Insert, rows([50, 50], 1), 1).await;
    let mut transaction = one.begin().await.unwrap();
    assert_eq!(transaction.apply(&update).await.unwrap().affected, 2);
    execute(&other, &["INSERT INTO t VALUES (900, 0)"]).await;
    let error = transaction.apply(&twice).await.unwrap_err();
    assert!(error.kind() == ErrorKind::UniqueViolation && transaction.is_open(), "{error:?}");
    drop(transaction);

    let mut transaction = one.begin().await.unwrap();
    assert_eq!(transaction.apply(&update).await.unwrap().affected, 2);
    execute(&other, &["DELETE FROM t WHERE id = 900"]).await;
    let deleted = other.begin().await;
    let mut deleted = deleted.unwrap();
    // The row is free once the transaction that is done again has rolled back.
    drop(deleted.execute("DELETE FROM t WHERE id = 3").await);
    deleted.commit().await.unwrap();
    transaction.apply(&twice).await.unwrap_err();
    transaction.commit().await.unwrap();
    assert_eq!(number(&one, "SELECT sum(n) FROM t").await, 10);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writers_against_each_other_lose_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let (one, other) = two_stores(&directory).await;
    let databases = [Database::new(one), Database::new(other)];
    let fields = [Field::new("id", DataType::Int64, false), Field::new("n", DataType::Int64, true)];
    let [id, n] = fields.map(Column::new);
    let table = Arc::new(Table::new("t", vec![id.with_role(barge_core::record::Role::Key), n]).unwrap());
    let mut tasks = Vec::new();
    for (which, db) in databases.iter().enumerate() {
        let (db, table) = (db.clone(), Arc::clone(&table));
        tasks.push(tokio::spawn(async move {
            let writer = db.writer().max_rows(8).start();
            for round in 0..40 {
                let own = 1_000 * (which as i64 + 1) + round;
                writer.add_batch(&table, Operation::Upsert, &rows((0..7).chain([own]), round)).await.unwrap();
            }
            writer.close().await.unwrap().into_result().unwrap()
        }));
    }
    for task in tasks {
        assert_eq!(task.await.unwrap().committed, 320);
    }
    let store = databases[0].store();
    let count = store.query(barge_core::store::Query::new("SELECT count(*) FROM t")).await.unwrap();
    let count = arrow::compute::cast(count.into_batch().await.unwrap().column(0), &DataType::Int64).unwrap();
    assert_eq!(&*count, &Int64Array::from(vec![8 + 80]));
}

/// Flushes of inserts go side by side, and share keys: of each such key one row is refused, whichever came later, and no other.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn inserts_beside_each_other_are_answered_each() {
    let store = DuckDbOptions::memory().writers(3).open().await.unwrap();
    execute(&store, &["CREATE TABLE t(id BIGINT PRIMARY KEY, n BIGINT)"]).await;
    let db = Database::new(store);
    let fields = [Field::new("id", DataType::Int64, false), Field::new("n", DataType::Int64, true)];
    let [id, n] = fields.map(Column::new);
    let table = Arc::new(Table::new("t", vec![id.with_role(barge_core::record::Role::Key), n]).unwrap());
    let writer = db.writer().max_rows(1_000).unordered(3).start();
    const FLUSHES: i64 = 60;
    let mut receipts = Vec::new();
    for flush in 0..FLUSHES {
        let rows = rows(flush * 900..flush * 900 + 1_000, flush);
        receipts.push(writer.add_batch(&table, Operation::Insert, &rows).await.unwrap());
    }
    let mut refused = 0;
    for receipt in receipts {
        for outcome in receipt.outcomes().await {
            refused += i64::from(outcome.is_err_and(|error| error.kind() == ErrorKind::UniqueViolation));
        }
    }
    assert_eq!(refused, (FLUSHES - 1) * 100);
    let statistics = writer.close().await.unwrap().statistics;
    assert_eq!(statistics.committed, (FLUSHES * 900 + 100) as u64);
    let found = db.store().query(barge_core::store::Query::new("SELECT count(*) FROM t")).await.unwrap();
    let count = arrow::compute::cast(found.into_batch().await.unwrap().column(0), &DataType::Int64).unwrap();
    assert_eq!(&*count, &Int64Array::from(vec![FLUSHES * 900 + 100]));
}
