//! URLs that are wrong, servers that are not there, and what is shown of a database.

use std::net::TcpListener;
use std::time::Instant;

use barge_testkit::servers;
use serde_json::json;

use super::Server;
use crate::Place;

#[test]
fn a_wrong_url_is_a_wrong_command_line_and_its_password_stays_out_of_sight() {
    let place = Place::new();
    place.write("a.csv", "id\n1\n");
    for (url, expected) in [
        ("postgres:me:secret@host/db", "it begins with postgres:// or postgresql://"),
        ("postgres://me:secret@host:port/db", "port"),
        ("postgres://me:sec/secret@host/db", "there is an @ after the host"),
        ("postgres://host/db?pasword=secret", "there is no parameter pasword"),
        ("postgres://host/db?password=secret&sslmode=maybe", "sslmode"),
        ("postgres://host/db?colour=red", "there is no parameter colour"),
    ] {
        for arguments in
            [&["load", "a.csv", "--to", url, "--table", "t"][..], &["tables", url], &["describe", url, "t"]]
        {
            let run = place.barge(arguments).ends(2);
            assert!(run.err.contains(expected) && !run.err.contains("secret"), "{arguments:?}: {run:?}");
            assert_eq!(run.out, "");
        }
    }
    for connections in ["0", "65", "many"] {
        let arguments =
            ["load", "a.csv", "--to", "postgres://", "--table", "t", "--connections", connections];
        assert!(place.barge(&arguments).ends(2).err.contains("from 1 to 64"));
    }
    for mode in ["upsert", "update", "replace"] {
        let arguments =
            ["load", "a.csv", "--to", "postgres://", "--table", "t", "--connections", "2", "--mode", mode];
        let run = place.barge(&arguments).ends(2);
        assert!(run.err.contains(&format!("rows of --mode {mode} go in order")), "{run:?}");
    }
}

#[test]
fn a_server_that_is_not_there_or_lets_nobody_in_is_told() {
    let server = Server::new();
    server.place.write("a.csv", "id\n1\n");
    let unused = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let port = servers::postgres().port().unwrap();
    for (url, expected) in [
        (format!("postgres://me:sesame@127.0.0.1:{unused}/db"), "refused"),
        (
            format!("postgres://with_password:sesame@127.0.0.1:{port}/postgres"),
            "password authentication failed",
        ),
        (
            format!("postgres://with_password@127.0.0.1:{port}/postgres?password=sesame"),
            "password authentication failed",
        ),
        (format!("postgres://postgres@127.0.0.1:{port}/nowhere"), "database \"nowhere\" does not exist"),
    ] {
        for arguments in [&["load", "a.csv", "--to", &url, "--table", "t"][..], &["tables", &url]] {
            let run = server.barge(arguments).ends(1);
            assert!(
                run.message().contains(expected) && !run.err.contains("sesame"),
                "{arguments:?}: {run:?}"
            );
            assert_eq!((run.message().lines().count(), run.out.as_str()), (1, ""));
        }
    }
}

#[test]
fn a_server_that_says_nothing_is_not_waited_for_long() {
    let place = Place::new();
    place.write("a.csv", "id\n1\n");
    // It takes connections in, and never answers.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("postgres://me@{}/db?sslmode=disable", silent.local_addr().unwrap());
    let mut child = place.start(&["load", "a.csv", "--to", &url, "--table", "t"]);
    drop(silent.accept().map(std::mem::forget));
    let asked = Instant::now();
    crate::running::send(&child, "INT");
    // Nothing was read, so nothing has to be written: the signal ends it.
    assert!(!child.wait().unwrap().success());
    assert!(asked.elapsed().as_secs() < 30, "{:?}", asked.elapsed());
}

