//! Files written and read back.

use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;

use arrow::array::*;
use arrow::buffer::NullBuffer;
use arrow::compute::concat_batches;
use arrow::datatypes::*;
use barge_core::ErrorKind;
use barge_files::{CsvWriteOptions, Format, ReadOptions, Sink, Source, WriteOptions, Written};
use proptest::prelude::*;

/// A field of an extension type.
fn extension(name: &str, data_type: DataType, extension: &str) -> Field {
    Field::new(name, data_type, true)
        .with_metadata([("ARROW:extension:name".to_owned(), extension.to_owned())].into())
}

fn batch(columns: Vec<(Field, ArrayRef)>) -> RecordBatch {
    let (fields, arrays): (Vec<_>, Vec<_>) = columns.into_iter().unzip();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), arrays).unwrap()
}

fn plain(name: &str, array: impl Array + 'static) -> (Field, ArrayRef) {
    (Field::new(name, array.data_type().clone(), true), Arc::new(array))
}

/// Every type that columns of tables have, with NULLs and edges.
fn all_types() -> RecordBatch {
    let uuid: Vec<Option<[u8; 16]>> = vec![
        Some([0x0f; 16]),
        None,
        Some(*b"\x00\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b\x0c\x0d\x0e\xff"),
    ];
    let uuid = FixedSizeBinaryArray::try_from_sparse_iter_with_size(uuid.into_iter(), 16).unwrap();
    let json =
        StringArray::from(vec![Some("{\"a\": [1,\n null, \"x\"]}"), None, Some("12345678901234567890.123")]);
    let mut lists = ListBuilder::new(Int64Builder::new());
    lists.append_value([Some(1), None, Some(i64::MIN)]);
    lists.append_null();
    lists.append_value([]);
    let mut texts = ListBuilder::new(StringBuilder::new());
    texts.append_value([Some("a\"b"), None, Some("")]);
    texts.append_value([Some("{1,2}")]);
    texts.append_null();
    let mut times = ListBuilder::new(TimestampMicrosecondBuilder::new().with_timezone("UTC"));
    times.append_value([Some(1), None]);
    times.append_null();
    times.append_value([Some(-1)]);
    let mut bytes = ListBuilder::new(BinaryBuilder::new());
    bytes.append_value([Some(b"\x00\xff".as_ref())]);
    bytes.append_value([Some(b"".as_ref()), None]);
    bytes.append_null();
    let item = Arc::new(Field::new("item", DataType::Float32, true));
    let floats = Float32Array::from(vec![0.1, f32::NAN, f32::INFINITY, -0.0, 0.0, 0.0]);
    let vectors =
        FixedSizeListArray::new(item, 2, Arc::new(floats), Some(NullBuffer::from(vec![true, true, false])));
    batch(vec![
        plain("boolean", BooleanArray::from(vec![Some(true), Some(false), None])),
        plain("int8", Int8Array::from(vec![Some(i8::MIN), None, Some(i8::MAX)])),
        plain("int16", Int16Array::from(vec![Some(i16::MIN), None, Some(i16::MAX)])),
        plain("int32", Int32Array::from(vec![Some(i32::MIN), None, Some(i32::MAX)])),
        plain("int64", Int64Array::from(vec![Some(i64::MIN), None, Some(i64::MAX)])),
        plain("uint8", UInt8Array::from(vec![Some(0), None, Some(u8::MAX)])),
        plain("uint16", UInt16Array::from(vec![Some(0), None, Some(u16::MAX)])),
        plain("uint32", UInt32Array::from(vec![Some(0), None, Some(u32::MAX)])),
        plain("uint64", UInt64Array::from(vec![Some(0), None, Some(u64::MAX)])),
        plain("float32", Float32Array::from(vec![Some(0.1), Some(f32::MIN_POSITIVE), None])),
        plain(
            "float64",
            Float64Array::from(vec![Some(1e300), Some(f64::NEG_INFINITY), Some(f64::MIN_POSITIVE)]),
        ),
        plain(
            "decimal",
            Decimal128Array::from(vec![Some(-5), None, Some(10_i128.pow(38) - 1)])
                .with_precision_and_scale(38, 10)
                .unwrap(),
        ),
        plain("text", StringArray::from(vec![Some(""), None, Some("a,b;\t|\"c\"\r\nd\u{feff}é")])),
        plain("number", StringArray::from(vec!["007", " 1.50 ", "NULL"])),
        plain("binary", BinaryArray::from(vec![Some(b"\x00\xff".as_ref()), Some(b""), None])),
        plain("date", Date32Array::from(vec![Some(-719_162), None, Some(2_932_896)])),
        plain("time", Time64MicrosecondArray::from(vec![Some(0), None, Some(86_399_999_999)])),
        plain(
            "timestamp",
            TimestampMicrosecondArray::from(vec![
                Some(-62_135_596_800_000_000),
                None,
                Some(253_402_300_799_999_999),
            ]),
        ),
        plain(
            "timestamptz",
            TimestampMicrosecondArray::from(vec![Some(-1), None, Some(1_500_000)]).with_timezone("UTC"),
        ),
        (extension("uuid", DataType::FixedSizeBinary(16), "arrow.uuid"), Arc::new(uuid)),
        (extension("json", DataType::Utf8, "arrow.json"), Arc::new(json)),
        plain("list", lists.finish()),
        plain("texts", texts.finish()),
        plain("times", times.finish()),
        plain("bytes", bytes.finish()),
        plain("vector", vectors),
    ])
}

