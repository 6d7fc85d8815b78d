//! Keys drawn by the database, unique keys, foreign keys, triggers.

use std::collections::BTreeSet;

use arrow::array::Int64Array;
use arrow::datatypes::DataType::{Int64, Utf8};
use barge_core::store::{Action, Outcome, Target};
use barge_core::{ErrorKind, Operation};

use super::fixture::*;
use super::{Constraints, Feature, Harness, Support};
use crate::Value;
use Operation::*;
use Outcome::{Deleted, Inserted, NotFound, Unchanged, Updated};

/// `notes(id generated, text NOT NULL UNIQUE)`.
async fn notes(harness: &dyn Harness) -> Fixture {
    let notes = table("notes", [generated("id"), column("text", Utf8)]);
    Fixture::new(harness, notes, Constraints::none().unique(&["text"])).await
}

fn ids(generated: Option<Int64Array>) -> Vec<Option<i64>> {
    generated.expect("drawn keys were asked for").iter().collect()
}

/// A store that draws no keys says so before it writes anything.
pub async fn generated_keys_are_drawn_or_refused(harness: &dyn Harness) {
    if harness.supports(Feature::GeneratedKeys) != Support::Refused {
        let store = harness.store().await;
        assert_eq!(store.capabilities().generated_keys, kept(harness, Feature::GeneratedKeys));
        return;
    }
    let plain = table("notes", [key("id", Int64), column("text", Utf8)]);
    let plain = Fixture::new(harness, plain, Constraints::none()).await;
    assert!(!plain.store.capabilities().generated_keys);
    let notes = plain.seen_as([generated("id"), column("text", Utf8)]);
    let description = plain.store.describe(plain.table.name()).await.unwrap();
    if let Ok(target) = Target::new(&notes.table, Insert, description.into()) {
        let batch = target.project(&batch(notes.table.columns(), &rows![[NULL, "a"]])).unwrap();
        let step = barge_core::store::Step { target: target.into(), batch, outcomes: true };
        assert_eq!(failure(notes.transact(&[step]).await).kind(), ErrorKind::Unsupported);
    }
    plain.assert_rows(&[]).await;
}

/// Every row gets back the key that was drawn for it.
pub async fn drawn_keys_go_to_their_rows(harness: &dyn Harness) {
    if !kept(harness, Feature::GeneratedKeys) {
        return;
    }
    let notes = notes(harness).await;
    let mut seen = BTreeSet::new();
    for round in 0..3 {
        let rows: Rows = (0..500).rev().map(|n| vec![Value::Null, format!("{round} {n}").into()]).collect();
        let applied = notes.insert(&rows).await;
        assert_eq!((applied.affected, applied.outcomes), (500, Some(vec![Inserted; 500])));
        let ids = ids(applied.generated);
        let keys: Rows = ids.iter().map(|&id| vec![id.into()]).collect();
        for (row, found) in rows.iter().zip(notes.get(&keys).await) {
            assert_eq!(found.expect("a drawn key finds its row")[1], row[1]);
        }
        seen.extend(ids);
    }
    assert_eq!(seen.len(), 1_500);
    assert!(!seen.contains(&None));
}

/// Rows that give their key keep it, among rows whose key is drawn; later keys don't meet it.
pub async fn given_and_drawn_keys_mix(harness: &dyn Harness) {
    if !kept(harness, Feature::GeneratedKeys) {
        return;
    }
    let notes = notes(harness).await;
    let rows = rows![[NULL, "a"], [1_000, "b"], [NULL, "c"], [7, "d"], [NULL, "e"]];
    let given = ids(notes.insert(&rows).await.generated);
    assert_eq!((given[1], given[3]), (Some(1_000), Some(7)));
    let more = ids(notes.insert(&rows![[NULL, "f"], [NULL, "g"]]).await.generated);
    let all: BTreeSet<Option<i64>> = given.iter().chain(&more).copied().collect();
    assert_eq!(all.len(), 7, "{given:?} {more:?}");
    let keys: Rows = given.iter().chain(&more).map(|&id| vec![id.into()]).collect();
    let texts: Vec<Value> =
        notes.get(&keys).await.into_iter().map(|row| row.expect("a key finds its row")[1].clone()).collect();
    let expected: Vec<Value> = ["a", "b", "c", "d", "e", "f", "g"].map(Value::from).to_vec();
    assert_eq!(texts, expected);
}

