//! DuckDB: the typed Writer, upserts, updates and `barge load`, against what one writes by hand with the duckdb crate.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use barge::arrow::array::RecordBatch;
use barge::record::batch_of;
use barge::{Database, Operation};
use duckdb::Connection;
use duckdb::vtab::arrow::{ArrowVTab, arrow_recordbatch_to_query_params};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::load::{program, write_csv};
use crate::measure::{Contest, Run};
use crate::peers::{Job, Python};
use crate::rows::{Task, tasks};

/// The comparisons, by the names that `--only` takes.
pub(crate) const PARTS: [&str; 4] = ["insert", "upsert", "update", "load"];

const BATCH: usize = 10_000;
/// Rows of the peers that send each by itself.
const SINGLE_ROWS: usize = 20_000;
const CREATE: &str = "CREATE TABLE tasks (id BIGINT PRIMARY KEY, task_type VARCHAR NOT NULL, status VARCHAR NOT NULL, \
     data VARCHAR NOT NULL, account BIGINT NOT NULL, amount DOUBLE NOT NULL)";
const INSERT: &str = "INSERT INTO tasks SELECT * FROM arrow(?, ?)";
const UPSERT: &str = "INSERT INTO tasks SELECT * FROM arrow(?, ?) ON CONFLICT (id) DO UPDATE SET \
     task_type = excluded.task_type, status = excluded.status, data = excluded.data, account = excluded.account, \
     amount = excluded.amount";
const UPDATE: &str = "UPDATE tasks SET task_type = b.task_type, status = b.status, data = b.data, account = b.account, \
     amount = b.amount FROM arrow(?, ?) AS b WHERE tasks.id = b.id";

pub(crate) fn run(rounds: usize, short: bool, only: Option<&str>) {
    let wanted = |part: &str| only.is_none_or(|only| only == part);
    let rows = if short { 200_000 } else { 1_000_000 };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let bench = Bench { runtime, rounds, rows };
    println!("\n## DuckDB\n\nDuckDB {}, databases in files. Above 1: Barge is faster.", version());
    if wanted("insert") {
        bench.insert();
    }
    for (operation, sql) in [(Operation::Upsert, UPSERT), (Operation::Update, UPDATE)] {
        if wanted(operation.as_str()) {
            bench.write_again(operation, sql);
        }
    }
    if wanted("load") {
        bench.load();
    }
}

fn version() -> String {
    let connection = Connection::open_in_memory().unwrap();
    connection.query_row("SELECT version()", [], |row| row.get(0)).unwrap()
}

struct Bench {
    runtime: Runtime,
    rounds: usize,
    rows: usize,
}

/// A database in a file, gone at the end.
struct Place {
    directory: TempDir,
}

impl Place {
    fn new() -> Self {
        Place { directory: tempfile::tempdir().unwrap() }
    }

    fn file(&self) -> PathBuf {
        self.directory.path().join("bench.duckdb")
    }

    fn url(&self) -> String {
        format!("duckdb:{}", self.file().display())
    }

    /// A connection, with the table and the crate's function over Arrow.
    fn connect(&self) -> Connection {
        let connection = Connection::open(self.file()).unwrap();
        connection.register_table_function::<ArrowVTab>("arrow").unwrap();
        connection
    }

    fn create(&self) -> Connection {
        let connection = self.connect();
        connection.execute_batch(CREATE).unwrap();
        connection
    }

    fn fill(&self, batches: &[RecordBatch]) {
        let connection = self.create();
        append(&connection, batches);
        connection.close().unwrap();
    }

    fn count(&self) -> usize {
        let connection = Connection::open(self.file()).unwrap();
        let rows: i64 = connection.query_row("SELECT count(*) FROM tasks", [], |row| row.get(0)).unwrap();
        rows as usize
    }
}

fn append(connection: &Connection, batches: &[RecordBatch]) {
    for batch in batches {
        connection.execute_batch("BEGIN").unwrap();
        let mut appender = connection.appender("tasks").unwrap();
        appender.append_record_batch(batch.clone()).unwrap();
        appender.flush().unwrap();
        drop(appender);
        connection.execute_batch("COMMIT").unwrap();
    }
}

fn run_each(connection: &Connection, sql: &str, batches: &[RecordBatch]) {
    for batch in batches {
        connection.execute_batch("BEGIN").unwrap();
        let mut statement = connection.prepare_cached(sql).unwrap();
        statement.execute(arrow_recordbatch_to_query_params(batch.clone())).unwrap();
        drop(statement);
        connection.execute_batch("COMMIT").unwrap();
    }
}

fn batches(tasks: &[Task]) -> Vec<RecordBatch> {
    tasks.chunks(BATCH).map(|tasks| batch_of(tasks).unwrap()).collect()
}

