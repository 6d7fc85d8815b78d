//! Columns of tables that were there before: DuckDB's own types, and keys that compare in its own way.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, Decimal128Array, Float64Array, Int64Array, RecordBatch, StringArray,
};
use arrow::datatypes::{DataType, Decimal128Type, TimeUnit};
use barge_core::record::Column;
use barge_core::store::{KeyEquality, LookUp, Operation, Query};
use barge_core::{ErrorKind, Store, Table};
use barge_duckdb::DuckDbStore;

use super::{execute, number, query, step};

async fn store(sql: &[&str]) -> DuckDbStore {
    let store = DuckDbStore::open("duckdb::memory:").await.unwrap();
    execute(&store, sql).await;
    store
}

fn texts(name: &str, values: &[&str]) -> RecordBatch {
    let ids: ArrayRef = Arc::new(Int64Array::from_iter_values(0..values.len() as i64));
    let values: ArrayRef = Arc::new(StringArray::from(values.to_vec()));
    RecordBatch::try_from_iter([("id", ids), (name, values)]).unwrap()
}

#[tokio::test]
async fn columns_of_every_type_are_told() {
    let store = store(&[
        "CREATE TYPE mood AS ENUM ('sad', 'so''so', 'happy')",
        "CREATE TABLE t(a HUGEINT, b UHUGEINT, c mood, d TIMESTAMP_S, e TIMESTAMP_NS, f STRUCT(x INTEGER), g FLOAT[3], h INTERVAL, \
         i BIT, j TIMETZ, k INTEGER[][], l DECIMAL(5,2), m JSON, n UUID, o INTEGER GENERATED ALWAYS AS (a + 1), p UTINYINT NOT NULL)",
    ])
    .await;
    let description = store.describe(&"t".into()).await.unwrap();
    let found: Vec<DataType> = description.columns.iter().map(|column| column.data_type.clone()).collect();
    use DataType::*;
    let item = |data_type| Arc::new(arrow::datatypes::Field::new("item", data_type, true));
    let expected = [
        Decimal128(38, 0),
        Decimal128(38, 0),
        Utf8,
        Timestamp(TimeUnit::Second, None),
        Timestamp(TimeUnit::Nanosecond, None),
        Utf8,
        FixedSizeList(item(Float32), 3),
        Utf8,
        Utf8,
        Utf8,
        Utf8,
        Decimal128(5, 2),
        Utf8,
        FixedSizeBinary(16),
        Int32,
        UInt8,
    ];
    assert_eq!(found, expected);
    let computed: Vec<&str> =
        description.columns.iter().filter(|column| column.computed).map(|column| &*column.name).collect();
    assert_eq!(computed, ["o"]);
    assert_eq!(description.columns[12].extension, Some("arrow.json"));
}

#[tokio::test]
async fn text_goes_into_enums_lists_of_labels_and_the_rest_as_duckdb_writes_it() {
    let store = store(&[
        "CREATE TYPE mood AS ENUM ('sad', 'so''so', 'happy')",
        "CREATE TABLE t(id BIGINT PRIMARY KEY, mood mood, span INTERVAL, wide HUGEINT)",
    ])
    .await;
    let moods =
        step(&store, "t", Operation::Insert, texts("mood", &["sad", "so'so", "glad", "HAPPY"]), 1).await;
    let rejected = store.check(&moods.target, &moods.batch);
    let rows: Vec<usize> = rejected.iter().map(|(row, _)| *row).collect();
    assert_eq!(rows, [2, 3], "{rejected:?}");
    assert!(rejected.iter().all(|(_, error)| error.kind() == ErrorKind::InvalidValue));
    let good = barge_core::store::Step { batch: moods.batch.slice(0, 2), ..moods };
    store.transact(None, &[good]).await.unwrap();
    let moods = query(&store, "SELECT mood FROM t ORDER BY id").await;
    assert_eq!(moods.column(0).as_string::<i32>(), &StringArray::from(vec!["sad", "so'so"]));

    let spans = step(&store, "t", Operation::Upsert, texts("span", &["1 day", "02:00:00"]), 1).await;
    store.transact(None, &[spans]).await.unwrap();
    assert_eq!(number(&store, "SELECT count(*) FROM t WHERE span = INTERVAL 1 DAY").await, 1);
    let wide = ["99999999999999999999999999999999999999", "-5"];
    let wide = step(&store, "t", Operation::Update, texts("wide", &wide), 1).await;
    assert_eq!(store.check(&wide.target, &wide.batch).len(), 0);
    store.transact(None, &[wide]).await.unwrap();
    let read = query(&store, "SELECT wide FROM t ORDER BY id").await;
    let expected =
        Decimal128Array::from(vec![10i128.pow(38) - 1, -5]).with_precision_and_scale(38, 0).unwrap();
    assert_eq!(read.column(0).as_primitive::<Decimal128Type>(), &expected);
}

