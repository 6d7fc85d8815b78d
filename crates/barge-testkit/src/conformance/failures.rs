//! Rows that fail: a step is whole or not at all, and row by row only the bad rows are left out.

use arrow::datatypes::DataType::{Int64, Utf8};
use barge_core::store::{CommitError, Step};
use barge_core::{Error, ErrorKind, Operation, Result};

use super::fixture::*;
use super::{Constraints, Feature, Harness};
use crate::Value;
use Operation::*;

/// `members(id, name NOT NULL UNIQUE, age >= 0, team → teams)`, in which a row can fail in every way.
async fn members(harness: &dyn Harness) -> Fixture {
    let teams = table("teams", [key("id", Int64), nullable("name", Utf8)]);
    let teams = Fixture::new(harness, teams, Constraints::none()).await;
    teams.insert(&rows![[1, "red"], [2, "blue"]]).await;
    let members = table(
        "members",
        [key("id", Int64), column("name", Utf8), nullable("age", Int64), nullable("team", Int64)],
    );
    let mut constraints = Constraints::none().unique(&["name"]).at_least("age", 0);
    if kept(harness, Feature::ForeignKeys) {
        constraints = constraints.foreign_key(&["team"], "teams", &["id"]);
    }
    let members = teams.and(harness, members, constraints).await;
    members.insert(&rows![[100, "taken", 1, 1]]).await;
    members
}

fn good(id: i64) -> Vec<Value> {
    vec![id.into(), format!("name {id}").into(), Value::Null, 1.into()]
}

/// Rows that fail where a good row with this id would not, by what is wrong with them.
fn bad(harness: &dyn Harness, operation: Operation, id: i64) -> Vec<(ErrorKind, Vec<Value>)> {
    let mut bad = vec![
        (ErrorKind::UniqueViolation, vec![id.into(), "taken".into(), Value::Null, 1.into()]),
        (ErrorKind::NotNullViolation, vec![id.into(), Value::Null, Value::Null, 1.into()]),
        (ErrorKind::CheckViolation, vec![id.into(), "bad".into(), Value::from(-1), 1.into()]),
    ];
    if operation == Insert {
        bad.push((ErrorKind::UniqueViolation, vec![100.into(), "other".into(), Value::Null, Value::Null]));
    }
    if kept(harness, Feature::ForeignKeys) {
        bad.push((ErrorKind::ForeignKeyViolation, vec![id.into(), "bad".into(), Value::Null, 99.into()]));
    }
    bad
}

/// Every operation, every kind of bad row, at every place in a batch of three: good rows 11 to 13, one of them bad.
fn cases(harness: &dyn Harness) -> Vec<(Operation, ErrorKind, usize, Rows)> {
    let mut cases = Vec::new();
    for operation in [Insert, InsertIfAbsent, Upsert, Update] {
        for place in 0..3 {
            for (kind, row) in bad(harness, operation, 11 + place as i64) {
                let mut rows: Rows = (11..=13).map(good).collect();
                rows[place] = row;
                cases.push((operation, kind, place, rows));
            }
        }
    }
    cases
}

/// Puts rows 11 to 13 there before an update, and away before another operation.
async fn prepare(members: &Fixture, operation: Operation) -> Rows {
    members.write(Delete, &rows![[11], [12], [13], [14]]).await;
    let mut there = rows![[100, "taken", 1, 1]];
    if operation == Update {
        let before: Rows =
            (11..=13).map(|id| vec![id.into(), format!("old {id}").into(), 5.into(), Value::Null]).collect();
        members.insert(&before).await;
        there.extend(before);
    }
    there
}

/// After a step fails with a bad row, nothing of it is there. The transaction goes on as before it, or says that it is gone.
pub async fn a_failed_step_changes_nothing(harness: &dyn Harness) {
    let members = members(harness).await;
    for (operation, kind, place, rows) in cases(harness) {
        let case = format!("{operation}, {kind} at {place}");
        let mut there = prepare(&members, operation).await;
        let mut transaction = members.store.begin().await.unwrap();
        transaction.apply(&members.step(Insert, &[good(14)]).await).await.unwrap();
        let failed = transaction.apply(&members.step(operation, &rows).await).await;
        let error = failure(failed);
        assert_eq!(error.kind(), kind, "{case}: {error:?}");
        if transaction.is_open() {
            let update = rows![[14, "after", 3, 2]];
            transaction
                .apply(&members.step(Update, &update).await)
                .await
                .expect("an open transaction goes on");
            transaction.commit().await.unwrap();
            there.extend(update);
        } else {
            let refused = transaction.commit().await;
            assert!(matches!(refused, Err(CommitError::RolledBack(_))), "{case}: {refused:?}");
        }
        members.assert_rows(&there).await;
    }
}

