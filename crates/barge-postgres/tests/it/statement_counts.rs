//! How many statements a step takes, where triggers have a say.

use std::sync::Arc;

use arrow::array::{Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema};
use barge_core::store::{Applied, Outcome, Step, Target};
use barge_core::{Operation, Table};

use crate::support::{Fresh, words};

/// A table with 1,000 rows, and functions for its triggers.
async fn table(trigger: &str) -> Fresh {
    Fresh::with(&[
        "CREATE TABLE t(id bigint PRIMARY KEY, n bigint)",
        "INSERT INTO t SELECT i, 0 FROM generate_series(0, 999) AS i",
        "CREATE FUNCTION pass() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN new; END'",
        "CREATE FUNCTION keep_out() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'",
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
         $$ BEGIN IF new.n = 13 THEN RAISE EXCEPTION 'refused'; END IF; RETURN NULL; END $$",
        trigger,
    ])
    .await
}

/// A row for each id, with what `n` says.
async fn step(
    fresh: &Fresh,
    operation: Operation,
    ids: std::ops::Range<i64>,
    n: impl Fn(i64) -> i64,
) -> Step {
    let fields = ["id", "n"].map(|name| Field::new(name, DataType::Int64, true));
    let numbers = Int64Array::from_iter_values(ids.clone().map(n));
    let columns: [Arc<dyn arrow::array::Array>; 2] =
        [Arc::new(Int64Array::from_iter_values(ids)), Arc::new(numbers)];
    let batch = RecordBatch::try_new(Arc::new(Schema::new(Vec::from(fields))), columns.into()).unwrap();
    let table = Table::of_schema("t", &batch.schema(), &["id"]).unwrap();
    let description = fresh.db.store().describe(table.name()).await.unwrap();
    let target = Target::new(&table, operation, Arc::new(description)).unwrap();
    Step { batch, target: Arc::new(target), outcomes: true }
}