impl Bench {
    /// Through a Writer whose receipts are dropped.
    fn writer(&self, place: &Place, operation: Operation, tasks: &[Task], create: bool) -> Run {
        self.runtime.block_on(async {
            let database: Database = barge::open(&place.url()).await.unwrap();
            if create {
                database.execute(CREATE).await.unwrap();
            }
            let started = Instant::now();
            let writer = database.writer().max_rows(BATCH).start();
            for task in tasks {
                drop(writer.add(operation, &task.borrowed()).await.unwrap());
            }
            let statistics = writer.close().await.unwrap().into_result().unwrap();
            let time = started.elapsed();
            assert_eq!(statistics.committed, tasks.len() as u64);
            database.close().await.unwrap();
            Run { rows: tasks.len(), time }
        })
    }

    fn insert(&self) {
        println!("\n### Inserts, {} rows, {BATCH} a batch, each committed\n", self.rows);
        let tasks = tasks(self.rows, false);
        let batches = batches(&tasks);
        let by_hand = |work: fn(&Connection, &[RecordBatch])| {
            let place = Place::new();
            let connection = place.create();
            let started = Instant::now();
            work(&connection, &batches);
            let time = started.elapsed();
            connection.close().unwrap();
            Run { rows: self.rows, time }
        };
        let mut contest = Contest::new();
        contest.add("Writer", || self.writer(&Place::new(), Operation::Insert, &tasks, true));
        contest.add("the Appender, record batches made before", || by_hand(append));
        contest.add("`INSERT … SELECT FROM arrow(…)`, record batches made before", || {
            by_hand(|connection, batches| run_each(connection, INSERT, batches))
        });
        let directory = tempfile::tempdir().unwrap();
        if let Some(python) = Python::find() {
            let csv = write_csv(directory.path(), SINGLE_ROWS);
            contest.add("Python's `executemany`", move || {
                let place = Place::new();
                place.create().close().unwrap();
                let url = place.file();
                let job = Job {
                    peer: "duckdb-executemany",
                    url: url.to_str().unwrap(),
                    csv: &csv,
                    batch: BATCH,
                    rows: SINGLE_ROWS,
                };
                let run = python.run(&job);
                assert_eq!(place.count(), SINGLE_ROWS);
                run
            });
        }
        contest.hold(self.rounds).print(1);
    }

    /// Every row of a filled table once more.
    fn write_again(&self, operation: Operation, sql: &str) {
        println!("\n### {operation} by key, {} rows, {BATCH} a batch, of a table of as many\n", self.rows);
        let tasks = tasks(self.rows, false);
        let batches = batches(&tasks);
        let mut contest = Contest::new();
        contest.add("Writer", || {
            let place = Place::new();
            place.fill(&batches);
            self.writer(&place, operation, &tasks, false)
        });
        contest.add("one statement over a registered Arrow table", || {
            let place = Place::new();
            place.fill(&batches);
            let connection = place.connect();
            let started = Instant::now();
            run_each(&connection, sql, &batches);
            let time = started.elapsed();
            connection.close().unwrap();
            Run { rows: self.rows, time }
        });
        contest.hold(self.rounds).print(1);
    }

    fn load(&self) {
        println!("\n### `barge load` of {} rows into a table with a key\n", self.rows);
        let Some(program) = program() else {
            println!("Skipped: build the program first, with `cargo build --release --features duckdb`.");
            return;
        };
        let directory = tempfile::tempdir().unwrap();
        let csv = write_csv(directory.path(), self.rows);
        let parquet = directory.path().join("tasks.parquet");
        Connection::open_in_memory()
            .unwrap()
            .execute_batch(&format!("COPY (FROM read_csv('{}')) TO '{}'", csv.display(), parquet.display()))
            .unwrap();
        for (file, sql) in [
            (&csv, format!("COPY tasks FROM '{}'", csv.display())),
            (&parquet, format!("INSERT INTO tasks FROM read_parquet('{}')", parquet.display())),
        ] {
            let mut contest = Contest::new();
            let ending = file.extension().unwrap().to_str().unwrap();
            contest.add(format!("`barge load`, {ending}"), || self.loaded(&program, file));
            contest.add(format!("DuckDB's own reading of it, {ending}"), || {
                let place = Place::new();
                place.create().close().unwrap();
                let mut command = Command::new(std::env::current_exe().unwrap());
                command.arg("duckdb-statement").arg(place.file()).arg(&sql);
                self.timed(command, &place)
            });
            contest.hold(self.rounds).print(1);
            println!();
        }
    }

    fn loaded(&self, program: &Path, file: &Path) -> Run {
        let place = Place::new();
        place.create().close().unwrap();
        let mut command = Command::new(program);
        command.arg("load").arg(file).args(["--table", "tasks", "--quiet", "--to", &place.url()]);
        self.timed(command, &place)
    }

    /// A program from its start to its end.
    fn timed(&self, mut command: Command, place: &Place) -> Run {
        let started = Instant::now();
        let status = command.stdout(Stdio::null()).status().unwrap();
        let time = started.elapsed();
        assert!(status.success(), "{command:?}: {status}");
        assert_eq!(place.count(), self.rows);
        Run { rows: self.rows, time }
    }
}

/// Runs a statement and leaves the file as a program would that ends in order.
pub(crate) fn run_statement(file: &Path, sql: &str) {
    let connection = Connection::open(file).unwrap();
    connection.execute_batch(sql).unwrap();
    connection.close().unwrap();
}
