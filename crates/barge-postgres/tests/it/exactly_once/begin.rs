//! A BEGIN that does not come about: the connection is cut at it, or there is no connection to be had. It is tried again, and what it was to begin
//! happens once.

use std::sync::Arc;
use std::time::Duration;

use barge_core::{Database, ErrorKind, Operation, Outcome, Receipt, Retry, Writer};
use barge_postgres::{PostgresOptions, PostgresStore};
use barge_testkit::servers::{self, FaultPoint, OwnPostgres};
use tokio_postgres::Client;

use super::{Counter, Line, Place, TABLES, in_time, patient, side, signal};

/// What a flush begins with, and how.
#[derive(Clone, Copy, Debug)]
enum Begins {
    /// All in one round trip.
    Insert,
    /// BEGIN and the claim first.
    Copy,
    /// BEGIN with a setting behind it.
    Update,
    /// A grouped flush, then a second BEGIN to find the row that failed.
    BadRow,
}

impl Begins {
    /// The rows of one flush, with ids from `first` on, and whether each is written.
    async fn add(self, writer: &Writer, first: i64) -> Vec<(Receipt, bool)> {
        let mut receipts = Vec::new();
        for id in first..first + if let Begins::Copy = self { 250 } else { 5 } {
            let is_bad = matches!(self, Begins::BadRow) && id == first + 2;
            let receipt = match self {
                Begins::Update => writer.add(Operation::Update, &Counter { id: id - first, n: id }).await,
                _ => writer.insert(&Line { id, n: if is_bad { -1 } else { id } }).await,
            };
            receipts.push((receipt.unwrap(), !is_bad));
        }
        receipts
    }
}

#[tokio::test]
async fn a_begin_that_is_cut_off_is_tried_again_and_its_flush_happens_once() {
    for statement_cache in [0, 16] {
        let place = Place::new().await;
        place
            .side
            .batch_execute("INSERT INTO counters SELECT id, 0 FROM generate_series(0, 4) AS id")
            .await
            .unwrap();
        let db = Database::over(place.store(statement_cache).await);
        let mut written = Vec::new();
        for (place_in_time, (begins, skipped)) in [
            (Begins::Insert, 0),
            (Begins::Copy, 0),
            (Begins::Update, 0),
            (Begins::BadRow, 0),
            (Begins::BadRow, 1),
        ]
        .into_iter()
        .enumerate()
        {
            for (turn, fault) in ["BeforeQuery", "AfterQuery"].into_iter().enumerate() {
                let writer = db.writer().retry(patient()).start();
                // Whatever is asked only once is asked now.
                writer.insert(&Line { id: -1, n: 0 }).await.unwrap().await.unwrap();
                let begin = "BEGIN".to_owned();
                place.proxy.fail_after(
                    skipped,
                    match fault {
                        "BeforeQuery" => FaultPoint::BeforeQuery(begin),
                        _ => FaultPoint::AfterQuery(begin),
                    },
                );
                let first = 1_000 * (1 + 2 * place_in_time as i64 + turn as i64);
                let receipts = begins.add(&writer, first).await;
                for (index, (receipt, is_written)) in receipts.into_iter().enumerate() {
                    let answer = in_time("a BEGIN that was cut off", receipt).await;
                    match (is_written, answer) {
                        (true, Ok(Outcome::Inserted)) => written.push(first + index as i64),
                        (true, Ok(Outcome::Updated)) => {}
                        (false, Err(error)) if error.kind() == ErrorKind::CheckViolation => {}
                        (_, answer) => panic!("{begins:?}, {fault}: {answer:?}"),
                    }
                }
                assert!(place.proxy.has_failed(), "{begins:?}, {fault}: never came");
                let statistics = writer.close().await.unwrap().statistics;
                assert!(statistics.retries > 0, "{begins:?}, {fault}: {statistics:?}");
                if let Begins::Update = begins {
                    let updated = place.side.query_one("SELECT min(n) FROM counters", &[]).await.unwrap();
                    assert_eq!(updated.get::<_, i64>(0), first, "{fault}");
                }
            }
        }
        let lines = place.lines().await;
        assert_eq!(lines.into_iter().filter(|id| *id >= 0).collect::<Vec<_>>(), written);
    }
}

