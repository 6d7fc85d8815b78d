//! The types of tables that others made: what is written comes back, what can't be kept is rejected alone.

use std::sync::Arc;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::DataType::{self, Utf8};
use arrow::datatypes::{Field, Int64Type};
use barge_core::Operation::{Delete, Insert, InsertIfAbsent, Update, Upsert};
use barge_core::Table;
use barge_core::record::{Column, Role};
use barge_core::store::LookUp;

use crate::support::{Fresh, batch, words};

/// Writes texts into a column of a type, and gives what the database says it holds, or why not.
async fn written(fresh: &Fresh, name: &str, texts: &[&str]) -> Vec<String> {
    let table = format!("typed {name}");
    fresh.run(&format!("CREATE TABLE \"{table}\"(id bigint PRIMARY KEY, v {name})")).await;
    let ids: Vec<String> = (0..texts.len()).map(|id| id.to_string()).collect();
    let rows: Vec<[Option<&str>; 2]> =
        ids.iter().zip(texts).map(|(id, text)| [Some(id.as_str()), Some(*text)]).collect();
    let rows: Vec<&[Option<&str>]> = rows.iter().map(|row| &row[..]).collect();
    let answers = fresh.write(&table, Insert, &[], &[("id", DataType::Int64), ("v", Utf8)], &rows).await;
    let held = fresh.rows(&format!("SELECT id, v::text FROM \"{table}\"")).await;
    let held = |id: usize| held.iter().find_map(|row| row.strip_prefix(&format!("{id}|"))).map(str::to_owned);
    words(&answers).into_iter().enumerate().map(|(id, word)| held(id).unwrap_or(word)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn text_becomes_any_type_or_is_rejected_alone() {
    let fresh = Fresh::with(&[
        "CREATE EXTENSION citext",
        "CREATE TYPE mood AS ENUM ('sad', 'ok', 'quite happy')",
        "CREATE DOMAIN positive AS integer CHECK (VALUE > 0)",
        "CREATE DOMAIN short AS varchar(3)",
    ])
    .await;
    let cases: &[(&str, &[&str], &[&str])] = &[
        ("smallint", &["7", "32768", "x"], &["7", "InvalidValue", "InvalidValue"]),
        ("integer", &["-5", "2147483648"], &["-5", "InvalidValue"]),
        ("numeric(5,2)", &["1.50", "1.555", "12345.00"], &["1.50", "InvalidValue", "InvalidValue"]),
        (
            "numeric",
            &["123456789012345678901234567890.123", "NaN", "abc"],
            &["123456789012345678901234567890.123", "NaN", "InvalidValue"],
        ),
        ("varchar(3)", &["abc", "abcd", "äöü"], &["abc", "InvalidValue", "äöü"]),
        // Cast to text, a char(n) has lost its blanks.
        (
            "char(3)",
            &["ab", "abcd", "ab ", "ab    ", "  a", "a  b"],
            &["ab", "InvalidValue", "ab", "ab", "  a", "InvalidValue"],
        ),
        ("short", &["abc", "abcd"], &["abc", "InvalidValue"]),
        ("positive", &["5", "-5", "6"], &["5", "CheckViolation", "6"]),
        ("mood", &["ok", "angry", "quite happy"], &["ok", "InvalidValue", "quite happy"]),
        ("citext", &["Ab"], &["Ab"]),
        ("inet", &["10.0.0.1/8", "nowhere", "::1"], &["10.0.0.1/8", "InvalidValue", "::1/128"]),
        ("interval", &["1 day 02:00:00", "soon"], &["1 day 02:00:00", "InvalidValue"]),
        ("int4range", &["[1,5)", "[5,1)"], &["[1,5)", "InvalidValue"]),
        ("json", &["{\"a\": 1}", "{"], &["{\"a\": 1}", "InvalidValue"]),
        ("jsonb", &["{\"a\": 1}", "{"], &["{\"a\": 1}", "InvalidValue"]),
        ("text", &["a\0b", "fine"], &["InvalidValue", "fine"]),
        ("xml", &["<a/>"], &["<a/>"]),
        ("bit varying(3)", &["101", "10101"], &["101", "InvalidValue"]),
    ];
    for (name, texts, expected) in cases {
        assert_eq!(written(&fresh, name, texts).await, *expected, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_of_every_kind_are_found_again() {
    let fresh = Fresh::with(&["CREATE EXTENSION citext", "CREATE TYPE mood AS ENUM ('sad', 'ok')"]).await;
    for (name, first, second) in [
        ("citext", "Ab", "aB"),
        ("char(4)", "ab", "ab  "),
        ("char(4)", "ab", "ab"),
        ("mood", "ok", "ok"),
        ("inet", "10.0.0.1", "10.0.0.1/32"),
        ("inet", "::1", "0:0:0:0:0:0:0:1"),
        ("interval", "36 hours", "1 day 12:00:00"),
        ("macaddr", "08:00:2b:01:02:03", "08002b-010203"),
        ("int4range", "[1,5)", "[1,4]"),
        ("money", "$1.50", "1.5"),
        ("varchar(9)", "x y", "x y"),
        ("numeric", "1.5", "1.50"),
    ] {
        let table = format!("keyed {name} by {first} and {second}");
        fresh.run(&format!("CREATE TABLE \"{table}\"(k {name} PRIMARY KEY, v text)")).await;
        let columns = [("k", Utf8), ("v", Utf8)];
        let answers = fresh.write(&table, Upsert, &["k"], &columns, &[&[Some(first), Some("1")]]).await;
        assert_eq!(words(&answers), ["Inserted"], "{name}");
        let answers = fresh
            .write(&table, Upsert, &["k"], &columns, &[&[Some(second), Some("2")], &[Some(first), Some("3")]])
            .await;
        assert_eq!(words(&answers), ["Updated", "Updated"], "{name}");
        assert_eq!(fresh.rows(&format!("SELECT count(*), max(v) FROM \"{table}\"")).await, ["1|3"], "{name}");
        // Looked up, inserted again, updated and deleted, in whatever spelling.
        assert_eq!(
            found(&fresh, &table, &[first, second]).await,
            [Some("3".to_owned()), Some("3".to_owned())],
            "{name}"
        );
        for (operation, outcome) in [
            (Insert, "UniqueViolation"),
            (InsertIfAbsent, "Unchanged"),
            (Update, "Updated"),
            (Delete, "Deleted"),
        ] {
            let answers =
                fresh.write(&table, operation, &["k"], &columns, &[&[Some(second), Some("4")]]).await;
            assert_eq!(words(&answers), [outcome], "{name}, {operation}");
        }
        assert_eq!(found(&fresh, &table, &[first]).await, [None], "{name}");
    }
}

/// The values that go with keys, outside a transaction and inside.
async fn found(fresh: &Fresh, table: &str, keys: &[&str]) -> Vec<Option<String>> {
    let text = |name: &str| Arc::new(Field::new(name, Utf8, false));
    let columns =
        vec![Column { field: text("k"), role: Role::Key }, Column { field: text("v"), role: Role::Plain }];
    let rows: Vec<[Option<&str>; 1]> = keys.iter().map(|key| [Some(*key)]).collect();
    let rows: Vec<&[Option<&str>]> = rows.iter().map(|row| &row[..]).collect();
    let look_up = LookUp::new(Arc::new(Table::new(table, columns).unwrap()), batch(&[("k", Utf8)], &rows));
    let mut transaction = fresh.db.store().begin().await.unwrap();
    let inside = transaction.look_up(&look_up).await.unwrap();
    transaction.rollback().await.unwrap();
    let outside = fresh.db.store().look_up(look_up).await.unwrap().into_batch().await.unwrap();
    let values = |found: &RecordBatch| {
        let mut values = vec![None; keys.len()];
        let ordinals = found.column(0).as_primitive::<Int64Type>();
        for (row, ordinal) in ordinals.values().iter().enumerate() {
            values[*ordinal as usize] = Some(found.column(2).as_string::<i32>().value(row).to_owned());
        }
        values
    };
    assert_eq!(values(&inside), values(&outside));
    values(&outside)
}

/// Blanks at the end of a `char(n)` mean nothing: written with any number of them, by small statements and by COPY, a value is read without.
#[tokio::test(flavor = "multi_thread")]
async fn a_text_may_come_padded() {
    let fresh = Fresh::with(&["CREATE TABLE t(id bigint PRIMARY KEY, v char(4), w bpchar)"]).await;
    let columns = [("id", DataType::Int64), ("v", Utf8), ("w", Utf8)];
    for rows in [1, 300] {
        let ids: Vec<String> = (0..rows).map(|id| id.to_string()).collect();
        for (operation, written) in [(Insert, "ab      "), (Update, "ab"), (Upsert, "ab  ")] {
            let batch: Vec<[Option<&str>; 3]> =
                ids.iter().map(|id| [Some(id.as_str()), Some(written), Some(written)]).collect();
            let batch: Vec<&[Option<&str>]> = batch.iter().map(|row| &row[..]).collect();
            let key: &[&str] = if operation == Insert { &[] } else { &["id"] };
            let answers = fresh.write("t", operation, key, &columns, &batch).await;
            assert!(answers.iter().all(Result::is_ok), "{operation} {written:?}: {:?}", answers[0]);
            assert_eq!(fresh.rows("SELECT DISTINCT v, w FROM t").await, ["ab|ab"], "{operation} of {rows}");
        }
        fresh.run("TRUNCATE t").await;
    }
}

/// Many rows, which go by COPY, of whose keys some are equal in other spellings: each but the first is rejected alone.
#[tokio::test(flavor = "multi_thread")]
async fn keys_that_are_equal_in_another_spelling_are_the_same_among_many() {
    let fresh = Fresh::with(&["CREATE TABLE hosts(address inet PRIMARY KEY)"]).await;
    let addresses: Vec<String> = (0..300)
        .map(|place| match place {
            150 => "10.0.0.7/32".to_owned(),
            place => format!("10.0.{}.{}", place / 250, place % 250),
        })
        .collect();
    let rows: Vec<[Option<&str>; 1]> = addresses.iter().map(|address| [Some(address.as_str())]).collect();
    let rows: Vec<&[Option<&str>]> = rows.iter().map(|row| &row[..]).collect();
    let answers = words(&fresh.write("hosts", Insert, &[], &[("address", Utf8)], &rows).await);
    let failed: Vec<usize> = (0..300).filter(|row| answers[*row] != "Inserted").collect();
    assert_eq!((failed, answers[150].as_str()), (vec![150], "UniqueViolation"));
    // In the server's own spelling, whatever was written.
    let read = fresh.rows("SELECT address::text FROM hosts WHERE address = '10.0.0.7'").await;
    assert_eq!(read, ["10.0.0.7/32"]);
}
