//! Rows that fail, or can't be done, and those beside them that must not suffer for it.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, Decimal128Array, Int64Array, ListArray, RecordBatch, StringArray, Time64MicrosecondArray,
    UInt64Array,
};
use arrow::datatypes::Field;
use barge_core::record::{Column, Role};
use barge_core::store::{AppliedRows, Operation, Outcome, Step, Target};
use barge_core::{ErrorKind, Store, Table};
use barge_duckdb::{DuckDbOptions, DuckDbStore};

use super::{execute, number, query, step};

async fn store(sql: &[&str]) -> DuckDbStore {
    let store = DuckDbStore::open("duckdb::memory:").await.unwrap();
    execute(&store, sql).await;
    store
}

fn with_ids(name: &str, values: ArrayRef) -> RecordBatch {
    let ids: ArrayRef = Arc::new(Int64Array::from_iter_values(0..values.len() as i64));
    RecordBatch::try_from_iter([("id", ids), (name, values)]).unwrap()
}

fn texts<T: AsRef<str>>(name: &str, values: impl IntoIterator<Item = T>) -> RecordBatch {
    with_ids(name, Arc::new(StringArray::from_iter_values(values)))
}

async fn apply_rows(store: &DuckDbStore, step: &Step) -> AppliedRows {
    let mut transaction = store.begin().await.unwrap();
    let applied = transaction.apply_rows(step).await.unwrap();
    transaction.commit().await.unwrap();
    applied
}

fn failing(applied: &AppliedRows) -> Vec<usize> {
    let outcomes = applied.outcomes.iter().enumerate();
    outcomes.filter(|(_, outcome)| outcome.is_err()).map(|(row, _)| row).collect()
}

/// Two thousand of ten thousand: each found by trying would be a transaction done again.
#[tokio::test]
async fn rows_that_break_an_index_over_expressions_are_foreseen() {
    let store = store(&[
        "CREATE TABLE t(id BIGINT PRIMARY KEY, email VARCHAR, \"e mail\" VARCHAR)",
        "CREATE UNIQUE INDEX by_email ON t((lower(email)), (concat(\"e mail\", ', ''x''')))",
        "INSERT INTO t(id, email) SELECT -1 - range, 'Someone' || (range * 5) FROM range(2000)",
    ])
    .await;
    let description = store.describe(&"t".into()).await.unwrap();
    let index = description.unique.iter().find(|unique| unique.name == "by_email").unwrap();
    assert_eq!(index.columns, [None, None]);
    for operation in [Operation::Insert, Operation::Upsert] {
        let emails = (0..10_000).map(|row| format!("SOMEONE{row}"));
        let rows = step(&store, "t", operation, texts("email", emails), 1).await;
        let applied = apply_rows(&store, &rows).await;
        assert_eq!(failing(&applied).len(), 2_000, "{operation}");
        let error = applied.outcomes[5].as_ref().unwrap_err();
        assert_eq!(
            (error.kind(), error.constraint()),
            (ErrorKind::UniqueViolation, Some("by_email")),
            "{error:?}"
        );
        assert!(applied.statements < 10, "{operation}: {} statements", applied.statements);
        execute(&store, &["DELETE FROM t WHERE id >= 0"]).await;
    }
}

