use std::io::Cursor;
use std::sync::Arc;

use arrow::array::*;
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{DataType, Field, Fields, Int32Type, Schema, i256};
use arrow::ipc::writer::{FileWriter, StreamWriter};
use barge_core::ErrorKind;
use barge_files::{Format, ReadOptions, Source};
use parquet::arrow::ArrowWriter;
use parquet::file::properties::WriterProperties;

use crate::{failure, read, read_source, read_with};

/// Named columns, each from an array of its own type.
macro_rules! columns {
    ($($name:literal => $array:expr),+ $(,)?) => {
        RecordBatch::try_from_iter_with_nullable([$(($name, Arc::new($array) as ArrayRef, true)),+]).unwrap()
    };
}

fn numbers(rows: i64) -> RecordBatch {
    columns! {
        "id" => Int64Array::from_iter_values(0..rows),
        "text" => StringArray::from_iter_values((0..rows).map(|row| format!("text {row}"))),
    }
}

fn parquet_file(batch: &RecordBatch, group_rows: usize) -> Vec<u8> {
    let properties = WriterProperties::builder().set_max_row_group_row_count(Some(group_rows)).build();
    let mut writer = ArrowWriter::try_new(Vec::new(), batch.schema(), Some(properties)).unwrap();
    writer.write(batch).unwrap();
    writer.into_inner().unwrap()
}

fn ipc_file(batch: &RecordBatch) -> Vec<u8> {
    let mut writer = FileWriter::try_new(Vec::new(), &batch.schema()).unwrap();
    writer.write(batch).unwrap();
    writer.finish().unwrap();
    writer.into_inner().unwrap()
}

fn ipc_stream(batches: &[RecordBatch]) -> Vec<u8> {
    let mut writer = StreamWriter::try_new(Vec::new(), &batches[0].schema()).unwrap();
    batches.iter().for_each(|batch| writer.write(batch).unwrap());
    writer.finish().unwrap();
    writer.into_inner().unwrap()
}

#[test]
fn the_same_rows_from_every_container() {
    let batch = numbers(2500);
    let expected: Vec<String> = (0..2500).map(|row| format!("{row}|text {row}")).collect();
    let options = ReadOptions { batch_rows: 999, ..ReadOptions::default() };
    for (format, content) in [
        (Format::Parquet, parquet_file(&batch, 1000)),
        (Format::ArrowIpc, ipc_file(&batch)),
        (Format::ArrowIpc, ipc_stream(&[batch.slice(0, 2000), batch.slice(2000, 500)])),
    ] {
        let packed = zstd::encode_all(content.as_slice(), 1).unwrap();
        for content in [content, packed] {
            let mut source = Source::from_reader("pipe", Cursor::new(content.clone()), &options).unwrap();
            assert_eq!(source.format(), format);
            let first = source.next_chunk().unwrap().unwrap();
            assert_eq!((first.batch.num_rows(), first.lines.get(998)), (999, Some(999)));
            let outcome = read_with("pipe", content, &options).unwrap();
            assert_eq!(outcome.rows(), expected);
            assert_eq!(outcome.lines, (1..=2500).collect::<Vec<u64>>());
        }
    }
}

#[test]
fn files_tell_their_rows() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("n.parquet");
    std::fs::write(&path, parquet_file(&numbers(2500), 1000)).unwrap();
    let mut source = Source::open(&path, &ReadOptions::default()).unwrap();
    assert_eq!(source.progress().rows_total, Some(2500));
    while source.next_chunk().unwrap().is_some() {}
    let progress = source.progress();
    assert_eq!(progress.bytes_total, Some(progress.bytes_read));
}

#[test]
fn wide_rows_come_in_smaller_batches() {
    let text = "x".repeat(1000);
    let rows = (0..1000).map(|row| format!("{row}{text}"));
    let content = parquet_file(&columns! { "t" => StringArray::from_iter_values(rows) }, 1000);
    let options = ReadOptions { batch_bytes: 100_000, ..ReadOptions::default() };
    let mut source = Source::from_reader("w.parquet", Cursor::new(content), &options).unwrap();
    let rows = source.next_chunk().unwrap().unwrap().batch.num_rows();
    assert!((50..=200).contains(&rows), "{rows}");
}