/// Writes rows in two parts and reads them back, told the columns' types.
fn there_and_back(name: &str, batch: &RecordBatch, write: &WriteOptions, read: &ReadOptions) -> RecordBatch {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    let mut sink = Sink::create(&path, &batch.schema(), write).unwrap();
    let half = batch.num_rows() / 2;
    sink.write(&batch.slice(0, half)).unwrap();
    sink.write(&batch.slice(half, batch.num_rows() - half)).unwrap();
    assert!(!path.exists());
    let written = sink.finish().unwrap();
    let bytes = std::fs::metadata(&path).unwrap().len();
    assert_eq!(written, Written { rows: batch.num_rows() as u64, bytes });
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    let options = ReadOptions { schema: Some(batch.schema()), ..read.clone() };
    let mut source = Source::open(&path, &options).unwrap();
    let schema = source.schema().clone();
    let mut batches = Vec::new();
    while let Some(chunk) = source.next_chunk().unwrap() {
        assert!(chunk.rejected.is_empty(), "{name}: {:?}", chunk.rejected);
        batches.push(chunk.batch);
    }
    concat_batches(&schema, &batches).unwrap()
}

/// Equal values; JSON equal as JSON, NaN equal to NaN.
#[track_caller]
fn assert_same(name: &str, left: &RecordBatch, right: &RecordBatch) {
    assert_eq!(left.num_rows(), right.num_rows(), "{name}");
    assert_eq!(left.num_columns(), right.num_columns(), "{name}");
    for (field, (left, right)) in
        left.schema().fields().iter().zip(left.columns().iter().zip(right.columns()))
    {
        assert_eq!(left.data_type(), right.data_type(), "{name}, {}", field.name());
        if field.metadata().values().any(|extension| extension == "arrow.json") {
            let values = |array: &ArrayRef| -> Vec<Option<serde_json::Value>> {
                array
                    .as_string::<i32>()
                    .iter()
                    .map(|text| Some(serde_json::from_str(text?).unwrap()))
                    .collect()
            };
            assert_eq!(values(left), values(right), "{name}, {}", field.name());
        } else {
            // Arrow compares floats by their bits' order, in which NaN is itself.
            assert_eq!(left.to_data(), right.to_data(), "{name}, {}", field.name());
        }
    }
}

const NAMES: [&str; 13] = [
    "a.csv",
    "a.csv.gz",
    "a.csv.zst",
    "a.tsv",
    "a.psv.zst",
    "a.jsonl",
    "a.ndjson.gz",
    "a.json.zst",
    "a.parquet",
    "a.pq",
    "a.arrow",
    "a.feather",
    "a.arrows",
];

#[test]
fn every_type_comes_back_equal_from_every_format() {
    let rows = all_types();
    for name in NAMES {
        let back = there_and_back(name, &rows, &WriteOptions::default(), &ReadOptions::default());
        assert_same(name, &rows, &back);
    }
}

