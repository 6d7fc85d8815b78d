//! One connection and one statement for all rows, against `psql \copy` of a prepared binary file.

use std::sync::Arc;

use barge::record::batch_of;
use barge::{Operation, Record};

use super::Bench;
use crate::load::write_csv;
use crate::measure::{Contest, Run};
use crate::peers::{Job, has_psql, psql, timed_in_psql};
use crate::rows::Task;

pub(super) fn run(bench: &Bench) {
    let rows = bench.many;
    println!("\n### One statement for {rows} rows\n");
    if !has_psql() {
        println!("Skipped: psql is not installed.");
        return;
    }
    let server = &bench.server;
    let tasks = bench.rows(rows);
    let batch = batch_of(&tasks).unwrap();
    let table = Arc::new(Task::table().clone());
    let directory = tempfile::tempdir().unwrap();
    let csv = write_csv(directory.path(), rows);
    let binary = directory.path().join("tasks.bin");
    let from_csv = format!("\\copy tasks FROM '{}' CSV HEADER", csv.display());
    let from_binary = format!("\\copy tasks FROM '{}' BINARY", binary.display());
    server.new_table();
    let to_binary = format!("\\copy tasks TO '{}' BINARY", binary.display());
    assert!(psql(server.url(), &[&from_csv, &to_binary]).status().unwrap().success());

    let in_psql = |command: &str| {
        server.new_table();
        let time = timed_in_psql(server.url(), command);
        assert_eq!(server.count(), rows);
        Run { rows, time }
    };
    let mut contest = Contest::new();
    contest.add("Barge, a record batch", || {
        server.new_table();
        bench.through_writer(
            server.url(),
            rows,
            |database| database.writer().max_rows(rows).max_bytes(1 << 30).start(),
            async |writer| drop(writer.add_batch(&table, Operation::Insert, &batch).await.unwrap()),
        )
    });
    contest.add("Barge, `insert_all` of structs", || {
        server.new_table();
        server.block_on(async {
            let database = barge::open(server.url()).await.unwrap();
            let started = std::time::Instant::now();
            database.insert_all(&tasks).await.unwrap();
            let time = started.elapsed();
            database.close().await.unwrap();
            Run { rows, time }
        })
    });
    contest.add("`psql \\copy`, binary file", || in_psql(&from_binary));
    contest.add("`psql \\copy`, CSV file", || in_psql(&from_csv));
    if let Some(python) = &bench.python {
        contest.add("ADBC ingest", || {
            server.new_table();
            python.run(&Job { peer: "adbc-once", url: server.url(), csv: &csv, batch: rows, rows })
        });
    }
    contest.hold(bench.rounds).print(2);
}
