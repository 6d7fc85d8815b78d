//! Several flushes in flight, for inserts declared unordered.

use std::sync::Arc;
use std::time::Duration;

use barge_core::record::batch_of;
use barge_core::{ErrorKind, Operation, Outcome, Receipt, Retry, Writer};
use barge_testkit::{Effect, Fault, FaultPlan, FaultStore, Point};
use tokio::time::Instant;

use super::*;

const LONG: Duration = Duration::from_millis(50);

fn fault(point: Point, nth: u64, effect: Effect) -> Fault {
    Fault { point, nth, effect }
}

/// The nth flush takes this much longer.
fn delay(nth: u64, time: Duration) -> Fault {
    fault(Point::Begin, nth, Effect::Delay(time))
}

/// A database whose flushes fail by plan, with the tables of `shop`, of trees, and tasks.
fn faulty(faults: impl IntoIterator<Item = Fault>) -> (MemoryStore, FaultStore, Database) {
    let (store, _) = shop(Action::Cascade);
    store.create(MemoryTable::new(Task::table())).unwrap();
    let nodes = MemoryTable::new(Node::table());
    store.create(nodes.foreign_key(&["above"], "nodes", &["id"], Action::Refuse, Action::Refuse)).unwrap();
    let gauges = MemoryTable::new(Gauge::table());
    store.create(gauges.keep_out("low", |row| *row.get("level") < 0.into())).unwrap();
    let faults = FaultStore::new(Arc::new(store.clone()), FaultPlan::new(faults));
    (store, faults.clone(), Database::new(faults))
}

#[derive(Clone, Debug, PartialEq, Record)]
#[record(table = "nodes")]
struct Node {
    #[record(key)]
    id: i64,
    above: Option<i64>,
}

#[derive(Clone, Debug, PartialEq, Record)]
#[record(table = "gauges")]
struct Gauge {
    #[record(key)]
    id: i64,
    level: i64,
}

/// Flushes one task, so that the writer knows the table: the first flush.
async fn first_task(writer: &Writer) {
    writer.insert(&task(-1, "first")).await.unwrap().await.unwrap();
}

async fn tasks(writer: &Writer, ids: std::ops::Range<i64>) -> Vec<Receipt> {
    let mut receipts = Vec::new();
    for id in ids {
        receipts.push(writer.insert(&task(id, "x")).await.unwrap());
    }
    // The flusher has its turn.
    tokio::time::sleep(Duration::from_millis(1)).await;
    receipts
}

#[tokio::test(start_paused = true)]
async fn a_flush_of_inserts_overtakes_one_that_takes_longer() {
    let (store, faults, db) = faulty([delay(2, LONG)]);
    let writer = db.writer().max_rows(10).unordered(2).start();
    first_task(&writer).await;
    let started = Instant::now();
    let slow = tasks(&writer, 0..10).await;
    for receipt in tasks(&writer, 10..20).await {
        assert_eq!(receipt.await.unwrap(), Outcome::Inserted);
    }
    assert!(started.elapsed() < LONG);
    assert_eq!((store.rows("tasks").len(), writer.statistics().in_flight), (11, 10));
    for receipt in slow {
        assert_eq!(receipt.await.unwrap(), Outcome::Inserted);
    }
    assert_eq!(started.elapsed(), LONG);
    let report = writer.close().await.unwrap();
    assert_eq!((report.statistics.committed, report.statistics.in_flight), (21, 0));
    assert_eq!(faults.most_open(), 2);
    // A lane each, and in each the sequence from 1.
    let tokens: Vec<_> = faults.tokens().iter().map(|token| (token.lane, token.sequence)).collect();
    assert_eq!(tokens, [(0, 1), (1, 1), (0, 2)], "claimed in the order of committing");
}

#[tokio::test(start_paused = true)]
async fn no_more_flushes_are_in_flight_than_were_asked_for() {
    for flushes in [1, 2, 3, 64] {
        let (_, faults, db) = faulty((2..100).map(|nth| delay(nth, LONG)));
        let writer = db.writer().max_rows(2).unordered(flushes).start();
        first_task(&writer).await;
        tasks(&writer, 0..40).await;
        let statistics = writer.close().await.unwrap().into_result().unwrap();
        assert_eq!((statistics.committed, faults.most_open()), (41, flushes.min(20)));
    }
    for flushes in [0, 65] {
        let (_, _, db) = faulty([]);
        let error = db.writer().unordered(flushes).try_start().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidConfig);
        assert!(error.to_string().contains("unordered_flushes"), "{error}");
    }
}

/// A row of a pair: the first is in flight when the second comes.
#[derive(Clone, Copy, Debug)]
enum Row {
    Task,
    TaskUpsert,
    TaskAbsent,
    Account,
    Order,
    Node,
    Gauge,
}

