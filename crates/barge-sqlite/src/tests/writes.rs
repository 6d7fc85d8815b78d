//! Steps: outcomes, keys that are drawn, what a failure leaves behind.

use std::sync::Arc;

use arrow::array::*;
use arrow::datatypes::DataType;
use barge_core::store::{CommitError, Outcome, Step};
use barge_core::{ErrorKind, Operation, Store};

use super::support::*;

const TASKS: &str = "CREATE TABLE tasks(id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, done INTEGER)";

fn tasks(ids: &[i64], names: &[&str]) -> RecordBatch {
    batch(vec![
        ("id", Arc::new(Int64Array::from(ids.to_vec()))),
        ("name", Arc::new(StringArray::from(names.to_vec()))),
    ])
}

#[tokio::test]
async fn each_operation_tells_what_became_of_each_row() {
    let store = memory(&[TASKS, "INSERT INTO tasks VALUES (1, 'a', 0), (2, 'b', 0)"]).await;
    let rows = tasks(&[2, 3], &["B", "c"]);
    let applied = write(&store, "tasks", Operation::Upsert, &rows, &["id"]).await.unwrap();
    assert_eq!(applied.outcomes.unwrap(), [Outcome::Updated, Outcome::Inserted]);
    assert_eq!((applied.affected, applied.statements), (2, 2));

    let rows = tasks(&[3, 4], &["x", "d"]);
    let applied = write(&store, "tasks", Operation::InsertIfAbsent, &rows, &["id"]).await.unwrap();
    assert_eq!(applied.outcomes.unwrap(), [Outcome::Unchanged, Outcome::Inserted]);
    assert_eq!(applied.affected, 1);

    let applied =
        write(&store, "tasks", Operation::Update, &tasks(&[9, 1], &["z", "A"]), &["id"]).await.unwrap();
    assert_eq!(applied.outcomes.unwrap(), [Outcome::NotFound, Outcome::Updated]);

    let applied =
        write(&store, "tasks", Operation::Delete, &tasks(&[4, 9], &["", ""]), &["id"]).await.unwrap();
    assert_eq!(applied.outcomes.unwrap(), [Outcome::Deleted, Outcome::NotFound]);

    let applied = write(&store, "tasks", Operation::Insert, &tasks(&[7], &["g"]), &[]).await.unwrap();
    assert_eq!((applied.outcomes.unwrap(), applied.statements), (vec![Outcome::Inserted], 1));
    assert_eq!(rows_of(&store).await, ["1|A|0", "2|B|0", "3|c|NULL", "7|g|NULL"]);
}

/// Written in the order of their keys, rows are answered, named and left as if in their own.
#[tokio::test]
async fn rows_in_the_order_of_their_keys_keep_their_answers() {
    use Outcome::*;
    let store = memory(&[
        "CREATE TABLE tasks(id INTEGER PRIMARY KEY, name TEXT NOT NULL CHECK (name <> 'bad'))",
        "INSERT INTO tasks VALUES (2, 'b'), (5, 'e')",
    ])
    .await;
    let rows = tasks(&[5, 9, 2, 7], &["E", "I", "B", "G"]);
    let expected = [
        (Operation::Update, vec![Updated, NotFound, Updated, NotFound]),
        (Operation::InsertIfAbsent, vec![Unchanged, Inserted, Unchanged, Inserted]),
        (Operation::Upsert, vec![Updated, Updated, Updated, Updated]),
        (Operation::Delete, vec![Deleted, Deleted, Deleted, Deleted]),
        (Operation::Insert, vec![Inserted, Inserted, Inserted, Inserted]),
    ];
    for (operation, outcomes) in expected {
        let applied = write(&store, "tasks", operation, &rows, &["id"]).await.unwrap();
        assert_eq!(applied.outcomes.unwrap(), outcomes, "{operation}");
    }
    for operation in [Operation::Update, Operation::Upsert] {
        let bad = tasks(&[9, 7, 5], &["x", "bad", "x"]);
        let error = write(&store, "tasks", operation, &bad, &["id"]).await.unwrap_err();
        assert_eq!((error.kind(), error.row()), (ErrorKind::CheckViolation, Some(1)), "{operation}");
    }
    assert_eq!(
        self::rows(&store, "SELECT id, name FROM tasks ORDER BY id").await,
        ["2|B", "5|E", "7|G", "9|I"]
    );
}

