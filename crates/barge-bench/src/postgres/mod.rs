//! PostgreSQL: Barge, `psql \copy`, the Python peers and hand-written loops, against one server that keeps what it commits.

mod adaptive;
mod bad_rows;
mod batches;
mod copy;
mod load;
mod server;
mod tasks;

use barge::{Database, Writer};

use crate::measure::Run;
use crate::peers::Python;
use crate::rows::{Task, tasks};
use server::Server;

/// The parts by name, for `--only`.
pub(crate) const PARTS: [&str; 7] = ["copy", "load", "insert", "update", "tasks", "adaptive", "bad-rows"];

/// What every part needs.
struct Bench {
    server: Server,
    python: Option<Python>,
    rounds: usize,
    /// Rows of a long run, a million unless it is to be short.
    many: usize,
    /// Rows of one in batches.
    some: usize,
}

pub(crate) fn run(rounds: usize, short: bool, only: Option<&str>, url: Option<&str>) {
    let wanted = |part: &str| only.is_none_or(|only| only == part);
    println!("\n## PostgreSQL\n");
    let server = Server::start(url);
    println!("{}\n", server.settings());
    let python = Python::find();
    if python.is_none() {
        println!("The Python peers are left out: bench/peers/setup has not run.\n");
    }
    println!("Above 1: Barge is faster. Rounds: {rounds}.");
    let (many, some) = if short { (200_000, 50_000) } else { (1_000_000, 200_000) };
    let bench = Bench { server, python, rounds, many, some };
    let parts: [fn(&Bench); 7] =
        [copy::run, load::run, batches::insert, batches::update, tasks::run, adaptive::run, bad_rows::run];
    for (name, part) in PARTS.iter().zip(parts) {
        if wanted(name) {
            part(&bench);
        }
    }
}

impl Bench {
    fn rows(&self, rows: usize) -> Vec<Task> {
        tasks(rows, false)
    }

    /// Work through a writer that is set up by `start`. What counts is from the writer's start until it is closed.
    fn through_writer(
        &self,
        url: &str,
        rows: usize,
        start: impl FnOnce(&Database) -> Writer,
        work: impl AsyncFnOnce(&Writer),
    ) -> Run {
        self.server.block_on(async {
            let database = barge::open(url).await.unwrap();
            let started = std::time::Instant::now();
            let writer = start(&database);
            work(&writer).await;
            let statistics = writer.close().await.unwrap().into_result().unwrap();
            let time = started.elapsed();
            assert_eq!(statistics.committed, rows as u64);
            drop(writer);
            database.close().await.unwrap();
            Run { rows, time }
        })
    }

    /// Typed inserts, their receipts dropped.
    fn insert(&self, rows: &[Task], start: impl FnOnce(&Database) -> Writer) -> Run {
        self.server.new_table();
        let run = self.through_writer(self.server.url(), rows.len(), start, async |writer| {
            for task in rows {
                drop(writer.insert(&task.borrowed()).await.unwrap());
            }
        });
        assert_eq!(self.server.count(), rows.len());
        run
    }
}
