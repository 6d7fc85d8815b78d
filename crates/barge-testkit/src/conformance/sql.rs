//! The user's own SQL, for stores that run it: queries, statements over a batch.

use std::sync::Arc;

use arrow::datatypes::DataType::{Float64, Int32, Int64, Utf8};
use arrow::datatypes::{Field, Schema};
use barge_core::ErrorKind;
use barge_core::Operation::Insert;
use barge_core::store::Query;

use super::fixture::*;
use super::{Constraints, Feature, Harness, Support};
use crate::Value;

const ALL: &str = r#"SELECT "id", "name", "age" FROM "people" ORDER BY "id""#;

async fn all(people: &Fixture, query: Query) -> Rows {
    let batches = people.store.query(query).await.unwrap().collect().await.unwrap();
    batches.iter().flat_map(values).collect()
}

fn over(sql: &str, columns: &[barge_core::record::Column], rows: &[Vec<Value>]) -> Query {
    Query { batch: Some(batch(columns, rows)), ..Query::new(sql) }
}

/// A store that runs no SQL says so, and its capabilities do.
pub async fn sql_runs_or_is_refused(harness: &dyn Harness) {
    let people = Fixture::people(harness).await;
    assert_eq!(people.store.capabilities().sql, kept(harness, Feature::Sql));
    if harness.supports(Feature::Sql) == Support::Refused {
        assert_eq!(failure(people.store.query(Query::new("SELECT 1")).await).kind(), ErrorKind::Unsupported);
        let mut transaction = people.store.begin().await.unwrap();
        assert_eq!(failure(transaction.over(&Query::new("SELECT 1")).await).kind(), ErrorKind::Unsupported);
        assert!(transaction.is_open());
        transaction.commit().await.unwrap();
    }
}

/// A query gives its rows in batches of one schema, and an empty result its schema alone.
pub async fn a_query_streams_its_rows(harness: &dyn Harness) {
    if !kept(harness, Feature::Sql) {
        return;
    }
    let people = Fixture::people(harness).await;
    let mut none = people.store.query(Query::new(ALL)).await.unwrap();
    let names: Vec<String> = none.schema().fields().iter().map(|field| field.name().clone()).collect();
    assert_eq!(names, ["id", "name", "age"]);
    while let Some(batch) = none.next().await.unwrap() {
        assert_eq!(batch.num_rows(), 0);
    }
    let row = |id: i64| -> Vec<Value> {
        vec![id.into(), format!("n{id}").into(), Value::from((id % 2 == 0).then_some(id))]
    };
    let rows: Rows = (0..100_000).map(row).collect();
    people.insert(&rows).await;
    let mut stream = people.store.query(Query::new(ALL)).await.unwrap();
    let (schema, mut read) = (stream.schema().clone(), 0);
    while let Some(batch) = stream.next().await.unwrap() {
        assert_eq!(batch.schema(), schema);
        assert_eq!(values(&batch), rows[read..read + batch.num_rows()]);
        read += batch.num_rows();
    }
    assert_eq!(read, rows.len());
    assert!(stream.next().await.unwrap().is_none());
}

/// A stream that is dropped ends its query: the store goes on writing, reading and closing.
pub async fn a_stream_may_be_dropped_early(harness: &dyn Harness) {
    if !kept(harness, Feature::Sql) {
        return;
    }
    let people = Fixture::people(harness).await;
    let rows: Rows = (0..50_000).map(|id: i64| vec![id.into(), "n".into(), Value::Null]).collect();
    people.insert(&rows).await;
    for round in 0..20 {
        let mut stream = people.store.query(Query::new(ALL)).await.unwrap();
        if round % 2 == 0 {
            assert!(stream.next().await.unwrap().is_some());
        }
        drop(stream);
        let id = Value::from(100_000 + round);
        people.insert(&[vec![id.clone(), "new".into(), Value::Null]]).await;
        assert!(people.get(&[vec![id]]).await[0].is_some());
    }
    people.store.close().await.unwrap();
}

