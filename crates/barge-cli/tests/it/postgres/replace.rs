//! All rows of a table for new ones.

use std::io::Write;

use serde_json::json;

use super::Server;
use crate::Run;
use crate::running::{send, wait_until};

const KEYED: &str = "CREATE TABLE t(id bigint PRIMARY KEY, name text UNIQUE, n integer CHECK (n > 0));
                     INSERT INTO t VALUES (1, 'one', 10), (2, 'two', 20);";

#[test]
fn the_table_stays_and_its_rows_change() {
    let server = Server::with(&format!(
        "{KEYED}
         CREATE INDEX by_n ON t(n);
         CREATE VIEW names AS SELECT name FROM t;
         CREATE ROLE reader_of_{0}; GRANT SELECT ON t TO reader_of_{0};
         CREATE TABLE child(t bigint REFERENCES t(id)); INSERT INTO child VALUES (2);",
        "replace"
    ));
    let before = server.rows("SELECT 't'::regclass::oid, relacl FROM pg_class WHERE relname = 't'");
    server.place.write("a.csv", "id,name\n2,zwei\n3,drei\n3,again\n4,zwei\n");
    let run = server.load("a.csv", &["--mode", "replace", "--json"]).ends(3);
    assert_eq!(run.counts(), [4, 2, 2]);
    let rejected = run.rejected();
    assert!(rejected[0].starts_with("4: ") && rejected[1].starts_with("5: "), "{rejected:?}");
    // Names of the table beside mean nothing to anybody.
    assert!(
        rejected.iter().all(|told| told.contains("\"t_") && !told.contains("barge_replace")),
        "{rejected:?}"
    );
    assert_eq!(server.rows("SELECT * FROM t ORDER BY id"), ["2|zwei|∅", "3|drei|∅"]);
    assert_eq!(server.rows("SELECT * FROM names ORDER BY 1"), ["drei", "zwei"]);
    assert_eq!(server.rows("SELECT 't'::regclass::oid, relacl FROM pg_class WHERE relname = 't'"), before);
    assert_eq!(server.rows("SELECT count(*) FROM pg_index WHERE indrelid = 't'::regclass"), ["3"]);
    assert_eq!(server.tables(), ["child", "t"]);
    server.run("DROP OWNED BY reader_of_replace; DROP ROLE reader_of_replace");
}

#[test]
fn a_replacement_that_fails_leaves_the_table_as_it_was() {
    let server = Server::with(KEYED);
    server.place.write("a.csv", "id,name,n\n5,five,5\n5,again,6\n");
    let run = server.load("a.csv", &["--mode", "replace", "--max-rejects", "0", "--json"]).ends(1);
    assert_eq!((run.counts(), &run.json()["rows_not_written"]), ([2, 0, 1], &json!(1)));

    // A row that others refer to would go.
    server.run("CREATE TABLE child(t bigint REFERENCES t(id)); INSERT INTO child VALUES (1);");
    server.place.write("b.csv", "id,name,n\n5,five,5\n");
    let run = server.load("b.csv", &["--mode", "replace"]).ends(1);
    assert!(run.message().contains("the table is as it was"), "{run:?}");
    assert!(run.has_line("not written 1 the load ended first"), "{run:?}");
    assert_eq!(server.rows("SELECT * FROM t ORDER BY id"), ["1|one|10", "2|two|20"]);
    assert_eq!(server.tables(), ["child", "t"]);

    // And where rows of others would go with it, nothing is begun.
    server.run("DROP TABLE child; CREATE TABLE child(t bigint REFERENCES t(id) ON DELETE CASCADE)");
    let run = server.load("b.csv", &["--mode", "replace"]).ends(1);
    assert!(run.message().contains("would delete or change those of child"), "{run:?}");
}