/// Keys are drawn also where nobody asks for them, and a record may leave the key out altogether.
pub async fn keys_are_drawn_without_outcomes(harness: &dyn Harness) {
    if !kept(harness, Feature::GeneratedKeys) {
        return;
    }
    let notes = notes(harness).await;
    let step = notes.silent(Insert, &rows![[NULL, "a"], [NULL, "b"]]).await;
    let applied = notes.transact(&[step]).await.unwrap().remove(0);
    assert_eq!((applied.affected, applied.generated), (2, None));
    notes.seen_as([column("text", Utf8)]).insert(&rows![["c"], ["d"]]).await;
    let by_text = notes.seen_as([nullable("id", Int64), key("text", Utf8)]);
    let found = by_text.get(&rows![["a"], ["b"], ["c"], ["d"]]).await;
    let ids: BTreeSet<Value> =
        found.into_iter().map(|row| row.expect("the row is there")[0].clone()).collect();
    assert_eq!(ids.len(), 4);
    assert!(!ids.contains(&Value::Null));
}

/// A row with a drawn key that fails has no key; its neighbours have theirs.
pub async fn rejected_rows_draw_no_key(harness: &dyn Harness) {
    if !kept(harness, Feature::GeneratedKeys) {
        return;
    }
    let notes = notes(harness).await;
    let applied =
        notes.apply_rows(Insert, &rows![[NULL, "a"], [NULL, "a"], [NULL, "b"], [5, "b"], [9, "c"]]).await;
    assert_eq!(
        words(&applied.outcomes),
        ["Inserted", "UniqueViolation", "Inserted", "UniqueViolation", "Inserted"]
    );
    let ids = ids(applied.generated);
    assert_eq!((ids[1], ids[3], ids[4]), (None, None, Some(9)));
    let keys = vec![vec![Value::from(ids[0])], vec![Value::from(ids[2])]];
    let texts: Vec<Value> = notes
        .get(&keys)
        .await
        .into_iter()
        .map(|row| row.expect("a drawn key finds its row")[1].clone())
        .collect();
    assert_eq!(texts, ["a", "b"].map(Value::from));
}

/// Drawn keys find their rows for the other operations too.
pub async fn drawn_keys_are_keys(harness: &dyn Harness) {
    if !kept(harness, Feature::GeneratedKeys) {
        return;
    }
    let notes = notes(harness).await;
    let ids = ids(notes.insert(&rows![[NULL, "a"], [NULL, "b"]]).await.generated);
    assert_eq!(notes.outcomes(Update, &rows![[ids[0], "x"]]).await, (vec![Updated], 1));
    assert_eq!(notes.outcomes(Upsert, &rows![[ids[1], "y"], [500, "z"]]).await, (vec![Updated, Inserted], 2));
    assert_eq!(notes.outcomes(Delete, &rows![[ids[0]], [501]]).await, (vec![Deleted, NotFound], 1));
    notes.assert_rows(&rows![[ids[1], "y"], [500, "z"]]).await;
    let error = failure(notes.transact(&[notes.step(Insert, &rows![[500, "w"]]).await]).await);
    assert_eq!(error.kind(), ErrorKind::UniqueViolation);
}

/// NULL differs from everything in a unique key, from another NULL too.
pub async fn nulls_are_distinct_in_unique_keys(harness: &dyn Harness) {
    let users = table("users", [key("id", Int64), nullable("mail", Utf8), nullable("phone", Int64)]);
    let users = Fixture::new(harness, users, Constraints::none().unique(&["mail", "phone"])).await;
    let rows =
        rows![[1, NULL, NULL], [2, NULL, NULL], [3, "a", NULL], [4, "a", NULL], [5, "a", 1], [6, NULL, 1]];
    assert_eq!(users.outcomes(Insert, &rows).await, (vec![Inserted; 6], 6));
    let error = failure(users.transact(&[users.step(Insert, &rows![[7, "a", 1]]).await]).await);
    assert_eq!(error.kind(), ErrorKind::UniqueViolation);
    users.assert_rows(&rows).await;
}

