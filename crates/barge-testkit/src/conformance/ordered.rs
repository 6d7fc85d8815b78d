//! Reading rows by columns that aren't unique: in an order, so many of each key.

use std::collections::BTreeMap;

use arrow::array::{AsArray, RecordBatch};
use arrow::datatypes::DataType::{Date32, Float64, Int32, Int64, Timestamp, UInt64, Utf8};
use arrow::datatypes::{Int64Type, TimeUnit};
use barge_core::Direction::{Ascending, Descending};
use barge_core::Operation::{Delete, Insert};
use barge_core::record::Column;
use barge_core::store::{Direction, LookUp, OrderBy};
use barge_core::{Database, ErrorKind, LookUpBy, Table};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, RngSeed, TestRunner};

use super::fixture::*;
use super::{Constraints, Feature, Harness};
use crate::{MemoryStore, MemoryTable, Value};

/// Orders that users placed in markets: `orders(id, user, market, price, placed)`.
fn orders() -> std::sync::Arc<Table> {
    table(
        "orders",
        [
            key("id", Int64),
            nullable("user", Int64),
            column("market", Utf8),
            nullable("price", Float64),
            nullable("placed", Int64),
        ],
    )
}

async fn some_orders(harness: &dyn Harness) -> Fixture {
    let orders = Fixture::new(harness, orders(), Constraints::none()).await;
    orders
        .insert(&rows![
            [1, 7, "a", 1.5, 30],
            [2, 7, "b", NULL, 10],
            [3, 7, "a", 0.5, NULL],
            [4, 8, "a", 1.5, 20],
            [5, 7, "c", -1.0, 20],
            [6, NULL, "a", 2.0, 50],
            [7, 8, "b", 2.5, NULL],
            [8, 7, "b", 9.0, 30],
        ])
        .await;
    orders
}

/// A look-up by some columns of which the ids are wanted.
fn ids_by(orders: &Fixture, by: &[(&str, arrow::datatypes::DataType)], keys: &[Vec<Value>]) -> LookUp {
    let columns: Vec<Column> = by.iter().map(|(name, data_type)| nullable(name, data_type.clone())).collect();
    LookUp::new(orders.seen_as([key("id", Int64)]).table, batch(&columns, keys))
}

fn ordered(look_up: LookUp, order: &[(&str, Direction)]) -> LookUp {
    let order = order.iter().map(|&(column, direction)| OrderBy { column: column.into(), direction });
    LookUp { order: order.collect(), ..look_up }
}

fn limited(look_up: LookUp, limit: u32) -> LookUp {
    LookUp { limit: Some(limit), ..look_up }
}

/// The first wanted column's integers of each key, as they came.
fn by_ordinal(batches: &[RecordBatch]) -> BTreeMap<i64, Vec<i64>> {
    let mut found: BTreeMap<i64, Vec<i64>> = BTreeMap::new();
    for batch in batches {
        let column = |index: usize| batch.column(index).as_primitive::<Int64Type>().values();
        for (ordinal, id) in column(0).iter().zip(column(1)) {
            found.entry(*ordinal).or_default().push(*id);
        }
    }
    found
}

async fn ids(orders: &Fixture, look_up: LookUp) -> Vec<(i64, Vec<i64>)> {
    let found = orders.store.look_up(look_up).await.unwrap().collect().await.unwrap();
    by_ordinal(&found).into_iter().collect()
}

/// The rows of a key come in the order of a column, one way or the other, NULL as the greatest; the column need not be wanted.
pub async fn the_rows_of_a_key_come_in_order(harness: &dyn Harness) {
    let orders = some_orders(harness).await;
    let of_users = || ids_by(&orders, &[("user", Int64)], &rows![[8], [9], [7]]);
    let found = ids(&orders, ordered(of_users(), &[("id", Descending)])).await;
    assert_eq!(found, [(0, vec![7, 4]), (2, vec![8, 5, 3, 2, 1])]);
    let found = ids(&orders, ordered(of_users(), &[("placed", Ascending), ("id", Ascending)])).await;
    assert_eq!(found, [(0, vec![4, 7]), (2, vec![2, 5, 1, 8, 3])]);
    let found = ids(&orders, ordered(of_users(), &[("placed", Descending), ("id", Ascending)])).await;
    assert_eq!(found, [(0, vec![7, 4]), (2, vec![3, 1, 8, 5, 2])]);
    let found = ids(&orders, ordered(of_users(), &[("market", Descending), ("price", Descending)])).await;
    assert_eq!(found, [(0, vec![7, 4]), (2, vec![5, 2, 8, 1, 3])]);
}

