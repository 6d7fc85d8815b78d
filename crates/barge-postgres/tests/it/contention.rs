//! Several processes that write the same keys in opposite orders: nobody loses, and no deadlock and no failed serialization reaches a caller.
//!
//! Each test starts this test program again, several times, with one writer each. The processes begin their rounds at the same moments
//! and sleep in between, so that they meet and leave the processor to other tests. The longest test takes a minute, or as many seconds as
//! `BARGE_TEST_SECONDS` says.

use std::collections::BTreeMap;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use barge_core::{Database, Operation, Outcome, Receipt, Record, Report, Writer};
use barge_postgres::PostgresOptions;
use barge_testkit::servers::{self, TestDatabase};
use tokio_postgres::{Client, NoTls};

/// A key that every process writes: which writer wrote it last, and in which round.
#[derive(Clone, Debug, Record)]
#[record(table = "shared")]
struct Shared {
    #[record(key)]
    id: i64,
    writer: i64,
    n: i64,
}

/// A row of each round, so that a round written twice, or not at all, shows.
#[derive(Clone, Debug, Record)]
#[record(table = "rounds")]
struct Round {
    writer: i64,
    n: i64,
}

const TABLES: &str = "
    CREATE TABLE shared (id bigint PRIMARY KEY, writer bigint NOT NULL, n bigint NOT NULL);
    CREATE TABLE rounds (writer bigint NOT NULL, n bigint NOT NULL)";

const PROCESSES: i64 = 4;
/// Keys that all of them write in every round.
const KEYS: i64 = 60;
/// The time between the beginnings of two rounds, for all processes at once.
const BEAT: Duration = Duration::from_millis(40);
/// What a process is told: the database, which of them it is, for how many milliseconds to write, and how.
const TASK: &str = "BARGE_CONTENTION_TASK";

/// What the rows of a round are.
#[derive(Clone, Copy, PartialEq)]
enum Rows {
    /// All of one operation: they meet in one statement, which sorts them.
    Alike,
    /// Upserts, updates and deletes, which meet in several statements of one transaction: no order helps, and there are deadlocks.
    Mixed,
}

impl Rows {
    fn operation(self, id: i64, n: i64, writer: i64) -> Operation {
        let turn = match self {
            Rows::Alike => n,
            Rows::Mixed => id + n + writer,
        };
        match (self, turn % 8) {
            (Rows::Mixed, 0) => Operation::Delete,
            (_, 1..=3) => Operation::Update,
            _ => Operation::Upsert,
        }
    }
}

/// How the longest test is to run.
fn long() -> Duration {
    let seconds = std::env::var("BARGE_TEST_SECONDS").ok().and_then(|seconds| seconds.parse().ok());
    Duration::from_secs(seconds.unwrap_or(60))
}

const SHORT: Duration = Duration::from_secs(8);

/// What a process says of itself.
#[derive(Debug)]
pub(crate) struct Told {
    pub(crate) rounds: i64,
    pub(crate) retries: i64,
}

/// The part of one process.
pub(crate) struct Task {
    pub(crate) url: String,
    /// Which of them it is.
    pub(crate) own: i64,
    ends: Instant,
}

impl Task {
    /// This process's, where it has one.
    pub(crate) fn of_this_process() -> Option<Task> {
        let task = std::env::var(TASK).ok()?;
        let [url, own, time]: [&str; 3] = task.split(' ').collect::<Vec<_>>().try_into().unwrap();
        let time = Duration::from_millis(time.parse().unwrap());
        Some(Task { url: url.to_owned(), own: own.parse().unwrap(), ends: Instant::now() + time })
    }

    pub(crate) fn goes_on(&self) -> bool {
        Instant::now() < self.ends
    }

    /// Says what became of it to the process that started this one. A row that was rejected ends it in a panic.
    pub(crate) fn tell(&self, rounds: i64, report: Report) {
        let retries = report.into_result().unwrap().retries;
        #[allow(clippy::print_stdout, reason = "the process that started this one reads it")]
        {
            println!("\ntold: {rounds} {retries}");
        }
    }
}

