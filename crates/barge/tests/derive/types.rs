//! Every type of docs/types.md, owned and borrowed, with its extremes: what is written comes back equal, or is refused.

use std::borrow::Cow;
use std::fmt::Debug;
use std::sync::Arc;

use barge::arrow::datatypes::{DataType, Field, TimeUnit};
use barge::record::batch_of;
use barge::{Error, ErrorKind, FromRow, Record, TextEnum};
use chrono::{DateTime, NaiveDate, NaiveDateTime, NaiveTime, Utc};
use proptest::prelude::*;
use rust_decimal::Decimal;
use serde_json::{Value, json};
use uuid::Uuid;

#[derive(Record, FromRow, Debug, Clone, PartialEq)]
#[record(table = "scalars")]
struct Scalars {
    bool: bool,
    i8: i8,
    i16: i16,
    i32: i32,
    i64: i64,
    u8: u8,
    u16: u16,
    u32: u32,
    u64: u64,
    f32: f32,
    f64: f64,
    decimal: Decimal,
    #[record(decimal(38, 20))]
    wide: Decimal,
    text: String,
    bytes: Vec<u8>,
    date: NaiveDate,
    time: NaiveTime,
    utc: DateTime<Utc>,
    naive: NaiveDateTime,
    uuid: Uuid,
    json: Value,
    kind: Kind,
}

#[derive(TextEnum, Debug, Clone, Copy, PartialEq)]
#[text(rename_all = "SCREAMING_SNAKE_CASE")]
enum Kind {
    Pending,
    InReview,
    #[text(rename = "fertig ✓")]
    Done,
}

fn decimal(text: &str) -> Decimal {
    text.parse().unwrap()
}

/// The largest and the smallest value of every scalar.
fn extremes() -> [Scalars; 3] {
    let largest = Scalars {
        bool: true,
        i8: i8::MAX,
        i16: i16::MAX,
        i32: i32::MAX,
        i64: i64::MAX,
        u8: u8::MAX,
        u16: u16::MAX,
        u32: u32::MAX,
        u64: u64::MAX,
        f32: f32::MAX,
        f64: f64::INFINITY,
        decimal: decimal("999999999999999999.9999999999"),
        wide: decimal("123456789012345678"),
        text: "\u{10ffff}'\"\\\r\n\t% \u{301}".into(),
        bytes: (0..=255).collect(),
        date: NaiveDate::from_ymd_opt(9999, 12, 31).unwrap(),
        time: NaiveTime::from_hms_micro_opt(23, 59, 59, 999_999).unwrap(),
        utc: "9999-12-31T23:59:59.999999Z".parse().unwrap(),
        naive: "9999-12-31T23:59:59.999999".parse().unwrap(),
        uuid: Uuid::max(),
        json: json!({"a": [1, 2.5, -0.0, 1e300, u64::MAX, i64::MIN, null, true], "é\u{0}": {"": ""}}),
        kind: Kind::Done,
    };
    let smallest = Scalars {
        bool: false,
        i8: i8::MIN,
        i16: i16::MIN,
        i32: i32::MIN,
        i64: i64::MIN,
        u8: 0,
        u16: 0,
        u32: 0,
        u64: 0,
        f32: f32::MIN,
        f64: f64::NEG_INFINITY,
        decimal: decimal("-999999999999999999.9999999999"),
        wide: decimal("-0.00000000000000000001"),
        text: String::new(),
        bytes: Vec::new(),
        date: NaiveDate::from_ymd_opt(1, 1, 1).unwrap(),
        time: NaiveTime::MIN,
        utc: "0001-01-01T00:00:00Z".parse().unwrap(),
        naive: "0001-01-01T00:00:00".parse().unwrap(),
        uuid: Uuid::nil(),
        json: Value::Null,
        kind: Kind::Pending,
    };
    let between = Scalars {
        f32: f32::MIN_POSITIVE,
        f64: 5e-324,
        decimal: decimal("0.0000000001"),
        wide: decimal("0.00000000000000000001"),
        text: "\u{0}".into(),
        utc: "1969-12-31T23:59:59.999999Z".parse().unwrap(),
        json: json!(""),
        kind: Kind::InReview,
        ..smallest.clone()
    };
    [largest, smallest, between]
}