/// A limit is each key's own: the first rows of the order, or any where there is none.
pub async fn a_limit_counts_the_rows_of_each_key(harness: &dyn Harness) {
    let orders = some_orders(harness).await;
    let of_users = |keys: &Rows| ordered(ids_by(&orders, &[("user", Int64)], keys), &[("price", Descending)]);
    let found = ids(&orders, limited(of_users(&rows![[7], [8]]), 3)).await;
    assert_eq!(found, [(0, vec![2, 8, 1]), (1, vec![7, 4])]);
    let found = ids(&orders, limited(of_users(&rows![[7]]), 1)).await;
    assert_eq!(found, [(0, vec![2])]);
    assert_eq!(ids(&orders, limited(of_users(&rows![[7], [8]]), 0)).await, []);
    let any = limited(ids_by(&orders, &[("user", Int64)], &rows![[7], [8]]), 3);
    let counts: Vec<usize> = ids(&orders, any).await.iter().map(|(_, ids)| ids.len()).collect();
    assert_eq!(counts, [3, 2]);
}

/// No keys, NULL in a key, several columns, and keys that repeat, each of which has its rows.
pub async fn odd_keys_in_order(harness: &dyn Harness) {
    let orders = some_orders(harness).await;
    let newest = |look_up| limited(ordered(look_up, &[("id", Descending)]), 2);
    assert_eq!(ids(&orders, newest(ids_by(&orders, &[("user", Int64)], &[]))).await, []);
    let look_up = ids_by(&orders, &[("user", Int64)], &rows![[NULL], [8], [NULL], [8]]);
    assert_eq!(ids(&orders, newest(look_up.clone())).await, [(1, vec![7, 4]), (3, vec![7, 4])]);
    let mut all = ids(&orders, look_up).await;
    all.iter_mut().for_each(|(_, ids)| ids.sort_unstable());
    assert_eq!(all, [(1, vec![4, 7]), (3, vec![4, 7])]);
    let both = [("market", Utf8), ("user", Int64)];
    let look_up = ids_by(&orders, &both, &rows![["b", 7], ["a", 9], ["a", NULL], ["a", 7], ["b", 7]]);
    let found = ids(&orders, newest(look_up)).await;
    assert_eq!(found, [(0, vec![8, 2]), (3, vec![3, 1]), (4, vec![8, 2])]);
}

/// Fifty thousand keys, from the last to the first, with two rows each.
pub async fn many_keys_in_order(harness: &dyn Harness) {
    const KEYS: i64 = 50_000;
    let orders = Fixture::new(harness, orders(), Constraints::none()).await;
    let order = |id: i64| vec![id.into(), (id / 3).into(), "a".into(), NULL.into(), (id * 7 % 11).into()];
    orders.insert(&(0..KEYS * 3).map(order).collect::<Rows>()).await;
    let keys: Rows = (0..KEYS).rev().map(|user| vec![user.into()]).collect();
    let look_up = ids_by(&orders, &[("user", Int64)], &keys);
    let found = ids(&orders, limited(ordered(look_up, &[("placed", Descending)]), 2)).await;
    assert_eq!(found.len() as i64, KEYS);
    for (ordinal, ids) in found {
        let user = KEYS - 1 - ordinal;
        let mut expected = [user * 3, user * 3 + 1, user * 3 + 2];
        expected.sort_by_key(|id| -(id * 7 % 11));
        assert_eq!(ids, expected[..2], "user {user}");
    }
}

/// A transaction sees its own rows, in order.
pub async fn a_transaction_orders_its_own_rows(harness: &dyn Harness) {
    let orders = some_orders(harness).await;
    let steps = [
        orders.step(Insert, &rows![[9, 7, "a", 1.0, 40], [10, 8, "a", 1.0, 40]]).await,
        orders.step(Delete, &rows![[8]]).await,
    ];
    let mut transaction = orders.store.begin().await.unwrap();
    for step in &steps {
        transaction.apply(step).await.unwrap();
    }
    let of_users = ids_by(&orders, &[("user", Int64)], &rows![[7], [8]]);
    let look_up = limited(ordered(of_users, &[("placed", Ascending), ("id", Descending)]), 4);
    let found = transaction.look_up(&look_up).await.unwrap();
    assert_eq!(by_ordinal(&[found]), BTreeMap::from([(0, vec![2, 5, 1, 9]), (1, vec![4, 10, 7])]));
    transaction.rollback().await.unwrap();
    assert_eq!(ids(&orders, look_up).await, [(0, vec![2, 5, 8, 1]), (1, vec![4, 7])]);
}