/// Rows of one batch that break a unique key among themselves fail as a step, and the later ones row by row.
pub async fn duplicates_within_a_batch_fail(harness: &dyn Harness) {
    let people = Fixture::people(harness).await;
    let rows = rows![[1, "a", 1], [2, "b", 2], [1, "c", 3]];
    let error = failure(people.transact(&[people.step(Insert, &rows).await]).await);
    assert_eq!(error.kind(), ErrorKind::UniqueViolation);
    people.assert_rows(&[]).await;
    let applied = people.apply_rows(Insert, &rows).await;
    assert_eq!(words(&applied.outcomes), ["Inserted", "Inserted", "UniqueViolation"]);
}

/// `teams(id)` and `members(id, team → teams)`.
async fn teams_and_members(harness: &dyn Harness, on_delete: Action) -> (Fixture, Fixture) {
    let teams = table("teams", [key("id", Int64), nullable("name", Utf8)]);
    let teams = Fixture::new(harness, teams, Constraints::none()).await;
    let members = table("members", [key("id", Int64), nullable("team", Int64)]);
    let constraints = Constraints::none().foreign_key_on_delete(&["team"], "teams", &["id"], on_delete);
    let members = teams.and(harness, members, constraints).await;
    (teams, members)
}

/// A child needs its parent, in the database or in a step before it; NULL needs none.
pub async fn children_need_their_parents(harness: &dyn Harness) {
    if !kept(harness, Feature::ForeignKeys) {
        return;
    }
    let (teams, members) = teams_and_members(harness, Action::Refuse).await;
    assert!(teams.store.capabilities().foreign_keys);
    let error = failure(members.transact(&[members.step(Insert, &rows![[1, NULL], [2, 7]]).await]).await);
    assert_eq!(error.kind(), ErrorKind::ForeignKeyViolation, "{error:?}");
    members.assert_rows(&[]).await;
    let steps =
        [teams.step(Insert, &rows![[7, "t"]]).await, members.step(Insert, &rows![[1, NULL], [2, 7]]).await];
    teams.transact(&steps).await.unwrap();
    let error = failure(members.transact(&[members.step(Update, &rows![[1, 8]]).await]).await);
    assert_eq!(error.kind(), ErrorKind::ForeignKeyViolation, "{error:?}");
    let applied = members.apply_rows(Upsert, &rows![[3, 7], [4, 9], [1, 7]]).await;
    assert_eq!(words(&applied.outcomes), ["Inserted", "ForeignKeyViolation", "Updated"]);
    members.assert_rows(&rows![[1, 7], [2, 7], [3, 7]]).await;
}

/// A parent with children stays, unless they go before it.
pub async fn parents_with_children_stay(harness: &dyn Harness) {
    if !kept(harness, Feature::ForeignKeys) {
        return;
    }
    let (teams, members) = teams_and_members(harness, Action::Refuse).await;
    teams.insert(&rows![[1, "a"], [2, "b"], [3, "c"]]).await;
    members.insert(&rows![[1, 1], [2, 2]]).await;
    let error = failure(teams.transact(&[teams.step(Delete, &rows![[3], [1]]).await]).await);
    assert_eq!(error.kind(), ErrorKind::ForeignKeyViolation, "{error:?}");
    teams.assert_rows(&rows![[1, "a"], [2, "b"], [3, "c"]]).await;
    let applied = teams.apply_rows(Delete, &rows![[3], [1], [4]]).await;
    assert_eq!(words(&applied.outcomes), ["Deleted", "ForeignKeyViolation", "NotFound"]);
    let steps = [members.step(Delete, &rows![[1]]).await, teams.step(Delete, &rows![[1]]).await];
    if kept(harness, Feature::ForeignKeysInTransactions) {
        teams.transact(&steps).await.unwrap();
    } else {
        let error = failure(teams.transact(&steps).await);
        assert_eq!((error.kind(), error.row()), (ErrorKind::Unsupported, Some(0)), "{error:?}");
        members.assert_rows(&rows![[1, 1], [2, 2]]).await;
        // In a transaction that goes on, the row alone is left out.
        let mut transaction = teams.store.begin().await.unwrap();
        transaction.apply(&steps[0]).await.unwrap();
        let step = teams.step(Delete, &rows![[1], [7]]).await;
        let applied = transaction.apply_rows(&step).await.unwrap();
        assert_eq!(words(&applied.outcomes), ["Unsupported", "NotFound"]);
        transaction.commit().await.unwrap();
        teams.assert_rows(&rows![[1, "a"], [2, "b"]]).await;
        teams.transact(&steps[1..]).await.unwrap();
    }
    teams.assert_rows(&rows![[2, "b"]]).await;
    members.assert_rows(&rows![[2, 2]]).await;
    // An upsert of a parent is no delete.
    assert_eq!(teams.outcomes(Upsert, &rows![[2, "new"]]).await, (vec![Updated], 1));
}

