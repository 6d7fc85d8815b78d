//! The search for failing rows, held against a second table that takes the same rows one by one.
//!
//! To run one case again: `BARGE_SEARCH_SEED=4711 cargo test -p barge-postgres --test it search`. `BARGE_SEARCH_SEEDS=200` runs more than usual.

use std::sync::Arc;

use arrow::array::{Int64Array, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema};
use barge_core::store::{CommitError, Outcome, Query, Step, Store, Target};
use barge_core::{Error, Operation, Result, Table};
use barge_postgres::PostgresOptions;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::support::{Fresh, words};

/// What the two tables have beside keys and CHECKs: each leads the search another way.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Has {
    Parents,
    Nothing,
    Triggers,
    Both,
}

/// The two tables, and rows in them.
async fn tables(has: Has) -> Fresh {
    let fresh = Fresh::with(&[
        "CREATE TABLE parents(id bigint PRIMARY KEY)",
        "INSERT INTO parents VALUES (0), (1), (2)",
    ])
    .await;
    fresh
        .run(
            "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
             IF new.n = 13 THEN RAISE EXCEPTION 'refused'; END IF;
             IF new.n = 14 THEN RETURN NULL; END IF;
             RETURN new; END $$",
        )
        .await;
    for name in ["searched", "one_by_one"] {
        fresh
            .run(&format!(
                "CREATE TABLE {name}(id bigint PRIMARY KEY, parent bigint, name text UNIQUE, n bigint NOT NULL CHECK (n >= 0))"
            ))
            .await;
        if matches!(has, Has::Parents | Has::Both) {
            fresh.run(&format!("ALTER TABLE {name} ADD FOREIGN KEY (parent) REFERENCES parents")).await;
        }
        if matches!(has, Has::Triggers | Has::Both) {
            fresh
                .run(&format!(
                    "CREATE TRIGGER refuse BEFORE INSERT OR UPDATE ON {name} FOR EACH ROW EXECUTE FUNCTION refuse()"
                ))
                .await;
        }
        fresh
            .run(&format!(
                "INSERT INTO {name} SELECT i * 50, 0, 'there ' || i, 1 FROM generate_series(0, 40) AS i"
            ))
            .await;
    }
    fresh
}

/// Rows of which one in `bad_one_in` breaks something.
fn rows(random: &mut StdRng, rows: i64, bad_one_in: u32, keep_out: bool) -> RecordBatch {
    let mut ids: Vec<i64> = (0..rows).map(|id| id * 2 + 1).collect();
    let mut parents: Vec<Option<i64>> = (0..rows).map(|id| (id % 4 != 0).then_some(id % 3)).collect();
    let mut names: Vec<Option<String>> =
        (0..rows).map(|id| (id % 5 != 0).then(|| format!("name {id}"))).collect();
    let mut numbers: Vec<i64> = vec![7; rows as usize];
    for row in 0..rows as usize {
        if !random.random_ratio(1, bad_one_in) {
            continue;
        }
        match random.random_range(0..8) {
            0 => ids[row] = random.random_range(0..40) * 50,
            1 => ids[row] = ids[random.random_range(0..=row)],
            2 => parents[row] = Some(99),
            3 => names[row] = Some(format!("there {}", random.random_range(0..40))),
            4 => names[row] = names[random.random_range(0..=row)].clone(),
            5 => numbers[row] = 13,
            // Kept out, if there are triggers: where that is so, it is known only row by row.
            6 if keep_out => numbers[row] = 14,
            _ => numbers[row] = -1,
        }
    }
    let fields = [
        ("id", DataType::Int64),
        ("parent", DataType::Int64),
        ("name", DataType::Utf8),
        ("n", DataType::Int64),
    ];
    let fields: Vec<Field> = fields.map(|(name, data_type)| Field::new(name, data_type, true)).into();
    RecordBatch::try_new(
        Arc::new(Schema::new(fields)),
        vec![
            Arc::new(Int64Array::from(ids)),
            Arc::new(Int64Array::from(parents)),
            Arc::new(StringArray::from_iter(names)),
            Arc::new(Int64Array::from(numbers)),
        ],
    )
    .unwrap()
}

async fn step(fresh: &Fresh, name: &str, operation: Operation, batch: &RecordBatch) -> Step {
    let table = Table::of_schema(name, &batch.schema(), &["id"]).unwrap();
    let description = fresh.db.store().describe(table.name()).await.unwrap();
    let target = Target::new(&table, operation, Arc::new(description)).unwrap();
    Step { batch: target.project(batch).unwrap(), target: Arc::new(target), outcomes: true }
}