/// Rows that are equal in the order come in the order of the key, and a limit always leaves out the same.
pub async fn ties_are_broken_by_the_key(harness: &dyn Harness) {
    let orders = some_orders(harness).await;
    let database = Database::over(orders.store.clone());
    let by_market = |direction| LookUpBy::from("user").order_by("market", direction).limit(3);
    let ids = orders.seen_as([key("id", Int64)]).table;
    for (direction, expected) in [(Ascending, vec![1, 3, 2]), (Descending, vec![5, 8, 2])] {
        let mut found = database.look_up(&ids, by_market(direction), &[7]).await.unwrap();
        let mut batches = Vec::new();
        while let Some(batch) = found.next().await.unwrap() {
            batches.push(batch);
        }
        assert_eq!(by_ordinal(&batches), BTreeMap::from([(0, expected)]));
    }
}

/// A column that isn't there is named, with those that are, before anything is read; one without an order is refused.
pub async fn columns_that_cannot_be_are_refused(harness: &dyn Harness) {
    let orders = some_orders(harness).await;
    let database = Database::over(orders.store.clone());
    let table = &orders.table;
    for by in [LookUpBy::from("nobody"), LookUpBy::from("user").order_by("nothing", Ascending)] {
        let error = failure(database.look_up(table, by, &[1]).await);
        assert_eq!(error.kind(), ErrorKind::MissingColumn, "{error}");
        assert!(error.to_string().contains("id, user, market, price, placed"), "{error}");
    }
    let error = failure(database.look_up(table, LookUpBy::columns([] as [&str; 0]), &[1]).await);
    assert_eq!(error.kind(), ErrorKind::InvalidConfig);
}

/// A key with a value that its column can't hold finds nothing, is no error, and costs its neighbours nothing.
pub async fn keys_that_no_row_can_have_find_nothing(harness: &dyn Harness) {
    let things = table(
        "things",
        [
            key("id", Int32),
            column("number", Int64),
            column("name", Utf8),
            column("share", Float64),
            column("day", Date32),
            column("at", Timestamp(TimeUnit::Microsecond, None)),
        ],
    );
    let things = Fixture::new(harness, things, Constraints::none()).await;
    let at = |micros| Value::Timestamp { micros, utc: false };
    let row: Vec<Value> = vec![1.into(), 2.into(), "a".into(), 0.5.into(), Value::Date(3), at(4)];
    things.insert(&[row]).await;
    let cases: Vec<(Column, Rows)> = vec![
        (nullable("id", Int64), rows![[5_000_000_000i64], [-5_000_000_000i64]]),
        (nullable("number", UInt64), rows![[u64::MAX], [u64::MAX - 1]]),
        (nullable("name", Utf8), rows![["a\0"], ["\0"]]),
        (nullable("share", Float64), rows![[f64::NAN], [f64::INFINITY]]),
        (nullable("day", Date32), vec![vec![Value::Date(i32::MAX)], vec![Value::Date(i32::MIN)]]),
        (
            nullable("at", Timestamp(TimeUnit::Microsecond, None)),
            vec![vec![at(i64::MAX)], vec![at(i64::MIN)]],
        ),
    ];
    for (index, (column, mut keys)) in cases.into_iter().enumerate() {
        let good: Value = [1.into(), 2.into(), "a".into(), 0.5.into(), Value::Date(3), at(4)][index].clone();
        keys.insert(1, vec![good]);
        let look_up = LookUp::new(
            things.seen_as([key("id", Int64)]).table,
            batch(std::slice::from_ref(&column), &keys),
        );
        let inside = {
            let mut transaction = things.store.begin().await.unwrap();
            let found = transaction.look_up(&look_up).await.unwrap();
            assert!(transaction.is_open());
            transaction.rollback().await.unwrap();
            by_ordinal(&[found])
        };
        assert_eq!(inside, BTreeMap::from([(1, vec![1])]), "by {}", column.name());
        let found = ids(&things, look_up.clone()).await;
        assert_eq!(found, [(1, vec![1])], "by {}", column.name());
        let found = ids(&things, limited(ordered(look_up, &[("id", Ascending)]), 5)).await;
        assert_eq!(found, [(1, vec![1])], "by {}", column.name());
    }
}

/// A random look-up.
#[derive(Clone, Debug)]
struct Case {
    by: Vec<usize>,
    keys: Vec<[u8; 2]>,
    order: Vec<(usize, bool)>,
    limit: Option<u32>,
}

const BY: [&str; 4] = ["user", "market", "placed", "id"];
const ORDER: [&str; 5] = ["id", "user", "market", "price", "placed"];

fn case() -> impl Strategy<Value = Case> {
    let by = prop::sample::subsequence((0..BY.len()).collect::<Vec<_>>(), 1..=2);
    let keys = prop::collection::vec(prop::array::uniform2(0..7u8), 0..9);
    let columns = prop::sample::subsequence((0..ORDER.len()).collect::<Vec<_>>(), 0..=3).prop_shuffle();
    let order = columns.prop_flat_map(|columns| {
        let directions = prop::collection::vec(any::<bool>(), columns.len());
        directions.prop_map(move |directions| columns.iter().copied().zip(directions).collect())
    });
    let limit = prop_oneof![Just(None), (0..4u32).prop_map(Some), Just(Some(1_000))];
    (by, keys, order, limit).prop_map(|(by, keys, order, limit)| Case { by, keys, order, limit })
}

