//! Bad input: a message that names the file, line, column and value, and what was expected; and the right exit status.

use crate::Place;

const TABLE: &str =
    "CREATE TABLE t(id INTEGER PRIMARY KEY, price REAL, day TEXT, small INTEGER CHECK (small < 100))";

/// Loads a CSV into the table and gives the rejected rows' messages.
fn rejected(content: impl AsRef<[u8]>) -> Vec<String> {
    let place = Place::with(TABLE);
    place.write("bad.csv", content);
    let run = place.load("bad.csv", &["--json"]).ends(3);
    let [read, written, rejected] = run.counts();
    assert_eq!(read, written + rejected);
    assert_eq!(place.count("t") as u64, written);
    run.rejected()
}

#[test]
fn a_ragged_line() {
    assert_eq!(
        rejected("id,price\n1,2.5\n2\n3,1,1\n4,1\n"),
        [
            "3: bad.csv, line 3: the line has 1 field where 2 are expected",
            "4: bad.csv, line 4: the line has 3 fields where 2 are expected"
        ]
    );
}

#[test]
fn a_number_that_is_text() {
    assert_eq!(
        rejected("id,price\n1,cheap\n2,1\n"),
        ["2: bad.csv, line 2, column price: \"cheap\" is not a number"]
    );
}

#[test]
fn a_value_out_of_range() {
    let rejected = rejected("id,price\n9223372036854775808,1\n2,1e999\n3,1\n");
    assert!(
        rejected[0].starts_with("2: bad.csv, line 2, column id: \"9223372036854775808\""),
        "{rejected:?}"
    );
    assert!(rejected[1].starts_with("3: bad.csv, line 3, column price: \"1e999\""), "{rejected:?}");
    assert_eq!(rejected.len(), 2);
}

#[test]
fn invalid_utf8() {
    let rejected = rejected(b"id,day\n1,a\xffb\n2,ok\n");
    assert_eq!(rejected.len(), 1);
    assert!(rejected[0].starts_with("2: bad.csv, line 2, column day:"), "{rejected:?}");
    assert!(rejected[0].contains("UTF-8"), "{rejected:?}");
}

#[test]
fn a_check_and_a_duplicate_are_told_with_their_lines() {
    let place = Place::with(TABLE);
    place.write("bad.csv", "id,small\n1,5\n2,500\n1,6\nx,1\n3,7\n");
    let run = place.load("bad.csv", &[]).ends(3);
    let told: Vec<&str> = run.out.lines().filter(|line| line.contains("bad.csv, line")).collect();
    assert_eq!(told.len(), 3, "{}", run.out);
    assert!(told[0].starts_with("    bad.csv, line 3") && told[0].contains("CHECK"), "{told:?}");
    assert!(told[1].starts_with("    bad.csv, line 4, column id: "), "{told:?}");
    assert!(told[2].starts_with("    bad.csv, line 5, column id: \"x\" is not an integer"), "{told:?}");
    assert!(run.out.contains("rejected rows") && run.err.is_empty(), "{run:?}");
}

#[test]
fn a_violated_foreign_key() {
    let place = Place::with(
        "CREATE TABLE parent(id INTEGER PRIMARY KEY); INSERT INTO parent VALUES (1);
         CREATE TABLE t(id INTEGER PRIMARY KEY, parent INTEGER REFERENCES parent(id));",
    );
    place.write("a.csv", "id,parent\n1,1\n2,7\n");
    let run = place.load("a.csv", &["--json"]).ends(3);
    assert_eq!(run.json()["rejected"][0]["kind"], "ForeignKeyViolation");
    assert_eq!(run.json()["rejected"][0]["line"], 3);
    assert_eq!(place.count("t"), 1);
}

#[test]
fn an_unknown_column_names_those_there_are_and_the_nearest() {
    let place = Place::with(TABLE);
    place.write("a.csv", "id,prise\n1,2\n");
    let run = place.load("a.csv", &[]).ends(1);
    assert_eq!(
        run.message(),
        "table t: a.csv has a column prise, which the table lacks; did you mean price?; \
         the table's columns are id, price, day, small"
    );
}