fn round_trip<R: Record + FromRow + Debug + PartialEq>(rows: &[R]) {
    let batch = batch_of(rows).unwrap();
    assert_eq!(R::from_batch(&batch).unwrap(), rows);
    // And from the middle of a batch.
    if let [_, rest @ ..] = rows {
        assert_eq!(R::from_batch(&batch.slice(1, rest.len())).unwrap(), rest);
    }
}

#[test]
fn every_scalar_comes_back_equal_at_its_extremes() {
    round_trip(&extremes());
    round_trip::<Scalars>(&[]);
}

#[test]
fn scalars_have_the_documented_types() {
    use DataType::*;
    let micros = TimeUnit::Microsecond;
    let expected = [
        Boolean,
        Int8,
        Int16,
        Int32,
        Int64,
        UInt8,
        UInt16,
        UInt32,
        UInt64,
        Float32,
        Float64,
        Decimal128(28, 10),
        Decimal128(38, 20),
        Utf8,
        Binary,
        Date32,
        Time64(micros),
        Timestamp(micros, Some("UTC".into())),
        Timestamp(micros, None),
        FixedSizeBinary(16),
        Utf8,
        Utf8,
    ];
    let (written, read) = (Scalars::table().schema(), Scalars::schema());
    assert_eq!(written.fields().iter().map(|field| field.data_type().clone()).collect::<Vec<_>>(), expected);
    assert_eq!(*written, read);
    assert!(written.fields().iter().all(|field| !field.is_nullable()));
    assert!(barge::record::is_uuid(written.field(19)));
    assert!(barge::record::is_json(written.field(20)));
    assert!(!barge::record::is_json(written.field(21)));
}

#[test]
fn a_float_keeps_its_bits() {
    #[derive(Record, FromRow)]
    #[record(table = "floats")]
    struct Floats {
        small: f32,
        large: f64,
    }

    let bits = |row: &Floats| (row.small.to_bits(), row.large.to_bits());
    let rows = [
        Floats { small: f32::NAN, large: f64::NAN },
        Floats { small: -0.0, large: -0.0 },
        Floats { small: f32::NEG_INFINITY, large: f64::MIN },
    ];
    let back = Floats::from_batch(&batch_of(&rows).unwrap()).unwrap();
    assert_eq!(back.iter().map(bits).collect::<Vec<_>>(), rows.iter().map(bits).collect::<Vec<_>>());
}

#[derive(Record, FromRow, Debug, Clone, PartialEq, Default)]
#[record(table = "options")]
struct Options {
    bool: Option<bool>,
    i64: Option<i64>,
    f32: Option<f32>,
    #[record(decimal(5, 2))]
    decimal: Option<Decimal>,
    text: Option<String>,
    boxed: Option<Box<str>>,
    shared: Option<Arc<str>>,
    bytes: Option<Vec<u8>>,
    date: Option<NaiveDate>,
    time: Option<NaiveTime>,
    utc: Option<DateTime<Utc>>,
    naive: Option<NaiveDateTime>,
    uuid: Option<Uuid>,
    json: Option<Value>,
    kind: Option<Kind>,
    list: Option<Vec<i32>>,
    vector: Option<[f32; 3]>,
}