/// A small value of a column; every so often NULL, where that may be.
fn small(column: &str, number: u8) -> Value {
    match (column, number) {
        ("id", number) => i64::from(number).into(),
        ("market", number) => ["a", "b", "c", "d"][usize::from(number % 4)].into(),
        (_, 0) => Value::Null,
        ("price", number) => (f64::from(number) / 2.0).into(),
        (_, number) => i64::from(number).into(),
    }
}

impl Case {
    fn by(&self) -> LookUpBy {
        let mut by = LookUpBy::columns(self.by.iter().map(|&index| BY[index]));
        for &(index, descending) in &self.order {
            by = by.order_by(ORDER[index], if descending { Descending } else { Ascending });
        }
        match self.limit {
            Some(limit) => by.limit(limit),
            None => by,
        }
    }

    fn keys(&self) -> RecordBatch {
        let columns: Vec<Column> = self
            .by
            .iter()
            .map(|&index| nullable(BY[index], if BY[index] == "market" { Utf8 } else { Int64 }))
            .collect();
        let key = |numbers: &[u8; 2]| {
            self.by.iter().zip(numbers).map(|(&index, number)| small(BY[index], *number)).collect()
        };
        batch(&columns, &self.keys.iter().map(key).collect::<Rows>())
    }
}

/// Random look-ups find what a store in memory finds, in its order; with an index and without.
pub async fn random_look_ups_are_as_in_memory(harness: &dyn Harness) {
    let seed = uuid::Uuid::new_v4().as_u64_pair().0;
    let config = Config { rng_seed: RngSeed::Fixed(seed), failure_persistence: None, ..Config::default() };
    let mut runner = TestRunner::new(config);
    let numbers = prop::collection::vec(prop::array::uniform4(0..6u8), 0..80);
    let numbers = numbers.new_tree(&mut runner).unwrap().current();
    let row = |(id, numbers): (usize, &[u8; 4])| {
        let mut row = vec![Value::from(id as i64)];
        row.extend(ORDER[1..].iter().zip(numbers).map(|(column, number)| small(column, *number)));
        row
    };
    let rows: Rows = numbers.iter().enumerate().map(row).collect();
    let model = Fixture { store: std::sync::Arc::new(memory(&orders())), table: orders() };
    if !rows.is_empty() {
        model.insert(&rows).await;
    }
    let with_indexes: &[bool] = if kept(harness, Feature::Sql) { &[false, true] } else { &[false] };
    for &indexed in with_indexes {
        let orders = Fixture::new(harness, orders(), Constraints::none()).await;
        if indexed {
            add_indexes(&orders).await;
        }
        if !rows.is_empty() {
            orders.insert(&rows).await;
        }
        for _ in 0..60 {
            let case = case().new_tree(&mut runner).unwrap().current();
            let found = all_found(&orders, &case).await;
            let expected = all_found(&model, &case).await;
            assert_eq!(found, expected, "seed {seed}, indexed {indexed}: {case:?} over {rows:?}");
        }
    }
}

async fn add_indexes(orders: &Fixture) {
    let mut transaction = orders.store.begin().await.unwrap();
    for (number, columns) in ["\"user\", placed", "market, \"user\", price", "placed"].iter().enumerate() {
        let sql = format!("CREATE INDEX by_{number} ON orders ({columns})");
        transaction.execute(&sql).await.unwrap();
    }
    transaction.commit().await.unwrap();
}

fn memory(table: &Table) -> MemoryStore {
    let store = MemoryStore::new();
    store.create(MemoryTable::new(table)).unwrap();
    store
}

/// Each key's rows. Without an order, sorted; with a limit then, only their number.
async fn all_found(orders: &Fixture, case: &Case) -> BTreeMap<i64, Vec<Vec<Value>>> {
    let database = Database::over(orders.store.clone());
    let found = database.look_up(&orders.table, case.by(), &case.keys()).await.unwrap();
    let mut by_ordinal: BTreeMap<i64, Vec<Vec<Value>>> = BTreeMap::new();
    for batch in found.collect().await.unwrap() {
        for mut row in values(&batch) {
            let ordinal = row.remove(0).as_int().unwrap() as i64;
            by_ordinal.entry(ordinal).or_default().push(row);
        }
    }
    if case.order.is_empty() {
        for rows in by_ordinal.values_mut() {
            rows.sort();
            if case.limit.is_some() {
                rows.iter_mut().for_each(Vec::clear);
            }
        }
    }
    by_ordinal
}
