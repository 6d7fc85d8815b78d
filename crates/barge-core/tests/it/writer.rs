use std::sync::Arc;
use std::time::Duration;

use barge_core::record::batch_of;
use barge_core::{ErrorKind, FlushReason, Operation, Outcome, Record, WhenFull};
use barge_testkit::{Effect, Fault, FaultPlan, FaultStore, Point};

use super::*;

#[tokio::test]
async fn every_row_gets_its_outcome() {
    let (_, db) = database().await;
    let writer = db.writer().start();
    let inserted = writer.insert(&task(1, "a")).await.unwrap();
    assert_eq!(inserted.await.unwrap(), Outcome::Inserted);
    let receipts = [
        writer.upsert(&task(1, "b")).await.unwrap(),
        writer.upsert(&task(2, "c")).await.unwrap(),
        writer.update(&task(3, "d")).await.unwrap(),
        writer.insert_if_absent(&task(2, "e")).await.unwrap(),
        writer.delete(&task(1, "")).await.unwrap(),
        writer.delete(&task(9, "")).await.unwrap(),
    ];
    let mut outcomes = Vec::new();
    for receipt in receipts {
        outcomes.push(receipt.await.unwrap());
    }
    let expected = [
        Outcome::Updated,
        Outcome::Inserted,
        Outcome::NotFound,
        Outcome::Unchanged,
        Outcome::Deleted,
        Outcome::NotFound,
    ];
    assert_eq!(outcomes, expected);
    let statistics = writer.close().await.unwrap().into_result().unwrap();
    assert_eq!((statistics.added, statistics.committed), (7, 7));
    assert_eq!(statistics.without_effect, 3);
    assert_eq!(db.get_all::<Task, _>(&[2, 1]).await.unwrap(), [Some(task(2, "c")), None]);
}

#[tokio::test]
async fn one_bad_row_never_takes_its_neighbours_with_it() {
    let (store, db) = database().await;
    db.insert_all(&[task(50, "there")]).await.unwrap();
    let writer = db.writer().start();
    let mut receipts = Vec::new();
    for id in 0..100 {
        receipts.push(writer.insert(&task(id, "new")).await.unwrap());
    }
    for (id, receipt) in receipts.into_iter().enumerate() {
        match receipt.await {
            Ok(outcome) => assert_eq!((outcome, id != 50), (Outcome::Inserted, true)),
            Err(error) => assert_eq!((error.kind(), id), (ErrorKind::UniqueViolation, 50)),
        }
    }
    let report = writer.close().await.unwrap();
    assert_eq!((report.statistics.committed, report.statistics.rejected), (99, 1));
    assert_eq!(report.rejected[0].row["id"], 50);
    assert_eq!(report.into_result().unwrap_err().kind(), ErrorKind::UniqueViolation);
    assert_eq!(store.rows("tasks").len(), 100);
}

#[tokio::test]
async fn atomic_rejects_the_neighbours_too_and_says_which_row_was_to_blame() {
    let (store, db) = database().await;
    db.insert_all(&[task(2, "there")]).await.unwrap();
    let writer = db.writer().atomic().linger(Duration::from_secs(60)).start();
    let first = writer.insert(&task(1, "a")).await.unwrap();
    let second = writer.insert(&task(2, "b")).await.unwrap();
    writer.flush().await.unwrap();
    let blamed = first.await.unwrap_err().to_string();
    assert!(blamed.contains("all or none"), "{blamed}");
    assert!(!second.await.unwrap_err().to_string().contains("all or none"));
    assert_eq!(store.rows("tasks").len(), 1);
    assert_eq!(writer.close().await.unwrap().statistics.rejected, 2);
}

#[tokio::test]
async fn any_limit_and_any_number_of_rows_behave() {
    for max_rows in [1, 2, 7, 1_000_000] {
        for rows in [0, 1, 7, 8, 1_000] {
            let (store, db) = database().await;
            let writer = db.writer().max_rows(max_rows).start();
            for id in 0..rows {
                writer.insert(&task(id, "x")).await.unwrap();
            }
            let statistics = writer.close().await.unwrap().into_result().unwrap();
            assert_eq!(statistics.committed, rows as u64);
            assert_eq!(store.rows("tasks").len(), rows as usize);
            assert!(statistics.rows_per_batch() <= max_rows as f64);
        }
    }
}

#[tokio::test]
async fn a_row_larger_than_max_bytes_goes_alone_or_with_what_came_before() {
    let (store, db) = database().await;
    let writer = db.writer().max_bytes(100).start();
    let large = "x".repeat(10_000);
    for id in 0..10 {
        writer.insert(&task(id, &large)).await.unwrap();
    }
    let statistics = writer.close().await.unwrap().into_result().unwrap();
    assert_eq!(store.rows("tasks").len(), 10);
    assert_eq!(statistics.flushes_for(FlushReason::Bytes), 10);
    assert_eq!(statistics.batch_efficiency(), 1.0);
}