#[test]
fn native_formats_need_not_be_told_types() {
    let rows = all_types();
    let folder = tempfile::tempdir().unwrap();
    for name in ["a.parquet", "a.arrow", "a.arrows"] {
        let path = folder.path().join(name);
        let mut sink = Sink::create(&path, &rows.schema(), &WriteOptions::default()).unwrap();
        sink.write(&rows).unwrap();
        sink.finish().unwrap();
        let mut source = Source::open(&path, &ReadOptions::default()).unwrap();
        assert_same(name, &rows, &source.next_chunk().unwrap().unwrap().batch);
        for name in ["uuid", "json"] {
            let field = source.schema().field_with_name(name).unwrap();
            assert_eq!(field.metadata()["ARROW:extension:name"], format!("arrow.{name}"));
        }
    }
}

#[test]
fn files_without_rows_keep_their_columns() {
    let rows = all_types().slice(0, 0);
    for name in NAMES.into_iter().filter(|name| !name.contains("json")) {
        let back = there_and_back(name, &rows, &WriteOptions::default(), &ReadOptions::default());
        assert_same(name, &rows, &back);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn any_text_comes_back(
        rows in prop::collection::vec(
            (prop::option::of("[ -~\t\r\n\u{feff}é\u{1F600}]{0,8}"), prop::option::of("[,;|\t\"a\\\\0\r\n ]{0,4}"), any::<f64>()),
            1..20,
        ),
        delimiter in prop::option::of(prop::sample::select(b",;\t|:x ".to_vec())),
        null in prop::sample::select(vec!["", "NULL", "a", "0"]),
    ) {
        let names: [ArrayRef; 3] = [
            Arc::new(StringArray::from_iter(rows.iter().map(|row| row.0.as_ref()))),
            Arc::new(StringArray::from_iter(rows.iter().map(|row| row.1.as_ref()))),
            Arc::new(Float64Array::from_iter_values(rows.iter().map(|row| row.2))),
        ];
        let [first, second, third] = names;
        let rows = RecordBatch::try_from_iter_with_nullable([("a;b", first, true), ("\u{feff}c\"", second, true), ("f", third, true)]).unwrap();
        let csv = CsvWriteOptions { delimiter, null: null.to_owned() };
        let write = WriteOptions { csv, ..WriteOptions::default() };
        let mut read = ReadOptions::default();
        // What other readers guess, this one guesses too; an unusual delimiter is to be told.
        read.csv.delimiter = delimiter.filter(|delimiter| !b",;\t|".contains(delimiter));
        read.csv.nulls = vec![null.to_owned()];
        for name in ["a.csv", "a.jsonl", "a.parquet"] {
            assert_same(name, &rows, &there_and_back(name, &rows, &write, &read));
        }
    }
}

/// A time in the years 1 to 9999.
const MICROS: std::ops::Range<i64> = -62_135_596_800_000_000..253_402_300_800_000_000;
const DIGITS_20: i128 = 10_i128.pow(20) - 1;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn any_value_comes_back(
        rows in prop::collection::vec(
            (
                any::<Option<i64>>(),
                prop::option::of(-DIGITS_20..DIGITS_20),
                prop::option::of(MICROS),
                any::<Option<Vec<u8>>>(),
                prop::option::of(prop::collection::vec(any::<Option<String>>(), 0..4)),
                any::<Option<f32>>(),
            ),
            1..20,
        ),
    ) {
        let mut lists = ListBuilder::new(StringBuilder::new());
        rows.iter().for_each(|row| lists.append_option(row.4.clone()));
        let decimals = Decimal128Array::from_iter(rows.iter().map(|row| row.1));
        let moments = TimestampMicrosecondArray::from_iter(rows.iter().map(|row| row.2));
        let rows = batch(vec![
            plain("int", Int64Array::from_iter(rows.iter().map(|row| row.0))),
            plain("decimal", decimals.with_precision_and_scale(20, 7).unwrap()),
            plain("local", moments.clone()),
            plain("moment", moments.with_timezone("UTC")),
            plain("bytes", BinaryArray::from_iter(rows.iter().map(|row| row.3.as_ref()))),
            plain("list", lists.finish()),
            plain("float", Float32Array::from_iter(rows.iter().map(|row| row.5))),
        ]);
        for name in ["a.csv", "a.jsonl", "a.parquet", "a.arrow"] {
            assert_same(name, &rows, &there_and_back(name, &rows, &WriteOptions::default(), &ReadOptions::default()));
        }
    }
}

