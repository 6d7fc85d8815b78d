//! Names of every kind, and attempts to make SQL of them.

use crate::Place;

#[test]
fn any_name_works_for_tables_and_columns() {
    let columns = [
        "select",
        "a \"quoted\" b",
        "it's",
        "naïve ñ 列",
        "semi;colon",
        "tab\tbed",
        "[x]",
        "%s",
        "c0",
        "?1",
        "ordinal",
    ];
    let tables =
        ["order", "a \"b\" c", "x.y", "Robert'); DROP TABLE students;--", "très léger", "--help", "t]"];
    let place = Place::with("CREATE TABLE students(id); INSERT INTO students VALUES (1)");
    let header: Vec<String> =
        columns.iter().map(|name| format!("\"{}\"", name.replace('"', "\"\""))).collect();
    let values: Vec<String> = (0..columns.len()).map(|value| value.to_string()).collect();
    place.write("a.csv", format!("{}\n{}\n", header.join(","), values.join(",")));
    for table in tables {
        let option = format!("--table={table}");
        let arguments =
            ["load", "a.csv", "--to", "sqlite:test.db", &option, "--key", "\"a \"\"quoted\"\" b\",it's"];
        for mode in ["append", "upsert", "update", "replace"] {
            place.barge(&[&arguments[..], &["--mode", mode]].concat()).ends(0);
        }
        let quoted = format!("\"{}\"", table.replace('"', "\"\""));
        assert_eq!(place.rows(&format!("SELECT * FROM {quoted}")), [values.join("|")]);
        let described = place.barge(&["describe", "sqlite:test.db", "--json", "--", table]).ends(0).json();
        let found: Vec<&str> = described["columns"]
            .as_array()
            .unwrap()
            .iter()
            .map(|column| column["name"].as_str().unwrap())
            .collect();
        assert_eq!(found, columns);
    }
    assert_eq!(place.count("students"), 1);
    assert_eq!(place.barge(&["tables", "sqlite:test.db"]).ends(0).out.lines().count(), tables.len() + 1);
}

#[test]
fn values_are_never_sql() {
    let place = Place::with("CREATE TABLE t(id INTEGER PRIMARY KEY, name TEXT)");
    place.write("a.csv", "id,name\n1,\"'); DROP TABLE t; --\"\n2,\"x' OR '1'='1\"\n");
    place.load("a.csv", &[]).ends(0);
    assert_eq!(place.rows("SELECT name FROM t"), ["'); DROP TABLE t; --", "x' OR '1'='1"]);
}

#[test]
fn names_are_matched_without_regard_to_case() {
    let place = Place::with("CREATE TABLE T(Id INTEGER PRIMARY KEY, Code TEXT)");
    place.write("a.csv", "ID,code\n1,007\n");
    place.load("a.csv", &["--mode", "upsert"]).ends(0);
    assert_eq!(place.rows("SELECT * FROM t"), ["1|007"]);
    place.write("b.csv", "id,ID\n1,2\n");
    let run = place.load("b.csv", &[]).ends(1);
    assert!(run.message().contains("both are the table's Id"), "{run:?}");
}

#[test]
fn a_name_that_barge_keeps_for_itself_is_refused() {
    let place = Place::new();
    place.write("a.csv", "id,_ordinal\n1,2\n");
    let run = place.load("a.csv", &[]).ends(1);
    assert!(run.message().contains("_ordinal"), "{run:?}");
}

#[test]
fn an_attached_database_is_a_schema() {
    let place = Place::new();
    place.write("a.csv", "id,name\n1,x\n");
    let url = "sqlite:test.db?attach.other=other.db";
    place.barge(&["load", "a.csv", "--to", url, "--schema", "other", "--table", "t", "--key", "id"]).ends(0);
    let described = place.barge(&["describe", "sqlite:test.db?attach.other=other.db", "other.t"]).ends(0);
    assert!(described.out.starts_with("table other.t\n"), "{described:?}");
    let connection = rusqlite::Connection::open(place.path("other.db")).unwrap();
    assert_eq!(connection.query_row("SELECT count(*) FROM t", [], |row| row.get::<_, i64>(0)).unwrap(), 1);

    // A letter for it finds its way back.
    let arguments =
        ["load", "a.csv", "--to", url, "--schema", "other", "--table", "t", "--dead-letter", "dead.jsonl"];
    place.barge(&arguments).ends(3);
    connection.execute("DELETE FROM t", []).unwrap();
    place.barge(&["load", "dead.jsonl", "--to", url]).ends(0);
    assert_eq!(connection.query_row("SELECT count(*) FROM t", [], |row| row.get::<_, i64>(0)).unwrap(), 1);
    assert_eq!(place.rows("SELECT count(*) FROM sqlite_master"), ["0"]);
}
