//! `barge export`: every format, what is refused, what is left when it fails.

use std::io::Read;
use std::path::PathBuf;
use std::process::{Child, Stdio};

use serde_json::Value;

use crate::running::{send, wait_until};
use crate::{Place, Run};

/// A table of every type that SQLite holds, as `barge` declares them.
pub(crate) const ALL_TYPES: &str = "
    CREATE TABLE t(
        id INTEGER PRIMARY KEY, flag BOOLEAN, price DECIMAL_TEXT(20,4), ratio REAL, name TEXT, code TEXT, data BLOB,
        day DATE_TEXT, clock TIME_TEXT, at TIMESTAMP_TEXT, moment TIMESTAMPTZ_TEXT, uid TEXT, body TEXT, items TEXT
    );
    INSERT INTO t VALUES
        (1, 1, '-12345678901234.5000', 0.1, '', '007', x'00ff', '0001-01-01', '00:00:00.000000', '0001-01-01T00:00:00.000000',
         '2024-02-29T23:59:59.999999Z', 'a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11', '{\"a\": [1, null]}', '[1,2,null]'),
        (2, 0, '0.0001', 1e300, 'a,b;c\t|\"d\"' || char(13, 10) || 'é', '1.50', x'', '9999-12-31', '23:59:59.999999',
         '9999-12-31T23:59:59.999999', '1969-12-31T23:59:59.999999Z', '', 'null', '[]'),
        (-9223372036854775808, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL),
        (9223372036854775807, 1, '7.0000', -0.5, 'NULL', 'true', x'22', '2024-02-29', '12:00:00.000000', '2024-02-29T12:00:00.000000',
         '2024-02-29T12:00:00.000000Z', 'x', '2024-01-01', '{1,2}');";

const NAMES: [&str; 10] = [
    "a.csv",
    "a.csv.gz",
    "a.tsv.zst",
    "a.jsonl",
    "a.jsonl.gz",
    "a.json.zst",
    "a.parquet",
    "a.arrow",
    "a.feather",
    "a.arrows",
];

fn export(place: &Place, table: &str, file: &str, more: &[&str]) -> Run {
    place.barge(&[&["export", "sqlite:test.db", table, "--to", file], more].concat())
}

impl Place {
    /// The names of what lies there, but for the database.
    fn files(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.directory.path()).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned());
        let mut names: Vec<String> = names.filter(|name| !name.starts_with("test.db")).collect();
        names.sort();
        names
    }
}

/// A statement that gives so many rows of some 250 bytes, none like another.
pub(crate) fn many(rows: u32) -> String {
    format!(
        "WITH RECURSIVE n(id) AS (SELECT 1 UNION ALL SELECT id + 1 FROM n LIMIT {rows}) \
         SELECT id, hex(randomblob(120)) AS text FROM n"
    )
}