#[test]
fn every_type_may_be_none() {
    let some = Options {
        bool: Some(false),
        i64: Some(0),
        f32: Some(0.0),
        decimal: Some(decimal("0.00")),
        text: Some(String::new()),
        boxed: Some("".into()),
        shared: Some("shared".into()),
        bytes: Some(Vec::new()),
        date: NaiveDate::from_ymd_opt(1970, 1, 1),
        time: Some(NaiveTime::MIN),
        utc: Some(DateTime::UNIX_EPOCH),
        naive: Some(DateTime::UNIX_EPOCH.naive_utc()),
        uuid: Some(Uuid::nil()),
        json: Some(Value::Null),
        kind: Some(Kind::Done),
        list: Some(Vec::new()),
        vector: Some([0.0; 3]),
    };
    assert!(Options::schema().fields().iter().all(|field| field.is_nullable()));
    round_trip(&[Options::default(), some.clone(), Options::default(), some]);
    round_trip(&[Options::default()]);
}

/// The same columns as `Owned`, borrowed.
#[derive(Record)]
#[record(table = "texts")]
struct Borrowed<'a> {
    text: &'a str,
    some: Option<&'a str>,
    cow: Cow<'a, str>,
    bytes: &'a [u8],
    blob: Option<Cow<'a, [u8]>>,
    #[record(decimal(9, 3))]
    amount: &'a Decimal,
    json: &'a Value,
    none: &'a Option<String>,
    kind: &'a Kind,
    list: &'a [&'a str],
    cows: Cow<'a, [i64]>,
    vector: &'a [f32; 2],
}

#[derive(Record, FromRow, Debug, PartialEq, Clone)]
#[record(table = "texts")]
struct Owned {
    text: Box<str>,
    some: Option<Arc<str>>,
    cow: Cow<'static, str>,
    bytes: Box<[u8]>,
    blob: Option<Arc<[u8]>>,
    #[record(decimal(9, 3))]
    amount: Decimal,
    json: Value,
    none: Option<String>,
    kind: Kind,
    list: Vec<String>,
    cows: Vec<i64>,
    vector: [f32; 2],
}

#[test]
fn borrowed_and_owned_records_make_the_same_batch() {
    let owned = Owned {
        text: "text".into(),
        some: Some("some".into()),
        cow: "cow".into(),
        bytes: [1, 2].into(),
        blob: Some([0].into()),
        amount: decimal("123456.789"),
        json: json!([{}]),
        none: None,
        kind: Kind::InReview,
        list: vec!["a".into(), String::new()],
        cows: vec![1, -1],
        vector: [0.5, f32::MAX],
    };
    let list: Vec<&str> = owned.list.iter().map(String::as_str).collect();
    let borrowed = Borrowed {
        text: &owned.text,
        some: owned.some.as_deref(),
        cow: Cow::Borrowed(&owned.cow),
        bytes: &owned.bytes,
        blob: owned.blob.as_deref().map(Cow::Borrowed),
        amount: &owned.amount,
        json: &owned.json,
        none: &owned.none,
        kind: &owned.kind,
        list: &list,
        cows: Cow::Borrowed(&owned.cows),
        vector: &owned.vector,
    };
    let batch = batch_of(&[borrowed]).unwrap();
    assert_eq!(batch, batch_of(std::slice::from_ref(&owned)).unwrap());
    assert_eq!(Owned::from_batch(&batch).unwrap(), [owned]);
}

#[derive(Record, FromRow, Debug, Clone, PartialEq)]
#[record(table = "lists")]
struct Lists {
    texts: Vec<Option<String>>,
    floats: Vec<f32>,
    vector: [f32; 3],
    empty: [f32; 0],
    maybe: Option<Vec<Option<i64>>>,
    blobs: Vec<Vec<u8>>,
    #[record(decimal(6, 2))]
    amounts: Vec<Option<Decimal>>,
    times: Vec<DateTime<Utc>>,
    uuids: Vec<Uuid>,
    documents: Vec<Value>,
    kinds: Vec<Kind>,
    cows: Vec<Cow<'static, str>>,
}