#[test]
fn a_missing_table_is_made_with_names_of_its_own() {
    let server = Server::with("CREATE SCHEMA app");
    server.place.write("a.csv", "id,name\n1,uno\n");
    let long = "é".repeat(31);
    for table in ["t", "app.t", &long] {
        let arguments = [
            "load",
            "a.csv",
            "--to",
            &server.url(),
            "--table",
            table,
            "--mode",
            "replace",
            "--key",
            "id",
            "--json",
        ];
        assert_eq!(server.barge(&arguments).ends(0).json()["created"], true);
        assert_eq!(server.rows(&format!("SELECT * FROM {table}")), ["1|uno"]);
        assert_eq!(server.barge(&arguments).ends(0).json()["created"], false);
    }
    let keys = server.rows("SELECT conrelid::regclass, conname FROM pg_constraint WHERE contype = 'p' AND conrelid::regclass::text IN ('t', 'app.t') ORDER BY 1");
    assert_eq!(keys, ["t|t_pkey", "app.t|t_pkey"]);
    assert_eq!(server.tables().len(), 3);
}

#[test]
fn identities_computed_columns_and_own_types_are_kept() {
    let server = Server::with(
        "CREATE TYPE mood AS ENUM ('sad', 'glad');
         CREATE TABLE parent(id integer PRIMARY KEY); INSERT INTO parent VALUES (7);
         CREATE TABLE t(id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, code char(3) COLLATE \"C\", m mood DEFAULT 'glad',
            loud text GENERATED ALWAYS AS (upper(code)) STORED, before bigint REFERENCES t, parent integer REFERENCES parent,
            made integer DEFAULT 5, EXCLUDE USING btree (code WITH =));
         INSERT INTO t(code) VALUES ('old');",
    );
    // A row may refer to one that comes after it: all are there in the end. A parent of another table must be there.
    server.place.write("a.csv", "id,code,before,parent\n10,a,11,7\n11,b,,\n12,c,,8\n");
    let run = server.load("a.csv", &["--mode", "replace", "--json"]).ends(3);
    assert_eq!(run.counts(), [3, 2, 1]);
    assert_eq!(run.json()["rejected"][0]["kind"], "ForeignKeyViolation");
    assert_eq!(server.rows("SELECT * FROM t ORDER BY id"), ["10|a  |glad|A|11|7|5", "11|b  |glad|B|∅|∅|5"]);
    // Keys that the file leaves out are drawn.
    server.place.write("b.csv", "code,m\nx,sad\ny,\n");
    server.load("b.csv", &["--mode", "replace"]).ends(0);
    assert_eq!(server.rows("SELECT code, m FROM t ORDER BY code"), ["x  |sad", "y  |∅"]);
    // What only the table itself refuses is told at the end, and changes nothing.
    server.place.write("c.csv", "code\nx\nx\n");
    let run = server.load("c.csv", &["--mode", "replace"]).ends(1);
    assert!(
        run.message().contains("the table is as it was") && run.message().contains("t_code_excl"),
        "{run:?}"
    );
    assert_eq!(server.count("t"), 2);
    assert_eq!(server.tables(), ["parent", "t"]);
}

#[test]
fn partitions_take_the_rows_that_are_theirs() {
    let server = Server::with(
        "CREATE TABLE t(id bigint, n integer, PRIMARY KEY (id)) PARTITION BY RANGE (id);
         CREATE TABLE t_low PARTITION OF t FOR VALUES FROM (0) TO (10);
         CREATE TABLE t_high PARTITION OF t FOR VALUES FROM (10) TO (20);
         INSERT INTO t VALUES (1, 1), (11, 1);",
    );
    server.place.write("a.csv", "id,n\n2,2\n12,2\n");
    server.load("a.csv", &["--mode", "replace"]).ends(0);
    assert_eq!(server.rows("SELECT * FROM t_low UNION ALL SELECT * FROM t_high"), ["2|2", "12|2"]);
    server.place.write("b.csv", "id,n\n2,2\n20,2\n");
    let run = server.load("b.csv", &["--mode", "replace"]).ends(1);
    assert!(run.message().contains("no partition"), "{run:?}");
    assert_eq!(server.count("t"), 2);
}

