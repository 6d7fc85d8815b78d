//! Tasks that each insert one row and wait for it: what group commit is for.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use barge::Writer;
use deadpool_postgres::{Manager, ManagerConfig, Pool, RecyclingMethod};
use tokio_postgres::NoTls;

use super::Bench;
use crate::measure::{Contest, Run, median};
use crate::rows::{Task, tasks};

const TASKS: usize = 64;
/// The connections of Barge's pool where nothing else is said.
const POOL: usize = 10;
const INSERT: &str =
    "INSERT INTO tasks (id, task_type, status, data, account, amount) VALUES ($1, $2, $3, $4, $5, $6)";

/// The times of calls, from each call until it is known that its row is committed.
type Latencies = Vec<Duration>;

pub(super) fn run(bench: &Bench) {
    println!("\n### {TASKS} tasks that insert a row each and await its commit\n");
    let server = &bench.server;
    let rows = bench.some / 5;
    let (pool_rows, single_rows) = (rows / 4, rows / 20);
    let latencies: [RefCell<Vec<Latencies>>; 5] = Default::default();
    let keep = |place: usize, (run, times): (Run, Latencies)| {
        latencies[place].borrow_mut().push(times);
        assert_eq!(server.count(), run.rows);
        run
    };
    let keep = &keep;
    let kept = server.url_with_kept_statements();
    let mut contest = Contest::new();
    contest.add("Writer", || keep(0, through_writer(bench, server.url(), rows, 1)));
    contest.add("Writer, `statement_cache=100`", || keep(1, through_writer(bench, &kept, rows, 1)));
    contest.add("Writer, 4 flushes in flight", || keep(2, through_writer(bench, server.url(), rows, 4)));
    contest.add(format!("tokio-postgres, a pool of {POOL}"), || {
        keep(3, through_pool(bench, pool_rows, POOL, TASKS))
    });
    contest
        .add("tokio-postgres, one connection, one task", || keep(4, through_pool(bench, single_rows, 1, 1)));
    let results = contest.hold(bench.rounds);
    results.print(3);
    println!("\n| | latency, median | 99th percentile |\n|---|---|---|");
    for (name, latencies) in results.names().zip(&latencies) {
        // The first round is the warm-up.
        let rounds = latencies.borrow();
        let [middle, high] = [50, 99].map(|percent| {
            median(rounds[1..].iter().map(|times| percentile(times, percent).as_secs_f64() * 1e3))
        });
        println!("| {name} | {middle:.2} ms | {high:.2} ms |");
    }
}

fn percentile(times: &Latencies, percent: usize) -> Duration {
    let mut times = times.clone();
    times.sort_unstable();
    times[(times.len() - 1) * percent / 100]
}

/// How a row is inserted so that its commit is known.
#[derive(Clone)]
enum Way {
    Writer(Writer),
    Pool(Pool),
}

impl Way {
    async fn insert(&self, task: &Task) {
        match self {
            Way::Writer(writer) => {
                writer.insert(&task.borrowed()).await.unwrap().await.unwrap();
            }
            Way::Pool(pool) => {
                let connection = pool.get().await.unwrap();
                let insert = connection.prepare_cached(INSERT).await.unwrap();
                let Task { id, task_type, status, data, account, amount } = task;
                connection.execute(&insert, &[id, task_type, status, data, account, amount]).await.unwrap();
            }
        }
    }
}

fn through_writer(bench: &Bench, url: &str, rows: usize, flushes: usize) -> (Run, Latencies) {
    bench.server.new_table();
    bench.server.block_on(async {
        let database = barge::open(url).await.unwrap();
        let writer = database.writer().unordered(flushes).start();
        let done = in_tasks(TASKS, rows, &Way::Writer(writer.clone())).await;
        writer.close().await.unwrap().into_result().unwrap();
        drop(writer);
        database.close().await.unwrap();
        done
    })
}

fn through_pool(bench: &Bench, rows: usize, connections: usize, tasks: usize) -> (Run, Latencies) {
    bench.server.new_table();
    bench.server.block_on(async {
        let recycling = ManagerConfig { recycling_method: RecyclingMethod::Fast };
        let manager = Manager::from_config(bench.server.url().parse().unwrap(), NoTls, recycling);
        let pool = Pool::builder(manager).max_size(connections).build().unwrap();
        in_tasks(tasks, rows, &Way::Pool(pool)).await
    })
}

/// Spreads rows over tasks, each of which goes on to its next row when the one before is committed.
async fn in_tasks(tasks: usize, rows: usize, way: &Way) -> (Run, Latencies) {
    let next = Arc::new(AtomicI64::new(1));
    let template = one_task();
    let started = Instant::now();
    let running: Vec<_> = (0..tasks)
        .map(|_| {
            let (way, next, mut task) = (way.clone(), Arc::clone(&next), template.clone());
            tokio::spawn(async move {
                let mut times = Vec::new();
                loop {
                    task.id = next.fetch_add(1, Ordering::Relaxed);
                    if task.id > rows as i64 {
                        return times;
                    }
                    let started = Instant::now();
                    way.insert(&task).await;
                    times.push(started.elapsed());
                }
            })
        })
        .collect();
    let mut times = Vec::with_capacity(rows);
    for task in running {
        times.extend(task.await.unwrap());
    }
    (Run { rows, time: started.elapsed() }, times)
}

fn one_task() -> Task {
    tasks(1, false).remove(0)
}