#[test]
fn a_column_alone_needs_a_word_for_null_in_csv() {
    let rows = batch(vec![plain("a", StringArray::from(vec![Some("x"), None, Some("")]))]);
    let mut sink = Sink::to_writer("a.csv", io::sink(), &rows.schema(), &WriteOptions::default()).unwrap();
    let error = sink.write(&rows).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidValue);
    assert!(error.message().contains("row 2, column a: the value is NULL"), "{error}");
    let csv = CsvWriteOptions { null: "∅".into(), ..CsvWriteOptions::default() };
    let mut read = ReadOptions::default();
    read.csv.nulls = vec!["∅".into()];
    let back = there_and_back("a.csv", &rows, &WriteOptions { csv, ..WriteOptions::default() }, &read);
    assert_same("a.csv", &rows, &back);
}

#[test]
fn what_a_format_cannot_hold_is_said_before_anything_is_written() {
    let folder = tempfile::tempdir().unwrap();
    let refused = |name: &str, schema: Schema| {
        let path = folder.path().join(name);
        let error = Sink::create(&path, &Arc::new(schema), &WriteOptions::default()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "{name}");
        error.message().to_owned()
    };
    let text = |name: &str| Field::new(name, DataType::Utf8, true);
    let union = UnionFields::from_fields(vec![
        Field::new("a", DataType::Int8, true),
        Field::new("b", DataType::Utf8, true),
    ]);
    let union =
        || Schema::new(vec![Field::new("u", DataType::Union(union.clone(), UnionMode::Sparse), true)]);
    for (name, schema, expected) in [
        ("a.csv", Schema::empty(), "there are no columns"),
        ("a.parquet", Schema::new(vec![text("a"), text("a")]), "two columns are named a"),
        ("a.csv", Schema::new(vec![text(" a")]), "can't hold the column name \" a\""),
        ("a.csv", Schema::new(vec![text("")]), "can't hold the column name \"\""),
        ("a.csv", union(), "CSV, column u: values of type"),
        ("a.jsonl", union(), "JSON lines, column u: values of type"),
        ("a.parquet", union(), "Parquet, column u: values of type"),
        (
            "a.jsonl",
            Schema::new(["barge", "table", "operation", "error", "x"].map(text).to_vec()),
            "read as dead letters",
        ),
    ] {
        let message = refused(name, schema);
        assert!(message.contains(expected), "{name}: {message}");
    }
}

#[test]
fn values_without_a_text_are_refused_by_row_and_column() {
    let json = || {
        (
            extension("j", DataType::Utf8, "arrow.json"),
            Arc::new(StringArray::from(vec!["1", " null "])) as ArrayRef,
        )
    };
    for (name, rows, expected) in [
        ("a.jsonl", batch(vec![json()]), "row 2, column j: the value is the JSON null"),
        (
            "a.csv",
            batch(vec![plain("d", Date32Array::from(vec![0, i32::MAX]))]),
            "row 2, column d: the value is 2147483647 days",
        ),
        (
            "a.csv",
            batch(vec![plain("t", TimestampMicrosecondArray::from(vec![0, i64::MAX]))]),
            "row 2, column t",
        ),
        (
            "a.csv",
            batch(vec![plain("t", Time64MicrosecondArray::from(vec![0, 86_400_000_000]))]),
            "which is no time of day",
        ),
    ] {
        let mut sink = Sink::to_writer(name, io::sink(), &rows.schema(), &WriteOptions::default()).unwrap();
        let error = sink.write(&rows).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidValue);
        assert!(error.message().contains(expected), "{error}");
        assert_eq!(sink.finish().unwrap_err().message(), error.message());
    }
    let rows = batch(vec![json()]);
    assert_same(
        "a.csv",
        &rows,
        &there_and_back("a.csv", &rows, &WriteOptions::default(), &ReadOptions::default()),
    );
}

fn one_row() -> RecordBatch {
    batch(vec![plain("a", Int64Array::from(vec![1]))])
}

