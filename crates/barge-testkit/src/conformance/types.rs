//! Equal or rejected: every type of docs/types.md with its extremes, written and read back.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, TimeUnit};
use barge_core::record::{Column, is_json};
use barge_core::store::{Step, check_values};
use barge_core::{ErrorKind, Operation};

use super::Harness;
use super::fixture::*;
use crate::Value;
use DataType::*;

/// A column type, the values that every store must keep, and those that it may reject instead.
struct Type {
    field: Field,
    kept: Vec<Value>,
    may_reject: Vec<Value>,
}

impl Type {
    fn new(data_type: DataType, kept: Vec<Value>) -> Self {
        Type { field: Field::new("v", data_type, true), kept, may_reject: Vec::new() }
    }

    fn or_reject(self, may_reject: Vec<Value>) -> Self {
        Type { may_reject, ..self }
    }

    fn extension(mut self, name: &str) -> Self {
        let metadata = HashMap::from([("ARROW:extension:name".to_owned(), name.to_owned())]);
        self.field = self.field.with_metadata(metadata);
        self
    }
}

macro_rules! each {
    ($($value:expr),* $(,)?) => { vec![$(Value::from($value)),*] };
}

/// Creates a table for the type as the store would, writes the values one row each, and reads them back.
async fn check(harness: &dyn Harness, types: Vec<Type>) {
    let store = harness.store().await;
    for (number, Type { field, mut kept, may_reject }) in types.into_iter().enumerate() {
        let name = format!("type_{number}");
        let is_json = is_json(&field);
        let data_type = field.data_type().clone();
        let fixture = Fixture {
            store: store.clone(),
            table: table(name.as_str(), [key("id", Int64), Column::new(field)]),
        };
        let mut transaction = store.begin().await.unwrap();
        transaction.execute(&store.create_table_sql(&fixture.table).unwrap()).await.unwrap();
        transaction.commit().await.unwrap();
        kept.push(Value::Null);
        let must = kept.len();
        kept.extend(may_reject);
        let rows: Rows = kept.into_iter().zip(0i64..).map(|(value, id)| vec![id.into(), value]).collect();
        let step = fixture.step(Operation::Insert, &rows).await;
        let mut written = vec![true; rows.len()];
        let before = check_values(&step.target, &step.batch).into_iter();
        for (place, error) in before.chain(store.check(&step.target, &step.batch)) {
            assert!(rejects(&error), "{data_type}: {error:?}");
            written[place] = false;
        }
        for place in (0..rows.len()).filter(|&place| written[place]).collect::<Vec<_>>() {
            let step = Step { batch: step.batch.slice(place, 1), ..step.clone() };
            if let Err(error) = fixture.transact(&[step]).await {
                assert!(rejects(error.error()), "{data_type}, {:?}: {error:?}", shown(&rows[place][1]));
                written[place] = false;
            }
        }
        if let Some(place) = (0..must).find(|&place| !written[place]) {
            panic!("{data_type}: {:?} was rejected", shown(&rows[place][1]));
        }
        let keys: Rows = rows.iter().map(|row| row[..1].to_vec()).collect();
        for (place, found) in fixture.get(&keys).await.into_iter().enumerate() {
            let found = found.map(|row| row[1].clone());
            let expected = written[place].then(|| rows[place][1].clone());
            let equal = if is_json { json(&found) == json(&expected) } else { found == expected };
            assert!(
                equal,
                "{data_type}: {:?} came back as {:?}",
                expected.as_ref().map(shown),
                found.as_ref().map(shown)
            );
        }
    }
}

fn rejects(error: &barge_core::Error) -> bool {
    matches!(error.kind(), ErrorKind::InvalidValue | ErrorKind::TooLarge)
}

fn json(value: &Option<Value>) -> Option<serde_json::Value> {
    value.as_ref().map(|value| {
        value.as_text().map_or(serde_json::Value::Null, |text| serde_json::from_str(text).unwrap())
    })
}

/// A value for a message: the beginning of it.
fn shown(value: &Value) -> String {
    let text = format!("{value:?}");
    text.chars().take(200).collect()
}

fn decimal(digits: &str, scale: i8) -> Value {
    Value::decimal(digits.parse().unwrap(), scale)
}

fn list_of(item: DataType) -> DataType {
    List(Arc::new(Field::new("item", item, true)))
}