async fn searched(fresh: &Fresh, operation: Operation, batch: &RecordBatch) -> Vec<Result<Outcome, Error>> {
    let step = step(fresh, "searched", operation, batch).await;
    let mut transaction = fresh.db.store().begin().await.unwrap();
    let applied = transaction.apply_rows(&step).await.unwrap();
    transaction.commit().await.unwrap();
    applied.outcomes
}

async fn one_by_one(fresh: &Fresh, operation: Operation, batch: &RecordBatch) -> Vec<Result<Outcome, Error>> {
    let step = step(fresh, "one_by_one", operation, batch).await;
    let mut answers = Vec::new();
    let mut transaction = fresh.db.store().begin().await.unwrap();
    for row in 0..batch.num_rows() {
        let one = Step { batch: step.batch.slice(row, 1), ..step.clone() };
        answers.push(transaction.apply(&one).await.map(|applied| applied.outcomes.unwrap()[0]));
    }
    transaction.commit().await.unwrap();
    answers
}

#[tokio::test(flavor = "multi_thread")]
async fn failing_rows_are_those_that_would_fail_one_by_one() {
    for has in [Has::Parents, Has::Nothing, Has::Triggers, Has::Both] {
        search_in(has).await;
    }
}

async fn search_in(has: Has) {
    let only: Option<u64> = std::env::var("BARGE_SEARCH_SEED").ok().and_then(|seed| seed.parse().ok());
    let fresh = tables(has).await;
    let seeds = std::env::var("BARGE_SEARCH_SEEDS").map_or(12, |seeds| seeds.parse().unwrap());
    for seed in (0..seeds).filter(|seed| only.is_none_or(|only| only == *seed)) {
        let mut random = StdRng::seed_from_u64(seed);
        let operation = [
            Operation::Insert,
            Operation::Upsert,
            Operation::Insert,
            Operation::InsertIfAbsent,
            Operation::Insert,
            Operation::Update,
        ][seed as usize % 6];
        let count = [70, 300, 1_200][random.random_range(0..3)];
        let bad_one_in = [3, 20, 200][random.random_range(0..3)];
        let keep_out = random.random_ratio(1, 4);
        let batch = rows(&mut random, count, bad_one_in, keep_out);
        let (left, right) =
            (searched(&fresh, operation, &batch).await, one_by_one(&fresh, operation, &batch).await);
        let what = format!(
            "BARGE_SEARCH_SEED={seed}, a table with {has:?}: {operation} of {count} rows, one in {bad_one_in} bad"
        );
        for (row, (left, right)) in words(&left).iter().zip(words(&right)).enumerate() {
            assert_eq!(*left, right, "{what}, row {row}");
        }
        let constraints = |answers: &[Result<Outcome, Error>]| -> Vec<Option<String>> {
            let constraint =
                |error: &Error| error.constraint().map(|name| name.replace("one_by_one", "searched"));
            answers.iter().map(|answer| answer.as_ref().err().and_then(constraint)).collect()
        };
        for (row, (left, right)) in constraints(&left).into_iter().zip(constraints(&right)).enumerate() {
            assert_eq!(left, right, "{what}, the constraint of row {row}");
        }
        let difference = "(SELECT * FROM searched EXCEPT SELECT * FROM one_by_one) UNION ALL \
                          (SELECT * FROM one_by_one EXCEPT SELECT * FROM searched)";
        assert_eq!(fresh.rows(difference).await, Vec::<String>::new(), "{what}");
        for name in ["searched", "one_by_one"] {
            fresh.run(&format!("DELETE FROM {name} WHERE id % 50 <> 0 OR id > 2000")).await;
        }
    }
}