/// A batch is a relation of its columns and `_ordinal`; it may be named more than once.
pub async fn a_query_joins_a_batch(harness: &dyn Harness) {
    if !kept(harness, Feature::Sql) {
        return;
    }
    let people = Fixture::people(harness).await;
    people.insert(&rows![[1, "a", 1], [2, "b", 2], [3, "c", 3]]).await;
    let columns = [column("k", Int64), nullable("odd \"name'", Utf8)];
    let given = rows![[3, "x"], [9, "y"], [1, NULL], [3, "'; --"]];
    let joined = r#"SELECT b."_ordinal", b."odd ""name'", t."name" FROM {batch} AS b JOIN "people" AS t ON t."id" = b."k"
        ORDER BY b."_ordinal""#;
    let read = all(&people, over(joined, &columns, &given)).await;
    assert_eq!(read, rows![[0, "x", "c"], [2, NULL, "a"], [3, "'; --", "c"]]);
    let twice = r#"SELECT count(*) FROM {batch} AS a, {batch} AS b WHERE a."k" = b."k""#;
    assert_eq!(all(&people, over(twice, &columns, &given)).await, rows![[6]]);
    assert_eq!(all(&people, over(joined, &columns, &[])).await, Rows::new());
    let mut transaction = people.store.begin().await.unwrap();
    let read = transaction.over(&over(joined, &columns, &given)).await.unwrap();
    assert_eq!(values(&read), rows![[0, "x", "c"], [2, NULL, "a"], [3, "'; --", "c"]]);
}

/// Columns come in the types that are asked for by name, or their values are refused.
pub async fn a_query_gives_the_types_asked_for(harness: &dyn Harness) {
    if !kept(harness, Feature::Sql) {
        return;
    }
    let people = Fixture::people(harness).await;
    people.insert(&rows![[1, "a", NULL], [2, "b", 7]]).await;
    let schema =
        |age| Arc::new(Schema::new(vec![Field::new("age", age, true), Field::new("id", Int32, false)]));
    let asked = Query { schema: Some(schema(Float64)), ..Query::new(ALL) };
    let batches = people.store.query(asked).await.unwrap().collect().await.unwrap();
    let types: Vec<_> = batches[0].schema().fields().iter().map(|field| field.data_type().clone()).collect();
    assert_eq!(types, [Int32, Utf8, Float64]);
    assert_eq!(batches.iter().flat_map(values).collect::<Rows>(), rows![[1, "a", NULL], [2, "b", 7.0]]);
    people.insert(&rows![[3, "c", i64::MAX]]).await;
    let asked = Query { schema: Some(schema(Int32)), ..Query::new(ALL) };
    let error = match people.store.query(asked).await {
        Ok(stream) => failure(stream.collect().await),
        Err(error) => error,
    };
    assert_eq!((error.kind(), error.column()), (ErrorKind::InvalidValue, Some("age")), "{error:?}");
}

/// Wrong text is `Statement`, a table that isn't there `MissingTable`, and a query that writes is refused.
pub async fn a_query_that_is_wrong_says_so(harness: &dyn Harness) {
    if !kept(harness, Feature::Sql) {
        return;
    }
    let people = Fixture::people(harness).await;
    people.insert(&rows![[1, "a", 1]]).await;
    let cases = [
        ("SELEKT 1", ErrorKind::Statement),
        ("", ErrorKind::Statement),
        ("SELECT * FROM nowhere", ErrorKind::MissingTable),
        ("SELECT shoe FROM people", ErrorKind::MissingColumn),
        ("DELETE FROM people", ErrorKind::Statement),
        ("UPDATE people SET age = 2 RETURNING id", ErrorKind::Statement),
        ("DROP TABLE people", ErrorKind::Statement),
        ("SELECT 1; DELETE FROM people", ErrorKind::Statement),
    ];
    for (sql, kind) in cases {
        let error = match people.store.query(Query::new(sql)).await {
            Ok(stream) => failure(stream.collect().await),
            Err(error) => error,
        };
        assert_eq!(error.kind(), kind, "{sql}: {error:?}");
    }
    people.assert_rows(&rows![[1, "a", 1]]).await;
}