#[test]
fn types_become_plain() {
    let strings = DictionaryArray::<Int32Type>::from_iter([Some("a"), None, Some("b")]);
    let instants =
        TimestampNanosecondArray::from(vec![Some(1_500_000_000), None, Some(-1_000)]).with_timezone("UTC");
    let fields =
        Fields::from(vec![Field::new("x", DataType::Int32, true), Field::new("y", DataType::Utf8, true)]);
    let points = StructArray::new(
        fields,
        vec![
            Arc::new(Int32Array::from(vec![Some(1), None, Some(3)])),
            Arc::new(StringArray::from(vec!["p", "q", "\""])),
        ],
        Some(vec![true, true, false].into()),
    );
    let decimals = Decimal256Array::from_iter_values([1, 2, 3].map(i256::from_i128));
    let large_lists = LargeListArray::new(
        Arc::new(Field::new("item", DataType::LargeUtf8, true)),
        OffsetBuffer::from_lengths([1, 0, 2]),
        Arc::new(LargeStringArray::from(vec!["a", "b", "c"])),
        None,
    );
    let outcome = read(
        "t.arrow",
        ipc_file(&columns! {
            "dictionary" => strings,
            "large" => LargeStringArray::from(vec!["a", "b", "c"]),
            "view" => StringViewArray::from(vec!["a", "b", "a rather long string of text"]),
            "bytes" => FixedSizeBinaryArray::try_from_iter([[1u8, 2], [3, 4], [5, 6]].iter()).unwrap(),
            "ns" => instants,
            "s" => TimestampSecondArray::from(vec![0, 1, 2]),
            "date" => Date64Array::from(vec![0, 86_400_000, -86_400_000]),
            "time" => Time32MillisecondArray::from(vec![1, 2, 3]),
            "decimal" => decimals.with_precision_and_scale(50, 2).unwrap(),
            "nothing" => NullArray::new(3),
            "struct" => points,
            "list" => large_lists,
        }),
    );
    assert_eq!(
        outcome.types,
        [
            "dictionary: Utf8",
            "large: Utf8",
            "view: Utf8",
            "bytes: Binary",
            "ns: Timestamp(µs, \"UTC\")",
            "s: Timestamp(µs)",
            "date: Date32",
            "time: Time64(µs)",
            "decimal: Decimal128(38, 2)",
            "nothing: Utf8",
            "struct: Utf8",
            "list: List(Utf8)",
        ]
    );
    assert_eq!(
        outcome.rows(),
        [
            "a|a|a|0102|1970-01-01T00:00:01.500Z|1970-01-01T00:00:00|1970-01-01|00:00:00.001|0.01|∅|{\"x\":1,\"y\":\"p\"}|[a]",
            "∅|b|b|0304|∅|1970-01-01T00:00:01|1970-01-02|00:00:00.002|0.02|∅|{\"x\":null,\"y\":\"q\"}|[]",
            "b|c|a rather long string of text|0506|1969-12-31T23:59:59.999999Z|1970-01-01T00:00:02|1969-12-31|\
             00:00:00.003|0.03|∅|∅|[b, c]",
        ]
    );
}

/// Never cut off: what is loaded is equal, or refused.
#[test]
fn nanoseconds_reject_their_row() {
    let mut lists = ListBuilder::new(TimestampNanosecondBuilder::new());
    for items in [&[1_000][..], &[], &[2_000, 2_001], &[1_000]] {
        lists.values().append_slice(items);
        lists.append(true);
    }
    let outcome = read(
        "n.arrow",
        ipc_file(&columns! {
            "id" => Int32Array::from(vec![1, 2, 3, 4]),
            "at" => TimestampNanosecondArray::from(vec![Some(1_000), None, Some(0), Some(-999)]),
            "time" => Time64NanosecondArray::from(vec![0, 1_001, 0, 0]),
            "list" => lists.finish(),
        }),
    );
    assert_eq!(outcome.rows().len(), 1);
    let reasons = outcome.reasons();
    for (reason, column) in reasons.iter().zip(["time", "list", "at"]) {
        assert!(reason.contains(&format!("column {column}: it has nanoseconds")), "{reasons:?}");
    }
    assert_eq!(reasons.len(), 3);
}

#[test]
fn values_without_a_plain_form_reject_their_row() {
    let huge = i256::from_string("1000000000000000000000000000000000000000").unwrap();
    let decimals = Decimal256Array::from_iter_values([i256::ONE, huge, i256::ONE, i256::ONE]);
    let outcome = read(
        "v.arrow",
        ipc_file(&columns! {
            "d" => decimals.with_precision_and_scale(76, 0).unwrap(),
            "s" => TimestampSecondArray::from(vec![0, 0, i64::MAX, 0]),
            "day" => Date64Array::from(vec![0, 0, 0, 5]),
        }),
    );
    assert_eq!(outcome.rows(), ["1|1970-01-01T00:00:00|1970-01-01"]);
    let reasons = outcome.reasons();
    assert_eq!(reasons.len(), 3);
    assert!(
        reasons[0].starts_with("v.arrow, row 2, column d: the value does not fit Decimal128(38, 0)"),
        "{reasons:?}"
    );
    assert!(
        reasons[1].starts_with("v.arrow, row 3, column s: the value does not fit Timestamp(µs)"),
        "{reasons:?}"
    );
    assert_eq!(
        reasons[2],
        "v.arrow, row 4, column day: 5 ms is a date with a time of day, which a date cannot hold"
    );
}

