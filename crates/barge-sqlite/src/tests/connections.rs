//! Who waits for whom, what a dropped future leaves behind, how a database opens and closes.

use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use arrow::array::*;
use arrow::datatypes::DataType;
use barge_core::store::{Query, Token};
use barge_core::{ErrorKind, Operation, Store};

use super::support::*;
use crate::{Profile, SqliteOptions, SqliteStore};

const TABLE: &str = "CREATE TABLE t(id INTEGER PRIMARY KEY)";

fn ids(range: std::ops::Range<i64>) -> RecordBatch {
    batch(vec![("id", Arc::new(Int64Array::from_iter_values(range)) as ArrayRef)])
}

#[tokio::test]
async fn a_dropped_transaction_is_rolled_back_before_the_next_begins() {
    let (store, _directory) = file(&[TABLE]).await;
    let mut transaction = store.begin().await.unwrap();
    transaction.execute("INSERT INTO t VALUES (1)").await.unwrap();
    drop(transaction);
    let mut transaction = store.begin().await.unwrap();
    let count = transaction.over(&Query::new("SELECT count(*) AS n FROM t")).await.unwrap();
    assert_eq!(count.column(0).as_primitive::<arrow::datatypes::Int64Type>().value(0), 0);
    transaction.rollback().await.unwrap();
    // So it is where nobody waits for the transaction that begins.
    for _ in 0..50 {
        let _ = tokio::time::timeout(Duration::from_micros(1), store.begin()).await;
    }
    write(&store, "t", Operation::Insert, &ids(0..1), &[]).await.unwrap();
}

#[tokio::test]
async fn work_goes_on_where_its_future_is_dropped() {
    let store = memory(&[TABLE]).await;
    let rows = ids(0..200_000);
    let target = target(&store, "t", Operation::Insert, &rows, &[]).await.unwrap();
    let steps = [step(&target, &rows)];
    let mut transact = Box::pin(store.transact(None, &steps));
    let pending = std::future::poll_fn(|context| Poll::Ready(transact.as_mut().poll(context).is_pending()));
    assert!(pending.await);
    drop(transact);
    assert_eq!(super::support::rows(&store, "SELECT count(*) FROM t").await, ["200000"]);
}

#[tokio::test]
async fn a_file_is_read_while_a_transaction_is_open() {
    let (store, _directory) = file(&[TABLE]).await;
    let mut transaction = store.begin().await.unwrap();
    transaction.execute("INSERT INTO t VALUES (1)").await.unwrap();
    assert_eq!(rows(&store, "SELECT count(*) FROM t").await, ["0"]);
    transaction.commit().await.unwrap();
    assert_eq!(rows(&store, "SELECT count(*) FROM t").await, ["1"]);
}

#[tokio::test]
async fn memory_has_one_connection_and_says_so() {
    let store = SqliteOptions::memory().busy_timeout(Duration::from_millis(20)).open().await.unwrap();
    run(&store, &[TABLE]).await;
    let transaction = store.begin().await.unwrap();
    let error = store.query(Query::new("SELECT * FROM t")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Busy);
    assert!(error.message().contains("one connection"), "{error}");
    assert!(store.begin().await.err().unwrap().is_retryable());
    // The schema is read nevertheless, or a transaction could not write to a table for the first time.
    assert_eq!(store.describe(&"t".into()).await.unwrap().key, ["id"]);
    transaction.rollback().await.unwrap();
    assert!(rows(&store, "SELECT * FROM t").await.is_empty());
}

#[tokio::test]
async fn another_process_that_holds_the_lock_makes_a_write_wait_and_then_busy() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a.db");
    let store = SqliteOptions::file(&path).busy_timeout(Duration::from_millis(200)).open().await.unwrap();
    run(&store, &[TABLE]).await;
    let other = rusqlite::Connection::open(&path).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let started = Instant::now();
    let error = write(&store, "t", Operation::Insert, &ids(0..1), &[]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Busy);
    assert!(started.elapsed() >= Duration::from_millis(150));
    assert!(error.message().contains("a.db"), "{error}");
    let release = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(50));
        other.execute_batch("COMMIT").unwrap();
    });
    write(&store, "t", Operation::Insert, &ids(0..1), &[]).await.unwrap();
    release.join().unwrap();
}

#[tokio::test]
async fn a_stream_given_up_ends_its_query_and_frees_the_reader() {
    let directory = tempfile::tempdir().unwrap();
    let store = SqliteOptions::file(directory.path().join("a.db")).readers(1).open().await.unwrap();
    let endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n";
    let mut stream = store.query(Query::new(endless)).await.unwrap();
    assert_eq!(stream.next().await.unwrap().unwrap().num_rows(), crate::read::BATCH_ROWS);
    drop(stream);
    assert_eq!(rows(&store, "SELECT 1").await, ["1"]);
    // One that never returns a row is stopped too.
    let silent = format!("{endless} WHERE i < 0");
    let waiting = tokio::time::timeout(Duration::from_millis(50), store.query(Query::new(silent))).await;
    assert!(waiting.is_err());
    assert_eq!(rows(&store, "SELECT 2").await, ["2"]);
    store.close().await.unwrap();
}

