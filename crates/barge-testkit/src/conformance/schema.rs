//! Descriptions of tables, creating them, and names of every sort.

use arrow::datatypes::DataType::{Float64, Int64, Utf8};
use barge_core::store::{Action, KeyEquality, Outcome, TableKind};
use barge_core::{Operation, TableName};

use super::fixture::*;
use super::{Constraints, Feature, Harness};
use crate::Value;
use Operation::*;
use Outcome::{Deleted, Inserted, Unchanged, Updated};

/// A description tells columns, NULLs, defaults, the key and unique keys.
pub async fn a_description_tells_columns_and_keys(harness: &dyn Harness) {
    let users = table(
        "users",
        [key("id", Int64), column("mail", Utf8), nullable("age", Int64), nullable("score", Float64)],
    );
    let constraints = Constraints::none().unique(&["mail", "age"]).default_value("age", 7);
    let users = Fixture::new(harness, users, constraints).await;
    let description = users.store.describe(users.table.name()).await.unwrap();
    assert_eq!((description.name.name(), description.kind), ("users", TableKind::Table));
    assert_eq!(description.key, ["id"]);
    let columns: Vec<_> = description
        .columns
        .iter()
        .map(|column| {
            (column.name.as_str(), column.data_type.clone(), column.nullable, column.default.is_some())
        })
        .collect();
    let expected = [
        ("id", Int64, false, false),
        ("mail", Utf8, false, false),
        ("age", Int64, true, true),
        ("score", Float64, true, false),
    ];
    assert_eq!(columns, expected);
    assert!(description.columns.iter().all(|column| !column.computed));
    // To some databases 0.0 and −0.0 are one key.
    let exact = description.columns.iter().filter(|column| column.data_type != Float64);
    assert!(
        exact.clone().count() == 3 && exact.into_iter().all(|column| column.equality == KeyEquality::Exact)
    );
    assert!(description.is_unique(&["id"]) && description.is_unique(&["age", "mail"]));
    assert!(!description.is_unique(&["mail"]) && !description.is_unique(&["id", "mail"]));
    assert!(description.triggers.is_empty() && description.foreign_keys.is_empty());
}

/// The key's columns come in the key's order.
pub async fn a_description_tells_composite_keys(harness: &dyn Harness) {
    let prices = table("prices", [nullable("close", Float64), key("symbol", Utf8), key("day", Int64)]);
    let prices = Fixture::new(harness, prices, Constraints::none()).await;
    let description = prices.store.describe(prices.table.name()).await.unwrap();
    assert_eq!(description.key, ["symbol", "day"]);
    assert!(description.is_unique(&["day", "symbol"]) && !description.is_unique(&["symbol"]));
}

/// Foreign keys are told by the child, and by the parent as references, its own among them.
pub async fn a_description_tells_foreign_keys(harness: &dyn Harness) {
    if !kept(harness, Feature::ForeignKeys) {
        return;
    }
    let teams = table("teams", [key("id", Int64), nullable("upper", Int64)]);
    let constraints = Constraints::none().foreign_key(&["upper"], "teams", &["id"]);
    let teams = Fixture::new(harness, teams, constraints).await;
    let members = table("members", [key("id", Int64), nullable("team", Int64)]);
    let action = if kept(harness, Feature::ForeignKeyActions) { Action::Cascade } else { Action::Refuse };
    let constraints = Constraints::none().foreign_key_on_delete(&["team"], "teams", &["id"], action);
    let members = teams.and(harness, members, constraints).await;
    let child = members.store.describe(members.table.name()).await.unwrap();
    assert_eq!(child.foreign_keys.len(), 1);
    let foreign_key = &child.foreign_keys[0];
    assert_eq!((&foreign_key.columns[..], foreign_key.parent.name()), (&["team".to_owned()][..], "teams"));
    assert_eq!((&foreign_key.parent_columns[..], foreign_key.on_delete), (&["id".to_owned()][..], action));
    assert!(child.referenced_by.is_empty());
    let parent = teams.store.describe(teams.table.name()).await.unwrap();
    let mut children: Vec<(&str, Action)> =
        parent.referenced_by.iter().map(|reference| (reference.child.name(), reference.on_delete)).collect();
    children.sort_by_key(|(name, _)| *name);
    assert_eq!(children, [("members", action), ("teams", Action::Refuse)]);
    assert!(parent.referenced_by.iter().all(|reference| reference.columns == ["id"]));
}

