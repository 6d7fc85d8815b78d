//! Reading rows by key.

use arrow::datatypes::DataType::{Float64, Int32, Int64, Utf8};
use barge_core::ErrorKind;
use barge_core::Operation::Insert;
use barge_core::store::LookUp;

use super::fixture::*;
use super::{Constraints, Harness};
use crate::Value;

/// Keys that aren't there find nothing; the others carry their place.
pub async fn missing_keys_find_nothing(harness: &dyn Harness) {
    let people = Fixture::people(harness).await;
    people.insert(&rows![[1, "a", 1], [2, "b", NULL], [3, "c", 3]]).await;
    let batch = people
        .store
        .look_up(people.look_up(&rows![[9], [3], [8], [1]]))
        .await
        .unwrap()
        .into_batch()
        .await
        .unwrap();
    let expected: Vec<(i64, Vec<Value>)> = [1, 3].into_iter().zip(rows![[3, "c", 3], [1, "a", 1]]).collect();
    assert_eq!(found(&batch), expected);
    let none =
        people.store.look_up(people.look_up(&rows![[7], [8]])).await.unwrap().into_batch().await.unwrap();
    assert_eq!((none.num_rows(), none.num_columns()), (0, 4));
}

/// No keys, no rows, and no error. A NULL key finds nothing.
pub async fn empty_and_null_keys(harness: &dyn Harness) {
    let people = Fixture::new(harness, people(), Constraints::none().keyless()).await;
    people.insert(&rows![[1, "a", NULL]]).await;
    let none = people.store.look_up(people.look_up(&[])).await.unwrap().into_batch().await.unwrap();
    assert_eq!((none.num_rows(), none.num_columns()), (0, 4));
    let by_age = people.seen_as([column("id", Int64), key("age", Int64)]);
    let none =
        by_age.store.look_up(by_age.look_up(&rows![[NULL], [5]])).await.unwrap().into_batch().await.unwrap();
    assert_eq!(none.num_rows(), 0);
}

/// Ten thousand keys in one look-up, every second of them there.
pub async fn ten_thousand_keys(harness: &dyn Harness) {
    let people = Fixture::people(harness).await;
    let row = |id: i64| -> Vec<Value> { vec![id.into(), format!("name {id}").into(), (id * 7).into()] };
    let rows: Rows = (0..20_000).step_by(2).map(row).collect();
    people.insert(&rows).await;
    let keys: Rows = (0..10_000).map(|n: i64| vec![((n * 7_919) % 10_000).into()]).collect();
    for (key, found) in keys.iter().zip(people.get(&keys).await) {
        let id = key[0].as_int().unwrap() as i64;
        assert_eq!(found, (id % 2 == 0).then(|| row(id)));
    }
}

/// A look-up by columns that aren't unique gives every row, each with its key's place.
pub async fn a_key_finds_all_its_rows(harness: &dyn Harness) {
    let people = Fixture::people(harness).await;
    people.insert(&rows![[1, "a", 5], [2, "b", 5], [3, "a", 6], [4, "c", 5]]).await;
    let by_name = people.seen_as([column("id", Int64), key("name", Utf8)]);
    let batch = by_name
        .store
        .look_up(by_name.look_up(&rows![["c"], ["x"], ["a"]]))
        .await
        .unwrap()
        .into_batch()
        .await
        .unwrap();
    let expected: Vec<(i64, Vec<Value>)> =
        [0, 2, 2].into_iter().zip(rows![[4, "c"], [1, "a"], [3, "a"]]).collect();
    assert_eq!(found(&batch), expected);
    let by_both = people.seen_as([key("age", Int64), column("id", Int64), key("name", Utf8)]);
    let batch = by_both
        .store
        .look_up(by_both.look_up(&rows![[5, "a"], [6, "a"], [6, "b"]]))
        .await
        .unwrap()
        .into_batch()
        .await
        .unwrap();
    let expected: Vec<(i64, Vec<Value>)> = [0, 1].into_iter().zip(rows![[5, 1, "a"], [6, 3, "a"]]).collect();
    assert_eq!(found(&batch), expected);
}

