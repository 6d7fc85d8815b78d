//! What a flush did is what its rows, one by one in order of arrival, would have done.

use std::sync::Arc;
use std::time::Duration;

use barge_core::{ErrorKind, Outcome, Result, Writer};
use barge_testkit::{Effect, Fault, FaultPlan, FaultStore, Point};

use super::*;

/// A writer whose rows all go in one flush.
fn one_flush(db: &Database) -> Writer {
    db.writer().linger(Duration::from_secs(60)).start()
}

async fn outcomes(writer: &Writer, receipts: Vec<barge_core::Receipt>) -> Vec<Result<Outcome, ErrorKind>> {
    writer.flush().await.unwrap();
    let mut outcomes = Vec::new();
    for receipt in receipts {
        outcomes.push(receipt.await.map_err(|error| error.kind()));
    }
    outcomes
}

#[tokio::test]
async fn operations_on_one_key_keep_their_order() {
    let (_, db) = database().await;
    let writer = one_flush(&db);
    let receipts = vec![
        writer.insert(&task(1, "a")).await.unwrap(),
        writer.update(&task(1, "b")).await.unwrap(),
        writer.delete(&task(1, "")).await.unwrap(),
        writer.update(&task(1, "c")).await.unwrap(),
        writer.insert(&task(1, "d")).await.unwrap(),
        writer.upsert(&task(1, "e")).await.unwrap(),
    ];
    use Outcome::*;
    let expected = [Inserted, Updated, Deleted, NotFound, Inserted, Updated].map(Ok);
    assert_eq!(outcomes(&writer, receipts).await, expected);
    assert_eq!(db.get_all::<Task, _>(&[1]).await.unwrap(), [Some(task(1, "e"))]);
}

#[tokio::test]
async fn upserts_of_one_key_coalesce_and_each_gets_the_outcome_it_would_have_had() {
    let (store, db) = database().await;
    let writer = one_flush(&db);
    let mut receipts = Vec::new();
    for round in 0..3 {
        for id in 0..4 {
            receipts.push(writer.upsert(&task(id, &round.to_string())).await.unwrap());
        }
    }
    let steps = store.steps();
    let outcomes = outcomes(&writer, receipts).await;
    assert_eq!(store.steps() - steps, 1, "one step for all");
    assert_eq!(outcomes[..4], [Ok(Outcome::Inserted); 4]);
    assert_eq!(outcomes[4..], [Ok(Outcome::Updated); 8]);
    assert_eq!(db.get_all::<Task, _>(&[3]).await.unwrap(), [Some(task(3, "2"))]);
}

#[tokio::test]
async fn a_child_may_arrive_before_its_parent() {
    let (store, db) = shop(Action::Refuse);
    let writer = one_flush(&db);
    let receipts = vec![
        writer.insert(&order(1, 7, 10)).await.unwrap(),
        writer.insert(&order(2, 8, 10)).await.unwrap(),
        writer.insert(&account(7, "a")).await.unwrap(),
    ];
    let expected = [Ok(Outcome::Inserted), Err(ErrorKind::ForeignKeyViolation), Ok(Outcome::Inserted)];
    assert_eq!(outcomes(&writer, receipts).await, expected);
    assert_eq!(store.rows("orders").len(), 1);
}

#[tokio::test]
async fn parents_go_after_their_children_and_come_before_them() {
    let (store, db) = shop(Action::Refuse);
    db.insert_all(&[account(1, "a")]).await.unwrap();
    db.insert_all(&[order(1, 1, 5)]).await.unwrap();
    let writer = one_flush(&db);
    let receipts = vec![
        writer.delete(&account(1, "")).await.unwrap(),
        writer.delete(&order(1, 0, 0)).await.unwrap(),
        writer.insert(&order(2, 2, 5)).await.unwrap(),
        writer.insert(&account(2, "b")).await.unwrap(),
    ];
    use Outcome::*;
    let commits = store.commits();
    assert_eq!(outcomes(&writer, receipts).await, [Deleted, Deleted, Inserted, Inserted].map(Ok));
    assert_eq!(store.commits() - commits, 1);
}

#[tokio::test]
async fn a_unique_value_is_not_taken_before_it_is_released() {
    let (store, db) = shop(Action::Refuse);
    db.insert_all(&[account(1, "a")]).await.unwrap();
    let writer = one_flush(&db);
    // In arrival order the insert fails, though after the update it would pass.
    let receipts = vec![
        writer.insert(&account(2, "a")).await.unwrap(),
        writer.update(&account(1, "b")).await.unwrap(),
        writer.insert(&account(3, "a")).await.unwrap(),
    ];
    let expected = [Err(ErrorKind::UniqueViolation), Ok(Outcome::Updated), Ok(Outcome::Inserted)];
    assert_eq!(outcomes(&writer, receipts).await, expected);
    assert_eq!(store.rows("accounts").len(), 2);
}

