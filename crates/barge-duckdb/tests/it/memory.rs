//! Batches are let go: the process doesn't grow over thousands of flushes, nor with the rows of a look-up.

use std::sync::Arc;

use arrow::array::{Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema};
use barge_core::Direction::Ascending;
use barge_core::store::{Operation, Query};
use barge_core::{Database, FromRow, LookUpBy, Record, Store};
use barge_duckdb::DuckDbStore;

use super::{execute, step};

const ROWS: i64 = 5_000;
/// Each kept batch would take twenty times this, all in all.
const GROWTH_MAX: usize = 48 << 20;

fn batch() -> RecordBatch {
    let fields = vec![Field::new("id", DataType::Int64, false), Field::new("name", DataType::Utf8, true)];
    let names = StringArray::from_iter_values(
        (0..ROWS).map(|id| format!("the name of row number {id}, long enough")),
    );
    let ids = Int64Array::from_iter_values(0..ROWS);
    RecordBatch::try_new(Arc::new(Schema::new(fields)), vec![Arc::new(ids), Arc::new(names)]).unwrap()
}

/// The process's resident memory, in bytes.
fn resident() -> usize {
    let pages = std::fs::read_to_string("/proc/self/statm").unwrap();
    pages.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

#[tokio::test]
async fn thousands_of_batches_leave_nothing_behind() {
    if !cfg!(target_os = "linux") {
        return;
    }
    let store = DuckDbStore::open("duckdb::memory:").await.unwrap();
    execute(&store, &["CREATE TABLE t(id BIGINT PRIMARY KEY, name VARCHAR)"]).await;
    let insert = step(&store, "t", Operation::Insert, batch(), 1).await;
    let upsert = step(&store, "t", Operation::Upsert, batch(), 1).await;
    let mut before = 0;
    for round in 0..2_400 {
        if round == 400 {
            before = resident();
        }
        match round % 3 {
            0 => {
                let query = Query {
                    batch: Some(batch()),
                    ..Query::new("SELECT max(name), count(*) FROM {batch} AS b WHERE b.id % 2 = 0")
                };
                store.query(query).await.unwrap().into_batch().await.unwrap();
            }
            which => {
                let mut transaction = store.begin().await.unwrap();
                transaction.apply(if which == 1 { &insert } else { &upsert }).await.unwrap();
                transaction.rollback().await.unwrap();
            }
        }
    }
    let grown = resident().saturating_sub(before);
    assert!(grown < GROWTH_MAX, "the process grew by {} MiB over 2,000 batches", grown >> 20);
}

#[derive(Clone, Debug, PartialEq, Record, FromRow)]
#[record(table = "events")]
struct Event {
    #[record(key)]
    id: i64,
    name: String,
}

/// A million keys: what is in memory at a time doesn't grow with the rows, though DuckDB keeps what it may, and a reader that takes nothing
/// holds it back.
#[tokio::test(flavor = "multi_thread")]
async fn a_million_keys_stream_in_flat_memory() {
    if !cfg!(target_os = "linux") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let url = format!(
        "duckdb:{}?set.memory_limit=200MB&set.threads=2",
        directory.path().join("a.duckdb").display()
    );
    let store = DuckDbStore::open(&url).await.unwrap();
    execute(
        &store,
        &[
            "CREATE TABLE events(id BIGINT, placed BIGINT, name VARCHAR)",
            "INSERT INTO events SELECT i, hash(i) % 1000, lpad(hash(i)::VARCHAR, 500, 'x') FROM range(1000000) AS r(i)",
            "CHECKPOINT",
        ],
    )
    .await;
    let db = Database::new(store);
    let ids: Vec<i64> = (0..1_000_000).collect();
    let all = LookUpBy::from("id");
    let mut before = 0;
    for by in [all.clone(), all.clone(), all.order_by("placed", Ascending).limit(3)] {
        let mut found = db.look_up(Event::table(), by, &ids).await.unwrap();
        tokio::time::sleep(std::time::Duration::from_millis(500)).await;
        let (mut rows, mut most) = (0, resident());
        while let Some(part) = found.next().await.unwrap() {
            rows += part.num_rows();
            most = most.max(resident());
        }
        assert_eq!(rows, 1_000_000);
        // The first round fills what DuckDB may keep. The rows are some 500 MB.
        let grown = most.saturating_sub(before);
        assert!(before == 0 || grown < 128 << 20, "{} MiB", grown >> 20);
        before = before.max(resident());
    }
    let found = db.get_all::<Event, _>(&ids[..]).await.unwrap();
    assert!(found.into_iter().zip(ids).all(|(event, id)| event.is_some_and(|event| event.id == id)));
}