/// Does the part of one process, where this is one, and says so.
async fn takes_part(rows: Rows) -> bool {
    let Some(task) = Task::of_this_process() else { return false };
    let store = PostgresOptions::from_url(&task.url).unwrap().pool_size(2).open().await.unwrap();
    let writer = Database::new(store).writer().start();
    let mut rounds = 0;
    while task.goes_on() {
        rounds += 1;
        next_beat().await;
        play(&writer, rows, task.own, rounds).await;
    }
    task.tell(rounds, writer.close().await.unwrap());
    true
}

async fn next_beat() {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    let into = Duration::from_millis(now.as_millis() as u64 % BEAT.as_millis() as u64);
    tokio::time::sleep(BEAT - into).await;
}

/// Writes every key once, and waits for every receipt.
async fn play(writer: &Writer, rows: Rows, own: i64, n: i64) {
    let mut receipts: Vec<(Operation, Receipt)> = Vec::new();
    for place in 0..KEYS {
        // Half of the processes go up, half go down.
        let id = if own % 2 == 0 { place } else { KEYS - 1 - place };
        let operation = rows.operation(id, n, own);
        receipts.push((operation, writer.add(operation, &Shared { id, writer: own, n }).await.unwrap()));
    }
    let round = writer.insert(&Round { writer: own, n }).await.unwrap();
    for (operation, receipt) in receipts {
        let outcome = receipt.await.unwrap_or_else(|error| panic!("{operation} in round {n}: {error:?}"));
        let possible: &[Outcome] = match operation {
            Operation::Delete => &[Outcome::Deleted, Outcome::NotFound],
            Operation::Update => &[Outcome::Updated, Outcome::NotFound],
            _ => &[Outcome::Inserted, Outcome::Updated],
        };
        assert!(possible.contains(&outcome), "{operation} in round {n}: {outcome:?}");
    }
    assert_eq!(round.await.unwrap(), Outcome::Inserted);
}

/// Starts this program again, to run nothing but this test, which finds its task in the environment.
pub(crate) fn start(test: &str, url: &str, writer: i64, time: Duration) -> Child {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--nocapture"]);
    command.env(TASK, format!("{url} {writer} {}", time.as_millis()));
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}

/// A database with the tables.
struct Arena {
    database: TestDatabase,
    side: Client,
}

/// What became of a run.
struct Fought {
    told: Vec<Told>,
    /// Deadlocks that the server broke.
    deadlocks: i64,
}

impl Arena {
    async fn new(isolation: &str) -> Self {
        let database = servers::postgres().database();
        let (side, connection) = tokio_postgres::connect(&database.url(), NoTls).await.unwrap();
        tokio::spawn(connection);
        let name = database.name();
        let isolation = format!("ALTER DATABASE {name} SET default_transaction_isolation = '{isolation}'");
        side.batch_execute(&isolation).await.unwrap();
        // A deadlock is looked for after a second: a long time to wait for something to be tested. Only a superuser may set it.
        let _ = side.batch_execute(&format!("ALTER DATABASE {name} SET deadlock_timeout = '30ms'")).await;
        side.batch_execute(TABLES).await.unwrap();
        Arena { database, side }
    }