/// A transaction with a bad row in one step leaves nothing of any step.
pub async fn a_failed_transaction_changes_nothing(harness: &dyn Harness) {
    let members = members(harness).await;
    for (operation, kind, place, rows) in cases(harness) {
        let there = prepare(&members, operation).await;
        for outcomes in [true, false] {
            let step = Step { outcomes, ..members.step(operation, &rows).await };
            let steps =
                [members.step(Insert, &[good(14)]).await, step, members.step(Delete, &rows![[100]]).await];
            let failed = members.store.transact(None, &steps).await;
            let Err(CommitError::RolledBack(error)) = failed else {
                panic!("{operation}, {kind} at {place}: {failed:?}");
            };
            assert_eq!(error.kind(), kind, "{operation} at {place}: {error:?}");
            members.assert_rows(&there).await;
        }
    }
}

/// Row by row, a bad row is left out with its own error, which names its place, and its neighbours are written.
pub async fn apply_rows_leaves_out_bad_rows_alone(harness: &dyn Harness) {
    let members = members(harness).await;
    for (operation, kind, place, rows) in cases(harness) {
        let case = format!("{operation}, {kind} at {place}");
        let mut there = prepare(&members, operation).await;
        let applied = members.apply_rows(operation, &rows).await;
        let done = if operation == Update { "Updated" } else { "Inserted" };
        let mut expected = vec![done.to_owned(); 3];
        expected[place] = kind.to_string();
        assert_eq!(words(&applied.outcomes), expected, "{case}: {:?}", applied.outcomes);
        let error = applied.outcomes[place].as_ref().unwrap_err();
        assert_eq!(error.row(), Some(place as u64), "{case}: {error:?}");
        assert_eq!(error.table(), Some("members"), "{case}: {error:?}");
        let written = (0..3).filter(|&row| row != place);
        for row in written {
            there.retain(|old| old[0] != rows[row][0]);
            there.push(rows[row].clone());
        }
        members.assert_rows(&there).await;
    }
}

/// Errors name the column or the constraint that was broken.
pub async fn errors_name_what_was_broken(harness: &dyn Harness) {
    let members = members(harness).await;
    let rows = rows![
        [11, "taken", NULL, NULL],
        [100, "other", NULL, NULL],
        [12, NULL, NULL, NULL],
        [13, "bad", -1, NULL],
    ];
    let applied = members.apply_rows(Insert, &rows).await;
    let errors: Vec<&Error> = applied.outcomes.iter().filter_map(|outcome| outcome.as_ref().err()).collect();
    assert_eq!(errors.len(), 4, "{:?}", applied.outcomes);
    let named = |error: &Error, word: &str| {
        let text = format!("{:?} {:?} {}", error.column(), error.constraint(), error.message());
        assert!(text.contains(word), "{word} isn't named: {error:?}");
    };
    named(errors[0], "name");
    named(errors[1], "id");
    named(errors[2], "name");
    assert_eq!(errors[2].column(), Some("name"));
    assert!(errors[3].constraint().is_some() || errors[3].message().contains("age"), "{:?}", errors[3]);
}

/// Row by row means in order: keys may repeat, and each row meets what those before it left.
pub async fn apply_rows_goes_in_order(harness: &dyn Harness) {
    let people = Fixture::people(harness).await;
    let cases = [
        (Insert, rows![[1, "a", 1], [1, "b", 2], [2, "c", 3]], ["Inserted", "UniqueViolation", "Inserted"]),
        (
            InsertIfAbsent,
            rows![[3, "a", 1], [3, "b", 2], [1, "x", 3]],
            ["Inserted", "Unchanged", "Unchanged"],
        ),
        (Upsert, rows![[4, "a", 1], [4, "b", 2], [4, "c", NULL]], ["Inserted", "Updated", "Updated"]),
        (Update, rows![[1, "u", 1], [9, "v", 2], [1, "w", 3]], ["Updated", "NotFound", "Updated"]),
        (Delete, rows![[2], [2], [3]], ["Deleted", "NotFound", "Deleted"]),
    ];
    for (operation, rows, expected) in cases {
        assert_eq!(words(&people.apply_rows(operation, &rows).await.outcomes), expected, "{operation}");
    }
    people.assert_rows(&rows![[1, "w", 3], [4, "c", NULL]]).await;
}

