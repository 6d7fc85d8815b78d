use std::sync::{Arc, Mutex};

use barge_core::store::{Change, ChangedRows, CommitObserver, CommitOutcome};
use barge_core::{ErrorKind, Outcome, Tx};
use barge_testkit::{Effect, Fault, FaultPlan, FaultStore, Point};

use super::*;

#[tokio::test]
async fn one_liners_write_all_or_nothing() {
    let (store, db) = database().await;
    let tasks: Vec<Task> = (0..100).map(|id| task(id, "x")).collect();
    let written = db.insert_all(&tasks).await.unwrap();
    assert_eq!(written.count(Outcome::Inserted), 100);
    let error = db.insert_all(&[task(100, "new"), task(7, "there"), task(101, "new")]).await.unwrap_err();
    assert_eq!((error.kind(), error.row()), (ErrorKind::UniqueViolation, Some(1)));
    assert_eq!(store.rows("tasks").len(), 100);
    let written = db.upsert_all(&[task(100, "new"), task(7, "set"), task(100, "twice")]).await.unwrap();
    assert_eq!(written.outcomes(), [Outcome::Inserted, Outcome::Updated, Outcome::Updated]);
    let written = db.update_all(&[task(7, "again"), task(999, "nowhere")]).await.unwrap();
    assert_eq!(written.outcomes(), [Outcome::Updated, Outcome::NotFound]);
    let written = db.delete_all(&[task(7, ""), task(999, "")]).await.unwrap();
    assert_eq!(written.outcomes(), [Outcome::Deleted, Outcome::NotFound]);
    let written = db.insert_all_if_absent(&[task(7, "back"), task(8, "there")]).await.unwrap();
    assert_eq!(written.outcomes(), [Outcome::Inserted, Outcome::Unchanged]);
    assert_eq!(db.insert_all::<Task>(&[]).await.unwrap().outcomes(), []);
}

#[tokio::test]
async fn look_ups_come_in_the_order_of_the_keys() {
    let (_, db) = database().await;
    db.insert_all(&[task(1, "a"), task(2, "b"), task(3, "c")]).await.unwrap();
    let found = db.get_all::<Task, _>(&[3, 9, 1, 3]).await.unwrap();
    let names: Vec<Option<&str>> =
        found.iter().map(|task| task.as_ref().map(|task| task.name.as_str())).collect();
    assert_eq!(names, [Some("c"), None, Some("a"), Some("c")]);
    assert!(db.get_all::<Task, i64>(&[]).await.unwrap().is_empty());
    let error = db.get_all::<Task, _>(&["1"]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidConfig);
    let error = db.get_all::<Task, _>(&[(1, 2)]).await.unwrap_err();
    assert!(error.to_string().contains("1 columns"), "{error}");
}

#[tokio::test]
async fn a_transaction_is_rolled_back_on_drop_and_never_committed_in_part() {
    let (store, db) = database().await;
    let mut tx = db.begin().await.unwrap();
    tx.insert_all(&[task(1, "a")]).await.unwrap();
    assert_eq!(tx.get_all::<Task, _>(&[1]).await.unwrap(), [Some(task(1, "a"))]);
    drop(tx);
    assert!(store.rows("tasks").is_empty());

    let mut tx = db.begin().await.unwrap();
    tx.insert_all(&[task(1, "a")]).await.unwrap();
    tx.insert_all(&[task(1, "again")]).await.unwrap_err();
    assert_eq!(tx.upsert_all(&[task(2, "b")]).await.unwrap_err().kind(), ErrorKind::UniqueViolation);
    assert!(tx.commit().await.unwrap_err().to_string().contains("rolled back"));
    assert!(store.rows("tasks").is_empty());

    let mut tx = db.begin().await.unwrap();
    tx.upsert_all(&[task(1, "a"), task(1, "b")]).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(store.rows("tasks").len(), 1);
}

