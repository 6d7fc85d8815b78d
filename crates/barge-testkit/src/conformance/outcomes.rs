//! What each operation does, and what it says it did.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, TimeUnit};
use barge_core::record::{Column, Role};
use barge_core::store::{Outcome, Step, check_values};
use barge_core::{ErrorKind, Operation};

use super::fixture::*;
use super::{Constraints, Feature, Harness};
use crate::Value;
use DataType::{Int64, Utf8};
use Operation::*;
use Outcome::{Deleted, Inserted, NotFound, Unchanged, Updated};

/// An insert answers `Inserted` for every row, and the rows are there.
pub async fn insert_answers_every_row(harness: &dyn Harness) {
    let people = Fixture::people(harness).await;
    let rows = rows![[2, "two", 20], [1, "one", NULL], [3, "", -1]];
    assert_eq!(people.outcomes(Insert, &rows).await, (vec![Inserted; 3], 3));
    people.assert_rows(&rows).await;
}

/// Without outcomes a step only counts, and does the same.
pub async fn without_outcomes_a_step_counts(harness: &dyn Harness) {
    let people = Fixture::people(harness).await;
    let steps = [
        (Insert, rows![[1, "one", 1], [2, "two", 2], [3, "three", 3]], 3),
        (Update, rows![[1, "uno", 1], [9, "nine", 9]], 1),
        (Upsert, rows![[2, "dos", 2], [4, "cuatro", 4]], 2),
        (InsertIfAbsent, rows![[1, "x", 1], [5, "cinco", 5]], 1),
        (Delete, rows![[3], [8]], 1),
    ];
    for (operation, rows, affected) in steps {
        let step = people.silent(operation, &rows).await;
        let applied = people.transact(&[step]).await.unwrap().remove(0);
        assert_eq!((applied.affected, applied.outcomes), (affected, None), "{operation}");
        assert_eq!(applied.generated, None, "{operation}");
    }
    people.assert_rows(&rows![[1, "uno", 1], [2, "dos", 2], [4, "cuatro", 4], [5, "cinco", 5]]).await;
}

/// An upsert tells the rows that were there from those that were not, wherever they stand in the batch.
pub async fn upsert_tells_new_rows_from_old(harness: &dyn Harness) {
    let people = Fixture::people(harness).await;
    people.insert(&rows![[1, "one", 1], [3, "three", 3]]).await;
    let rows = rows![[4, "four", NULL], [3, "drei", NULL], [2, "two", 2], [1, "eins", 10]];
    let outcomes = people.outcomes(Upsert, &rows).await;
    assert_eq!(outcomes, (vec![Inserted, Updated, Inserted, Updated], 4));
    people.assert_rows(&rows).await;
}

/// Insert-if-absent leaves the rows that are there as they are, and says `Unchanged`.
pub async fn insert_if_absent_leaves_rows_as_they_are(harness: &dyn Harness) {
    let people = Fixture::people(harness).await;
    people.insert(&rows![[2, "two", 2]]).await;
    let outcomes =
        people.outcomes(InsertIfAbsent, &rows![[1, "one", 1], [2, "x", NULL], [3, "three", 3]]).await;
    assert_eq!(outcomes, (vec![Inserted, Unchanged, Inserted], 2));
    people.assert_rows(&rows![[1, "one", 1], [2, "two", 2], [3, "three", 3]]).await;
}

/// An update sets the columns of the rows that are there and says `NotFound` of the others.
pub async fn update_sets_columns_and_finds_missing_rows(harness: &dyn Harness) {
    let people = Fixture::people(harness).await;
    people.insert(&rows![[1, "one", 1], [2, "two", 2], [3, "three", 3]]).await;
    let outcomes =
        people.outcomes(Update, &rows![[9, "nine", 9], [3, "tres", NULL], [1, "uno", 10], [8, "x", 8]]).await;
    assert_eq!(outcomes, (vec![NotFound, Updated, Updated, NotFound], 2));
    people.assert_rows(&rows![[1, "uno", 10], [2, "two", 2], [3, "tres", NULL]]).await;
}

/// An update that sets a row to what it was is an update all the same.
pub async fn an_update_to_the_same_values_is_an_update(harness: &dyn Harness) {
    let people = Fixture::people(harness).await;
    people.insert(&rows![[1, "one", 1]]).await;
    assert_eq!(people.outcomes(Update, &rows![[1, "one", 1]]).await, (vec![Updated], 1));
    assert_eq!(people.outcomes(Upsert, &rows![[1, "one", 1]]).await, (vec![Updated], 1));
}

