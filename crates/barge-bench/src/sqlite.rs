//! Insert, update, upsert and look-up by key on SQLite, against a rusqlite loop as one writes it by hand.

use std::path::Path;
use std::time::{Duration, Instant};

use barge::{Database, Operation, Writer};
use rusqlite::{Connection, params};
use tokio::runtime::Runtime;

use crate::measure::{Comparison, compare, rate};
use crate::rows::{CREATE, Task, tasks};

/// Rows a transaction of the hand-written loop.
const PEER_BATCH: usize = 1_000;

#[derive(Clone, Copy, PartialEq)]
enum Place {
    Memory,
    File,
}

impl Place {
    const ALL: [Place; 2] = [Place::Memory, Place::File];

    fn name(self) -> &'static str {
        match self {
            Place::Memory => "memory",
            Place::File => "WAL file",
        }
    }
}

pub(crate) fn run(rounds: usize, short: bool, only: Option<&str>) {
    let wanted = |operation: &str| only.is_none_or(|only| only == operation);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    println!("\n### SQLite: the typed Writer against a rusqlite loop\n");
    println!(
        "The loop: a prepared statement, one transaction per {PEER_BATCH} rows. A ratio above 1: Barge is faster.\n"
    );
    println!("| place | operation | keys | rows | batch | barge | loop | ratio | one commit a row | ratio |");
    println!("|---|---|---|---|---|---|---|---|---|---|");
    let bench = Bench { runtime, rounds };
    let operations = [Operation::Insert, Operation::Update, Operation::Upsert];
    let operations =
        operations.into_iter().filter(|operation| wanted(operation.as_str())).collect::<Vec<_>>();
    for place in Place::ALL {
        for &operation in &operations {
            for shuffled in [false, true] {
                bench.write(place, operation, shuffled, 1_000_000, 1_000);
            }
        }
        if short {
            continue;
        }
        for &operation in &operations {
            for rows in [100, 500, 1_000] {
                bench.write(place, operation, false, rows, 1_000);
            }
            for batch in [10, 50, 100, 500, 10_000] {
                bench.write(place, operation, false, 200_000, batch);
            }
        }
    }
    if !wanted("look-up") {
        return;
    }
    println!("\n### SQLite: look-up by key against one prepared query a key\n");
    println!(
        "| place | keys | keys a look-up | table | barge | loop | ratio |\n|---|---|---|---|---|---|---|"
    );
    for place in Place::ALL {
        for shuffled in [false, true] {
            for keys in [100, 1_000, 10_000] {
                bench.look_up(place, shuffled, keys);
            }
        }
    }
}

struct Bench {
    runtime: Runtime,
    rounds: usize,
}

impl Bench {
    fn write(&self, place: Place, operation: Operation, shuffled: bool, rows: usize, batch: usize) {
        let rows_to_write = tasks(rows, shuffled);
        let old = tasks(rows, false);
        // Small runs are repeated within a round, so that a round is long enough to measure.
        let repeats = (20_000 / rows).clamp(1, 50);
        let rounds = if rows >= 1_000_000 { self.rounds.min(3) } else { self.rounds };
        let filled = (operation != Operation::Insert).then_some(&old);
        let barge =
            || (0..repeats).map(|_| self.barge(place, operation, &rows_to_write, filled, batch)).sum();
        let peer = || {
            (0..repeats).map(|_| rusqlite_loop(place, operation, &rows_to_write, filled, PEER_BATCH)).sum()
        };
        let Comparison { barge, peer, ratio } = compare(rounds, barge, peer);
        let single = (batch == 1_000).then(|| {
            let some = &rows_to_write[..rows.min(10_000)];
            let filled = filled.map(|filled| &filled[..]);
            rusqlite_loop(place, operation, some, filled.map(|rows| rows.to_vec()).as_ref(), 1).as_secs_f64()
                / some.len() as f64
        });
        let per_row = barge.as_secs_f64() / (repeats * rows) as f64;
        let (single_rate, single_ratio) = match single {
            Some(time) => (rate(1, Duration::from_secs_f64(time)), format!("{:.1}", time / per_row)),
            None => (String::new(), String::new()),
        };
        let keys = if shuffled { "shuffled" } else { "in order" };
        println!(
            "| {} | {operation} | {keys} | {rows} | {batch} | {} | {} | **{ratio:.2}** | {single_rate} | {single_ratio} |",
            place.name(),
            rate(rows * repeats, barge),
            rate(rows * repeats, peer),
        );
    }

    fn barge(
        &self,
        place: Place,
        operation: Operation,
        rows: &[Task],
        filled: Option<&Vec<Task>>,
        batch: usize,
    ) -> Duration {
        let directory = tempfile::tempdir().unwrap();
        self.runtime.block_on(async {
            let db = open(place, directory.path()).await;
            db.execute(CREATE).await.unwrap();
            if let Some(filled) = filled {
                db.insert_all(filled).await.unwrap();
            }
            let started = Instant::now();
            let writer = db.writer().max_rows(batch).start();
            write(&writer, operation, rows).await;
            let statistics = writer.close().await.unwrap().into_result().unwrap();
            let took = started.elapsed();
            assert_eq!(statistics.committed, rows.len() as u64);
            db.close().await.unwrap();
            took
        })
    }

