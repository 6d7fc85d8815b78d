//! Equal or rejected: every kind of value in a column of every type, sent by COPY and as parameters, and read back in the type
//! it was given in.

mod arrays;

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::*;
use arrow::compute::take;
use arrow::datatypes::*;
use barge_core::ErrorKind;
use barge_core::record::{is_json, is_uuid};
use barge_testkit::servers::{TestDatabase, postgres};
use bytes::BytesMut;
use futures::SinkExt;
use tokio_postgres::{Client, NoTls};

use crate::decode::Decoder;
use crate::encode::{ArrayParameter, COPY_HEADER, COPY_TRAILER, copy_rows};
use crate::fit::fit;
use crate::types::{Kind, PgType};
use arrays::{extension, lists, numbers, plain, texts, times};

/// A client of a database of its own, which goes with the second.
async fn connect() -> (Client, TestDatabase) {
    let database = postgres().database();
    let (client, connection) = tokio_postgres::connect(&database.url(), NoTls).await.unwrap();
    tokio::spawn(connection);
    let types = "CREATE TYPE mood AS ENUM ('a', 'abc', ''); CREATE DOMAIN word AS varchar(5);";
    client.batch_execute(types).await.unwrap();
    (client, database)
}

const TYPES: [&str; 34] = [
    "boolean",
    "smallint",
    "integer",
    "bigint",
    "real",
    "double precision",
    "numeric",
    "numeric(10,2)",
    "numeric(38,10)",
    "numeric(20,0)",
    "numeric(3,-2)",
    "text",
    "name",
    "character varying(5)",
    "character(5)",
    "bpchar",
    "bytea",
    "date",
    "time without time zone",
    "time(3) without time zone",
    "timestamp without time zone",
    "timestamp(0) without time zone",
    "timestamp with time zone",
    "timestamp(3) with time zone",
    "uuid",
    "json",
    "jsonb",
    "inet",
    "word",
    "integer[]",
    "numeric(10,2)[]",
    "text[]",
    "character varying(5)[]",
    "jsonb[]",
];

fn pg_type(name: &str) -> PgType {
    match name {
        "word" => PgType { kind: Kind::Varchar(Some(5)), sql: "word".into(), collation: None },
        "mood" => PgType { kind: Kind::Enum, sql: "mood".into(), collation: None },
        name => PgType::parse(name),
    }
}

#[tokio::test]
async fn every_value_comes_back_equal_or_was_rejected() {
    let (client, _database) = connect().await;
    let arrays = [numbers(), texts(), times(), lists()].concat();
    let mut kept: BTreeMap<String, usize> = BTreeMap::new();
    for name in TYPES {
        for (field, array) in &arrays {
            let count = round_trip(&client, &pg_type(name), field, array).await;
            *kept.entry(name.to_owned()).or_default() += count;
        }
    }
    assert!(kept.values().all(|count| *count > 2), "{kept:?}");
}

#[tokio::test]
async fn lists_of_every_type_come_back_equal() {
    let (client, _database) = connect().await;
    for (name, (field, array)) in [
        ("boolean[]", list_of(plain(BooleanArray::from(vec![Some(true), None, Some(false)])))),
        ("bigint[]", list_of(plain(Int64Array::from(vec![i64::MIN, 0, i64::MAX])))),
        ("real[]", list_of(plain(Float32Array::from(vec![0.1, f32::NAN, 1e-45])))),
        ("numeric[]", list_of(plain(StringArray::from(vec!["1.50", "NaN", "-Infinity"])))),
        ("bytea[]", list_of(plain(BinaryArray::from(vec![b"\0\xff\"\\".as_ref(), b""])))),
        ("date[]", list_of(plain(Date32Array::from(vec![-719_162, 0])))),
        ("time without time zone[]", list_of(plain(Time64MicrosecondArray::from(vec![0, 86_399_999_999])))),
        ("timestamp without time zone[]", list_of(plain(TimestampMicrosecondArray::from(vec![-1, 1])))),
        (
            "timestamp with time zone[]",
            list_of(plain(TimestampMicrosecondArray::from(vec![-1, 1]).with_timezone("UTC"))),
        ),
        (
            "uuid[]",
            list_of(extension(
                FixedSizeBinaryArray::try_from_iter([[7_u8; 16]].iter()).unwrap(),
                "arrow.uuid",
            )),
        ),
        ("json[]", list_of(extension(StringArray::from(vec!["{\"a\":\"\\\"\"}", "null"]), "arrow.json"))),
        ("jsonb[]", list_of(extension(StringArray::from(vec!["{\"a\":\"\\\"\"}", "1e16"]), "arrow.json"))),
        ("character(5)[]", list_of(plain(StringArray::from(vec!["a", "12345"])))),
        ("mood[]", list_of(plain(StringArray::from(vec!["a", "abc", ""])))),
        ("macaddr[]", list_of(plain(StringArray::from(vec!["08:00:2b:01:02:03"])))),
    ] {
        let kept = round_trip(&client, &pg_type(name), &field, &array).await;
        assert_eq!(kept, array.len(), "{name}");
    }
}