async fn applied(fresh: &Fresh, step: &Step) -> Applied {
    let mut transaction = fresh.db.store().begin().await.unwrap();
    let applied = transaction.apply(step).await.unwrap();
    transaction.commit().await.unwrap();
    applied
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_that_are_there_take_one_statement_whatever_the_trigger() {
    for event in ["INSERT", "UPDATE", "INSERT OR UPDATE"] {
        let fresh =
            table(&format!("CREATE TRIGGER pass BEFORE {event} ON t FOR EACH ROW EXECUTE FUNCTION pass()"))
                .await;
        for (operation, outcome) in
            [(Operation::InsertIfAbsent, Outcome::Unchanged), (Operation::Upsert, Outcome::Updated)]
        {
            let applied = applied(&fresh, &step(&fresh, operation, 0..1_000, |_| 1).await).await;
            assert_eq!(applied.outcomes.unwrap(), [outcome; 1_000], "{operation}, {event}");
            assert_eq!(applied.statements, 1, "{operation}, {event}");
        }
        // Some are there, some not: one statement more says that none of them was kept out.
        let applied =
            applied(&fresh, &step(&fresh, Operation::InsertIfAbsent, 500..1_500, |_| 1).await).await;
        assert_eq!(applied.outcomes.unwrap(), [[Outcome::Unchanged; 500], [Outcome::Inserted; 500]].concat());
        assert!(applied.statements <= 2, "{} statements, {event}", applied.statements);
    }
}

/// As partitions were made before there were any: the trigger puts the row somewhere else.
#[tokio::test(flavor = "multi_thread")]
async fn rows_that_a_trigger_keeps_out_take_one_statement_if_all_are() {
    let fresh =
        table("CREATE TRIGGER away BEFORE INSERT ON t FOR EACH ROW EXECUTE FUNCTION keep_out()").await;
    for operation in [Operation::Insert, Operation::InsertIfAbsent, Operation::Upsert] {
        for count in [50, 1_000] {
            let applied = applied(&fresh, &step(&fresh, operation, 5_000..5_000 + count, |_| 1).await).await;
            assert_eq!(applied.outcomes.unwrap(), vec![Outcome::Unchanged; count as usize], "{operation}");
            assert_eq!(applied.statements, 1, "{operation} of {count} rows");
        }
    }
}

/// A trigger at the statement's end says nothing of where it failed.
#[tokio::test(flavor = "multi_thread")]
async fn rows_that_a_trigger_refuses_after_the_statement_are_found_by_halves() {
    let fresh =
        table("CREATE TRIGGER refuse AFTER INSERT OR UPDATE ON t FOR EACH ROW EXECUTE FUNCTION refuse()")
            .await;
    for operation in [Operation::Insert, Operation::Upsert] {
        let bad = |id: i64| if id % 1_000 == 377 { 13 } else { 1 };
        let step = step(&fresh, operation, 10_000..20_000, bad).await;
        let mut transaction = fresh.db.store().begin().await.unwrap();
        let applied = transaction.apply_rows(&step).await.unwrap();
        let refused = words(&applied.outcomes).iter().filter(|word| *word == "CheckViolation").count();
        assert_eq!(refused, 10);
        println!("{operation}: {} statements", applied.statements);
        assert!(applied.statements < 300, "{operation}: {} statements", applied.statements);
    }
}

/// The settings for updates are not left to the user's own statements, in the same transaction.
#[tokio::test(flavor = "multi_thread")]
async fn updates_of_a_transaction_keep_to_the_order_of_keys() {
    let fresh = table("SELECT 1").await;
    let step = step(&fresh, Operation::Update, 0..1_000, |_| 1).await;
    fresh
        .run(
            "CREATE FUNCTION joins() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
              new.n := length(current_setting('enable_hashjoin')); RETURN new; END $$",
        )
        .await;
    fresh.run("CREATE TRIGGER joins BEFORE UPDATE ON t FOR EACH ROW EXECUTE FUNCTION joins()").await;
    for rows in [false, true] {
        let mut transaction = fresh.db.store().begin().await.unwrap();
        match rows {
            true => drop(transaction.apply_rows(&step).await.unwrap()),
            false => drop(transaction.apply(&step).await.unwrap()),
        }
        let off = transaction.execute("DELETE FROM t WHERE n <> 3").await.unwrap();
        let on = "DELETE FROM t WHERE id = 0 AND current_setting('enable_hashjoin') <> 'on'";
        assert_eq!((off, transaction.execute(on).await.unwrap()), (0, 0), "row by row: {rows}");
        transaction.rollback().await.unwrap();
    }
}

/// A key that waits can't decide which rows an insert leaves out.
#[tokio::test(flavor = "multi_thread")]
async fn a_deferrable_exclusion_is_searched_another_way() {
    let fresh = table("ALTER TABLE t ADD EXCLUDE USING btree (n WITH =) WHERE (n > 5) DEFERRABLE").await;
    let step = step(&fresh, Operation::Insert, 5_000..6_000, |id| if id % 100 < 2 { 77 } else { id }).await;
    let mut transaction = fresh.db.store().begin().await.unwrap();
    let applied = transaction.apply_rows(&step).await.unwrap();
    let words = words(&applied.outcomes);
    assert_eq!(words.iter().filter(|word| *word == "UniqueViolation").count(), 19);
    assert_eq!(words.iter().filter(|word| *word == "Inserted").count(), 981);
    println!("{} statements", applied.statements);
}

async fn flushed(fresh: &Fresh, step: &Step) -> Applied {
    fresh.db.store().transact(None, std::slice::from_ref(step)).await.unwrap().unwrap().remove(0)
}

/// A count tells what became of the rows of a flush of updates. Where it doesn't, one statement more does.
#[tokio::test(flavor = "multi_thread")]
async fn a_flush_of_updates_asks_for_its_rows_only_where_some_are_missing() {
    let plain = table("SELECT 1").await;
    let parts = Fresh::with(&[
        "CREATE TABLE t(id bigint PRIMARY KEY, n bigint) PARTITION BY RANGE (id)",
        "CREATE TABLE low PARTITION OF t FOR VALUES FROM (0) TO (500)",
        "CREATE TABLE high PARTITION OF t FOR VALUES FROM (500) TO (9000)",
        "INSERT INTO t SELECT i, 0 FROM generate_series(0, 999) AS i",
    ])
    .await;
    for fresh in [plain, parts] {
        let all = flushed(&fresh, &step(&fresh, Operation::Update, 0..1_000, |id| id).await).await;
        assert_eq!((all.affected, all.statements), (1_000, 1));
        assert_eq!(all.outcomes.unwrap(), [Outcome::Updated; 1_000]);
        let some = flushed(&fresh, &step(&fresh, Operation::Update, 400..1_400, |id| 2 * id).await).await;
        assert_eq!((some.affected, some.statements), (600, 2));
        let told = [vec![Outcome::Updated; 600], vec![Outcome::NotFound; 400]].concat();
        assert_eq!(some.outcomes.unwrap(), told);
        let none = flushed(&fresh, &step(&fresh, Operation::Update, 5_000..5_010, |id| id).await).await;
        assert_eq!((none.affected, none.statements), (0, 1));
        assert_eq!(none.outcomes.unwrap(), [Outcome::NotFound; 10]);
        assert_eq!(
            fresh.rows("SELECT sum(n)::int8 FROM t").await,
            [(399 * 400 / 2 + 600 * 1_399).to_string()]
        );
    }
}

/// A row of a table that inherits counts, too, under a key that is there twice: the count is right and the keys are not.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_there_twice_stands_for_no_other() {
    let fresh = table("CREATE TABLE child() INHERITS (t)").await;
    fresh.run("INSERT INTO child VALUES (7, 0)").await;
    fresh.run("DELETE FROM t WHERE id = 8").await;
    let outcomes =
        flushed(&fresh, &step(&fresh, Operation::Update, 0..10, |id| id).await).await.outcomes.unwrap();
    let missing: Vec<usize> = (0..10).filter(|&place| outcomes[place] == Outcome::NotFound).collect();
    assert_eq!(missing, [8]);
}

