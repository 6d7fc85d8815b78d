//! Look-ups by the key and by other columns.

use std::sync::Arc;

use arrow::array::{Int64Array, RecordBatch, StringArray, UInt64Array};
use arrow::datatypes::{DataType, Field, Schema};
use barge_core::Direction::{Ascending, Descending};
use barge_core::{ErrorKind, LookUpBy};
use barge_testkit::{Effect, Fault, FaultPlan, FaultStore, Point};
use chrono::{NaiveDate, NaiveDateTime};

use super::*;

#[derive(Clone, Debug, PartialEq, Record, FromRow)]
#[record(table = "trades")]
struct Trade {
    #[record(key)]
    id: i32,
    user_id: i64,
    market: String,
    at: Option<NaiveDateTime>,
    tags: Vec<i64>,
}

/// A record that has not all columns: no key, and not the ones it is looked up by.
#[derive(Clone, Debug, PartialEq, Record, FromRow)]
#[record(table = "trades")]
struct Market {
    market: String,
}

fn trade(id: i32, user_id: i64, market: &str, day: Option<u32>) -> Trade {
    let at = day.map(|day| NaiveDate::from_ymd_opt(2024, 1, day).unwrap().and_hms_opt(0, 0, 0).unwrap());
    Trade { id, user_id, market: market.into(), at, tags: vec![] }
}

async fn trades() -> (MemoryStore, Database) {
    let store = MemoryStore::new();
    let db = Database::new(store.clone());
    db.create_table::<Trade>().await.unwrap();
    let rows = [
        trade(1, 7, "a", Some(3)),
        trade(2, 7, "b", Some(1)),
        trade(3, 8, "a", None),
        trade(4, 7, "a", Some(3)),
        trade(5, 8, "b", Some(2)),
    ];
    db.insert_all(&rows).await.unwrap();
    (store, db)
}

fn ids(found: &[Vec<Trade>]) -> Vec<Vec<i32>> {
    found.iter().map(|rows| rows.iter().map(|row| row.id).collect()).collect()
}

#[tokio::test]
async fn rows_are_found_by_other_columns() {
    let (_, db) = trades().await;
    let newest = LookUpBy::from("user_id").order_by("at", Descending);
    let found: Vec<Vec<Trade>> = db.get_by(&newest, &[8, 9, 7, 8]).await.unwrap();
    assert_eq!(ids(&found), [vec![3, 5], vec![], vec![4, 1, 2], vec![3, 5]]);
    let found: Vec<Vec<Trade>> = db.get_by(newest.limit(1), &[8, 9, 7]).await.unwrap();
    assert_eq!(ids(&found), [vec![3], vec![], vec![4]]);
    let by_both = LookUpBy::columns(["market", "user_id"]).order_by("id", Ascending);
    let found = db.get_by::<Trade, _>(by_both, &[("a", 7), ("b", 9), ("a", 8)]).await.unwrap();
    assert_eq!(ids(&found), [vec![1, 4], vec![], vec![3]]);
    let mut found: Vec<Vec<Market>> = db.get_by(["user_id"], &[7]).await.unwrap();
    found[0].sort_by(|one, other| one.market.cmp(&other.market));
    let market = |name: &str| Market { market: name.into() };
    assert_eq!(found, [[market("a"), market("a"), market("b")]]);
    assert!(db.get_by::<Trade, i64>("user_id", &[]).await.unwrap().is_empty());

    let mut tx = db.begin().await.unwrap();
    tx.insert_all(&[trade(6, 9, "c", None)]).await.unwrap();
    assert_eq!(ids(&tx.get_by("user_id", &[9, 10]).await.unwrap()), [vec![6], vec![]]);
    let batch = tx.look_up(Trade::table(), "user_id", &[9]).await.unwrap();
    assert_eq!(Trade::from_batch(&batch).unwrap(), [trade(6, 9, "c", None)]);
    tx.commit().await.unwrap();
}

