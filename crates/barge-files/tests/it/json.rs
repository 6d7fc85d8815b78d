use std::io::Cursor;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use barge_files::{ReadOptions, Source};

use crate::{failure, read, read_source, read_with};

#[test]
fn keys_become_columns() {
    let outcome = read(
        "a.jsonl",
        "{\"id\": 1, \"name\": \"a\\tb\\u00e9\", \"at\": \"2024-02-29T10:00:00Z\", \"nested\": {\"x\": [1, 2]}}\n\n\
         {\"name\": \"7\", \"id\": null, \"price\": 2.5, \"nested\": \"text\", \"on\": true}\r\n\
         {\"price\": 3}",
    );
    assert_eq!(
        outcome.types,
        [
            "id: Int64",
            "name: Utf8",
            "at: Timestamp(µs, \"UTC\")",
            "nested: Utf8",
            "price: Float64",
            "on: Boolean"
        ]
    );
    assert_eq!(
        outcome.rows(),
        ["1|a\tbé|2024-02-29T10:00:00Z|{\"x\": [1, 2]}|∅|∅", "∅|7|∅|\"text\"|2.5|true", "∅|∅|∅|∅|3.0|∅"]
    );
    assert_eq!(outcome.lines, [1, 3, 4]);
    let schema = outcome.batch.schema();
    assert_eq!(schema.field(3).metadata()["ARROW:extension:name"], "arrow.json");
}

#[test]
fn bad_lines_are_rejected() {
    let options = ReadOptions { sample_rows: 1, ..ReadOptions::default() };
    let mut content = b"{\"a\": 1, \"b\": \"x\"}\n".to_vec();
    for line in [
        &b"{\"a\": 2, \"c\": 3}"[..],
        b"{\"a\": 2",
        b"[1, 2]",
        b"{\"a\": 1.5}",
        b"{\"a\": \"5\", \"a\": 6}",
        b"{\"b\": \"\xff\"}",
        b"{\"b\": \"\\ud800\"}",
        b"{\"a\": 1} {\"a\": 2}",
        b"{\"a\": 9}",
    ] {
        content.extend_from_slice(line);
        content.push(b'\n');
    }
    let outcome = read_with("a.jsonl", content, &options).unwrap();
    assert_eq!(outcome.rows(), ["1|x", "9|∅"]);
    assert_eq!(outcome.lines, [1, 10]);
    assert_eq!(
        outcome.reasons(),
        [
            "a.jsonl, line 2: the key \"c\" is none of the columns, which were taken from the first row: use a \
             larger --sample-rows",
            "a.jsonl, line 3: not a valid JSON object: EOF while parsing an object, at byte 7 of the line",
            "a.jsonl, line 4: not a valid JSON object: invalid type: sequence, expected an object, at byte 0 of the \
             line",
            "a.jsonl, line 5, column a: \"1.5\" is not an integer; the column was taken for Int64 from the first \
             row: use --text a or a larger --sample-rows",
            "a.jsonl, line 6: the key \"a\" is there twice",
            "a.jsonl, line 7: byte 8 of the line, 0xff, is not valid UTF-8",
            "a.jsonl, line 8: the value of \"b\" is half of a surrogate pair, not text",
            "a.jsonl, line 9: not a valid JSON object: trailing characters, at byte 10 of the line",
        ]
    );
}

#[test]
fn files_without_objects_are_refused() {
    assert_eq!(failure("a.jsonl", ""), "a.jsonl is empty: it has no objects, so no columns");
    assert_eq!(
        failure("a.json", "[\n{\"a\": 1}\n]\n"),
        "a.json holds a JSON array, not JSON lines: write one object a line, without brackets"
    );
    assert_eq!(
        failure("a.jsonl", "a,b\n1,2\n"),
        "a.jsonl holds no JSON objects; line 1: not a valid JSON object: expected value, at byte 1 of the line"
    );
}

fn tables(name: &str) -> Option<SchemaRef> {
    let fields = match name {
        "tasks" => vec![
            Field::new("id", DataType::Int64, false),
            Field::new("score", DataType::Float64, true),
            Field::new("blob", DataType::Binary, true),
            Field::new("price", DataType::Decimal128(10, 2), true),
        ],
        _ => return None,
    };
    Some(Arc::new(Schema::new(fields)))
}