/// A list of all the values, one of none, and a NULL.
fn list_of((item, array): (Field, ArrayRef)) -> (Field, ArrayRef) {
    use arrow::buffer::{NullBuffer, OffsetBuffer};
    let offsets = OffsetBuffer::from_lengths([array.len(), 0, 0]);
    let nulls = NullBuffer::from(vec![true, true, false]);
    plain(ListArray::new(Arc::new(item.with_name("item")), offsets, array, Some(nulls)))
}

#[tokio::test]
async fn what_only_a_cast_takes_comes_back_equal_or_was_rejected() {
    let (client, _database) = connect().await;
    for (name, texts, kept) in [
        ("bit(3)", ["101", "1010", "1"], 1),
        ("bit varying(3)", ["101", "1010", "1"], 2),
        ("\"char\"", ["a", "ab", "é"], 1),
        ("xml", ["<a/>", " <b>é</b>", "<?xml version=\"1.0\"?><a/>"], 2),
    ] {
        let to = pg_type(name);
        let (field, array) = plain(StringArray::from(texts.to_vec()));
        let rejected: Vec<usize> =
            fit(&array, &field, &to).unwrap().rejected.iter().map(|(row, _)| *row).collect();
        let fits = (0..texts.len()).filter(|row| !rejected.contains(row)).map(|row| texts[row]);
        let fitting: ArrayRef = Arc::new(StringArray::from_iter_values(fits));
        assert_eq!(fitting.len(), kept, "{name}");
        client
            .batch_execute(&format!("DROP TABLE IF EXISTS t; CREATE TABLE t(id bigint, x {name})"))
            .await
            .unwrap();
        unnest(&client, &to, &fitting).await.unwrap();
        check(&client, &to, &field, &fitting, name).await;
    }
}

#[tokio::test]
async fn values_have_the_text_that_the_server_gives_them() {
    let (client, _database) = connect().await;
    let bits =
        |number: u64| number.wrapping_mul(0x9E37_79B9_7F4A_7C15).rotate_left(31).wrapping_mul(number | 1);
    let doubles = (0..2_000).map(|number| f64::from_bits(bits(number)));
    let doubles: Vec<f64> =
        doubles.chain((-330..310).map(|power| format!("-1.25e{power}").parse().unwrap())).collect();
    let singles: Vec<f32> = (0..2_000).map(|number| f32::from_bits(bits(number) as u32)).collect();
    let (double, double_array) = plain(Float64Array::from(doubles));
    let (single, single_array) = plain(Float32Array::from(singles));
    let days = (-719_162..2_932_896).step_by(1_001).collect::<Vec<i32>>();
    let (date, date_array) = plain(Date32Array::from(days));
    let decimals = (0..2_000_u64).map(|number| ((bits(number) as i64 as i128) * 1_000_003) >> (number % 60));
    let decimals = Decimal128Array::from_iter_values(decimals).with_precision_and_scale(38, 7).unwrap();
    let (decimal, decimal_array) = plain(decimals);
    for (name, field, array) in [
        ("double precision", double, double_array),
        ("real", single, single_array),
        ("date", date, date_array),
        ("numeric", decimal, decimal_array),
    ] {
        let to = PgType::parse(name);
        let sent = ArrayParameter::new(Arc::clone(&array), &to);
        let sql = format!("SELECT x::{name}::text FROM unnest($1) WITH ORDINALITY AS b(x, n) ORDER BY n");
        let rows = client.query_typed(&sql, &[(&sent, to.parameter_array_type())]).await.unwrap();
        let fitted = fit(&array, &field, &PgType::parse("text")).unwrap();
        assert!(fitted.rejected.is_empty() && rows.len() == array.len());
        let texts = fitted.array.as_string::<i32>().iter().flatten();
        let others: Vec<(&str, &str)> =
            rows.iter().map(|row| row.get(0)).zip(texts).filter(|(theirs, ours)| theirs != ours).collect();
        // The server stays off the very edge of what is still read as the float, where a shorter text may be.
        let is_edge = |&(theirs, ours): &(&str, &str)| {
            let is_same = match name {
                "double precision" => theirs.parse::<f64>() == ours.parse(),
                "real" => theirs.parse::<f32>() == ours.parse(),
                _ => false,
            };
            is_same && ours.len() < theirs.len()
        };
        assert!(others.iter().all(is_edge) && others.len() < 10, "{name}: {others:?}");
    }
}

