//! Rows that fail in ways that no query foresees, in a database without savepoints.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use barge_core::store::{Operation, Outcome};
use barge_core::{ErrorKind, Store};
use barge_duckdb::DuckDbStore;

use super::{execute, number, step};

fn codes(from: i64, codes: &[&str]) -> RecordBatch {
    let ids: ArrayRef = Arc::new(Int64Array::from_iter_values(from..from + codes.len() as i64));
    let codes: ArrayRef = Arc::new(StringArray::from(codes.to_vec()));
    RecordBatch::try_from_iter([("id", ids), ("code", codes)]).unwrap()
}

/// A check that fails itself over some values, and unique indexes over expressions, of which one has a collation beneath.
async fn store() -> DuckDbStore {
    let store = DuckDbStore::open("duckdb::memory:").await.unwrap();
    let statements = [
        "CREATE TABLE t(id BIGINT PRIMARY KEY, code VARCHAR CHECK (CAST(code AS INTEGER) > 0))",
        "CREATE UNIQUE INDEX by_number ON t(CAST(code AS INTEGER))",
        "INSERT INTO t VALUES (1, '7')",
        "CREATE TABLE u(id BIGINT PRIMARY KEY, code VARCHAR COLLATE NOCASE)",
        "CREATE UNIQUE INDEX by_code ON u((code || ''))",
    ];
    execute(&store, &statements).await;
    store
}

#[tokio::test]
async fn rows_over_which_a_constraint_itself_fails_are_found() {
    let store = store().await;
    let mut transaction = store.begin().await.unwrap();
    let first = step(&store, "t", Operation::Insert, codes(10, &["100"]), 1).await;
    transaction.apply(&first).await.unwrap();
    let rows = step(&store, "t", Operation::Insert, codes(20, &["1", "abc", "2", "-1", "007", "3"]), 1).await;
    let applied = transaction.apply_rows(&rows).await.unwrap();
    let words: Vec<String> = applied
        .outcomes
        .iter()
        .map(|outcome| {
            outcome.as_ref().map_or_else(|error| error.kind().to_string(), |outcome| format!("{outcome:?}"))
        })
        .collect();
    assert_eq!(
        words,
        ["Inserted", "InvalidValue", "Inserted", "CheckViolation", "UniqueViolation", "Inserted"]
    );
    for (row, outcome) in applied.outcomes.iter().enumerate() {
        if let Err(error) = outcome {
            assert_eq!((error.row(), error.table()), (Some(row as u64), Some("t")), "{error:?}");
        }
    }
    transaction.commit().await.unwrap();
    assert_eq!(number(&store, "SELECT count(*) FROM t").await, 5);
}

/// Where a transaction can't be done again, nothing of it is left, and nothing is written outside it.
#[tokio::test]
async fn a_transaction_that_is_gone_leaves_nothing() {
    let store = store().await;
    let rows = step(&store, "u", Operation::Insert, codes(20, &["1", "1", "2"]), 1).await;
    for by_rows in [false, true] {
        let mut transaction = store.begin().await.unwrap();
        transaction.execute("INSERT INTO u VALUES (5, '50')").await.unwrap();
        if by_rows {
            transaction.apply_rows(&rows).await.unwrap_err();
        } else {
            transaction.apply(&rows).await.unwrap_err();
        }
        assert!(!transaction.is_open());
        assert_eq!(transaction.apply(&rows).await.unwrap_err().kind(), ErrorKind::Statement);
        transaction.commit().await.unwrap_err();
        assert_eq!(number(&store, "SELECT count(*) FROM u").await, 0, "by rows: {by_rows}");
    }
    let good = step(&store, "t", Operation::Insert, codes(30, &["9"]), 1).await;
    let applied = store.transact(None, &[good]).await.unwrap().unwrap();
    assert_eq!(applied[0].outcomes.as_deref(), Some(&[Outcome::Inserted][..]));
}