#[test]
fn uuids_of_parquet_files_stay_uuids() {
    let metadata = [("ARROW:extension:name".to_owned(), "arrow.uuid".to_owned())];
    let field = Field::new("id", DataType::FixedSizeBinary(16), true).with_metadata(metadata.into());
    let array = FixedSizeBinaryArray::try_from_iter([[7u8; 16]].iter()).unwrap();
    let batch = RecordBatch::try_new(Arc::new(Schema::new(vec![field])), vec![Arc::new(array)]).unwrap();
    let outcome = read("u.parquet", parquet_file(&batch, 10));
    assert_eq!(outcome.types, ["id: FixedSizeBinary(16)"]);
    assert_eq!(outcome.batch.schema().field(0).metadata()["ARROW:extension:name"], "arrow.uuid");
}

#[test]
fn files_that_are_not_what_they_seem() {
    let (whole, file) = (parquet_file(&numbers(5000), 1000), ipc_file(&numbers(5000)));
    let cases: [(&str, &str, &[u8]); 4] = [
        ("x.parquet", "Parquet", &whole[..whole.len() / 2]),
        ("x.parquet", "Parquet", b"a,b\n1,2\n"),
        ("x.arrow", "Arrow IPC", &file[..3000]),
        ("x.arrow", "Arrow IPC", b"a,b\n1,2\n"),
    ];
    for (name, format, content) in cases {
        let message = failure(name, content);
        let expected = format!("cannot read {name}: it is truncated, damaged or not {format}: ");
        assert!(message.starts_with(&expected), "{message}");
    }
    assert_eq!(failure("x.parquet", ""), "x.parquet is empty");
}

#[test]
fn a_stream_cut_off_gives_the_rows_before_it() {
    let batches: Vec<RecordBatch> = (0..4).map(|_| numbers(1000)).collect();
    let whole = ipc_stream(&batches);
    let content = Cursor::new(whole[..whole.len() * 3 / 5].to_vec());
    let mut source = Source::from_reader("cut.arrows", content, &ReadOptions::default()).unwrap();
    assert_eq!(source.next_chunk().unwrap().unwrap().batch.num_rows(), 1000);
    assert_eq!(source.next_chunk().unwrap().unwrap().batch.num_rows(), 1000);
    let error = source.next_chunk().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Io);
    let message = error.to_string();
    assert!(
        message.starts_with("cannot read cut.arrows: it is truncated, damaged or not Arrow IPC: "),
        "{message}"
    );
    assert!(message.ends_with(" (2000 rows were read before)"), "{message}");
}

#[test]
fn a_damaged_page_gives_the_rows_before_it() {
    let mut content = parquet_file(&numbers(3000), 1000);
    let middle = content.len() / 2;
    content[middle..middle + 400].fill(0xff);
    let options = ReadOptions { batch_rows: 1000, ..ReadOptions::default() };
    let mut source = Source::from_reader("page.parquet", Cursor::new(content), &options).unwrap();
    let mut rows = 0;
    let error = loop {
        match source.next_chunk() {
            Ok(Some(chunk)) => rows += chunk.batch.num_rows(),
            Ok(None) => panic!("the damage went unseen"),
            Err(error) => break error,
        }
    };
    assert!(rows >= 1000);
    assert!(error.to_string().ends_with(&format!(" ({rows} rows were read before)")), "{error}");
}

#[test]
fn types_that_cannot_be_loaded_are_named() {
    let content = ipc_file(&columns! { "took" => DurationSecondArray::from(vec![1]) });
    let error = read_with("d.arrow", content, &ReadOptions::default()).err().unwrap();
    assert_eq!(
        error.to_string(),
        "d.arrow, column took: values of type Duration(s) cannot be loaded, nor written as text: make text of them before"
    );
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    let twice =
        Schema::new(vec![Field::new("a", DataType::Int32, true), Field::new("a", DataType::Int32, true)]);
    let array: ArrayRef = Arc::new(Int32Array::from(vec![1]));
    let batch = RecordBatch::try_new(Arc::new(twice), vec![array.clone(), array]).unwrap();
    assert_eq!(failure("d.arrow", ipc_file(&batch)), "d.arrow has two columns named a: rename one");
}

#[test]
fn empty_batches_are_not_the_end() {
    let empty = numbers(0);
    let content = ipc_stream(&[empty.clone(), numbers(2), empty]);
    let source = Source::from_reader("e.arrows", Cursor::new(content), &ReadOptions::default()).unwrap();
    assert_eq!(read_source(source).unwrap().rows(), ["0|text 0", "1|text 1"]);
}
