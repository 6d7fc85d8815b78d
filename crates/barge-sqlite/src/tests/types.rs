//! Equal or rejected: every kind of value in a column of every affinity.

use std::sync::Arc;

use arrow::array::*;
use arrow::datatypes::*;
use barge_core::store::Query;
use barge_core::{ErrorKind, Operation, Store};

use super::support::*;

fn values() -> Vec<ArrayRef> {
    let decimals = |values: Vec<i128>, precision, scale| -> ArrayRef {
        Arc::new(Decimal128Array::from(values).with_precision_and_scale(precision, scale).unwrap())
    };
    let max = 10_i128.pow(38) - 1;
    vec![
        Arc::new(BooleanArray::from(vec![true, false])),
        Arc::new(Int8Array::from(vec![i8::MIN, i8::MAX])),
        Arc::new(Int64Array::from(vec![i64::MIN, i64::MAX, 0, -1, (1 << 53) + 1, 1 << 60])),
        Arc::new(UInt64Array::from(vec![0, u64::MAX, i64::MAX as u64, 1 << 63])),
        Arc::new(Float64Array::from(vec![
            0.1,
            -0.0,
            1.0,
            1e300,
            5e-324,
            f64::MAX,
            f64::INFINITY,
            f64::NEG_INFINITY,
            f64::NAN,
            0.1 + 0.2,
            9.3e18,
            123456789.0,
        ])),
        Arc::new(Float32Array::from(vec![
            0.1,
            f32::MAX,
            f32::MIN_POSITIVE,
            f32::INFINITY,
            f32::NAN,
            16_777_217.0,
        ])),
        Arc::new(StringArray::from(vec![
            "",
            "abc",
            "123",
            "007",
            " 1",
            "1.0",
            "1.5",
            "1e5",
            "-0",
            "9223372036854775808",
            "é\u{1F600}",
            "a\0b",
            "0x10",
            "inf",
            "0.30000000000000004",
            "true",
            "2024-01-02",
        ])),
        Arc::new(LargeStringArray::from(vec!["7", "x"])),
        Arc::new(StringViewArray::from(vec!["7", "a text too long to be inlined"])),
        Arc::new(BinaryArray::from(vec![b"".as_ref(), b"\0\xff", b"12"])),
        Arc::new(FixedSizeBinaryArray::try_from_iter([[1_u8, 2], [0, 0]].iter()).unwrap()),
        Arc::new(Date32Array::from(vec![-719_162, 0, 2_932_896])),
        Arc::new(Time64MicrosecondArray::from(vec![0, 86_399_999_999])),
        Arc::new(TimestampMicrosecondArray::from(vec![-62_135_596_800_000_000, 0, 253_402_300_799_999_999])),
        Arc::new(TimestampMicrosecondArray::from(vec![-1, 1]).with_timezone("UTC")),
        Arc::new(TimestampNanosecondArray::from(vec![1_000, 1_001])),
        decimals(vec![0, 1, -150, 123_456_789_012_345, 1_234_567_890_123_456_789, max], 38, 2),
        decimals(vec![5, i128::from(i64::MAX), max], 38, 0),
        Arc::new(ListArray::from_iter_primitive::<Float32Type, _, _>([
            Some(vec![Some(0.1), Some(f32::NAN)]),
            Some(vec![]),
            Some(vec![None]),
        ])),
        Arc::new(FixedSizeListArray::from_iter_primitive::<Float32Type, _, _>(
            [Some(vec![Some(0.1), Some(-0.0)]), None],
            2,
        )),
        Arc::new(ListArray::from_iter_primitive::<UInt64Type, _, _>([
            Some(vec![Some(u64::MAX), None]),
            Some(vec![]),
        ])),
        Arc::new(ListArray::from_iter_primitive::<Float64Type, _, _>([Some(vec![Some(0.1), Some(-1e300)])])),
        Arc::new(DictionaryArray::<Int8Type>::from_iter(["a", "b", "a"])),
        Arc::new(Int64Array::from(vec![None, Some(5), None])),
    ]
}

#[tokio::test]
async fn every_value_comes_back_equal_or_was_rejected() {
    let types =
        ["INTEGER", "TEXT", "BLOB", "REAL", "NUMERIC", "DECIMAL(20,4)", "BOOLEAN", "DATETIME", "STRING", ""];
    for declared in types {
        for array in values() {
            round_trip(declared, &array).await;
        }
    }
}

