//! Every format, compression and way in.

use std::io::Write;
use std::sync::Arc;

use barge::arrow::array::{ArrayRef, Date64Array, Int64Array, RecordBatch, StringArray};

use crate::Place;

pub(crate) fn parquet(rows: i64) -> Vec<u8> {
    let id: ArrayRef = Arc::new(Int64Array::from_iter_values(0..rows));
    let name: ArrayRef = Arc::new(StringArray::from_iter_values((0..rows).map(|row| format!("name {row}"))));
    let batch = RecordBatch::try_from_iter([("id", id), ("name", name)]).unwrap();
    let mut writer = parquet::arrow::ArrowWriter::try_new(Vec::new(), batch.schema(), None).unwrap();
    writer.write(&batch).unwrap();
    writer.into_inner().unwrap()
}

/// Two rows, one of which holds a date that is none.
pub(crate) fn arrow_with_a_time_of_day() -> Vec<u8> {
    let day: ArrayRef = Arc::new(Date64Array::from(vec![86_400_000, 86_400_001]));
    let batch = RecordBatch::try_from_iter([("day", day)]).unwrap();
    let mut writer = arrow::ipc::writer::FileWriter::try_new(Vec::new(), &batch.schema()).unwrap();
    writer.write(&batch).unwrap();
    writer.into_inner().unwrap()
}

fn csv(rows: usize) -> String {
    let lines: String = (0..rows).map(|row| format!("{row},name {row}\n")).collect();
    format!("id,name\n{lines}")
}

fn gzip(content: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

fn json_lines(rows: usize) -> String {
    (0..rows).map(|row| format!("{{\"id\":{row},\"name\":\"name {row}\"}}\n")).collect()
}

#[test]
fn the_same_rows_from_every_format() {
    let place = Place::new();
    place.write("a.csv", csv(3_000));
    place.write("b.csv.gz", gzip(csv(3_000).as_bytes()));
    place.write("c.jsonl.zst", zstd::encode_all(json_lines(3_000).as_bytes(), 1).unwrap());
    place.write("d.parquet", parquet(3_000));
    place.write("e.tsv", csv(3_000).replace(',', "\t"));
    for file in ["a.csv", "b.csv.gz", "c.jsonl.zst", "d.parquet", "e.tsv"] {
        let arguments = ["--key", "id", "--batch-rows", "1000", "--json", "--mode", "replace"];
        assert_eq!(place.load(file, &arguments).ends(0).counts(), [3_000, 3_000, 0], "{file}");
        let sums = place.rows("SELECT count(*), sum(id), max(name), min(typeof(id)) FROM t");
        assert_eq!(sums, ["3000|4498500|name 999|integer"], "{file}");
    }
}

#[test]
fn standard_input_of_every_format() {
    let place = Place::new();
    let arguments =
        ["load", "-", "--to", "sqlite:test.db", "--table", "t", "--key", "id", "--mode", "replace", "--json"];
    for (content, format) in [
        (csv(500).into_bytes(), "csv"),
        (gzip(csv(500).as_bytes()), "csv"),
        (json_lines(500).into_bytes(), "jsonl"),
        (parquet(500), "parquet"),
    ] {
        let run = place.barge_with(&content, &[&arguments[..], &["--format", format]].concat()).ends(0);
        assert_eq!(run.counts(), [500, 500, 0]);
        assert_eq!(place.count("t"), 500);
    }
    let run =
        place.barge_with("id,name\n1,x\ny,z\n", &[&arguments[..9], &["append", "--json"]].concat()).ends(3);
    assert_eq!(run.json()["rejected"][0]["file"], "standard input");
}

#[test]
fn csv_dialects() {
    let place = Place::new();
    place.write("a.csv", "1;'x;y';NA\n2;z;3\n");
    place
        .load(
            "a.csv",
            &["--delimiter", ";", "--quote", "'", "--no-header", "--columns", "id,name,n", "--null", "NA"],
        )
        .ends(0);
    assert_eq!(place.rows("SELECT * FROM t"), ["1|x;y|∅", "2|z|3"]);
    place.write("b.csv", "id,name,n\n3,\"q,4\n");
    place.load("b.csv", &["--quote", "none"]).ends(0);
    assert_eq!(place.rows("SELECT name FROM t WHERE id = 3"), ["\"q"]);
}

#[test]
fn types_can_be_told() {
    let place = Place::new();
    place.write("a.csv", "id,zip,price\n1,1234,1.5\n");
    place.load("a.csv", &["--text", "zip", "--column-type", "price=decimal(10,2)"]).ends(0);
    assert_eq!(place.rows("SELECT zip, typeof(zip), price FROM t"), ["1234|text|1.50"]);
}

#[test]
fn a_later_row_that_does_not_fit_the_sample_is_rejected() {
    let place = Place::new();
    place.write("a.csv", "id,n\n1,1\n2,x\n");
    let run = place.load("a.csv", &["--sample-rows", "1", "--json"]).ends(3);
    assert!(run.rejected()[0].contains("use --text n or a larger --sample-rows"), "{run:?}");
}

#[test]
fn a_file_without_rows_makes_the_table() {
    let place = Place::new();
    place.write("a.csv", "id,name\n");
    assert_eq!(place.load("a.csv", &["--json"]).ends(0).counts(), [0, 0, 0]);
    assert_eq!(place.count("t"), 0);
    place.write("empty.csv", "");
    let run = place.load("empty.csv", &[]).ends(1);
    assert!(run.message().contains("empty.csv is empty"), "{run:?}");
}

#[test]
fn every_batch_size_loads_the_same() {
    let place = Place::new();
    place.write("a.csv", csv(2_500));
    for (rows, bytes) in [("1", "8MiB"), ("7", "8MiB"), ("1000000", "1KiB"), ("1000000", "1GiB"), ("10", "1")]
    {
        let arguments =
            ["--mode", "replace", "--key", "id", "--json", "--batch-rows", rows, "--batch-bytes", bytes];
        assert_eq!(place.load("a.csv", &arguments).ends(0).counts(), [2_500, 2_500, 0]);
        assert_eq!(place.count("t"), 2_500);
    }
}
