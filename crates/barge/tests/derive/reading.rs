//! Reading rows: columns by name, casts without loss, and errors that name column and row.

use std::sync::Arc;

use barge::arrow::array::*;
use barge::arrow::buffer::{NullBuffer, OffsetBuffer};
use barge::arrow::datatypes::*;
use barge::record::{batch_of, value};
use barge::{Error, ErrorKind, FromRow, Record, TextEnum};
use chrono::{DateTime, NaiveDate, Utc};
use rust_decimal::Decimal;

/// Reads one column as `T`.
fn read<T: value::FromColumn>(array: impl Array + 'static) -> Result<Vec<T>, Error> {
    let array: ArrayRef = Arc::new(array);
    let batch = RecordBatch::try_from_iter_with_nullable([("c", array, true)]).unwrap();
    let bound = value::bind::<T>(&batch, "c")?;
    (0..batch.num_rows()).map(|row| T::get(&bound, row)).collect()
}

/// Reads one column as `T`, which must fail at a row.
fn unreadable<T: value::FromColumn + std::fmt::Debug>(array: impl Array + 'static, row: u64, expected: &str) {
    let error = read::<T>(array).unwrap_err();
    assert_eq!((error.kind(), error.column(), error.row()), (ErrorKind::InvalidValue, Some("c"), Some(row)));
    assert!(error.message().contains(expected), "{error}");
}

#[derive(FromRow, Debug, PartialEq)]
struct Total {
    account: String,
    amount: Option<i64>,
    #[record(rename = "at")]
    day: NaiveDate,
    #[record(skip)]
    note: Vec<u8>,
}

#[test]
fn columns_are_found_by_name_in_any_order_beside_others() {
    let batch = RecordBatch::try_from_iter::<_, &str>([
        ("other", Arc::new(BooleanArray::from(vec![true, false])) as ArrayRef),
        ("at", Arc::new(Date32Array::from(vec![0, 1]))),
        ("amount", Arc::new(Int64Array::from(vec![None, Some(2)]))),
        ("account", Arc::new(StringArray::from(vec!["a", "b"]))),
    ])
    .unwrap();
    let day = |day| NaiveDate::from_ymd_opt(1970, 1, day).unwrap();
    let rows = Total::from_batch(&batch).unwrap();
    assert_eq!(
        rows,
        [
            Total { account: "a".into(), amount: None, day: day(1), note: vec![] },
            Total { account: "b".into(), amount: Some(2), day: day(2), note: vec![] },
        ]
    );
    let wished = Total::schema();
    let names: Vec<&str> = wished.fields().iter().map(|field| field.name().as_str()).collect();
    assert_eq!(names, ["account", "amount", "at"]);
}

#[test]
fn a_missing_column_is_named() {
    let batch = RecordBatch::try_from_iter([("Account", Arc::new(StringArray::from(vec!["a"])) as ArrayRef)]);
    let error = Total::from_batch(&batch.unwrap()).unwrap_err();
    assert_eq!((error.kind(), error.column()), (ErrorKind::MissingColumn, Some("account")));
    assert!(error.message().contains("it has Account"), "{error}");
}

#[test]
fn null_is_refused_where_the_field_is_no_option() {
    unreadable::<i32>(Int32Array::from(vec![Some(1), None]), 1, "read the column as an Option");
    unreadable::<String>(NullArray::new(1), 0, "read the column as an Option");
    let dictionary: DictionaryArray<Int32Type> = vec![Some("a"), None].into_iter().collect();
    unreadable::<String>(dictionary, 1, "read the column as an Option");
    assert_eq!(read::<Option<String>>(NullArray::new(2)).unwrap(), [None, None]);
}

#[test]
fn numbers_are_cast_without_loss() {
    assert_eq!(read::<i16>(Int64Array::from(vec![i64::from(i16::MIN), 7])).unwrap(), [i16::MIN, 7]);
    unreadable::<i16>(Int64Array::from(vec![7, 40_000]), 1, "40000");
    unreadable::<u64>(Int64Array::from(vec![0, 1, -1]), 2, "-1");
    assert_eq!(read::<Option<u8>>(Int8Array::from(vec![None, Some(5)])).unwrap(), [None, Some(5)]);
    assert_eq!(read::<f64>(Int64Array::from(vec![1 << 53])).unwrap(), [(1_u64 << 53) as f64]);
    unreadable::<f64>(Int64Array::from(vec![0, i64::MAX]), 1, "without loss");
    assert_eq!(read::<i32>(Float64Array::from(vec![2.0])).unwrap(), [2]);
    unreadable::<i32>(Float64Array::from(vec![2.0, 2.5]), 1, "without loss");
    assert_eq!(read::<f32>(Float64Array::from(vec![0.5, f64::INFINITY])).unwrap(), [0.5, f32::INFINITY]);
    unreadable::<f32>(Float64Array::from(vec![0.1]), 0, "without loss");
    unreadable::<f32>(Float64Array::from(vec![1e300]), 0, "without loss");
    assert_eq!(read::<bool>(Int64Array::from(vec![0, 1])).unwrap(), [false, true]);
    unreadable::<bool>(Int64Array::from(vec![0, 2]), 1, "without loss");
    let numeric = Decimal128Array::from(vec![i128::from(u64::MAX)]).with_precision_and_scale(20, 0);
    assert_eq!(read::<u64>(numeric.unwrap()).unwrap(), [u64::MAX]);
    let cents = Decimal128Array::from(vec![100, 150]).with_precision_and_scale(9, 2).unwrap();
    unreadable::<i64>(cents, 1, "without loss");
}