#[tokio::test(start_paused = true)]
async fn a_lone_row_leaves_at_once_and_rows_gather_while_a_flush_is_under_way() {
    let (_, db) = slow_database(Duration::from_millis(10)).await;
    let writer = db.writer().start();
    let started = tokio::time::Instant::now();
    let first = writer.insert(&task(0, "first")).await.unwrap();
    tokio::time::sleep(Duration::from_millis(1)).await;
    let mut receipts = Vec::new();
    for id in 1..=500 {
        receipts.push(writer.insert(&task(id, "later")).await.unwrap());
    }
    first.await.unwrap();
    assert_eq!(started.elapsed(), Duration::from_millis(10));
    for receipt in receipts {
        receipt.await.unwrap();
    }
    assert_eq!(
        started.elapsed(),
        Duration::from_millis(20),
        "500 rows waited for one flush, then left in one"
    );
    assert_eq!(writer.statistics().flushes, 2);
}

#[tokio::test(start_paused = true)]
async fn a_linger_waits_for_more_rows_but_not_longer() {
    let (_, db) = database().await;
    let writer = db.writer().max_rows(3).linger(Duration::from_secs(5)).start();
    let started = tokio::time::Instant::now();
    let lone = writer.insert(&task(1, "a")).await.unwrap();
    lone.await.unwrap();
    assert_eq!(started.elapsed(), Duration::from_secs(5));
    for id in 2..5 {
        writer.insert(&task(id, "b")).await.unwrap();
    }
    writer.flush().await.unwrap();
    assert_eq!(started.elapsed(), Duration::from_secs(5), "a full buffer does not linger");
    writer.insert(&task(9, "c")).await.unwrap();
    writer.flush().await.unwrap();
    assert_eq!(started.elapsed(), Duration::from_secs(5), "neither does an explicit flush");
    let statistics = writer.close().await.unwrap().statistics;
    assert_eq!(statistics.flushes_for(FlushReason::Linger), 1);
    assert_eq!(statistics.flushes_for(FlushReason::Rows), 1);
    assert_eq!(statistics.flushes_for(FlushReason::Explicit), 1);
}

#[tokio::test(start_paused = true)]
async fn a_full_buffer_waits_or_says_so_and_a_cancelled_insert_was_not_accepted() {
    let (_, db) = slow_database(Duration::from_secs(1)).await;
    let writer = db.writer().max_rows(1).start();
    writer.insert(&task(1, "in flight")).await.unwrap();
    tokio::time::sleep(Duration::from_millis(1)).await;
    writer.insert(&task(2, "buffered")).await.unwrap();
    let third = task(3, "cancelled");
    let cancelled = tokio::time::timeout(Duration::from_millis(10), writer.insert(&third)).await;
    assert!(cancelled.is_err(), "no room yet");
    writer.insert(&task(4, "waited")).await.unwrap();
    let statistics = writer.close().await.unwrap().into_result().unwrap();
    assert_eq!(statistics.added, 3);
    assert_eq!(db.get_all::<Task, _>(&[3]).await.unwrap(), [None]);

    let writer = db.writer().max_rows(1).when_full(WhenFull::Reject).start();
    writer.insert(&task(5, "in flight")).await.unwrap();
    tokio::time::sleep(Duration::from_millis(1)).await;
    writer.insert(&task(6, "buffered")).await.unwrap();
    let error = writer.insert(&task(7, "refused")).await.unwrap_err();
    assert_eq!((error.kind(), error.is_retryable()), (ErrorKind::BufferFull, true));
    assert_eq!(writer.close().await.unwrap().statistics.committed, 2);
}

#[tokio::test]
async fn closing_can_be_done_twice_and_nothing_is_accepted_after() {
    let (_, db) = database().await;
    let writer = db.writer().start();
    let clone = writer.clone();
    writer.insert(&task(1, "a")).await.unwrap();
    let first = writer.close().await.unwrap();
    let second = clone.close().await.unwrap();
    assert_eq!(first.statistics, second.statistics);
    assert_eq!(clone.insert(&task(2, "b")).await.unwrap_err().kind(), ErrorKind::Closed);
    clone.flush().await.unwrap();
}

#[tokio::test]
async fn dropping_the_last_clone_lets_the_buffer_drain() {
    let (store, db) = database().await;
    let writer = db.writer().linger(Duration::from_secs(3_600)).start();
    let receipt = writer.insert(&task(1, "a")).await.unwrap();
    drop(writer);
    assert_eq!(receipt.await.unwrap(), Outcome::Inserted);
    assert_eq!(store.rows("tasks").len(), 1);
}