#[test]
fn a_missing_key_column() {
    let place = Place::with(TABLE);
    place.write("a.csv", "identity,price\n1,2\n");
    let run = place.load("a.csv", &["--key", "id"]).ends(1);
    assert!(run.message().contains("identity"), "{run:?}");
    let run =
        place.barge(&["load", "a.csv", "--to", "sqlite:test.db", "--table", "new", "--key", "id"]).ends(1);
    assert_eq!(run.message(), "a.csv lacks the key column id; its columns are identity, price");
    assert_eq!(place.rows("SELECT name FROM sqlite_master"), ["t"]);
    place.write("b.csv", "price\n2\n");
    let run = place.load("b.csv", &["--mode", "upsert"]).ends(1);
    assert!(run.message().contains("b.csv lacks the key column id"), "{run:?}");
}

#[test]
fn a_key_that_the_table_does_not_have() {
    let place = Place::with(TABLE);
    place.write("a.csv", "id,price\n1,2\n");
    for mode in ["append", "upsert"] {
        let run = place.load("a.csv", &["--key", "price", "--mode", mode]).ends(1);
        assert!(run.message().contains("on exactly (price)"), "{run:?}");
    }
}

#[test]
fn a_truncated_parquet_file() {
    let place = Place::new();
    place.write("a.parquet", &crate::formats::parquet(1_000)[..5_000]);
    let run = place.load("a.parquet", &[]).ends(1);
    assert!(run.message().contains("a.parquet"), "{run:?}");
    assert_eq!(run.message().lines().count(), 1);
}

#[test]
fn truncated_compressed_files_give_what_came_before() {
    let place = Place::new();
    let content: String = (0..50_000).map(|row| format!("{row},name {}\n", row * 7919 % 10_007)).collect();
    let packed = zstd::encode_all(format!("id,name\n{content}").as_bytes(), 1).unwrap();
    place.write("a.csv.zst", &packed[..packed.len() / 2]);
    let run = place.load("a.csv.zst", &["--json", "--batch-rows", "1000"]).ends(1);
    assert!(run.message().contains("a.csv.zst is truncated"), "{run:?}");
    assert_eq!(run.counts()[1], place.count("t") as u64);
    assert!(run.counts()[1] > 1_000);
}

#[test]
fn paths_that_cannot_be() {
    let place = Place::with(TABLE);
    place.write("a.csv", "id\n1\n");
    for (arguments, expected) in [
        (
            &["load", "gone.csv", "--to", "sqlite:test.db", "--table", "t"][..],
            "cannot read gone.csv: there is no such file",
        ),
        (&["load", ".", "--to", "sqlite:test.db", "--table", "t"], "is a directory"),
        (&["load", "a.csv", "--to", "sqlite:gone/x.db", "--table", "t"], "there is no directory gone"),
        (&["load", "a.csv", "--to", "sqlite:a.csv", "--table", "t"], "a.csv"),
        (&["load", "a.csv", "--to", "sqlite:.", "--table", "t"], "is a directory"),
        (
            &["load", "a.csv", "--to", "sqlite:test.db", "--table", "t", "--dead-letter", "gone/dead.jsonl"],
            "the dead letter file gone/dead.jsonl can't be written",
        ),
    ] {
        let run = place.barge(arguments).ends(1);
        assert!(run.message().contains(expected), "{arguments:?}: {run:?}");
        assert_eq!(run.out, "");
    }
    assert_eq!(place.count("t"), 0);
}

#[test]
fn a_missing_file_makes_no_database() {
    let place = Place::new();
    place.load("gone.csv", &[]).ends(1);
    assert!(!place.path("test.db").exists());
}

