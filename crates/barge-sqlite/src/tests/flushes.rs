//! Flushes into tables as only SQLite has them. What every store can have is held against rows one by one in
//! `tests/conformance/flushes.rs`.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::*;
use barge_core::store::Outcome;
use barge_core::{Database, ErrorKind, Operation, Store, Table, TableName};

use super::support::*;
use crate::SqliteStore;

type Answers = Vec<Result<Outcome, ErrorKind>>;

/// Some rows of a table with one operation.
fn rows_of(table: &str, operation: Operation, rows: RecordBatch) -> (Arc<Table>, Operation, RecordBatch) {
    (Arc::new(Table::of_schema(table, rows.schema_ref(), &["id"]).unwrap()), operation, rows)
}

fn numbers(columns: &[&str], rows: &[&[Option<i64>]]) -> RecordBatch {
    let column = |index: usize| Int64Array::from_iter(rows.iter().map(|row| row[index]));
    batch(
        columns
            .iter()
            .enumerate()
            .map(|(index, name)| (*name, Arc::new(column(index)) as ArrayRef))
            .collect(),
    )
}

/// What a flush of these rows did: each row's answer, and how many rows are said to be without effect. With receipts and
/// without, that must be the same.
async fn flush(
    statements: &[&str],
    adds: &[(Arc<Table>, Operation, RecordBatch)],
) -> (Arc<SqliteStore>, Answers, u64) {
    let (store, answers, told) = flush_once(statements, adds, true).await;
    let (_, _, silent) = flush_once(statements, adds, false).await;
    assert_eq!(told, silent, "rows without effect, with receipts and without");
    (store, answers, told)
}

async fn flush_once(
    statements: &[&str],
    adds: &[(Arc<Table>, Operation, RecordBatch)],
    receipts: bool,
) -> (Arc<SqliteStore>, Answers, u64) {
    let store = Arc::new(memory(statements).await);
    let db = Database::over(Arc::clone(&store) as Arc<dyn Store>);
    let writer = db.writer().linger(Duration::from_secs(3_600)).start();
    let mut kept = Vec::new();
    for (table, operation, rows) in adds {
        let receipt = writer.add_batch(table, *operation, rows).await.unwrap();
        kept.extend(receipts.then_some(receipt));
    }
    let report = writer.close().await.unwrap();
    let mut answers = Vec::new();
    for receipt in kept {
        answers.extend(receipt.outcomes().await.into_iter().map(|answer| answer.map_err(|e| e.kind())));
    }
    (store, answers, report.statistics.without_effect)
}

const NAMES: [&str; 6] = [
    "CREATE TABLE names_table(id INTEGER PRIMARY KEY, n INTEGER)",
    "INSERT INTO names_table VALUES (1, 1), (2, 2)",
    "CREATE VIEW names AS SELECT id, n FROM names_table",
    "CREATE TRIGGER names_insert INSTEAD OF INSERT ON names BEGIN
     INSERT INTO names_table VALUES (NEW.id, NEW.n); END",
    "CREATE TRIGGER names_update INSTEAD OF UPDATE ON names BEGIN
     UPDATE names_table SET n = NEW.n WHERE id = OLD.id; END",
    "CREATE TRIGGER names_delete INSTEAD OF DELETE ON names BEGIN
     DELETE FROM names_table WHERE id = OLD.id; END",
];

#[tokio::test]
async fn rows_of_a_view_are_counted_the_same_with_receipts_and_without() {
    use Outcome::*;
    let update = numbers(&["id", "n"], &[&[Some(1), Some(5)], &[Some(9), Some(5)], &[Some(9), Some(6)]]);
    let (_, answers, without_effect) = flush(&NAMES, &[rows_of("names", Operation::Update, update)]).await;
    assert_eq!((answers, without_effect), (vec![Ok(Updated), Ok(NotFound), Ok(NotFound)], 2));
    let delete = numbers(&["id"], &[&[Some(2)], &[Some(9)], &[Some(2)]]);
    let (_, answers, without_effect) = flush(&NAMES, &[rows_of("names", Operation::Delete, delete)]).await;
    assert_eq!((answers, without_effect), (vec![Ok(Deleted), Ok(NotFound), Ok(NotFound)], 2));
}

/// The table refuses with ROLLBACK, and so does one that its trigger writes: neither takes the other rows with it.
#[tokio::test]
async fn a_row_that_ends_the_transaction_is_rejected_alone() {
    let tables = [
        "CREATE TABLE log(n INTEGER UNIQUE ON CONFLICT ROLLBACK)",
        "CREATE TABLE t(id INTEGER PRIMARY KEY, n INTEGER NOT NULL UNIQUE ON CONFLICT ROLLBACK)",
        "CREATE TABLE u(id INTEGER PRIMARY KEY, n INTEGER)",
        "CREATE TRIGGER u_log AFTER INSERT ON u BEGIN INSERT INTO log VALUES (NEW.n); END",
    ];
    let rows: Vec<[Option<i64>; 2]> = (0..20).map(|id| [Some(id), Some(id / 2)]).collect();
    let rows: Vec<&[Option<i64>]> = rows.iter().map(|row| &row[..]).collect();
    let rows = numbers(&["id", "n"], &rows);
    for table in ["t", "u"] {
        let add = rows_of(table, Operation::Insert, rows.clone());
        let (store, answers, _) = flush(&tables, &[add]).await;
        for (row, answer) in answers.iter().enumerate() {
            assert_eq!(answer.is_ok(), row % 2 == 0, "{table}: row {row}: {answer:?}");
        }
        let count = format!("SELECT count(*) FROM {table}");
        assert_eq!(super::support::rows(&store, &count).await, ["10"]);
    }
}

