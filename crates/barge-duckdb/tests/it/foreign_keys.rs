//! What DuckDB can't do, or does wrong, with foreign keys inside one transaction.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use barge_core::store::{Operation, Outcome, Step};
use barge_core::{ErrorKind, Store};
use barge_duckdb::DuckDbStore;

use super::{execute, number, step};

async fn teams_and_members() -> DuckDbStore {
    let store = DuckDbStore::open("duckdb::memory:").await.unwrap();
    let statements = [
        "CREATE TABLE teams(id BIGINT PRIMARY KEY, code VARCHAR UNIQUE, name VARCHAR, tags VARCHAR[])",
        "CREATE TABLE members(id BIGINT PRIMARY KEY, team BIGINT REFERENCES teams(id))",
        "INSERT INTO teams VALUES (1, 'a', 'one', []), (2, 'b', 'two', [])",
        "INSERT INTO members VALUES (1, 1)",
    ];
    execute(&store, &statements).await;
    store
}

fn numbers<const N: usize>(columns: [(&str, &[i64]); N]) -> RecordBatch {
    let columns =
        columns.map(|(name, values)| (name, Arc::new(Int64Array::from(values.to_vec())) as ArrayRef));
    RecordBatch::try_from_iter(columns).unwrap()
}

/// By itself DuckDB would commit the child without its parent.
#[tokio::test]
async fn a_child_of_a_parent_that_just_went_is_refused() {
    let store = teams_and_members().await;
    let delete = step(&store, "teams", Operation::Delete, numbers([("id", &[2])]), 1).await;
    let insert =
        step(&store, "members", Operation::Insert, numbers([("id", &[5, 6]), ("team", &[1, 2])]), 1).await;
    let error = store.transact(None, &[delete.clone(), insert.clone()]).await.unwrap_err();
    let error = error.error();
    assert_eq!((error.kind(), error.row()), (ErrorKind::ForeignKeyViolation, Some(1)), "{error:?}");
    let mut transaction = store.begin().await.unwrap();
    transaction.apply(&delete).await.unwrap();
    let applied = transaction.apply_rows(&insert).await.unwrap();
    assert!(matches!(&applied.outcomes[..], [Ok(Outcome::Inserted), Err(_)]), "{:?}", applied.outcomes);
    transaction.commit().await.unwrap();
    assert_eq!(
        number(&store, "SELECT count(*) FROM members ANTI JOIN teams ON members.team = teams.id").await,
        0
    );

    // After SQL of the user's own, which may have removed anything.
    let mut transaction = store.begin().await.unwrap();
    transaction.execute("INSERT INTO teams(id) VALUES (9)").await.unwrap();
    let insert = step(&store, "members", Operation::Insert, numbers([("id", &[7]), ("team", &[2])]), 1).await;
    let error = transaction.apply(&insert).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ForeignKeyViolation, "{error:?}");
}

/// An update of an indexed column or a list deletes the row and inserts it, which DuckDB refuses where others name it.
#[tokio::test]
async fn columns_that_duckdb_replaces_stay_where_others_name_the_row() {
    let store = teams_and_members().await;
    let teams = |column: &str| {
        let ids: ArrayRef = Arc::new(Int64Array::from(vec![1, 2]));
        let texts: ArrayRef = Arc::new(StringArray::from(vec!["x", "y"]));
        RecordBatch::try_from_iter([("id", ids), (column, texts)]).unwrap()
    };
    let apply_rows = async |step: &Step| {
        let mut transaction = store.begin().await.unwrap();
        let applied = transaction.apply_rows(step).await.unwrap();
        transaction.commit().await.unwrap();
        applied.outcomes
    };
    for operation in [Operation::Update, Operation::Upsert] {
        let names = step(&store, "teams", operation, teams("name"), 1).await;
        assert!(apply_rows(&names).await.iter().all(Result::is_ok));
        let codes = step(&store, "teams", operation, teams("code"), 1).await;
        let outcomes = apply_rows(&codes).await;
        let error = outcomes[0].as_ref().unwrap_err();
        assert_eq!((error.kind(), error.row()), (ErrorKind::Unsupported, Some(0)), "{error:?}");
        assert!(error.message().contains("members"), "{error}");
        assert_eq!(*outcomes[1].as_ref().unwrap(), Outcome::Updated);
    }
    assert_eq!(
        number(&store, "SELECT count(*) FROM teams WHERE code IN ('a', 'y') AND name IN ('x', 'y')").await,
        2
    );
}

/// A row that DuckDB can't take is refused by itself: what goes with it is written.
#[tokio::test]
async fn a_parent_goes_in_the_transaction_after_its_children() {
    let store = teams_and_members().await;
    let children = step(&store, "members", Operation::Delete, numbers([("id", &[1])]), 1).await;
    let parents = step(&store, "teams", Operation::Delete, numbers([("id", &[1, 2])]), 1).await;
    let mut transaction = store.begin().await.unwrap();
    transaction.apply(&children).await.unwrap();
    let applied = transaction.apply_rows(&parents).await.unwrap();
    let error = applied.outcomes[0].as_ref().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error:?}");
    assert_eq!(*applied.outcomes[1].as_ref().unwrap(), Outcome::Deleted);
    transaction.commit().await.unwrap();
    store.transact(None, &[parents]).await.unwrap();
    assert_eq!(number(&store, "SELECT count(*) FROM teams").await, 0);
}

/// By one statement DuckDB would let rows exchange their unique values, which one after the other they can't.
#[tokio::test]
async fn unique_values_are_given_and_taken_in_order() {
    let store = DuckDbStore::open("duckdb::memory:").await.unwrap();
    let table = "CREATE TABLE seats(id BIGINT PRIMARY KEY, seat BIGINT UNIQUE)";
    execute(&store, &[table, "INSERT INTO seats VALUES (1, 10), (2, 20)"]).await;
    let seats = |ids: &[i64], seats: &[i64]| numbers([("id", ids), ("seat", seats)]);
    for operation in [Operation::Update, Operation::Upsert] {
        let exchange = step(&store, "seats", operation, seats(&[1, 2], &[20, 10]), 1).await;
        let error = store.transact(None, &[exchange]).await.unwrap_err();
        assert_eq!(error.error().kind(), ErrorKind::UniqueViolation, "{operation}: {error:?}");
        let in_order = step(&store, "seats", operation, seats(&[1, 2], &[30, 10]), 1).await;
        let back = step(&store, "seats", operation, seats(&[2, 1], &[20, 10]), 1).await;
        let applied = store.transact(None, &[in_order, back]).await.unwrap().unwrap();
        assert!(applied.iter().all(|applied| applied.affected == 2), "{applied:?}");
    }
    assert_eq!(number(&store, "SELECT count(*) FROM seats WHERE seat = id * 10").await, 2);
    // What went before a step that fails in order is still there.
    let mut transaction = store.begin().await.unwrap();
    let first = step(&store, "seats", Operation::Insert, seats(&[3], &[40]), 1).await;
    transaction.apply(&first).await.unwrap();
    let fails = step(&store, "seats", Operation::Update, seats(&[1, 2, 3], &[50, 10, 50]), 1).await;
    let error = transaction.apply(&fails).await.unwrap_err();
    assert_eq!((error.kind(), error.row()), (ErrorKind::UniqueViolation, Some(2)), "{error:?}");
    assert!(transaction.is_open());
    transaction.commit().await.unwrap();
    assert_eq!(number(&store, "SELECT sum(seat) FROM seats").await, 70);
}