#[test]
fn who_reads_sees_the_old_rows_or_the_new() {
    let server = Server::with(
        "CREATE TABLE t(id bigint PRIMARY KEY, name text); INSERT INTO t SELECT i, 'old' FROM generate_series(1, 5000) i",
    );
    let content: String = (1..=20_000).map(|id| format!("{id},new\n")).collect();
    server.place.write("a.csv", format!("id,name\n{content}"));
    let mut child = server.place.start(&server.arguments(
        &server.url(),
        "a.csv",
        &["--mode", "replace", "--batch-rows", "1000"],
    ));
    let mut seen = Vec::new();
    while child.try_wait().unwrap().is_none() {
        seen.extend(server.rows("SELECT string_agg(DISTINCT name, '+') || count(*) FROM t"));
    }
    Run::of(child.wait_with_output().unwrap()).ends(0);
    seen.extend(server.rows("SELECT string_agg(DISTINCT name, '+') || count(*) FROM t"));
    seen.dedup();
    assert_eq!(seen, ["old5000", "new20000"]);
}

#[test]
fn an_interrupted_replacement_leaves_nothing_behind() {
    let server = Server::with(KEYED);
    let url = server.url();
    let mut child = server.place.start(&server.arguments(
        &url,
        "-",
        &["--mode", "replace", "--batch-rows", "10", "--json"],
    ));
    let mut input = child.stdin.take().unwrap();
    let lines: String = (0..5_000).map(|id| format!("{id},name {id}\n")).collect();
    input.write_all(format!("id,name\n{lines}").as_bytes()).unwrap();
    wait_until(|| server.tables().len() > 1);
    send(&child, "INT");
    let run = Run::of(child.wait_with_output().unwrap()).ends(130);
    drop(input);
    assert_eq!(run.counts()[1], 0);
    assert_eq!(server.count("t"), 2);
    assert_eq!(server.tables(), ["t"]);
}

/// What triggers keep out, or keep in, is not said to be written; and rows of other tables don't go with those of the one they inherit from.
#[test]
fn a_replacement_that_would_not_be_what_was_loaded_is_refused() {
    let server = Server::with(KEYED);
    server.place.write("a.csv", "id,name,n\n1,a,1\n2,skip,2\n3,c,3\n");
    server.run(
        "CREATE FUNCTION skips() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
           IF new.name = 'skip' THEN RETURN NULL; END IF; RETURN new; END $$;
         CREATE TRIGGER skips BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION skips();",
    );
    let run = server.load("a.csv", &["--mode", "replace", "--json"]).ends(1);
    assert!(run.message().contains("would hold 2 rows where 3 were loaded"), "{run:?}");
    assert_eq!(run.counts(), [3, 0, 0]);
    server.run(
        "DROP TRIGGER skips ON t;
         CREATE FUNCTION stays() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
           IF old.id = 2 THEN RETURN NULL; END IF; RETURN old; END $$;
         CREATE TRIGGER stays BEFORE DELETE ON t FOR EACH ROW EXECUTE FUNCTION stays();",
    );
    server.place.write("b.csv", "id,name,n\n5,five,5\n");
    server.load("b.csv", &["--mode", "replace"]).ends(1);
    assert_eq!(server.rows("SELECT * FROM t ORDER BY id"), ["1|one|10", "2|two|20"]);
    server.run("DROP TRIGGER stays ON t; CREATE TABLE heir(more text) INHERITS (t); INSERT INTO heir VALUES (9, 'nine', 9, 'x')");
    let run = server.load("b.csv", &["--mode", "replace"]).ends(1);
    assert!(run.message().contains("other tables inherit from it"), "{run:?}");
    assert_eq!(server.rows("SELECT count(*) FROM t"), ["3"]);
    assert_eq!(server.tables(), ["heir", "t"]);
}