    fn look_up(&self, place: Place, shuffled: bool, keys: usize) {
        const TABLE: usize = 100_000;
        let filled = tasks(TABLE, false);
        let keys: Vec<i64> = tasks(TABLE, shuffled).iter().take(keys).map(|task| task.id).collect();
        let repeats = 100_000 / keys.len();
        let directory = tempfile::tempdir().unwrap();
        let db = self.runtime.block_on(async {
            let db = open(place, directory.path()).await;
            db.execute(CREATE).await.unwrap();
            db.insert_all(&filled).await.unwrap();
            db
        });
        let peer_directory = tempfile::tempdir().unwrap();
        let connection = connect(place, peer_directory.path());
        fill(&connection, &filled);
        let barge = || {
            self.runtime.block_on(async {
                let started = Instant::now();
                for _ in 0..repeats {
                    let found = db.get_all::<Task, i64>(&keys).await.unwrap();
                    assert!(found.iter().all(Option::is_some));
                }
                started.elapsed()
            })
        };
        let peer = || {
            let started = Instant::now();
            for _ in 0..repeats {
                let mut statement = connection
                    .prepare_cached(
                        "SELECT id, task_type, status, data, account, amount FROM tasks WHERE id = ?1",
                    )
                    .unwrap();
                let found: Vec<Task> = keys
                    .iter()
                    .map(|key| {
                        let read = |row: &rusqlite::Row<'_>| {
                            Ok(Task {
                                id: row.get(0)?,
                                task_type: row.get(1)?,
                                status: row.get(2)?,
                                data: row.get(3)?,
                                account: row.get(4)?,
                                amount: row.get(5)?,
                            })
                        };
                        statement.query_row([key], read).unwrap()
                    })
                    .collect();
                assert_eq!(found.len(), keys.len());
            }
            started.elapsed()
        };
        let Comparison { barge, peer, ratio } = compare(self.rounds, barge, peer);
        println!(
            "| {} | {} | {} | {TABLE} rows | {} | {} | **{ratio:.2}** |",
            place.name(),
            if shuffled { "shuffled" } else { "in order" },
            keys.len(),
            rate(keys.len() * repeats, barge),
            rate(keys.len() * repeats, peer),
        );
    }
}

async fn write(writer: &Writer, operation: Operation, rows: &[Task]) {
    for task in rows {
        drop(writer.add(operation, &task.borrowed()).await.unwrap());
    }
}

async fn open(place: Place, directory: &Path) -> Database {
    match place {
        Place::Memory => barge::open("sqlite::memory:").await.unwrap(),
        Place::File => barge::open(&format!("sqlite:{}/bench.db", directory.display())).await.unwrap(),
    }
}

/// The pragmas that Barge sets beside its profile's.
pub(crate) fn set_pragmas(connection: &Connection) {
    connection.pragma_update(None, "cache_size", -32_768).unwrap();
    connection.pragma_update(None, "wal_autocheckpoint", 4_096).unwrap();
    connection.pragma_update(None, "temp_store", "MEMORY").unwrap();
}

/// A connection set up as the balanced profile is: WAL, synchronous NORMAL, and the pragmas beside it.
fn connect(place: Place, directory: &Path) -> Connection {
    let connection = match place {
        Place::Memory => Connection::open_in_memory().unwrap(),
        Place::File => Connection::open(directory.join("peer.db")).unwrap(),
    };
    connection.pragma_update(None, "journal_mode", "WAL").unwrap();
    connection.pragma_update(None, "synchronous", "NORMAL").unwrap();
    connection.pragma_update(None, "foreign_keys", true).unwrap();
    set_pragmas(&connection);
    connection.execute_batch(CREATE).unwrap();
    connection
}

fn fill(connection: &Connection, rows: &[Task]) {
    run_loop(connection, Operation::Insert, rows, rows.len());
}

fn rusqlite_loop(
    place: Place,
    operation: Operation,
    rows: &[Task],
    filled: Option<&Vec<Task>>,
    batch: usize,
) -> Duration {
    let directory = tempfile::tempdir().unwrap();
    let connection = connect(place, directory.path());
    if let Some(filled) = filled {
        fill(&connection, filled);
    }
    let started = Instant::now();
    run_loop(&connection, operation, rows, batch);
    started.elapsed()
}

fn run_loop(connection: &Connection, operation: Operation, rows: &[Task], batch: usize) {
    let insert =
        "INSERT INTO tasks (id, task_type, status, data, account, amount) VALUES (?1, ?2, ?3, ?4, ?5, ?6)";
    let sql = match operation {
        Operation::Insert => insert.to_owned(),
        Operation::Update => {
            "UPDATE tasks SET task_type = ?2, status = ?3, data = ?4, account = ?5, amount = ?6 WHERE id = ?1"
                .to_owned()
        }
        _ => format!(
            "{insert} ON CONFLICT (id) DO UPDATE SET task_type = excluded.task_type, status = excluded.status, \
             data = excluded.data, account = excluded.account, amount = excluded.amount"
        ),
    };
    for chunk in rows.chunks(batch) {
        let transaction = connection.unchecked_transaction().unwrap();
        {
            let mut statement = transaction.prepare_cached(&sql).unwrap();
            for task in chunk {
                let Task { id, task_type, status, data, account, amount } = task;
                statement.execute(params![id, task_type, status, data, account, amount]).unwrap();
            }
        }
        transaction.commit().unwrap();
    }
}
