//! Look-ups: what the server reads for them, how much is in memory at a time, keys beyond one statement.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, AsArray, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Int64Type, Schema};
use barge_core::Direction::{Ascending, Descending};
use barge_core::record::Keys;
use barge_core::{Database, FromRow, LookUpBy, Record, Table};
use barge_postgres::PostgresOptions;

use super::support::Fresh;

const CREATE: &str =
    "CREATE TABLE events(id bigint PRIMARY KEY, user_id bigint NOT NULL, at bigint, name text NOT NULL)";

/// Rows of a number of users, who take turns.
fn fill(rows: usize, users: usize) -> String {
    format!(
        "INSERT INTO events SELECT n, n % {users}, (n * 7919::bigint) % 100003, lpad(n::text, 200, 'x') FROM generate_series(0, {}) AS n",
        rows - 1
    )
}

#[derive(Clone, Debug, PartialEq, Record, FromRow)]
#[record(table = "events")]
struct Event {
    #[record(key)]
    id: i64,
    user_id: i64,
    name: String,
}

/// A connection of its own: the server counts what an index's making read to the next transactions of its session.
async fn anew(fresh: &Fresh) -> Database {
    Database::new(PostgresOptions::from_url(&fresh.url()).unwrap().open().await.unwrap())
}

/// How many rows of the table a look-up read: by an index, and from end to end.
async fn cost(fresh: &Fresh, by: &LookUpBy, keys: impl Keys) -> (usize, i64, i64) {
    const SQL: &str = "SELECT idx_tup_fetch, seq_tup_read FROM pg_stat_xact_user_tables JOIN {batch} AS b ON relname = b.name";
    let name: ArrayRef = Arc::new(StringArray::from(vec!["events"]));
    let names = RecordBatch::try_from_iter([("name", name)]).unwrap();
    let mut tx = anew(fresh).await.begin().await.unwrap();
    let found = tx.look_up(Event::table(), by, keys).await.unwrap();
    let read = tx.over(&names, SQL).await.unwrap();
    let number = |index: usize| read.column(index).as_primitive::<Int64Type>().value(0);
    (found.num_rows(), number(0), number(1))
}

/// With an index, ten rows of each of five hundred users cost about ten rows each; without one, the table is read once and not once a key.
#[tokio::test]
async fn a_limit_reads_little_more_than_it_gives() {
    let newest = LookUpBy::from("user_id").order_by("at", Descending).limit(10);
    let users: Vec<i64> = (0..500).rev().collect();
    let plain = Fresh::with(&[CREATE, &fill(200_000, 500)]).await;
    let (rows, _, scanned) = cost(&plain, &newest, &users[..]).await;
    assert_eq!(rows, 5_000);
    // What parallel workers read is not counted here.
    assert!(scanned <= 200_000, "{scanned} rows");
    let index = "CREATE INDEX ON events(user_id, at)";
    let indexed = Fresh::with(&[CREATE, index, &fill(200_000, 500), "ANALYZE events"]).await;
    let (rows, searched, scanned) = cost(&indexed, &newest, &users[..]).await;
    assert_eq!(rows, 5_000);
    // Of rows that tie in the index's columns the sort reads some more: the first 32 of each key at least.
    assert!(searched <= 500 * 40 && scanned == 0, "{searched} by the index, {scanned} from end to end");
}

/// An index that begins with one of a look-up's columns finds many rows for each key, and each key would read all of them.
#[tokio::test]
async fn an_index_on_one_of_the_columns_is_not_searched_for_each_key() {
    let index = "CREATE INDEX ON events(user_id)";
    let fresh = Fresh::with(&[CREATE, index, &fill(20_000, 2), "ANALYZE events"]).await;
    let by = LookUpBy::columns(["user_id", "name"]).order_by("at", Descending).limit(10);
    let keys: Vec<(i64, String)> = (0..200).map(|n| (n % 2, format!("{n:x>200}"))).collect();
    let (rows, searched, scanned) = cost(&fresh, &by, &keys[..]).await;
    assert_eq!(rows, 200);
    assert!(searched + scanned <= 40_000, "{searched} by the index, {scanned} from end to end");
}

/// A million keys: what is in memory at a time doesn't grow with them, and a reader that takes nothing holds the server back.
#[tokio::test(flavor = "multi_thread")]
async fn a_million_keys_stream_in_flat_memory() {
    let fresh = Fresh::with(&[CREATE, &fill(1_000_000, 1_000_000), "ANALYZE events"]).await;
    let ids: Vec<i64> = (0..1_000_000).collect();
    let all = LookUpBy::from("id");
    for by in [all.clone(), all.order_by("at", Ascending).limit(3)] {
        let before = resident();
        let mut found = fresh.db.look_up(Event::table(), by, &ids).await.unwrap();
        tokio::time::sleep(Duration::from_millis(500)).await;
        let (mut rows, mut grown) = (0, resident().saturating_sub(before));
        while let Some(part) = found.next().await.unwrap() {
            rows += part.num_rows();
            grown = grown.max(resident().saturating_sub(before));
        }
        assert_eq!(rows, 1_000_000);
        // The rows are some 230 MB; the keys, and what is sent of them, 20 MB each.
        assert!(grown < 96 << 20, "{} MiB", grown >> 20);
    }
    let mut backwards = ids;
    backwards.reverse();
    let found = fresh.db.get_all::<Event, _>(&backwards).await.unwrap();
    let found: Vec<i64> = found.into_iter().map(|event| event.unwrap().id).collect();
    assert_eq!(found, backwards);
}