async fn rows_of(store: &crate::SqliteStore) -> Vec<String> {
    rows(store, "SELECT id, name, done FROM tasks ORDER BY id").await
}

#[tokio::test]
async fn a_failing_row_undoes_its_step_and_is_named() {
    let store = memory(&[TASKS, "INSERT INTO tasks VALUES (1, 'a', 0)"]).await;
    let target = target(&store, "tasks", Operation::Insert, &tasks(&[], &[]), &[]).await.unwrap();
    let mut transaction = store.begin().await.unwrap();
    transaction.apply(&step(&target, &tasks(&[2], &["b"]))).await.unwrap();
    let bad = step(&target, &tasks(&[3, 4, 5], &["c", "a", "e"]));
    let error = transaction.apply(&bad).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::UniqueViolation);
    assert_eq!((error.table(), error.column(), error.row()), (Some("tasks"), Some("name"), Some(1)));
    assert!(error.to_string().contains("\"a\" is there already"), "{error}");
    assert!(transaction.is_open());
    let applied = transaction.apply_rows(&bad).await.unwrap();
    let kinds: Vec<_> =
        applied.outcomes.iter().map(|row| row.as_ref().map_err(|error| error.kind())).collect();
    assert_eq!(kinds, [Ok(&Outcome::Inserted), Err(ErrorKind::UniqueViolation), Ok(&Outcome::Inserted)]);
    transaction.commit().await.unwrap();
    assert_eq!(rows_of(&store).await, ["1|a|0", "2|b|NULL", "3|c|NULL", "5|e|NULL"]);
}

#[tokio::test]
async fn row_by_row_has_the_outcomes_of_each_row_alone() {
    let store = memory(&[TASKS, "INSERT INTO tasks VALUES (1, 'a', 0)"]).await;
    let repeated = tasks(&[1, 2, 2], &["A", "b", "B"]);
    let applied = write_rows(&store, "tasks", Operation::Upsert, &repeated, &["id"]).await.unwrap();
    let outcomes: Vec<Outcome> = applied.outcomes.into_iter().map(Result::unwrap).collect();
    assert_eq!(outcomes, [Outcome::Updated, Outcome::Inserted, Outcome::Updated]);
    let rows = tasks(&[2, 9, 2], &["", "", ""]);
    let applied = write_rows(&store, "tasks", Operation::Delete, &rows, &["id"]).await.unwrap();
    let outcomes: Vec<Outcome> = applied.outcomes.into_iter().map(Result::unwrap).collect();
    assert_eq!(outcomes, [Outcome::Deleted, Outcome::NotFound, Outcome::NotFound]);
    assert_eq!(rows_of(&store).await, ["1|A|0"]);
}

#[tokio::test]
async fn drawn_keys_are_those_sqlite_would_have_drawn_row_by_row() {
    let given = [None, Some(100), None, Some(7), None];
    for autoincrement in ["", "AUTOINCREMENT"] {
        let table = format!("CREATE TABLE t(id INTEGER PRIMARY KEY {autoincrement}, x TEXT)");
        let store =
            memory(&[&table, "INSERT INTO t VALUES (4, 'old'), (5, 'gone')", "DELETE FROM t WHERE id = 5"])
                .await;
        let rows = batch(vec![
            ("id", Arc::new(Int64Array::from(given.to_vec()))),
            ("x", Arc::new(StringArray::from(vec!["a", "b", "c", "d", "e"]))),
        ]);
        let target = generated(&store, "t", &rows, "id").await;
        let applied = store.transact(None, &[step(&target, &rows)]).await.unwrap().unwrap().remove(0);
        let first = if autoincrement.is_empty() { 5 } else { 6 };
        let expected = [first, 100, 101, 7, 102];
        assert_eq!(applied.generated.unwrap().values().as_ref(), expected, "{autoincrement}");
        let again =
            store.transact(None, &[step(&target, &rows.slice(0, 1))]).await.unwrap().unwrap().remove(0);
        assert_eq!(again.generated.unwrap().value(0), 103);
    }
}