#[test]
fn dead_letters_come_by_table_operation_and_columns() {
    let letter = |table: &str, operation: &str, row: &str| {
        format!(
            "{{\"barge\": 1, \"table\": \"{table}\", \"operation\": \"{operation}\", \
             \"error\": {{\"kind\": \"Busy\"}}, \"row\": {row}, \"at\": 5}}\n"
        )
    };
    let content = [
        letter("tasks", "insert", r#"{"id": 1, "score": "NaN", "blob": "\\x00ff", "price": "1.50"}"#),
        letter("tasks", "insert", r#"{"score": "-inf", "id": "2", "blob": null, "price": 2}"#),
        letter("tasks", "update", r#"{"id": 1, "score": 0.5}"#),
        letter("tasks", "update", r#"{"id": 2}"#),
        "{\"id\": 3}\n".to_owned(),
        letter("tasks", "update", r#"{"id": "x"}"#),
        letter("notes", "update", r#"{"id": "x"}"#),
    ]
    .concat();
    let options =
        ReadOptions { tables: Some(Arc::new(|letter| tables(&letter.table))), ..ReadOptions::default() };
    let mut source = Source::from_reader("dead.jsonl", Cursor::new(content), &options).unwrap();
    assert_eq!(source.dead_letter().map(|letter| &*letter.operation), Some("insert"));
    let mut seen = Vec::new();
    while let Some(chunk) = source.next_chunk().unwrap() {
        let letter = chunk.dead_letter.unwrap();
        let names: Vec<_> = chunk.batch.schema().fields().iter().map(|field| field.name().clone()).collect();
        let rejected: Vec<_> = chunk.rejected.iter().map(ToString::to_string).collect();
        let rows = chunk.batch.num_rows();
        seen.push(format!(
            "{} {} {names:?} {rows} {:?} {rejected:?}",
            letter.operation, letter.table, chunk.lines
        ));
    }
    assert_eq!(
        seen,
        [
            "insert tasks [\"id\", \"score\", \"blob\", \"price\"] 2 Range { first: 1, rows: 2 } []",
            "update tasks [\"id\", \"score\"] 1 Range { first: 3, rows: 1 } []",
            "update tasks [\"id\"] 1 Range { first: 4, rows: 1 } [\"dead.jsonl, line 5: not a dead letter as the \
             lines before it: missing field `barge`\", \"dead.jsonl, line 6, column id: \\\"x\\\" is not an integer\"]",
            "update notes [\"id\"] 1 Range { first: 7, rows: 1 } []",
        ]
    );
}

#[test]
fn a_letter_may_name_a_schema_and_lack_its_row() {
    let letter = |schema: &str, row: &str| {
        format!("{{\"barge\":1,\"table\":\"notes\",{schema}\"operation\":\"insert\",\"error\":\"e\"{row}}}\n")
    };
    let content = [
        letter("", ",\"text\":\"1,2,3\""),
        letter("", ",\"row\":{\"id\":1}"),
        letter("\"schema\":\"app\",", ",\"row\":{\"id\":2}"),
    ]
    .concat();
    let options = ReadOptions::default();
    let mut source = Source::from_reader("dead.jsonl", Cursor::new(content), &options).unwrap();
    let first = source.next_chunk().unwrap().unwrap();
    assert_eq!((first.batch.num_rows(), first.rejected.len()), (1, 1));
    assert!(first.rejected[0].error.to_string().contains("line 1: the letter has no row"));
    assert_eq!(first.dead_letter.unwrap().schema, None);
    let second = source.next_chunk().unwrap().unwrap();
    assert_eq!(second.dead_letter.unwrap().schema.as_deref(), Some("app"));
}

#[test]
fn dead_letters_keep_their_values() {
    let content = "{\"barge\":1,\"table\":\"tasks\",\"operation\":\"insert\",\"error\":\"e\",\"row\":{\"id\":\"1\",\
                   \"score\":\"inf\",\"blob\":\"\\\\x00ff\",\"price\":\"1.50\"}}";
    let options = ReadOptions { schema: tables("tasks"), ..ReadOptions::default() };
    let source = Source::from_reader("dead.jsonl", Cursor::new(content), &options).unwrap();
    let outcome = read_source(source).unwrap();
    assert_eq!(outcome.types, ["id: Int64", "score: Float64", "blob: Binary", "price: Decimal128(10, 2)"]);
    assert_eq!(outcome.rows(), ["1|inf|00ff|1.50"]);
}