/// A statement over a batch may write, and is undone with its transaction.
pub async fn a_statement_over_a_batch_writes(harness: &dyn Harness) {
    if !kept(harness, Feature::Sql) {
        return;
    }
    let people = Fixture::people(harness).await;
    people.insert(&rows![[1, "a", 10], [2, "b", 20], [3, "c", 30]]).await;
    let add =
        r#"UPDATE "people" SET "age" = "people"."age" + b."n" FROM {batch} AS b WHERE "people"."id" = b."k""#;
    let add = over(add, &[column("k", Int64), column("n", Int64)], &rows![[1, 1], [3, 3], [4, 4]]);
    let mut transaction = people.store.begin().await.unwrap();
    transaction.over(&add).await.unwrap();
    transaction.rollback().await.unwrap();
    people.assert_rows(&rows![[1, "a", 10], [2, "b", 20], [3, "c", 30]]).await;
    let mut transaction = people.store.begin().await.unwrap();
    assert_eq!(transaction.over(&add).await.unwrap().num_rows(), 0);
    let own = people.get_in(transaction.as_mut(), &rows![[3]]).await;
    assert_eq!(own, [Some(rows![[3, "c", 33]].remove(0))]);
    transaction.commit().await.unwrap();
    people.assert_rows(&rows![[1, "a", 11], [2, "b", 20], [3, "c", 33]]).await;
}

/// A statement of the user's that fails leaves the transaction as it was before, or gone.
pub async fn a_failed_statement_changes_nothing(harness: &dyn Harness) {
    if !kept(harness, Feature::Sql) {
        return;
    }
    let people = Fixture::new(harness, people(), Constraints::none().at_least("age", 0)).await;
    people.insert(&rows![[1, "a", 10], [2, "b", 20]]).await;
    let statements = [
        (r#"UPDATE "people" SET "age" = "age" - 15"#, ErrorKind::CheckViolation),
        (r#"INSERT INTO "people" ("id", "name") VALUES (3, 'c'), (1, 'dup')"#, ErrorKind::UniqueViolation),
        ("nonsense", ErrorKind::Statement),
        ("DELETE FROM nowhere", ErrorKind::MissingTable),
    ];
    for (sql, kind) in statements {
        let mut transaction = people.store.begin().await.unwrap();
        let error = failure(transaction.execute(sql).await);
        assert_eq!(error.kind(), kind, "{sql}: {error:?}");
        let query = Query::new(sql);
        if transaction.is_open() {
            assert_eq!(failure(transaction.over(&query).await).kind(), kind, "{sql}");
        }
        if transaction.is_open() {
            transaction.commit().await.unwrap();
        }
        people.assert_rows(&rows![[1, "a", 10], [2, "b", 20]]).await;
    }
}

/// `execute` counts the rows it changed.
pub async fn execute_counts_rows(harness: &dyn Harness) {
    if !kept(harness, Feature::Sql) {
        return;
    }
    let people = Fixture::people(harness).await;
    people.insert(&rows![[1, "a", 1], [2, "b", 2], [3, "c", 3]]).await;
    let mut transaction = people.store.begin().await.unwrap();
    assert_eq!(transaction.execute(r#"UPDATE "people" SET "age" = 0 WHERE "id" < 3"#).await.unwrap(), 2);
    assert_eq!(transaction.execute(r#"DELETE FROM "people" WHERE "id" > 5"#).await.unwrap(), 0);
    assert_eq!(transaction.execute(r#"DELETE FROM "people" WHERE "id" = 3"#).await.unwrap(), 1);
    transaction.commit().await.unwrap();
    people.assert_rows(&rows![[1, "a", 0], [2, "b", 0]]).await;
}

/// A query sees what was committed when it began, and nothing half done.
pub async fn a_query_sees_committed_rows(harness: &dyn Harness) {
    if !kept(harness, Feature::Sql) {
        return;
    }
    let people = Fixture::people(harness).await;
    people.insert(&rows![[1, "a", 1]]).await;
    let step = people.step(Insert, &rows![[2, "b", 2]]).await;
    let mut transaction = people.store.begin().await.unwrap();
    transaction.apply(&step).await.unwrap();
    let read = match people.store.query(Query::new(ALL)).await {
        Ok(stream) => stream.collect().await,
        Err(error) => Err(error),
    };
    match harness.supports(Feature::ConcurrentReads) {
        Support::Kept => {
            assert_eq!(read.unwrap().iter().flat_map(values).collect::<Rows>(), rows![[1, "a", 1]])
        }
        _ => assert_eq!(failure(read).kind(), ErrorKind::Busy),
    }
    transaction.commit().await.unwrap();
    assert_eq!(all(&people, Query::new(ALL)).await, rows![[1, "a", 1], [2, "b", 2]]);
}