#[tokio::test]
async fn keys_are_drawn_by_sqlite_once_the_highest_is_taken() {
    let store =
        memory(&["CREATE TABLE t(id INTEGER PRIMARY KEY)", "INSERT INTO t VALUES (9223372036854775807)"])
            .await;
    let rows = batch(vec![("id", Arc::new(Int64Array::from(vec![None, None])))]);
    let target = generated(&store, "t", &rows, "id").await;
    let applied = store.transact(None, &[step(&target, &rows)]).await.unwrap().unwrap().remove(0);
    let keys = applied.generated.unwrap();
    assert_ne!(keys.value(0), keys.value(1));
    assert_eq!(super::support::rows(&store, "SELECT count(*) FROM t").await, ["3"]);
}

#[tokio::test]
async fn only_an_integer_primary_key_draws_keys() {
    let store = memory(&["CREATE TABLE t(id TEXT PRIMARY KEY)"]).await;
    let rows = batch(vec![("id", Arc::new(StringArray::from(vec![None::<&str>])))]);
    let target = generated(&store, "t", &rows, "id").await;
    let error = store.transact(None, &[step(&target, &rows)]).await.unwrap_err();
    assert_eq!(error.error().kind(), ErrorKind::Unsupported);
}

#[tokio::test]
async fn a_trigger_that_keeps_a_row_out_leaves_it_unchanged() {
    let store = memory(&[
        TASKS,
        "CREATE TRIGGER keep_out BEFORE INSERT ON tasks WHEN new.name = 'no'
         BEGIN SELECT RAISE(IGNORE); END",
        "CREATE TRIGGER stay BEFORE UPDATE ON tasks WHEN new.name = 'no'
         BEGIN SELECT RAISE(IGNORE); END",
    ])
    .await;
    let rows = tasks(&[1, 2, 3], &["a", "no", "c"]);
    let applied = write(&store, "tasks", Operation::Insert, &rows, &[]).await.unwrap();
    assert_eq!(applied.outcomes.unwrap(), [Outcome::Inserted, Outcome::Unchanged, Outcome::Inserted]);
    assert_eq!(applied.affected, 2);
    let rows = tasks(&[1, 2, 3], &["no", "x", "C"]);
    let applied = write(&store, "tasks", Operation::Update, &rows, &["id"]).await.unwrap();
    assert_eq!(applied.outcomes.unwrap(), [Outcome::Unchanged, Outcome::NotFound, Outcome::Updated]);
    let target = target(&store, "tasks", Operation::Insert, &rows, &[]).await.unwrap();
    let counted = Step { outcomes: false, ..step(&target, &tasks(&[8, 9], &["no", "i"])) };
    let applied = store.transact(None, &[counted]).await.unwrap().unwrap().remove(0);
    assert_eq!((applied.affected, applied.outcomes), (1, None));
}

#[tokio::test]
async fn conflict_clauses_inside_triggers_keep_their_meaning() {
    let store = memory(&[
        TASKS,
        "CREATE TABLE seen(name TEXT PRIMARY KEY)",
        "INSERT INTO seen VALUES ('a')",
        "CREATE TRIGGER see AFTER INSERT ON tasks BEGIN INSERT OR IGNORE INTO seen VALUES (new.name); END",
    ])
    .await;
    write(&store, "tasks", Operation::Insert, &tasks(&[1, 2], &["a", "b"]), &[]).await.unwrap();
    assert_eq!(rows(&store, "SELECT name FROM seen ORDER BY name").await, ["a", "b"]);
}

