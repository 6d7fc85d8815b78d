//! Streams: what they hold while they're read, and that they let go of it however they end.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::{Array, ArrayRef, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema};
use barge_core::record::{Column, Role};
use barge_core::store::{LookUp, Operation, Query};
use barge_core::{Database, ErrorKind, Store, Table};
use barge_duckdb::{DuckDbOptions, DuckDbStore};

use super::{execute, number};

async fn many_rows(directory: &tempfile::TempDir) -> DuckDbStore {
    let store = DuckDbOptions::file(directory.path().join("t.duckdb")).open().await.unwrap();
    let statements = [
        "CREATE TABLE t(id BIGINT PRIMARY KEY, name VARCHAR, n BIGINT)",
        "INSERT INTO t SELECT range, 'the name of row number ' || range, 0 FROM range(300000)",
    ];
    execute(&store, &statements).await;
    store
}

/// Whether a checkpoint can be made soon: a transaction that is open, and sees what was there before a removal, keeps it from happening.
async fn can_be_checkpointed(store: &DuckDbStore) -> bool {
    execute(store, &["UPDATE t SET n = n + 1 WHERE id < 10"]).await;
    for _ in 0..50 {
        let mut transaction = store.begin().await.unwrap();
        if transaction.execute("CHECKPOINT").await.is_ok() {
            return transaction.commit().await.is_ok();
        }
        drop(transaction);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    false
}

fn keys(count: i64) -> LookUp {
    let keys: ArrayRef = Arc::new(Int64Array::from_iter_values(0..count));
    let column = Column::new(Field::new("name", DataType::Utf8, true));
    let table = Arc::new(Table::new("t", vec![column]).unwrap());
    LookUp::new(table, RecordBatch::try_from_iter([("id", keys)]).unwrap())
}

/// A query of which rows are left is not over for DuckDB when its result is destroyed, only when the connection is used again.
#[tokio::test]
async fn a_stream_that_ends_early_leaves_no_transaction_open() {
    let directory = tempfile::tempdir().unwrap();
    let store = many_rows(&directory).await;
    let mut stream = store.query(Query::new("SELECT * FROM t")).await.unwrap();
    stream.next().await.unwrap();
    drop(stream);
    assert!(can_be_checkpointed(&store).await, "after a query");
    let mut stream = store.look_up(keys(200_000)).await.unwrap();
    stream.next().await.unwrap();
    drop(stream);
    assert!(can_be_checkpointed(&store).await, "after a look-up");
    // Midway by DuckDB's own failure, and by a value that isn't wanted so.
    let failing = "SELECT CASE WHEN id = 200000 THEN error('midway') ELSE id::VARCHAR END AS x FROM t";
    store.query(Query::new(failing)).await.unwrap().collect().await.unwrap_err();
    assert!(can_be_checkpointed(&store).await, "after a failure");
    let schema = Arc::new(Schema::new(vec![Field::new("id", DataType::Int16, true)]));
    let query = Query { schema: Some(schema), ..Query::new("SELECT id FROM t") };
    store.query(query).await.unwrap().collect().await.unwrap_err();
    assert!(can_be_checkpointed(&store).await, "after a value that doesn't fit");
    store.close().await.unwrap();
}

/// A batch that a look-up was bound to must not keep the connection that reads it.
#[tokio::test]
async fn a_look_up_that_ends_early_lets_the_file_go() {
    let directory = tempfile::tempdir().unwrap();
    let store = many_rows(&directory).await;
    let mut stream = store.look_up(keys(200_000)).await.unwrap();
    stream.next().await.unwrap();
    drop(stream);
    store.close().await.unwrap();
    // An instance that is still open would refuse to be shared by one that only reads.
    let other = DuckDbOptions::file(directory.path().join("t.duckdb")).read_only(true).open().await.unwrap();
    assert_eq!(number(&other, "SELECT count(*) FROM t").await, 300_000);
}

#[tokio::test]
async fn batches_of_large_values_are_small() {
    let store = DuckDbStore::open("duckdb::memory:").await.unwrap();
    let sql =
        "SELECT range AS id, repeat('x', 1000000) AS text, [repeat('y', 500000)] AS list FROM range(50)";
    let mut stream = store.query(Query::new(sql)).await.unwrap();
    let (mut rows, mut batches) = (0, 0);
    while let Some(batch) = stream.next().await.unwrap() {
        assert!(batch.get_array_memory_size() < 12 << 20, "{} bytes", batch.get_array_memory_size());
        rows += batch.num_rows();
        batches += 1;
    }
    assert!(rows == 50 && batches > 10, "{rows} rows in {batches} batches");
}

/// Flushes ask about tables and keys, and must not wait for the stream that waits for them.
#[tokio::test]
async fn what_a_stream_gives_can_be_written_with_one_reader() {
    let store =
        DuckDbOptions::memory().readers(1).busy_timeout(Duration::from_millis(300)).open().await.unwrap();
    let statements = [
        "CREATE TABLE t(id DOUBLE PRIMARY KEY, n BIGINT)",
        "INSERT INTO t SELECT range, 0 FROM range(20000)",
        "CREATE TABLE u(id DOUBLE PRIMARY KEY, n BIGINT)",
    ];
    execute(&store, &statements).await;
    let db = Database::new(store);
    let columns = vec![
        Column::new(Field::new("id", DataType::Float64, true)).with_role(Role::Key),
        Column::new(Field::new("n", DataType::Int64, true)),
    ];
    let table = Arc::new(Table::new("u", columns).unwrap());
    let mut stream = db.store().query(Query::new("SELECT * FROM t")).await.unwrap();
    let writer = db.writer().max_rows(1_000).start();
    let copied = async {
        while let Some(batch) = stream.next().await.unwrap() {
            writer.add_batch(&table, Operation::Upsert, &batch).await.unwrap();
        }
        writer.close().await.unwrap().into_result().unwrap()
    };
    let report = tokio::time::timeout(Duration::from_secs(60), copied).await.expect("it hangs");
    assert_eq!(report.committed, 20_000);
    // Where streams are open on all connections that read, one more waits for a time.
    let _first = db.store().query(Query::new("SELECT * FROM t")).await.unwrap();
    let error = db.store().query(Query::new("SELECT 1")).await.unwrap_err();
    assert!(error.kind() == ErrorKind::Busy && error.message().contains("readers"), "{error:?}");
}

#[tokio::test]
async fn what_cannot_be_read_is_named_by_its_row() {
    let store = DuckDbStore::open("duckdb::memory:").await.unwrap();
    let fails = async |sql: &str, wanted: DataType| {
        let schema = Arc::new(Schema::new(vec![Field::new("x", wanted, true)]));
        let query = Query { schema: Some(schema), ..Query::new(sql) };
        match store.query(query).await {
            Ok(stream) => stream.collect().await.unwrap_err(),
            Err(error) => error,
        }
    };
    let error =
        fails("SELECT CASE WHEN range = 7000 THEN 40000 ELSE 1 END AS x FROM range(9000)", DataType::Int16);
    let error = error.await;
    assert_eq!(
        (error.kind(), error.row(), error.column()),
        (ErrorKind::InvalidValue, Some(7_000), Some("x")),
        "{error:?}"
    );
    for value in ["'infinity'::DATE", "['infinity'::TIMESTAMP]", "{'a': [1], 'b': '-infinity'::TIMESTAMPTZ}"]
    {
        let sql = format!("SELECT CASE WHEN range = 3000 THEN {value} END AS x FROM range(4000)");
        let error = match store.query(Query::new(sql)).await {
            Ok(stream) => stream.collect().await.unwrap_err(),
            Err(error) => error,
        };
        assert_eq!((error.kind(), error.row()), (ErrorKind::InvalidValue, Some(3_000)), "{value}: {error:?}");
    }
}

/// EXPLAIN ANALYZE does what it explains.
#[tokio::test]
async fn a_query_writes_nothing() {
    let store = DuckDbStore::open("duckdb::memory:").await.unwrap();
    execute(&store, &["CREATE TABLE t AS SELECT range AS id FROM range(5)"]).await;
    for sql in
        ["EXPLAIN ANALYZE DELETE FROM t", "explain (analyze, format json) DELETE FROM t", "DELETE FROM t"]
    {
        let error = store.query(Query::new(sql)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Statement, "{sql}: {error:?}");
    }
    assert!(super::query(&store, "EXPLAIN DELETE FROM t").await.num_rows() > 0);
    assert_eq!(number(&store, "SELECT count(*) FROM t").await, 5);
}

/// Settings of the database that change what Arrow arrays it makes change nothing here.
#[tokio::test]
async fn settings_of_arrow_change_nothing() {
    let mut options = DuckDbOptions::memory();
    for setting in ["arrow_large_buffer_size", "produce_arrow_string_view", "arrow_output_list_view"] {
        options = options.set(setting, "true");
    }
    let store = options.open().await.unwrap();
    execute(&store, &["CREATE TABLE t(id BIGINT PRIMARY KEY, tags VARCHAR[])"]).await;
    assert_eq!(store.tables().await.unwrap(), ["t".into()]);
    assert_eq!(store.describe(&"t".into()).await.unwrap().key, ["id"]);
    let rows = super::query(&store, "SELECT 'a' AS x, ['b'] AS y").await;
    assert_eq!(rows.column(0).data_type(), &DataType::Utf8);
    assert!(matches!(rows.column(1).data_type(), DataType::List(_)));
}

#[tokio::test]
async fn a_key_finds_rows_of_a_column_that_was_widened() {
    let store = DuckDbStore::open("duckdb::memory:?readers=1").await.unwrap();
    execute(
        &store,
        &["CREATE TABLE t(id TINYINT, name VARCHAR)", "INSERT INTO t(id) SELECT range FROM range(100)"],
    )
    .await;
    let found =
        async |count| store.look_up(keys(count)).await.unwrap().into_batch().await.unwrap().num_rows();
    assert_eq!(found(1_000).await, 100);
    let widen = "ALTER TABLE t ALTER COLUMN id TYPE BIGINT";
    execute(&store, &[widen, "INSERT INTO t(id) SELECT range FROM range(100, 1000)"]).await;
    assert_eq!(found(1_000).await, 1_000);
}