/// Tables whose constraints are not what they look like at first sight: what is pointed at for many rows at once must not be more than what
/// fails.
const AWKWARD: [(&str, &[&str]); 8] = [
    (
        "a key over some rows",
        &[
            "CREATE TABLE {t}(id bigint PRIMARY KEY, a bigint, b text)",
            "CREATE UNIQUE INDEX ON {t}(b) WHERE a % 2 = 0",
        ],
    ),
    ("NULL in a key", &["CREATE TABLE {t}(id bigint PRIMARY KEY, a bigint, b text, UNIQUE (a, b))"]),
    (
        "rows of a table that inherits",
        &[
            "CREATE TABLE {t}(id bigint PRIMARY KEY, a bigint, b text)",
            "CREATE TABLE {t}_child() INHERITS ({t})",
            "INSERT INTO {t}_child SELECT i * 40, 1, 'b' FROM generate_series(0, 30) AS i",
        ],
    ),
    (
        "a CHECK of the whole row",
        &["CREATE TABLE {t}(id bigint PRIMARY KEY, a bigint, b text, n bigint DEFAULT 1,
           CHECK (a IS DISTINCT FROM 3 AND to_jsonb({t}.*) ->> 'n' IS NOT NULL))"],
    ),
    (
        "a CHECK of a column left out",
        &["CREATE TABLE {t}(id bigint PRIMARY KEY, a bigint, b text, n bigint DEFAULT 3, CHECK (a <> n))"],
    ),
    (
        "an index with a collation of its own",
        &[
            "CREATE COLLATION IF NOT EXISTS ci (provider = icu, locale = 'und-u-ks-level2', deterministic = false)",
            "CREATE TABLE {t}(id bigint PRIMARY KEY, a bigint, b text COLLATE ci)",
            "CREATE UNIQUE INDEX ON {t}(b COLLATE \"C\")",
        ],
    ),
    (
        "a trigger of updates",
        &[
            "CREATE TABLE {t}(id bigint PRIMARY KEY, a bigint CHECK (a <> 3), b text)",
            "CREATE OR REPLACE FUNCTION touched() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN new; END'",
            "CREATE TRIGGER touched BEFORE UPDATE ON {t} FOR EACH ROW EXECUTE FUNCTION touched()",
        ],
    ),
    (
        "a trigger that makes room",
        &[
            "CREATE TABLE {t}(id bigint PRIMARY KEY, a bigint, b text)",
            "CREATE FUNCTION {t}_room() RETURNS trigger LANGUAGE plpgsql AS
             'BEGIN DELETE FROM {t} WHERE id = new.id AND new.a % 2 = 0; RETURN new; END'",
            "CREATE TRIGGER room BEFORE INSERT ON {t} FOR EACH ROW EXECUTE FUNCTION {t}_room()",
        ],
    ),
];