/// The question comes after the update, and finds what others committed while it waited.
#[tokio::test(flavor = "multi_thread")]
async fn a_row_that_came_while_an_update_waited_was_not_updated() {
    let fresh = table("SELECT 1").await;
    let step = step(&fresh, Operation::Update, 900..1_100, |_| 1).await;
    let mut other = fresh.db.store().begin().await.unwrap();
    other.execute("UPDATE t SET n = 5 WHERE id = 950").await.unwrap();
    let waits =
        "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()";
    let (applied, ()) = tokio::join!(flushed(&fresh, &step), async {
        while fresh.rows(waits).await.is_empty() {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        other.execute("INSERT INTO t VALUES (1050, 77)").await.unwrap();
        other.commit().await.unwrap();
    });
    let told = [vec![Outcome::Updated; 100], vec![Outcome::NotFound; 100]].concat();
    assert_eq!(applied.outcomes.unwrap(), told);
    assert_eq!(fresh.rows("SELECT n FROM t WHERE id IN (950, 1050) ORDER BY id").await, ["1", "77"]);
}

/// A row may be another's parent: those that fail are found all the same, and their children with them.
#[tokio::test(flavor = "multi_thread")]
async fn rows_that_name_rows_of_their_own_table_are_not_sent_one_by_one() {
    let fresh = Fresh::with(&[
        "CREATE TABLE t(id bigint PRIMARY KEY, n bigint REFERENCES t)",
        "INSERT INTO t VALUES (0, NULL), (7777, NULL)",
    ])
    .await;
    // A tree: a key that is there already, a row whose parent is nowhere, and below that one children.
    let parent = |id: i64| match id {
        1_500 => 99_999,
        id => id / 2,
    };
    let step = step(&fresh, Operation::Insert, 1..10_001, parent).await;
    let mut transaction = fresh.db.store().begin().await.unwrap();
    let applied = transaction.apply_rows(&step).await.unwrap();
    // The key that is there may be a parent.
    let words = words(&applied.outcomes);
    for (place, word) in words.iter().enumerate() {
        let id = place + 1;
        let under =
            std::iter::successors(Some(id), |id| Some(id / 2)).take_while(|&id| id > 0).any(|id| id == 1_500);
        let expected = match id {
            7_777 => "UniqueViolation",
            _ if under => "ForeignKeyViolation",
            _ => "Inserted",
        };
        assert_eq!(word, expected, "{id}");
    }
    assert!(applied.statements < 100, "{} statements", applied.statements);
    transaction.commit().await.unwrap();
}

/// Who may read some columns only may not ask for the system's; rows are told apart another way.
#[tokio::test(flavor = "multi_thread")]
async fn updates_by_who_reads_some_columns_only_are_answered() {
    let fresh = table("SELECT 1").await;
    fresh.run("DROP ROLE IF EXISTS updater_of_t").await;
    fresh.run("CREATE ROLE updater_of_t LOGIN").await;
    fresh.run("GRANT SELECT (id), UPDATE (n) ON t TO updater_of_t").await;
    fresh.run("GRANT CREATE ON SCHEMA public TO updater_of_t").await;
    let writer = fresh.as_role("updater_of_t").await.writer().start();
    let step = step(&fresh, Operation::Update, 990..1_010, |_| 1).await;
    let table = Arc::new(Table::of_schema("t", &step.batch.schema(), &["id"]).unwrap());
    let answers = writer.add_batch(&table, Operation::Update, &step.batch).await.unwrap().outcomes().await;
    let told: Vec<Outcome> = answers.into_iter().map(Result::unwrap).collect();
    assert_eq!(told, [[Outcome::Updated; 10], [Outcome::NotFound; 10]].concat());
    let _ = writer.close().await.unwrap();
    fresh.run("DROP OWNED BY updater_of_t").await;
    fresh.run("DROP ROLE updater_of_t").await;
}

/// Of what a row failed with when all went together the search makes use, as of a guess.
#[tokio::test(flavor = "multi_thread")]
async fn what_rows_failed_with_together_need_not_be_found_out_again() {
    let refuse =
        "CREATE TRIGGER refuse BEFORE INSERT ON t FOR EACH ROW WHEN (new.n = 13) EXECUTE FUNCTION refuse()";
    let raised = table(refuse).await;
    let checked = table("ALTER TABLE t ADD CHECK (n <> 13)").await;
    let there = table("INSERT INTO t SELECT i, 0 FROM generate_series(10300, 14300, 1000) AS i").await;
    for (fresh, kind) in [(raised, "CheckViolation"), (checked, "CheckViolation"), (there, "UniqueViolation")]
    {
        let n = |id: i64| if kind == "CheckViolation" && id % 1_000 == 300 { 13 } else { 1 };
        let all = step(&fresh, Operation::Insert, 10_000..15_000, n).await;
        let shifted = step(&fresh, Operation::Insert, 10_295..11_300, n).await;
        let mut refused = Vec::new();
        for step in [&all, &shifted] {
            let mut transaction = fresh.db.store().begin().await.unwrap();
            refused.push(transaction.apply(step).await.unwrap_err());
            transaction.rollback().await.unwrap();
        }
        let mut searched = Vec::new();
        for refused in [None, Some(&refused[0]), Some(&refused[1])] {
            let mut transaction = fresh.db.store().begin().await.unwrap();
            let applied = match refused {
                None => transaction.apply_rows(&all).await.unwrap(),
                Some(refused) => transaction.apply_refused(&all, refused).await.unwrap(),
            };
            let there = transaction.execute("DELETE FROM t WHERE id >= 10000 AND n = 1").await.unwrap();
            assert_eq!(there, 4_995, "{kind}");
            transaction.rollback().await.unwrap();
            searched.push((words(&applied.outcomes), applied.statements));
        }
        let [(found, statements), (told, fewer), (misled, _)] = &searched[..] else { unreachable!() };
        assert_eq!(found.iter().filter(|word| *word == kind).count(), 5, "{kind}");
        assert!(found == told && found == misled, "{kind}");
        assert!(fewer < statements, "{kind}: {fewer} statements and {statements}");
    }
}
