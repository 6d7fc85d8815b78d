//! Signals, and servers that go away in the middle.

use std::io::Write;
use std::time::{Duration, Instant};

use barge_testkit::servers;

use super::{Server, query};
use crate::running::{send, wait_until};
use crate::{Place, Run};

fn lines(ids: std::ops::Range<u32>) -> String {
    ids.map(|id| format!("{id},name {id}\n")).collect()
}

#[test]
fn a_signal_drains_and_the_summary_is_what_the_table_holds() {
    let server = Server::with("CREATE TABLE t(id bigint PRIMARY KEY, name text)");
    let url = server.url();
    for name in ["INT", "TERM"] {
        server.run("TRUNCATE t");
        server.place.write("a.csv", format!("id,name\n{}", lines(0..400_000)));
        let child = server.place.start(&server.arguments(
            &url,
            "a.csv",
            &["--batch-rows", "200", "--json", "--connections", "3"],
        ));
        wait_until(|| server.count("t") > 0);
        send(&child, name);
        let run = Run::of(child.wait_with_output().unwrap()).ends(130);
        let [read, written, rejected] = run.counts();
        assert_eq!((read, rejected), (written, 0), "{run:?}");
        assert!(written < 400_000);
        assert_eq!(server.count("t"), written);
        assert_eq!(run.json()["stopped_at"]["line"].as_u64().unwrap(), written + 1);
        assert_eq!(server.rows("SELECT max(id) + 1 FROM t"), [written.to_string()]);
    }
}

/// A load from a pipe into a server of its own, which has written some rows and waits for more.
fn begun(place: &Place, url: &str, more: &[&str]) -> (std::process::Child, std::process::ChildStdin) {
    query(url, "CREATE TABLE t(id bigint PRIMARY KEY, name text)");
    let arguments = [
        "load",
        "-",
        "--to",
        url,
        "--table",
        "t",
        "--batch-rows",
        "100",
        "--json",
        "--dead-letter",
        "dead.jsonl",
    ];
    let mut child = place.start(&[&arguments[..], more].concat());
    let mut input = child.stdin.take().unwrap();
    input.write_all(format!("id,name\n{}", lines(0..5_000)).as_bytes()).unwrap();
    wait_until(|| query(url, "SELECT count(*) FROM t")[0].parse::<u64>().unwrap() > 1_000);
    (child, input)
}

#[test]
fn a_server_that_dies_and_comes_back_loses_no_row_and_doubles_none() {
    let server = servers::own_postgres();
    let place = Place::new();
    let (child, mut input) = begun(&place, &server.url(), &["--connections", "3"]);
    server.kill();
    // What is read while the server is down has to wait for it.
    let writer = std::thread::spawn(move || input.write_all(lines(5_000..20_000).as_bytes()));
    std::thread::sleep(Duration::from_millis(1_500));
    server.start();
    writer.join().unwrap().unwrap();
    let run = Run::of(child.wait_with_output().unwrap()).ends(0);
    assert_eq!(run.counts(), [20_000, 20_000, 0]);
    assert_eq!(query(&server.url(), "SELECT count(*), max(id) FROM t"), ["20000|19999"]);
    assert!(run.json()["retries"].as_u64().unwrap() > 0);
    assert!(run.err.lines().all(|line| line.starts_with("barge: trying again: waiting for ")), "{run:?}");
    assert_eq!(place.read("dead.jsonl"), "");
}

#[test]
fn a_signal_while_the_server_is_gone_ends_the_load_with_its_account() {
    let server = servers::own_postgres();
    let place = Place::new();
    let (child, mut input) = begun(&place, &server.url(), &["--connections", "2"]);
    server.kill();
    // Nobody reads on once the buffers are full. The pipe stays open until then.
    let writer = std::thread::spawn(move || (input.write_all(lines(5_000..9_000).as_bytes()), input));
    std::thread::sleep(Duration::from_millis(500));
    send(&child, "INT");
    let asked = Instant::now();
    let run = Run::of(child.wait_with_output().unwrap()).ends(1);
    assert!(asked.elapsed() < Duration::from_secs(30), "{:?}", asked.elapsed());
    drop(writer.join().unwrap());
    assert!(run.err.contains("could not be written within 8 s of the signal"), "{run:?}");
    let [read, written, rejected] = run.counts();
    let not_written = run.json()["rows_not_written"].as_u64().unwrap();
    assert_eq!((read, rejected), (written + not_written, 0), "{run:?}");
    assert!(not_written > 0);
    // What is not in the table is in the dead letter file, and what is there is in the account.
    assert_eq!(place.read("dead.jsonl").lines().count() as u64, not_written);
    server.start();
    let there: u64 = query(&server.url(), "SELECT count(*) FROM t")[0].parse().unwrap();
    assert!((written..=read).contains(&there), "{there}: {run:?}");
    // Whose COMMIT was cut off may be there; loading the letters again tells which.
    let run = place.barge(&["load", "dead.jsonl", "--to", &server.url(), "--json"]);
    assert_eq!(run.counts()[0], not_written);
    assert_eq!(run.counts()[2], there - written);
    assert_eq!(query(&server.url(), "SELECT count(*) FROM t"), [read.to_string()]);
}

#[test]
fn a_table_that_goes_in_the_middle_ends_the_load() {
    let server = Server::with("CREATE TABLE t(id bigint PRIMARY KEY, name text)");
    let url = server.url();
    let more = ["--batch-rows", "100", "--json", "--dead-letter", "dead.jsonl"];
    let mut child = server.place.start(&server.arguments(&url, "-", &more));
    let mut input = child.stdin.take().unwrap();
    input.write_all(format!("id,name\n{}", lines(0..10_000)).as_bytes()).unwrap();
    wait_until(|| server.count("t") > 500);
    server.run("DROP TABLE t");
    let _ = input.write_all(lines(10_000..20_000).as_bytes());
    drop(input);
    let run = Run::of(child.wait_with_output().unwrap()).ends(1);
    let [read, written, rejected] = run.counts();
    let not_written = run.json()["rows_not_written"].as_u64().unwrap();
    assert_eq!(read, written + rejected + not_written, "{run:?}");
    assert_eq!(server.place.read("dead.jsonl").lines().count() as u64, rejected + not_written);
    assert!(run.err.contains("\"t\" does not exist") || run.err.contains("table t"), "{run:?}");
}