#[tokio::test]
async fn labels_of_an_enum_come_back_equal() {
    let (client, _database) = connect().await;
    let (field, array) = plain(StringArray::from(vec![Some("abc"), None, Some("")]));
    assert_eq!(round_trip(&client, &pg_type("mood"), &field, &array).await, 3);
}

/// Writes what fits by both ways and reads it back; how many values that is.
async fn round_trip(client: &Client, to: &PgType, field: &Field, array: &ArrayRef) -> usize {
    let context = format!("{} in a column of type {}", array.data_type(), to.sql);
    let fitted = match fit(array, field, to) {
        Ok(fitted) => fitted,
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::Unsupported, "{context}: {error}");
            return 0;
        }
    };
    let rejected: Vec<usize> = fitted.rejected.iter().map(|(row, _)| *row).collect();
    assert!(rejected.is_sorted_by(|one, other| one < other), "{context}");
    let labels = matches!(to.kind, Kind::Other) && array.data_type() != &DataType::Null;
    // Only the server knows which texts are addresses.
    let fits = |row: usize| !rejected.contains(&row) && (!labels || array.is_null(row));
    let rows: Vec<u32> = (0..array.len()).filter(|row| fits(*row)).map(|row| row as u32).collect();
    let indices = UInt32Array::from(rows);
    let (sent, expected) =
        (take(&fitted.array, &indices, None).unwrap(), take(array, &indices, None).unwrap());
    client
        .batch_execute(&format!("DROP TABLE IF EXISTS t; CREATE TABLE t(id bigint, x {})", to.sql))
        .await
        .unwrap();
    if to.copies() {
        copy(client, to, &sent).await.unwrap_or_else(|error| panic!("{context}, by COPY: {error:?}"));
        check(client, to, field, &expected, &format!("{context}, by COPY")).await;
    }
    client.batch_execute("TRUNCATE t").await.unwrap();
    unnest(client, to, &sent).await.unwrap_or_else(|error| panic!("{context}, by UNNEST: {error:?}"));
    check(client, to, field, &expected, &format!("{context}, by UNNEST")).await;
    indices.len()
}

async fn copy(client: &Client, to: &PgType, array: &ArrayRef) -> Result<(), tokio_postgres::Error> {
    let ids: ArrayRef = Arc::new(Int64Array::from_iter_values(0..array.len() as i64));
    let columns = [(ids, PgType::parse("bigint")), (Arc::clone(array), to.clone())];
    let mut bytes = BytesMut::from(COPY_HEADER);
    copy_rows(&columns, 0..array.len(), &mut bytes);
    bytes.extend_from_slice(&COPY_TRAILER);
    let sink = client.copy_in("COPY t FROM STDIN BINARY").await?;
    futures::pin_mut!(sink);
    sink.send(bytes.freeze()).await?;
    sink.finish().await?;
    Ok(())
}

async fn unnest(client: &Client, to: &PgType, array: &ArrayRef) -> Result<(), tokio_postgres::Error> {
    let bigint = PgType::parse("bigint");
    let ids: ArrayRef = Arc::new(Int64Array::from_iter_values(0..array.len() as i64));
    let (ids, values) = (ArrayParameter::new(ids, &bigint), ArrayParameter::new(Arc::clone(array), to));
    let sql = format!("INSERT INTO t SELECT id, x::{} FROM unnest($1, $2) AS b(id, x)", to.sql);
    let parameters: [(&(dyn postgres_types::ToSql + Sync), _); 2] =
        [(&ids, bigint.parameter_array_type()), (&values, to.parameter_array_type())];
    client.query_typed(&sql, &parameters).await?;
    Ok(())
}