/// Rows with keys that are there, that repeat, and values that repeat but for their case.
fn awkward_rows(repeats: usize) -> RecordBatch {
    let count: i64 = 1_000;
    let id = |row: i64| match row % 97 {
        5 => row / 97 * 40,
        6..=8 => 40_000 + row % repeats as i64,
        _ => 10_000 + row,
    };
    let fields = [("id", DataType::Int64), ("a", DataType::Int64), ("b", DataType::Utf8)];
    let fields: Vec<Field> = fields.map(|(name, data_type)| Field::new(name, data_type, true)).into();
    RecordBatch::try_new(
        Arc::new(Schema::new(fields)),
        vec![
            Arc::new(Int64Array::from_iter_values((0..count).map(id))),
            Arc::new(Int64Array::from_iter((0..count).map(|row| (row % 50 != 0).then_some(row % 50 % 23)))),
            Arc::new(StringArray::from_iter((0..count).map(|row| match row % 50 {
                0 | 1 => Some(format!("b{}", row / 100)),
                2 => Some(format!("B{}", row / 100)),
                3 => None,
                _ => Some(format!("{row}")),
            }))),
        ],
    )
    .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_pointed_at_is_what_fails() {
    for (what, sql) in AWKWARD {
        let fresh = Fresh::with(&[]).await;
        for name in ["searched", "one_by_one"] {
            for statement in sql {
                fresh.run(&statement.replace("{t}", name)).await;
            }
            fresh
                .run(&format!(
                    "INSERT INTO {name}(id, a, b) SELECT i * 80, CASE WHEN i % 3 <> 0 THEN i % 2 + 4 END, 'b' || i
                     FROM generate_series(0, 20) AS i"
                ))
                .await;
        }
        for repeats in [3, 60] {
            let batch = awkward_rows(repeats);
            let left = searched(&fresh, Operation::Insert, &batch).await;
            let right = one_by_one(&fresh, Operation::Insert, &batch).await;
            let failed = left.iter().filter(|answer| answer.is_err()).count();
            assert!((3..1_000).contains(&failed), "{what}: {failed} rows failed");
            for (row, (left, right)) in words(&left).iter().zip(words(&right)).enumerate() {
                assert_eq!(*left, right, "{what}, row {row}");
            }
            fresh.run("DELETE FROM ONLY searched WHERE id >= 10000").await;
            fresh.run("DELETE FROM ONLY one_by_one WHERE id >= 10000").await;
        }
    }
}

/// Rows of which each is there or not, and none has a parent: what has nothing to write is held against no foreign key.
#[tokio::test(flavor = "multi_thread")]
async fn rows_that_write_nothing_need_no_parent() {
    // Whether a row that is there has something to write, and so comes first, as the row by which the others would be judged.
    for (operation, there_first, missing) in [
        (Operation::Update, true, "NotFound"),
        (Operation::InsertIfAbsent, false, "Unchanged"),
        (Operation::Upsert, true, "ForeignKeyViolation"),
    ] {
        let fresh = tables(Has::Parents).await;
        let mut batch = rows(&mut StdRng::seed_from_u64(1), 80, u32::MAX, false);
        let id = |row: i64| row / 2 * 50 + i64::from((row % 2 == 0) != there_first);
        let mut columns = batch.columns().to_vec();
        columns[0] = Arc::new(Int64Array::from_iter_values((0..80).map(id)));
        columns[1] = Arc::new(Int64Array::from(vec![99; 80]));
        batch = RecordBatch::try_new(batch.schema(), columns).unwrap();
        let answers = words(&searched(&fresh, operation, &batch).await);
        let expected: Vec<&str> = [["ForeignKeyViolation", missing]; 40].concat();
        assert_eq!(answers, expected, "{operation}");
        assert_eq!(words(&one_by_one(&fresh, operation, &batch).await), expected, "{operation}");
    }
}

/// A CHECK may look at rows of the table, which aren't there when it is evaluated over the batch.
#[tokio::test(flavor = "multi_thread")]
async fn a_check_that_reads_the_table_sees_the_rows_before() {
    let fresh = Fresh::with(&[]).await;
    for name in ["searched", "one_by_one"] {
        for sql in [
            "CREATE TABLE {t}(id bigint PRIMARY KEY, a bigint)",
            "CREATE FUNCTION {t}_known(bigint) RETURNS boolean LANGUAGE plpgsql AS
             'BEGIN RETURN $1 IS NULL OR EXISTS (SELECT FROM {t} WHERE id = $1); END'",
            "ALTER TABLE {t} ADD CHECK ({t}_known(a))",
        ] {
            fresh.run(&sql.replace("{t}", name)).await;
        }
    }
    // The first names a row that is nowhere, the second none, and each of the others the one before.
    let before = |row: i64| match row {
        0 => Some(-1),
        1 => None,
        row => Some(row - 1),
    };
    let fields = [("id", DataType::Int64), ("a", DataType::Int64)];
    let fields: Vec<Field> = fields.map(|(name, data_type)| Field::new(name, data_type, true)).into();
    let batch = RecordBatch::try_new(
        Arc::new(Schema::new(fields)),
        vec![
            Arc::new(Int64Array::from_iter_values(0..300)),
            Arc::new(Int64Array::from_iter((0..300).map(before))),
        ],
    )
    .unwrap();
    let answers = words(&searched(&fresh, Operation::Insert, &batch).await);
    assert_eq!(answers, words(&one_by_one(&fresh, Operation::Insert, &batch).await));
    assert_eq!(answers.iter().filter(|answer| *answer == "Inserted").count(), 299, "{:?}", &answers[..5]);
}

/// A way back that the server refused, which nobody waited for: whatever comes next fails for that, and not for a fault of its rows.
#[tokio::test(flavor = "multi_thread")]
async fn a_refused_way_back_ends_the_transaction_with_the_next_call() {
    let fresh = tables(Has::Nothing).await;
    let options = PostgresOptions::from_url(&fresh.url()).unwrap().pool_size(1);
    let store = options.open().await.unwrap();
    let mut random = StdRng::seed_from_u64(1);
    let batch = rows(&mut random, 300, u32::MAX, false);
    let all = step(&fresh, "searched", Operation::Insert, &batch).await;
    let few = Step { batch: all.batch.slice(0, 5), ..all.clone() };
    for call in ["execute", "over", "describe", "apply", "apply few rows", "apply rows", "commit"] {
        let mut transaction = store.begin().await.unwrap();
        transaction.apply(&few).await.unwrap();
        // The step's own savepoint is gone when it is to be released.
        transaction.execute("RELEASE SAVEPOINT barge_step").await.unwrap();
        let failed = match call {
            "execute" => transaction.execute("SELECT 1").await.map(drop),
            "over" => transaction.over(&Query::new("SELECT 1")).await.map(drop),
            "describe" => transaction.describe(&"searched".into()).await.map(drop),
            "apply" => transaction.apply(&all).await.map(drop),
            "apply few rows" => transaction.apply_rows(&few).await.map(drop),
            "apply rows" => transaction.apply_rows(&all).await.map(drop),
            _ => Ok(()),
        };
        if call != "commit" {
            assert_eq!(failed.unwrap_err().code(), Some("25P02"), "{call}");
            assert!(!transaction.is_open(), "{call}");
        }
        let committed = transaction.commit().await;
        assert!(matches!(committed, Err(CommitError::RolledBack(_))), "{call}: {committed:?}");
        let mut next = store.begin().await.unwrap();
        next.execute("UPDATE searched SET n = n + 1 WHERE id = 0").await.unwrap();
        next.commit().await.unwrap();
    }
    assert_eq!(fresh.rows("SELECT count(*), max(n) FROM searched").await, ["41|8"]);
}