#[tokio::test]
async fn a_tables_own_conflict_clause_drops_no_row_and_ends_no_transaction() {
    for clause in ["IGNORE", "REPLACE", "FAIL", "ROLLBACK"] {
        let store = memory(&[
            &format!("CREATE TABLE t(id INTEGER PRIMARY KEY ON CONFLICT {clause}, x TEXT)"),
            "INSERT INTO t VALUES (2, 'old')",
        ])
        .await;
        let rows = batch(vec![("id", Arc::new(Int64Array::from(vec![1, 2, 3])))]);
        let target = target(&store, "t", Operation::Insert, &rows, &[]).await.unwrap();
        let mut transaction = store.begin().await.unwrap();
        let error = transaction.apply(&step(&target, &rows)).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::UniqueViolation, "{clause}");
        assert!(transaction.is_open(), "{clause}");
        transaction.commit().await.unwrap();
        assert_eq!(super::support::rows(&store, "SELECT id, x FROM t").await, ["2|old"], "{clause}");
    }
}

#[tokio::test]
async fn a_trigger_that_fails_half_way_leaves_nothing_and_one_that_rolls_back_ends_the_transaction() {
    let trigger = |action: &str| {
        format!(
            "CREATE TRIGGER t AFTER INSERT ON tasks WHEN new.name = 'bad'
             BEGIN UPDATE tasks SET done = 1; SELECT RAISE({action}, 'not this one'); END"
        )
    };
    let rows = tasks(&[1, 2, 3], &["a", "bad", "c"]);
    let store = memory(&[TASKS, &trigger("FAIL")]).await;
    let target_of = async |store| target(store, "tasks", Operation::Insert, &rows, &[]).await.unwrap();
    let target = target_of(&store).await;
    let mut transaction = store.begin().await.unwrap();
    let error = transaction.apply(&step(&target, &rows)).await.unwrap_err();
    assert_eq!((error.kind(), error.message()), (ErrorKind::CheckViolation, "not this one"));
    let applied = transaction.apply_rows(&step(&target, &rows)).await.unwrap();
    assert!(applied.outcomes[1].is_err() && applied.outcomes[2].is_ok());
    transaction.commit().await.unwrap();
    assert_eq!(rows_of(&store).await, ["1|a|NULL", "3|c|NULL"]);

    let store = memory(&[TASKS, &trigger("ROLLBACK")]).await;
    let target = target_of(&store).await;
    let mut transaction = store.begin().await.unwrap();
    transaction.apply(&step(&target, &rows)).await.unwrap_err();
    assert!(!transaction.is_open());
    assert!(transaction.execute("DELETE FROM tasks").await.is_err());
    assert!(matches!(transaction.commit().await, Err(CommitError::RolledBack(_))));
    assert!(rows_of(&store).await.is_empty());
}

#[tokio::test]
async fn views_are_written_through_their_triggers() {
    let store = memory(&[
        TASKS,
        "CREATE VIEW names AS SELECT id, name FROM tasks",
        "CREATE TRIGGER i INSTEAD OF INSERT ON names BEGIN INSERT INTO tasks(id, name) VALUES (new.id, new.name); END",
        "CREATE TRIGGER u INSTEAD OF UPDATE ON names BEGIN UPDATE tasks SET name = new.name WHERE id = old.id; END",
        "CREATE TRIGGER d INSTEAD OF DELETE ON names BEGIN DELETE FROM tasks WHERE id = old.id; END",
    ])
    .await;
    let written = write(&store, "names", Operation::Insert, &tasks(&[1, 2], &["a", "b"]), &[]).await.unwrap();
    assert_eq!(written.outcomes.unwrap(), [Outcome::Inserted; 2]);
    let written =
        write(&store, "names", Operation::Update, &tasks(&[2, 9], &["B", ""]), &["id"]).await.unwrap();
    assert_eq!(written.outcomes.unwrap(), [Outcome::Updated, Outcome::NotFound]);
    let written =
        write(&store, "names", Operation::Delete, &tasks(&[1, 9], &["", ""]), &["id"]).await.unwrap();
    assert_eq!(written.outcomes.unwrap(), [Outcome::Deleted, Outcome::NotFound]);
    assert_eq!(rows_of(&store).await, ["2|B|NULL"]);
    let target = target(&store, "names", Operation::Update, &tasks(&[], &[]), &["id"]).await.unwrap();
    let counted = Step { outcomes: false, ..step(&target, &tasks(&[2, 9], &["bb", ""])) };
    let applied = store.transact(None, &[counted]).await.unwrap().unwrap();
    assert_eq!(applied[0].affected, 1);
}