/// Keys that compare without regard to case, triggers and drawn keys are told.
pub async fn a_description_tells_what_is_special(harness: &dyn Harness) {
    let words = table("words", [key("word", Utf8), nullable("n", Int64)]);
    if kept(harness, Feature::IgnoreCase) {
        let words = Fixture::new(harness, words.clone(), Constraints::none().ignore_case("word")).await;
        let description = words.store.describe(words.table.name()).await.unwrap();
        assert_eq!(description.columns[0].equality, KeyEquality::Database);
        assert_eq!(description.columns[1].equality, KeyEquality::Exact);
    }
    if kept(harness, Feature::Triggers) {
        let words = Fixture::new(harness, words, Constraints::none().keep_out_below("n", 0)).await;
        let description = words.store.describe(words.table.name()).await.unwrap();
        assert!(!description.triggers.is_empty());
    }
    if kept(harness, Feature::GeneratedKeys) {
        let notes = table("notes", [generated("id"), column("text", Utf8)]);
        let notes = Fixture::new(harness, notes, Constraints::none()).await;
        let description = notes.store.describe(notes.table.name()).await.unwrap();
        assert!(description.columns[0].identity && !description.columns[1].identity);
        assert_eq!(description.key, ["id"]);
    }
}

/// The tables come sorted by name, without the store's own.
pub async fn tables_are_listed(harness: &dyn Harness) {
    let zebra = Fixture::new(harness, table("zebra", [key("id", Int64)]), Constraints::none()).await;
    assert_eq!(zebra.store.tables().await.unwrap(), ["zebra".into()]);
    zebra.and(harness, table("ant", [key("id", Int64)]), Constraints::none()).await;
    zebra.and(harness, table("Über 'x\"", [key("id", Int64)]), Constraints::none()).await;
    let mut expected: Vec<TableName> = vec!["zebra".into(), "ant".into(), "Über 'x\"".into()];
    expected.sort();
    assert_eq!(zebra.store.tables().await.unwrap(), expected);
}

/// The store's own way to create a table for a record: it holds the record's rows, and running it twice does no harm.
pub async fn create_table_makes_a_table(harness: &dyn Harness) {
    let people = Fixture { store: harness.store().await, table: people() };
    let sql = people.store.create_table_sql(&people.table).unwrap();
    for round in 0..2 {
        let mut transaction = people.store.begin().await.unwrap();
        transaction.execute(&sql).await.unwrap();
        transaction.commit().await.unwrap();
        let row = vec![Value::from(round), "n".into(), Value::Null];
        assert_eq!(people.outcomes(Insert, &[row]).await, (vec![Inserted], 1));
    }
    people.assert_rows(&rows![[0, "n", NULL], [1, "n", NULL]]).await;
    let description = people.store.describe(people.table.name()).await.unwrap();
    let nullable: Vec<bool> = description.columns.iter().map(|column| column.nullable).collect();
    assert_eq!((description.key, nullable), (vec!["id".to_owned()], vec![false, false, true]));
    // Created in a transaction that is rolled back, a table isn't there.
    let other = Fixture { store: people.store.clone(), table: table("other", [key("id", Int64)]) };
    let sql = people.store.create_table_sql(&other.table).unwrap();
    let mut transaction = people.store.begin().await.unwrap();
    transaction.execute(&sql).await.unwrap();
    transaction.rollback().await.unwrap();
    assert_eq!(people.store.tables().await.unwrap(), ["people".into()]);
}

/// Names that would break SQL that doesn't quote them.
const NAMES: [&str; 13] = [
    "select",
    "Order",
    "two words",
    "quote\"d",
    "apostroph'e",
    "semi;colon",
    "täglich 日本 🚢",
    "x\"); DROP TABLE \"victim\"; --",
    "dot.ted",
    "{batch}",
    "?1",
    "$1",
    "_ordinal_",
];