    /// Runs the processes against each other and holds what they left against what they told.
    async fn fight(&self, test: &str, rows: Rows, time: Duration) -> Fought {
        let url = self.database.url();
        let test = format!("contention::{test}");
        let mut children: Vec<Child> =
            (0..PROCESSES).map(|writer| start(&test, &url, writer, time)).collect();
        // The highest round of each writer that was seen in a key.
        let mut seen: BTreeMap<(i64, i64), i64> = BTreeMap::new();
        while children.iter_mut().any(|child| child.try_wait().unwrap().is_none()) {
            for [id, writer, n] in self.shared().await {
                let before = seen.insert((id, writer), n).unwrap_or_default();
                assert!(n >= before, "key {id}: round {n} of writer {writer} came after round {before}");
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let told: Vec<Told> = children.into_iter().map(what_it_told).collect();
        for (writer, told) in told.iter().enumerate() {
            let sql = "SELECT count(*), count(DISTINCT n), coalesce(max(n), 0) FROM rounds WHERE writer = $1";
            let row = self.side.query_one(sql, &[&(writer as i64)]).await.unwrap();
            let found: [i64; 3] = [row.get(0), row.get(1), row.get(2)];
            assert_eq!(found, [told.rounds; 3], "writer {writer}'s rounds");
        }
        for [id, writer, n] in self.shared().await {
            // Each round writes or deletes every key, so an older one than the last can't be left.
            assert_eq!(n, told[writer as usize].rounds, "key {id} is of writer {writer}");
            assert_ne!(rows.operation(id, n, writer), Operation::Delete, "key {id} of writer {writer}");
        }
        Fought { told, deadlocks: self.deadlocks().await }
    }

    async fn shared(&self) -> Vec<[i64; 3]> {
        let rows = self.side.query("SELECT id, writer, n FROM shared", &[]).await.unwrap();
        rows.iter().map(|row| [row.get(0), row.get(1), row.get(2)]).collect()
    }

    async fn deadlocks(&self) -> i64 {
        // What a server process counted is told at its end, which may come after its client's.
        let ended = "SELECT count(*) = 0 FROM pg_stat_activity \
                     WHERE datname = current_database() AND application_name = 'barge'";
        for _ in 0..100 {
            if self.side.query_one(ended, &[]).await.unwrap().get(0) {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let sql = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()";
        self.side.query_one(sql, &[]).await.unwrap().get(0)
    }
}

pub(crate) fn what_it_told(child: Child) -> Told {
    let output = child.wait_with_output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{}\n{out}\n{err}", output.status);
    let told = out.lines().find_map(|line| line.strip_prefix("told: "));
    let (rounds, retries) = told.and_then(|told| told.split_once(' ')).unwrap_or_else(|| panic!("{out}"));
    Told { rounds: rounds.parse().unwrap(), retries: retries.parse().unwrap() }
}

impl Fought {
    fn retries(&self) -> i64 {
        self.told.iter().map(|told| told.retries).sum()
    }

    /// Whether they wrote, and not only waited.
    fn check_pace(&self, time: Duration) {
        for told in &self.told {
            assert!(told.rounds >= time.as_secs() as i64, "{:?} in {time:?}", self.told);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn deadlocks_are_broken_and_tried_again_for_a_minute() {
    if takes_part(Rows::Mixed).await {
        return;
    }
    let arena = Arena::new("read committed").await;
    let fought = arena.fight("deadlocks_are_broken_and_tried_again_for_a_minute", Rows::Mixed, long()).await;
    println!("{:?}, {} deadlocks", fought.told, fought.deadlocks);
    fought.check_pace(long());
    assert!(fought.deadlocks > 0, "none, so none was tried again");
    // Each was told to one of them, who tried again.
    assert_eq!(fought.retries(), fought.deadlocks);
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_of_one_operation_in_opposite_orders_are_no_deadlock() {
    if takes_part(Rows::Alike).await {
        return;
    }
    let arena = Arena::new("read committed").await;
    let fought =
        arena.fight("keys_of_one_operation_in_opposite_orders_are_no_deadlock", Rows::Alike, SHORT).await;
    println!("{:?}, {} deadlocks", fought.told, fought.deadlocks);
    fought.check_pace(SHORT);
    assert_eq!((fought.deadlocks, fought.retries()), (0, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn failed_serializations_are_tried_again() {
    if takes_part(Rows::Mixed).await {
        return;
    }
    let arena = Arena::new("serializable").await;
    let fought = arena.fight("failed_serializations_are_tried_again", Rows::Mixed, SHORT).await;
    println!("{:?}, {} deadlocks", fought.told, fought.deadlocks);
    assert!(
        fought.retries() > fought.deadlocks,
        "{} retries, {} deadlocks",
        fought.retries(),
        fought.deadlocks
    );
}