async fn round_trip(declared: &str, array: &ArrayRef) {
    let context = format!("{} in a column declared {declared:?}", array.data_type());
    let store = memory(&[&format!("CREATE TABLE t(id INTEGER PRIMARY KEY, x {declared})")]).await;
    let ids: ArrayRef = Arc::new(Int64Array::from_iter_values(0..array.len() as i64));
    let rows = batch(vec![("id", ids), ("x", Arc::clone(array))]);
    let target = target(&store, "t", Operation::Insert, &rows, &[]).await.unwrap();
    let rejected: Vec<usize> = store.check(&target, &rows).into_iter().map(|(row, _)| row).collect();
    let kept: Vec<usize> = (0..array.len()).filter(|row| !rejected.contains(row)).collect();
    let indices = UInt32Array::from_iter_values(kept.iter().map(|row| *row as u32));
    let kept = arrow::compute::take_record_batch(&rows, &indices).unwrap();
    if kept.num_rows() > 0 {
        store.transact(None, &[step(&target, &kept)]).await.unwrap();
    }
    let fields = vec![field("id", DataType::Int64), field("x", array.data_type().clone())];
    let found =
        store.look_up(look_up("t", fields, kept.project(&[0]).unwrap())).await.unwrap().into_batch().await;
    let found = found.unwrap_or_else(|error| panic!("{context}: {error:?}"));
    let (expected, found) = (kept.column(1), found.column(2));
    assert_eq!(found.data_type(), expected.data_type(), "{context}");
    for row in 0..expected.len() {
        let (one, other) = (expected.slice(row, 1), found.slice(row, 1));
        let equal =
            one.as_ref() == other.as_ref() || equal_floats(&one, &other) || shown(&one) == shown(&other);
        assert!(equal, "{context}: {one:?} came back as {other:?}");
    }
    let plain = rejected.is_empty() || rejected.len() < array.len();
    assert!(plain || declared != "TEXT", "{context}: nothing can be stored");
}

/// −0.0 equals 0.0 to a Rust program, and not to Arrow.
fn equal_floats(one: &ArrayRef, other: &ArrayRef) -> bool {
    match one.data_type() {
        DataType::Float64 => {
            one.as_primitive::<Float64Type>().value(0) == other.as_primitive::<Float64Type>().value(0)
        }
        _ => false,
    }
}

fn shown(array: &ArrayRef) -> String {
    arrow::util::display::array_value_to_string(array, 0).unwrap()
}

#[tokio::test]
async fn what_others_wrote_is_read_in_the_wanted_types_or_refused_by_name() {
    let store = memory(&[
        "CREATE TABLE t(id INTEGER PRIMARY KEY, at DATETIME, flag, amount)",
        "INSERT INTO t VALUES (1, '2024-01-02 03:04:05', 'true', 1.25), (2, '2024-01-02T03:04:05.5Z', 0, '2.5'), (3, NULL, 1, 3)",
    ])
    .await;
    let utc = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    let wanted = Schema::new(vec![
        field("at", utc),
        field("flag", DataType::Boolean),
        field("amount", DataType::Decimal128(10, 2)),
    ]);
    let query =
        Query { schema: Some(Arc::new(wanted)), ..Query::new("SELECT at, flag, amount FROM t ORDER BY id") };
    let read = store.query(query).await.unwrap().collect().await.unwrap().remove(0);
    assert_eq!(read.column(1).as_boolean(), &BooleanArray::from(vec![true, false, true]));
    assert_eq!(read.column(2).as_primitive::<Decimal128Type>().values().as_ref(), [125, 250, 300]);
    assert_eq!(read.column(0).null_count(), 1);

    let wanted = Arc::new(Schema::new(vec![field("at", DataType::Int64)]));
    let query = Query { schema: Some(wanted), ..Query::new("SELECT at FROM t ORDER BY id DESC") };
    let error = store.query(query).await.unwrap_err();
    assert_eq!((error.kind(), error.column(), error.row()), (ErrorKind::InvalidValue, Some("at"), Some(1)));
    assert!(error.message().contains("2024-01-02T03:04:05.5Z"), "{error}");
}

#[tokio::test]
async fn expressions_take_the_type_of_their_first_values() {
    let store = memory(&[]).await;
    let sql = "SELECT 1 AS i, 1.5 AS r, 'a' AS t, x'00' AS b, NULL AS n, CASE value WHEN 1 THEN 1 ELSE 2.5 END AS mixed
               FROM (SELECT 1 AS value UNION ALL SELECT 2)";
    let stream = store.query(Query::new(sql)).await.unwrap();
    let types: Vec<DataType> =
        stream.schema().fields().iter().map(|field| field.data_type().clone()).collect();
    use DataType::*;
    assert_eq!(types, [Int64, Float64, Utf8, Binary, Utf8, Float64]);
    let empty = store.query(Query::new("SELECT 1 AS i WHERE false")).await.unwrap();
    assert_eq!(empty.schema().field(0).name(), "i");
    assert!(empty.collect().await.unwrap().is_empty());
}

#[tokio::test]
async fn a_real_key_in_a_text_column_is_found_as_it_was_written() {
    let store = memory(&["CREATE TABLE t(k TEXT PRIMARY KEY, x TEXT)"]).await;
    let keys: ArrayRef = Arc::new(Float64Array::from(vec![0.1 + 0.2, 5.0]));
    let rows = batch(vec![("k", keys), ("x", Arc::new(StringArray::from(vec!["a", "b"])) as ArrayRef)]);
    for _ in 0..2 {
        write(&store, "t", Operation::Upsert, &rows, &["k"]).await.unwrap();
    }
    let fields = vec![field("k", DataType::Float64), field("x", DataType::Utf8)];
    let found = store
        .look_up(look_up("t", fields, rows.project(&[0]).unwrap()))
        .await
        .unwrap()
        .into_batch()
        .await
        .unwrap();
    assert_eq!(found.column(2).as_string::<i32>(), &StringArray::from(vec!["a", "b"]));
}