/// A delete removes the rows that are there and says `NotFound` of the others.
pub async fn delete_removes_and_finds_missing_rows(harness: &dyn Harness) {
    let people = Fixture::people(harness).await;
    people.insert(&rows![[1, "one", 1], [2, "two", 2], [3, "three", 3]]).await;
    let outcomes = people.outcomes(Delete, &rows![[3], [9], [1]]).await;
    assert_eq!(outcomes, (vec![Deleted, NotFound, Deleted], 2));
    people.assert_rows(&rows![[2, "two", 2]]).await;
    // The key is free again.
    assert_eq!(people.outcomes(Insert, &rows![[3, "again", NULL]]).await, (vec![Inserted], 1));
}

/// Where rows of the table share a key, an update and a delete reach all of them, count all, and answer once.
pub async fn a_key_that_repeats_in_the_table_reaches_all_its_rows(harness: &dyn Harness) {
    let people = Fixture::new(harness, people(), Constraints::none().keyless()).await;
    people.insert(&rows![[1, "a", 1], [1, "b", 2], [2, "c", 3], [1, "d", 4]]).await;
    assert_eq!(people.outcomes(Update, &rows![[1, "x", 7], [3, "y", 7]]).await, (vec![Updated, NotFound], 3));
    let rows =
        people.store.look_up(people.look_up(&rows![[1], [2]])).await.unwrap().into_batch().await.unwrap();
    let expected: Vec<(i64, Vec<Value>)> =
        [0, 0, 0, 1].into_iter().zip(rows![[1, "x", 7], [1, "x", 7], [1, "x", 7], [2, "c", 3]]).collect();
    assert_eq!(found(&rows), expected);
    assert_eq!(people.outcomes(Delete, &rows![[3], [1]]).await, (vec![NotFound, Deleted], 3));
    people.assert_rows(&rows![[2, "c", 3]]).await;
}

/// Batches of one row work, for every operation.
pub async fn a_batch_of_one_row(harness: &dyn Harness) {
    let people = Fixture::people(harness).await;
    let cases = [
        (Insert, rows![[1, "a", 1]], Inserted),
        (InsertIfAbsent, rows![[1, "b", 1]], Unchanged),
        (Upsert, rows![[1, "c", 1]], Updated),
        (Update, rows![[1, "d", 1]], Updated),
        (Delete, rows![[1]], Deleted),
        (Delete, rows![[1]], NotFound),
        (Update, rows![[1, "e", 1]], NotFound),
        (Upsert, rows![[1, "f", 1]], Inserted),
    ];
    for (operation, rows, outcome) in cases {
        let (outcomes, affected) = people.outcomes(operation, &rows).await;
        let changed = u64::from(!matches!(outcome, Unchanged | NotFound));
        assert_eq!((outcomes, affected), (vec![outcome], changed), "{operation} {rows:?}");
    }
    people.assert_rows(&rows![[1, "f", 1]]).await;
}

/// Batches of 100,000 rows work, for every operation.
pub async fn a_batch_of_a_hundred_thousand_rows(harness: &dyn Harness) {
    const ROWS: i64 = 100_000;
    let people = Fixture::people(harness).await;
    let rows = |step: usize, name: &str| -> Rows {
        let ids = (0..ROWS).step_by(step);
        ids.map(|id| vec![id.into(), format!("{name} {id}").into(), Value::Null]).collect()
    };
    let all = rows(1, "first");
    assert_eq!(people.outcomes(Insert, &all).await, (vec![Inserted; ROWS as usize], ROWS as u64));
    let even = rows(2, "second");
    assert_eq!(people.outcomes(Update, &even).await, (vec![Updated; even.len()], even.len() as u64));
    let third = rows(3, "third");
    assert_eq!(people.outcomes(Upsert, &third).await, (vec![Updated; third.len()], third.len() as u64));
    let fifth: Rows = (0..ROWS).step_by(5).map(|id| vec![id.into()]).collect();
    assert_eq!(people.outcomes(Delete, &fifth).await, (vec![Deleted; fifth.len()], fifth.len() as u64));
    let keys = rows![[0], [1], [2], [3], [4], [99_999]];
    let found = people.get(&keys).await;
    let name = |name: &str, id: i64| Some(vec![id.into(), format!("{name} {id}").into(), Value::Null]);
    let expected = [
        None,
        name("first", 1),
        name("second", 2),
        name("third", 3),
        name("second", 4),
        name("third", 99_999),
    ];
    assert_eq!(found, expected);
}

