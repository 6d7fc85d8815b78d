//! Rejected rows go to a file, and from there back into the table once the cause is mended.

use serde_json::Value;

use crate::Place;

fn letters(place: &Place) -> Vec<Value> {
    place.read("dead.jsonl").lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn rows_come_back_once_the_cause_is_mended() {
    let place = Place::with(
        "CREATE TABLE parent(id INTEGER PRIMARY KEY);
         CREATE TABLE t(id INTEGER PRIMARY KEY, parent INTEGER NOT NULL REFERENCES parent(id), name TEXT, x REAL, b BLOB);",
    );
    place.write("a.csv", "id,parent,name,x,b\n1,7,\"a \"\"b\"\"\",0.1,\\x00ff\n2,7,,,\n3,8,é,1e300,\n");
    let run = place.load("a.csv", &["--dead-letter", "dead.jsonl", "--json"]).ends(3);
    assert_eq!(run.counts(), [3, 0, 3]);
    let kept = letters(&place);
    assert_eq!(kept.len(), 3);
    assert_eq!(kept[0]["error"]["kind"], "ForeignKeyViolation");
    assert_eq!((&kept[2]["file"], &kept[2]["line"]), (&"a.csv".into(), &4.into()));

    place.sql().execute_batch("INSERT INTO parent VALUES (7), (8)").unwrap();
    let run = place.barge(&["load", "dead.jsonl", "--to", "sqlite:test.db", "--json"]).ends(0);
    assert_eq!(run.counts(), [3, 3, 0]);
    assert_eq!(place.rows("SELECT * FROM t"), ["1|7|a \"b\"|0.1|[0, ff]", "2|7|∅|∅|∅", "3|8|é|1e300|∅"]);
}

#[test]
fn lines_that_were_no_rows_are_kept_with_their_values() {
    let place = Place::with("CREATE TABLE t(id INTEGER PRIMARY KEY, price REAL, name TEXT)");
    place.write("a.csv", "id,price,name\n1,cheap,\"x, y\"\n2\n3,1.5,z\n");
    let run = place.load("a.csv", &["--dead-letter", "dead.jsonl", "--json"]).ends(3);
    assert_eq!(run.counts(), [3, 1, 2]);
    let kept = letters(&place);
    assert_eq!(kept[0]["row"], serde_json::json!({"id": "1", "price": "cheap", "name": "x, y"}));
    assert_eq!(
        (&kept[0]["error"]["column"], &kept[0]["text"]),
        (&"price".into(), &"1,cheap,\"x, y\"".into())
    );
    assert_eq!((&kept[1]["row"], &kept[1]["text"]), (&Value::Null, &"2".into()));

    // Mended in the letter itself. The line that could not be divided is told again.
    let mended = place.read("dead.jsonl").replace("\"price\":\"cheap\"", "\"price\":\"9.5\"");
    place.write("mended.jsonl", mended);
    let run = place.barge(&["load", "mended.jsonl", "--to", "sqlite:test.db", "--json"]).ends(3);
    assert_eq!(run.counts(), [2, 1, 1]);
    assert!(run.rejected()[0].contains("the letter has no row"), "{run:?}");
    assert_eq!(place.rows("SELECT * FROM t"), ["1|9.5|x, y", "3|1.5|z"]);
}

#[test]
fn json_lines_are_kept_as_rows() {
    let place = Place::with("CREATE TABLE t(id INTEGER PRIMARY KEY, tags TEXT)");
    place.write("a.jsonl", "{\"id\":\"one\",\"tags\":\"a\"}\n{\"id\":2,\"tags\":\"b\"}\nnot json\n");
    place.load("a.jsonl", &["--dead-letter", "dead.jsonl"]).ends(3);
    let kept = letters(&place);
    assert_eq!(kept[0]["row"], serde_json::json!({"id": "one", "tags": "a"}));
    assert_eq!((&kept[1]["row"], &kept[1]["text"]), (&Value::Null, &"not json".into()));
    // A letter that is rejected again becomes a letter again, not a letter of a letter.
    place.barge(&["load", "dead.jsonl", "--to", "sqlite:test.db", "--dead-letter", "again.jsonl"]).ends(3);
    let again = place.read("again.jsonl");
    let again: Value = serde_json::from_str(again.lines().next().unwrap()).unwrap();
    assert_eq!(again["row"], serde_json::json!({"id": "one", "tags": "a"}));
}

#[test]
fn letters_keep_their_table_and_operation_unless_told_otherwise() {
    let place = Place::with(
        "CREATE TABLE t(id INTEGER PRIMARY KEY, n INTEGER); INSERT INTO t VALUES (1, 1), (2, 2), (3, 3);
         CREATE TABLE u(id INTEGER PRIMARY KEY, n INTEGER);",
    );
    let letter = |table: &str, operation: &str, row: &str| {
        format!(
            "{{\"barge\":1,\"table\":\"{table}\",\"operation\":\"{operation}\",\"error\":{{}},\"row\":{row}}}\n"
        )
    };
    place.write(
        "dead.jsonl",
        [
            letter("t", "update", "{\"id\":1,\"n\":10}"),
            letter("t", "delete", "{\"id\":2}"),
            letter("t", "insert_if_absent", "{\"id\":3,\"n\":30}"),
            letter("u", "insert", "{\"id\":1,\"n\":1}"),
            letter("t", "upsert", "{\"id\":4,\"n\":4}"),
        ]
        .concat(),
    );
    let run = place.barge(&["load", "dead.jsonl", "--to", "sqlite:test.db", "--json"]).ends(0);
    assert_eq!(run.json()["rows_unchanged"], 1);
    assert_eq!(place.rows("SELECT * FROM t"), ["1|10", "3|3", "4|4"]);
    assert_eq!(place.rows("SELECT * FROM u"), ["1|1"]);

    place.write("one.jsonl", letter("t", "insert", "{\"id\":1,\"n\":7}"));
    place.barge(&["load", "one.jsonl", "--to", "sqlite:test.db", "--table", "u", "--mode", "upsert"]).ends(0);
    assert_eq!(place.rows("SELECT * FROM u"), ["1|7"]);
    place.write("lost.jsonl", letter("gone", "insert", "{\"id\":1}"));
    let run = place.barge(&["load", "lost.jsonl", "--to", "sqlite:test.db"]).ends(1);
    assert!(run.message().contains("lost.jsonl: there is no such table"), "{run:?}");
    let run = place
        .barge(&["load", "one.jsonl", "--to", "sqlite:test.db", "--table", "t", "--mode", "replace"])
        .ends(2);
    assert!(run.err.contains("not for them"), "{run:?}");
}

#[test]
fn letters_without_a_row_are_kept_again() {
    let place = Place::with("CREATE TABLE t(id INTEGER PRIMARY KEY)");
    let torn = "{\"barge\":1,\"table\":\"t\",\"oper";
    let without = "{\"barge\":1,\"table\":\"t\",\"operation\":\"upsert\",\"error\":{},\"text\":\"1,2,3\"}\n";
    place.write("old.jsonl", format!("{without}{torn}"));
    let arguments = ["load", "old.jsonl", "--to", "sqlite:test.db", "--dead-letter", "dead.jsonl"];
    let run = place.barge(&arguments).ends(3);
    assert!(run.has_line("rejected 2 kept in dead.jsonl"), "{run:?}");
    let kept = letters(&place);
    assert_eq!((&kept[0]["text"], &kept[0]["operation"]), (&"1,2,3".into(), &"upsert".into()));
    assert_eq!((&kept[1]["text"], &kept[1]["row"]), (&torn.into(), &Value::Null));
    // And once more, with a letter among them that has a row.
    let good = "{\"barge\":1,\"table\":\"t\",\"operation\":\"insert\",\"error\":{},\"row\":{\"id\":1}}\n";
    place.write("old.jsonl", format!("{good}{}", place.read("dead.jsonl")));
    place.sql().execute_batch("DELETE FROM t").unwrap();
    std::fs::remove_file(place.path("dead.jsonl")).unwrap();
    let run = place.barge(&[&arguments[..], &["--json"]].concat()).ends(3);
    assert_eq!((run.counts(), &run.json()["dead_letter_kept"]), ([3, 1, 2], &"all".into()));
    assert_eq!(letters(&place)[1]["text"], torn);
}

#[test]
fn long_lines_are_kept_whole() {
    let place = Place::with("CREATE TABLE t(id INTEGER PRIMARY KEY, price REAL, name TEXT)");
    let long = "x".repeat(100_000);
    place.write("a.csv", format!("id,price,name\n1,cheap,{long}\n2,{long}\n"));
    let run = place.load("a.csv", &["--dead-letter", "dead.jsonl"]).ends(3);
    assert!(run.has_line("rejected 2 kept in dead.jsonl"), "{run:?}");
    let kept = letters(&place);
    assert_eq!(kept[0]["row"]["name"], *long);
    assert_eq!(kept[1]["text"], format!("2,{long}"));

    place.write("b.csv", b"id,price,name\n3,1,a\xffb\n");
    let run = place.load("b.csv", &["--dead-letter", "other.jsonl"]).ends(3);
    assert!(run.has_line("rejected 1 kept in part in other.jsonl"), "{run:?}");
}

#[test]
fn values_of_binary_formats_that_are_not_kept_are_not_said_to_be() {
    let place = Place::new();
    place.write("a.arrow", crate::formats::arrow_with_a_time_of_day());
    let run = place.load("a.arrow", &["--dead-letter", "dead.jsonl"]).ends(3);
    assert!(run.has_line("rejected 1 not kept: dead.jsonl has the reasons only"), "{run:?}");
    assert!(letters(&place)[0]["error"]["message"].as_str().unwrap().contains("time of day"));
}

#[test]
fn the_file_read_cannot_be_the_file_written() {
    let place = Place::with("CREATE TABLE t(id)");
    place.write("dead.jsonl", "");
    let run = place
        .barge(&["load", "dead.jsonl", "--to", "sqlite:test.db", "--dead-letter", "./dead.jsonl"])
        .ends(2);
    assert!(run.err.contains("give --dead-letter another path"), "{run:?}");
}
