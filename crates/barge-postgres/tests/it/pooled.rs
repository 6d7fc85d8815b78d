//! Several processes that copy rows through one PgBouncer in transaction mode, which has fewer connections to the server than they have to it: what
//! one of them leaves in a session, another would find.

use std::process::Child;
use std::sync::Arc;
use std::time::Duration;

use barge_core::record::batch_of;
use barge_core::{Database, Operation, Outcome, Record};
use barge_postgres::PostgresOptions;
use barge_testkit::servers::{self, PoolMode};
use tokio_postgres::NoTls;

use crate::contention::{Task, start, what_it_told};

/// A line of a log: the table has no key, so that a row written twice is there twice.
#[derive(Clone, Debug, Record)]
#[record(table = "lines")]
struct Line {
    writer: i64,
    n: i64,
    text: String,
}

const PROCESSES: i64 = 4;
/// Enough to go by COPY.
const ROWS: i64 = 250;
const TIME: Duration = Duration::from_secs(6);

/// Does the part of one process, where this is one, and says so: a flush a round, two of them at a time.
async fn takes_part() -> bool {
    let Some(task) = Task::of_this_process() else { return false };
    let store = PostgresOptions::from_url(&task.url).unwrap().pool_size(2).open().await.unwrap();
    let writer = Database::new(store).writer().max_rows(ROWS as usize).unordered(2).start();
    let table = Arc::new(Line::table().clone());
    let (mut rounds, mut last) = (0, None);
    while task.goes_on() {
        let line = |place| Line { writer: task.own, n: rounds * ROWS + place, text: format!("line {place}") };
        let lines: Vec<Line> = (0..ROWS).map(line).collect();
        let receipt = writer.add_batch(&table, Operation::Insert, &batch_of(&lines).unwrap()).await.unwrap();
        rounds += 1;
        if let Some(earlier) = last.replace(receipt) {
            assert!(earlier.outcomes().await.iter().all(|answer| matches!(answer, Ok(Outcome::Inserted))));
        }
    }
    task.tell(rounds, writer.close().await.unwrap());
    true
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_copied_by_several_processes_through_one_pooler_are_there_once() {
    if takes_part().await {
        return;
    }
    let server = servers::postgres();
    let database = server.database();
    let pooler = servers::pgbouncer(&server, PoolMode::Transaction);
    let (side, connection) = tokio_postgres::connect(&database.url(), NoTls).await.unwrap();
    tokio::spawn(connection);
    side.batch_execute("CREATE TABLE lines(writer bigint NOT NULL, n bigint NOT NULL, text text NOT NULL)")
        .await
        .unwrap();
    let url = pooler.url(database.name());
    let test = "pooled::rows_copied_by_several_processes_through_one_pooler_are_there_once";
    let mut children: Vec<Child> = (0..PROCESSES).map(|writer| start(test, &url, writer, TIME)).collect();
    let sessions = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()";
    let mut seen = Vec::new();
    while children.iter_mut().any(|child| child.try_wait().unwrap().is_none()) {
        seen.push(side.query_one(sessions, &[]).await.unwrap().get::<_, i64>(0));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    for (writer, told) in children.into_iter().map(what_it_told).enumerate() {
        let sql = "SELECT count(*), count(DISTINCT n), coalesce(max(n), -1) + 1 FROM lines WHERE writer = $1";
        let row = side.query_one(sql, &[&(writer as i64)]).await.unwrap();
        let found: [i64; 3] = [row.get(0), row.get(1), row.get(2)];
        assert_eq!(found, [told.rounds * ROWS; 3], "writer {writer}'s lines");
        assert!(told.rounds >= TIME.as_secs() as i64, "{told:?} in {TIME:?}");
        // Nothing of one's session was in another's way.
        assert_eq!(told.retries, 0, "{told:?}: {}", pooler.log());
    }
    // One that ends may be seen beside the one that takes its place.
    seen.sort_unstable();
    let usual = seen[seen.len() / 2];
    assert!(usual <= 3, "{usual} sessions: more than one a writer, so that none was shared");
}

/// A pooler that gives up its server says so in the place of the statement that is under way. The COMMIT is behind that statement on its way, and the server
/// does both when it can: such an answer is no word of the server's that nothing was done.
#[tokio::test(flavor = "multi_thread")]
async fn a_flush_whose_server_the_pooler_gave_up_is_there_once() {
    let server = servers::postgres();
    let database = server.database();
    let pooler = servers::pgbouncer_with(&server, PoolMode::Transaction, "query_timeout = 1\n");
    let (side, connection) = tokio_postgres::connect(&database.url(), NoTls).await.unwrap();
    tokio::spawn(connection);
    side.batch_execute("CREATE TABLE lines(writer bigint NOT NULL, n bigint NOT NULL, text text NOT NULL)")
        .await
        .unwrap();
    let options = PostgresOptions::from_url(&pooler.url(database.name())).unwrap();
    let writer = Database::new(options.open().await.unwrap()).writer().start();
    let table = Arc::new(Line::table().clone());
    let lines = |writer, rows| -> Vec<Line> {
        (0..rows).map(|n| Line { writer, n, text: format!("line {n}") }).collect()
    };
    let first = batch_of(&lines(0, 1)).unwrap();
    writer.add_batch(&table, Operation::Insert, &first).await.unwrap().outcomes().await;
    // By a statement over arrays, and by COPY.
    for (round, rows) in [(1, 7), (2, ROWS)] {
        side.batch_execute("BEGIN; LOCK TABLE lines IN EXCLUSIVE MODE").await.unwrap();
        let batch = batch_of(&lines(round, rows)).unwrap();
        let receipt = writer.add_batch(&table, Operation::Insert, &batch).await.unwrap();
        let gave_up = async {
            while pooler.log().matches("query timeout").count() < round as usize {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), gave_up).await.expect("the pooler waits");
        side.batch_execute("COMMIT").await.unwrap();
        let answers =
            tokio::time::timeout(Duration::from_secs(60), receipt.outcomes()).await.expect("no answer");
        assert!(answers.iter().all(|answer| matches!(answer, Ok(Outcome::Inserted))), "{answers:?}");
        let sql = "SELECT count(*), count(DISTINCT n) FROM lines WHERE writer = $1";
        let row = side.query_one(sql, &[&round]).await.unwrap();
        assert_eq!([row.get::<_, i64>(0), row.get(1)], [rows; 2], "round {round}");
    }
    writer.close().await.unwrap().into_result().unwrap();
}