#[test]
fn a_full_database_stops_the_load_and_accounts_for_every_row() {
    let place = Place::new();
    let content: String = (0..20_000).map(|row| format!("{row},{}\n", "x".repeat(50))).collect();
    place.write("a.csv", format!("id,text\n{content}"));
    let run = place.barge(&[
        "load",
        "a.csv",
        "--to",
        "sqlite:test.db?pragma.max_page_count=100",
        "--table",
        "t",
        "--key",
        "id",
        "--batch-rows",
        "500",
        "--json",
        "--dead-letter",
        "dead.jsonl",
    ]);
    let run = run.ends(1);
    assert!(run.message().contains("full"), "{run:?}");
    let [read, written, rejected] = run.counts();
    let not_written = run.json()["rows_not_written"].as_u64().unwrap();
    assert_eq!((read, rejected), (written + not_written, 0));
    assert_eq!(place.count("t") as u64, written);
    // What was read and not written can be loaded again.
    assert_eq!(place.read("dead.jsonl").lines().count() as u64, not_written);
    assert_eq!(run.json()["stopped_at"]["line"].as_u64().unwrap(), read + 1);
}

#[test]
fn a_full_disk_for_dead_letters_is_an_error() {
    let place = Place::with(TABLE);
    place.write("a.csv", "id\nx\n1\n");
    let run = place.load("a.csv", &["--dead-letter", "/dev/full"]).ends(1);
    assert!(run.message().contains("the dead letter file /dev/full can't be written"), "{run:?}");
    assert!(run.has_line("batches 0"), "{run:?}");

    // The account adds up all the same.
    let content: String =
        (0..500).map(|row| format!("{row},{}\n", if row % 10 == 9 { "bad" } else { "1" })).collect();
    place.write("b.csv", format!("id,price\n{content}"));
    let run = place.load("b.csv", &["--dead-letter", "/dev/full", "--json"]).ends(1);
    assert_eq!(run.counts(), [500, 0, 50]);
    assert_eq!(run.json()["rows_not_written"], 450);
    assert_eq!(run.json()["dead_letter_kept"], "failed");
    assert_eq!(run.rejected().len(), 10);
    let run = place.load("b.csv", &["--dead-letter", "/dev/full"]).ends(1);
    assert!(run.has_line("rejected 50 not all kept: /dev/full could not be written"), "{run:?}");
    assert!(run.has_line("not written 450 not all kept: /dev/full could not be written"), "{run:?}");
}

#[test]
fn too_many_rejects_stop_the_load() {
    let place = Place::with(TABLE);
    let content: String =
        (0..5_000).map(|row| format!("{row},{}\n", if row % 100 == 99 { "bad" } else { "1" })).collect();
    place.write("a.csv", format!("id,price\n{content}"));
    let arguments = ["--batch-rows", "100", "--json", "--max-rejects"];
    let run = place.load("a.csv", &[&arguments[..], &["3"]].concat()).ends(1);
    assert!(run.message().contains("--max-rejects allows 3"), "{run:?}");
    let [read, written, rejected] = run.counts();
    assert_eq!(read, written + rejected);
    assert!((4..=10).contains(&rejected), "{run:?}");
    assert_eq!(place.count("t") as u64, written);
    place.sql().execute_batch("DELETE FROM t").unwrap();
    assert_eq!(place.load("a.csv", &[&arguments[..], &["50"]].concat()).ends(3).counts(), [5_000, 4_950, 50]);
}

