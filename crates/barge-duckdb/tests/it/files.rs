//! Files: one process at a time, one instance in it, and nothing left beside the file once it is closed.

use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field};
use barge_core::record::{Column, Role};
use barge_core::store::{Operation, Step, Target};
use barge_core::{ErrorKind, Store, Table, TableName};
use barge_duckdb::{DuckDbOptions, DuckDbStore};

use super::{execute, number};

const HELD: &str = "BARGE_TEST_HELD_FILE";

/// The other process of `a_file_held_by_another_process_is_named`.
#[test]
#[ignore = "run by another test, as a process of its own"]
fn holds_a_file() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let store = runtime.block_on(DuckDbOptions::file(std::env::var(HELD).unwrap()).open()).unwrap();
    let mut out = std::io::stdout();
    writeln!(out, "\nheld").unwrap();
    out.flush().unwrap();
    std::io::stdin().read_line(&mut String::new()).unwrap();
    runtime.block_on(store.close()).unwrap();
    // The store is still there, and the file free.
    writeln!(out, "closed").unwrap();
    out.flush().unwrap();
    std::io::stdin().read_line(&mut String::new()).unwrap();
    drop(store);
}

#[tokio::test]
async fn a_file_held_by_another_process_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("held.duckdb");
    let mut other = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "files::holds_a_file", "--ignored", "--nocapture"])
        .env(HELD, &path)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(other.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap() == "held"));

    let error = DuckDbOptions::file(&path).open().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Busy, "{error:?}");
    let message = error.to_string();
    assert!(message.contains("held.duckdb") && message.contains("another process"), "{message}");
    assert!(message.contains(&other.id().to_string()), "{message}");

    let mut input = other.stdin.take().unwrap();
    writeln!(input).unwrap();
    assert!(lines.any(|line| line.unwrap() == "closed"));
    DuckDbOptions::file(&path).open().await.unwrap().close().await.unwrap();
    drop(input);
    assert!(other.wait().unwrap().success());
}

#[tokio::test]
async fn a_closed_file_is_whole_and_free() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("closed.duckdb");
    let log = directory.path().join("closed.duckdb.wal");
    let store = DuckDbOptions::file(&path).open().await.unwrap();
    execute(&store, &["CREATE TABLE t(id BIGINT PRIMARY KEY)", "INSERT INTO t SELECT * FROM range(1000)"])
        .await;
    assert!(log.exists(), "what was committed is in the log");
    store.close().await.unwrap();
    assert!(!log.exists(), "closing moves the log into the file");
    let copy = directory.path().join("copy.duckdb");
    std::fs::copy(&path, &copy).unwrap();
    let copy = DuckDbOptions::file(&copy).read_only(true).open().await.unwrap();
    assert_eq!(number(&copy, "SELECT count(*) FROM t").await, 1_000);
    let mut transaction = copy.begin().await.unwrap();
    let error = transaction.execute("DELETE FROM t").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Permission, "{error:?}");
}

#[tokio::test]
async fn stores_of_one_file_share_its_instance() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("shared.duckdb");
    std::os::unix::fs::symlink(directory.path(), directory.path().join("link")).unwrap();
    let one = DuckDbOptions::file(&path).open().await.unwrap();
    let other = DuckDbOptions::file(directory.path().join("link/shared.duckdb")).open().await.unwrap();
    execute(&one, &["CREATE TABLE t(id BIGINT)", "INSERT INTO t VALUES (1)"]).await;
    execute(&other, &["INSERT INTO t VALUES (2)"]).await;
    assert_eq!(number(&one, "SELECT count(*) FROM t").await, 2);
    one.close().await.unwrap();
    assert_eq!(number(&other, "SELECT sum(id) FROM t").await, 3);
    other.close().await.unwrap();
}

#[tokio::test]
async fn databases_in_memory_are_each_their_own() {
    let one = DuckDbStore::open("duckdb::memory:").await.unwrap();
    let other = DuckDbStore::open("duckdb::memory:").await.unwrap();
    execute(&one, &["CREATE TABLE t(id BIGINT)"]).await;
    assert_eq!(other.tables().await.unwrap(), []);
    assert_eq!(one.tables().await.unwrap(), ["t".into()]);
}

