//! `barge load` of a CSV of a million rows against `sqlite3 .import` of the same file into the same keyed table.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rusqlite::Connection;

use crate::measure::{Comparison, compare, rate};
use crate::rows::{CREATE, tasks};

const ROWS: usize = 1_000_000;

pub(crate) fn run(rounds: usize) {
    println!("\n### `barge load` against `sqlite3 .import`\n");
    let Some(program) = program() else {
        println!("Skipped: build the program first, with `cargo build --release`.");
        return;
    };
    if Command::new("sqlite3").arg("--version").stdout(Stdio::null()).status().is_err() {
        println!("Skipped: the sqlite3 program is not installed.");
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let csv = write_csv(directory.path(), ROWS);
    println!("A CSV of {ROWS} rows into an empty table with an integer key, in a file.\n");
    println!("| sqlite3's journal | barge load | .import | ratio |\n|---|---|---|---|");
    for journal in ["delete", "wal"] {
        let barge = || {
            timed_load(directory.path(), "wal", |database| {
                let mut command = Command::new(&program);
                command.arg("load").arg(&csv).args(["--table", "tasks", "--key", "id", "--quiet"]);
                command.arg("--to").arg(format!("sqlite:{}", database.display()));
                command
            })
        };
        let peer = || {
            timed_load(directory.path(), journal, |database| {
                let mut command = Command::new("sqlite3");
                command.arg(database).arg(format!(".import --csv --skip 1 {} tasks", csv.display()));
                command
            })
        };
        let Comparison { barge, peer, ratio } = compare(rounds, barge, peer);
        println!("| {journal} | {} | {} | **{ratio:.2}** |", rate(ROWS, barge), rate(ROWS, peer));
    }
    println!("\nPeak memory of `barge load`: {}.", peak_memory(directory.path(), &program, &csv));
}

/// The release build of the program, beside this benchmark's own.
pub(crate) fn program() -> Option<PathBuf> {
    let own = std::env::current_exe().ok()?;
    let program = own.parent()?.join("barge");
    program.exists().then_some(program)
}

pub(crate) fn write_csv(directory: &Path, rows: usize) -> PathBuf {
    let path = directory.join("tasks.csv");
    let mut file = BufWriter::new(File::create(&path).unwrap());
    writeln!(file, "id,task_type,status,data,account,amount").unwrap();
    for task in tasks(rows, false) {
        let data = task.data.replace('"', "\"\"");
        let (id, kind, status) = (task.id, task.task_type, task.status);
        writeln!(file, "{id},{kind},{status},\"{data}\",{},{:.2}", task.account, task.amount).unwrap();
    }
    file.flush().unwrap();
    path
}

fn new_database(directory: &Path, journal: &str) -> PathBuf {
    let database = directory.join("load.db");
    for suffix in ["", "-wal", "-shm", "-journal"] {
        // Not there the first time.
        let _ = std::fs::remove_file(directory.join(format!("load.db{suffix}")));
    }
    let connection = Connection::open(&database).unwrap();
    connection.pragma_update(None, "journal_mode", journal).unwrap();
    connection.execute_batch(CREATE).unwrap();
    database
}

fn timed_load(directory: &Path, journal: &str, command: impl FnOnce(&Path) -> Command) -> Duration {
    let database = new_database(directory, journal);
    let mut command = command(&database);
    let started = Instant::now();
    let status = command.stdout(Stdio::null()).status().unwrap();
    let took = started.elapsed();
    assert!(status.success());
    let connection = Connection::open(&database).unwrap();
    let rows: i64 = connection.query_row("SELECT count(*) FROM tasks", [], |row| row.get(0)).unwrap();
    assert_eq!(rows, ROWS as i64);
    took
}

/// The largest resident set, as the kernel keeps it for finished children.
fn peak_memory(directory: &Path, program: &Path, csv: &Path) -> String {
    let database = new_database(directory, "wal");
    let mut child = Command::new(program)
        .arg("load")
        .arg(csv)
        .args(["--table", "tasks", "--key", "id", "--quiet"])
        .arg("--to")
        .arg(format!("sqlite:{}", database.display()))
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let mut peak = 0;
    while child.try_wait().unwrap().is_none() {
        let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
        let high = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kilobytes =
            high.and_then(|line| line.trim().split(' ').next()).and_then(|size| size.parse().ok());
        peak = peak.max(kilobytes.unwrap_or(0_u64));
        std::thread::sleep(Duration::from_millis(5));
    }
    if peak == 0 { "unknown here".to_owned() } else { format!("{} MB", peak / 1_000) }
}
