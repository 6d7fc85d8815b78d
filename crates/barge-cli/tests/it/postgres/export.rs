//! Tables of PostgreSQL into files and back, and into other databases and back.

use super::Server;
use crate::Run;
use crate::export::peak_memory;
use crate::running::{send, wait_until};

const TYPES: &str = "
    CREATE TYPE mood AS ENUM ('sad', 'so, \"so\"');
    CREATE DOMAIN percent AS integer CHECK (VALUE <= 100);
    CREATE TABLE t(
        id bigint PRIMARY KEY, flag boolean, small smallint, whole integer, single real, float double precision,
        price numeric(38,10), wide numeric, big numeric(20,0), name text, short varchar(5), fixed char(4), data bytea,
        day date, clock time, at timestamp, moment timestamptz, uid uuid, body jsonb, raw json, mood mood, share percent,
        numbers integer[], texts text[], floats real[], uids uuid[], days date[], moods mood[], prices numeric(6,2)[],
        blobs bytea[], address inet, span interval, bits bit(3)
    );";

const ROWS: &str = "
    INSERT INTO t VALUES
    (1, true, -32768, 2147483647, 0.1, 'NaN', 1234567890123456789012345678.0123456789,
     123456789012345678901234567890123456789012345.678, 18446744073709551615, '', 'é列', 'ab', '\\x00ff', '0001-01-01',
     '00:00:00', '0001-01-01 00:00:00', '2024-02-29 23:59:59.999999+00', 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11',
     '{\"b\": [1, null, \"x\"], \"a\": 1.50}', E'{\"a\":\\n 1}', 'so, \"so\"', 100, '{1,NULL,3}',
     '{\"a,b\",\"c\\\"d\",NULL,\"\",\"NULL\"}', '{0.1,NaN,-Infinity}', '{a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11}',
     '{0001-01-01,NULL}', '{sad,\"so, \\\"so\\\"\"}', '{1.50,NULL}', '{\"\\\\x00\",NULL}', '10.0.0.1/8', '1 day 02:03:04', B'101'),
    (2, false, 32767, -2147483648, '-Infinity', 1e300, 0, 'NaN', 0, '007', '', '', '\\x', '9999-12-31', '23:59:59.999999',
     '9999-12-31 23:59:59.999999', '1969-12-31 23:59:59.999999+00', NULL, '\"null\"', '[]', 'sad', 0, '{}', '{}', '{}', '{}',
     '{}', '{}', '{}', '{}', '::1', '-1 mons', B'000');
    INSERT INTO t(id) VALUES (9223372036854775807);
    INSERT INTO t(id, single, float, price, wide, big, name, short, fixed, data, body, raw) VALUES
    (4, -0.5, 0.1, -0.0000000001, 1.50, 7, E'a,b;c\\t|\"d\"\\r\\ne', ' x ', 'x', '\\x22', '12345678901234567890', 'true');";

/// Every row of a table as the server writes it; json without its white space, which formats need not keep.
fn rows(server: &Server, table: &str) -> Vec<String> {
    server.rows(&format!(
        "SELECT replace(raw::text, chr(10), ' '), (to_jsonb(r) - 'raw')::text FROM {table} r ORDER BY id"
    ))
}

#[test]
fn what_is_exported_loads_again_equal_from_every_format() {
    let server = Server::with(&format!(
        "SET timezone TO 'UTC'; {TYPES} {ROWS} CREATE TABLE back (LIKE t INCLUDING ALL);"
    ));
    let url = server.url();
    for name in ["a.csv", "a.csv.zst", "a.jsonl", "a.jsonl.gz", "a.parquet", "a.arrow", "a.arrows"] {
        let run = server.barge(&["export", &url, "t", "--to", name, "--json"]).ends(0);
        assert_eq!(run.json()["rows_written"], 4, "{name}");
        let run = server
            .barge(&["load", name, "--to", &url, "--table", "back", "--mode", "replace", "--json"])
            .ends(0);
        assert_eq!(run.counts(), [4, 4, 0], "{name}");
        assert_eq!(rows(&server, "t"), rows(&server, "back"), "{name}");
    }
}

