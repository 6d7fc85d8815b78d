//! Calls that somebody gave up waiting for, while they waited for a row that another transaction holds.

use std::time::Duration;

use barge_core::{Database, Error, ErrorKind, Outcome, Record, Result, Tx};
use barge_postgres::PostgresOptions;
use barge_testkit::servers::{self, TestDatabase};
use tokio_postgres::{Client, NoTls};

#[derive(Clone, Debug, Record, barge_core::FromRow, PartialEq)]
#[record(table = "counters")]
struct Counter {
    #[record(key)]
    id: i64,
    n: i64,
}

/// How long anything here may take before it counts as hung.
const PATIENCE: Duration = Duration::from_secs(20);

/// A table of ten counters at zero, a database with room for one connection, and another client's transaction that holds the first five and a row
/// with the key 100 that is not there yet.
struct Place {
    db: Database,
    holder: Client,
    side: Client,
    _database: TestDatabase,
}

async fn connect(database: &TestDatabase) -> Client {
    let (client, connection) = tokio_postgres::connect(&database.url(), NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

impl Place {
    async fn new(statement_cache: usize) -> Self {
        let database = servers::postgres().database();
        let (holder, side) = (connect(&database).await, connect(&database).await);
        let table = "CREATE TABLE counters (id bigint PRIMARY KEY, n bigint NOT NULL);
            INSERT INTO counters SELECT id, 0 FROM generate_series(0, 9) AS id";
        side.batch_execute(table).await.unwrap();
        let options = PostgresOptions::from_url(&database.url()).unwrap().pool_size(1);
        // Long enough not to be taken for what a test is about.
        let options = options.pool_wait(PATIENCE).statement_cache(statement_cache);
        let db = Database::new(options.open().await.unwrap());
        let hold = "BEGIN; UPDATE counters SET n = -1 WHERE id < 5; INSERT INTO counters VALUES (100, -1)";
        holder.batch_execute(hold).await.unwrap();
        Place { db, holder, side, _database: database }
    }

    /// Waits until a connection of the database's waits for a lock.
    async fn someone_waits(&self) {
        let sql = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'barge' \
                   AND wait_event_type = 'Lock'";
        while self.side.query_one(sql, &[]).await.unwrap().get::<_, i64>(0) == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Gives a call up as soon as it waits for the holder.
    async fn give_up<T: std::fmt::Debug>(&self, call: impl Future<Output = T>) {
        let waited = async {
            tokio::select! {
                answer = call => panic!("it did not wait: {answer:?}"),
                () = self.someone_waits() => {}
            }
        };
        in_time("a call that waits", waited).await;
    }

    /// The one connection that there may be is there for others, in no transaction, and nobody waits for the holder.
    async fn others_go_on(&self) {
        let others = async {
            let written =
                self.db.update_all(&[Counter { id: 7, n: 7 }, Counter { id: 8, n: 8 }]).await.unwrap();
            assert_eq!(written.count(Outcome::Updated), 2);
            let mut tx = self.db.begin().await.unwrap();
            tx.execute("UPDATE counters SET n = n + 1 WHERE id = 9").await.unwrap();
            tx.commit().await.unwrap();
            let found = self.db.get_all::<Counter, _>(&[7]).await.unwrap();
            assert_eq!(found, [Some(Counter { id: 7, n: 7 })]);
            let writer = self.db.writer().start();
            let receipt = writer.insert(&Counter { id: 50, n: 50 }).await.unwrap();
            assert_eq!(receipt.await.unwrap(), Outcome::Inserted);
            let _ = writer.close().await.unwrap();
        };
        in_time("others", others).await;
    }

    /// The holder commits, and what it wrote is there. Then, when every connection that was given up is gone, the rows: id and n.
    async fn rows_in_the_end(&self) -> Vec<(i64, i64)> {
        self.holder.batch_execute("COMMIT").await.unwrap();
        let left = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'barge' \
                    AND state <> 'idle'";
        let all_idle = async {
            while self.side.query_one(left, &[]).await.unwrap().get::<_, i64>(0) > 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        in_time("connections that were given up", all_idle).await;
        let rows = self.side.query("SELECT id, n FROM counters ORDER BY id", &[]).await.unwrap();
        rows.iter().map(|row| (row.get(0), row.get(1))).collect()
    }
}

/// What the table holds where nothing happened but what the holder and the others did.
fn untouched() -> Vec<(i64, i64)> {
    let held = (0..5).map(|id| (id, -1));
    held.chain([(5, 0), (6, 0), (7, 7), (8, 8), (9, 1), (50, 50), (100, -1)]).collect()
}

async fn in_time<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.unwrap_or_else(|_| panic!("{what}: hung for {PATIENCE:?}"))
}

fn counters(ids: impl IntoIterator<Item = i64>) -> Vec<Counter> {
    ids.into_iter().map(|id| Counter { id, n: 1_000 + id }).collect()
}

/// A transaction that has written a row, then waits in `operation`.
async fn transaction(
    db: &Database,
    operation: impl AsyncFnOnce(&mut Tx) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut tx = db.begin().await?;
    tx.insert_all(&counters([60, 61])).await?;
    operation(&mut tx).await?;
    tx.commit().await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_given_up_while_it_waits_for_a_row_leaves_nothing() {
    for statement_cache in [0, 16] {
        let place = Place::new(statement_cache).await;
        let db = &place.db;
        place.give_up(transaction(db, async |tx| tx.update_all(&counters(0..10)).await.map(drop))).await;
        place.give_up(transaction(db, async |tx| tx.upsert_all(&counters(0..10)).await.map(drop))).await;
        place.give_up(transaction(db, async |tx| tx.delete_all(&counters(0..10)).await.map(drop))).await;
        // One by small statements, one by COPY.
        place.give_up(transaction(db, async |tx| tx.insert_all(&counters(99..103)).await.map(drop))).await;
        place.give_up(transaction(db, async |tx| tx.insert_all(&counters(62..400)).await.map(drop))).await;
        let lock = "SELECT 1 FROM counters FOR UPDATE";
        place.give_up(transaction(db, async |tx| tx.execute(lock).await.map(drop))).await;
        place.others_go_on().await;
        assert_eq!(place.rows_in_the_end().await, untouched(), "statements kept: {statement_cache}");
    }
}

/// More rows than fit on their way: the COPY is given up while it still sends.
#[tokio::test(flavor = "multi_thread")]
async fn a_copy_given_up_while_it_sends_its_rows_leaves_nothing() {
    let rows = counters(62..700_062);
    for in_transaction in [false, true] {
        let place = Place::new(0).await;
        match in_transaction {
            false => place.give_up(place.db.insert_all(&rows)).await,
            true => {
                place.give_up(transaction(&place.db, async |tx| tx.insert_all(&rows).await.map(drop))).await;
            }
        }
        place.others_go_on().await;
        assert_eq!(place.rows_in_the_end().await, untouched(), "in a transaction: {in_transaction}");
    }
}

/// Only the operation is given up, and the transaction kept: it can do nothing more, and can't be committed.
#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_whose_operation_was_given_up_is_not_committed() {
    let place = Place::new(0).await;
    let mut tx = place.db.begin().await.unwrap();
    tx.insert_all(&counters([60, 61])).await.unwrap();
    place.give_up(tx.update_all(&counters(0..10))).await;
    assert_eq!(tx.insert_all(&counters([62])).await.unwrap_err().kind(), ErrorKind::Closed);
    // Telling the server would wait for the holder, so it is done behind the back of whoever commits.
    let committed = tokio::time::timeout(Duration::from_millis(100), tx.commit()).await;
    assert!(!matches!(committed, Ok(Ok(()))), "committed in part");
    place.others_go_on().await;
    assert_eq!(place.rows_in_the_end().await, untouched());
}

/// A call that commits for itself and was given up happens whole or not at all: what was sent is not taken back. Here it can't happen, for what
/// it waits for is then committed, or its COMMIT was not sent yet.
#[tokio::test(flavor = "multi_thread")]
async fn a_call_given_up_while_it_waits_for_a_row_leaves_nothing() {
    for statement_cache in [0, 16] {
        let place = Place::new(statement_cache).await;
        let db = &place.db;
        place.give_up(db.update_all(&counters(0..10))).await;
        place.give_up(db.upsert_all(&counters(0..10))).await;
        place.give_up(db.delete_all(&counters(0..10))).await;
        place.give_up(db.insert_all(&counters(99..103))).await;
        place.give_up(db.insert_all(&counters(62..400))).await;
        place.give_up(db.execute("UPDATE counters SET n = 2000")).await;
        place.others_go_on().await;
        assert_eq!(place.rows_in_the_end().await, untouched(), "statements kept: {statement_cache}");
    }
}

/// A flush is nobody's call: who gives up waiting for it, or for a receipt, takes nothing back.
#[tokio::test(flavor = "multi_thread")]
async fn a_flush_whose_waiters_gave_up_is_done_all_the_same() {
    let place = Place::new(0).await;
    let writer = place.db.writer().start();
    let receipt = writer.update(&Counter { id: 1, n: 1_001 }).await.unwrap();
    place.give_up(writer.flush()).await;
    drop(receipt);
    place.holder.batch_execute("COMMIT").await.unwrap();
    let report = in_time("a flush that waited", writer.close()).await.unwrap();
    assert_eq!((report.statistics.committed, report.statistics.retries), (1, 0));
    let row = place.side.query_one("SELECT n FROM counters WHERE id = 1", &[]).await.unwrap();
    assert_eq!(row.get::<_, i64>(0), 1_001, "after the holder's");
}