/// A unique value that a row gave up is free for the rows after it, and not for those before.
pub async fn apply_rows_frees_unique_values_in_order(harness: &dyn Harness) {
    let users = table("users", [key("id", Int64), column("mail", Utf8)]);
    let users = Fixture::new(harness, users, Constraints::none().unique(&["mail"])).await;
    users.insert(&rows![[1, "a"], [2, "b"], [3, "c"]]).await;
    let applied = users.apply_rows(Update, &rows![[3, "a"], [1, "x"], [2, "a"], [3, "b"]]).await;
    assert_eq!(words(&applied.outcomes), ["UniqueViolation", "Updated", "Updated", "Updated"]);
    users.assert_rows(&rows![[1, "x"], [2, "a"], [3, "b"]]).await;
}

/// A thousand bad rows of a thousand are a thousand errors, each with its place, and nothing else.
pub async fn a_thousand_bad_rows(harness: &dyn Harness) {
    let people = Fixture::people(harness).await;
    let rows: Rows = (0..1_000).map(|id| vec![id.into(), "n".into(), Value::Null]).collect();
    people.insert(&rows).await;
    let applied = people.apply_rows(Insert, &rows).await;
    for (place, outcome) in applied.outcomes.iter().enumerate() {
        let error = outcome.as_ref().unwrap_err();
        assert_eq!((error.kind(), error.row()), (ErrorKind::UniqueViolation, Some(place as u64)));
    }
}

/// Every third of 10,000 rows is bad: those are the ones left out.
pub async fn a_third_of_ten_thousand_rows_is_bad(harness: &dyn Harness) {
    let people = Fixture::new(harness, people(), Constraints::none().at_least("age", 0)).await;
    let age = |id: i64| if id % 3 == 0 { -id } else { id };
    let rows: Rows =
        (1..=10_000).map(|id| vec![id.into(), format!("n{id}").into(), age(id).into()]).collect();
    let applied = people.apply_rows(Upsert, &rows).await;
    for (row, outcome) in rows.iter().zip(&applied.outcomes) {
        let bad = row[2] < Value::from(0);
        assert_eq!(outcome.as_ref().map_err(Error::kind).is_err(), bad, "{row:?}: {outcome:?}");
    }
    let found = people.get(&rows![[1], [3], [9_998], [9_999]]).await;
    let there: Vec<bool> = found.iter().map(Option::is_some).collect();
    assert_eq!(there, [true, false, true, false]);
}

/// Rows that a search left out don't stand in the way of steps after it in the same transaction.
pub async fn a_transaction_goes_on_after_apply_rows(harness: &dyn Harness) {
    let members = members(harness).await;
    let mut transaction = members.store.begin().await.unwrap();
    let rows = [good(1), rows![[2, "taken", NULL, NULL]].remove(0), good(3)];
    let applied = transaction.apply_rows(&members.step(Insert, &rows).await).await.unwrap();
    assert_eq!(words(&applied.outcomes), ["Inserted", "UniqueViolation", "Inserted"]);
    let step = members.step(Update, &rows![[1, "later", 1, 2], [2, "never", 1, 1]]).await;
    let applied = transaction.apply(&step).await.unwrap();
    assert_eq!(applied.affected, 1);
    transaction.commit().await.unwrap();
    members.assert_rows(&rows![[100, "taken", 1, 1], [1, "later", 1, 2], [3, "name 3", NULL, 1]]).await;
}

/// A table that doesn't exist is `MissingTable`, wherever it comes up.
pub async fn a_missing_table_is_said_so(harness: &dyn Harness) {
    let people = Fixture::people(harness).await;
    let nowhere = Fixture {
        store: people.store.clone(),
        table: table("nowhere", [key("id", Int64), nullable("n", Int64)]),
    };
    assert_eq!(failure(people.store.describe(nowhere.table.name()).await).kind(), ErrorKind::MissingTable);
    let error = failure(people.store.look_up(nowhere.look_up(&rows![[1]])).await);
    assert_eq!(error.kind(), ErrorKind::MissingTable, "{error:?}");
    // A table that was there when it was described.
    let mut description = (*people.target(Insert).await.description).clone();
    description.name = nowhere.table.name().clone();
    let target = barge_core::store::Target::new(&people.table, Insert, description.into()).unwrap();
    let batch = target.project(&batch(people.table.columns(), &rows![[1, "a", 1]])).unwrap();
    let step = Step { target: target.into(), batch, outcomes: true };
    let error = failure(people.transact(std::slice::from_ref(&step)).await);
    assert_eq!(error.kind(), ErrorKind::MissingTable, "{error:?}");
    let mut transaction = people.store.begin().await.unwrap();
    let error = failure(transaction.apply_rows(&step).await);
    assert_eq!(error.kind(), ErrorKind::MissingTable, "{error:?}");
}

