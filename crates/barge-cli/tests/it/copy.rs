//! `barge copy` from one SQLite file to another, and within one.

use crate::export::{ALL_TYPES, many, peak_memory};
use crate::running::{send, wait_until};
use crate::{Place, Run, rows_of};

fn copy(place: &Place, arguments: &[&str]) -> Run {
    place.barge(&[&["copy", "sqlite:test.db"], arguments].concat())
}

impl Place {
    /// The rows of a query over the other database.
    fn other(&self, sql: &str) -> Vec<String> {
        rows_of(&rusqlite::Connection::open(self.path("other.db")).unwrap(), sql)
    }
}

const TABLE: &str = "CREATE TABLE t(id INTEGER PRIMARY KEY, name TEXT NOT NULL);
    INSERT INTO t VALUES (1, 'a'), (2, 'b'), (3, 'c');";

#[test]
fn a_table_is_made_with_its_types_and_key() {
    let place = Place::with(ALL_TYPES);
    let run = copy(&place, &["t", "--to", "sqlite:other.db"]).ends(0);
    let headline =
        "Copied table t of sqlite:test.db into table t of sqlite:other.db, created with 14 columns\n";
    assert!(run.out.starts_with(headline), "{run:?}");
    assert!(
        run.has_line("rows read 4") && run.has_line("written 4") && run.has_line("rejected 0"),
        "{run:?}"
    );
    let types = "SELECT name, type, pk FROM pragma_table_info('t')";
    assert_eq!(place.rows(types), place.other(types));
    let rows = "SELECT * FROM t ORDER BY id";
    assert_eq!(place.rows(rows), place.other(rows));
}

#[test]
fn every_mode() {
    let place = Place::with(&format!("{TABLE} CREATE TABLE u(id INTEGER PRIMARY KEY, name TEXT);"));
    let to = |mode: &str, status: i32| {
        copy(&place, &["t", "--to", "sqlite:test.db", "--table", "u", "--mode", mode, "--json"]).ends(status)
    };
    let summary = to("append", 0).json();
    assert_eq!(
        summary["from"],
        serde_json::json!({"url": "sqlite:test.db", "schema": null, "table": "t", "query": null})
    );
    assert_eq!((&summary["table"], &summary["rows_inserted"]), (&"u".into(), &3.into()));
    assert_eq!(to("append", 3).counts(), [3, 0, 3]);
    place
        .sql()
        .execute_batch(
            "DELETE FROM u WHERE id = 1; UPDATE u SET name = 'old'; INSERT INTO u VALUES (9, 'own')",
        )
        .unwrap();
    let summary = to("update", 0).json();
    assert_eq!((&summary["rows_updated"], &summary["rows_not_found"]), (&2.into(), &1.into()));
    assert_eq!(place.rows("SELECT * FROM u"), ["2|b", "3|c", "9|own"]);
    let summary = to("upsert", 0).json();
    assert_eq!((&summary["rows_updated"], &summary["rows_inserted"]), (&2.into(), &1.into()));
    assert_eq!(place.count("u"), 4);
    assert_eq!(to("replace", 0).counts(), [3, 3, 0]);
    assert_eq!(place.rows("SELECT * FROM u"), place.rows("SELECT * FROM t"));
    let run = copy(&place, &["t", "--to", "sqlite:test.db", "--table", "u", "--mode", "create"]).ends(1);
    assert!(run.message().contains("the table exists already"), "{run:?}");
    copy(&place, &["t", "--to", "sqlite:test.db", "--table", "w", "--mode", "create", "--key", "name"])
        .ends(0);
    assert_eq!(place.rows("SELECT name FROM pragma_table_info('w') WHERE pk = 1"), ["name"]);
}

#[test]
fn a_query_is_copied() {
    let place = Place::with(TABLE);
    let query = ["--query", "SELECT id * 10 AS id, upper(name) AS name FROM t", "--to", "sqlite:other.db"];
    let run = copy(&place, &query).ends(2);
    assert!(run.message().contains("--table must say"), "{run:?}");
    assert!(!place.path("other.db").exists());
    let run = copy(&place, &[&query[..], &["--table", "u", "--key", "id"]].concat()).ends(0);
    assert!(
        run.out.starts_with("Copied the query on sqlite:test.db into table u of sqlite:other.db, created"),
        "{run:?}"
    );
    assert_eq!(place.other("SELECT * FROM u"), ["10|A", "20|B", "30|C"]);
    for (sql, expected) in [
        ("SELECT id, name AS id FROM t", "two columns are named id"),
        ("SELECT nothing FROM t", "nothing"),
        ("DELETE FROM t", "a query may only read"),
    ] {
        let run = copy(&place, &["--query", sql, "--to", "sqlite:other.db", "--table", "v"]).ends(1);
        assert!(run.message().contains(expected), "{run:?}");
    }
    assert_eq!(place.other("SELECT name FROM sqlite_master WHERE type = 'table'"), ["u"]);
}