/// Keys that are too many bytes for one statement are looked up by several, and each finds its rows at its place.
#[tokio::test(flavor = "multi_thread")]
async fn keys_beyond_one_statement_are_found() {
    const KEYS: usize = 100;
    let key = |n: usize| format!("{n}{}", "k".repeat(1 << 20));
    let fresh = Fresh::with(&["CREATE TABLE long(id bigint, key text, primary key (id))"]).await;
    let fields = vec![Field::new("id", DataType::Int64, false), Field::new("key", DataType::Utf8, true)];
    let table = Table::of_schema("long", &Schema::new(fields.clone()), &["id"]).unwrap();
    for part in 0..4 {
        let numbers = (0..KEYS).filter(|n| n % 4 == part);
        let ids: ArrayRef = Arc::new(Int64Array::from_iter_values(numbers.clone().map(|n| n as i64)));
        let keys: ArrayRef = Arc::new(StringArray::from_iter_values(numbers.map(key)));
        let rows = RecordBatch::try_new(Arc::new(Schema::new(fields.clone())), vec![ids, keys]).unwrap();
        let writer = fresh.db.writer().start();
        writer.add_batch(&Arc::new(table.clone()), barge_core::Operation::Insert, &rows).await.unwrap();
        writer.close().await.unwrap().into_result().unwrap();
    }
    let keys: Vec<String> = (0..KEYS).rev().map(key).collect();
    let ids = Table::of_schema("long", &Schema::new(fields[..1].to_vec()), &["id"]).unwrap();
    for by in [LookUpBy::from("key"), LookUpBy::from("key").order_by("id", Descending).limit(2)] {
        let found = fresh.db.look_up(&ids, &by, &keys).await.unwrap().into_batch().await.unwrap();
        let mut tx = fresh.db.begin().await.unwrap();
        let inside = tx.look_up(&ids, &by, &keys).await.unwrap();
        for found in [found, inside] {
            assert_eq!(found.num_rows(), KEYS);
            let column = |index: usize| found.column(index).as_primitive::<Int64Type>().values();
            let places = column(0).iter().zip(column(1));
            assert!(places.into_iter().all(|(ordinal, id)| ordinal + id == KEYS as i64 - 1));
        }
    }
}

/// The process's resident memory, in bytes.
fn resident() -> usize {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    pages.split(' ').nth(1).and_then(|pages| pages.parse::<usize>().ok()).unwrap_or(0) * 4096
}

/// The planner knows how many keys there are: one key is no reason to read a table from end to end.
#[tokio::test(flavor = "multi_thread")]
async fn a_few_keys_are_found_by_the_index() {
    let fresh =
        Fresh::with(&[CREATE, &fill(60_000, 500), "CREATE INDEX ON events(user_id)", "ANALYZE events"]).await;
    for by in [LookUpBy::from("id"), LookUpBy::from("user_id").order_by("at", Descending).limit(3)] {
        let (_, _, scanned) = cost(&fresh, &by, &[7_i64, 8][..]).await;
        assert_eq!(scanned, 0, "{by:?}");
    }
    let mut tx = anew(&fresh).await.begin().await.unwrap();
    tx.update_all(&[Event { id: 9, user_id: 1, name: "new".to_owned() }]).await.unwrap();
    let read = "SELECT seq_tup_read FROM pg_stat_xact_user_tables JOIN {batch} AS b ON relname = b.name";
    let name: ArrayRef = Arc::new(StringArray::from(vec!["events"]));
    let read = tx.over(&RecordBatch::try_from_iter([("name", name)]).unwrap(), read).await.unwrap();
    assert_eq!(read.column(0).as_primitive::<Int64Type>().value(0), 0);
}

/// An index that sorts texts in another way than the column compares them finds no key.
#[tokio::test(flavor = "multi_thread")]
async fn an_index_in_another_collation_is_not_searched_for_each_key() {
    let fresh = Fresh::with(&[
        "CREATE TABLE events(id bigint PRIMARY KEY, user_id bigint, at bigint, name text COLLATE \"C\" NOT NULL)",
        &fill(20_000, 50),
        "CREATE INDEX ON events(name COLLATE \"POSIX\")",
        "ANALYZE events",
    ])
    .await;
    let names: Vec<String> = (0..200).map(|n| format!("{n:x>200}")).collect();
    let newest = LookUpBy::from("name").order_by("at", Descending).limit(1);
    let (rows, _, scanned) = cost(&fresh, &newest, &names[..]).await;
    assert_eq!(rows, 200);
    assert!(scanned <= 20_000, "{scanned} rows");
}

/// Rows are locked by what looks like a join with a table.
#[tokio::test(flavor = "multi_thread")]
async fn a_statement_over_a_batch_locks_rows() {
    let fresh = Fresh::with(&[CREATE, &fill(100, 5)]).await;
    let ids: ArrayRef = Arc::new(Int64Array::from(vec![3, 5]));
    let batch = RecordBatch::try_from_iter([("id", ids)]).unwrap();
    let mut tx = fresh.db.begin().await.unwrap();
    let sql = "SELECT t.id FROM {batch} AS b JOIN events AS t USING (id) ORDER BY t.id FOR UPDATE";
    assert_eq!(tx.over(&batch, sql).await.unwrap().num_rows(), 2);
    let mut other = fresh.db.store().begin().await.unwrap();
    let free = "UPDATE events SET at = 0 WHERE id IN (SELECT id FROM events WHERE id BETWEEN 2 AND 6 FOR UPDATE SKIP LOCKED)";
    assert_eq!(other.execute(free).await.unwrap(), 3);
    other.rollback().await.unwrap();
    tx.rollback().await.unwrap();
}