/// A column that doesn't exist is `MissingColumn`, in a step and in a look-up.
pub async fn a_missing_column_is_said_so(harness: &dyn Harness) {
    let people = Fixture::people(harness).await;
    let columns = || [key("id", Int64), column("name", Utf8), nullable("shoe", Int64)];
    let wrong = people.seen_as(columns());
    let error = failure(people.store.look_up(wrong.look_up(&rows![[1]])).await);
    assert_eq!(error.kind(), ErrorKind::MissingColumn, "{error:?}");
    let mut description = (*people.target(Insert).await.description).clone();
    for column in description.columns.iter_mut().filter(|column| column.name == "age") {
        column.name = "shoe".into();
    }
    for operation in [Insert, Upsert, Update] {
        let target =
            barge_core::store::Target::new(&wrong.table, operation, description.clone().into()).unwrap();
        let batch = target.project(&batch(&columns(), &rows![[1, "a", 1]])).unwrap();
        let step = Step { target: target.into(), batch, outcomes: false };
        let error = failure(people.transact(&[step]).await);
        assert_eq!(error.kind(), ErrorKind::MissingColumn, "{operation}: {error:?}");
    }
    people.assert_rows(&[]).await;
}

/// Values that the column can't hold equal are rejected one by one, by the check or by the step: never changed.
pub async fn values_of_another_type_are_equal_or_rejected(harness: &dyn Harness) {
    use arrow::datatypes::DataType::{Float64, Utf8 as Text};
    let texts: Rows = rows![
        ["12"],
        ["012"],
        ["1.0"],
        ["1e3"],
        [""],
        [" 1"],
        ["1 "],
        ["abc"],
        ["9223372036854775807"],
        ["9223372036854775808"],
        ["0x10"],
        ["-0"],
        ["+5"],
        ["NaN"],
        ["inf"],
        ["1_000"],
        ["٣"],
    ];
    let floats: Rows = rows![[1.0], [1.5], [-0.0], [1e300], [9007199254740993.0], [f64::INFINITY], [0.1]];
    let ints: Rows = rows![[1], [9007199254740993i64], [i64::MAX], [i64::MIN], [-9007199254740992i64]];
    for (held, given, values) in [
        (Int64, Text, &texts),
        (Float64, Text, &texts),
        (Int64, Float64, &floats),
        (Text, Float64, &floats),
        (Float64, Int64, &ints),
        (Text, Int64, &ints),
    ] {
        let case = format!("{given} in a column of {held}");
        let narrow = table("narrow", [key("id", Int64), nullable("v", held.clone())]);
        let narrow = Fixture::new(harness, narrow, Constraints::none()).await;
        let wide = narrow.seen_as([key("id", Int64), nullable("v", given.clone())]);
        let rows: Rows =
            values.iter().zip(1i64..).map(|(value, id)| vec![id.into(), value[0].clone()]).collect();
        let step = wide.step(Insert, &rows).await;
        let rejected: Vec<usize> = narrow
            .store
            .check(&step.target, &step.batch)
            .into_iter()
            .map(|(row, error)| {
                assert_eq!(error.kind(), ErrorKind::InvalidValue, "{case}: {error:?}");
                row
            })
            .collect();
        let mut expected: Vec<Option<Vec<Value>>> = Vec::new();
        for (place, row) in rows.iter().enumerate() {
            if rejected.contains(&place) {
                expected.push(None);
                continue;
            }
            let step = Step { batch: step.batch.slice(place, 1), ..step.clone() };
            match narrow.transact(&[step]).await {
                Ok(_) => expected.push(Some(row.clone())),
                Err(error) => {
                    assert_eq!(error.error().kind(), ErrorKind::InvalidValue, "{case}, {row:?}: {error:?}");
                    expected.push(None);
                }
            }
        }
        let keys: Rows = rows.iter().map(|row| vec![row[0].clone()]).collect();
        assert_eq!(wide.get(&keys).await, expected, "{case}");
    }
}

/// The kinds of row errors, and no others, are answered row by row.
pub async fn row_errors_are_row_errors(harness: &dyn Harness) {
    let members = members(harness).await;
    let (_, rows): (Vec<ErrorKind>, Rows) = bad(harness, Insert, 11).into_iter().unzip();
    let outcomes: Vec<Result<_>> = members.apply_rows(Insert, &rows).await.outcomes;
    for outcome in outcomes {
        let error = outcome.unwrap_err();
        assert!(error.is_row() && !error.is_retryable(), "{error:?}");
    }
}