async fn check(client: &Client, to: &PgType, field: &Field, expected: &ArrayRef, context: &str) {
    let is_other = match &to.kind {
        Kind::Array(item) => item.kind == Kind::Other && item.sql != "mood",
        kind => *kind == Kind::Other,
    };
    let cast = match &to.kind {
        Kind::Array(_) if is_other => "::text[]",
        _ if is_other => "::text",
        _ => "",
    };
    let statement = client.prepare(&format!("SELECT x{cast} AS x FROM t ORDER BY id")).await.unwrap();
    let rows = client.query(&statement, &[]).await.unwrap();
    let columns =
        || statement.columns().iter().map(|column| (column.name().to_owned(), column.type_().clone()));
    let mut best = Decoder::new(columns().collect(), None).unwrap();
    if field.data_type().is_null() {
        rows.iter().for_each(|row| best.append(row).unwrap());
        assert_eq!(best.take().unwrap().column(0).null_count(), rows.len());
        return;
    }
    let mut decoder = Decoder::new(columns().collect(), Some(&Schema::new(vec![field.clone()]))).unwrap();
    for row in &rows {
        decoder.append(row).unwrap_or_else(|error| panic!("{context}: {error:?}"));
        best.append(row).unwrap_or_else(|error| panic!("{context}: {error:?}"));
    }
    assert_eq!(best.take().unwrap().num_rows(), rows.len());
    let found = decoder.take().unwrap();
    assert_eq!(decoder.take().unwrap().num_rows(), 0);
    let found = found.column(0);
    assert_eq!((found.data_type(), found.len()), (expected.data_type(), expected.len()), "{context}");
    let kind = match &to.kind {
        Kind::Array(item) => &item.kind,
        kind => kind,
    };
    let is_json = is_json(field) || matches!(kind, Kind::Json | Kind::Jsonb);
    for row in 0..expected.len() {
        let (mut one, mut other) = (shown(field, expected, row, is_json), shown(field, found, row, is_json));
        if matches!(kind, Kind::Char(_)) {
            (one, other) = (without_padding(one), without_padding(other));
        }
        assert_eq!(one, other, "{context}");
    }
}

/// Blanks before a quote are left out: those at a text's end are equal to none in a `char(n)`.
fn without_padding(mut text: String) -> String {
    while text.contains(" \"") {
        text = text.replace(" \"", "\"");
    }
    text
}

/// A value so that equal ones have one text: −0.0 is 0.0, NaN is NaN, documents are their value.
fn shown(field: &Field, array: &ArrayRef, row: usize, is_json: bool) -> String {
    if array.is_null(row) {
        return "NULL".into();
    }
    match array.data_type() {
        DataType::List(item) => items(item, array.as_list::<i32>().value(row), is_json),
        DataType::LargeList(item) => items(item, array.as_list::<i64>().value(row), is_json),
        DataType::FixedSizeList(item, _) => items(item, array.as_fixed_size_list().value(row), is_json),
        DataType::Float64 => format!("{:?}", array.as_primitive::<Float64Type>().value(row) + 0.0),
        DataType::Float32 => format!("{:?}", array.as_primitive::<Float32Type>().value(row) + 0.0),
        DataType::Utf8 if is_json => document(array.as_string::<i32>().value(row)),
        DataType::Utf8View if is_json => document(array.as_string_view().value(row)),
        DataType::LargeUtf8 if is_json => document(array.as_string::<i64>().value(row)),
        _ if is_uuid(field) => format!("{:?}", array.as_fixed_size_binary().value(row)),
        _ => format!("{:?}", array.slice(row, 1)),
    }
}

fn document(text: &str) -> String {
    match serde_json::from_str::<serde_json::Value>(text) {
        Ok(value) if value.is_f64() && value.as_f64() == Some(0.0) => "0.0".into(),
        Ok(value) => format!("{value:?}"),
        // A number too large for a program stays a text that is the same.
        Err(_) => text.to_owned(),
    }
}

fn items(item: &Field, values: ArrayRef, is_json: bool) -> String {
    let shown = (0..values.len()).map(|row| shown(item, &values, row, is_json));
    shown.collect::<Vec<_>>().join(",")
}