#[tokio::test]
async fn a_broken_foreign_key_is_named() {
    let store = memory(&[
        "CREATE TABLE parents(id INTEGER PRIMARY KEY)",
        "CREATE TABLE others(code TEXT PRIMARY KEY)",
        "INSERT INTO parents VALUES (1)",
        "INSERT INTO others VALUES ('x')",
        "CREATE TABLE children(id INTEGER PRIMARY KEY, parent INTEGER REFERENCES parents, other TEXT REFERENCES others)",
    ])
    .await;
    let rows = batch(vec![
        ("id", Arc::new(Int64Array::from(vec![1, 2]))),
        ("parent", Arc::new(Int64Array::from(vec![1, 1]))),
        ("other", Arc::new(StringArray::from(vec!["x", "y"]))),
    ]);
    let error = write(&store, "children", Operation::Insert, &rows, &[]).await.unwrap_err();
    assert_eq!(
        (error.kind(), error.column(), error.row()),
        (ErrorKind::ForeignKeyViolation, Some("other"), Some(1))
    );
    let applied = write_rows(&store, "children", Operation::Insert, &rows, &[]).await.unwrap();
    assert_eq!(applied.outcomes[1].as_ref().unwrap_err().column(), Some("other"));
    let parent = batch(vec![("id", Arc::new(Int64Array::from(vec![1])))]);
    let error = write(&store, "parents", Operation::Delete, &parent, &["id"]).await.unwrap_err();
    assert!(error.message().contains("children"), "{error}");
}

#[tokio::test]
async fn a_deferred_foreign_key_is_refused_at_commit_and_named() {
    let store = memory(&[
        "CREATE TABLE parents(id INTEGER PRIMARY KEY)",
        "CREATE TABLE children(parent INTEGER REFERENCES parents DEFERRABLE INITIALLY DEFERRED)",
    ])
    .await;
    let rows = batch(vec![("parent", Arc::new(Int64Array::from(vec![7])))]);
    let target = target(&store, "children", Operation::Insert, &rows, &[]).await.unwrap();
    let Err(CommitError::RolledBack(error)) = store.transact(None, &[step(&target, &rows)]).await else {
        panic!("a missing parent must not be committed")
    };
    assert_eq!((error.kind(), error.table()), (ErrorKind::ForeignKeyViolation, Some("children")));
    assert!(error.message().contains("parents"), "{error}");
    assert_eq!(super::support::rows(&store, "SELECT count(*) FROM children").await, ["0"]);
}

#[tokio::test]
async fn a_function_that_fails_on_a_row_rejects_the_row() {
    let store = memory(&["CREATE TABLE t(j TEXT, a TEXT AS (json_extract(j, '$.a')) STORED)"]).await;
    let rows = batch(vec![("j", Arc::new(StringArray::from(vec!["{\"a\":1}", "{"])))]);
    let applied = write_rows(&store, "t", Operation::Insert, &rows, &[]).await.unwrap();
    assert_eq!(applied.outcomes[1].as_ref().unwrap_err().kind(), ErrorKind::InvalidValue);
    assert_eq!(super::support::rows(&store, "SELECT a FROM t").await, ["1"]);
}

#[tokio::test]
async fn strict_tables_refuse_a_value_of_another_type() {
    let store = memory(&["CREATE TABLE t(n INTEGER) STRICT"]).await;
    let rows = batch(vec![("n", Arc::new(StringArray::from(vec!["x"])))]);
    let error = write(&store, "t", Operation::Insert, &rows, &[]).await.unwrap_err();
    assert_eq!((error.kind(), error.column()), (ErrorKind::InvalidValue, Some("n")));
}