fn lists() -> Lists {
    Lists {
        texts: vec![Some("a".into()), None, Some(String::new())],
        floats: vec![f32::MIN, 0.0],
        vector: [1.0, -2.0, f32::INFINITY],
        empty: [],
        maybe: Some(vec![None, Some(i64::MAX)]),
        blobs: vec![vec![], vec![0, 255]],
        amounts: vec![Some(decimal("-9999.99")), None],
        times: vec![DateTime::UNIX_EPOCH],
        uuids: vec![Uuid::max(), Uuid::nil()],
        documents: vec![json!(null), json!({"a": []})],
        kinds: vec![Kind::Done, Kind::Pending],
        cows: vec!["c".into()],
    }
}

#[test]
fn lists_come_back_equal() {
    let empty = Lists {
        texts: vec![],
        floats: vec![],
        vector: [0.0; 3],
        maybe: None,
        blobs: vec![],
        amounts: vec![],
        times: vec![],
        uuids: vec![],
        documents: vec![],
        kinds: vec![],
        cows: vec![],
        ..lists()
    };
    round_trip(&[lists(), empty.clone(), lists(), empty]);
    let float = |nullable| Arc::new(Field::new("item", DataType::Float32, nullable));
    assert_eq!(*Lists::schema().field(1).data_type(), DataType::List(float(false)));
    assert_eq!(*Lists::schema().field(2).data_type(), DataType::FixedSizeList(float(false), 3));
    let nullable = |field: &Arc<Field>| field.is_nullable().then(|| field.name().clone());
    assert_eq!(Lists::schema().fields().iter().filter_map(nullable).collect::<Vec<_>>(), ["maybe"]);
}

/// The error for one value of a type, which is refused.
fn refused<T>(value: T, expected: &str)
where
    T: barge::record::value::ToColumn,
{
    // The derive needs a type it can name, so the row is written out.
    let data_type = T::data_type(Default::default());
    let builder = <T::Builder as barge::record::value::ColumnBuilder>::with_capacity(&data_type, 1);
    let error: Error = value.check(&builder).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidValue);
    assert!(error.message().contains(expected), "{error}");
}

#[test]
fn what_cannot_come_back_equal_is_refused() {
    let year = |year| NaiveDate::from_ymd_opt(year, 1, 1).unwrap();
    let leap = NaiveTime::from_hms_milli_opt(23, 59, 59, 1_000).unwrap();
    refused(year(10_000), "years 1 to 9999");
    refused(year(0), "years 1 to 9999");
    refused(NaiveDateTime::MAX, "years 1 to 9999");
    refused(DateTime::<Utc>::MIN_UTC, "years 1 to 9999");
    refused(leap, "leap second");
    refused(year(2016).and_time(leap), "leap second");
    refused(year(2016).and_time(leap).and_utc(), "leap second");
    refused(Decimal::MAX, "doesn't fit decimal(28, 10)");
    refused(decimal("0.00000000001"), "doesn't fit decimal(28, 10)");
    refused(Some(year(0)), "years 1 to 9999");
    refused(vec![Some(decimal("1")), Some(Decimal::MIN)], "doesn't fit");
    refused(&[leap][..], "leap second");
    let nested = |depth: usize| (0..depth).fold(json!(1), |value, _| json!([value]));
    refused(nested(128), "deeper than 127");

    #[derive(Record, FromRow, Debug, PartialEq)]
    #[record(table = "documents")]
    struct Document {
        value: Value,
    }
    round_trip(&[Document { value: nested(127) }]);
}

#[test]
fn nanoseconds_are_cut_off_towards_the_past() {
    #[derive(Record, FromRow, Debug, PartialEq)]
    #[record(table = "times")]
    struct Times {
        utc: DateTime<Utc>,
        time: NaiveTime,
    }

    let row = |nanos: u32| Times {
        utc: DateTime::from_timestamp(-1, nanos).unwrap(),
        time: NaiveTime::from_num_seconds_from_midnight_opt(0, nanos).unwrap(),
    };
    let batch = batch_of(&[row(1_999), row(999_999_999)]).unwrap();
    assert_eq!(Times::from_batch(&batch).unwrap(), [row(1_000), row(999_999_000)]);
}