/// Text that only DuckDB can tell to be no value of a type, also in a key.
#[tokio::test]
async fn malformed_text_of_duckdbs_own_types_is_foreseen() {
    let store = store(&[
        "CREATE TABLE t(id BIGINT PRIMARY KEY, span INTERVAL)",
        "CREATE TABLE k(span TIMETZ PRIMARY KEY, n BIGINT)",
    ])
    .await;
    let spans: Vec<String> = (0..10_000)
        .map(|row| if row % 5 == 4 { format!("no span {row}") } else { format!("{row} days") })
        .collect();
    for operation in [Operation::Insert, Operation::Upsert, Operation::Update] {
        let rows = step(&store, "t", operation, texts("span", &spans), 1).await;
        let mut transaction = store.begin().await.unwrap();
        let applied = transaction.apply_rows(&rows).await.unwrap();
        assert_eq!(failing(&applied).len(), 2_000, "{operation}");
        let error = applied.outcomes[4].as_ref().unwrap_err();
        assert_eq!(
            (error.kind(), error.column(), error.row()),
            (ErrorKind::InvalidValue, Some("span"), Some(4))
        );
        assert!(
            error.message().contains("'no span 4'") && applied.statements < 10,
            "{error} {}",
            applied.statements
        );
        transaction.commit().await.unwrap();
    }
    let times = (0..10_000).map(|row| match row % 5 {
        4 => format!("no time {row}"),
        _ => format!("{:02}:{:02}:{:02}+00", row / 3_600, row / 60 % 60, row % 60),
    });
    let keys: ArrayRef = Arc::new(StringArray::from_iter_values(times));
    let n: ArrayRef = Arc::new(Int64Array::from_iter_values(0..10_000));
    let batch = RecordBatch::try_from_iter([("span", keys), ("n", n)]).unwrap();
    for operation in [Operation::Upsert, Operation::InsertIfAbsent, Operation::Update, Operation::Delete] {
        let rows = step(&store, "k", operation, batch.clone(), 1).await;
        let keys = rows.batch.project(&rows.target.key).unwrap();
        let groups = store.key_groups(&rows.target, &keys).await.unwrap();
        assert!(groups[4] != groups[9] && groups.len() == 10_000);
        let applied = apply_rows(&store, &rows).await;
        assert_eq!(failing(&applied).len(), 2_000, "{operation}");
        assert!(applied.statements < 10, "{operation}: {} statements", applied.statements);
        // The fast way names the row, too.
        let error = store.transact(None, &[rows]).await.unwrap_err();
        assert_eq!(
            (error.error().kind(), error.error().row()),
            (ErrorKind::InvalidValue, Some(4)),
            "{operation}: {error:?}"
        );
    }
}

/// However rows fail, those before them are done again by one statement.
#[tokio::test]
async fn what_no_query_foresees_is_done_again_as_one() {
    let store = store(&[
        "CREATE TABLE t(id BIGINT PRIMARY KEY, x VARCHAR COLLATE NOCASE)",
        "CREATE UNIQUE INDEX by_x ON t((x || ''))",
    ])
    .await;
    let values = (0..2_000).map(|row| format!("value {}", if row % 100 == 99 { row - 1 } else { row }));
    let rows = step(&store, "t", Operation::Insert, texts("x", values), 1).await;
    let begun = std::time::Instant::now();
    let applied = apply_rows(&store, &rows).await;
    assert_eq!(failing(&applied), (0..20).map(|row| row * 100 + 99).collect::<Vec<_>>());
    assert!(begun.elapsed().as_secs() < 60);
    assert_eq!(number(&store, "SELECT count(*) FROM t").await, 1_980);
}

/// DuckDB replaces rows of which an indexed column or a list is set, and no others.
#[tokio::test]
async fn only_what_duckdb_replaces_is_refused_where_others_name_the_row() {
    let store = store(&[
        "CREATE TABLE teams(id BIGINT PRIMARY KEY, code VARCHAR, cod VARCHAR, span INTERVAL, s STRUCT(a INTEGER), l STRUCT(a INTEGER[]), m MAP(VARCHAR, INTEGER))",
        "CREATE INDEX by_code ON teams((lower(code)))",
        "CREATE TABLE members(id BIGINT PRIMARY KEY, team BIGINT REFERENCES teams(id))",
        "INSERT INTO teams(id) VALUES (0), (1)",
        "INSERT INTO members VALUES (1, 0)",
    ])
    .await;
    for (column, value, refused) in [
        ("cod", "x", false),
        ("span", "1 day", false),
        ("s", "{'a': 1}", false),
        ("code", "x", true),
        ("l", "{'a': [1]}", true),
        ("m", "{a=1}", true),
    ] {
        for operation in [Operation::Update, Operation::Upsert] {
            // A neighbour that fails has the flush go row by row.
            let rows = step(&store, "teams", operation, texts(column, [value, value]), 1).await;
            let applied = apply_rows(&store, &rows).await;
            assert_eq!(
                failing(&applied),
                if refused { vec![0] } else { vec![] },
                "{operation} {column}: {:?}",
                applied.outcomes
            );
            let whole = store.transact(None, &[rows]).await;
            assert_eq!(whole.is_err(), refused, "{operation} {column}: DuckDB itself");
        }
    }
}