#[tokio::test]
async fn an_upsert_of_keys_alone_leaves_those_that_are_there() {
    let store =
        memory(&["CREATE TABLE t(k TEXT PRIMARY KEY COLLATE NOCASE)", "INSERT INTO t VALUES ('A')"]).await;
    let rows = batch(vec![("k", Arc::new(StringArray::from(vec!["a", "b"])))]);
    let applied = write(&store, "t", Operation::Upsert, &rows, &["k"]).await.unwrap();
    assert_eq!(applied.outcomes.unwrap(), [Outcome::Unchanged, Outcome::Inserted]);
    let groups = {
        let target = target(&store, "t", Operation::Upsert, &rows, &["k"]).await.unwrap();
        let keys = batch(vec![("k", Arc::new(StringArray::from(vec!["b", "x", "B", "X", "é", "É"])))]);
        store.key_groups(&target, &keys).await.unwrap()
    };
    assert_eq!((groups[0], groups[1]), (groups[2], groups[3]));
    assert_ne!(groups[0], groups[1]);
    assert_ne!(groups[4], groups[5]);
}

#[tokio::test]
async fn a_hundred_thousand_rows_are_one_step() {
    let store = memory(&[TASKS]).await;
    let ids: Vec<i64> = (0..100_000).collect();
    let names: Vec<String> = ids.iter().map(|id| format!("name {id}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let rows = tasks(&ids, &names);
    let applied = write(&store, "tasks", Operation::Upsert, &rows, &["id"]).await.unwrap();
    assert_eq!(applied.affected, 100_000);
    let found = store.look_up(look_up(
        "tasks",
        vec![field("id", DataType::Int64), field("name", DataType::Utf8)],
        rows.project(&[0]).unwrap(),
    ));
    let found = found.await.unwrap().into_batch().await.unwrap();
    assert_eq!(found.num_rows(), 100_000);
    assert_eq!(found.column(2).as_string::<i32>().value(99_999), "name 99999");
}

#[tokio::test]
async fn keys_left_to_sqlite_are_those_the_rows_have() {
    for autoincrement in ["", "AUTOINCREMENT"] {
        let create = format!("CREATE TABLE tasks(id INTEGER PRIMARY KEY {autoincrement}, name TEXT)");
        let store = memory(&[&create]).await;
        let mut written = Vec::new();
        // From 0 and not from 1; going on; with a gap; going on; from the middle; the highest there is.
        for ids in [[0, 1], [2, 3], [5, 6], [7, 8], [10, 9], [-2, -1], [11, 12], [i64::MAX - 1, i64::MAX]] {
            let names: Vec<String> = ids.iter().map(ToString::to_string).collect();
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            write(&store, "tasks", Operation::Insert, &tasks(&ids, &names), &["id"]).await.unwrap();
            written.extend(ids);
        }
        written.sort_unstable();
        let expected: Vec<String> = written.iter().map(|id| format!("{id}|{id}")).collect();
        assert_eq!(rows(&store, "SELECT id, name FROM tasks ORDER BY id").await, expected);
        let error = write(&store, "tasks", Operation::Insert, &tasks(&[11, 12], &["", ""]), &["id"]).await;
        assert_eq!(error.unwrap_err().kind(), ErrorKind::UniqueViolation);
    }
}

#[tokio::test]
async fn updates_leave_nothing_of_a_step_that_fails() {
    let store = memory(&[TASKS, "INSERT INTO tasks VALUES (1, 'a', 0), (2, 'b', 0), (3, 'c', 0)"]).await;
    let swapped = tasks(&[3, 1, 2], &["x", "b", "y"]);
    let error = write(&store, "tasks", Operation::Update, &swapped, &["id"]).await.unwrap_err();
    assert_eq!((error.kind(), error.row()), (ErrorKind::UniqueViolation, Some(1)));
    assert_eq!(rows_of(&store).await, ["1|a|0", "2|b|0", "3|c|0"]);
}
