//! What SQL of the user's own leaves in a session: nothing beyond its transaction.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use barge_core::Store;
use barge_core::store::Operation;
use barge_duckdb::{DuckDbOptions, DuckDbStore};

use super::{execute, number, step};

fn ids(ids: &[i64]) -> RecordBatch {
    let ids: ArrayRef = Arc::new(Int64Array::from(ids.to_vec()));
    RecordBatch::try_from_iter([("id", ids)]).unwrap()
}

async fn two_tables(store: &DuckDbStore) {
    let statements = [
        "CREATE TABLE t(id BIGINT PRIMARY KEY CHECK (id < 100))",
        "CREATE SCHEMA s",
        "CREATE TABLE s.t(id BIGINT PRIMARY KEY CHECK (id < 1000))",
    ];
    execute(store, &statements).await;
}

#[tokio::test]
async fn rows_go_where_the_table_was_described() {
    let store = DuckDbStore::open("duckdb::memory:").await.unwrap();
    two_tables(&store).await;
    let steps = async |operation, values: &[i64]| step(&store, "t", operation, ids(values), 1).await;
    let insert = steps(Operation::Insert, &[1, 2]).await;
    let absent = steps(Operation::InsertIfAbsent, &[2, 3]).await;
    let delete = steps(Operation::Delete, &[1]).await;
    let fails = steps(Operation::Insert, &[7, 500]).await;
    let mut transaction = store.begin().await.unwrap();
    transaction.execute("USE s").await.unwrap();
    for step in [&insert, &absent, &delete] {
        transaction.apply(step).await.unwrap();
    }
    // In the session's words, t is another table now; its description says which.
    assert_eq!(
        transaction.describe(&"t".into()).await.unwrap().name,
        barge_core::TableName::in_schema("s", "t")
    );
    transaction.commit().await.unwrap();
    assert_eq!(number(&store, "SELECT sum(id) FROM main.t").await, 5);
    assert_eq!(number(&store, "SELECT count(*) FROM s.t").await, 0);
    // By the constraints of the table that was meant.
    let mut transaction = store.begin().await.unwrap();
    let outcomes = transaction.apply_rows(&fails).await.unwrap().outcomes;
    assert!(outcomes[0].is_ok() && outcomes[1].is_err(), "{outcomes:?}");
}

#[tokio::test]
async fn a_session_is_as_new_for_the_next_transaction() {
    let store = DuckDbStore::open("duckdb::memory:").await.unwrap();
    two_tables(&store).await;
    for statement in [
        "USE s",
        "SET search_path = 's'",
        "CREATE TEMP TABLE only_mine(id BIGINT)",
        "SET TimeZone = 'Asia/Tokyo'",
        "SET VARIABLE mine = 7",
    ] {
        execute(&store, &[statement]).await;
        let mut transaction = store.begin().await.unwrap();
        transaction.execute("INSERT INTO t VALUES (1)").await.unwrap();
        let schema = transaction.describe(&"t".into()).await.unwrap().name;
        assert_eq!(schema, "t".into(), "{statement}");
        transaction.rollback().await.unwrap();
    }
    let mut transaction = store.begin().await.unwrap();
    let changed = "INSERT INTO t SELECT 2 WHERE getvariable('mine') IS NULL AND current_setting('TimeZone') = 'UTC' \
                   AND (SELECT count(*) FROM duckdb_tables() WHERE temporary) = 0";
    assert_eq!(transaction.execute(changed).await.unwrap(), 1);
}

/// A file may be called like a schema.
#[tokio::test]
async fn a_file_called_like_a_schema_is_no_obstacle() {
    let directory = tempfile::tempdir().unwrap();
    {
        let (catalog, name) = ("s", "s.duckdb");
        let store = DuckDbOptions::file(directory.path().join(name)).open().await.unwrap();
        let statements = [
            "CREATE SCHEMA {}.s",
            "CREATE TABLE {}.s.t(id BIGINT PRIMARY KEY)",
            "CREATE TABLE {}.main.t(id BIGINT PRIMARY KEY)",
        ];
        let statements = statements.map(|sql| sql.replace("{}", catalog));
        execute(&store, &statements.each_ref().map(String::as_str)).await;
        for name in [barge_core::TableName::new("t"), barge_core::TableName::in_schema("s", "t")] {
            let description = Arc::new(store.describe(&name).await.unwrap());
            let column = barge_core::record::Column::new(arrow::datatypes::Field::new(
                "id",
                arrow::datatypes::DataType::Int64,
                false,
            ));
            let column = column.with_role(barge_core::record::Role::Key);
            let own = barge_core::Table::new(name, vec![column]).unwrap();
            for operation in [Operation::Insert, Operation::InsertIfAbsent, Operation::Delete] {
                let target =
                    barge_core::store::Target::new(&own, operation, Arc::clone(&description)).unwrap();
                let step =
                    barge_core::store::Step { target: Arc::new(target), batch: ids(&[1]), outcomes: true };
                store.transact(None, &[step]).await.unwrap();
            }
        }
        store.close().await.unwrap();
    }
}
