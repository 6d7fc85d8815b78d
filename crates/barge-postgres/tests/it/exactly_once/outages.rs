//! Servers that die, stay away, refuse a COMMIT, or keep a first try open.

use std::sync::Arc;
use std::time::{Duration, Instant};

use barge_core::{Database, ErrorKind, Outcome, Retry};
use barge_postgres::{PostgresOptions, PostgresStore};
use barge_testkit::servers::{self, FaultPoint, OwnPostgres, Proxy};

use super::checks::is_in_doubt;
use super::work::{Work, run};
use super::{Counter, Line, PATIENCE, Place, Random, TABLES, in_time, lines, patient, seeds, side, signal};

/// The server is killed with all its processes, a dozen times, and started again.
#[tokio::test]
async fn no_row_is_lost_or_written_twice_when_the_server_is_killed() {
    // What COMMIT has answered must be in the files: a kill takes no power.
    let server = Arc::new(servers::own_postgres());
    side(&server.url()).await.batch_execute(TABLES).await.unwrap();
    let db = Database::new(PostgresStore::open(&server.url()).await.unwrap());
    let mut retries = 0;
    for seed in seeds(400..412) {
        let work = Work {
            lines: 400,
            burst: 20,
            max_rows: 30 + 200 * (seed as usize % 2),
            ..Work::from_seed(seed, 1 + 2 * (seed as usize % 2))
        };
        let after = Duration::from_millis(Random(seed).below(40));
        let killed = kill_after(&server, after);
        let (run, killed) = tokio::join!(run(&db, &work, async || ()), killed);
        killed.unwrap();
        retries += run.report.statistics.retries;
        run.check_all(&side(&server.url()).await).await;
    }
    assert!(
        retries >= 6 || std::env::var_os("BARGE_FAULT_SEED").is_some(),
        "{retries} retries: killed too late"
    );
}

/// On a thread of its own, for it blocks.
fn kill_after(server: &Arc<OwnPostgres>, time: Duration) -> tokio::task::JoinHandle<()> {
    let server = Arc::clone(server);
    tokio::task::spawn_blocking(move || {
        std::thread::sleep(time);
        server.kill();
        std::thread::sleep(time);
        server.start();
    })
}

/// The server refuses every third COMMIT: some over a failed serialization, some over a deadlock. A trigger on the table of tokens says so, for
/// that one is in each of the writer's transactions.
#[tokio::test]
async fn a_commit_that_is_refused_for_another_try_is_tried_again() {
    let place = Place::new().await;
    let refuse = "
        CREATE TABLE barge_flushes (writer uuid, lane bigint, sequence bigint NOT NULL, PRIMARY KEY (writer, lane));
        CREATE SEQUENCE commits;
        CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
        DECLARE place bigint := nextval('commits');
        BEGIN
            IF place % 6 = 2 THEN RAISE EXCEPTION 'refused' USING ERRCODE = '40001'; END IF;
            IF place % 6 = 5 THEN RAISE EXCEPTION 'refused' USING ERRCODE = '40P01'; END IF;
            RETURN NULL;
        END $$;
        CREATE CONSTRAINT TRIGGER refuse AFTER INSERT OR UPDATE ON barge_flushes
            DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION refuse()";
    place.side.batch_execute(refuse).await.unwrap();
    for seed in seeds(412..436) {
        let work = Work { atomic: false, ..Work::from_seed(seed, 1 + 2 * (seed as usize % 2)) };
        let db = Database::over(place.store(work.statement_cache).await);
        let run = run(&db, &work, async || ()).await;
        run.check_all(&place.side).await;
        let statistics = &run.report.statistics;
        assert!(statistics.retries >= statistics.flushes / 4, "{work}: {statistics:?}");
    }
}