/// Children go with their parent, or lose it, where the foreign key says so. Only the parent is counted.
pub async fn foreign_keys_cascade_and_set_null(harness: &dyn Harness) {
    if !kept(harness, Feature::ForeignKeyActions) {
        return;
    }
    for (action, left) in
        [(Action::Cascade, rows![[3, 2]]), (Action::Set, rows![[1, NULL], [2, NULL], [3, 2]])]
    {
        let (teams, members) = teams_and_members(harness, action).await;
        let description = teams.store.describe(teams.table.name()).await.unwrap();
        if !description.referenced_by.iter().any(|reference| reference.on_delete == action) {
            panic!("{description:?} doesn't say {action:?}");
        }
        teams.insert(&rows![[1, "a"], [2, "b"]]).await;
        members.insert(&rows![[1, 1], [2, 1], [3, 2]]).await;
        assert_eq!(teams.outcomes(Delete, &rows![[1]]).await, (vec![Deleted], 1), "{action:?}");
        members.assert_rows(&left).await;
    }
}

/// A table may name itself as parent: rows of one step are each other's parents, whatever their order, as statements
/// check foreign keys at their end. Row by row the order counts.
pub async fn rows_name_rows_of_their_own_table(harness: &dyn Harness) {
    if !kept(harness, Feature::ForeignKeys) {
        return;
    }
    let tree = table("tree", [key("id", Int64), nullable("parent", Int64)]);
    let constraints = Constraints::none().foreign_key(&["parent"], "tree", &["id"]);
    let tree = Fixture::new(harness, tree, constraints).await;
    if !kept(harness, Feature::ForeignKeysInTransactions) {
        return rows_name_rows_before_them(&tree).await;
    }
    tree.insert(&rows![[3, 2], [2, 1], [1, NULL], [4, 4]]).await;
    let error = failure(tree.transact(&[tree.step(Delete, &rows![[1]]).await]).await);
    assert_eq!(error.kind(), ErrorKind::ForeignKeyViolation, "{error:?}");
    assert_eq!(tree.outcomes(Delete, &rows![[1], [2], [3], [4]]).await, (vec![Deleted; 4], 4));
    let applied = tree.apply_rows(Insert, &rows![[6, 5], [5, NULL], [7, 5], [8, 8]]).await;
    assert_eq!(words(&applied.outcomes), ["ForeignKeyViolation", "Inserted", "Inserted", "Inserted"]);
    tree.assert_rows(&rows![[5, NULL], [7, 5], [8, 8]]).await;
}

/// What is left of that where rows of one statement can't be each other's parents: row by row the order counts as anywhere, and no row is
/// its own parent.
async fn rows_name_rows_before_them(tree: &Fixture) {
    failure(tree.transact(&[tree.step(Insert, &rows![[2, 1], [1, NULL]]).await]).await);
    let applied = tree.apply_rows(Insert, &rows![[6, 5], [5, NULL], [7, 5], [9, 7], [8, 8]]).await;
    let expected = ["ForeignKeyViolation", "Inserted", "Inserted", "Inserted", "Unsupported"];
    assert_eq!(words(&applied.outcomes), expected);
    tree.assert_rows(&rows![[5, NULL], [7, 5], [9, 7]]).await;
    let applied = tree.apply_rows(Delete, &rows![[7], [9], [4]]).await;
    assert_eq!(words(&applied.outcomes), ["ForeignKeyViolation", "Deleted", "NotFound"]);
    let applied = tree.apply_rows(Delete, &rows![[7], [5]]).await;
    assert_eq!(words(&applied.outcomes), ["Deleted", "Unsupported"]);
    tree.assert_rows(&rows![[5, NULL]]).await;
}