/// A slice of a batch is a batch: its rows are numbered from its own first.
pub async fn slices_are_batches(harness: &dyn Harness) {
    let people = Fixture::people(harness).await;
    let ids = 1..=10;
    let rows: Rows = ids
        .map(|id| vec![id.into(), format!("name {id}").into(), Value::from((id % 2 == 0).then_some(id))])
        .collect();
    let whole = people.step(Insert, &rows).await;
    let slice = |from, rows| Step { batch: whole.batch.slice(from, rows), ..whole.clone() };
    let applied = people.transact(&[slice(7, 3), slice(0, 1), slice(3, 2)]).await.unwrap();
    assert_eq!(applied[0].outcomes, Some(vec![Inserted; 3]));
    let upsert = people.step(Upsert, &rows).await;
    let upsert = Step { batch: upsert.batch.slice(4, 4), ..upsert };
    let applied = people.transact(&[upsert]).await.unwrap();
    assert_eq!(applied[0].outcomes, Some(vec![Updated, Inserted, Inserted, Updated]));
    people.assert_rows(&[&rows[..1], &rows[3..]].concat()).await;
}

/// Keys that span columns find rows by all of them.
pub async fn composite_keys(harness: &dyn Harness) {
    let prices =
        table("prices", [nullable("close", DataType::Float64), key("symbol", Utf8), key("day", Int64)]);
    let prices = Fixture::new(harness, prices, Constraints::none()).await;
    prices.insert(&rows![[1.5, "A", 1], [2.5, "A", 2], [3.5, "B", 1]]).await;
    let outcomes = prices.outcomes(Update, &rows![[9.5, "B", 2], [7.5, "A", 2]]).await;
    assert_eq!(outcomes, (vec![NotFound, Updated], 1));
    let outcomes = prices.outcomes(Upsert, &rows![[0.5, "B", 2], [NULL, "B", 1]]).await;
    assert_eq!(outcomes, (vec![Inserted, Updated], 2));
    let outcomes = prices.outcomes(InsertIfAbsent, &rows![[0.0, "A", 1], [4.0, "C", 1]]).await;
    assert_eq!(outcomes, (vec![Unchanged, Inserted], 1));
    let outcomes = prices.outcomes(Delete, &rows![["A", 1], ["B", 3]]).await;
    assert_eq!(outcomes, (vec![Deleted, NotFound], 1));
    let found = prices.get(&rows![["A", 1], ["A", 2], ["B", 1], ["B", 2], ["C", 1]]).await;
    let expected = rows![[7.5, "A", 2], [NULL, "B", 1], [0.5, "B", 2], [4.0, "C", 1]];
    assert_eq!(found, std::iter::once(None).chain(expected.into_iter().map(Some)).collect::<Vec<_>>());
}

/// A record with fewer columns than the table leaves the others as they are.
pub async fn partial_updates_leave_other_columns(harness: &dyn Harness) {
    let people = Fixture::people(harness).await;
    people.insert(&rows![[1, "one", 1], [2, "two", 2]]).await;
    let ages = people.seen_as([nullable("age", Int64), key("id", Int64)]);
    assert_eq!(
        ages.outcomes(Update, &rows![[10, 1], [NULL, 2], [5, 3]]).await,
        (vec![Updated, Updated, NotFound], 2)
    );
    people.assert_rows(&rows![[1, "one", 10], [2, "two", NULL]]).await;
}

/// An upsert of some of the columns sets those, and gives new rows the defaults of the rest.
pub async fn partial_upserts_leave_other_columns(harness: &dyn Harness) {
    let constraints = Constraints::none().default_value("name", "nobody").default_value("age", 7);
    let people = Fixture::new(harness, people(), constraints).await;
    people.insert(&rows![[1, "one", 1]]).await;
    let ages = people.seen_as([key("id", Int64), nullable("age", Int64)]);
    assert_eq!(ages.outcomes(Upsert, &rows![[1, 10], [2, NULL]]).await, (vec![Updated, Inserted], 2));
    let names = people.seen_as([key("id", Int64), column("name", Utf8)]);
    assert_eq!(names.outcomes(Upsert, &rows![[3, "three"], [1, "uno"]]).await, (vec![Inserted, Updated], 2));
    people.assert_rows(&rows![[1, "uno", 10], [2, "nobody", NULL], [3, "three", 7]]).await;
}

