//! Query plans: the batch is read once, outside, and the target is searched by its key for each row.

use std::sync::Arc;

use arrow::array::*;
use barge_core::store::Target;
use barge_core::{Operation, Store};

use super::support::*;
use crate::statements::{matching, write};

/// A table, a key and rows; each with another kind of index behind the key.
fn tables() -> Vec<(&'static str, Vec<&'static str>, RecordBatch)> {
    let int = || Arc::new(Int64Array::from(vec![1])) as ArrayRef;
    let text = || Arc::new(StringArray::from(vec!["a"])) as ArrayRef;
    let rows = |a: ArrayRef, b: ArrayRef| batch(vec![("a", a), ("b", b), ("x", text())]);
    vec![
        ("CREATE TABLE t(a INTEGER PRIMARY KEY, b TEXT, x TEXT)", vec!["a"], rows(int(), text())),
        ("CREATE TABLE t(a TEXT PRIMARY KEY, b TEXT, x TEXT)", vec!["a"], rows(text(), text())),
        (
            "CREATE TABLE t(a INTEGER, b TEXT, x TEXT, PRIMARY KEY (a, b))",
            vec!["a", "b"],
            rows(int(), text()),
        ),
        (
            "CREATE TABLE t(a INTEGER, b TEXT, x TEXT, PRIMARY KEY (b, a)) WITHOUT ROWID",
            vec!["a", "b"],
            rows(int(), text()),
        ),
        (
            "CREATE TABLE t(a TEXT COLLATE NOCASE PRIMARY KEY, b TEXT, x TEXT)",
            vec!["a"],
            rows(text(), text()),
        ),
        ("CREATE TABLE t(a INTEGER PRIMARY KEY, b TEXT UNIQUE, x TEXT)", vec!["b"], rows(int(), text())),
        ("CREATE TABLE t(a INTEGER PRIMARY KEY, b REAL UNIQUE, x TEXT)", vec!["b"], rows(int(), int())),
    ]
}

#[tokio::test]
async fn the_batch_is_outside_and_the_target_is_searched_by_its_key() {
    for (create, key, rows) in tables() {
        // Filled and analysed, or the planner might choose otherwise once the table has grown.
        for filled in [false, true] {
            let mut statements = vec![create];
            if filled {
                statements.push(
                    "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 5000)
                     INSERT INTO t SELECT i, i, i FROM n",
                );
                statements.push("ANALYZE");
            }
            let store = memory(&statements).await;
            for operation in [Operation::Upsert, Operation::InsertIfAbsent, Operation::Delete] {
                let target = target(&store, "t", operation, &rows, &key).await.unwrap();
                let rowid = (!create.contains("WITHOUT")).then_some("rowid");
                let name = batch_name(&target);
                for sql in [write(&target, &name, true, rowid).unwrap(), matching(&target, &name)] {
                    let (plan, program) = explain(&store, sql.clone(), target.columns.len()).await;
                    let batch_scans = plan.iter().filter(|line| line.contains("VIRTUAL TABLE")).count();
                    // One for each key column of a table without row ids; never one for each row.
                    let most = if rowid.is_none() { key.len() } else { 1 };
                    assert!((1..=most).contains(&batch_scans), "{sql}\n{plan:#?}");
                    let target_lines: Vec<&String> =
                        plan.iter().filter(|line| line.contains(" t ") || line.ends_with(" t")).collect();
                    assert!(
                        target_lines.iter().all(|line| line.starts_with("SEARCH")),
                        "{create}\n{sql}\n{plan:#?}"
                    );
                    assert!(!program.iter().any(|opcode| opcode == "SorterOpen"), "{sql}\n{program:?}");
                }
            }
            let target = target(&store, "t", Operation::Insert, &rows, &[]).await.unwrap();
            let (_, program) = explain(
                &store,
                write(&target, &batch_name(&target), true, None).unwrap(),
                target.columns.len(),
            )
            .await;
            let sorts = ["SorterOpen", "OpenEphemeral"];
            assert!(!program.iter().any(|opcode| sorts.contains(&opcode.as_str())), "{program:?}");
        }
    }
}

fn batch_name(target: &Target) -> String {
    crate::batch::module::table_name(target.columns.len())
}

/// The plan's lines and the program's opcodes.
async fn explain(store: &crate::SqliteStore, sql: String, columns: usize) -> (Vec<String>, Vec<String>) {
    let read = move |connection: &mut crate::connection::Connection| {
        connection.batch_table(columns).unwrap();
        let column = |sql: &str, column: usize| -> Vec<String> {
            let mut statement = connection.inner.prepare(sql).unwrap();
            let mut rows = statement.raw_query();
            let mut lines = Vec::new();
            while let Some(row) = rows.next().unwrap() {
                lines.push(row.get(column).unwrap());
            }
            lines
        };
        Ok((column(&format!("EXPLAIN QUERY PLAN {sql}"), 3), column(&format!("EXPLAIN {sql}"), 1)))
    };
    store.schema(read).await.unwrap()
}

#[tokio::test]
async fn a_users_query_over_a_batch_is_flattened_too() {
    let store = memory(&["CREATE TABLE t(a TEXT PRIMARY KEY, x TEXT)"]).await;
    let rows = batch(vec![("a b", Arc::new(StringArray::from(vec!["k"])) as ArrayRef)]);
    let sql = store
        .schema(move |connection| {
            connection
                .over_batch("SELECT b._ordinal, t.x FROM {batch} AS b JOIN t ON t.a = b.\"a b\"", Some(&rows))
        })
        .await
        .unwrap();
    let (plan, _) = explain(&store, sql, 1).await;
    assert!(plan[0].contains("VIRTUAL TABLE") && plan[1].starts_with("SEARCH t"), "{plan:?}");
    assert_eq!(plan.len(), 2);
    store.close().await.unwrap();
}