/// Waits for the end, and tells the most memory that the program had, in MiB.
pub(crate) fn peak_memory(mut child: Child) -> (Run, u64) {
    let (mut out, mut err) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
    let out = std::thread::spawn(move || std::io::copy(&mut out, &mut std::io::sink()).unwrap());
    let mut peak = 0;
    let status = loop {
        let told = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
        let line = told.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kilobytes = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
        peak = kilobytes.unwrap_or(0).max(peak);
        if let Some(status) = child.try_wait().unwrap() {
            break status;
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    };
    out.join().unwrap();
    let mut text = String::new();
    err.read_to_string(&mut text).unwrap();
    (Run { status: status.code().unwrap_or(-1), out: String::new(), err: text }, peak >> 10)
}

#[test]
fn what_is_exported_loads_again_equal_from_every_format() {
    let place = Place::with(ALL_TYPES);
    place
        .sql()
        .execute_batch(&ALL_TYPES.split("INSERT").next().unwrap().replace("TABLE t(", "TABLE back("))
        .unwrap();
    for name in NAMES {
        let run = export(&place, "t", name, &["--json"]).ends(0);
        assert_eq!(run.json()["rows_written"], 4, "{name}");
        assert_eq!(run.json()["bytes_written"], std::fs::metadata(place.path(name)).unwrap().len());
        let arguments =
            ["load", name, "--to", "sqlite:test.db", "--table", "back", "--mode", "replace", "--json"];
        assert_eq!(place.barge(&arguments).ends(0).counts(), [4, 4, 0], "{name}");
        let differences = place.rows("SELECT * FROM t EXCEPT SELECT * FROM back");
        assert_eq!(differences, Vec::<String>::new(), "{name}");
        let types = |table: &str| {
            let columns: Vec<String> = place
                .rows("SELECT name FROM pragma_table_info('t')")
                .iter()
                .map(|name| format!("typeof({name})"))
                .collect();
            place.rows(&format!("SELECT {} FROM {table} ORDER BY id", columns.join(", ")))
        };
        assert_eq!(types("t"), types("back"), "{name}");
    }
}

#[test]
fn native_formats_make_the_same_table_anew() {
    let place = Place::with(ALL_TYPES);
    for name in ["a.parquet", "a.arrow"] {
        export(&place, "t", name, &[]).ends(0);
        let arguments =
            ["load", name, "--to", "sqlite:test.db", "--table", "anew", "--mode", "replace", "--key", "id"];
        place.barge(&arguments).ends(0);
        assert_eq!(place.rows("SELECT * FROM t EXCEPT SELECT * FROM anew"), Vec::<String>::new(), "{name}");
        let types = |table: &str| place.rows(&format!("SELECT name, type FROM pragma_table_info('{table}')"));
        assert_eq!(types("t"), types("anew"), "{name}");
    }
}

#[test]
fn the_summary_says_what_was_written_where() {
    let place = Place::with("CREATE TABLE t(a); INSERT INTO t VALUES (1), (2);");
    let run = export(&place, "t", "a.csv.gz", &[]).ends(0);
    assert!(run.out.starts_with("Exported table t of sqlite:test.db to a.csv.gz\n"), "{run:?}");
    assert!(run.has_line("written 2"), "{run:?}");
    assert!(run.out.contains("CSV, gzip") && run.out.contains(" rows/s"), "{run:?}");
    assert_eq!(run.err, "");
    let run = export(&place, "t", "b.csv", &["--quiet"]).ends(0);
    assert_eq!((run.out.as_str(), run.err.as_str()), ("", ""));
    let summary = export(&place, "t", "c.csv", &["--json"]).ends(0).json();
    assert_eq!(summary["url"], "sqlite:test.db");
    assert_eq!(
        (&summary["table"], &summary["query"], &summary["file"]),
        (&"t".into(), &Value::Null, &"c.csv".into())
    );
    assert_eq!((&summary["format"], &summary["exit_status"]), (&"CSV".into(), &0.into()));
}

#[test]
fn a_query_is_exported() {
    let place =
        Place::with("CREATE TABLE t(a INTEGER, b TEXT); INSERT INTO t VALUES (1, 'x'), (2, NULL), (3, '');");
    let query =
        |sql: &str, file: &str| place.barge(&["export", "sqlite:test.db", "--query", sql, "--to", file]);
    query("SELECT a * 10 AS ten, b FROM t ORDER BY a DESC;", "a.csv").ends(0);
    assert_eq!(place.read("a.csv"), "ten,b\n30,\"\"\n20,\n10,x\n");
    query("SELECT a, b FROM t WHERE a < 3", "a.jsonl").ends(0);
    assert_eq!(place.read("a.jsonl"), "{\"a\":1,\"b\":\"x\"}\n{\"a\":2,\"b\":null}\n");
    for (sql, expected) in [
        ("SELECT a, b AS a FROM t", "the query on sqlite:test.db: two columns are named a"),
        ("SELECT nothing FROM t", "nothing"),
        ("DELETE FROM t", "a query may only read"),
        ("CREATE TABLE u(a)", "a query may only read"),
        ("SELEC", "SELEC"),
    ] {
        let run = query(sql, "b.csv").ends(1);
        assert!(run.message().contains(expected), "{sql}: {run:?}");
    }
    assert_eq!(place.files(), ["a.csv", "a.jsonl"]);
    assert_eq!(place.count("t"), 3);
}

#[test]
fn csv_dialects() {
    let place =
        Place::with("CREATE TABLE t(a TEXT, b TEXT); INSERT INTO t VALUES (NULL, 'NA'), ('', 'x;y');");
    export(&place, "t", "a.csv", &["--delimiter", ";", "--null", "NA"]).ends(0);
    assert_eq!(place.read("a.csv"), "a;b\nNA;\"NA\"\n\"\";\"x;y\"\n");
    place
        .barge(&[
            "load",
            "a.csv",
            "--to",
            "sqlite:test.db",
            "--table",
            "t",
            "--mode",
            "replace",
            "--null",
            "NA",
        ])
        .ends(0);
    assert_eq!(place.rows("SELECT * FROM t"), ["∅|NA", "|x;y"]);
    let run = export(&place, "t", "b.csv", &["--null", "a,b"]).ends(2);
    assert!(run.message().contains("holds a delimiter"), "{run:?}");
}

#[test]
fn names_with_quotes_schemas_and_dots() {
    let place = Place::with(
        "CREATE TABLE \"we\"\"ird; --\"(\"a \"\"b\" INTEGER); INSERT INTO \"we\"\"ird; --\" VALUES (1);
         CREATE TABLE \"main.t\"(x); INSERT INTO \"main.t\" VALUES (2);
         CREATE TABLE t(x); INSERT INTO t VALUES (3);
         CREATE VIEW v AS SELECT x + 1 AS y FROM t;",
    );
    export(&place, "we\"ird; --", "a.csv", &[]).ends(0);
    assert_eq!(place.read("a.csv"), "\"a \"\"b\"\n1\n");
    export(&place, "main.t", "b.csv", &[]).ends(0);
    assert_eq!(place.read("b.csv"), "x\n2\n");
    export(&place, "t", "c.csv", &["--schema", "main"]).ends(0);
    assert_eq!(place.read("c.csv"), "x\n3\n");
    export(&place, "v", "d.csv", &[]).ends(0);
    assert_eq!(place.read("d.csv"), "y\n4\n");
}

#[test]
fn an_empty_table_keeps_its_columns() {
    let place = Place::with("CREATE TABLE t(a INTEGER, b DATE_TEXT);");
    for name in ["a.csv", "a.parquet", "a.arrow", "a.arrows"] {
        export(&place, "t", name, &[]).ends(0);
        let arguments = ["load", name, "--to", "sqlite:test.db", "--table", "t", "--json"];
        assert_eq!(place.barge(&arguments).ends(0).counts(), [0, 0, 0], "{name}");
    }
    export(&place, "t", "a.jsonl", &[]).ends(0);
    assert_eq!(place.read("a.jsonl"), "");
}

#[test]
fn what_cannot_be_is_refused_and_leaves_nothing() {
    let place = Place::with("CREATE TABLE prices(a INTEGER); INSERT INTO prices VALUES (1);");
    place.write("there.csv", "old");
    for (table, file, status, expected) in [
        ("price", "a.csv", 1, "did you mean prices?"),
        ("prices", "there.csv", 2, "there.csv is there already"),
        ("prices", "none/a.csv", 1, "there is no folder none"),
        ("prices", "there.csv/a.csv", 1, "cannot write there.csv/a.csv"),
        ("prices", "a.table", 2, "doesn't say its format"),
        ("prices", "a.parquet.gz", 2, "leave the ending for gzip out"),
        ("prices", ".", 2, "doesn't say its format"),
        ("prices", "-", 2, "doesn't say its format"),
    ] {
        let run = export(&place, table, file, &[]).ends(status);
        assert!(run.message().contains(expected), "{run:?}");
        assert_eq!(run.out, "");
    }
    for file in ["test.db", "./test.db"] {
        let run = export(&place, "prices", file, &["--format", "csv", "--overwrite"]).ends(2);
        assert!(run.message().contains("is the database that is read"), "{run:?}");
    }
    for (arguments, expected) in [
        (&["export", "sqlite:none.db", "t", "--to", "a.csv"][..], "none.db"),
        (&["export", "sqlite:test.db", "--to", "a.csv"][..], "TABLE"),
        (
            &["export", "sqlite:test.db", "t", "--query", "SELECT 1", "--to", "a.csv"][..],
            "cannot be used with",
        ),
        (&["export", "test.db", "t", "--to", "a.csv"][..], "sqlite:test.db"),
    ] {
        let run = place.barge(arguments);
        assert!(run.status != 0 && run.err.contains(expected), "{run:?}");
    }
    assert_eq!(place.read("there.csv"), "old");
    assert_eq!(place.files(), ["there.csv"]);
    assert_eq!(place.rows("SELECT * FROM prices"), ["1"]);
}

#[test]
fn a_file_that_is_there_is_replaced_where_that_is_asked_for() {
    let place = Place::with("CREATE TABLE t(a INTEGER); INSERT INTO t VALUES (1);");
    place.write("a.csv", "old");
    export(&place, "t", "a.csv", &["--overwrite"]).ends(0);
    assert_eq!(place.read("a.csv"), "a\n1\n");
    // A value that can't be read ends the export, and the file stays as it was.
    place.sql().execute_batch("INSERT INTO t VALUES (2), ('three')").unwrap();
    let run = export(&place, "t", "a.csv", &["--overwrite"]).ends(1);
    assert!(run.message().contains("three"), "{run:?}");
    assert_eq!(place.read("a.csv"), "a\n1\n");
    assert_eq!(place.files(), ["a.csv"]);
}

#[test]
fn standard_output_takes_every_format() {
    let place = Place::with("CREATE TABLE t(a INTEGER, b TEXT); INSERT INTO t VALUES (1, 'x'), (2, NULL);");
    for format in ["csv", "jsonl", "parquet", "arrow"] {
        let arguments = ["export", "sqlite:test.db", "t", "--to", "-", "--format", format];
        let output = place.command(&arguments).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        let told = String::from_utf8(output.stderr).unwrap();
        assert!(told.starts_with("Exported table t of sqlite:test.db to standard output\n"), "{told}");
        let arguments = [
            "load",
            "-",
            "--to",
            "sqlite:test.db",
            "--table",
            "back",
            "--format",
            format,
            "--mode",
            "replace",
        ];
        place.barge_with(output.stdout, &arguments).ends(0);
        assert_eq!(place.rows("SELECT * FROM back"), ["1|x", "2|∅"], "{format}");
    }
}

#[test]
fn a_reader_that_goes_away_and_a_full_disk_are_failures() {
    let place = Place::with("CREATE TABLE t(a INTEGER);");
    let query = many(20_000);
    let arguments = ["export", "sqlite:test.db", "--query", &query, "--to", "-", "--format", "csv"];
    let mut child = place.start(&arguments);
    drop(child.stdout.take());
    let run = Run::of(child.wait_with_output().unwrap()).ends(1);
    assert!(run.message().contains("writing standard output failed: its reader went away"), "{run:?}");
    for format in ["csv", "parquet"] {
        let arguments = [
            "export",
            "sqlite:test.db",
            "--query",
            &query,
            "--to",
            "/dev/full",
            "--format",
            format,
            "--quiet",
        ];
        let run = place.barge(&arguments).ends(1);
        assert!(run.message().contains("writing /dev/full failed"), "{run:?}");
    }
    assert_eq!(place.files(), Vec::<String>::new());
}

#[test]
fn a_signal_leaves_nothing_of_the_file() {
    for (name, signal) in [("a.csv", "INT"), ("a.parquet", "TERM")] {
        let place = Place::with("CREATE TABLE t(a INTEGER);");
        place.write(name, "old");
        let query = many(100_000_000);
        let arguments =
            ["export", "sqlite:test.db", "--query", &query, "--to", name, "--overwrite", "--json"];
        let child = place.start(&arguments);
        wait_until(|| place.files().len() > 1);
        send(&child, signal);
        let run = Run::of(child.wait_with_output().unwrap()).ends(130);
        assert_eq!(run.message(), "stopped");
        assert_eq!((&run.json()["interrupted"], &run.json()["rows_written"]), (&true.into(), &0.into()));
        assert_eq!(place.files(), [name]);
        assert_eq!(place.read(name), "old");
    }
}

#[test]
fn a_million_rows_take_no_more_memory_than_few() {
    let place = Place::with("CREATE TABLE t(a INTEGER);");
    let query = many(1_000_000);
    for format in ["csv", "parquet", "arrow", "jsonl"] {
        let arguments =
            ["export", "sqlite:test.db", "--query", &query, "--to", "-", "--format", format, "--quiet"];
        let (run, peak) = peak_memory(place.start(&arguments));
        run.ends(0);
        // The rows are some 250 MB.
        assert!((5..160).contains(&peak), "{format}: {peak} MiB");
    }
}

#[test]
fn huge_cells_do_not_add_up() {
    let place = Place::with("CREATE TABLE t(a INTEGER);");
    let query = "WITH RECURSIVE n(id) AS (SELECT 1 UNION ALL SELECT id + 1 FROM n LIMIT 300) \
                 SELECT id, hex(randomblob(1000000)) AS text FROM n";
    let arguments = ["export", "sqlite:test.db", "--query", query, "--to", "-", "--format", "csv", "--quiet"];
    let (run, peak) = peak_memory(place.start(&arguments));
    run.ends(0);
    // The rows are 600 MB.
    assert!((5..160).contains(&peak), "{peak} MiB");
    place
        .sql()
        .execute_batch("CREATE TABLE big(a TEXT); INSERT INTO big VALUES (hex(randomblob(6000000)));")
        .unwrap();
    for name in ["a.csv", "a.jsonl.gz", "a.parquet", "a.arrow"] {
        export(&place, "big", name, &[]).ends(0);
        place
            .barge(&["load", name, "--to", "sqlite:test.db", "--table", "back", "--mode", "replace"])
            .ends(0);
        assert_eq!(place.rows("SELECT count(*) FROM big JOIN back USING (a)"), ["1"], "{name}");
    }
}

#[cfg(unix)]
#[test]
fn paths_that_are_no_text() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;
    let place = Place::with("CREATE TABLE t(a INTEGER); INSERT INTO t VALUES (1);");
    let name = OsStr::from_bytes(b"caf\xe9.csv");
    let output = place.command(&["export", "sqlite:test.db", "t", "--to"]).arg(name).output().unwrap();
    Run::of(output).ends(0);
    assert_eq!(std::fs::read(PathBuf::from(place.directory.path()).join(name)).unwrap(), b"a\n1\n");
}

#[test]
fn progress_comes_as_lines_where_there_is_no_terminal() {
    let place = Place::with("CREATE TABLE t(a INTEGER);");
    let query = many(100_000_000);
    let arguments = [
        "export",
        "sqlite:test.db",
        "--query",
        &query,
        "--to",
        "/dev/null",
        "--format",
        "csv",
        "--progress-seconds",
        "0.05",
    ];
    let mut command = place.command(&arguments);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(child.stderr.take().unwrap()));
    let line = lines.find_map(|line| line.ok().filter(|line| !line.starts_with("barge: 0 rows"))).unwrap();
    assert!(line.starts_with("barge: ") && line.contains(" rows, ") && line.contains(" rows/s"), "{line}");
    send(&child, "INT");
    assert_eq!(child.wait().unwrap().code(), Some(130));
}