#[test]
fn wrong_command_lines() {
    let place = Place::with(TABLE);
    place.write("a.csv", "id\n1\n");
    let to = ["--to", "sqlite:test.db"];
    for (arguments, expected) in [
        (&["load"][..], "required"),
        (&["load", "a.csv"], "--to"),
        (&[&["load", "a.csv"][..], &to].concat(), "--table must say where its rows go"),
        (&[&["load", "a.csv", "--table", "t", "--mode", "merge"][..], &to].concat(), "merge"),
        (&[&["load", "a.csv", "--table", "t", "--key", "id,,x"][..], &to].concat(), "empty"),
        (
            &[&["load", "a.csv", "--table", "t", "--batch-rows", "0"][..], &to].concat(),
            "'--batch-rows <ROWS>': expected a number of rows, from 1 to",
        ),
        (&[&["load", "a.csv", "--table", "t", "--sample-rows", "0"][..], &to].concat(), "--sample-rows"),
        (
            &[&["load", "a.csv", "--table", "t", "--batch-bytes", "0"][..], &to].concat(),
            "from 1 byte to 1GiB",
        ),
        (&[&["load", "a.csv", "--table", ""][..], &to].concat(), "--table"),
        (
            &[&["load", "a.csv", "--table", "t", "--columns", "a,b"][..], &to].concat(),
            "a.csv has 1 column, and 2 were named for it",
        ),
        (
            &[&["load", "a.csv", "--table", "new", "--mode", "upsert"][..], &to].concat(),
            "table new: upsert finds rows by key: name its columns with --key",
        ),
        (&["load", "a.csv", "--to", "oracle:x", "--table", "t"], "oracle: there is no such store"),
        (&["load", "a.csv", "--to", "t.db", "--table", "t"], "write sqlite:t.db for an SQLite file"),
        (&["load", "a.csv", "--to", "/tmp/x.db", "--table", "t"], "write sqlite:/tmp/x.db"),
        #[cfg(not(feature = "duckdb"))]
        (&["load", "a.csv", "--to", "duckdb:x.db", "--table", "t"], "with the feature `duckdb` it has it"),
        (&["load", "a.csv", "--to", "sqlite:test.db?colour=red", "--table", "t"], "colour"),
        (
            &[&["load", "a.csv", "--table", "t", "--connections", "2"][..], &to].concat(),
            "SQLite has one writer at a time",
        ),
        (&["tables", "oracle:x"], "oracle"),
        (&["describe", "sqlite:test.db", ""], "<TABLE>"),
        (&[&["load", "a.csv", "--table", "t", "--column-type", "id=colour"][..], &to].concat(), "colour"),
        (&[&["load", "-", "-", "--table", "t"][..], &to].concat(), "only once"),
        (&[&["load", "a.csv", "--mode", "replace"][..], &to].concat(), "need --table"),
        (&["unload"], "unload"),
    ] {
        let run = place.barge(arguments).ends(2);
        assert!(run.err.contains(expected), "{arguments:?}: {run:?}");
        assert!(!run.err.contains("secret"), "{run:?}");
        assert_eq!(run.out, "");
    }
    assert_eq!(place.rows("SELECT name FROM sqlite_master"), ["t"]);
}

#[test]
fn columns_that_differ_in_case_alone_make_no_table() {
    let place = Place::with(TABLE);
    place.write("a.csv", "\nName,id,name\nx,1,y\n");
    for mode in ["append", "replace"] {
        let arguments = ["load", "a.csv", "--to", "sqlite:test.db", "--table", "new", "--mode", mode];
        let run = place.barge(&arguments).ends(1);
        assert_eq!(
            run.message(),
            "a.csv, line 2: the columns Name and name differ in nothing but case, which one table can't have: rename one"
        );
    }
    assert_eq!(place.rows("SELECT name FROM sqlite_master"), ["t"]);
}

#[test]
fn a_later_file_with_another_column_is_refused_before_anything_is_written() {
    let place = Place::new();
    place.write("a.csv", "id,name\n1,x\n");
    place.write("b.csv", "id,nmae\n2,y\n");
    let arguments = ["load", "a.csv", "b.csv", "--to", "sqlite:test.db", "--table", "t"];
    for mode in ["append", "replace"] {
        let run = place.barge(&[&arguments[..], &["--mode", mode]].concat()).ends(1);
        assert!(
            run.message()
                .contains("b.csv has a column nmae, which the first file, a.csv, lacks; did you mean name?"),
            "{run:?}"
        );
        assert_eq!(run.out, "");
    }
    assert_eq!(place.rows("SELECT name FROM sqlite_master"), [] as [&str; 0]);
}

#[test]
fn an_option_that_names_no_column() {
    let place = Place::with(TABLE);
    place.write("a.csv", "id\n1\n");
    let run = place.load("a.csv", &["--text", "price"]).ends(2);
    assert!(run.message().starts_with("a.csv has no column price; its columns are id\n"), "{run:?}");
}
