//! What SQLite is lent: arrays that must outlive every register that points into them. Run these under address sanitizer.

use std::rc::Rc;
use std::sync::Arc;

use arrow::array::*;
use barge_core::store::Query;
use barge_core::{Operation, Store};

use super::support::*;
use crate::affinity::Affinity;
use crate::batch::BoundBatch;
use crate::connection::{Connection, bind};
use crate::options::{Access, SqliteOptions};
use crate::statement::Value;

fn connection() -> Connection {
    SqliteOptions::memory().connect(Access::Write).unwrap()
}

fn texts(rows: usize) -> RecordBatch {
    let texts: Vec<String> = (0..rows).map(|row| format!("a text on the heap, number {row}")).collect();
    batch(vec![("x", Arc::new(StringArray::from(texts)) as ArrayRef)])
}

#[test]
fn the_batch_lives_until_the_run_ends_and_no_longer() {
    let mut connection = connection();
    let sql = connection.over_batch("SELECT x FROM {batch}", Some(&texts(1))).unwrap();
    let statement = connection.statement(&sql).unwrap();
    let batch = bind(&texts(3), |_| Affinity::Blob).unwrap();
    let mut run = statement.run_over(&batch);
    let weak = Rc::downgrade(&batch);
    // The caller may let go at once: the statement holds on.
    drop(batch);
    let mut seen = 0;
    while let Some(row) = run.next().unwrap() {
        let Value::Text(text) = row.value(0) else { panic!("not text") };
        assert_eq!(text, format!("a text on the heap, number {seen}").as_bytes());
        seen += 1;
    }
    assert_eq!(seen, 3);
    drop(run);
    assert!(weak.upgrade().is_none(), "the statement still holds the batch");
}

#[test]
fn a_run_that_ends_half_way_lets_go() {
    let mut connection = connection();
    let sql = connection.over_batch("SELECT x FROM {batch} ORDER BY x DESC", Some(&texts(1))).unwrap();
    let statement = connection.statement(&sql).unwrap();
    for rows in 1..20 {
        let batch = bind(&texts(rows), |_| Affinity::Blob).unwrap();
        let mut run = statement.run_over(&batch);
        assert!(run.next().unwrap().is_some());
        drop(run);
        assert_eq!(Rc::strong_count(&batch), 1);
    }
}

#[test]
fn a_statement_that_fails_half_way_lets_go() {
    let mut connection = connection();
    connection.run("CREATE TABLE t(x TEXT CHECK (x NOT LIKE '%5'))").unwrap();
    let table = connection.batch_table(1).unwrap();
    let insert = format!("INSERT INTO t SELECT c0 FROM {table}(?1) ORDER BY _ordinal");
    let statement = connection.statement(&insert).unwrap();
    let batch = bind(&texts(10), |_| Affinity::Text).unwrap();
    let failure = statement.run_over(&batch).finish().unwrap_err();
    assert!(failure.message.contains("CHECK"), "{failure}");
    assert_eq!((batch.last_row(), Rc::strong_count(&batch)), (5, 1));
    assert_eq!(connection.integer("SELECT count(*) FROM t").unwrap(), Some(0));
}

#[test]
fn an_interrupted_statement_lets_go() {
    let mut connection = connection();
    let sql =
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(x || i) FROM {batch}, n";
    let sql = connection.over_batch(sql, Some(&texts(1))).unwrap();
    let statement = connection.statement(&sql).unwrap();
    let batch = bind(&texts(100), |_| Affinity::Blob).unwrap();
    let handle = connection.inner.get_interrupt_handle();
    let interrupt = std::thread::spawn(move || {
        std::thread::sleep(std::time::Duration::from_millis(30));
        handle.interrupt();
    });
    assert!(statement.run_over(&batch).finish().unwrap_err().message.contains("interrupted"));
    interrupt.join().unwrap();
    assert_eq!(Rc::strong_count(&batch), 1);
}

#[test]
fn a_panic_in_a_cell_is_an_error_of_the_statement() {
    let mut connection = connection();
    let table = connection.batch_table(1).unwrap();
    let statement = connection.statement(&format!("SELECT c0 FROM {table}(?1)")).unwrap();
    let whole = bind(&texts(2), |_| Affinity::Blob).unwrap();
    // Says it has more rows than its arrays do.
    let short = Rc::new(BoundBatch::new(Rc::into_inner(whole).unwrap().columns, 3));
    assert!(statement.run_over(&short).finish().is_err());
    assert_eq!(Rc::strong_count(&short), 1);
    let whole = bind(&texts(2), |_| Affinity::Blob).unwrap();
    statement.run_over(&whole).finish().unwrap();
}

#[test]
fn a_table_of_other_columns_and_no_batch_at_all_read_nothing_wrong() {
    let mut connection = connection();
    let table = connection.batch_table(2).unwrap();
    let statement = connection.statement(&format!("SELECT c0, c1 FROM {table}(?1)")).unwrap();
    let narrow = bind(&texts(2), |_| Affinity::Blob).unwrap();
    assert!(statement.run_over(&narrow).finish().is_err());
    assert!(statement.run().next().unwrap().is_none());
    assert!(connection.prepare(&format!("SELECT c0 FROM {table}")).is_err());
    let statement = connection.statement(&format!("SELECT c0 FROM {table}('text')")).unwrap();
    assert!(statement.run().next().unwrap().is_none());
}

#[test]
fn a_relation_read_twice_in_one_statement_is_two_cursors() {
    let mut connection = connection();
    let sql = "SELECT a.x || b.x FROM {batch} a JOIN {batch} b ON a._ordinal = b._ordinal + 1";
    let sql = connection.over_batch(sql, Some(&texts(1))).unwrap();
    let statement = connection.statement(&sql).unwrap();
    let batch = bind(&texts(4), |_| Affinity::Blob).unwrap();
    let mut run = statement.run_over(&batch);
    let mut rows = 0;
    while run.next().unwrap().is_some() {
        rows += 1;
    }
    assert_eq!(rows, 3);
}

#[tokio::test]
async fn slices_are_read_from_their_own_rows() {
    let store = memory(&["CREATE TABLE t(x TEXT)"]).await;
    write(&store, "t", Operation::Insert, &texts(10).slice(4, 3), &[]).await.unwrap();
    let expected: Vec<String> = (4..7).map(|row| format!("a text on the heap, number {row}")).collect();
    assert_eq!(rows(&store, "SELECT x FROM t").await, expected);
    let mut transaction = store.begin().await.unwrap();
    let query = Query {
        sql: "DELETE FROM t WHERE x IN (SELECT x FROM {batch}) RETURNING x".into(),
        batch: Some(texts(10).slice(5, 1)),
        schema: None,
    };
    let deleted = transaction.over(&query).await.unwrap();
    assert_eq!(deleted.column(0).as_string::<i32>().value(0), expected[1]);
    transaction.commit().await.unwrap();
}