#[test]
fn no_summary_shows_a_password() {
    let server = Server::with("CREATE TABLE t(id integer)");
    server.place.write("a.csv", "id\n1\nx\n");
    let Some((scheme, rest)) =
        server.url().split_once("://").map(|(scheme, rest)| (scheme.to_owned(), rest.to_owned()))
    else {
        panic!("no URL")
    };
    let login = rest.replacen("postgres@", "postgres:sesame@", 1);
    for url in [format!("{scheme}://{login}"), format!("{scheme}://{rest}?password=sesame")] {
        for more in [&[][..], &["--json"], &["--max-rejects", "0"], &["--progress-seconds", "0.01"]] {
            let run = server.barge(&server.arguments(&url, "a.csv", more));
            assert!(run.out.contains("***") && !run.out.contains("sesame"), "{run:?}");
            assert!(!run.err.contains("sesame"), "{run:?}");
        }
    }
}

#[test]
fn tables_are_listed_and_described() {
    let server = Server::with(
        "CREATE TYPE mood AS ENUM ('sad', 'glad');
         CREATE DOMAIN percent AS integer CHECK (VALUE BETWEEN 0 AND 100);
         CREATE SCHEMA app;
         CREATE TABLE author(id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name varchar(20) NOT NULL UNIQUE);
         CREATE TABLE app.book(
             author bigint NOT NULL REFERENCES author ON DELETE CASCADE, number smallint, title text DEFAULT 'none',
             price numeric(10,2), tags text[], feeling mood, done percent, at timestamptz(3), extra jsonb,
             shout text GENERATED ALWAYS AS (upper(title)) STORED, PRIMARY KEY (author, number));
         CREATE TABLE \"app.book\"(x integer);
         CREATE VIEW titles AS SELECT title FROM app.book;",
    );
    let url = server.url();
    let listed = server.barge(&["tables", &url]).ends(0).out;
    let listed: Vec<Vec<&str>> = listed.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(
        listed,
        [
            vec!["app.book", "table", "1", "column"],
            vec!["author", "table", "2", "columns", "key", "(id)"],
            vec!["titles", "view", "1", "column"],
            vec!["app.book", "table", "10", "columns", "key", "(author,", "number)"],
        ]
    );
    let listed = server.barge(&["tables", &url, "--json"]).ends(0).json();
    assert_eq!(
        listed[3],
        json!({"schema": "app", "name": "book", "kind": "table", "columns": 10, "key": ["author", "number"]})
    );

    // A name as it is comes first; then the dot parts schema and table.
    let whole = server.barge(&["describe", &url, "app.book"]).ends(0).out;
    assert!(whole.contains("  x       integer  yes"), "{whole}");
    let in_schema = server.barge(&["describe", &url, "--schema", "app", "book"]).ends(0).out;
    server.run("DROP TABLE \"app.book\"");
    let parted = server.barge(&["describe", &url, "app.book"]).ends(0).out;
    assert_eq!(in_schema, parted);
    let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    let lines: Vec<String> = parted.lines().map(words).collect();
    for line in [
        "table app.book",
        "author bigint no key, 1 of 2",
        "number smallint no key, 2 of 2",
        "title text yes 'none'::text",
        "price numeric(10,2) yes",
        "tags text[] yes",
        "feeling mood yes",
        "done percent yes",
        "at timestamp(3) with time zone yes",
        "extra jsonb yes",
        "shout text yes computed",
        "(author) → author (id) on delete cascade",
    ] {
        assert!(lines.iter().any(|found| found == line), "{line}: {parted}");
    }
    let author = server.barge(&["describe", &url, "author"]).ends(0).out;
    assert!(author.contains("key; drawn by the database where it is not given"), "{author}");
    assert!(author.contains("\nreferenced by\n  app.book  →  (id)  on delete cascade\n"), "{author}");
    let described = server.barge(&["describe", &url, "app.book", "--json"]).ends(0).json();
    assert_eq!(described["columns"][3]["arrow_type"], "Decimal128(10, 2)");

    let run = server.barge(&["describe", &url, "app.bok"]).ends(1);
    assert!(run.message().ends_with("did you mean app.book?"), "{run:?}");
    let run = server.barge(&["describe", &url, "nowhere.book"]).ends(1);
    assert!(run.message().starts_with("table nowhere.book: "), "{run:?}");
}
