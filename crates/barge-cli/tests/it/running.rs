//! A load while it runs: progress, signals, pipes, other processes.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use crate::{Place, Run};

const TABLE: &str = "PRAGMA journal_mode = WAL; CREATE TABLE t(id INTEGER PRIMARY KEY, name TEXT);";

fn lines(ids: std::ops::Range<u32>) -> String {
    ids.map(|id| format!("{id},name {id}\n")).collect()
}

pub(crate) fn send(child: &Child, name: &str) {
    let status = Command::new("sh").args(["-c", &format!("kill -{name} {}", child.id())]).status().unwrap();
    assert!(status.success());
}

/// Waits until something is so. Long, because a machine may be busy; a test that gets there is not slow.
#[track_caller]
pub(crate) fn wait_until(mut so: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(120);
    while !so() {
        assert!(Instant::now() < deadline, "it never came to be");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_signal_drains_and_the_summary_is_what_the_table_holds() {
    for name in ["INT", "TERM"] {
        let place = Place::with(TABLE);
        let arguments =
            ["load", "-", "--to", "sqlite:test.db", "--table", "t", "--batch-rows", "100", "--json"];
        let mut child = place.start(&arguments);
        let mut input = child.stdin.take().unwrap();
        input.write_all(format!("id,name\n{}", lines(0..5_000)).as_bytes()).unwrap();
        // The pipe stays open: the program waits for more.
        wait_until(|| place.count("t") > 1_000);
        send(&child, name);
        let run = Run::of(child.wait_with_output().unwrap()).ends(130);
        drop(input);
        let [read, written, rejected] = run.counts();
        assert_eq!((read, rejected), (written, 0));
        assert_eq!(place.count("t") as u64, written);
        assert_eq!(run.json()["interrupted"], true);
        assert_eq!(run.json()["stopped_at"]["line"].as_u64().unwrap(), written + 1);
        assert!(run.err.starts_with("barge: stopping"), "{run:?}");
    }
}

#[test]
fn a_signal_in_the_middle_of_a_file_loses_nothing() {
    let place = Place::with(TABLE);
    place.write("a.csv", format!("id,name\n{}", lines(0..300_000)));
    let child = place.start(&[
        "load",
        "a.csv",
        "--to",
        "sqlite:test.db",
        "--table",
        "t",
        "--batch-rows",
        "50",
        "--json",
    ]);
    wait_until(|| place.count("t") > 0);
    send(&child, "INT");
    let run = Run::of(child.wait_with_output().unwrap()).ends(130);
    assert_eq!(run.counts()[0], run.counts()[1]);
    assert_eq!(place.count("t") as u64, run.counts()[1]);
    assert_eq!(run.counts()[1].max(1) - 1, place.rows("SELECT max(id) FROM t")[0].parse::<u64>().unwrap());
}

#[test]
fn an_interrupted_replacement_leaves_the_table_as_it_was() {
    let place = Place::with(&format!("{TABLE} INSERT INTO t VALUES (1, 'old');"));
    let arguments = [
        "load",
        "-",
        "--to",
        "sqlite:test.db",
        "--table",
        "t",
        "--batch-rows",
        "10",
        "--json",
        "--mode",
        "replace",
    ];
    let mut child = place.start(&arguments);
    let mut input = child.stdin.take().unwrap();
    input.write_all(format!("id,name\n{}", lines(0..10_000)).as_bytes()).unwrap();
    wait_until(|| place.rows("SELECT name FROM sqlite_master").len() > 1);
    send(&child, "INT");
    let run = Run::of(child.wait_with_output().unwrap()).ends(130);
    drop(input);
    assert_eq!(run.counts()[1], 0);
    assert_eq!(place.rows("SELECT * FROM t"), ["1|old"]);
    assert_eq!(place.rows("SELECT name FROM sqlite_master"), ["t"]);
}

#[test]
fn a_second_signal_ends_at_once() {
    let place = Place::with(TABLE);
    place.write("a.csv", format!("id,name\n{}", lines(0..1_000)));
    let connection = place.sql();
    connection.execute_batch("BEGIN IMMEDIATE").unwrap();
    let mut child = place.start(&[
        "load",
        "a.csv",
        "--to",
        "sqlite:test.db?busy_timeout=20s",
        "--table",
        "t",
        "--progress",
        "plain",
        "--progress-seconds",
        "0.05",
    ]);
    let mut messages = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
    // The first line of progress comes once signals are waited for.
    messages.next().unwrap();
    send(&child, "INT");
    messages.find(|line| line.contains("stopping")).unwrap();
    send(&child, "INT");
    assert_eq!(child.wait().unwrap().code(), Some(130));
    connection.execute_batch("ROLLBACK").unwrap();
    assert_eq!(place.count("t"), 0);
}

#[test]
fn two_loads_at_once_lose_no_row() {
    let place = Place::with(TABLE);
    place.write("a.csv", format!("id,name\n{}", lines(0..20_000)));
    place.write("b.csv", format!("id,name\n{}", lines(20_000..40_000)));
    let start = |file| {
        let arguments =
            ["load", file, "--to", "sqlite:test.db", "--table", "t", "--batch-rows", "200", "--json"];
        place.start(&arguments)
    };
    let children = [start("a.csv"), start("b.csv")];
    for child in children {
        let run = Run::of(child.wait_with_output().unwrap()).ends(0);
        assert_eq!(run.counts(), [20_000, 20_000, 0]);
    }
    assert_eq!(place.count("t"), 40_000);
}

#[test]
fn progress_comes_as_lines_where_there_is_no_terminal() {
    let place = Place::with(TABLE);
    let arguments = ["load", "-", "--to", "sqlite:test.db", "--table", "t", "--progress-seconds", "0.05"];
    let mut child = place.start(&arguments);
    let mut input = child.stdin.take().unwrap();
    input.write_all(format!("id,name\n{}", lines(0..100)).as_bytes()).unwrap();
    let mut messages = BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap);
    let line = messages.next().unwrap();
    assert!(line.starts_with("barge: ") && line.contains(" rows/s"), "{line}");
    drop(input);
    assert!(child.wait_with_output().unwrap().status.success());

    let mut child = place.start(&[&arguments[..], &["--quiet", "--mode", "upsert"]].concat());
    let mut input = child.stdin.take().unwrap();
    input.write_all(b"id,name\n1,x\n").unwrap();
    std::thread::sleep(Duration::from_millis(200));
    drop(input);
    let run = Run::of(child.wait_with_output().unwrap()).ends(0);
    assert_eq!((run.out.as_str(), run.err.as_str()), ("", ""));
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let place = Place::with(TABLE);
    let mut child = place.start(&["load", "-", "--to", "sqlite:test.db", "--table", "t"]);
    drop(child.stdout.take());
    child.stdin.take().unwrap().write_all(b"id,name\n1,x\n").unwrap();
    let run = Run::of(child.wait_with_output().unwrap()).ends(0);
    assert_eq!(run.err, "");
    assert_eq!(place.count("t"), 1);
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let output = place.command(&["tables", "sqlite:test.db"]).stdout(full).output().unwrap();
    let run = Run::of(output).ends(1);
    assert!(run.message().contains("standard output can't be written"), "{run:?}");
}