#[test]
fn a_runtime_that_ends_first_sends_the_rows_to_the_dead_letter() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("dead.jsonl");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let receipt = runtime.block_on(async {
        let (_, db) = database().await;
        let writer = db.writer().linger(Duration::from_secs(3_600)).dead_letter(&path).start();
        writer.insert(&task(1, "lost?")).await.unwrap();
        let receipt = writer.insert(&task(2, "lost?")).await.unwrap();
        // Kept alive beyond the runtime, so that not even the drop of the last clone says anything.
        std::mem::forget(writer);
        Some(receipt)
    });
    drop(runtime);
    let lines = std::fs::read_to_string(&path).unwrap();
    let rows: Vec<serde_json::Value> =
        lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(rows.len(), 2);
    assert_eq!((rows[1]["row"]["id"].as_i64(), rows[1]["error"]["kind"].as_str()), (Some(2), Some("Closed")));
    let late = tokio::runtime::Builder::new_current_thread().build().unwrap();
    assert_eq!(late.block_on(receipt.unwrap()).unwrap_err().kind(), ErrorKind::Closed);
}

#[tokio::test]
async fn a_dead_letter_holds_row_table_operation_and_error() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("dead.jsonl");
    let (_, db) = database().await;
    db.insert_all(&[task(1, "there")]).await.unwrap();
    let writer = db.writer().dead_letter(&path).start();
    writer.insert(&task(1, "again")).await.unwrap();
    writer.insert(&task(2, "new")).await.unwrap();
    let report = writer.close().await.unwrap();
    assert_eq!(report.statistics.rejected, 1);
    let lines = std::fs::read_to_string(&path).unwrap();
    let line: serde_json::Value = serde_json::from_str(lines.trim_end()).unwrap();
    assert_eq!(line["barge"], 1);
    assert_eq!((line["table"].as_str(), line["operation"].as_str()), (Some("tasks"), Some("insert")));
    assert_eq!(line["error"]["kind"], "UniqueViolation");
    assert_eq!(line["row"], serde_json::json!({"id": 1, "name": "again"}));

    let missing = directory.path().join("no such directory").join("dead.jsonl");
    let error = db.writer().dead_letter(&missing).try_start().unwrap_err();
    assert!(error.to_string().contains("no such directory"), "{error}");
}

#[tokio::test]
async fn rows_for_a_table_that_is_not_there_are_rejected_alone() {
    #[derive(Record)]
    #[record(table = "nowhere")]
    struct Nowhere {
        id: i64,
    }
    let (_, db) = database().await;
    let writer = db.writer().linger(Duration::from_secs(60)).start();
    let lost = writer.insert(&Nowhere { id: 1 }).await.unwrap();
    let kept = writer.insert(&task(1, "a")).await.unwrap();
    writer.flush().await.unwrap();
    assert_eq!(lost.await.unwrap_err().kind(), ErrorKind::MissingTable);
    assert_eq!(kept.await.unwrap(), Outcome::Inserted);
    assert_eq!(writer.close().await.unwrap().statistics.rejected, 1);
}

#[tokio::test]
async fn record_batches_go_in_slices_and_their_rows_are_answered_by_place() {
    let (store, db) = database().await;
    db.insert_all(&[task(13, "there")]).await.unwrap();
    let rows: Vec<Task> = (0..25).map(|id| task(id, "batch")).collect();
    let batch = batch_of(&rows).unwrap();
    let table = Arc::new(Task::table().clone());
    let writer = db.writer().max_rows(10).start();
    let receipt = writer.add_batch(&table, Operation::Insert, &batch).await.unwrap();
    let outcomes = receipt.outcomes().await;
    assert_eq!(outcomes.len(), 25);
    for (place, outcome) in outcomes.iter().enumerate() {
        assert_eq!(outcome.is_err(), place == 13, "row {place}: {outcome:?}");
    }
    let receipt = writer.add_batch(&table, Operation::Insert, &batch).await.unwrap();
    let mut rejected = Vec::new();
    receipt.rejected(|place, error| rejected.push((place, error.kind()))).await;
    assert_eq!(rejected.len(), 25);
    assert_eq!(rejected[24], (24, ErrorKind::UniqueViolation));
    assert_eq!(store.rows("tasks").len(), 25);
    let other = batch.project(&[1, 0]).unwrap();
    let error = writer.add_batch(&table, Operation::Insert, &other).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidConfig);
}