/// A foreign key may span columns.
pub async fn composite_foreign_keys(harness: &dyn Harness) {
    if !kept(harness, Feature::ForeignKeys) {
        return;
    }
    let days = table("days", [key("year", Int64), key("day", Int64)]);
    let days = Fixture::new(harness, days, Constraints::none()).await;
    let events = table("events", [key("id", Int64), nullable("year", Int64), nullable("day", Int64)]);
    let constraints = Constraints::none().foreign_key(&["year", "day"], "days", &["year", "day"]);
    let events = days.and(harness, events, constraints).await;
    days.insert(&rows![[2024, 1], [2023, 2]]).await;
    let applied = events.apply_rows(Insert, &rows![[1, 2024, 1], [2, 2024, 2], [3, 2024, NULL]]).await;
    assert_eq!(words(&applied.outcomes), ["Inserted", "ForeignKeyViolation", "Inserted"]);
}

/// A row that a trigger keeps out is `Unchanged`; it is no error and isn't counted.
pub async fn rows_kept_out_by_triggers_are_unchanged(harness: &dyn Harness) {
    if !kept(harness, Feature::Triggers) {
        return;
    }
    let people = Fixture::new(harness, people(), Constraints::none().keep_out_below("age", 0)).await;
    assert!(!people.store.describe(people.table.name()).await.unwrap().triggers.is_empty());
    let rows = rows![[1, "a", 1], [2, "b", -1], [3, "c", NULL], [4, "d", -2]];
    let silent = people.silent(Insert, &rows).await;
    assert_eq!(people.transact(&[silent]).await.unwrap()[0].affected, 2);
    people.assert_rows(&rows![[1, "a", 1], [3, "c", NULL]]).await;
    let rows = rows![[5, "e", -1], [6, "f", 6]];
    assert_eq!(people.outcomes(Insert, &rows).await, (vec![Unchanged, Inserted], 1));
    let rows = rows![[1, "x", -1], [6, "y", 60], [9, "z", 1]];
    assert_eq!(people.outcomes(Update, &rows).await, (vec![Unchanged, Updated, NotFound], 1));
    let applied = people.apply_rows(Insert, &rows![[7, "g", -1], [6, "dup", 1], [8, "h", 8]]).await;
    assert_eq!(words(&applied.outcomes), ["Unchanged", "UniqueViolation", "Inserted"]);
    people.assert_rows(&rows![[1, "a", 1], [3, "c", NULL], [6, "y", 60], [8, "h", 8]]).await;
}

/// Keys that the database takes as equal are one group, and no others.
pub async fn key_groups_are_the_databases(harness: &dyn Harness) {
    let ignores = kept(harness, Feature::IgnoreCase);
    let words = table("words", [key("n", Int64), key("word", Utf8)]);
    let constraints = if ignores { Constraints::none().ignore_case("word") } else { Constraints::none() };
    let words = Fixture::new(harness, words, constraints).await;
    let target = words.target(Upsert).await;
    let rows = rows![[1, "a"], [1, "A"], [2, "a"], [1, "b"], [1, "a "], [1, "á"], [1, "Á"], [1, "a"]];
    let keys = batch(words.table.columns(), &rows);
    let groups = words.store.key_groups(&target, &keys).await.unwrap();
    assert_eq!(groups.len(), rows.len());
    for (one, first) in groups.iter().enumerate() {
        for (other, second) in groups.iter().enumerate() {
            let same = |row: usize| match &rows[row][1] {
                Value::Text(text) if ignores => (&rows[row][0], text.to_ascii_lowercase()),
                Value::Text(text) => (&rows[row][0], text.to_string()),
                other => panic!("{other:?}"),
            };
            assert_eq!(first == second, same(one) == same(other), "{:?} and {:?}", rows[one], rows[other]);
        }
    }
    assert_eq!(words.store.key_groups(&target, &keys.slice(0, 0)).await.unwrap(), [0; 0]);
}