#[test]
fn rejected_rows_are_told_by_row_and_kept() {
    let place = Place::with(&format!(
        "{TABLE} WITH RECURSIVE n(id) AS (SELECT 4 UNION ALL SELECT id + 1 FROM n WHERE id < 3000)
         INSERT INTO t SELECT id, 'row' FROM n;
         CREATE TABLE u(id INTEGER PRIMARY KEY, name TEXT NOT NULL CHECK (name <> 'b'));
         INSERT INTO u VALUES (2500, 'there');"
    ));
    let arguments =
        ["t", "--to", "sqlite:test.db", "--table", "u", "--dead-letter", "bad.jsonl", "--batch-rows", "1000"];
    let run = copy(&place, &arguments).ends(3);
    assert!(run.out.contains("table t of sqlite:test.db, row 2: "), "{run:?}");
    assert!(run.out.contains("table t of sqlite:test.db, row 2500, column id: "), "{run:?}");
    assert_eq!(place.count("u"), 2_999);
    place.sql().execute_batch("DROP TABLE u; CREATE TABLE u(id INTEGER PRIMARY KEY, name TEXT)").unwrap();
    let run = place.barge(&["load", "bad.jsonl", "--to", "sqlite:test.db", "--json"]).ends(0);
    assert_eq!(run.counts(), [2, 2, 0]);
    assert_eq!(place.rows("SELECT * FROM u"), ["2|b", "2500|row"]);
    place.sql().execute_batch("DELETE FROM u WHERE id = 2").unwrap();
    let run = copy(&place, &["t", "--to", "sqlite:test.db", "--table", "u", "--max-rejects", "0"]).ends(1);
    assert!(run.err.contains("--max-rejects allows 0"), "{run:?}");
}

#[test]
fn a_table_is_not_copied_onto_itself() {
    let place = Place::with(TABLE);
    std::os::unix::fs::symlink("test.db", place.path("link.db")).unwrap();
    for arguments in [
        &["t", "--to", "sqlite:test.db"][..],
        &["t", "--to", "sqlite:./test.db", "--mode", "replace"],
        &["t", "--to", "sqlite:link.db"],
        &["t", "--to", "sqlite:test.db", "--table", "T"],
        &["t", "--to", "sqlite:test.db", "--table", "main.t"],
        &["t", "--to", "sqlite:test.db", "--table", "t", "--schema", "main"],
    ] {
        let run = copy(&place, arguments).ends(2);
        assert!(run.message().contains("would be copied onto itself"), "{run:?}");
    }
    copy(&place, &["t", "--to", "sqlite:other.db"]).ends(0);
    assert_eq!(place.count("t"), 3);
}

#[test]
fn what_cannot_be_is_refused_and_makes_nothing() {
    let place = Place::with(&format!("{TABLE} CREATE TABLE orders(id);"));
    for (arguments, status, expected) in [
        (&["order", "--to", "sqlite:other.db"][..], 1, "did you mean orders?"),
        (&["t", "--to", "other.db"], 2, "sqlite:other.db"),
        (&["t", "--to", "sqlite:none/other.db"], 1, "none/other.db"),
        (&["t", "--to", "sqlite:other.db", "--connections", "2"], 2, "one writer at a time"),
        (&["t", "--query", "SELECT 1", "--to", "sqlite:other.db"], 2, "cannot be used with"),
        (&["--to", "sqlite:other.db"], 2, "TABLE"),
    ] {
        let run = copy(&place, arguments).ends(status);
        assert!(run.err.contains(expected), "{run:?}");
    }
    assert!(!place.path("other.db").exists());
    place.sql().execute_batch("CREATE TABLE u(id INTEGER PRIMARY KEY)").unwrap();
    let run = copy(&place, &["t", "--to", "sqlite:test.db", "--table", "u"]).ends(1);
    assert!(
        run.message().contains("table t of sqlite:test.db has a column name, which the table lacks"),
        "{run:?}"
    );
}