#[test]
fn a_text_enum_says_its_text() {
    assert_eq!(Kind::InReview.as_text(), "IN_REVIEW");
    const DONE: &str = Kind::Done.as_text();
    assert_eq!(DONE, "fertig ✓");
}

fn micros() -> impl Strategy<Value = DateTime<Utc>> {
    let range = "0001-01-01T00:00:00Z".parse::<DateTime<Utc>>().unwrap().timestamp_micros()
        ..="9999-12-31T23:59:59.999999Z".parse::<DateTime<Utc>>().unwrap().timestamp_micros();
    range.prop_map(|micros| DateTime::from_timestamp_micros(micros).unwrap())
}

fn json_values() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 16, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::hash_map(any::<String>(), inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

prop_compose! {
    fn integers()(a in any::<(i8, i16, i32, i64)>(), b in any::<(u8, u16, u32, u64)>()) -> Scalars {
        let [row, ..] = extremes();
        Scalars { i8: a.0, i16: a.1, i32: a.2, i64: a.3, u8: b.0, u16: b.1, u32: b.2, u64: b.3, ..row }
    }
}

prop_compose! {
    fn scalars()(
        integers in integers(),
        floats in (any::<bool>(), any::<f32>(), any::<f64>()),
        mantissa in -(10_i64.pow(18) - 1)..10_i64.pow(18),
        scale in 0_u32..=10,
        text in any::<String>(),
        bytes in any::<Vec<u8>>(),
        times in (micros(), micros(), micros()),
        uuid in any::<u128>(),
        json in json_values(),
        kind in prop::sample::select(vec![Kind::Pending, Kind::InReview, Kind::Done]),
    ) -> Scalars {
        let decimal = Decimal::new(mantissa, scale);
        Scalars {
            bool: floats.0, f32: floats.1, f64: floats.2, decimal, wide: decimal, text, bytes,
            date: times.0.date_naive(), time: times.0.time(), utc: times.1, naive: times.2.naive_utc(),
            uuid: Uuid::from_u128(uuid), json, kind, ..integers
        }
    }
}

prop_compose! {
    fn options()(row in scalars(), none in any::<u16>(), list in any::<Vec<i32>>(), vector in any::<[f32; 3]>()) -> Options {
        let held = |bit: u32| none & (1 << bit) == 0;
        Options {
            bool: held(0).then_some(row.bool),
            i64: held(1).then_some(row.i64),
            f32: held(2).then_some(row.f32),
            decimal: held(3).then(|| Decimal::new(row.i16.into(), 2)),
            text: held(4).then(|| row.text.clone()),
            boxed: held(5).then(|| row.text.as_str().into()),
            shared: held(6).then(|| row.text.as_str().into()),
            bytes: held(7).then_some(row.bytes),
            date: held(8).then_some(row.date),
            time: held(9).then_some(row.time),
            utc: held(10).then_some(row.utc),
            naive: held(11).then_some(row.naive),
            uuid: held(12).then_some(row.uuid),
            json: held(13).then_some(row.json),
            kind: held(14).then_some(row.kind),
            list: held(15).then_some(list),
            vector: held(0).then_some(vector),
        }
    }
}

proptest! {
    #[test]
    fn any_scalars_come_back_equal(rows in prop::collection::vec(scalars(), 0..8)) {
        let batch = batch_of(&rows).unwrap();
        prop_assert_eq!(Scalars::from_batch(&batch).unwrap(), rows);
    }

    #[test]
    fn any_options_come_back_equal(rows in prop::collection::vec(options(), 1..8)) {
        let batch = batch_of(&rows).unwrap();
        prop_assert_eq!(Options::from_batch(&batch.slice(1, rows.len() - 1)).unwrap(), &rows[1..]);
        prop_assert_eq!(Options::from_batch(&batch).unwrap(), rows);
    }
}