/// The columns come as the record says: some of them, in its order, with its types.
pub async fn columns_come_as_the_record_says(harness: &dyn Harness) {
    let people = Fixture::people(harness).await;
    people.insert(&rows![[1, "a", 5], [2, "b", NULL]]).await;
    let seen = people.seen_as([nullable("age", Float64), key("id", Int32)]);
    let batch =
        people.store.look_up(seen.look_up(&rows![[2], [1]])).await.unwrap().into_batch().await.unwrap();
    let schema = batch.schema();
    let types: Vec<_> = schema.fields().iter().map(|field| field.data_type().clone()).collect();
    assert_eq!(types, [Int64, Float64, Int32]);
    let expected: Vec<(i64, Vec<Value>)> = [0, 1].into_iter().zip(rows![[NULL, 2], [5.0, 1]]).collect();
    assert_eq!(found(&batch), expected);
    let ages = people.seen_as([nullable("age", Int64)]);
    let keys = people.look_up(&rows![[1]]).keys;
    let batch =
        people.store.look_up(LookUp::new(ages.table, keys)).await.unwrap().into_batch().await.unwrap();
    assert_eq!(found(&batch), [(0, vec![Value::from(5)])]);
}

/// A value that the wanted type can't hold is an error that names the column, not another value.
pub async fn a_value_that_does_not_fit_is_an_error(harness: &dyn Harness) {
    let people = Fixture::people(harness).await;
    people.insert(&rows![[1, "a", 5_000_000_000i64]]).await;
    let seen = people.seen_as([key("id", Int64), nullable("age", Int32)]);
    let error = failure(people.store.look_up(seen.look_up(&rows![[1]])).await);
    assert_eq!((error.kind(), error.column()), (ErrorKind::InvalidValue, Some("age")), "{error:?}");
    let seen = people.seen_as([key("id", Int64), column("name", Int64)]);
    let error = failure(people.store.look_up(seen.look_up(&rows![[1]])).await);
    assert_eq!((error.kind(), error.column()), (ErrorKind::InvalidValue, Some("name")), "{error:?}");
}

/// A look-up inside a transaction sees what the transaction wrote.
pub async fn a_transaction_finds_its_own_rows(harness: &dyn Harness) {
    let people = Fixture::people(harness).await;
    people.insert(&rows![[1, "a", 1]]).await;
    let steps = [
        people.step(Insert, &rows![[2, "b", 2]]).await,
        people.step(barge_core::Operation::Delete, &rows![[1]]).await,
    ];
    let mut transaction = people.store.begin().await.unwrap();
    for step in &steps {
        transaction.apply(step).await.unwrap();
    }
    let found = people.get_in(transaction.as_mut(), &rows![[1], [2]]).await;
    assert_eq!(found, [None, Some(rows![[2, "b", 2]].remove(0))]);
    transaction.rollback().await.unwrap();
}

/// Look-ups from many tasks at once, while a writer writes, each see whole transactions.
pub async fn look_ups_beside_a_writer_see_whole_transactions(harness: &dyn Harness) {
    let people = std::sync::Arc::new(Fixture::people(harness).await);
    people.insert(&rows![[1, "a", 0], [2, "b", 0]]).await;
    let mut readers = Vec::new();
    for _ in 0..4 {
        let people = people.clone();
        readers.push(tokio::spawn(async move {
            for _ in 0..50 {
                let found = people.get(&rows![[1], [2]]).await;
                let ages: Vec<Value> = found.into_iter().map(|row| row.unwrap()[2].clone()).collect();
                assert_eq!(ages[0], ages[1]);
                tokio::task::yield_now().await;
            }
        }));
    }
    for round in 1..=50 {
        people.write(barge_core::Operation::Update, &rows![[1, "a", round], [2, "b", round]]).await;
    }
    for reader in readers {
        reader.await.unwrap();
    }
}