#[test]
fn decimals_are_read_from_every_kind_of_number() {
    let decimal = |text: &str| text.parse::<Decimal>().unwrap();
    assert_eq!(read::<Decimal>(Int64Array::from(vec![i64::MIN])).unwrap(), [Decimal::from(i64::MIN)]);
    assert_eq!(read::<Decimal>(UInt64Array::from(vec![u64::MAX])).unwrap(), [Decimal::from(u64::MAX)]);
    assert_eq!(read::<Decimal>(Float64Array::from(vec![0.1])).unwrap(), [decimal("0.1")]);
    unreadable::<Decimal>(Float64Array::from(vec![1e-20]), 0, "without loss");
    let texts = StringArray::from(vec![Some("1.0000000000000000000000000001"), None, Some("-12e3")]);
    let read_texts = read::<Option<Decimal>>(texts).unwrap();
    assert_eq!(read_texts, [Some(decimal("1.0000000000000000000000000001")), None, Some(decimal("-12000"))]);
    unreadable::<Decimal>(StringArray::from(vec!["1", "NaN"]), 1, "'NaN' is no decimal");

    // Zeros at the end need none of the 28 digits.
    let wide = Decimal128Array::from(vec![12 * 10_i128.pow(36), 0, -(10_i128.pow(20))]);
    let wide = wide.with_precision_and_scale(38, 36).unwrap();
    assert_eq!(read::<Decimal>(wide).unwrap(), [decimal("12"), decimal("0"), decimal("-0.0000000000000001")]);
    let digits = Decimal128Array::from(vec![10_i128.pow(37) + 1]).with_precision_and_scale(38, 0).unwrap();
    let error = read::<Decimal>(digits).unwrap_err();
    assert!(error.message().contains("28 digits"), "{error}");
}

#[test]
fn times_are_cast_without_loss() {
    let nanos = |value| TimestampNanosecondArray::from(vec![5_000, value]).with_timezone("+02:00");
    let time = |micros| DateTime::from_timestamp_micros(micros).unwrap();
    assert_eq!(read::<DateTime<Utc>>(nanos(-7_000)).unwrap(), [time(5), time(-7)]);
    unreadable::<DateTime<Utc>>(nanos(7_001), 1, "without loss");
    let midnight = TimestampSecondArray::from(vec![86_400]);
    assert_eq!(read::<NaiveDate>(midnight).unwrap(), [NaiveDate::from_ymd_opt(1970, 1, 2).unwrap()]);
    unreadable::<NaiveDate>(TimestampSecondArray::from(vec![86_401]), 0, "without loss");
    assert!(
        read::<DateTime<Utc>>(TimestampMicrosecondArray::from(vec![i64::MAX]).with_timezone("UTC")).is_err()
    );
    assert!(read::<NaiveDate>(Date32Array::from(vec![i32::MAX])).is_err());
}

#[test]
fn text_comes_in_several_shapes() {
    let dictionary: DictionaryArray<Int8Type> = vec!["b", "a", "b"].into_iter().collect();
    assert_eq!(read::<String>(dictionary).unwrap(), ["b", "a", "b"]);
    assert_eq!(read::<Arc<str>>(LargeStringArray::from(vec!["x"])).unwrap(), [Arc::<str>::from("x")]);
    assert_eq!(read::<Box<str>>(StringViewArray::from(vec!["view"])).unwrap(), [Box::<str>::from("view")]);
    assert_eq!(read::<String>(Int64Array::from(vec![-5])).unwrap(), ["-5"]);
    let uuid = uuid::Uuid::from_u128(7);
    assert_eq!(read::<uuid::Uuid>(StringViewArray::from(vec![uuid.to_string()])).unwrap(), [uuid]);
    unreadable::<uuid::Uuid>(StringArray::from(vec!["7"]), 0, "'7' is no UUID");
    unreadable::<i64>(StringArray::from(vec!["1", "x"]), 1, "'x'");
}