#[test]
fn names_with_quotes_and_computed_columns() {
    let place = Place::with(
        "CREATE TABLE \"o\"\"dd.name\"(\"a \"\"b\" INTEGER PRIMARY KEY, \"twice\" INTEGER AS (\"a \"\"b\" * 2));
         INSERT INTO \"o\"\"dd.name\" VALUES (1), (2);",
    );
    copy(&place, &["o\"dd.name", "--to", "sqlite:other.db"]).ends(0);
    assert_eq!(place.other("SELECT * FROM \"o\"\"dd.name\""), ["1|2", "2|4"]);
    // What the target computes itself is left out.
    place.sql().execute_batch("CREATE TABLE u(\"a \"\"b\" INTEGER, TWICE INTEGER AS (-1))").unwrap();
    copy(&place, &["o\"dd.name", "--to", "sqlite:test.db", "--table", "u"]).ends(0);
    assert_eq!(place.rows("SELECT * FROM u"), ["1|-1", "2|-1"]);
}

#[test]
fn an_empty_table_is_made_too() {
    let place = Place::with("CREATE TABLE t(id INTEGER PRIMARY KEY, day DATE_TEXT)");
    let run = copy(&place, &["t", "--to", "sqlite:other.db", "--json"]).ends(0);
    assert_eq!((run.counts(), &run.json()["created"]), ([0, 0, 0], &true.into()));
    assert_eq!(place.other("SELECT name, type FROM pragma_table_info('t')"), ["id|INTEGER", "day|DATE_TEXT"]);
}

/// The reader holds its snapshot while the same file is written; with a rollback journal it would keep the writer out for ever.
#[test]
fn a_table_is_copied_within_one_file_and_is_of_one_moment() {
    let place = Place::with(
        "CREATE TABLE t(id INTEGER PRIMARY KEY, name TEXT);
         WITH RECURSIVE n(id) AS (SELECT 1 UNION ALL SELECT id + 1 FROM n LIMIT 60000) INSERT INTO t SELECT id, 'x' FROM n;
         CREATE TABLE u(id INTEGER, name TEXT);
         CREATE TRIGGER grow AFTER INSERT ON u BEGIN INSERT INTO t(name) VALUES ('new'); END;",
    );
    let run = copy(&place, &["t", "--to", "sqlite:test.db", "--table", "u", "--json"]).ends(0);
    // Rows that the copy itself brings about are not of the moment.
    assert_eq!(run.counts(), [60_000, 60_000, 0]);
    assert_eq!(place.count("t"), 120_000);
}

#[test]
fn a_value_that_cannot_be_read_ends_the_copy_and_every_row_is_accounted_for() {
    let place = Place::with(
        "CREATE TABLE t(id INTEGER PRIMARY KEY, n INTEGER);
         WITH RECURSIVE n(id) AS (SELECT 1 UNION ALL SELECT id + 1 FROM n LIMIT 20000) INSERT INTO t SELECT id, id FROM n;
         UPDATE t SET n = 'many' WHERE id = 15000;",
    );
    let run = copy(&place, &["t", "--to", "sqlite:other.db", "--json"]).ends(1);
    assert!(run.message().contains("many"), "{run:?}");
    let [read, written, rejected] = run.counts();
    assert_eq!((read, rejected), (written, 0));
    assert_eq!(place.other("SELECT count(*) FROM t"), [written.to_string()]);
    let run = copy(&place, &["t", "--to", "sqlite:other.db", "--mode", "replace", "--json"]).ends(1);
    assert_eq!(run.json()["rows_written"], 0);
    assert_eq!(place.other("SELECT count(*) FROM t"), [written.to_string()]);
}

#[test]
fn a_signal_drains_and_the_summary_is_what_the_table_holds() {
    for name in ["INT", "TERM"] {
        let place = Place::with("CREATE TABLE u(id INTEGER, text TEXT)");
        let query = many(100_000_000);
        let child = place.start(&[
            "copy",
            "sqlite:test.db",
            "--query",
            &query,
            "--to",
            "sqlite:test.db",
            "--table",
            "u",
            "--batch-rows",
            "100",
            "--json",
        ]);
        wait_until(|| place.count("u") > 1_000);
        send(&child, name);
        let run = Run::of(child.wait_with_output().unwrap()).ends(130);
        let [read, written, rejected] = run.counts();
        assert_eq!((read, rejected), (written, 0));
        assert_eq!(place.count("u") as u64, written);
        assert_eq!(run.json()["stopped_at"]["line"].as_u64().unwrap(), written);
    }
}

#[test]
fn many_rows_take_no_more_memory_than_few() {
    let place = Place::with("CREATE TABLE u(id INTEGER, text TEXT)");
    let query = many(1_000_000);
    let child = place.start(&[
        "copy",
        "sqlite:test.db",
        "--query",
        &query,
        "--to",
        "sqlite:test.db?profile=fast",
        "--table",
        "u",
        "--quiet",
    ]);
    let (run, peak) = peak_memory(child);
    run.ends(0);
    assert_eq!(place.count("u"), 1_000_000);
    // The rows are some 250 MB.
    assert!((5..160).contains(&peak), "{peak} MiB");
}