/// A new row must give every column that has no default and allows no NULL: said before anything is sent.
pub async fn rows_that_lack_a_needed_column_are_refused(harness: &dyn Harness) {
    let people = Fixture::people(harness).await;
    people.insert(&rows![[1, "one", 1]]).await;
    let ages = people.seen_as([key("id", Int64), nullable("age", Int64)]);
    let description = Arc::new(people.store.describe(people.table.name()).await.unwrap());
    for operation in [Insert, InsertIfAbsent, Upsert] {
        let error = barge_core::store::Target::new(&ages.table, operation, description.clone()).unwrap_err();
        assert_eq!((error.kind(), error.column()), (ErrorKind::MissingColumn, Some("name")), "{operation}");
    }
    assert_eq!(ages.outcomes(Update, &rows![[1, 5]]).await, (vec![Updated], 1));
}

/// Columns that a record leaves out take their defaults, and NULL where there is none. A NULL that is given stays NULL.
pub async fn defaults_fill_columns_left_out(harness: &dyn Harness) {
    let tasks = table(
        "tasks",
        [
            key("id", Int64),
            column("status", Utf8),
            nullable("score", DataType::Float64),
            nullable("note", Utf8),
        ],
    );
    let constraints = Constraints::none().default_value("status", "it's new").default_value("score", 0.5);
    let tasks = Fixture::new(harness, tasks, constraints).await;
    tasks.seen_as([key("id", Int64)]).insert(&rows![[1]]).await;
    tasks.seen_as([nullable("note", Utf8), key("id", Int64)]).insert(&rows![["n", 2]]).await;
    tasks.seen_as([key("id", Int64), nullable("score", DataType::Float64)]).insert(&rows![[3, NULL]]).await;
    let rows = rows![[1, "it's new", 0.5, NULL], [2, "it's new", 0.5, "n"], [3, "it's new", NULL, NULL]];
    tasks.assert_rows(&rows).await;
}

/// `created_at` is written with a new row and never after; `updated_at` always.
pub async fn created_at_is_never_overwritten(harness: &dyn Harness) {
    let time = || DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    let at = |name, role| Column::new(Field::new(name, time(), true)).with_role(role);
    let notes = table(
        "notes",
        [at("made", Role::CreatedAt), key("id", Int64), column("text", Utf8), at("changed", Role::UpdatedAt)],
    );
    let notes = Fixture::new(harness, notes, Constraints::none()).await;
    let row = |second: i64, id: i64, text: &str, changed: i64| -> Vec<Value> {
        let time = |second: i64| Value::Timestamp { micros: second * 1_000_000, utc: true };
        vec![time(second), id.into(), text.into(), time(changed)]
    };
    notes.insert(&[row(1, 1, "a", 1), row(1, 2, "b", 1)]).await;
    notes.write(Upsert, &[row(2, 1, "c", 2), row(2, 3, "d", 2)]).await;
    notes.write(Update, &[row(3, 2, "e", 3)]).await;
    notes.assert_rows(&[row(1, 1, "c", 2), row(1, 2, "e", 3), row(2, 3, "d", 2)]).await;
}

/// What equals a key to the database may be written otherwise: an upsert or update leaves the key as it was.
pub async fn keys_are_never_updated(harness: &dyn Harness) {
    if !kept(harness, Feature::IgnoreCase) {
        return;
    }
    let tags = table("tags", [key("tag", Utf8), nullable("n", Int64)]);
    let tags = Fixture::new(harness, tags, Constraints::none().ignore_case("tag")).await;
    tags.insert(&rows![["Rust", 1], ["sql", 2]]).await;
    assert_eq!(tags.outcomes(Upsert, &rows![["RUST", 10], ["new", 3]]).await, (vec![Updated, Inserted], 2));
    assert_eq!(tags.outcomes(Update, &rows![["SQL", 20]]).await, (vec![Updated], 1));
    assert_eq!(tags.outcomes(InsertIfAbsent, &rows![["NEW", 9]]).await, (vec![Unchanged], 0));
    let found = tags.get(&rows![["rust"], ["sql"], ["new"]]).await;
    assert_eq!(found, rows![["Rust", 10], ["sql", 20], ["new", 3]].into_iter().map(Some).collect::<Vec<_>>());
    assert_eq!(tags.outcomes(Delete, &rows![["rUsT"], ["x"]]).await, (vec![Deleted, NotFound], 1));
}