#[test]
fn tables_of_schemas_views_and_empty_results() {
    let server = Server::with(
        "CREATE SCHEMA s; CREATE TABLE s.\"T\"\"x\"(a integer, \"A\" text); INSERT INTO s.\"T\"\"x\" VALUES (1, 'x');
         CREATE TABLE none(); CREATE TABLE empty(a integer, b uuid); CREATE VIEW v AS SELECT 1 AS one;",
    );
    let url = server.url();
    let export = |arguments: &[&str]| server.barge(&[&["export", &url], arguments].concat());
    for (index, arguments) in [&["s.T\"x"][..], &["T\"x", "--schema", "s"]].into_iter().enumerate() {
        let file = format!("{index}.csv");
        export(&[arguments, &["--to", &file]].concat()).ends(0);
        assert_eq!(server.place.read(&file), "a,A\n1,x\n");
    }
    export(&["v", "--to", "v.jsonl"]).ends(0);
    assert_eq!(server.place.read("v.jsonl"), "{\"one\":1}\n");
    for name in ["e.csv", "e.parquet", "e.arrow"] {
        export(&["empty", "--to", name]).ends(0);
        server.barge(&["load", name, "--to", &url, "--table", "empty"]).ends(0);
    }
    for (arguments, expected) in [
        (&["none", "--to", "x.csv"][..], "there are no columns to read"),
        (&["--query", "SELECT", "--to", "x.csv"], "query"),
        (&["--query", "SELECT 1 AS a, 2 AS a", "--to", "x.csv"], "two columns are named a"),
        (&["--query", "INSERT INTO empty VALUES (1) RETURNING a", "--to", "x.csv"], "read-only"),
        (&["emtpy", "--to", "x.csv"], "did you mean empty?"),
        (
            &["--query", "SELECT 1/(g-9999) AS a FROM generate_series(1, 20000) g", "--to", "x.csv"],
            "division by zero",
        ),
    ] {
        let run = export(arguments).ends(1);
        assert!(run.err.contains(expected), "{run:?}");
    }
    assert!(!server.place.path("x.csv").exists());
    assert_eq!(server.count("empty"), 0);
}

#[test]
fn there_and_back_through_sqlite() {
    let columns = "id, flag, small, whole, single, price, wide, name, short, data, day, clock, at, moment, uid, body, numbers, texts, \
                   floats";
    let server = Server::with(&format!(
        "SET timezone TO 'UTC'; {TYPES} {ROWS} CREATE TABLE back AS SELECT {columns} FROM t WHERE false;"
    ));
    let url = server.url();
    let query = format!("SELECT {columns} FROM t WHERE id <> 2");
    server
        .barge(&["copy", &url, "--query", &query, "--to", "sqlite:test.db", "--table", "t", "--key", "id"])
        .ends(0);
    let run =
        server.barge(&["copy", "sqlite:test.db", "t", "--to", &url, "--table", "back", "--json"]).ends(0);
    assert_eq!(run.counts(), [3, 3, 0]);
    let rows = |table: &str| {
        server.rows(&format!(
            "SELECT to_jsonb(r)::text FROM (SELECT {columns} FROM {table} WHERE id <> 2 ORDER BY id) r"
        ))
    };
    assert_eq!(rows("t"), rows("back"));
}

#[test]
fn a_table_is_copied_within_a_server_with_its_types_and_key() {
    let server = Server::with(&format!(
        "SET timezone TO 'UTC'; {TYPES} {ROWS} CREATE TABLE back (LIKE t INCLUDING ALL);"
    ));
    let url = server.url();
    let run = server.barge(&["copy", &url, "t", "--to", &url, "--table", "back", "--json"]).ends(0);
    assert_eq!(run.counts(), [4, 4, 0]);
    assert_eq!(rows(&server, "t"), rows(&server, "back"));
    for (mode, inserted) in [("upsert", 0), ("replace", 4)] {
        let run = server
            .barge(&["copy", &url, "t", "--to", &url, "--table", "back", "--mode", mode, "--json"])
            .ends(0);
        assert_eq!(run.json()["rows_inserted"], inserted, "{mode}");
        assert_eq!(rows(&server, "t"), rows(&server, "back"), "{mode}");
    }
    server.barge(&["copy", &url, "t", "--to", &url, "--table", "anew"]).ends(0);
    let key = server
        .rows("SELECT conkey::text FROM pg_constraint WHERE conrelid = 'anew'::regclass AND contype = 'p'");
    assert_eq!(key, ["{1}"]);
    for table in ["t", "public.t"] {
        let run = server.barge(&["copy", &url, "t", "--to", &url, "--table", table]).ends(2);
        assert!(run.message().contains("would be copied onto itself"), "{run:?}");
    }
}

