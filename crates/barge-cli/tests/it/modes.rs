//! What each mode does with rows and tables that are there.

use crate::Place;

const KEYED: &str = "CREATE TABLE t(id INTEGER PRIMARY KEY, name TEXT, n INTEGER);
                     INSERT INTO t VALUES (1, 'one', 10), (2, 'two', 20);";

#[test]
fn append_creates_the_table_with_inferred_types_and_its_key() {
    let place = Place::new();
    place.write("a.csv", "id,price,day,code\n1,1.5,2024-01-02,007\n2,,2024-01-03,x\n");
    let run = place.load("a.csv", &["--key", "id", "--json"]).ends(0);
    assert_eq!(run.counts(), [2, 2, 0]);
    assert_eq!(run.json()["created"], true);
    assert_eq!(place.rows("SELECT * FROM t"), ["1|1.5|2024-01-02|007", "2|∅|2024-01-03|x"]);
    let described = place.barge(&["describe", "sqlite:test.db", "t", "--json"]).ends(0).json();
    assert_eq!(described["key"], serde_json::json!(["id"]));
}

#[test]
fn append_rejects_rows_whose_key_is_there_and_writes_the_rest() {
    let place = Place::with(KEYED);
    place.write("a.csv", "name,id\nthree,3\nagain,2\nfour,4\nagain,3\n");
    let run = place.load("a.csv", &["--json"]).ends(3);
    assert_eq!(run.counts(), [4, 2, 2]);
    let rejected = run.rejected();
    assert!(rejected[0].starts_with("3: ") && rejected[1].starts_with("5: "), "{rejected:?}");
    assert_eq!(run.json()["rejected"][0]["kind"], "UniqueViolation");
    assert_eq!(run.json()["rejected"][0]["file"], "a.csv");
    assert_eq!(place.rows("SELECT id, name FROM t"), ["1|one", "2|two", "3|three", "4|four"]);
}

#[test]
fn upsert_adds_and_updates_and_says_how_many() {
    let place = Place::with(KEYED);
    place.write("a.csv", "id,name\n2,zwei\n3,drei\n3,tres\n");
    let run = place.load("a.csv", &["--mode", "upsert", "--json"]).ends(0);
    let summary = run.json();
    assert_eq!((&summary["rows_inserted"], &summary["rows_updated"]), (&1.into(), &2.into()));
    assert_eq!(place.rows("SELECT * FROM t"), ["1|one|10", "2|zwei|20", "3|tres|∅"]);
}

#[test]
fn upsert_creates_the_table_where_a_key_is_given() {
    let place = Place::new();
    place.write("a.csv", "a,b,n\nx,1,1\nx,2,2\nx,1,3\n");
    let run = place.load("a.csv", &["--mode", "upsert"]).ends(2);
    assert!(run.message().contains("name its columns with --key"), "{run:?}");
    place.load("a.csv", &["--mode", "upsert", "--key", "a,b"]).ends(0);
    assert_eq!(place.rows("SELECT * FROM t ORDER BY b"), ["x|1|3", "x|2|2"]);
}

#[test]
fn update_sets_what_is_there_and_counts_what_is_not() {
    let place = Place::with(KEYED);
    place.write("a.csv", "id,n\n2,21\n9,99\n");
    let run = place.load("a.csv", &["--mode", "update", "--json"]).ends(0);
    let summary = run.json();
    assert_eq!((&summary["rows_updated"], &summary["rows_not_found"]), (&1.into(), &1.into()));
    assert_eq!(place.rows("SELECT * FROM t"), ["1|one|10", "2|two|21"]);
    let run = place.load("a.csv", &["--mode", "update"]).ends(0);
    assert!(run.has_line("not found 1"), "{}", run.out);

    place.sql().execute_batch("DROP TABLE t").unwrap();
    let run = place.load("a.csv", &["--mode", "update"]).ends(1);
    assert!(run.message().starts_with("table t: there is no such table"), "{run:?}");
}

#[test]
fn update_by_another_unique_column() {
    let place = Place::with(
        "CREATE TABLE t(id INTEGER PRIMARY KEY, mail TEXT UNIQUE, n); INSERT INTO t VALUES (1, 'a@b', 1)",
    );
    place.write("a.csv", "MAIL,n\na@b,5\n");
    place.load("a.csv", &["--mode", "update", "--key", "mail"]).ends(0);
    assert_eq!(place.rows("SELECT * FROM t"), ["1|a@b|5"]);
}

#[test]
fn create_fails_where_the_table_is_there() {
    let place = Place::with(KEYED);
    place.write("a.csv", "id,name\n3,x\n");
    let run = place.load("a.csv", &["--mode", "create"]).ends(1);
    assert!(run.message().contains("table t: the table exists already"), "{run:?}");
    assert_eq!(place.count("t"), 2);
    place.sql().execute_batch("DROP TABLE t").unwrap();
    place.load("a.csv", &["--mode", "create"]).ends(0);
    assert_eq!(place.rows("SELECT * FROM t"), ["3|x"]);
}