/// Booleans and integers of every width, to both ends.
pub async fn integers_are_equal(harness: &dyn Harness) {
    let types = vec![
        Type::new(Boolean, each![true, false]),
        Type::new(Int8, each![i8::MIN, -1, 0, 1, i8::MAX]),
        Type::new(Int16, each![i16::MIN, 0, i16::MAX]),
        Type::new(Int32, each![i32::MIN, 0, i32::MAX]),
        Type::new(Int64, each![i64::MIN, i64::MIN + 1, -1, 0, (1i64 << 53) + 1, i64::MAX]),
        Type::new(UInt8, each![0, u8::MAX]),
        Type::new(UInt16, each![0, u16::MAX]),
        Type::new(UInt32, each![0, u32::MAX]),
        Type::new(UInt64, each![0, i64::MAX]).or_reject(each![1u64 << 63, u64::MAX]),
    ];
    check(harness, types).await;
}

/// Floats of both widths: the greatest, the smallest, the not quite equal.
pub async fn floats_are_equal_or_rejected(harness: &dyn Harness) {
    let edges = || each![f64::NAN, f64::INFINITY, f64::NEG_INFINITY, -0.0];
    let types = vec![
        Type::new(
            Float32,
            each![0.0, 0.1f32, f32::MAX, f32::MIN, f32::MIN_POSITIVE, 1e-45f32, 16_777_217.0f32],
        )
        .or_reject(edges()),
        Type::new(
            Float64,
            each![
                0.0,
                0.1,
                1.0 / 3.0,
                f64::MAX,
                f64::MIN,
                f64::MIN_POSITIVE,
                5e-324,
                9_007_199_254_740_993.0,
                1e15,
                123.0
            ],
        )
        .or_reject(edges()),
    ];
    check(harness, types).await;
}

/// Decimals to 28 digits, exact.
pub async fn decimals_are_equal(harness: &dyn Harness) {
    let most = "9".repeat(28);
    let types = vec![
        Type::new(
            Decimal128(28, 10),
            vec![
                decimal("0", 0),
                decimal(&most, 10),
                decimal(&format!("-{most}"), 10),
                decimal("1", 10),
                decimal("-1", 10),
                decimal("15", 1),
                decimal("100", 0),
            ],
        ),
        Type::new(Decimal128(28, 0), vec![decimal(&most, 0), decimal("-1", 0), decimal("0", 0)]),
        Type::new(
            Decimal128(5, 2),
            vec![decimal("99999", 2), decimal("-99999", 2), decimal("5", 2), decimal("-5", 2)],
        ),
        Type::new(Decimal128(10, 10), vec![decimal("9999999999", 10), decimal("-1", 10)]),
        Type::new(Decimal128(38, 10), vec![decimal("5", 1)]).or_reject(vec![decimal(&"9".repeat(38), 10)]),
    ];
    check(harness, types).await;
}

/// Text: empty, huge, with every plane of Unicode, and looking like everything else.
pub async fn text_is_equal(harness: &dyn Harness) {
    let every_plane: String = (0..=16u32)
        .flat_map(|plane| [plane * 0x1_0000 + 0x41, plane * 0x1_0000 + 0xfffd, plane * 0x1_0000 + 0xff])
        .filter_map(char::from_u32)
        .collect();
    let texts = each![
        "",
        " ",
        "  both ends  ",
        "\t\r\n",
        "'",
        "\"",
        "\\",
        "\\N",
        "NULL",
        "null",
        "1",
        "1.0",
        "007",
        "1e5",
        "true",
        "NaN",
        "2024-01-01",
        "\u{7f}\u{1}",
        "e\u{301}",
        "é",
        "\u{feff}bom",
        "ß",
        "𝒳",
        "🚢👩‍👩‍👧",
        "\u{10ffff}",
        "{batch}",
        "%s",
        "x'00'",
        every_plane,
        "long ".repeat(1_000_000),
    ];
    let types = vec![Type::new(Utf8, texts).or_reject(each!["a\0b", "\0", "end\0"])];
    check(harness, types).await;
}

/// Bytes: empty, all of them, many.
pub async fn binary_is_equal(harness: &dyn Harness) {
    let every: Vec<u8> = (0..=255).collect();
    let large: Vec<u8> = (0..4_000_000u32).map(|n| (n * 31 % 251) as u8).collect();
    let kept = [b"".as_slice(), b"\0", b"abc", &every, &large].into_iter().map(Value::from);
    check(harness, vec![Type::new(Binary, kept.collect())]).await;
}

/// Days from the year 1 to 9999; what is beyond is rejected.
pub async fn dates_are_equal_or_rejected(harness: &dyn Harness) {
    let kept = [-719_162, -1, 0, 1, 11_016, 19_782, 2_932_896].map(Value::Date).to_vec();
    let beyond = [-719_163, 2_932_897, i32::MIN, i32::MAX].map(Value::Date).to_vec();
    check(harness, vec![Type::new(Date32, kept).or_reject(beyond)]).await;
}

/// Times of day, to the microsecond.
pub async fn times_are_equal(harness: &dyn Harness) {
    let kept = [0, 1, 999_999, 1_000_000, 43_200_000_000, 86_399_999_999].map(Value::Time).to_vec();
    check(harness, vec![Type::new(Time64(TimeUnit::Microsecond), kept)]).await;
}

