//! The same bytes give the same rows, however they are cut.

use std::io::Cursor;

use arrow::array::{Array, AsArray};
use arrow::datatypes::{Float64Type, Int64Type};
use barge_files::{ReadOptions, Source};
use proptest::prelude::*;

use crate::{Trickle, read_source};

/// What a reading shows of itself: rows, lines, rejected lines, or the error.
fn shown(name: &str, content: &[u8], options: &ReadOptions, trickle: bool) -> String {
    let content = Cursor::new(content.to_vec());
    let source = match trickle {
        true => Source::from_reader(name, Trickle(content, 0), options),
        false => Source::from_reader(name, content, options),
    };
    match source.and_then(read_source) {
        Ok(outcome) => {
            let rejected: Vec<_> = outcome
                .rejected
                .iter()
                .map(|line| {
                    format!("{} {} {} {:?} {}", line.line, line.last_line, line.row, line.raw, line.error)
                })
                .collect();
            format!("{:?}\n{:?}\n{:?}\n{rejected:#?}", outcome.types, outcome.rows(), outcome.lines)
        }
        Err(error) => error.to_string(),
    }
}

fn csv_bytes() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        4 => Just(&b"\n"[..]),
        1 => Just(&b"\r\n"[..]),
        1 => Just(&b"\r"[..]),
        5 => Just(&b","[..]),
        2 => Just(&b"\""[..]),
        1 => Just(&b"\"\""[..]),
        1 => Just(&b"\",\""[..]),
        2 => Just(&b"1"[..]),
        1 => Just(&b"2.5"[..]),
        1 => Just(&b"true"[..]),
        2 => Just("é".as_bytes()),
        1 => Just(&b"\xff"[..]),
        1 => Just(&b"\xef\xbb\xbf"[..]),
        1 => Just(&b"a long piece of text that alone passes the limit of a row"[..]),
    ];
    prop::collection::vec(piece, 0..60).prop_map(|pieces| [&b"a,b\n"[..], &pieces.concat()].concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn csv(content in csv_bytes(), read_bytes in 1usize..20, batch_rows in 1usize..5) {
        let whole = ReadOptions { row_bytes_max: 50, sample_rows: 2, ..ReadOptions::default() };
        let expected = shown("x.csv", &content, &whole, false);
        let cut = ReadOptions { read_bytes, batch_rows, ..whole };
        prop_assert_eq!(&expected, &shown("x.csv", &content, &cut, false));
        prop_assert_eq!(&expected, &shown("x.csv", &content, &cut, true));
    }

    #[test]
    fn json(pieces in prop::collection::vec(
        prop_oneof![
            Just("{\"a\": 1, \"b\": \"x\"}\n"), Just("{\"b\": null}\r\n"), Just("\n"), Just("  \n"), Just("{\"c\": 1}\n"),
            Just("{\"a\": \"é\\n\"}\n"), Just("[]\n"), Just("{\"a\": 1\n"), Just("{\"a\": 1234567890123456789012345678}\n"),
        ], 1..30), read_bytes in 1usize..20, batch_rows in 1usize..5)
    {
        let whole = ReadOptions { row_bytes_max: 30, sample_rows: 3, ..ReadOptions::default() };
        let content = pieces.concat();
        let expected = shown("x.jsonl", content.as_bytes(), &whole, false);
        let cut = ReadOptions { read_bytes, batch_rows, ..whole };
        prop_assert_eq!(&expected, &shown("x.jsonl", content.as_bytes(), &cut, false));
        prop_assert_eq!(&expected, &shown("x.jsonl", content.as_bytes(), &cut, true));
    }

    /// Values written by another program's rules come back.
    #[test]
    fn csv_round_trip(
        rows in prop::collection::vec((any::<i64>(), any::<f64>(), prop::option::of(".{0,20}")), 1..50),
        all_quoted: bool,
        crlf: bool,
    ) {
        let mut content = String::from("n,x,t\n");
        for (n, x, t) in &rows {
            let quoted = |text: &str| format!("\"{}\"", text.replace('"', "\"\""));
            let text = t.as_deref().map(quoted).unwrap_or_default();
            let row = if all_quoted { format!("\"{n}\",\"{x:?}\",{text}") } else { format!("{n},{x:?},{text}") };
            content += &row;
            content += if crlf { "\r\n" } else { "\n" };
        }
        let options = ReadOptions { text_columns: vec!["t".into()], ..ReadOptions::default() };
        let options = ReadOptions { types: vec![("x".into(), arrow::datatypes::DataType::Float64)], ..options };
        let outcome = read_source(Source::from_reader("x.csv", Cursor::new(content), &options).unwrap()).unwrap();
        prop_assert!(outcome.rejected.is_empty(), "{:?}", outcome.reasons());
        prop_assert_eq!(outcome.batch.num_rows(), rows.len());
        for (index, (n, x, t)) in rows.iter().enumerate() {
            prop_assert_eq!(outcome.batch.column(0).as_primitive::<Int64Type>().value(index), *n);
            let read = outcome.batch.column(1).as_primitive::<Float64Type>().value(index);
            prop_assert!(read.to_bits() == x.to_bits() || read.is_nan() && x.is_nan());
            let column = outcome.batch.column(2).as_string::<i32>();
            prop_assert_eq!(column.is_valid(index).then(|| column.value(index)), t.as_deref());
        }
    }
}