#[tokio::test]
async fn what_cannot_be_opened_says_why() {
    let directory = tempfile::tempdir().unwrap();
    let open = |name: &str| DuckDbOptions::file(directory.path().join(name));
    std::fs::write(
        directory.path().join("text.duckdb"),
        "no database at all, but long enough to be read as one".repeat(300),
    )
    .unwrap();
    std::fs::write(directory.path().join("lite.db"), [b"SQLite format 3\0".as_slice(), &[0; 4_080]].concat())
        .unwrap();
    std::fs::write(directory.path().join("short.db"), "short").unwrap();
    let cases = [
        (open("lite.db"), ErrorKind::Io, "begins with sqlite:"),
        (open("short.db"), ErrorKind::Io, "no DuckDB database"),
        (open("text.duckdb"), ErrorKind::Io, "text.duckdb"),
        (open("none.duckdb").create(false), ErrorKind::Io, "does not exist"),
        (open("nowhere/none.duckdb"), ErrorKind::Io, "there is no directory"),
        (open("a.duckdb").set("colour", "red"), ErrorKind::InvalidConfig, "colour"),
        (DuckDbOptions::file(directory.path()), ErrorKind::Io, "is a directory"),
    ];
    for (options, kind, said) in cases {
        let error = options.open().await.unwrap_err();
        assert_eq!(error.kind(), kind, "{error:?}");
        assert!(error.to_string().contains(said), "{error}");
    }
    let odd = std::os::unix::ffi::OsStrExt::from_bytes(b"odd\xff.db");
    let error = DuckDbOptions::file(directory.path().join::<&std::ffi::OsStr>(odd)).open().await.unwrap_err();
    assert!(error.to_string().contains("UTF-8"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_long_query_ends_when_nobody_reads_it() {
    let store = DuckDbOptions::memory().readers(1).open().await.unwrap();
    let endless = "SELECT count(*) FROM range(1000000000) a, range(1000000000) b WHERE a.range + b.range = 7";
    let query = store.query(barge_core::store::Query::new(endless));
    assert!(tokio::time::timeout(Duration::from_millis(300), query).await.is_err());
    // The only reader comes free.
    let next = tokio::time::timeout(Duration::from_secs(30), number(&store, "SELECT 7"));
    assert_eq!(next.await.expect("the endless query was ended"), 7);
    store.close().await.unwrap();
}

/// A table with a key that the database draws, in a schema called like the file.
fn drawn(store: &DuckDbStore) -> Table {
    let id = Column::new(Field::new("id", DataType::Int64, true)).with_role(Role::GeneratedKey);
    let columns = vec![id, Column::new(Field::new("n", DataType::Int64, true))];
    assert!(
        store.create_table_sql(&Table::new("t", columns.clone()).unwrap()).unwrap().contains("EXISTS \"t\"")
    );
    Table::new(TableName::in_schema("held", "t"), columns).unwrap()
}

/// Inserts a row, and then two of which the second has a value that is there already.
async fn insert_drawn(store: &DuckDbStore) {
    let table = drawn(store);
    let description = Arc::new(store.describe(table.name()).await.unwrap());
    let target = Arc::new(Target::new(&table, Operation::Insert, description).unwrap());
    let ids: ArrayRef = Arc::new(Int64Array::new_null(3));
    let n: ArrayRef = Arc::new(Int64Array::from(vec![1, 2, -1]));
    let batch = RecordBatch::try_from_iter_with_nullable([("id", ids, true), ("n", n, true)]).unwrap();
    let step = |batch| Step { target: Arc::clone(&target), batch, outcomes: true };
    let mut transaction = store.begin().await.unwrap();
    transaction.apply(&step(batch.slice(0, 1))).await.unwrap();
    let error = transaction.apply(&step(batch.slice(1, 2))).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::UniqueViolation, "{error:?}");
    transaction.commit().await.unwrap();
}

/// After a crash, a sequence goes on where a committed transaction left it, also where that one was done again after a row failed.
#[tokio::test]
async fn keys_are_not_drawn_again_after_a_crash() {
    let folder = tempfile::tempdir().unwrap();
    let (path, crashed) = (folder.path().join("held.duckdb"), folder.path().join("crashed"));
    let store = DuckDbOptions::file(&path).open().await.unwrap();
    execute(&store, &["CREATE SCHEMA held"]).await;
    let sql = store.create_table_sql(&drawn(&store)).unwrap();
    let statements: Vec<&str> = sql.split(";\n").collect();
    execute(&store, &statements).await;
    execute(
        &store,
        &["CREATE UNIQUE INDEX one ON held.held.t(n)", "INSERT INTO held.held.t(id, n) VALUES (-1, -1)"],
    )
    .await;
    insert_drawn(&store).await;
    // What is on the disk now is what a crash would leave.
    std::fs::create_dir(&crashed).unwrap();
    for name in ["held.duckdb", "held.duckdb.wal"] {
        std::fs::copy(folder.path().join(name), crashed.join(name)).unwrap();
    }
    let again = DuckDbOptions::file(crashed.join("held.duckdb")).open().await.unwrap();
    let taken = number(&again, "SELECT max(id) FROM held.held.t").await;
    assert!(number(&again, "SELECT nextval('held.held.t_id_seq')").await > taken);
    again.close().await.unwrap();
    store.close().await.unwrap();
}