#[tokio::test]
async fn enums_and_wide_integers_are_keys() {
    let store = store(&[
        "CREATE TYPE side AS ENUM ('buy', 'sell')",
        "CREATE TABLE sides(side side PRIMARY KEY, n BIGINT)",
        "CREATE TABLE wide(k HUGEINT PRIMARY KEY, n BIGINT)",
        "INSERT INTO wide VALUES (170141183460469231731687303715884105, 1), (2, 2)",
    ])
    .await;
    let n: ArrayRef = Arc::new(Int64Array::from(vec![1, 2]));
    let sides: ArrayRef = Arc::new(StringArray::from(vec!["buy", "sell"]));
    let sides = RecordBatch::try_from_iter([("side", sides), ("n", Arc::clone(&n))]).unwrap();
    for operation in [Operation::Insert, Operation::Upsert, Operation::Update, Operation::Delete] {
        let step = step(&store, "sides", operation, sides.clone(), 1).await;
        let applied = store.transact(None, &[step]).await.unwrap().unwrap();
        assert_eq!(applied[0].affected, 2, "{operation}");
    }
    // Next to each other these two would be one number as floats.
    let keys = Decimal128Array::from(vec![
        170_141_183_460_469_231_731_687_303_715_884_105,
        170_141_183_460_469_231_731_687_303_715_884_106,
    ]);
    let keys: ArrayRef = Arc::new(keys.with_precision_and_scale(38, 0).unwrap());
    let keys = RecordBatch::try_from_iter([("k", keys)]).unwrap();
    let column = Column::new(arrow::datatypes::Field::new("n", DataType::Int64, true));
    let table = Arc::new(Table::new("wide", vec![column]).unwrap());
    let found = store.look_up(LookUp::new(table, keys)).await.unwrap().into_batch().await.unwrap();
    assert_eq!(found.num_rows(), 1);
}

/// DuckDB's unique keys compare bytes, whatever the collation says, and so do Barge's statements. Its ON CONFLICT doesn't.
#[tokio::test]
async fn a_collation_makes_no_two_keys_one() {
    let store = store(&["CREATE TABLE t(k VARCHAR COLLATE NOCASE PRIMARY KEY, n BIGINT)"]).await;
    let rows = |n: i64| {
        let keys: ArrayRef = Arc::new(StringArray::from(vec!["a", "A"]));
        let n: ArrayRef = Arc::new(Int64Array::from(vec![n, n + 1]));
        RecordBatch::try_from_iter([("k", keys), ("n", n)]).unwrap()
    };
    assert_eq!(store.describe(&"t".into()).await.unwrap().columns[0].collation.as_deref(), Some("NOCASE"));
    for (operation, n) in [(Operation::Insert, 1), (Operation::Update, 20)] {
        let step = step(&store, "t", operation, rows(n), 1).await;
        assert_eq!(store.transact(None, &[step]).await.unwrap().unwrap()[0].affected, 2, "{operation}");
        assert_eq!(number(&store, "SELECT n FROM t WHERE k COLLATE \"C\" = 'A'").await, n + 1);
    }
    for operation in [Operation::Upsert, Operation::InsertIfAbsent] {
        let step = step(&store, "t", operation, rows(30), 1).await;
        let error = store.transact(None, &[step]).await.unwrap_err();
        assert_eq!(error.error().kind(), ErrorKind::Unsupported, "{error:?}");
    }
    let one = step(&store, "t", Operation::Delete, rows(0).slice(0, 1), 1).await;
    assert_eq!(store.transact(None, &[one]).await.unwrap().unwrap()[0].affected, 1);
}

#[tokio::test]
async fn floats_that_are_equal_are_one_key() {
    let store = store(&["CREATE TABLE t(k DOUBLE PRIMARY KEY)"]).await;
    let description = store.describe(&"t".into()).await.unwrap();
    assert_eq!(description.columns[0].equality, KeyEquality::Database);
    let keys: ArrayRef = Arc::new(Float64Array::from(vec![0.0, -0.0, f64::NAN, -f64::NAN, 1.0]));
    let keys = RecordBatch::try_from_iter([("k", keys)]).unwrap();
    let step = step(&store, "t", Operation::Delete, keys.clone(), 1).await;
    let groups = store.key_groups(&step.target, &keys).await.unwrap();
    assert!(groups[0] == groups[1] && groups[2] == groups[3], "{groups:?}");
    assert!(groups[0] != groups[4] && groups[2] != groups[4]);
}

#[tokio::test]
async fn what_has_no_place_in_a_record_batch_is_refused() {
    let store = store(&["CREATE TABLE t(a DATE)"]).await;
    let kind = async |sql: &str| match store.query(Query::new(sql)).await {
        Ok(stream) => stream.collect().await.unwrap_err().kind(),
        Err(error) => error.kind(),
    };
    for sql in ["SELECT 'infinity'::TIMESTAMP", "SELECT '-infinity'::TIMESTAMPTZ", "SELECT 'infinity'::DATE"]
    {
        assert_eq!(kind(sql).await, ErrorKind::InvalidValue, "{sql}");
    }
    assert_eq!(
        kind("SELECT 170141183460469231731687303715884105727::HUGEINT").await,
        ErrorKind::InvalidValue
    );
    assert_eq!(kind("SELECT '101'::BIT").await, ErrorKind::Unsupported);
    let sums =
        query(&store, "SELECT sum(range)::BIGINT AS a, [true, NULL], [now()], {'x': 1} FROM range(10)").await;
    assert_eq!(sums.num_rows(), 1);
    let DataType::List(item) = sums.column(1).data_type() else { panic!("no list") };
    assert_eq!(item.data_type(), &DataType::Boolean);
    assert!(sums.column(1).as_list::<i32>().value(0).is_null(1));
}