#[tokio::test]
async fn foreign_keys_compare_bytes_whatever_the_collation() {
    let store = store(&[
        "CREATE TABLE p(k VARCHAR COLLATE NOCASE PRIMARY KEY, n BIGINT)",
        "CREATE TABLE c(id BIGINT PRIMARY KEY, k VARCHAR COLLATE NOCASE REFERENCES p(k))",
        "INSERT INTO p VALUES ('a', 1), ('B', 2)",
        "INSERT INTO c VALUES (100, 'a')",
    ])
    .await;
    let rows = step(&store, "c", Operation::Insert, texts("k", ["a", "A", "b", "B"]), 1).await;
    let applied = apply_rows(&store, &rows).await;
    assert_eq!(failing(&applied), [1, 2], "{:?}", applied.outcomes);
    assert_eq!(applied.outcomes[1].as_ref().unwrap_err().kind(), ErrorKind::ForeignKeyViolation);
    let keys: ArrayRef = Arc::new(StringArray::from(vec!["A"]));
    execute(&store, &["INSERT INTO p VALUES ('A', 3)"]).await;
    let delete =
        step(&store, "p", Operation::Delete, RecordBatch::try_from_iter([("k", keys)]).unwrap(), 1).await;
    assert_eq!(apply_rows(&store, &delete).await.outcomes[0].as_ref().unwrap(), &Outcome::Deleted);
}

/// A given key beyond what a sequence draws was once replaced by a drawn one.
#[tokio::test]
async fn a_given_key_is_never_replaced() {
    let store = store(&[
        "CREATE SEQUENCE ids",
        "CREATE TABLE t(id UBIGINT PRIMARY KEY DEFAULT nextval('ids'), n BIGINT)",
    ])
    .await;
    let ids: ArrayRef = Arc::new(UInt64Array::from(vec![None, Some(u64::MAX), Some(7)]));
    let n: ArrayRef = Arc::new(Int64Array::from(vec![1, 2, 3]));
    let batch = RecordBatch::try_from_iter([("id", ids), ("n", n)]).unwrap();
    let fields = batch.schema();
    let id = Column::new(Field::clone(fields.field(0))).with_role(Role::GeneratedKey);
    let table = Table::new("t", vec![id, Column::new(Field::clone(fields.field(1)))]).unwrap();
    let description = Arc::new(store.describe(table.name()).await.unwrap());
    let target = Arc::new(Target::new(&table, Operation::Insert, description).unwrap());
    let rejected = store.check(&target, &batch);
    assert_eq!(
        rejected.iter().map(|(row, error)| (*row, error.kind())).collect::<Vec<_>>(),
        [(1, ErrorKind::InvalidValue)]
    );
    let step = Step { target, batch: batch.clone(), outcomes: true };
    let error = store.transact(None, std::slice::from_ref(&step)).await.unwrap_err();
    assert_eq!((error.error().kind(), error.error().row()), (ErrorKind::InvalidValue, Some(1)), "{error:?}");
    let good =
        arrow::compute::take_record_batch(&batch, &arrow::array::UInt32Array::from(vec![0, 2])).unwrap();
    let applied = store.transact(None, &[Step { batch: good, ..step }]).await.unwrap().unwrap();
    assert_eq!(applied[0].generated.as_ref().unwrap().values(), &[1, 7]);
}