#[test]
fn a_copy_into_another_database_of_one_name_is_no_copy_onto_itself() {
    let (one, other) =
        (Server::with("CREATE TABLE t AS SELECT g AS id FROM generate_series(1, 30000) g"), Server::new());
    let run = one.barge(&["copy", &one.url(), "t", "--to", &other.url(), "--json"]).ends(0);
    assert_eq!(run.counts(), [30_000, 30_000, 0]);
    assert_eq!(other.rows("SELECT sum(id) FROM t"), ["450015000"]);
}

#[test]
fn a_signal_accounts_for_every_row() {
    let server = Server::with("CREATE TABLE t(id bigint, name text)");
    let url = server.url();
    let query = "SELECT g AS id, repeat('x', 200) AS name FROM generate_series(1, 100000000) g";
    let child = server.place.start(&[
        "copy",
        &url,
        "--query",
        query,
        "--to",
        &url,
        "--table",
        "t",
        "--batch-rows",
        "500",
        "--json",
    ]);
    wait_until(|| server.count("t") > 2_000);
    send(&child, "TERM");
    let run = Run::of(child.wait_with_output().unwrap()).ends(130);
    let [read, written, rejected] = run.counts();
    assert_eq!((read, rejected), (written, 0));
    assert_eq!(server.count("t"), written);
}

#[test]
fn a_million_rows_take_no_more_memory_than_few() {
    let server = Server::new();
    let url = server.url();
    let query = "SELECT g AS id, md5(g::text) || repeat('x', 200) AS name FROM generate_series(1, 1000000) g";
    for format in ["parquet", "csv"] {
        let arguments = ["export", &url, "--query", query, "--to", "-", "--format", format, "--quiet"];
        let (run, peak) = peak_memory(server.place.start(&arguments));
        run.ends(0);
        assert!((5..160).contains(&peak), "{format}: {peak} MiB");
    }
}

/// Money stays money: a numeric with a precision is a decimal elsewhere, too.
#[test]
fn decimals_keep_their_type_and_their_digits() {
    let server = Server::with(
        "CREATE TABLE t(id bigint PRIMARY KEY, price numeric(10,2), small numeric(38,10), any_ numeric);
         INSERT INTO t VALUES (1, 10.50, 0.0000000001, 1.500), (2, NULL, -1234567890123456789012345678.5, NULL);",
    );
    let url = server.url();
    server.barge(&["copy", &url, "t", "--to", &url, "--table", "anew"]).ends(0);
    let types = "SELECT format_type(atttypid, atttypmod) FROM pg_attribute WHERE attrelid = 'anew'::regclass AND attnum > 1 ORDER BY attnum";
    assert_eq!(server.rows(types), ["numeric(10,2)", "numeric(38,10)", "text"]);
    server.barge(&["copy", &url, "t", "--to", "sqlite:test.db"]).ends(0);
    let run = server.barge(&["describe", "sqlite:test.db", "t"]).ends(0);
    assert!(run.out.contains("DECIMAL_TEXT(10,2)"), "{run:?}");
    server.barge(&["export", &url, "t", "--to", "t.parquet"]).ends(0);
    server.barge(&["load", "t.parquet", "--to", &url, "--table", "from_file"]).ends(0);
    let same = "SELECT count(*) FROM t JOIN from_file f USING (id) WHERE t.price IS NOT DISTINCT FROM f.price AND t.small = f.small";
    assert_eq!(server.rows(same), ["2"]);
    let of_file = types.replace("anew", "from_file");
    assert_eq!(server.rows(&of_file), ["numeric(10,2)", "numeric(38,10)", "text"]);
}