#[tokio::test]
async fn a_look_up_that_cannot_be_is_refused_before_it_is_sent() {
    let (store, _) = trades().await;
    // Nothing can be read: what is refused was not sent.
    let lost = Fault { point: Point::Read, nth: 1, effect: Effect::Fail(ErrorKind::ConnectionLost) };
    let db = Database::new(FaultStore::new(Arc::new(store), FaultPlan::new([lost])));
    let get = async |by: LookUpBy| db.get_by::<Trade, _>(by, &[1]).await.unwrap_err();
    let error = get(LookUpBy::from("user")).await;
    assert_eq!((error.kind(), error.column()), (ErrorKind::MissingColumn, Some("user")));
    assert!(error.to_string().contains("it has id, user_id, market, at, tags"), "{error}");
    assert_eq!(get(LookUpBy::from("id").order_by("date", Ascending)).await.column(), Some("date"));
    let error = get(LookUpBy::from("id").order_by("tags", Ascending)).await;
    assert_eq!((error.kind(), error.column()), (ErrorKind::InvalidConfig, Some("tags")));
    assert_eq!(get(LookUpBy::columns(["id", "id"])).await.kind(), ErrorKind::InvalidConfig);
    assert_eq!(get(LookUpBy::columns([""; 0])).await.kind(), ErrorKind::InvalidConfig);
    let error = get(LookUpBy::columns(["id", "user_id"])).await;
    assert!(error.to_string().contains("2 columns, but 1 values"), "{error}");
    assert_eq!(get(LookUpBy::from("market")).await.kind(), ErrorKind::InvalidConfig, "another type");
    assert_eq!(get(LookUpBy::from("id")).await.kind(), ErrorKind::ConnectionLost);
}

/// A key that no row can have is not there; its neighbours are found.
#[tokio::test]
async fn keys_that_no_row_can_have_are_not_found() {
    let (_, db) = trades().await;
    let found = db.get_all::<Trade, _>(&[1, 5_000_000_000_i64, 2]).await.unwrap();
    let found: Vec<Option<i32>> = found.iter().map(|row| row.as_ref().map(|row| row.id)).collect();
    assert_eq!(found, [Some(1), None, Some(2)]);
    let found = db.get_by::<Trade, _>("user_id", &[u64::MAX, 8]).await.unwrap();
    assert_eq!((found[0].len(), found[1].len()), (0, 2));
    let found = db.get_by::<Trade, _>("user_id", &[None, Some(8)]).await.unwrap();
    assert_eq!((found[0].len(), found[1].len()), (0, 2));
    let far = NaiveDateTime::MAX;
    let found = db.get_by::<Trade, _>("at", &[far, trade(0, 0, "", Some(3)).at.unwrap()]).await.unwrap();
    assert_eq!((found[0].len(), found[1].len()), (0, 2));
}

#[tokio::test]
async fn keys_come_as_a_record_batch_too() {
    let (_, db) = trades().await;
    let fields =
        vec![Field::new("Market", DataType::Utf8, true), Field::new("user_id", DataType::UInt64, true)];
    let columns: Vec<arrow::array::ArrayRef> = vec![
        Arc::new(StringArray::from(vec![Some("a"), None, Some("a")])),
        Arc::new(UInt64Array::from(vec![7, 7, 7])),
    ];
    let keys = RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap();
    let by = LookUpBy::columns(["user_id", "market"]).order_by("id", Descending);
    let found = db.look_up(Trade::table(), by, &keys).await.unwrap().into_batch().await.unwrap();
    let ordinals = found.column_by_name("_ordinal").unwrap();
    assert_eq!(ordinals.as_any().downcast_ref::<Int64Array>().unwrap().values(), &[0, 0, 2, 2]);
    let found: Vec<i32> = Trade::from_batch(&found).unwrap().iter().map(|row| row.id).collect();
    assert_eq!(found, [4, 1, 4, 1]);
    let error = db.look_up(Trade::table(), "at", &keys).await.unwrap_err();
    assert_eq!((error.kind(), error.column()), (ErrorKind::MissingColumn, Some("at")));
    assert!(error.to_string().contains("they have Market, user_id"), "{error}");
}

/// What is remembered of a table doesn't outlive it.
#[tokio::test]
async fn a_table_that_changed_is_described_anew() {
    let (store, db) = database().await;
    assert_eq!(db.get_by::<Task, _>("name", &["x"]).await.unwrap(), [vec![]]);
    store.drop_table("tasks");
    store.create(MemoryTable::new(&with_owner())).unwrap();
    let error = db.get_by::<Task, _>("nobody", &[1]).await.unwrap_err();
    assert!(error.to_string().contains("id, name, owner"), "{error}");
    assert_eq!(db.get_by::<Task, _>("owner", &[1]).await.unwrap(), [vec![]]);
}

fn with_owner() -> barge_core::Table {
    let fields = ["id", "name", "owner"].map(|name| {
        Field::new(name, if name == "name" { DataType::Utf8 } else { DataType::Int64 }, name == "owner")
    });
    barge_core::Table::of_schema("tasks", &Schema::new(fields.to_vec()), &["id"]).unwrap()
}
