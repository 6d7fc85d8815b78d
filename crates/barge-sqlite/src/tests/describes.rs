//! Descriptions of what SQLite alone has.

use arrow::datatypes::DataType;
use barge_core::store::{Action, KeyEquality, TableKind};
use barge_core::{ErrorKind, Store, TableName};

use super::support::*;
use crate::SqliteOptions;

#[tokio::test]
async fn a_table_is_described_with_all_that_decides_its_writes() {
    let store = memory(&[
        "CREATE TABLE parents(a INTEGER, b TEXT COLLATE NOCASE, PRIMARY KEY (b, a)) WITHOUT ROWID",
        "CREATE TABLE t(
           id INTEGER PRIMARY KEY AUTOINCREMENT,
           code TEXT NOT NULL COLLATE NOCASE UNIQUE,
           amount DECIMAL(20, 4) DEFAULT 1.5,
           pa INTEGER, pb TEXT,
           twice INTEGER AS (amount * 2) STORED,
           boss INTEGER REFERENCES t ON DELETE CASCADE,
           FOREIGN KEY (pb, pa) REFERENCES parents ON UPDATE SET NULL)",
        "CREATE UNIQUE INDEX some ON t(pa) WHERE pb IS NOT NULL",
        "CREATE UNIQUE INDEX expression ON t(lower(pb), pa)",
        "CREATE UNIQUE INDEX other_collation ON t(pb COLLATE NOCASE)",
        "CREATE TRIGGER tr AFTER INSERT ON t BEGIN SELECT 1; END",
    ])
    .await;
    let t = store.describe(&"T".into()).await.unwrap();
    assert_eq!((t.kind, t.key.as_slice()), (TableKind::Table, ["id".to_owned()].as_slice()));
    let id = t.column("id").unwrap();
    assert!(id.identity && !id.nullable && t.is_unique(&["id"]));
    let code = t.column("code").unwrap();
    assert_eq!((code.equality, code.collation.as_deref()), (KeyEquality::Database, Some("NOCASE")));
    assert!(!code.nullable && t.is_unique(&["code"]));
    let amount = t.column("amount").unwrap();
    assert_eq!((&amount.data_type, amount.default.as_deref()), (&DataType::Decimal128(20, 4), Some("1.5")));
    assert!(t.column("twice").unwrap().computed);
    assert!(!t.is_unique(&["pa"]) && !t.is_unique(&["pb"]) && !t.is_unique(&["pb", "pa"]));
    let parents = t.foreign_keys.iter().find(|key| key.columns == ["pb", "pa"]).unwrap();
    assert_eq!(parents.parent_columns, ["b", "a"]);
    assert_eq!((parents.on_update, parents.on_delete), (Action::Set, Action::Refuse));
    assert_eq!(t.referenced_by.len(), 1);
    assert_eq!((t.referenced_by[0].on_delete, &t.referenced_by[0].columns), (Action::Cascade, &t.key));
    assert_eq!(t.triggers, ["tr"]);

    let parents = store.describe(&"parents".into()).await.unwrap();
    assert_eq!(parents.key, ["b", "a"]);
    assert!(parents.is_unique(&["a", "b"]));
    assert!(parents.columns.iter().all(|column| !column.nullable && !column.identity));
    assert_eq!(parents.referenced_by[0].child, "t".into());
}

#[tokio::test]
async fn only_a_row_id_is_an_identity() {
    let store = memory(&[
        "CREATE TABLE a(id INT PRIMARY KEY)",
        "CREATE TABLE b(id INTEGER PRIMARY KEY DESC)",
        "CREATE TABLE c(id INTEGER PRIMARY KEY) WITHOUT ROWID",
        "CREATE TABLE d(id integer, PRIMARY KEY (id DESC))",
    ])
    .await;
    for (table, identity) in [("a", false), ("b", false), ("c", false), ("d", true)] {
        let described = store.describe(&table.into()).await.unwrap();
        assert_eq!(described.column("id").unwrap().identity, identity, "{table}");
        assert!(described.is_unique(&["id"]), "{table}");
    }
}

#[tokio::test]
async fn views_virtual_tables_and_attached_databases_are_told_apart() {
    let directory = tempfile::tempdir().unwrap();
    let store =
        SqliteOptions::memory().attach("other \"one\"", directory.path().join("b.db")).open().await.unwrap();
    run(
        &store,
        &[
            "CREATE TABLE t(id INTEGER PRIMARY KEY, x)",
            "CREATE VIEW v AS SELECT id FROM t",
            "CREATE VIRTUAL TABLE f USING fts5(x)",
            "CREATE TABLE \"other \"\"one\"\"\".t(a TEXT PRIMARY KEY)",
        ],
    )
    .await;
    let other = TableName::in_schema("other \"one\"", "t");
    let tables = store.tables().await.unwrap();
    assert_eq!(tables, ["f".into(), "t".into(), "v".into(), other.clone()]);
    assert_eq!(store.describe(&"v".into()).await.unwrap().kind, TableKind::View);
    assert_eq!(store.describe(&"f".into()).await.unwrap().kind, TableKind::Foreign);
    assert_eq!(store.describe(&"t".into()).await.unwrap().key, ["id"]);
    assert_eq!(store.describe(&other).await.unwrap().key, ["a"]);
    assert_eq!(store.describe(&"none".into()).await.unwrap_err().kind(), ErrorKind::MissingTable);
}

/// What SQLite holds as text, it says as which: so a file loaded twice is read the same both times.
#[tokio::test]
async fn a_created_table_keeps_the_types_of_its_texts() {
    use arrow::datatypes::{Field, Schema, TimeUnit};
    let types = [
        DataType::Date32,
        DataType::Time64(TimeUnit::Microsecond),
        DataType::Timestamp(TimeUnit::Microsecond, None),
        DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        DataType::Decimal128(20, 4),
        DataType::Utf8,
    ];
    let fields = types
        .iter()
        .enumerate()
        .map(|(index, data_type)| Field::new(format!("c{index}"), data_type.clone(), true));
    let table = barge_core::Table::of_schema("t", &Schema::new(fields.collect::<Vec<_>>()), &[]).unwrap();
    let store = memory(&[]).await;
    run(&store, &[&store.create_table_sql(&table).unwrap()]).await;
    let described = store.describe(&"t".into()).await.unwrap();
    for (index, data_type) in types.iter().enumerate() {
        let column = described.column(&format!("c{index}")).unwrap();
        assert_eq!(&column.data_type, data_type);
        assert_eq!(crate::affinity::Affinity::of(&column.declared_type), crate::affinity::Affinity::Text);
    }
}