#[tokio::test]
async fn a_server_that_stays_away_is_waited_for_as_long_as_was_said() {
    let place = Place::new().await;
    let db = Database::over(place.store(0).await);
    let limit = Duration::from_millis(700);
    let writer = db.writer().retry(Retry { limit, ..patient() }).start();
    writer.insert(&Line { id: 1, n: 1 }).await.unwrap().await.unwrap();
    place.proxy.down();
    place.proxy.cut();
    // What was sent over a connection of which nobody knew that it was cut would be in doubt.
    tokio::time::sleep(Duration::from_millis(50)).await;
    let started = Instant::now();
    let receipt = writer.insert(&Line { id: 2, n: 2 }).await.unwrap();
    let error = in_time("a server that is away", receipt).await.unwrap_err();
    let took = started.elapsed();
    assert!(took <= limit + Duration::from_secs(3), "{took:?}");
    assert!(took >= limit / 2, "{took:?}");
    assert_eq!(error.kind(), ErrorKind::ConnectionLost, "{error:?}");
    // What was waited for, how often, and how long.
    let message = error.to_string();
    assert!(message.contains("gave up after") && message.contains("attempts in "), "{message}");
    assert!(message.contains("connecting to postgres://postgres@127.0.0.1:"), "{message}");
    // Nothing was in doubt, so the writer goes on.
    place.proxy.up();
    writer.insert(&Line { id: 3, n: 3 }).await.unwrap().await.unwrap();
    let report = writer.close().await.unwrap();
    assert_eq!((report.statistics.committed, report.statistics.rejected), (2, 1));
    assert_eq!(place.lines().await, [1, 3]);
}

/// A commit is cut off, and the server stays away: the row may be there, and its answer says so, what was waited for, and for how long.
#[tokio::test]
async fn a_commit_that_nobody_can_ask_after_is_told() {
    let place = Place::new().await;
    // No second connection, over which it could be asked after.
    let options =
        PostgresOptions::from_url(&place.proxy.url()).unwrap().pool_size(1).pool_wait(PATIENCE / 10);
    let db = Database::new(options.open().await.unwrap());
    let limit = Duration::from_millis(300);
    let writer = db.writer().retry(Retry { limit, ..patient() }).start();
    writer.insert(&Line { id: 1, n: 1 }).await.unwrap().await.unwrap();
    place.proxy.fail(FaultPoint::AfterCommit);
    place.proxy.down();
    let started = Instant::now();
    let receipt = writer.insert(&Line { id: 2, n: 2 }).await.unwrap();
    let error = in_time("a commit in doubt", receipt).await.unwrap_err();
    assert!(started.elapsed() <= limit + Duration::from_secs(3), "{:?}", started.elapsed());
    let message = error.to_string();
    assert!(is_in_doubt(&error), "{message}");
    assert!(message.contains("gave up after") && message.contains("connecting to postgres://"), "{message}");
    place.proxy.up();
    let refused = writer.insert(&Line { id: 3, n: 3 }).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Poisoned);
    assert_eq!(place.lines().await, [1, 2], "it was committed");
}

#[tokio::test]
async fn connections_that_ended_while_they_were_idle_are_noticed() {
    let place = Place::new().await;
    let db = Database::over(place.store(0).await);
    let writer = db.writer().unordered(3).start();
    for round in 0..5 {
        // Several connections, so that there are some that nobody used since.
        let (first, second) = (db.begin().await.unwrap(), db.begin().await.unwrap());
        first.rollback().await.unwrap();
        second.rollback().await.unwrap();
        assert!(place.terminate_and_wait().await >= 2);
        let answer = writer.insert(&Line { id: round, n: round }).await.unwrap().await;
        assert_eq!(answer.unwrap(), Outcome::Inserted);
        assert!(place.terminate_and_wait().await >= 1);
        db.insert_all(&[Line { id: round + 100, n: 0 }]).await.unwrap();
    }
    let report = writer.close().await.unwrap();
    assert_eq!((report.statistics.committed, report.statistics.rejected), (5, 0));
}