/// Every operation works whatever tables and columns are called, and no name or value is run as SQL.
pub async fn names_and_values_are_never_run(harness: &dyn Harness) {
    let victim = Fixture::new(harness, table("victim", [key("id", Int64)]), Constraints::none()).await;
    victim.insert(&rows![[1]]).await;
    for name in NAMES {
        let (first, second) = (format!("{name} 1"), format!("{name} 2"));
        let odd = table(name, [key(name, Utf8), nullable(&first, Int64), nullable(&second, Utf8)]);
        let odd = victim.and(harness, odd, Constraints::none().unique(&[&first])).await;
        assert_eq!(
            odd.outcomes(Insert, &rows![[name, 1, name], ["b", 2, NULL]]).await,
            (vec![Inserted; 2], 2),
            "{name}"
        );
        assert_eq!(
            odd.outcomes(Upsert, &rows![["c", 3, name], ["b", 20, name]]).await,
            (vec![Inserted, Updated], 2),
            "{name}"
        );
        assert_eq!(
            odd.outcomes(InsertIfAbsent, &rows![[name, 9, NULL]]).await,
            (vec![Unchanged], 0),
            "{name}"
        );
        assert_eq!(odd.outcomes(Update, &rows![[name, 10, NULL]]).await, (vec![Updated], 1), "{name}");
        assert_eq!(odd.outcomes(Delete, &rows![["c"]]).await, (vec![Deleted], 1), "{name}");
        let applied = odd.apply_rows(Insert, &rows![["d", 20, NULL], ["e", 5, name]]).await;
        assert_eq!(words(&applied.outcomes), ["UniqueViolation", "Inserted"], "{name}");
        let found = odd.get(&rows![[name], ["b"], ["c"], ["e"]]).await;
        let [one, two, four] = rows![[name, 10, NULL], ["b", 20, name], ["e", 5, name]].try_into().unwrap();
        assert_eq!(found, [Some(one), Some(two), None, Some(four)], "{name}");
        let description = odd.store.describe(odd.table.name()).await.unwrap();
        assert_eq!(
            (description.columns[1].name.as_str(), &description.key[..]),
            (first.as_str(), &[name.to_owned()][..])
        );
    }
    victim.assert_rows(&rows![[1]]).await;
    assert_eq!(victim.store.tables().await.unwrap().len(), NAMES.len() + 1);
}

/// The store's own way to create a table takes any name too.
pub async fn create_table_takes_any_name(harness: &dyn Harness) {
    let store = harness.store().await;
    for name in NAMES {
        let odd = table(name, [key(name, Int64), nullable(&format!("{name} 2"), Utf8)]);
        let odd = Fixture { store: store.clone(), table: odd };
        let mut transaction = store.begin().await.unwrap();
        transaction.execute(&store.create_table_sql(&odd.table).unwrap()).await.unwrap();
        transaction.commit().await.unwrap();
        odd.insert(&rows![[1, name]]).await;
        odd.assert_rows(&rows![[1, name]]).await;
    }
}

/// A user's column may be called `ordinal`, or like anything the store itself uses beside `_ordinal`.
pub async fn columns_may_be_called_like_the_stores_own(harness: &dyn Harness) {
    let odd = table(
        "b",
        [
            key("ordinal", Int64),
            nullable("b", Utf8),
            nullable("c0", Int64),
            nullable("rowid", Int64),
            nullable("t", Int64),
            nullable("excluded", Int64),
        ],
    );
    let odd = Fixture::new(harness, odd, Constraints::none()).await;
    odd.insert(&rows![[1, "x", 1, 2, 3, 4], [2, "y", 5, 6, 7, 8]]).await;
    assert_eq!(
        odd.outcomes(Upsert, &rows![[2, "z", 50, 60, 70, 80], [3, "n", 9, 9, 9, 9]]).await,
        (vec![Updated, Inserted], 2)
    );
    assert_eq!(odd.outcomes(Update, &rows![[1, "u", 10, 20, 30, 40]]).await, (vec![Updated], 1));
    assert_eq!(odd.outcomes(Delete, &rows![[3]]).await, (vec![Deleted], 1));
    odd.assert_rows(&rows![[1, "u", 10, 20, 30, 40], [2, "z", 50, 60, 70, 80]]).await;
}