/// The last connections of a server are taken by others.
#[tokio::test]
async fn a_server_that_takes_no_more_connections_is_tried_again() {
    let server = servers::own_postgres_with(
        "max_connections = 5\nsuperuser_reserved_connections = 0\nmax_wal_senders = 0",
    );
    let place = Refusing::new(&server).await;
    let others = [side(&server.url()).await, side(&server.url()).await, side(&server.url()).await];
    place.end_connections().await;
    // The one that is left.
    let last = side(&server.url()).await;
    let waiting = place.refused("53300", ErrorKind::Busy).await;
    drop((last, others));
    place.written_once(waiting).await;
}

/// A server that shuts down takes no new connections, and waits until the last one that it has is closed.
#[tokio::test]
async fn a_server_that_shuts_down_is_waited_for_until_it_is_back() {
    let server = Arc::new(servers::own_postgres());
    let place = Refusing::new(&server).await;
    let process = std::fs::read_to_string(server.directory().join("data/postmaster.pid")).unwrap();
    signal(process.lines().next().unwrap().parse().unwrap(), "TERM");
    let server_is_closing = async {
        while tokio_postgres::connect(&server.url(), tokio_postgres::NoTls).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    in_time("a server that shuts down", server_is_closing).await;
    place.end_connections().await;
    let waiting = place.refused("57P03", ErrorKind::ConnectionLost).await;
    let restarted = Arc::clone(&server);
    tokio::task::spawn_blocking(move || {
        restarted.stop();
        restarted.start();
    })
    .await
    .unwrap();
    Refusing { side: side(&server.url()).await, ..place }.written_once(waiting).await;
}

/// A server that refuses new connections for a while, a connection to it from before, and a database whose connections were ended.
struct Refusing {
    side: Client,
    db: Database,
}

impl Refusing {
    async fn new(server: &OwnPostgres) -> Self {
        let side = side(&server.url()).await;
        side.batch_execute(TABLES).await.unwrap();
        let options = PostgresOptions::from_url(&server.url()).unwrap().pool_size(1);
        let store: PostgresStore = options.open().await.unwrap();
        let db = Database::new(store);
        let writer = db.writer().start();
        writer.insert(&Line { id: 1, n: 1 }).await.unwrap().await.unwrap();
        Refusing { side, db }
    }

    async fn end_connections(&self) {
        let end = "SELECT count(pg_terminate_backend(pid, 5000)) FROM pg_stat_activity WHERE application_name = 'barge'";
        let ended: i64 = self.side.query_one(end, &[]).await.unwrap().get(0);
        assert_eq!(ended, 1);
    }

    /// Gives a row to a writer, who is refused with this code, and tries again. Who doesn't try again is told.
    async fn refused(&self, code: &str, kind: ErrorKind) -> (Writer, Receipt) {
        // The end of its connection may be what the first call is told.
        let _ = self.db.begin().await;
        let error = in_time(code, self.db.begin()).await.unwrap_err();
        assert_eq!((error.code(), error.kind()), (Some(code), kind), "{error:?}");
        let hasty = self.db.writer().retry(Retry::never()).start();
        let error = in_time(code, hasty.insert(&Line { id: 2, n: 2 }).await.unwrap()).await.unwrap_err();
        assert_eq!((error.code(), error.kind()), (Some(code), kind), "{error:?}");
        let writer = self.db.writer().retry(patient()).start();
        let receipt = writer.insert(&Line { id: 3, n: 3 }).await.unwrap();
        // Long enough for several tries.
        tokio::time::sleep(Duration::from_millis(200)).await;
        (writer, receipt)
    }

    async fn written_once(&self, (writer, receipt): (Writer, Receipt)) {
        assert_eq!(in_time("a server that is back", receipt).await.unwrap(), Outcome::Inserted);
        let report = in_time("the end", writer.close()).await.unwrap();
        assert!(report.statistics.retries > 1 && report.statistics.committed == 1, "{report:?}");
        assert_eq!(super::lines(&self.side).await, [1, 3]);
    }
}