/// What DuckDB takes as it is, and then holds as no value of its type.
#[tokio::test]
async fn values_that_are_none_of_their_type_are_refused() {
    let store =
        store(&["CREATE TABLE t(id BIGINT PRIMARY KEY, j JSON[], t TIME, ts TIME[], d DECIMAL(4,1))"]).await;
    let refused = async |name: &str, values: ArrayRef| {
        let step = step(&store, "t", Operation::Insert, with_ids(name, values), 1).await;
        let rejected = store.check(&step.target, &step.batch);
        assert!(rejected.iter().all(|(_, error)| error.kind() == ErrorKind::InvalidValue), "{rejected:?}");
        rejected.into_iter().map(|(row, _)| row).collect::<Vec<_>>()
    };
    let mut json = arrow::array::ListBuilder::new(arrow::array::StringBuilder::new());
    for items in [vec!["1", "{\"a\": null}"], vec!["1", "{"], vec![]] {
        items.into_iter().for_each(|item| json.values().append_value(item));
        json.append(true);
    }
    let json: ListArray = json.finish();
    assert_eq!(refused("j", Arc::new(json.clone())).await, [1]);
    assert_eq!(refused("j", Arc::new(json.slice(1, 2))).await, [0]);
    let times = Time64MicrosecondArray::from(vec![0, 86_399_999_999, 86_400_000_000, -1]);
    assert_eq!(refused("t", Arc::new(times)).await, [2, 3]);
    let decimals =
        Decimal128Array::from(vec![9_999, 10_000, -10_000]).with_precision_and_scale(4, 1).unwrap();
    assert_eq!(refused("d", Arc::new(decimals)).await, [1, 2]);
}