/// What was refused before it was sent, and what was dropped halfway, are failures of the transaction too.
#[tokio::test(start_paused = true)]
async fn a_transaction_with_a_refused_or_a_cancelled_operation_is_never_committed() {
    #[derive(Record)]
    #[record(table = "tasks")]
    struct Renamed {
        #[record(key)]
        id: i64,
        title: String,
    }
    let (store, db) = database().await;
    let mut tx = db.begin().await.unwrap();
    tx.insert_all(&[task(1, "a")]).await.unwrap();
    let refused = tx.insert_all(&[Renamed { id: 2, title: "b".into() }]).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::MissingColumn);
    assert!(tx.commit().await.unwrap_err().to_string().contains("title"));

    let delay = Fault { point: Point::Apply, nth: 2, effect: Effect::Delay(Duration::from_secs(9)) };
    let db = Database::new(FaultStore::new(Arc::new(store.clone()), FaultPlan::new([delay])));
    let mut tx = db.begin().await.unwrap();
    tx.insert_all(&[task(1, "a")]).await.unwrap();
    let rows = [task(2, "b"), task(2, "c")];
    tokio::time::timeout(Duration::from_secs(1), tx.upsert_all(&rows)).await.unwrap_err();
    assert!(tx.commit().await.unwrap_err().to_string().contains("cancelled"));
    assert!(store.rows("tasks").is_empty());
}

/// A statement that was dropped halfway may have been run, and is part of the transaction no more than an operation.
#[tokio::test(start_paused = true)]
async fn a_transaction_with_a_cancelled_statement_is_never_committed() {
    let (store, _) = database().await;
    for over in [false, true] {
        let delay = Fault { point: Point::Execute, nth: 1, effect: Effect::Delay(Duration::from_secs(9)) };
        let db = Database::new(FaultStore::new(Arc::new(store.clone()), FaultPlan::new([delay])));
        let mut tx = db.begin().await.unwrap();
        tx.insert_all(&[task(1, "a")]).await.unwrap();
        let batch = barge_core::record::batch_of(&[task(2, "b")]).unwrap();
        let second = Duration::from_secs(1);
        let sql = "UPDATE tasks SET name = 'b'";
        match over {
            true => tokio::time::timeout(second, tx.over(&batch, sql)).await.map(drop),
            false => tokio::time::timeout(second, tx.execute(sql)).await.map(drop),
        }
        .unwrap_err();
        assert_eq!(tx.insert_all(&[task(3, "c")]).await.unwrap_err().kind(), ErrorKind::Closed);
        assert!(tx.commit().await.unwrap_err().to_string().contains("cancelled"));
        assert!(store.rows("tasks").is_empty());
    }
}

/// COMMIT as a statement would end the transaction behind its back, and ROLLBACK would let it report what is not there.
#[tokio::test]
async fn statements_do_not_end_a_transaction() {
    let (store, db) = database().await;
    for sql in ["COMMIT", " rollback; ", "-- now\nEND"] {
        let mut tx = db.begin().await.unwrap();
        tx.insert_all(&[task(1, "a")]).await.unwrap();
        assert_eq!(tx.execute(sql).await.unwrap_err().kind(), ErrorKind::Unsupported, "{sql}");
        assert!(tx.commit().await.unwrap_err().to_string().contains("rolled back"), "{sql}");
        assert!(store.rows("tasks").is_empty());
    }
}

#[tokio::test]
async fn retry_runs_a_transaction_again_and_spawns() {
    let (_, db) = database().await;
    let tries = Arc::new(Mutex::new(0));
    let count = Arc::clone(&tries);
    let run = tokio::spawn(async move {
        db.retry(|mut tx: Tx| {
            let count = Arc::clone(&count);
            async move {
                tx.insert_all(&[task(1, "a")]).await?;
                let tries = {
                    *count.lock().unwrap() += 1;
                    *count.lock().unwrap()
                };
                if tries < 3 {
                    return Err(barge_core::Error::new(ErrorKind::Deadlock, "made up"));
                }
                Ok((tx, tries))
            }
        })
        .await
    });
    assert_eq!(run.await.unwrap().unwrap(), 3);
}

#[derive(Default)]
struct Log(Mutex<Vec<String>>);

impl CommitObserver for Log {
    fn before_commit(&self, changes: &[Change]) {
        let tables: Vec<String> = changes
            .iter()
            .map(|change| {
                let table = change.table.as_ref().map_or("any table".to_owned(), |table| table.to_string());
                match &change.rows {
                    ChangedRows::Keys(keys) => format!("{table} {}", keys.num_rows()),
                    ChangedRows::Drawn(keys) => format!("{table} drawn {}", keys.num_rows()),
                    ChangedRows::Added(rows) => format!("{table} +{}", rows.num_rows()),
                    ChangedRows::Any => format!("{table} *"),
                }
            })
            .collect();
        self.0.lock().unwrap().push(format!("before {}", tables.join(", ")));
    }

