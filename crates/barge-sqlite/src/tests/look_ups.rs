//! Look-ups: what is read for them, and how much of it at a time.

use std::ffi::{c_int, c_void};
use std::sync::Arc;

use arrow::array::*;
use arrow::datatypes::{DataType, Int64Type};
use barge_core::store::{Direction, LookUp, OrderBy};
use barge_core::{ErrorKind, Store};
use libsqlite3_sys as ffi;

use super::support::*;
use crate::SqliteStore;

/// A million rows: a thousand of each of a thousand users.
const FILL: &str = "WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 999999)
     INSERT INTO t SELECT i, i % 1000, (i * 7919) % 100003, 'row ' || i FROM n";
const CREATE: &str =
    "CREATE TABLE t(id INTEGER PRIMARY KEY, user INTEGER NOT NULL, at INTEGER, name TEXT NOT NULL)";

fn of_users(users: impl IntoIterator<Item = i64>, limit: Option<u32>) -> LookUp {
    let users = batch(vec![("user", Arc::new(Int64Array::from_iter_values(users)) as ArrayRef)]);
    let fields =
        vec![field("id", DataType::Int64), field("user", DataType::Int64), field("at", DataType::Int64)];
    let order = |column: &str| OrderBy { column: column.into(), direction: Direction::Descending };
    LookUp { order: vec![order("at"), order("id")], limit, ..look_up("t", fields, users) }
}

/// How many rows a look-up gives, and how many thousands of its own instructions SQLite takes for them.
async fn cost(store: &SqliteStore, look_up: LookUp) -> (usize, usize) {
    unsafe extern "C" fn count(counter: *mut c_void) -> c_int {
        // SAFETY: the counter outlives the handler, which is called on one thread.
        unsafe { *counter.cast::<usize>() += 1 };
        0
    }
    let found = store.schema(move |connection| {
        let mut thousands = 0_usize;
        let counter = (&raw mut thousands).cast();
        // SAFETY: the connection is open; the counter lives until the handler is taken away.
        unsafe { ffi::sqlite3_progress_handler(connection.raw(), 1_000, Some(count), counter) };
        let found = connection.look_up(&look_up);
        // SAFETY: as above.
        unsafe { ffi::sqlite3_progress_handler(connection.raw(), 0, None, std::ptr::null_mut()) };
        Ok((found?.num_rows(), thousands))
    });
    found.await.unwrap()
}

/// With an index on the key and the order, ten rows of each of a thousand users cost ten rows each, whichever way and though the column
/// may be NULL; without one, the table is read once and not once a key.
#[tokio::test]
async fn a_limit_reads_no_more_than_it_gives() {
    let (store, _directory) = file(&[CREATE, FILL]).await;
    let keys = || (0..1_000).rev();
    let (rows, scanned) = cost(&store, of_users(keys(), Some(10))).await;
    assert_eq!(rows, 10_000);
    assert!(scanned < 100_000, "{scanned} thousand instructions over a million rows");
    run(&store, &["CREATE INDEX by_user ON t(user, at)"]).await;
    let (rows, searched) = cost(&store, of_users(keys(), Some(10))).await;
    assert_eq!(rows, 10_000);
    assert!(searched < 500, "{searched} thousand instructions for 10,000 rows");
    let (rows, _) = cost(&store, of_users(keys(), None)).await;
    assert_eq!(rows, 1_000_000);
    store.close().await.unwrap();
}