#[tokio::test]
async fn a_cascading_delete_keeps_its_place() {
    let (store, db) = shop(Action::Cascade);
    db.insert_all(&[account(1, "a")]).await.unwrap();
    let writer = one_flush(&db);
    let receipts =
        vec![writer.delete(&account(1, "")).await.unwrap(), writer.insert(&order(1, 1, 5)).await.unwrap()];
    let expected = [Ok(Outcome::Deleted), Err(ErrorKind::ForeignKeyViolation)];
    assert_eq!(outcomes(&writer, receipts).await, expected);
    assert!(store.rows("orders").is_empty());
}

/// A row under a key that may be spelled in several ways.
#[derive(Record)]
#[record(table = "words")]
struct Word {
    #[record(key)]
    word: &'static str,
    count: i64,
}

#[tokio::test]
async fn keys_are_equal_where_the_database_says_so() {
    let store = MemoryStore::new();
    store.create(MemoryTable::new(Word::table()).ignore_case("word")).unwrap();
    let db = Database::new(store.clone());
    let writer = one_flush(&db);
    let receipts = vec![
        writer.upsert(&Word { word: "Barge", count: 1 }).await.unwrap(),
        writer.upsert(&Word { word: "barge", count: 2 }).await.unwrap(),
    ];
    assert_eq!(outcomes(&writer, receipts).await, [Ok(Outcome::Inserted), Ok(Outcome::Updated)]);
    assert_eq!(store.rows("words").len(), 1);
}

#[tokio::test]
async fn created_at_is_the_first_ones_when_upserts_coalesce() {
    use chrono::{DateTime, Utc};

    #[derive(Debug, PartialEq, Record, FromRow)]
    #[record(table = "events")]
    struct Event {
        #[record(key)]
        id: i64,
        #[record(created_at)]
        created_at: Option<DateTime<Utc>>,
        #[record(updated_at)]
        updated_at: Option<DateTime<Utc>>,
    }
    let (_, db) = database().await;
    db.create_table::<Event>().await.unwrap();
    let time = |seconds| DateTime::from_timestamp(seconds, 0);
    let writer = one_flush(&db);
    for seconds in [1, 2, 3] {
        let event = Event { id: 1, created_at: time(seconds), updated_at: time(seconds) };
        writer.upsert(&event).await.unwrap();
    }
    writer.close().await.unwrap().into_result().unwrap();
    let expected = Event { id: 1, created_at: time(1), updated_at: time(3) };
    assert_eq!(db.get_all::<Event, _>(&[1]).await.unwrap(), [Some(expected)]);
    db.upsert_all(&[Event { id: 1, created_at: None, updated_at: None }]).await.unwrap();
    let after = db.get_all::<Event, _>(&[1]).await.unwrap().remove(0).unwrap();
    assert_eq!(after.created_at, time(1), "never overwritten by an upsert");
    assert!(after.updated_at > time(3), "filled where it is None");
}

/// A row with another spelling of a key took the place of the first one, and its key with it.
#[tokio::test]
async fn coalesced_rows_spell_their_key_as_the_first_did() {
    let store = MemoryStore::new();
    store.create(MemoryTable::new(Word::table()).ignore_case("word")).unwrap();
    let writer = one_flush(&Database::new(store.clone()));
    for (word, count) in [("Barge", 1), ("BARGE", 2), ("barge", 3)] {
        writer.upsert(&Word { word, count }).await.unwrap();
    }
    writer.flush().await.unwrap();
    assert_eq!(store.rows("words"), [["Barge".into(), barge_testkit::Value::from(3)]]);
}