    fn after_commit(&self, _: &[Change], outcome: CommitOutcome) {
        self.0.lock().unwrap().push(format!("{outcome:?}"));
    }
}

#[tokio::test]
async fn observers_hear_of_every_commit_before_and_after() {
    let (_, db) = database().await;
    let log = Arc::new(Log::default());
    db.observe(log.clone());
    let writer = db.writer().start();
    writer.insert(&task(1, "a")).await.unwrap().await.unwrap();
    assert_eq!(*log.0.lock().unwrap(), ["before tasks +1", "Committed"], "before the receipt is answered");
    log.0.lock().unwrap().clear();
    db.insert_all(&[task(1, "again")]).await.unwrap_err();
    assert!(log.0.lock().unwrap().iter().all(|line| line != "Committed"));
    log.0.lock().unwrap().clear();
    let mut tx = db.begin().await.unwrap();
    tx.upsert_all(&[task(1, "b"), task(2, "c")]).await.unwrap();
    tx.writes("elsewhere");
    tx.commit().await.unwrap();
    assert_eq!(*log.0.lock().unwrap(), ["before tasks 2, elsewhere *", "Committed"]);
    let _ = writer.close().await.unwrap();
}

/// The database may draw the key of a row that was removed: whoever keeps rows has to know.
#[tokio::test]
async fn observers_hear_of_the_keys_that_were_drawn() {
    #[derive(Record)]
    #[record(table = "notes")]
    struct Note {
        #[record(key, generated)]
        id: Option<i64>,
    }
    let (_, db) = database().await;
    db.create_table::<Note>().await.unwrap();
    let log = Arc::new(Log::default());
    db.observe(log.clone());
    let writer = db.writer().start();
    writer.insert(&Note { id: None }).await.unwrap().await.unwrap();
    let told = ["before notes +1", "before notes drawn 1", "Committed", "Committed"];
    assert_eq!(*log.0.lock().unwrap(), told, "before the receipt is answered");
    log.0.lock().unwrap().clear();
    let mut tx = db.begin().await.unwrap();
    tx.insert_all(&[Note { id: None }, Note { id: None }]).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(*log.0.lock().unwrap(), ["before notes +2, notes drawn 2", "Committed"]);
    let _ = writer.close().await.unwrap();
}

/// It may have happened only after its own fence was lowered.
#[tokio::test(start_paused = true)]
async fn observers_hear_again_of_a_commit_that_turns_out_to_have_happened() {
    let store = MemoryStore::new();
    store.create(MemoryTable::new(Account::table()).unique(&["email"])).unwrap();
    let cut = Fault { point: Point::Commit, nth: 1, effect: Effect::CutAfter };
    let db = Database::new(FaultStore::new(Arc::new(store), FaultPlan::new([cut])));
    let log = Arc::new(Log::default());
    db.observe(log.clone());
    let writer = db.writer().linger(Duration::from_secs(60)).start();
    let mut receipts = Vec::new();
    // A key twice beside a unique column: these go in their order at once, and not grouped first.
    for (id, email) in [(1, "a"), (2, "b"), (1, "c")] {
        let account = Account { id, email: Some(email.to_owned()) };
        receipts.push(writer.upsert(&account).await.unwrap());
    }
    writer.flush().await.unwrap();
    for receipt in receipts {
        receipt.await.unwrap();
    }
    let told = ["before accounts 3", "Unknown", "before accounts 3", "Committed"];
    assert_eq!(*log.0.lock().unwrap(), told);
    let _ = writer.close().await.unwrap();
}

#[tokio::test]
async fn a_transaction_of_very_many_rows_is_told_as_whole_tables() {
    let (_, db) = database().await;
    let log = Arc::new(Log::default());
    db.observe(log.clone());
    let mut tx = db.begin().await.unwrap();
    for part in 0..7 {
        let tasks: Vec<Task> = (0..10_000).map(|id| task(part * 10_000 + id, "a")).collect();
        tx.insert_all(&tasks).await.unwrap();
    }
    tx.commit().await.unwrap();
    assert_eq!(*log.0.lock().unwrap(), ["before tasks *", "Committed"]);
}