/// Both kinds of timestamps, from the year 1 to 9999, to the microsecond, before 1970 too.
pub async fn timestamps_are_equal_or_rejected(harness: &dyn Harness) {
    let of = |micros: &[i64], utc| micros.iter().map(|&micros| Value::Timestamp { micros, utc }).collect();
    let kept = [
        -62_135_596_800_000_000,
        -1,
        -999_999,
        0,
        1,
        1_000_000,
        1_700_000_000_123_456,
        253_402_300_799_999_999,
    ];
    let beyond = [-62_135_596_800_000_001, 253_402_300_800_000_000, i64::MIN, i64::MAX];
    let zones = [Some(Arc::from("UTC")), None];
    let types = zones.map(|zone: Option<Arc<str>>| {
        let utc = zone.is_some();
        Type::new(Timestamp(TimeUnit::Microsecond, zone), of(&kept, utc)).or_reject(of(&beyond, utc))
    });
    check(harness, types.into()).await;
}

/// UUIDs.
pub async fn uuids_are_equal(harness: &dyn Harness) {
    let uuids = [0, u128::MAX, 0x0011_2233_4455_6677_8899_aabb_ccdd_eeff, 1];
    let kept = uuids.map(|uuid| Value::from(uuid.to_be_bytes().as_slice())).to_vec();
    check(harness, vec![Type::new(FixedSizeBinary(16), kept).extension("arrow.uuid")]).await;
}