/// Rows may be found by a unique key that isn't the primary one.
pub async fn upserts_by_another_unique_key(harness: &dyn Harness) {
    let users = table("users", [key("id", Int64), column("mail", Utf8), nullable("n", Int64)]);
    let users = Fixture::new(harness, users, Constraints::none().unique(&["mail"])).await;
    users.insert(&rows![[1, "a@x", 1], [2, "b@x", 2]]).await;
    let by_mail = users.seen_as([column("id", Int64), key("mail", Utf8), nullable("n", Int64)]);
    let counts = users.seen_as([key("mail", Utf8), nullable("n", Int64)]);
    assert_eq!(
        by_mail.outcomes(InsertIfAbsent, &rows![[7, "a@x", 7], [3, "c@x", 3]]).await,
        (vec![Unchanged, Inserted], 1)
    );
    assert_eq!(counts.outcomes(Update, &rows![["b@x", 20], ["z@x", 0]]).await, (vec![Updated, NotFound], 1));
    assert_eq!(
        by_mail.outcomes(Upsert, &rows![[4, "d@x", 4], [3, "c@x", 30]]).await,
        (vec![Inserted, Updated], 2)
    );
    assert_eq!(counts.outcomes(Delete, &rows![["a@x"]]).await, (vec![Deleted], 1));
    users.assert_rows(&rows![[2, "b@x", 20], [3, "c@x", 30], [4, "d@x", 4]]).await;
}

/// A table without a key takes inserts.
pub async fn tables_without_a_key_take_inserts(harness: &dyn Harness) {
    let log = table("log", [nullable("at", Int64), column("line", Utf8)]);
    let log = Fixture::new(harness, log, Constraints::none()).await;
    assert_eq!(log.outcomes(Insert, &rows![[1, "a"], [1, "a"], [NULL, "b"]]).await, (vec![Inserted; 3], 3));
    let by_line = log.seen_as([nullable("at", Int64), key("line", Utf8)]);
    let rows = by_line
        .store
        .look_up(by_line.look_up(&rows![["a"], ["b"]]))
        .await
        .unwrap()
        .into_batch()
        .await
        .unwrap();
    assert_eq!(values(&rows).len(), 3);
}

/// The steps of one transaction see what those before them did, over several tables.
pub async fn steps_see_those_before_them(harness: &dyn Harness) {
    let people = Fixture::people(harness).await;
    let other = table("other", [key("id", Int64), column("name", Utf8)]);
    let other = people.and(harness, other, Constraints::none()).await;
    let steps = [
        people.step(Insert, &rows![[1, "a", 1], [2, "b", 2]]).await,
        other.step(Insert, &rows![[1, "o"]]).await,
        people.step(Update, &rows![[2, "c", 3]]).await,
        people.step(Delete, &rows![[1]]).await,
        people.step(Upsert, &rows![[1, "d", 4], [2, "e", 5]]).await,
        other.step(InsertIfAbsent, &rows![[1, "x"]]).await,
    ];
    let applied = people.transact(&steps).await.unwrap();
    let outcomes: Vec<Vec<Outcome>> = applied.into_iter().filter_map(|applied| applied.outcomes).collect();
    let expected: [&[Outcome]; 6] =
        [&[Inserted, Inserted], &[Inserted], &[Updated], &[Deleted], &[Inserted, Updated], &[Unchanged]];
    assert_eq!(outcomes, expected);
    people.assert_rows(&rows![[1, "d", 4], [2, "e", 5]]).await;
    other.assert_rows(&rows![[1, "o"]]).await;
}

/// Columns are found by name, whatever their order in the record and in the table, and whatever their case.
pub async fn columns_are_found_by_name(harness: &dyn Harness) {
    let people = Fixture::people(harness).await;
    let turned = people.seen_as([nullable("AGE", Int64), column("Name", Utf8), key("id", Int64)]);
    turned.insert(&rows![[7, "seven", 1]]).await;
    people.assert_rows(&rows![[1, "seven", 7]]).await;
}

/// A NULL in the key of a keyed operation is found before sending, and finds no row where it is sent all the same.
pub async fn a_null_key_finds_nothing(harness: &dyn Harness) {
    let people = Fixture::new(harness, people(), Constraints::none().keyless()).await;
    people.insert(&rows![[1, "one", 1]]).await;
    let step = people.step(Update, &rows![[NULL, "x", 1], [1, "uno", 1]]).await;
    let rejected = check_values(&step.target, &step.batch);
    assert_eq!(rejected.len(), 1);
    assert_eq!((rejected[0].0, rejected[0].1.kind()), (0, ErrorKind::NotNullViolation));
    let applied = people.transact(&[step]).await.unwrap().remove(0);
    assert_eq!((applied.outcomes, applied.affected), (Some(vec![NotFound, Updated]), 1));
}