fn entries(folder: &Path) -> Vec<String> {
    let names =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.collect();
    names.sort();
    names
}

#[test]
fn a_sink_that_is_dropped_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    for name in ["a.csv", "a.parquet", "a.arrow", "a.jsonl.zst"] {
        let mut sink =
            Sink::create(folder.path().join(name), &one_row().schema(), &WriteOptions::default()).unwrap();
        sink.write(&one_row()).unwrap();
        assert_eq!(entries(folder.path()).len(), 1);
        drop(sink);
        assert_eq!(entries(folder.path()), Vec::<String>::new());
    }
}

#[test]
fn a_file_that_is_there_stays_until_the_new_one_is_whole() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.csv");
    std::fs::write(&path, "old").unwrap();
    let error = Sink::create(&path, &one_row().schema(), &WriteOptions::default()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidConfig);
    let overwrite = WriteOptions { overwrite: true, ..WriteOptions::default() };
    let sink = |options: &WriteOptions| {
        let mut sink = Sink::create(&path, &one_row().schema(), options).unwrap();
        sink.write(&one_row()).unwrap();
        sink
    };
    drop(sink(&overwrite));
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "old");
    sink(&overwrite).finish().unwrap();
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "a\n1\n");
    // One that comes into being meanwhile is not replaced either.
    std::fs::remove_file(&path).unwrap();
    let late = sink(&WriteOptions::default());
    std::fs::write(&path, "new").unwrap();
    assert_eq!(late.finish().unwrap_err().kind(), ErrorKind::InvalidConfig);
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "new");
    assert_eq!(entries(folder.path()), ["a.csv"]);
}

#[cfg(unix)]
#[test]
fn permissions_and_links_stay() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let (path, link) = (folder.path().join("secret.csv"), folder.path().join("link.csv"));
    std::fs::write(&path, "old").unwrap();
    std::os::unix::fs::symlink("secret.csv", &link).unwrap();
    let overwrite = WriteOptions { overwrite: true, ..WriteOptions::default() };
    // Less than the umask leaves, and more.
    for mode in [0o600, 0o664, 0o666] {
        std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
        let mut sink = Sink::create(&link, &one_row().schema(), &overwrite).unwrap();
        sink.write(&one_row()).unwrap();
        sink.finish().unwrap();
        assert!(std::fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "a\n1\n");
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, mode);
    }
}

#[test]
fn places_where_no_file_can_be_are_named() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("file"), "").unwrap();
    let refused = |name: &str| {
        let path = folder.path().join(name);
        Sink::create(path, &one_row().schema(), &WriteOptions::default()).unwrap_err().message().to_owned()
    };
    assert!(refused("none/a.csv").contains("there is no folder"));
    assert!(refused("file/a.csv").contains("cannot write"));
    std::fs::create_dir(folder.path().join("folder.csv")).unwrap();
    assert!(refused("folder.csv").contains("it is a directory"));
    assert!(refused("a.table").contains("doesn't say its format"));
    assert!(refused("a.parquet.gz").contains("leave the ending for gzip out"));
    let long = format!("{}.csv", "x".repeat(300));
    assert!(refused(&long).contains("cannot write"), "{}", refused(&long));
}

/// Takes some bytes, then no more.
struct Full(usize);

