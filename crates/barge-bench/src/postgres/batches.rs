//! Rows in batches of 1,000, each committed: the typed Writer against the Python peers.

use super::Bench;
use crate::load::write_csv;
use crate::measure::Contest;
use crate::peers::Job;

const BATCH: usize = 1_000;
/// Flushes in flight where their order doesn't matter.
const IN_FLIGHT: [usize; 2] = [2, 4];
/// Rows of the peer that commits each, which is too slow for all of them.
const SINGLE_ROWS: usize = 2_000;

pub(super) fn insert(bench: &Bench) {
    let rows = bench.some;
    println!("\n### Inserts, {rows} rows, {BATCH} a batch\n");
    let server = &bench.server;
    let tasks = bench.rows(rows);
    let directory = tempfile::tempdir().unwrap();
    let csv = write_csv(directory.path(), rows);
    let mut contest = Contest::new();
    contest.add("Writer", || bench.insert(&tasks, |database| database.writer().max_rows(BATCH).start()));
    for flushes in IN_FLIGHT {
        let tasks = &tasks;
        contest.add(format!("Writer, {flushes} flushes in flight"), move || {
            bench.insert(tasks, |database| database.writer().max_rows(BATCH).unordered(flushes).start())
        });
    }
    if let Some(python) = &bench.python {
        let peers = [
            ("asyncpg-copy", "asyncpg, `copy_records_to_table`", rows),
            ("psycopg-copy", "psycopg 3, `COPY`", rows),
            ("sqlalchemy-insert", "SQLAlchemy, `bulk_insert_mappings`", rows),
            ("sqlalchemy-add", "SQLAlchemy, `add` and `commit` each", SINGLE_ROWS.min(rows)),
        ];
        for (peer, name, rows) in peers {
            let csv = &csv;
            contest.add(name, move || {
                server.new_table();
                let run = python.run(&Job { peer, url: server.url(), csv, batch: BATCH, rows });
                assert_eq!(server.count(), rows);
                run
            });
        }
    }
    contest.hold(bench.rounds).print(1 + IN_FLIGHT.len());
}

pub(super) fn update(bench: &Bench) {
    let rows = bench.some;
    println!("\n### Updates by key, {BATCH} a batch, of a table of {rows} rows\n");
    let server = &bench.server;
    let tasks = bench.rows(rows);
    let directory = tempfile::tempdir().unwrap();
    let csv = write_csv(directory.path(), rows);
    bench.insert(&tasks, |database| database.writer().start());
    server.run(&["DROP TABLE IF EXISTS filled", "CREATE TABLE filled AS TABLE tasks"]);
    let new_table = || {
        server.new_table();
        server.run(&["INSERT INTO tasks TABLE filled", "VACUUM (FREEZE, ANALYZE) tasks", "CHECKPOINT"]);
    };
    let update = |url: &str| {
        new_table();
        bench.through_writer(
            url,
            rows,
            |database| database.writer().max_rows(BATCH).start(),
            async |writer| {
                for task in &tasks {
                    drop(writer.update(&task.borrowed()).await.unwrap());
                }
            },
        )
    };
    let kept = server.url_with_kept_statements();
    let mut contest = Contest::new();
    contest.add("Writer", || update(server.url()));
    contest.add("Writer, `statement_cache=100`", || update(&kept));
    if let Some(python) = &bench.python {
        contest.add("SQLAlchemy, `bulk_update_mappings`", || {
            new_table();
            python.run(&Job { peer: "sqlalchemy-update", url: server.url(), csv: &csv, batch: BATCH, rows })
        });
    }
    contest.hold(bench.rounds).print(2);
    server.run(&["DROP TABLE filled"]);
}