/// A table without an index on the look-up's columns is read once, whatever their types and the number of keys.
#[tokio::test]
async fn without_an_index_the_table_is_read_once() {
    let create = "CREATE TABLE t(id INTEGER PRIMARY KEY, i INTEGER, r REAL, s TEXT COLLATE NOCASE)";
    let fill = "WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 49999)
         INSERT INTO t SELECT i, i, i / 2.0, 'Name ' || i FROM n";
    let store = memory(&[create, fill]).await;
    let rows = 0..50_000_i64;
    let columns: [(&str, ArrayRef); 3] = [
        ("i", Arc::new(Int64Array::from_iter_values(rows.clone()))),
        ("r", Arc::new(Float64Array::from_iter_values(rows.clone().map(|i| i as f64 / 2.0)))),
        ("s", Arc::new(StringArray::from_iter_values(rows.map(|i| format!("NAME {i}"))))),
    ];
    for (name, keys) in columns {
        let keys = batch(vec![(name, keys)]);
        let fields = vec![field("id", DataType::Int64), field(name, keys.column(0).data_type().clone())];
        let found = store.look_up(look_up("t", fields, keys)).await.unwrap();
        let found = found.into_batch().await.unwrap();
        assert_eq!(found.num_rows(), 50_000, "{name}");
        let column = |index: usize| found.column(index).as_primitive::<Int64Type>().clone();
        assert_eq!(column(0), column(1), "{name}");
    }
}

/// A reader that takes nothing holds the store back; one that goes away ends the look-up, and the store goes on.
#[tokio::test(flavor = "multi_thread")]
async fn a_slow_reader_holds_a_look_up_back() {
    let (store, _directory) = file(&[CREATE, FILL, "CREATE INDEX by_user ON t(user, at)"]).await;
    for limit in [None, Some(900)] {
        let mut found = store.look_up(of_users(0..1_000, limit)).await.unwrap();
        let before = resident();
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        // The rows are some 24 MB, and what SQLite keeps of the file is there already.
        let grown = resident().saturating_sub(before);
        assert!(grown < 8 << 20, "{} MiB while nobody reads", grown >> 20);
        assert!(found.next().await.unwrap().is_some());
        drop(found);
    }
    assert_eq!(rows(&store, "SELECT count(*) FROM t").await, ["1000000"]);
    store.close().await.unwrap();
}

/// A million keys with a row each: what is in memory at a time doesn't grow with them.
#[tokio::test(flavor = "multi_thread")]
async fn a_million_keys_stream_in_flat_memory() {
    let wide = "UPDATE t SET name = printf('%0200d', id)";
    let (store, _directory) = file(&[CREATE, FILL, wide]).await;
    let ids = batch(vec![("id", Arc::new(Int64Array::from_iter_values(0..1_000_000)) as ArrayRef)]);
    let fields = vec![field("id", DataType::Int64), field("name", DataType::Utf8)];
    for ordered in [false, true] {
        let mut wanted = look_up("t", fields.clone(), ids.clone());
        if ordered {
            wanted.order = vec![OrderBy { column: "name".into(), direction: Direction::Ascending }];
        }
        let before = resident();
        let mut found = store.look_up(wanted).await.unwrap();
        let (mut rows, mut grown) = (0, 0);
        while let Some(part) = found.next().await.unwrap() {
            rows += part.num_rows();
            grown = grown.max(resident().saturating_sub(before));
        }
        assert_eq!(rows, 1_000_000);
        // The rows are some 220 MB; the keys' order is 4 MB.
        assert!(grown < 48 << 20, "{} MiB", grown >> 20);
    }
    store.close().await.unwrap();
}

/// Decimals are text that doesn't sort by its value: they're refused, and other columns aren't.
#[tokio::test]
async fn decimals_have_no_order() {
    let store = memory(&[
        "CREATE TABLE t(id INTEGER PRIMARY KEY, user INTEGER, price DECIMAL_TEXT(20,4), n DECIMAL(9,2))",
    ])
    .await;
    let by = |column: &str| {
        let order = vec![OrderBy { column: column.into(), direction: Direction::Ascending }];
        let users = batch(vec![("user", Arc::new(Int64Array::from(vec![1, 2])) as ArrayRef)]);
        LookUp {
            order,
            ..look_up("t", vec![field("id", DataType::Int64), field("user", DataType::Int64)], users)
        }
    };
    let error = store.look_up(by("price")).await.unwrap_err();
    assert_eq!((error.kind(), error.column()), (ErrorKind::Unsupported, Some("price")), "{error}");
    store.look_up(by("n")).await.unwrap();
}

/// The process's resident memory, in bytes.
fn resident() -> usize {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    pages.split(' ').nth(1).and_then(|pages| pages.parse::<usize>().ok()).unwrap_or(0) * 4096
}