/// The catalog doesn't tell which columns are computed; the statement that made the table does, if it is read as one.
#[tokio::test]
async fn fields_and_texts_are_no_definitions() {
    let store = store(&[
        "CREATE TABLE t(id BIGINT PRIMARY KEY, s STRUCT(a INTEGER, b INTEGER), note VARCHAR DEFAULT 'x, a INTEGER GENERATED ALWAYS AS', \
         a INTEGER, b INTEGER GENERATED ALWAYS AS (a + 1), \"c d\" VARCHAR COLLATE NOCASE, e VARCHAR DEFAULT ' COLLATE NOCASE')",
    ])
    .await;
    let description = store.describe(&"t".into()).await.unwrap();
    let of = |which: fn(&barge_core::store::DescribedColumn) -> bool| {
        let columns = description.columns.iter().filter(|column| which(column));
        columns.map(|column| column.name.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(of(|column| column.computed), ["b"]);
    assert_eq!(of(|column| column.collation.is_some()), ["c d"]);
}

/// What DuckDB itself lets happen, so that a release that doesn't is noticed: docs/guarantees.md says so.
#[tokio::test]
async fn two_stores_can_leave_a_child_without_its_parent() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("shared.duckdb");
    let one = DuckDbOptions::file(&path).open().await.unwrap();
    let other = DuckDbOptions::file(&path).open().await.unwrap();
    let statements = [
        "CREATE TABLE p(id BIGINT PRIMARY KEY)",
        "CREATE TABLE c(id BIGINT PRIMARY KEY, p BIGINT REFERENCES p(id))",
        "INSERT INTO p VALUES (1)",
    ];
    execute(&one, &statements).await;
    let mut removes = one.begin().await.unwrap();
    let mut inserts = other.begin().await.unwrap();
    removes.execute("DELETE FROM p WHERE id = 1").await.unwrap();
    inserts.execute("INSERT INTO c VALUES (7, 1)").await.unwrap();
    removes.commit().await.unwrap();
    inserts.commit().await.unwrap();
    assert_eq!(number(&one, "SELECT count(*) FROM c ANTI JOIN p ON c.p = p.id").await, 1);
    assert_eq!(query(&one, "SELECT * FROM c").await.num_rows(), 1);
}

/// Rows that meet earlier ones wait, all of them, until those are written: however many they are, it takes a few statements.
#[tokio::test]
async fn duplicates_in_a_batch_take_a_few_statements() {
    let store = store(&["CREATE TABLE t(id BIGINT PRIMARY KEY, n BIGINT)"]).await;
    let ids: ArrayRef = Arc::new(Int64Array::from_iter_values((0..4_000).map(|row| row / 2)));
    let n: ArrayRef = Arc::new(Int64Array::from_iter_values(0..4_000));
    let batch = RecordBatch::try_from_iter([("id", ids), ("n", n)]).unwrap();
    let rows = step(&store, "t", Operation::Insert, batch, 1).await;
    let applied = apply_rows(&store, &rows).await;
    assert_eq!(failing(&applied), (0..2_000).map(|row| row * 2 + 1).collect::<Vec<_>>());
    for (row, outcome) in applied.outcomes.iter().enumerate() {
        match outcome {
            Ok(outcome) => assert_eq!(*outcome, Outcome::Inserted),
            Err(error) => {
                assert_eq!(
                    (error.kind(), error.row()),
                    (ErrorKind::UniqueViolation, Some(row as u64)),
                    "{error:?}"
                );
            }
        }
    }
    assert!(applied.statements <= 4, "{} statements", applied.statements);
    assert_eq!(number(&store, "SELECT sum(n)::BIGINT FROM t").await, 3_998_000);
}

/// A check may name its columns by their table.
#[tokio::test]
async fn a_check_that_names_its_table_takes_no_good_rows() {
    let store = store(&["CREATE TABLE t(id BIGINT PRIMARY KEY, a BIGINT, CHECK (t.a > 0))"]).await;
    let values = with_ids("a", Arc::new(Int64Array::from(vec![5, -1, 7])));
    let rows = step(&store, "t", Operation::InsertIfAbsent, values, 1).await;
    let applied = apply_rows(&store, &rows).await;
    assert_eq!(failing(&applied), [1], "{:?}", applied.outcomes);
    let ids: ArrayRef = Arc::new(Int64Array::from(vec![10, 0, 11, 12]));
    let values: ArrayRef = Arc::new(Int64Array::from(vec![1, 1, -5, 1]));
    let batch = RecordBatch::try_from_iter([("id", ids), ("a", values)]).unwrap();
    let rows = step(&store, "t", Operation::Insert, batch, 1).await;
    let applied = apply_rows(&store, &rows).await;
    assert_eq!(failing(&applied), [1, 2], "{:?}", applied.outcomes);
    assert_eq!(applied.outcomes[2].as_ref().unwrap_err().kind(), ErrorKind::CheckViolation);
}

/// An update leaves columns that it doesn't set as they are: they are asked nothing.
#[tokio::test]
async fn an_update_is_asked_after_what_it_sets() {
    let store = store(&[
        "CREATE TABLE t(id BIGINT PRIMARY KEY, a BIGINT, n BIGINT CHECK (n > 0))",
        "INSERT INTO t VALUES (0, 1, 1), (1, 1, 1)",
    ])
    .await;
    let rows = with_ids("a", Arc::new(Int64Array::from(vec![7, 8])));
    let rows = step(&store, "t", Operation::Update, rows, 1).await;
    assert!(failing(&apply_rows(&store, &rows).await).is_empty());
    let rows = with_ids("n", Arc::new(Int64Array::from(vec![7, -8])));
    let rows = step(&store, "t", Operation::Update, rows, 1).await;
    assert_eq!(failing(&apply_rows(&store, &rows).await), [1]);
}