async fn add(writer: &Writer, row: Row, id: i64) -> Receipt {
    match row {
        Row::Task => writer.insert(&task(id, "x")).await,
        Row::TaskUpsert => writer.upsert(&task(id, "y")).await,
        Row::TaskAbsent => writer.insert_if_absent(&task(id, "z")).await,
        Row::Account => writer.insert(&account(id, &id.to_string())).await,
        Row::Order => writer.insert(&order(id, 0, 1)).await,
        Row::Node => writer.insert(&Node { id, above: None }).await,
        Row::Gauge => writer.insert(&Gauge { id, level: 1 }).await,
    }
    .unwrap()
}

/// Which batches go beside each other, and which alone.
#[tokio::test(start_paused = true)]
async fn only_inserts_of_unrelated_tables_go_beside_each_other() {
    use Row::*;
    let rows = [Task, TaskUpsert, TaskAbsent, Account, Order, Node, Gauge];
    for first in rows {
        for second in rows {
            let beside = match (first, second) {
                (Task | Account, Task | Account) | (Task | Order, Task | Order) => true,
                // An upsert; a table that is its own parent; one with triggers; a child and its parent.
                _ => false,
            };
            let nth = rows.len() as u64;
            let (_, faults, db) = faulty([delay(nth + 1, LONG), delay(nth + 2, LONG)]);
            let writer = db.writer().max_rows(1).unordered(3).start();
            for row in [Account, Order, Task, TaskUpsert, TaskAbsent, Node, Gauge] {
                add(&writer, row, 0).await.await.unwrap();
            }
            assert_eq!(faults.most_open(), 1);
            let started = Instant::now();
            let first_receipt = add(&writer, first, 1).await;
            let second_receipt = add(&writer, second, 2).await;
            tokio::time::sleep(Duration::from_millis(1)).await;
            let behind = add(&writer, Task, 3).await;
            first_receipt.await.unwrap();
            assert_eq!(started.elapsed(), LONG, "{first:?}, {second:?}");
            second_receipt.await.unwrap();
            let expected = if beside { LONG } else { 2 * LONG };
            assert_eq!(started.elapsed(), expected, "{first:?}, {second:?}");
            behind.await.unwrap();
            assert_eq!(started.elapsed(), expected, "{first:?}, {second:?}: what is behind waits, too");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_upsert_sees_the_inserts_before_it_and_those_after_see_it() {
    let (store, _, db) = faulty([delay(2, LONG), delay(3, LONG)]);
    let writer = db.writer().max_rows(2).unordered(3).start();
    first_task(&writer).await;
    let mut receipts = tasks(&writer, 1..3).await;
    receipts.push(writer.upsert(&task(1, "upserted")).await.unwrap());
    receipts.push(writer.delete(&task(2, "")).await.unwrap());
    receipts.extend(tasks(&writer, 2..3).await);
    let mut outcomes = Vec::new();
    for receipt in receipts {
        outcomes.push(receipt.await.unwrap());
    }
    use Outcome::*;
    assert_eq!(outcomes, [Inserted, Inserted, Updated, Deleted, Inserted]);
    assert_eq!(store.rows("tasks").len(), 3);
}

/// Parents and children that come mixed go in flushes of their own, so that no child overtakes its parent.
#[tokio::test(start_paused = true)]
async fn children_do_not_overtake_their_parents() {
    let (store, faults, db) = faulty((1..40).map(|nth| delay(nth, Duration::from_millis(nth * 7 % 11))));
    let writer = db.writer().max_rows(4).unordered(4).start();
    for id in 0..50 {
        writer.insert(&account(id, &id.to_string())).await.unwrap();
        writer.insert(&order(id, id, 1)).await.unwrap();
    }
    writer.close().await.unwrap().into_result().unwrap();
    assert_eq!((store.rows("orders").len(), faults.most_open()), (50, 1));
}

#[tokio::test(start_paused = true)]
async fn flush_waits_for_every_flush_and_finds_the_one_that_failed() {
    // The one that takes longest, the one that ends first.
    for (failing, nth) in [(0, 3), (10, 2)] {
        let fail = fault(Point::Apply, nth, Effect::Fail(ErrorKind::DiskFull));
        let (store, _, db) = faulty([delay(2, LONG), delay(3, LONG / 2), fail]);
        let writer = db.writer().max_rows(10).unordered(4).start();
        first_task(&writer).await;
        let started = Instant::now();
        tasks(&writer, 0..10).await;
        tasks(&writer, 10..20).await;
        assert_eq!(writer.flush().await.unwrap_err().kind(), ErrorKind::DiskFull);
        assert_eq!(started.elapsed(), LONG);
        let written = |id: i64| store.rows("tasks").iter().any(|row| row[0] == id.into());
        assert_eq!((written(failing), written(10 - failing)), (false, true));
        // What failed before is not this call's.
        writer.flush().await.unwrap();
        let statistics = writer.close().await.unwrap().statistics;
        assert_eq!((statistics.committed, statistics.rejected, statistics.failed_flushes), (11, 10, 1));
    }
}

#[tokio::test(start_paused = true)]
async fn a_failure_is_found_whatever_ends_while_an_earlier_flush_hangs() {
    let (_, _, db) = faulty([
        delay(2, Duration::from_secs(100)),
        delay(3, LONG),
        fault(Point::Apply, 2, Effect::Fail(ErrorKind::DiskFull)),
    ]);
    let writer = db.writer().max_rows(1).unordered(2).start();
    first_task(&writer).await;
    tasks(&writer, 0..2).await;
    let flush = tokio::spawn({
        let writer = writer.clone();
        async move { writer.flush().await }
    });
    // Hundreds of flushes end before the first one does.
    tasks(&writer, 2..500).await;
    assert_eq!(writer.statistics().flushes, 500);
    assert_eq!(flush.await.unwrap().unwrap_err().kind(), ErrorKind::DiskFull);
}

/// With lanes free, a few rows wait for more while a flush is under way, but no longer than a flush takes.
#[tokio::test(start_paused = true)]
async fn a_second_flush_starts_when_it_is_worth_it() {
    let (store, _, _) = faulty([]);
    let commit_time = Duration::from_millis(10);
    let slow = store.commit_time(commit_time);
    slow.create(MemoryTable::new(Task::table())).unwrap();
    let faults = FaultStore::new(Arc::new(slow), FaultPlan::new([delay(2, LONG * 10), delay(4, LONG * 10)]));
    let writer = Database::new(faults).writer().max_rows(10).unordered(3).start();
    first_task(&writer).await;
    // Nothing in flight: at once.
    let started = Instant::now();
    tasks(&writer, 0..1).await;
    assert_eq!(writer.statistics().in_flight, 1);
    // Beside one in flight: by then the one before would have ended.
    let lone = tasks(&writer, 1..5).await;
    assert_eq!((writer.statistics().in_flight, writer.statistics().buffered), (1, 4));
    for receipt in lone {
        receipt.await.unwrap();
    }
    assert_eq!(started.elapsed(), Duration::from_millis(1) + 2 * commit_time);
    // Half full: at once.
    tasks(&writer, 5..10).await;
    assert_eq!(writer.statistics().in_flight, 1 + 5);
    assert!(started.elapsed() < LONG);
    writer.close().await.unwrap().into_result().unwrap();
}

/// A few rows wait beside a flush that is under way; the one that makes the buffer half full sends them, and nothing else has to come.
#[tokio::test(start_paused = true)]
async fn rows_that_wait_beside_a_flush_leave_once_they_are_half_a_batch() {
    let (store, _, _) = faulty([]);
    let slow = store.commit_time(LONG);
    slow.create(MemoryTable::new(Task::table())).unwrap();
    let faults = FaultStore::new(Arc::new(slow), FaultPlan::new([delay(2, LONG * 10)]));
    let writer = Database::new(faults).writer().max_rows(10).unordered(3).start();
    first_task(&writer).await;
    tasks(&writer, 0..1).await;
    // Each comes when the flusher has gone back to wait.
    let mut in_flight = Vec::new();
    for id in 1..=6 {
        tasks(&writer, id..id + 1).await;
        in_flight.push(writer.statistics().in_flight);
    }
    assert_eq!(in_flight, [1, 1, 1, 1, 6, 6]);
    writer.close().await.unwrap().into_result().unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_poisoned_flush_stops_everything_but_those_in_flight() {
    let (store, _, db) = faulty([
        delay(2, LONG),
        fault(Point::Commit, 2, Effect::CutBefore),
        fault(Point::Begin, 4, Effect::Fail(ErrorKind::Io)),
    ]);
    let writer = db.writer().max_rows(4).unordered(2).start();
    first_task(&writer).await;
    let slow = tasks(&writer, 0..4).await;
    let poisoned = writer.insert(&task(10, "poisoned")).await.unwrap();
    writer.insert(&task(11, "poisoned")).await.unwrap();
    tokio::task::yield_now().await;
    let buffered = writer.insert(&task(20, "buffered")).await.unwrap();
    let flush = tokio::spawn({
        let writer = writer.clone();
        async move { writer.flush().await }
    });
    let error = poisoned.await.unwrap_err();
    assert!(error.to_string().contains("whether it happened could not be found out"), "{error}");
    assert_eq!(buffered.await.unwrap_err().kind(), ErrorKind::Poisoned);
    assert_eq!(writer.insert(&task(30, "late")).await.unwrap_err().kind(), ErrorKind::Poisoned);
    for receipt in slow {
        assert_eq!(receipt.await.unwrap(), Outcome::Inserted, "it runs to its end");
    }
    flush.await.unwrap().unwrap_err();
    assert_eq!(store.rows("tasks").len(), 5);
    let statistics = writer.close().await.unwrap().statistics;
    assert_eq!((statistics.committed, statistics.rejected), (5, 3));
}

/// Whoever waits in `flush` hears of it, though the batch is never sealed for a flush.
#[tokio::test(start_paused = true)]
async fn flush_does_not_wait_for_rows_that_a_poisoned_writer_abandoned() {
    let (_, _, db) = faulty([
        delay(2, LONG),
        fault(Point::Commit, 2, Effect::CutBefore),
        fault(Point::Begin, 3, Effect::Fail(ErrorKind::Io)),
    ]);
    let writer = db.writer().start();
    first_task(&writer).await;
    tasks(&writer, 1..2).await;
    writer.insert(&task(2, "buffered")).await.unwrap();
    assert_eq!((writer.statistics().in_flight, writer.statistics().buffered), (1, 1));
    let flush = tokio::time::timeout(Duration::from_secs(1), writer.flush());
    let error = flush.await.expect("it ends").unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Poisoned, "the reason, and not only that it was abandoned");
}

#[tokio::test(start_paused = true)]
async fn close_within_waits_for_all_in_flight_and_leaves_the_rest() {
    let (_, _, db) = faulty([delay(2, LONG), delay(3, 2 * LONG)]);
    let writer = db.writer().max_rows(1).unordered(2).start();
    first_task(&writer).await;
    tasks(&writer, 0..2).await;
    let left = writer.insert(&task(9, "left")).await.unwrap();
    let report = writer.close_within(LONG / 5).await.unwrap();
    assert_eq!(left.await.unwrap_err().kind(), ErrorKind::Timeout);
    assert_eq!((report.statistics.committed, report.statistics.rejected), (3, 1));
}

#[test]
fn a_runtime_that_ends_abandons_every_flush_in_flight() {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("dead.jsonl");
    let (writer, receipts) = runtime.block_on(async {
        let (_, _, db) = faulty((2..4).map(|nth| delay(nth, LONG)));
        let writer = db.writer().max_rows(2).unordered(2).dead_letter(&path).start();
        first_task(&writer).await;
        let mut receipts = tasks(&writer, 0..4).await;
        assert_eq!(writer.statistics().in_flight, 4);
        receipts.push(writer.insert(&task(9, "buffered")).await.unwrap());
        (writer, receipts)
    });
    drop(runtime);
    let statistics = writer.statistics();
    assert_eq!((statistics.rejected, statistics.in_flight, statistics.buffered), (5, 0, 0));
    assert_eq!(std::fs::read_to_string(&path).unwrap().lines().count(), 5);
    let late = tokio::runtime::Builder::new_current_thread().build().unwrap();
    for receipt in receipts {
        let error = late.block_on(receipt).unwrap_err();
        assert!(error.to_string().contains("the runtime ended"), "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_panic_is_told_as_one() {
    let (_, _, db) = faulty([delay(2, LONG), fault(Point::Apply, 2, Effect::Panic)]);
    let writer = db.writer().max_rows(1).unordered(2).retry(Retry::never()).start();
    first_task(&writer).await;
    let mut receipts = tasks(&writer, 0..1).await;
    receipts.push(writer.insert(&task(5, "panics")).await.unwrap());
    for receipt in receipts {
        let error = receipt.await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Closed);
        assert!(error.to_string().contains("a panic ended the task that flushes"), "{error}");
    }
    assert_eq!(writer.insert(&task(6, "late")).await.unwrap_err().kind(), ErrorKind::Closed);
    assert_eq!(writer.close().await.unwrap().statistics.rejected, 2);
}

/// The adaptive cap falls once for flushes that ran together, and goes on from there.
#[tokio::test(start_paused = true)]
async fn the_adaptive_cap_moves_with_several_flushes_in_flight() {
    let (_, _, db) = faulty((2..6).map(|nth| delay(nth, LONG)));
    let writer = db.writer().max_rows(1_000).latency_target(LONG / 2).unordered(4).start();
    first_task(&writer).await;
    let table = Arc::new(Task::table().clone());
    for batch in 0..4 {
        let rows: Vec<Task> = (batch * 500..(batch + 1) * 500).map(|id| task(id, "x")).collect();
        writer.add_batch(&table, Operation::Insert, &batch_of(&rows).unwrap()).await.unwrap();
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(writer.statistics().in_flight, 2_000);
    writer.flush().await.unwrap();
    assert_eq!(writer.statistics().cap, 700);
    writer.close().await.unwrap().into_result().unwrap();
}