#[test]
fn lists_are_read_value_by_value() {
    let values: ArrayRef = Arc::new(Int32Array::from(vec![Some(9), Some(1), None, Some(3), None]));
    let item = Arc::new(Field::new("element", DataType::Int32, true));
    let nulls = NullBuffer::from(vec![true, true, false, true]);
    let offsets = OffsetBuffer::new(vec![0, 1, 2, 3, 4].into());
    // Row 2 is NULL, and so is the value behind it; the last value is in no row.
    let list = ListArray::new(item.clone(), offsets, values.clone(), Some(nulls));
    let expected = [Some(vec![9]), Some(vec![1]), None, Some(vec![3])];
    assert_eq!(read::<Option<Vec<i64>>>(list.clone()).unwrap(), expected);
    assert_eq!(read::<Option<Vec<i64>>>(list.slice(1, 3)).unwrap(), expected[1..]);

    let offsets = OffsetBuffer::new(vec![0, 2, 4].into());
    let list = ListArray::new(item.clone(), offsets, values, None);
    unreadable::<Vec<i32>>(list.clone(), 1, "Vec<Option<_>>");
    let expected = [vec![Some(9), Some(1)], vec![None, Some(3)]];
    assert_eq!(read::<Vec<Option<i32>>>(list).unwrap(), expected);
    let error = read::<Vec<i32>>(Int32Array::from(vec![1])).unwrap_err();
    assert!(error.message().contains("can't be read as a list"), "{error}");
}

#[test]
fn vectors_have_their_length() {
    let item = Arc::new(Field::new("item", DataType::Float64, true));
    let values: ArrayRef =
        Arc::new(Float64Array::from(vec![Some(1.0), Some(2.0), None, None, Some(5.0), Some(6.0)]));
    let nulls = NullBuffer::from(vec![true, false, true]);
    let fixed = FixedSizeListArray::new(item.clone(), 2, values.clone(), Some(nulls));
    let expected = [Some([1.0, 2.0]), None, Some([5.0, 6.0])];
    assert_eq!(read::<Option<[f32; 2]>>(fixed.clone()).unwrap(), expected);
    assert_eq!(read::<Option<[f32; 2]>>(fixed.slice(1, 2)).unwrap(), expected[1..]);
    assert_eq!(read::<Vec<f32>>(fixed.slice(2, 1)).unwrap(), [vec![5.0, 6.0]]);
    assert!(read::<Option<[f32; 3]>>(fixed).is_err());
    let fixed = FixedSizeListArray::new(item.clone(), 2, values.slice(0, 4), None);
    unreadable::<[f32; 2]>(fixed, 1, "NULL");
    let list = ListArray::new(item, OffsetBuffer::new(vec![0, 2].into()), values.slice(0, 2), None);
    assert_eq!(read::<[f32; 2]>(list.clone()).unwrap(), [[1.0, 2.0]]);
    assert!(read::<[f32; 3]>(list).is_err());
}

#[test]
fn an_unknown_text_of_an_enum_is_refused_with_the_known_ones() {
    #[derive(TextEnum, Debug, PartialEq)]
    #[text(rename_all = "kebab-case")]
    enum Status {
        Pending,
        InReview,
    }

    #[derive(FromRow, Debug)]
    #[allow(dead_code)]
    struct Row {
        status: Option<Status>,
    }

    let batch = |texts: Vec<Option<&str>>| {
        RecordBatch::try_from_iter([("status", Arc::new(StringArray::from(texts)) as ArrayRef)]).unwrap()
    };
    let rows = Row::from_batch(&batch(vec![Some("in-review"), None, Some("pending")])).unwrap();
    let statuses: Vec<_> = rows.into_iter().map(|row| row.status).collect();
    assert_eq!(statuses, [Some(Status::InReview), None, Some(Status::Pending)]);
    let error = Row::from_batch(&batch(vec![None, Some("PENDING")])).unwrap_err();
    assert_eq!(error.to_string(), "row 1, column status: 'PENDING' is none of the texts pending, in-review");
}

#[test]
fn a_row_is_read_where_its_fields_stand_in_another_order() {
    #[derive(Record)]
    #[record(table = "t")]
    struct Written {
        a: i32,
        b: i32,
    }
    #[derive(FromRow, Debug, PartialEq)]
    struct Read {
        b: i64,
        a: i64,
    }
    let batch = batch_of(&[Written { a: 1, b: 2 }]).unwrap();
    assert_eq!(Read::from_batch(&batch).unwrap(), [Read { b: 2, a: 1 }]);
}