/// The server's side of a connection that was lost lives on, in the middle of its transaction: a flush that is tried again waits for it in
/// its claim. That wait ends, too.
#[tokio::test]
async fn a_first_try_that_never_ends_is_not_waited_for_without_end() {
    let server = servers::own_postgres();
    // Within its transaction, the one that locks would see the same activity for ever.
    let (locker, side) = (side(&server.url()).await, side(&server.url()).await);
    side.batch_execute(TABLES).await.unwrap();
    let proxy = Proxy::before(&server.url());
    let db = Database::new(PostgresStore::open(&proxy.url()).await.unwrap());
    let limit = Duration::from_secs(2);
    let retry = Retry { limit, ..patient() };
    let writer = db.writer().retry(retry).start();
    writer.insert(&Line { id: 1, n: 1 }).await.unwrap().await.unwrap();
    // Its insert waits for a lock, behind it its COMMIT.
    locker.batch_execute("BEGIN; LOCK TABLE lines IN EXCLUSIVE MODE").await.unwrap();
    let receipt = writer.insert(&Line { id: 2, n: 2 }).await.unwrap();
    let sql = "SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%lines%'";
    let backend = loop {
        if let Some(row) = side.query_opt(sql, &[]).await.unwrap() {
            break row.get::<_, i32>(0);
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    signal(backend, "STOP");
    proxy.cut();
    locker.batch_execute("COMMIT").await.unwrap();
    let started = Instant::now();
    let error = in_time("a claim behind a stopped process", receipt).await;
    let took = started.elapsed();
    signal(backend, "CONT");
    let error = error.unwrap_err();
    assert!(took <= limit + Duration::from_secs(6), "{took:?}");
    let message = error.to_string();
    assert!(is_in_doubt(&error), "{message}");
    assert!(message.contains("gave up after") && message.contains("earlier try"), "{message}");
    // Nobody else was kept waiting, and another writer goes on.
    let other = db.writer().start();
    other.insert(&Line { id: 3, n: 3 }).await.unwrap().await.unwrap();
    let found = lines(&side).await;
    assert!(found == [1, 3] || found == [1, 2, 3], "{found:?}");
}

/// A process of the server's that is stopped until this is dropped.
struct Stopped(i32);

impl Stopped {
    fn now(process: i32) -> Self {
        signal(process, "STOP");
        Stopped(process)
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        signal(self.0, "CONT");
    }
}

/// The server's side of a connection that was lost lives on and holds the lane's row. Its flush was given up, and nothing of it is in doubt; the flush
/// behind it waits for the same row, and not without end either.
#[tokio::test]
async fn a_flush_does_not_wait_without_end_for_the_one_before_it() {
    let server = servers::own_postgres();
    let (locker, side) = (side(&server.url()).await, side(&server.url()).await);
    side.batch_execute(TABLES).await.unwrap();
    side.batch_execute("INSERT INTO counters VALUES (1, 1)").await.unwrap();
    let proxy = Proxy::before(&server.url());
    let db = Database::new(PostgresStore::open(&proxy.url()).await.unwrap());
    let limit = Duration::from_secs(2);
    let writer = db.writer().retry(Retry { limit, ..patient() }).start();
    writer.insert(&Line { id: 1, n: 1 }).await.unwrap().await.unwrap();
    // An update waits for a row; its COMMIT is not sent before it is done.
    locker.batch_execute("BEGIN; UPDATE counters SET n = 0").await.unwrap();
    let receipt = writer.update(&Counter { id: 1, n: 2 }).await.unwrap();
    let sql = "SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%counters%'";
    let stopped = loop {
        if let Some(row) = side.query_opt(sql, &[]).await.unwrap() {
            break Stopped::now(row.get(0));
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    };
    proxy.cut();
    let given_up = in_time("a flush behind a stopped process", receipt).await.unwrap_err();
    assert!(given_up.is_retryable() && !is_in_doubt(&given_up), "{given_up:?}");
    let started = Instant::now();
    let receipt = writer.insert(&Line { id: 2, n: 2 }).await.unwrap();
    let error = in_time("the flush behind it", receipt).await.unwrap_err();
    let took = started.elapsed();
    assert!(error.is_retryable() && !is_in_doubt(&error), "{error:?}");
    assert!(took <= limit + Duration::from_secs(6), "{took:?}");
    drop(stopped);
    locker.batch_execute("COMMIT").await.unwrap();
    let receipt = writer.insert(&Line { id: 3, n: 3 }).await.unwrap();
    assert_eq!(in_time("a writer that goes on", receipt).await.unwrap(), Outcome::Inserted);
    let report = in_time("the end", writer.close()).await.unwrap();
    assert_eq!((report.statistics.committed, report.statistics.rejected), (2, 2));
    assert_eq!(lines(&side).await, [1, 3]);
}