/// A row that waits for its parent takes a value that another row took meanwhile.
#[tokio::test]
async fn a_row_that_waits_for_its_parent_releases_nothing_before() {
    #[derive(Record)]
    #[record(table = "badges")]
    struct Badge {
        #[record(key)]
        id: i64,
        account: Option<i64>,
        code: &'static str,
    }
    let (store, db) = shop(Action::Refuse);
    let badges = MemoryTable::new(Badge::table()).unique(&["code"]);
    store
        .create(badges.foreign_key(&["account"], "accounts", &["id"], Action::Refuse, Action::Refuse))
        .unwrap();
    db.insert_all(&[Badge { id: 1, account: None, code: "a" }]).await.unwrap();
    let writer = one_flush(&db);
    let receipts = vec![
        writer.upsert(&Badge { id: 1, account: Some(7), code: "b" }).await.unwrap(),
        writer.insert(&account(7, "x")).await.unwrap(),
        writer.upsert(&Badge { id: 2, account: None, code: "a" }).await.unwrap(),
    ];
    let expected = [Ok(Outcome::Updated), Ok(Outcome::Inserted), Err(ErrorKind::UniqueViolation)];
    assert_eq!(outcomes(&writer, receipts).await, expected);
}

/// One statement would look at the foreign key when both are there; alone, the child is refused, and the second row of its key
/// keeps it from being tried again.
#[tokio::test]
async fn a_table_that_is_its_own_parent_goes_row_by_row() {
    #[derive(Record)]
    #[record(table = "nodes")]
    struct Node {
        #[record(key)]
        id: i64,
        above: Option<i64>,
    }
    let store = MemoryStore::new();
    let nodes = MemoryTable::new(Node::table());
    store.create(nodes.foreign_key(&["above"], "nodes", &["id"], Action::Refuse, Action::Refuse)).unwrap();
    let writer = one_flush(&Database::new(store.clone()));
    let receipts = vec![
        writer.insert(&Node { id: 2, above: Some(1) }).await.unwrap(),
        writer.insert(&Node { id: 1, above: None }).await.unwrap(),
        writer.update(&Node { id: 2, above: None }).await.unwrap(),
    ];
    let expected = [Err(ErrorKind::ForeignKeyViolation), Ok(Outcome::Inserted), Ok(Outcome::NotFound)];
    assert_eq!(outcomes(&writer, receipts).await, expected);
    // Alone in its flush a tree goes in one step, whatever its order.
    let steps = store.steps();
    for (id, above) in [(5, Some(4)), (4, Some(3)), (3, Some(1))] {
        writer.insert(&Node { id, above }).await.unwrap();
    }
    writer.flush().await.unwrap();
    assert_eq!((store.steps() - steps, store.rows("nodes").len()), (1, 4));
}

/// The rows of the table that a row failed of are not sent as one step once more; those of other tables are.
#[tokio::test]
async fn what_failed_grouped_goes_row_by_row_at_once() {
    let (store, db) = shop(Action::Refuse);
    db.insert_all(&[account(7, "there")]).await.unwrap();
    let writer = one_flush(&db);
    for id in 0..100 {
        writer.insert(&account(id, &id.to_string())).await.unwrap();
    }
    for id in 0..100 {
        writer.insert(&order(id, id, 1)).await.unwrap();
    }
    let steps = store.steps();
    writer.flush().await.unwrap();
    assert_eq!(store.steps() - steps, 2, "the accounts row by row, the orders as one step");
    let statistics = writer.close().await.unwrap().statistics;
    assert_eq!((statistics.round_trips, statistics.rejected), (2, 1), "{statistics:?}");
    assert_eq!((store.rows("accounts").len(), store.rows("orders").len()), (100, 100));
}

/// Rows of the table of which one was refused go row by row at once: as one step they would be refused again. The other tables' rows stay a step.
#[tokio::test]
async fn only_the_table_of_a_row_that_failed_is_searched() {
    let (store, _) = shop(Action::Cascade);
    store.create(MemoryTable::new(Task::table())).unwrap();
    // Faults that do nothing, but are counted.
    let counted = [Point::Apply, Point::ApplyRows].into_iter().flat_map(|point| {
        (1..20).map(move |nth| Fault { point, nth, effect: Effect::Delay(Duration::ZERO) })
    });
    let faults = FaultStore::new(Arc::new(store.clone()), FaultPlan::new(counted));
    let writer = one_flush(&Database::new(faults.clone()));
    for id in 0..10 {
        writer.insert(&task(id, "fine")).await.unwrap();
    }
    for id in 0..10 {
        writer.insert(&account(id, &(if id == 7 { 3 } else { id }).to_string())).await.unwrap();
    }
    writer.flush().await.unwrap();
    let report = writer.close().await.unwrap();
    assert_eq!((report.statistics.committed, report.statistics.rejected), (19, 1));
    let calls = |point| faults.met().iter().filter(|fault| fault.point == point).count();
    // Both tables grouped, then the tasks again.
    assert_eq!((calls(Point::Apply), calls(Point::ApplyRows)), (3, 1));
}