#[test]
fn replace_keeps_the_table_and_changes_its_rows() {
    let place = Place::with(&format!(
        "{KEYED} CREATE INDEX by_name ON t(name);
         CREATE TABLE child(t INTEGER REFERENCES t(id)); INSERT INTO child VALUES (2);"
    ));
    place.write("a.csv", "id,name\n2,zwei\n3,drei\n3,again\n");
    let run = place.load("a.csv", &["--mode", "replace", "--json"]).ends(3);
    assert_eq!(run.counts(), [3, 2, 1]);
    let rejected = run.rejected();
    assert!(
        rejected[0].starts_with("4: ") && rejected[0].ends_with("UNIQUE constraint failed: t.id"),
        "{run:?}"
    );
    assert_eq!(place.rows("SELECT * FROM t"), ["2|zwei|∅", "3|drei|∅"]);
    let names = place.rows("SELECT name FROM sqlite_master ORDER BY name");
    assert_eq!(names, ["by_name", "child", "t"]);
}

#[test]
fn a_replacement_that_fails_leaves_the_table_as_it_was() {
    let place = Place::with(KEYED);
    place.write("a.csv", "id,name,n\n5,five,5\n5,again,6\n");
    let run = place.load("a.csv", &["--mode", "replace", "--max-rejects", "0", "--json"]).ends(1);
    assert_eq!(run.counts(), [2, 0, 1]);
    assert_eq!(run.json()["rows_not_written"], 1);

    // A constraint that only the table itself has, and a row that others refer to.
    place
        .sql()
        .execute_batch("CREATE TABLE child(t INTEGER REFERENCES t(id)); INSERT INTO child VALUES (1);")
        .unwrap();
    place.write("b.csv", "id,name,n\n5,five,5\n");
    let run = place.load("b.csv", &["--mode", "replace"]).ends(1);
    assert!(run.message().contains("the table is as it was"), "{run:?}");
    assert_eq!(place.rows("SELECT * FROM t"), ["1|one|10", "2|two|20"]);
    assert_eq!(place.rows("SELECT name FROM sqlite_master ORDER BY name"), ["child", "t"]);
}

#[test]
fn replace_refuses_where_rows_of_others_would_go_too() {
    let place = Place::with(&format!(
        "{KEYED} CREATE TABLE child(t INTEGER REFERENCES t(id) ON DELETE CASCADE); INSERT INTO child VALUES (1);"
    ));
    place.write("a.csv", "id,name\n1,uno\n");
    let run = place.load("a.csv", &["--mode", "replace"]).ends(1);
    assert!(run.message().contains("would delete or change those of child"), "{run:?}");
    assert_eq!((place.count("t"), place.count("child")), (2, 1));
}

#[test]
fn replace_creates_a_table_that_is_missing() {
    let place = Place::new();
    place.write("a.csv", "id,name\n1,uno\n");
    let run = place.load("a.csv", &["--mode", "replace", "--key", "id", "--json"]).ends(0);
    assert_eq!(run.json()["created"], true);
    assert_eq!(place.rows("SELECT * FROM t"), ["1|uno"]);
    assert_eq!(place.rows("SELECT name FROM sqlite_master"), ["t"]);
}

#[test]
fn several_files_go_in_order_through_one_writer() {
    let place = Place::new();
    place.write("a.csv", "id,name\n1,a\n2,a\n");
    place.write("b.csv", "name,id\nb,2\nb,3\n");
    let run = place.barge(&[
        "load",
        "a.csv",
        "b.csv",
        "--to",
        "sqlite:test.db",
        "--table",
        "t",
        "--key",
        "id",
        "--mode",
        "upsert",
        "--json",
    ]);
    assert_eq!(run.ends(0).counts(), [4, 4, 0]);
    assert_eq!(place.rows("SELECT * FROM t"), ["1|a", "2|b", "3|b"]);
}

#[test]
fn a_wrong_file_among_several_stops_before_the_first_row() {
    let place = Place::with(KEYED);
    place.write("a.csv", "id,name\n3,c\n");
    place.write("b.csv", "id,nmae\n4,d\n");
    let run = place.barge(&["load", "a.csv", "b.csv", "--to", "sqlite:test.db", "--table", "t"]).ends(1);
    assert!(run.message().contains("b.csv has a column nmae"), "{run:?}");
    assert_eq!(place.count("t"), 2);
}

#[test]
fn defaults_and_drawn_keys_fill_what_the_file_leaves_out() {
    let place =
        Place::with("CREATE TABLE t(id INTEGER PRIMARY KEY, name TEXT, state TEXT NOT NULL DEFAULT 'new')");
    place.write("a.csv", "name\na\nb\n");
    place.load("a.csv", &[]).ends(0);
    assert_eq!(place.rows("SELECT * FROM t"), ["1|a|new", "2|b|new"]);
}
