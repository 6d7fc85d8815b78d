//! `barge tables` and `barge describe`.

use serde_json::json;

use crate::Place;

const TABLES: &str = "
    CREATE TABLE author(id INTEGER PRIMARY KEY, name TEXT NOT NULL COLLATE NOCASE UNIQUE);
    CREATE TABLE book(
        author INTEGER NOT NULL REFERENCES author(id) ON DELETE CASCADE, number INTEGER, title TEXT DEFAULT 'none',
        shout TEXT GENERATED ALWAYS AS (upper(title)), PRIMARY KEY (author, number)) WITHOUT ROWID;
    CREATE VIEW titles AS SELECT title FROM book;
    CREATE TRIGGER watch AFTER INSERT ON book BEGIN SELECT 1; END;";

#[test]
fn tables_are_listed() {
    let place = Place::with(TABLES);
    assert_eq!(
        place.barge(&["tables", "sqlite:test.db"]).ends(0).out,
        "author  table  2 columns  key (id)\n\
         book    table  4 columns  key (author, number)\n\
         titles  view   1 column\n"
    );
    let listed = place.barge(&["tables", "sqlite:test.db", "--json"]).ends(0).json();
    assert_eq!(
        listed[1],
        json!({"schema": null, "name": "book", "kind": "table", "columns": 4, "key": ["author", "number"]})
    );
    assert_eq!(Place::with("").barge(&["tables", "sqlite:test.db"]).ends(0).out, "");
}

#[test]
fn a_table_is_described() {
    let place = Place::with(TABLES);
    let author = place.barge(&["describe", "sqlite:test.db", "author"]).ends(0).out;
    assert_eq!(
        author.lines().take(5).collect::<Vec<_>>(),
        [
            "table author",
            "",
            "  column  type     null  default  notes",
            "  id      INTEGER  no             key; drawn by the database where it is not given",
            "  name    TEXT     no             collation NOCASE",
        ]
    );
    assert!(author.contains("\nreferenced by\n  book  →  (id)  on delete cascade\n"), "{author}");
    let book = place.barge(&["describe", "sqlite:test.db", "BOOK"]).ends(0).out;
    for part in [
        "'none'",
        "key, 2 of 2",
        "computed",
        "foreign keys\n  (author)  →  author (id)",
        "triggers\n  watch\n",
    ] {
        assert!(book.contains(part), "{part}: {book}");
    }
    let described = place.barge(&["describe", "sqlite:test.db", "book", "--json"]).ends(0).json();
    assert_eq!(described["columns"][3]["computed"], true);
    assert_eq!(described["foreign_keys"][0]["parent"]["name"], "author");
    assert_eq!(described["foreign_keys"][0]["on_delete"], "cascade");
}

#[test]
fn a_table_that_is_missing_suggests_another() {
    let place = Place::with(TABLES);
    let run = place.barge(&["describe", "sqlite:test.db", "auhtor"]).ends(1);
    assert!(run.message().ends_with("did you mean author?"), "{run:?}");
    assert_eq!(run.out, "");
}

#[test]
fn a_database_that_is_missing_is_not_made() {
    let place = Place::new();
    for arguments in [&["tables", "sqlite:missing.db"][..], &["describe", "sqlite:missing.db", "t"]] {
        let run = place.barge(arguments).ends(1);
        assert!(run.message().contains("missing.db does not exist"), "{run:?}");
        assert!(!place.path("missing.db").exists());
    }
    place.barge(&["tables", "sqlite:asked.db?create=true"]).ends(0);
    assert!(place.path("asked.db").exists());
}

#[test]
fn help_and_version_are_there() {
    let place = Place::new();
    assert_eq!(place.barge(&["--version"]).ends(0).out, format!("barge {}\n", env!("CARGO_PKG_VERSION")));
    let help = place.barge(&["load", "--help"]).ends(0).out;
    for part in ["Examples:", "Exit status:", "--max-rejects", "default: no limit"] {
        assert!(help.contains(part), "{part}: {help}");
    }
}
