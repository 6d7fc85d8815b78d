//! Tasks that each insert a row and wait for its receipt: what group commit is for.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use barge::Writer;
use rusqlite::{Connection, params};

use crate::measure::{median, rate};
use crate::rows::{CREATE, Task, tasks};

const TASKS: usize = 64;

pub(crate) fn run(rounds: usize) {
    println!("\n### Tasks that insert a row each and await its receipt, SQLite in a file\n");
    println!("Ratios above 1: Barge is faster. The loops: rusqlite, one thread, the same pragmas.\n");
    println!("| profile | {TASKS} tasks | one commit a row | ratio | 32 rows a commit | ratio |");
    println!("|---|---|---|---|---|---|");
    for profile in [Profile::Durable, Profile::Balanced] {
        many(profile, rounds);
    }
    println!("\n| profile | one task alone, median | plain commit, median | ratio | above it |");
    println!("|---|---|---|---|---|");
    for profile in [Profile::Durable, Profile::Balanced] {
        alone(profile, rounds);
    }
}

#[derive(Clone, Copy)]
enum Profile {
    Durable,
    Balanced,
}

impl Profile {
    fn name(self) -> &'static str {
        match self {
            Profile::Durable => "durable",
            Profile::Balanced => "balanced",
        }
    }

    fn synchronous(self) -> &'static str {
        match self {
            Profile::Durable => "FULL",
            Profile::Balanced => "NORMAL",
        }
    }
}

fn many(profile: Profile, rounds: usize) {
    let rows = 20_000;
    let mut results = Vec::new();
    for _ in 0..rounds {
        let barge = barge_tasks(profile, rows).as_secs_f64() / rows as f64;
        let single = rusqlite_commits(profile, 2_000, 1).iter().sum::<Duration>().as_secs_f64() / 2_000.0;
        let grouped =
            rusqlite_commits(profile, rows, 32).iter().sum::<Duration>().as_secs_f64() / rows as f64;
        results.push((barge, single, grouped));
    }
    let time = |pick: fn(&(f64, f64, f64)) -> f64| median(results.iter().map(pick));
    println!(
        "| {} | {} | {} | **{:.1}** | {} | **{:.2}** |",
        profile.name(),
        rate(1, Duration::from_secs_f64(time(|result| result.0))),
        rate(1, Duration::from_secs_f64(time(|result| result.1))),
        time(|result| result.1 / result.0),
        rate(1, Duration::from_secs_f64(time(|result| result.2))),
        time(|result| result.2 / result.0),
    );
}

fn alone(profile: Profile, rounds: usize) {
    let mut results = Vec::new();
    for _ in 0..rounds {
        let barge = barge_alone(profile, 2_000);
        let plain = median(rusqlite_commits(profile, 2_000, 1).into_iter());
        results.push((barge.as_secs_f64(), plain.as_secs_f64()));
    }
    let barge = median(results.iter().map(|result| result.0));
    let plain = median(results.iter().map(|result| result.1));
    println!(
        "| {} | {:.0} µs | {:.0} µs | **{:.2}** | {:.0} µs |",
        profile.name(),
        barge * 1e6,
        plain * 1e6,
        median(results.iter().map(|result| result.0 / result.1)),
        median(results.iter().map(|result| (result.0 - result.1) * 1e6)),
    );
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

async fn open(profile: Profile, directory: &Path) -> Writer {
    let url = format!("sqlite:{}/bench.db?profile={}", directory.display(), profile.name());
    let db = barge::open(&url).await.unwrap();
    db.execute(CREATE).await.unwrap();
    db.writer().start()
}

fn barge_tasks(profile: Profile, rows: usize) -> Duration {
    let directory = tempfile::tempdir().unwrap();
    runtime().block_on(async {
        let writer = open(profile, directory.path()).await;
        let next = Arc::new(AtomicI64::new(1));
        let template = Arc::new(tasks(1, false).remove(0));
        let started = Instant::now();
        let tasks: Vec<_> = (0..TASKS)
            .map(|_| {
                let (writer, next, template) = (writer.clone(), Arc::clone(&next), Arc::clone(&template));
                tokio::spawn(async move {
                    let mut task = Task::clone(&template);
                    loop {
                        task.id = next.fetch_add(1, Ordering::Relaxed);
                        if task.id > rows as i64 {
                            return;
                        }
                        writer.insert(&task.borrowed()).await.unwrap().await.unwrap();
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        let took = started.elapsed();
        writer.close().await.unwrap().into_result().unwrap();
        took
    })
}

/// The median time of one insert and its receipt.
fn barge_alone(profile: Profile, rows: i64) -> Duration {
    let directory = tempfile::tempdir().unwrap();
    runtime().block_on(async {
        let writer = open(profile, directory.path()).await;
        let handle = tokio::spawn(async move {
            let mut task = tasks(1, false).remove(0);
            let mut times = Vec::new();
            for id in 1..=rows {
                task.id = id;
                let started = Instant::now();
                writer.insert(&task.borrowed()).await.unwrap().await.unwrap();
                times.push(started.elapsed());
            }
            median(times.into_iter())
        });
        handle.await.unwrap()
    })
}

/// The times of the commits.
fn rusqlite_commits(profile: Profile, rows: usize, batch: usize) -> Vec<Duration> {
    let directory = tempfile::tempdir().unwrap();
    let connection = Connection::open(directory.path().join("peer.db")).unwrap();
    connection.pragma_update(None, "journal_mode", "WAL").unwrap();
    connection.pragma_update(None, "synchronous", profile.synchronous()).unwrap();
    crate::sqlite::set_pragmas(&connection);
    connection.execute_batch(CREATE).unwrap();
    let rows = tasks(rows, false);
    let mut times = Vec::new();
    for chunk in rows.chunks(batch) {
        let started = Instant::now();
        let transaction = connection.unchecked_transaction().unwrap();
        let mut statement = transaction
            .prepare_cached(
                "INSERT INTO tasks (id, task_type, status, data, account, amount) VALUES (?, ?, ?, ?, ?, ?)",
            )
            .unwrap();
        for task in chunk {
            let Task { id, task_type, status, data, account, amount } = task;
            statement.execute(params![id, task_type, status, data, account, amount]).unwrap();
        }
        drop(statement);
        transaction.commit().unwrap();
        times.push(started.elapsed());
    }
    times
}