/// JSON of every kind, deep and large; what is no JSON is rejected.
pub async fn json_is_equal_or_rejected(harness: &dyn Harness) {
    let deep = format!("{}1{}", "[".repeat(100), "]".repeat(100));
    let large = format!("[{}0]", "\"twelve bytes\",".repeat(50_000));
    let kept = each![
        "null",
        "true",
        "0",
        "-1",
        "18446744073709551615",
        "-9223372036854775808",
        "0.1",
        "1e300",
        "\"\"",
        "\"text\"",
        "[]",
        "{}",
        r#"{"a":{"b":[1,null,{"c":"d"}]},"":"empty","ü":"\"\\\n\u0001"}"#,
        "\"2024-01-01\"",
        "\"🚢\"",
        deep,
        large,
    ];
    let may_reject = each![r#""a\u0000b""#, "", "nonsense", "{", "[1,]", "NaN"];
    let types = vec![Type::new(Utf8, kept).or_reject(may_reject).extension("arrow.json")];
    check(harness, types).await;
}

/// Lists: none, empty, with NULL among the values; of every kind of value.
pub async fn lists_are_equal(harness: &dyn Harness) {
    let list = |values: Vec<Value>| Value::list(values);
    let types = vec![
        Type::new(
            list_of(Int64),
            vec![
                list(each![]),
                list(each![1, -2, i64::MAX, i64::MIN]),
                list(each![NULL]),
                list(each![1, NULL, 3]),
                list((0..10_000).map(Value::from).collect()),
            ],
        ),
        Type::new(
            list_of(Utf8),
            vec![
                list(each![]),
                list(each!["", "a", "b,c", "\"q\"", "NULL", "{}", "\\", "🚢"]),
                list(vec!["x".into(), Value::Null]),
            ],
        ),
        Type::new(list_of(Boolean), vec![list(each![true, false]), list(vec![Value::Null, true.into()])]),
        Type::new(list_of(Float64), vec![list(each![0.1, -1.5, 1e300]), list(each![])]),
        Type::new(
            List(Arc::new(Field::new("item", Float32, false))),
            vec![
                list(each![]),
                list(each![0.1f32, f32::MAX, f32::MIN_POSITIVE]),
                list((0..1_536).map(|n| Value::from(n as f32 / 3.0)).collect()),
            ],
        ),
        Type::new(list_of(Float32), vec![list(each![0.5f32, 0.1f32])])
            .or_reject(vec![list(each![0.5f32, NULL])]),
        Type::new(list_of(Date32), vec![list([0, 19_782].map(Value::Date).to_vec())]),
        Type::new(list_of(Decimal128(20, 4)), vec![list(vec![decimal("12345", 4), decimal("-1", 4)])]),
    ];
    check(harness, types).await;
}

/// Embeddings: lists of one length.
pub async fn fixed_lists_are_equal(harness: &dyn Harness) {
    let fixed = |length| FixedSizeList(Arc::new(Field::new("item", Float32, false)), length);
    let values = |length: i32| Value::list((0..length).map(|n| Value::from(n as f32 * 0.1)));
    let types = vec![
        Type::new(fixed(3), vec![values(3), Value::list(each![f32::MAX, f32::MIN, 0.0f32])]),
        Type::new(fixed(1_536), vec![values(1_536)]),
    ];
    check(harness, types).await;
}

/// Every type that can be a key finds its row again, for each operation.
pub async fn every_type_of_key_finds_its_row(harness: &dyn Harness) {
    let uuid = |byte: u8| Value::from([byte; 16].as_slice());
    let extension = HashMap::from([("ARROW:extension:name".to_owned(), "arrow.uuid".to_owned())]);
    let plain = |data_type| Field::new("k", data_type, false);
    let keys: Vec<(Field, [Value; 2])> = vec![
        (plain(Boolean), [true.into(), false.into()]),
        (plain(Int8), [i8::MIN.into(), 0.into()]),
        (plain(Int32), [1.into(), i32::MAX.into()]),
        (plain(UInt32), [0.into(), u32::MAX.into()]),
        (plain(UInt64), [0.into(), i64::MAX.into()]),
        (plain(Utf8), ["".into(), "Straße 🚢".into()]),
        (plain(Binary), [b"\0\x01".as_slice().into(), b"".as_slice().into()]),
        (plain(Date32), [Value::Date(-719_162), Value::Date(0)]),
        (plain(Time64(TimeUnit::Microsecond)), [Value::Time(0), Value::Time(86_399_999_999)]),
        (
            plain(Timestamp(TimeUnit::Microsecond, Some("UTC".into()))),
            [-1, 1_700_000_000_123_456].map(|micros| Value::Timestamp { micros, utc: true }),
        ),
        (
            plain(Timestamp(TimeUnit::Microsecond, None)),
            [0, -62_135_596_800_000_000].map(|micros| Value::Timestamp { micros, utc: false }),
        ),
        (plain(FixedSizeBinary(16)).with_metadata(extension), [uuid(0), uuid(255)]),
        (plain(Decimal128(10, 2)), [decimal("150", 2), decimal("-1", 2)]),
        (plain(Float64), [0.1.into(), 1e300.into()]),
    ];
    let store = harness.store().await;
    for (number, (field, [first, second])) in keys.into_iter().enumerate() {
        let name = format!("keyed_{number}");
        let data_type = field.data_type().clone();
        let key = Column::new(field).with_role(barge_core::record::Role::Key);
        let fixture =
            Fixture { store: store.clone(), table: table(name.as_str(), [key, nullable("v", Int64)]) };
        let mut transaction = store.begin().await.unwrap();
        transaction.execute(&store.create_table_sql(&fixture.table).unwrap()).await.unwrap();
        transaction.commit().await.unwrap();
        fixture.insert(&[vec![first.clone(), 1.into()]]).await;
        let both = vec![vec![second.clone(), 2.into()], vec![first.clone(), 3.into()]];
        use barge_core::store::Outcome::*;
        assert_eq!(
            fixture.outcomes(Operation::Upsert, &both).await,
            (vec![Inserted, Updated], 2),
            "{data_type}"
        );
        let one = [vec![second.clone(), 4.into()]];
        assert_eq!(fixture.outcomes(Operation::Update, &one).await, (vec![Updated], 1), "{data_type}");
        assert_eq!(
            fixture.outcomes(Operation::InsertIfAbsent, &one).await,
            (vec![Unchanged], 0),
            "{data_type}"
        );
        let keys = [vec![first.clone()], vec![second.clone()]];
        let found = fixture.get(&keys).await;
        assert_eq!(
            found,
            [Some(vec![first.clone(), 3.into()]), Some(vec![second.clone(), 4.into()])],
            "{data_type}"
        );
        assert_eq!(fixture.outcomes(Operation::Delete, &keys[..1]).await, (vec![Deleted], 1), "{data_type}");
        assert_eq!(fixture.get(&keys).await[0], None, "{data_type}");
    }
}

/// A row with a value that can't be kept is rejected alone: the rows beside it are written.
pub async fn a_rejected_value_is_rejected_alone(harness: &dyn Harness) {
    let days = table("days", [key("id", Int64), nullable("day", Date32)]);
    let days = Fixture::new(harness, days, super::Constraints::none()).await;
    let rows = vec![
        vec![1.into(), Value::Date(0)],
        vec![2.into(), Value::Date(i32::MAX)],
        vec![3.into(), Value::Null],
    ];
    let step = days.step(Operation::Insert, &rows).await;
    let rejected = check_values(&step.target, &step.batch);
    let rejected: Vec<_> = rejected.iter().map(|(row, error)| (*row, error.kind(), error.column())).collect();
    assert_eq!(rejected, [(1, ErrorKind::InvalidValue, Some("day"))]);
    assert!(days.store.check(&step.target, &step.batch).iter().all(|(row, _)| *row == 1));
}
