//! The types of tables that others made: what is written comes back, what can't be kept is rejected alone.

use arrow::datatypes::DataType::{self, Utf8};
use barge_core::Operation::{Insert, Upsert};

use crate::support::{Fresh, words};

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
        ("char(3)", &["ab", "abcd"], &["ab", "InvalidValue"]),
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
        ("char(4)", "ab", "ab"),
        ("mood", "ok", "ok"),
        ("inet", "10.0.0.1", "10.0.0.1"),
        ("varchar(9)", "x y", "x y"),
        ("numeric", "1.5", "1.5"),
    ] {
        let table = format!("keyed {name}");
        fresh.run(&format!("CREATE TABLE \"{table}\"(k {name} PRIMARY KEY, v text)")).await;
        let columns = [("k", Utf8), ("v", Utf8)];
        let answers = fresh.write(&table, Upsert, &["k"], &columns, &[&[Some(first), Some("1")]]).await;
        assert_eq!(words(&answers), ["Inserted"], "{name}");
        let answers = fresh
            .write(&table, Upsert, &["k"], &columns, &[&[Some(second), Some("2")], &[Some(first), Some("3")]])
            .await;
        assert_eq!(words(&answers), ["Updated", "Updated"], "{name}");
        assert_eq!(fresh.rows(&format!("SELECT count(*), max(v) FROM \"{table}\"")).await, ["1|3"], "{name}");
    }
}