#[tokio::test]
async fn a_query_only_reads() {
    let (store, _directory) = file(&[TABLE]).await;
    for sql in ["DELETE FROM t", "BEGIN", "SELECT 1; SELECT 2", "", "SELEC 1", "PRAGMA query_only = OFF"] {
        let error = store.query(Query::new(sql)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Statement, "{sql}: {error}");
    }
    let error = store.query(Query::new("SELECT * FROM {batch}")).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidConfig);
}

#[tokio::test]
async fn closing_waits_moves_the_log_into_the_file_and_ends_everything() {
    let (store, directory) = file(&[TABLE]).await;
    assert!(rows(&store, "SELECT * FROM t").await.is_empty());
    store.close().await.unwrap();
    store.close().await.unwrap();
    let names: Vec<_> =
        std::fs::read_dir(directory.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["a.db"]);
    let closed = [
        store.begin().await.err().unwrap(),
        store.query(Query::new("SELECT 1")).await.unwrap_err(),
        store.describe(&"t".into()).await.unwrap_err(),
    ];
    assert!(closed.iter().all(|error| error.kind() == ErrorKind::Closed), "{closed:?}");
}

#[tokio::test]
async fn closing_waits_for_nobody_forever() {
    let directory = tempfile::tempdir().unwrap();
    let options = SqliteOptions::file(directory.path().join("a.db")).busy_timeout(Duration::from_millis(50));
    let store = options.open().await.unwrap();
    run(&store, &[TABLE]).await;
    let transaction = store.begin().await.unwrap();
    assert_eq!(store.close().await.unwrap_err().kind(), ErrorKind::Busy);
    drop(transaction);
    let endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n";
    let stream = store.query(Query::new(endless)).await.unwrap();
    assert_eq!(store.close().await.unwrap_err().kind(), ErrorKind::Busy);
    drop(stream);
    write(&store, "t", Operation::Insert, &ids(0..1), &[]).await.unwrap();
    store.close().await.unwrap();
}

#[tokio::test]
async fn what_cannot_be_opened_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    std::fs::write(
        path("text.db"),
        "this is a text file, and longer than a header of SQLite's would be .......................",
    )
    .unwrap();
    for (options, part) in [
        (SqliteOptions::file(directory.path()), "is a directory"),
        (SqliteOptions::file(path("none/a.db")), "there is no directory"),
        (SqliteOptions::file(path("a.db")).create(false), "does not exist"),
        (SqliteOptions::file(path("text.db")), "is not an SQLite database"),
    ] {
        let error = options.open().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Io, "{error}");
        assert!(error.message().contains(part), "{error}");
        assert!(error.message().contains(&directory.path().display().to_string()), "{error}");
    }
}

#[tokio::test]
async fn profiles_and_pragmas_are_set() {
    let directory = tempfile::tempdir().unwrap();
    for (profile, synchronous) in [(Profile::Durable, "2"), (Profile::Balanced, "1"), (Profile::Fast, "0")] {
        let options = SqliteOptions::file(directory.path().join(format!("{profile} #?%.db")))
            .profile(profile)
            .pragma("cache_size", "-1234")
            .pragma("foreign_keys", "OFF");
        let store = options.open().await.unwrap();
        let read = async |name: &str| {
            let mut transaction = store.begin().await.unwrap();
            let batch = transaction.over(&Query::new(format!("PRAGMA {name}"))).await.unwrap();
            arrow::util::display::array_value_to_string(batch.column(0), 0).unwrap()
        };
        assert_eq!(read("synchronous").await, synchronous);
        assert_eq!(read("journal_mode").await, "wal");
        assert_eq!((read("cache_size").await, read("foreign_keys").await), ("-1234".into(), "0".into()));
    }
}

#[tokio::test]
async fn a_token_is_claimed_once_and_only_by_a_commit() {
    let store = memory(&[TABLE]).await;
    let rows = ids(0..2);
    let target = target(&store, "t", Operation::Insert, &rows, &[]).await.unwrap();
    let token = |sequence| Token { writer: uuid(), lane: 3, sequence };
    let steps = [step(&target, &rows)];
    assert!(store.transact(Some(&token(1)), &steps).await.unwrap().is_some());
    assert!(store.transact(Some(&token(1)), &steps).await.unwrap().is_none());
    assert!(store.transact(Some(&token(2)), &steps).await.is_err());
    let next = [step(&target, &ids(5..6))];
    assert!(store.transact(Some(&token(2)), &next).await.unwrap().is_some());
    assert_eq!(store.tables().await.unwrap(), ["t".into()]);
}