#[tokio::test]
async fn a_generated_key_comes_back_on_the_receipt() {
    #[derive(Record)]
    #[record(table = "notes")]
    struct Note {
        #[record(key, generated)]
        id: Option<i64>,
        text: &'static str,
    }
    let (_, db) = database().await;
    db.create_table::<Note>().await.unwrap();
    let writer = db.writer().linger(Duration::from_secs(60)).start();
    let mut receipts = Vec::new();
    for text in ["a", "b", "c"] {
        receipts.push(writer.insert(&Note { id: None, text }).await.unwrap());
    }
    writer.flush().await.unwrap();
    let mut keys = Vec::new();
    for receipt in receipts {
        let (outcome, key) = receipt.with_key().await.unwrap();
        assert_eq!(outcome, Outcome::Inserted);
        keys.push(key.unwrap());
    }
    assert!(keys.windows(2).all(|pair| pair[0] < pair[1]), "{keys:?}");
    let written =
        db.insert_all(&[Note { id: None, text: "d" }, Note { id: Some(77), text: "e" }]).await.unwrap();
    assert_eq!(written.keys()[1], Some(77));
}

#[tokio::test(start_paused = true)]
async fn close_within_answers_what_it_leaves() {
    let (_, db) = slow_database(Duration::from_secs(10)).await;
    let writer = db.writer().max_rows(2).start();
    let in_flight = writer.insert(&task(1, "in flight")).await.unwrap();
    tokio::time::sleep(Duration::from_millis(1)).await;
    let left = writer.insert(&task(2, "left")).await.unwrap();
    let report = writer.close_within(Duration::from_secs(1)).await.unwrap();
    assert_eq!(in_flight.await.unwrap(), Outcome::Inserted);
    assert_eq!(left.await.unwrap_err().kind(), ErrorKind::Timeout);
    assert_eq!((report.statistics.committed, report.statistics.rejected), (1, 1));
    assert_eq!(report.rejected[0].row["id"], 2);
    writer.flush().await.unwrap();
}

/// Calls of `flush` that wait for a row that is left are told so.
#[tokio::test(start_paused = true)]
async fn flush_says_that_close_within_left_its_rows() {
    let (_, db) = slow_database(Duration::from_secs(10)).await;
    let writer = db.writer().max_rows(2).start();
    writer.insert(&task(1, "in flight")).await.unwrap();
    tokio::time::sleep(Duration::from_millis(1)).await;
    writer.insert(&task(2, "left")).await.unwrap();
    let flush = tokio::spawn({
        let writer = writer.clone();
        async move { writer.flush().await }
    });
    tokio::time::sleep(Duration::from_millis(1)).await;
    // Many give up before; they hold up nobody.
    for _ in 0..100 {
        tokio::time::timeout(Duration::ZERO, writer.flush()).await.unwrap_err();
    }
    writer.close_within(Duration::from_secs(1)).await.unwrap().into_result().unwrap_err();
    assert_eq!(flush.await.unwrap().unwrap_err().kind(), ErrorKind::Timeout);
    for _ in 0..100 {
        writer.flush().await.unwrap();
    }
}

#[tokio::test]
async fn a_column_added_while_the_writer_runs_is_seen() {
    #[derive(Record)]
    #[record(table = "tasks")]
    struct Wider {
        #[record(key)]
        id: i64,
        name: &'static str,
        size: i64,
    }
    let (store, db) = database().await;
    let writer = db.writer().start();
    writer.insert(&task(1, "a")).await.unwrap().await.unwrap();
    let wider = Wider { id: 2, name: "b", size: 3 };
    let error = writer.insert(&wider).await.unwrap().await.unwrap_err();
    assert_eq!((error.kind(), error.column()), (ErrorKind::MissingColumn, Some("size")));
    store.drop_table("tasks");
    store.create(MemoryTable::new(Wider::table())).unwrap();
    assert_eq!(writer.insert(&wider).await.unwrap().await.unwrap(), Outcome::Inserted);
    assert_eq!(writer.close().await.unwrap().statistics.rejected, 1);
}

/// A commit is cut off, and the retry that should find out whether it happened fails on a full disk. The rows may be there: the
/// disk's failure must not hide it.
#[tokio::test(start_paused = true)]
async fn a_commit_that_stays_unknown_poisons_the_writer_with_its_own_failure() {
    for late in [ErrorKind::DiskFull, ErrorKind::Io] {
        let (store, _) = database().await;
        let plan = FaultPlan::new([
            Fault { point: Point::Commit, nth: 1, effect: Effect::CutAfter },
            Fault { point: Point::Begin, nth: 2, effect: Effect::Fail(late) },
        ]);
        let db = Database::new(FaultStore::new(Arc::new(store.clone()), plan));
        let writer = db.writer().start();
        let error = writer.insert(&task(1, "a")).await.unwrap().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionLost, "{error}");
        assert!(error.to_string().contains("whether it happened could not be found out"), "{error}");
        let refused = writer.insert(&task(2, "b")).await.unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Poisoned, "{refused}");
        assert_eq!(store.rows("tasks").len(), 1, "it did happen");
    }
}