/// However the clause is spaced, it must not drop rows in silence.
#[tokio::test]
async fn a_tables_own_conflict_clause_is_overruled() {
    let tables = [
        "CREATE TABLE log(n INTEGER)",
        "CREATE TABLE t(id INTEGER PRIMARY KEY, n INTEGER UNIQUE ON\n  CONFLICT REPLACE)",
        "CREATE TRIGGER t_log AFTER INSERT ON t BEGIN INSERT INTO log VALUES (NEW.n); END",
    ];
    let rows = numbers(&["id", "n"], &[&[Some(1), Some(1)], &[Some(2), Some(1)]]);
    let (_, answers, _) = flush(&tables, &[rows_of("t", Operation::Insert, rows)]).await;
    assert_eq!(answers, [Ok(Outcome::Inserted), Err(ErrorKind::UniqueViolation)]);
}

/// A unique index that looks at columns the rows don't set: a value is free only once it was released.
#[tokio::test]
async fn an_index_of_some_rows_or_of_a_computed_column_keeps_its_order() {
    let partial = "CREATE UNIQUE INDEX seat ON t(seat) WHERE taken = 1";
    let computed = "CREATE UNIQUE INDEX seat ON t(taken_seat)";
    for index in [partial, computed] {
        let tables = [
            "CREATE TABLE t(id INTEGER PRIMARY KEY, seat INTEGER, taken INTEGER, other INTEGER,
             taken_seat AS (CASE taken WHEN 1 THEN seat END))",
            "INSERT INTO t(id, seat, taken) VALUES (1, 7, 1), (2, 7, 0), (3, 0, 0)",
            index,
        ];
        let take = |id: i64, taken: i64| {
            rows_of("t", Operation::Update, numbers(&["id", "taken"], &[&[Some(id), Some(taken)]]))
        };
        let other = rows_of("t", Operation::Update, numbers(&["id", "other"], &[&[Some(3), Some(1)]]));
        let leave = rows_of("t", Operation::Upsert, numbers(&["id", "taken"], &[&[Some(1), Some(0)]]));
        // Grouped, the upsert would go first: its operation came first.
        let first = rows_of("t", Operation::Upsert, numbers(&["id", "taken"], &[&[Some(3), Some(0)]]));
        let (_, answers, _) = flush(&tables, &[first, take(2, 1), leave, other]).await;
        let expected = [
            Ok(Outcome::Updated),
            Err(ErrorKind::UniqueViolation),
            Ok(Outcome::Updated),
            Ok(Outcome::Updated),
        ];
        assert_eq!(answers, expected, "{index}");
    }
}

/// Written in another way, a table is still the same, and its rows keep their order. Grouped as two tables', the update would go
/// first.
#[tokio::test]
async fn a_table_has_one_name_however_it_is_written() {
    let tables = ["CREATE TABLE tasks(id INTEGER PRIMARY KEY, n INTEGER)", "INSERT INTO tasks VALUES (1, 1)"];
    for name in [TableName::new("TASKS"), TableName::in_schema("main", "Tasks")] {
        let key = numbers(&["id"], &[&[Some(1)]]);
        let table = Arc::new(Table::of_schema(name, key.schema_ref(), &["id"]).unwrap());
        let update = numbers(&["id", "n"], &[&[Some(1), Some(2)]]);
        let adds = [(table, Operation::Delete, key), rows_of("tasks", Operation::Update, update)];
        let (_, answers, _) = flush(&tables, &adds).await;
        assert_eq!(answers, [Ok(Outcome::Deleted), Ok(Outcome::NotFound)]);
    }
}

/// Foreign keys that wait for COMMIT: a parent may come later in the flush, and a row whose parent never comes is rejected alone.
#[tokio::test]
async fn a_row_that_breaks_a_deferred_foreign_key_is_rejected_alone() {
    let tables = [
        "CREATE TABLE parents(id INTEGER PRIMARY KEY)",
        "CREATE TABLE t(id INTEGER PRIMARY KEY, parent INTEGER REFERENCES parents DEFERRABLE INITIALLY DEFERRED)",
        "INSERT INTO parents VALUES (1)",
    ];
    let children = |parents: &[i64]| {
        let rows: Vec<[Option<i64>; 2]> =
            (0..).zip(parents).map(|(id, parent)| [Some(id), Some(*parent)]).collect();
        let rows: Vec<&[Option<i64>]> = rows.iter().map(|row| &row[..]).collect();
        rows_of("t", Operation::Insert, numbers(&["id", "parent"], &rows))
    };
    let parent = |id: i64| rows_of("parents", Operation::Insert, numbers(&["id"], &[&[Some(id)]]));
    let (_, answers, _) = flush(&tables, &[children(&[1, 2]), parent(2)]).await;
    assert_eq!(answers, [Ok(Outcome::Inserted); 3]);

    let (store, answers, _) = flush(&tables, &[children(&[1, 9, 2, 8]), parent(2)]).await;
    let broken = Err(ErrorKind::ForeignKeyViolation);
    let inserted = Ok(Outcome::Inserted);
    assert_eq!(answers, [inserted, broken, inserted, broken, inserted]);
    assert_eq!(rows(&store, "SELECT id FROM t").await, ["0", "2"]);

    // A delete that leaves children behind breaks the key too.
    let delete = rows_of("parents", Operation::Delete, numbers(&["id"], &[&[Some(1)]]));
    let (_, answers, _) = flush(&tables, &[children(&[1]), delete]).await;
    assert_eq!(answers, [inserted, broken]);
}