impl Write for Full {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0 == 0 {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let taken = bytes.len().min(self.0);
        self.0 -= taken;
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_full_disk_is_said_by_every_format() {
    let numbers = Int64Array::from_iter_values(
        (0..200_000).map(|number: i64| number.wrapping_mul(0x9E37_79B9_7F4A_7C15_u64 as i64)),
    );
    let rows = batch(vec![plain("a", numbers)]);
    for name in ["a.csv", "a.csv.gz", "a.jsonl.zst", "a.parquet", "a.arrow", "a.arrows"] {
        let options = WriteOptions::default();
        let written = Sink::to_writer(name, Full(1_000), &rows.schema(), &options).and_then(|mut sink| {
            sink.write(&rows)?;
            sink.finish()
        });
        let error = written.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::DiskFull, "{name}: {error}");
        assert!(error.message().contains(&format!("writing {name} failed")), "{error}");
    }
}

#[test]
fn row_groups_are_limited_in_rows_and_bytes() {
    let groups = |options: WriteOptions, rows: &RecordBatch| {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.parquet");
        let mut sink = Sink::create(&path, &rows.schema(), &options).unwrap();
        for start in (0..rows.num_rows()).step_by(100) {
            sink.write(&rows.slice(start, 100)).unwrap();
        }
        sink.finish().unwrap();
        let file = std::fs::File::open(path).unwrap();
        let reader = parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder::try_new(file).unwrap();
        reader.metadata().row_groups().iter().map(|group| group.num_rows()).collect::<Vec<_>>()
    };
    let rows = batch(vec![plain("a", Int64Array::from_iter_values(0..1_000))]);
    let by_rows = WriteOptions { row_group_rows: 300, ..WriteOptions::default() };
    assert_eq!(groups(by_rows, &rows), [300, 300, 300, 100]);
    // Text that doesn't compress well.
    let digits = |row: u64| {
        (0..200)
            .map(|place| format!("{:x}", (row * 200 + place).wrapping_mul(0x9E37_79B9_7F4A_7C15)))
            .collect::<String>()
    };
    let huge = StringArray::from_iter_values((0..1_000).map(digits));
    let by_bytes = WriteOptions { row_group_bytes: 1 << 20, ..WriteOptions::default() };
    assert!(groups(by_bytes, &batch(vec![plain("a", huge)])).len() > 1);
}

#[test]
fn rows_with_other_columns_are_refused() {
    let mut sink =
        Sink::to_writer("a.csv", io::sink(), &one_row().schema(), &WriteOptions::default()).unwrap();
    let error = sink.write(&batch(vec![plain("b", Int64Array::from(vec![1]))])).unwrap_err();
    assert!(error.message().contains("other columns"), "{error}");
    assert_eq!(sink.format(), Format::Csv);
}

/// To those who don't know Arrow, too, they are times.
#[test]
fn times_in_seconds_are_times_in_parquet() {
    use parquet::arrow::arrow_reader::{ArrowReaderOptions, ParquetRecordBatchReaderBuilder};
    let mut lists = ListBuilder::new(TimestampSecondBuilder::new());
    lists.append_value([Some(1), None]);
    let rows =
        batch(vec![plain("t", TimestampSecondArray::from(vec![1_700_000_000])), plain("l", lists.finish())]);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("t.parquet");
    let mut sink = Sink::create(&path, &rows.schema(), &WriteOptions::default()).unwrap();
    sink.write(&rows).unwrap();
    sink.finish().unwrap();
    let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
    let file = std::fs::File::open(path).unwrap();
    let mut reader =
        ParquetRecordBatchReaderBuilder::try_new_with_options(file, options).unwrap().build().unwrap();
    let read = reader.next().unwrap().unwrap();
    assert_eq!(read.column(0).as_primitive::<TimestampMillisecondType>().value(0), 1_700_000_000_000);
    assert!(
        matches!(read.column(1).data_type(), DataType::List(item) if *item.data_type() == DataType::Timestamp(TimeUnit::Millisecond, None))
    );
}

/// Inside other values, JSON has no word for what it doesn't know.
#[test]
fn nested_values_that_json_lacks_are_refused() {
    let floats: ArrayRef = Arc::new(Float64Array::from(vec![1.5, f64::NAN]));
    let bytes: ArrayRef = Arc::new(BinaryArray::from_vec(vec![b"a", b"b"]));
    let of = |name: &str, array: ArrayRef| {
        let field = Arc::new(Field::new(name, array.data_type().clone(), true));
        batch(vec![plain("s", StructArray::from(vec![(field, array)]))])
    };
    for format in ["a.csv", "a.jsonl"] {
        let (numbers, options) = (of("x", Arc::clone(&floats)), WriteOptions::default());
        let mut sink = Sink::to_writer(format, io::sink(), &numbers.schema(), &options).unwrap();
        sink.write(&numbers.slice(0, 1)).unwrap();
        let error = sink.write(&numbers).unwrap_err();
        assert!(error.message().contains("NaN") && error.message().contains("row 3"), "{error}");
        let error =
            Sink::to_writer(format, io::sink(), &of("b", Arc::clone(&bytes)).schema(), &options).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
    }
}