fn uuid() -> uuid::Uuid {
    uuid::Uuid::from_u128(7)
}

#[tokio::test]
async fn a_panic_on_the_thread_is_reported_and_leaves_no_transaction() {
    let store = memory(&[TABLE]).await;
    let read = |connection: &mut crate::connection::Connection| -> barge_core::Result<()> {
        connection.begin().unwrap();
        panic!("on purpose")
    };
    assert_eq!(store.schema(read).await.unwrap_err().kind(), ErrorKind::Poisoned);
    write(&store, "t", Operation::Insert, &ids(0..1), &[]).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn many_writers_and_readers_at_once_lose_nothing() {
    let (store, _directory) = file(&[TABLE]).await;
    let store = Arc::new(store);
    let tasks: Vec<_> = (0..16)
        .map(|task: i64| {
            let store: Arc<SqliteStore> = Arc::clone(&store);
            tokio::spawn(async move {
                for part in 0..20 {
                    let rows = ids((task * 20 + part) * 10..(task * 20 + part + 1) * 10);
                    write(&store, "t", Operation::Insert, &rows, &[]).await.unwrap();
                    let fields = vec![field("id", DataType::Int64)];
                    let found =
                        store.look_up(look_up("t", fields, rows)).await.unwrap().into_batch().await.unwrap();
                    assert_eq!(found.num_rows(), 10);
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(rows(&store, "SELECT count(*) FROM t").await, ["3200"]);
}

/// Parts of a look-up come while the rest is read, of a file and of a database in memory, and an error in a late one is not lost.
#[tokio::test]
async fn look_ups_come_in_parts() {
    let create = "CREATE TABLE t(id INTEGER PRIMARY KEY, n INTEGER)";
    let (file, _directory) = file(&[create]).await;
    for store in [file, memory(&[create]).await] {
        write(&store, "t", Operation::Insert, &ids(0..2_000), &["id"]).await.unwrap();
        // Every third key, from the last to the first.
        let keys = || {
            batch(vec![(
                "id",
                Arc::new(Int64Array::from_iter_values((0..900).rev().map(|id| id * 3))) as ArrayRef,
            )])
        };
        let fields = || vec![field("id", DataType::Int64), field("n", DataType::Int64)];
        let mut found = store.look_up(look_up("t", fields(), keys())).await.unwrap();
        let (mut parts, mut rows) = (0, 0);
        while let Some(part) = found.next().await.unwrap() {
            parts += 1;
            rows += part.num_rows();
            let column =
                |index: usize| part.column(index).as_primitive::<arrow::datatypes::Int64Type>().clone();
            for (ordinal, id) in column(0).values().iter().zip(column(1).values()) {
                assert_eq!((899 - ordinal) * 3, *id);
            }
        }
        assert_eq!((parts, rows), (3, 667));

        let mut transaction = store.begin().await.unwrap();
        transaction.execute("UPDATE t SET n = 'no number' WHERE id = 1998").await.unwrap();
        transaction.commit().await.unwrap();
        let mut found = store.look_up(look_up("t", fields(), keys())).await.unwrap();
        let error = loop {
            match found.next().await {
                Ok(part) => assert!(part.is_some(), "the error is lost"),
                Err(error) => break error,
            }
        };
        assert_eq!(
            (error.kind(), error.column(), error.row()),
            (ErrorKind::InvalidValue, Some("n"), Some(233))
        );
        assert!(found.next().await.unwrap().is_none());
        store.close().await.unwrap();
    }
}

/// Looking at a file leaves it as it is.
#[tokio::test]
async fn a_file_opened_to_read_is_not_changed() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("old.db");
    let old = rusqlite::Connection::open(&path).unwrap();
    old.execute_batch("CREATE TABLE t(id INTEGER PRIMARY KEY); INSERT INTO t VALUES (7)").unwrap();
    drop(old);
    let before = std::fs::read(&path).unwrap();
    let store = SqliteStore::open(&format!("sqlite:{}?read_only=true", path.display())).await.unwrap();
    assert_eq!(store.tables().await.unwrap(), ["t".into()]);
    assert_eq!(rows(&store, "SELECT id FROM t").await, ["7"]);
    let error = write(&store, "t", Operation::Insert, &ids(0..1), &[]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Permission, "{error}");
    store.close().await.unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), before);
    let missing = directory.path().join("missing.db");
    let url = format!("sqlite:{}?read_only=true", missing.display());
    assert_eq!(SqliteStore::open(&url).await.unwrap_err().kind(), ErrorKind::Io);
    assert!(!missing.exists());
}
