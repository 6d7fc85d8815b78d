//! `barge load` of a CSV file against `psql \copy` of the same file: whole programs, from their start to their end.

use std::process::{Command, Stdio};
use std::time::Instant;

use super::Bench;
use crate::load::{program, write_csv};
use crate::measure::{Contest, Run};
use crate::peers::{has_psql, psql};

pub(super) fn run(bench: &Bench) {
    let rows = bench.many;
    println!("\n### `barge load` of a CSV file of {rows} rows\n");
    let Some(program) = program() else {
        println!("Skipped: build the program first, with `cargo build --release`.");
        return;
    };
    if !has_psql() {
        println!("Skipped: psql is not installed.");
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let csv = write_csv(directory.path(), rows);
    let server = &bench.server;
    let timed = |mut command: Command| {
        server.new_table();
        let started = Instant::now();
        let status = command.stdout(Stdio::null()).status().unwrap();
        let time = started.elapsed();
        assert!(status.success(), "{command:?}: {status}");
        assert_eq!(server.count(), rows);
        Run { rows, time }
    };
    let from_csv = format!("\\copy tasks FROM '{}' CSV HEADER", csv.display());
    let mut contest = Contest::new();
    contest.add("`barge load`", || {
        let mut command = Command::new(&program);
        command.arg("load").arg(&csv).args(["--table", "tasks", "--quiet", "--to", server.url()]);
        timed(command)
    });
    contest.add("`psql \\copy`, CSV file", || timed(psql(server.url(), &[&from_csv])));
    contest.hold(bench.rounds).print(1);
}
