//! Commits that fail.

use std::process::Command;
use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use barge_core::record::{Column, Role};
use barge_core::store::{CommitError, Operation};
use barge_core::{Database, ErrorKind, Store, Table};
use barge_duckdb::DuckDbOptions;

use super::{execute, number, step};

const FILE: &str = "BARGE_TEST_FULL_FILE";

/// Random enough not to be compressed away; more than the log may grow by.
fn rows(from: i64, count: i64, length: usize) -> RecordBatch {
    let ids: ArrayRef = Arc::new(Int64Array::from_iter_values(from..from + count));
    let text = |id: i64| {
        (0..length as i64).map(|place| char::from(b'a' + ((id * 31 + place * place) % 26) as u8)).collect()
    };
    let texts: ArrayRef =
        Arc::new(StringArray::from_iter_values((from..from + count).map(text).map(|text: String| text)));
    RecordBatch::try_from_iter([("id", ids), ("text", texts)]).unwrap()
}

/// Run by the next test, in a process whose files may not grow beyond a size.
#[test]
#[ignore = "run by another test, as a process of its own"]
fn writes_beyond_the_limit() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    runtime.block_on(async {
        let options = DuckDbOptions::file(std::env::var(FILE).unwrap()).set("checkpoint_threshold", "1GB");
        let store = options.open().await.unwrap();
        execute(&store, &["CREATE TABLE t(id BIGINT PRIMARY KEY, text VARCHAR)"]).await;
        let small = step(&store, "t", Operation::Insert, rows(0, 10, 10), 1).await;
        store.transact(None, &[small]).await.unwrap();
        let large = step(&store, "t", Operation::Insert, rows(1_000, 20_000, 1_000), 1).await;
        let failure = store.transact(None, std::slice::from_ref(&large)).await.unwrap_err();
        let CommitError::RolledBack(error) = &failure else { panic!("{failure:?}") };
        assert_eq!(error.kind(), ErrorKind::DiskFull, "{error:?}");
        assert!(!error.is_retryable());
        // It was taken back, and the database goes on.
        assert_eq!(number(&store, "SELECT count(*) FROM t").await, 10);
        let small = step(&store, "t", Operation::Insert, rows(100, 10, 10), 1).await;
        store.transact(None, &[small]).await.unwrap();

        // A writer answers its rows at once, and goes on with the next.
        let db = Database::new(store);
        let schema = large.batch.schema();
        let columns = schema.fields().iter().map(|field| Column::new((**field).clone()));
        let mut columns: Vec<Column> = columns.collect();
        columns[0] = columns[0].clone().with_role(Role::Key);
        let table = Arc::new(Table::new("t", columns).unwrap());
        let writer = db.writer().max_rows(20_000).max_bytes(64 << 20).start();
        let begun = std::time::Instant::now();
        writer.add_batch(&table, Operation::Insert, &large.batch).await.unwrap();
        assert!(writer.flush().await.is_err() || writer.statistics().rejected > 0);
        assert!(begun.elapsed().as_secs() < 30, "it was tried again");
        drop(writer);
        // Without a word: what is left in the log is read again when the file is next opened.
        std::process::exit(0);
    });
}

#[tokio::test]
async fn a_full_disk_is_told_as_such_and_nothing_is_left() {
    if !cfg!(target_os = "linux") {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("conflict.duckdb");
    let program = std::env::current_exe().unwrap();
    // A write beyond the limit fails, as on a full disk, where its signal is ignored.
    let script = "trap '' XFSZ; ulimit -f 8192; exec \"$0\" --exact commits::writes_beyond_the_limit --ignored --nocapture";
    let done = Command::new("bash").args(["-c", script]).arg(program).env(FILE, &path).output().unwrap();
    let said = String::from_utf8_lossy(&done.stderr).into_owned() + &String::from_utf8_lossy(&done.stdout);
    assert!(done.status.success(), "{said}");
    let store = DuckDbOptions::file(&path).open().await.unwrap();
    assert_eq!(number(&store, "SELECT count(*) FROM t").await, 20);
}
