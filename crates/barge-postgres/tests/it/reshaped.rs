//! Columns whose type changed after they were described: binary rows say nothing of their types, so the table is asked before they go.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, ListArray, RecordBatch, StringArray};
use arrow::datatypes::{DataType, Field, Schema};
use barge_core::record::batch_of;
use barge_core::store::{LookUp, Operation, Query};
use barge_core::{Database, ErrorKind, FromRow, Outcome, Record, Table};
use barge_postgres::PostgresOptions;
use tokio_postgres::NoTls;

use crate::support::Fresh;

#[derive(Clone, Debug, PartialEq, Record, FromRow)]
#[record(table = "t")]
struct Row {
    #[record(key)]
    id: i64,
    n: i64,
}

fn rows(ids: std::ops::Range<i64>) -> Vec<Row> {
    ids.map(|id| Row { id, n: id % 1_000 + 1 }).collect()
}

/// A database that has described the table `t` with these columns, and another that changes it unseen.
async fn described(columns: &str) -> (Fresh, Database) {
    let fresh = Fresh::with(&[&format!("CREATE TABLE t({columns})")]).await;
    let db = Database::new(PostgresOptions::from_url(&fresh.url()).unwrap().open().await.unwrap());
    db.insert_all(&rows(0..1)).await.unwrap();
    (fresh, db)
}

/// A bigint's eight bytes are a double's, too, and eight bytes of zeros and ones some numeric's.
#[tokio::test(flavor = "multi_thread")]
async fn rows_go_by_copy_in_the_types_that_columns_have_now() {
    for (before, after) in [
        ("bigint", "double precision"),
        ("bigint", "numeric"),
        ("integer", "real"),
        ("integer", "bigint"),
        ("bigint", "text"),
        ("bigint", "positive"),
        ("positive", "bigint"),
        ("positive", "double precision"),
    ] {
        for bad in [false, true] {
            let what = format!("{before} to {after}, a row that fails: {bad}");
            let fresh = Fresh::with(&[
                "CREATE DOMAIN positive AS bigint CHECK (value > 0)",
                &format!("CREATE TABLE t(id bigint PRIMARY KEY, n {before})"),
            ])
            .await;
            let options = PostgresOptions::from_url(&fresh.url()).unwrap();
            let writer = Database::new(options.open().await.unwrap()).writer().start();
            writer.insert(&rows(0..1)[0]).await.unwrap().await.unwrap();
            fresh.run(&format!("ALTER TABLE t ALTER COLUMN n TYPE {after}")).await;
            let mut sent = rows(1..1_001);
            if bad {
                sent[500].id = 0;
            }
            let table = Arc::new(Row::table().clone());
            let receipt =
                writer.add_batch(&table, Operation::Insert, &batch_of(&sent).unwrap()).await.unwrap();
            let answers = receipt.outcomes().await;
            let written = answers.iter().filter(|answer| matches!(answer, Ok(Outcome::Inserted))).count();
            assert_eq!(
                written,
                if bad { 999 } else { 1_000 },
                "{what}: {:?}",
                answers.iter().find(|answer| answer.is_err())
            );
            let wrong = "SELECT count(*) FROM t WHERE n::text::numeric <> id % 1000 + 1";
            assert_eq!(fresh.rows(wrong).await, ["0"], "{what}");
            assert_eq!(fresh.rows("SELECT count(*) FROM t").await, [(written + 1).to_string()], "{what}");
            assert_eq!(writer.close().await.unwrap().statistics.retries, 0, "{what}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_liners_and_transactions_send_no_other_types_either() {
    let (fresh, db) = described("id bigint PRIMARY KEY, n bigint").await;
    fresh.run("ALTER TABLE t ALTER COLUMN n TYPE double precision").await;
    let mut transaction = db.begin().await.unwrap();
    let error = transaction.insert_all(&rows(5_000..6_000)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Statement);
    assert!(error.message().contains("n") && error.message().contains("float8"), "{error}");
    transaction.rollback().await.unwrap();
    db.insert_all(&rows(1..1_001)).await.unwrap();
    assert_eq!(
        fresh.rows("SELECT count(*), count(*) FILTER (WHERE n <> id % 1000 + 1) FROM t").await,
        ["1001|0"]
    );
}

/// What was refused before it was sent, as the column was once, is asked for once more.
#[tokio::test(flavor = "multi_thread")]
async fn one_liners_take_what_a_widened_column_takes() {
    let (fresh, db) = described("id bigint PRIMARY KEY, n smallint NOT NULL").await;
    let wide = [Row { id: 1, n: 5_000_000_000 }];
    assert_eq!(db.insert_all(&wide).await.unwrap_err().kind(), ErrorKind::InvalidValue);
    fresh.run("ALTER TABLE t ALTER COLUMN n TYPE bigint").await;
    assert_eq!(db.insert_all(&wide).await.unwrap().outcomes(), [Outcome::Inserted]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_finds_rows_of_a_column_that_was_widened() {
    let (fresh, db) = described("id integer PRIMARY KEY, n bigint").await;
    let keys = [0_i64, 5_000_000_000];
    assert_eq!(db.get_all::<Row, _>(&keys).await.unwrap(), [Some(rows(0..1).remove(0)), None]);
    fresh.run("ALTER TABLE t ALTER COLUMN id TYPE bigint").await;
    fresh.run("INSERT INTO t VALUES (5000000000, 7)").await;
    let found = [Some(rows(0..1).remove(0)), Some(Row { id: 5_000_000_000, n: 7 })];
    assert_eq!(db.get_all::<Row, _>(&keys).await.unwrap(), found);
}

/// A statement's types are asked for each time: what it gave before says nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_query_whose_column_has_become_an_enum_does_not_hang() {
    let fresh = Fresh::with(&[
        "CREATE TYPE mood AS ENUM ('sad', 'happy')",
        "CREATE TABLE people AS SELECT i AS id, (ARRAY['sad', 'happy'])[1 + i % 2] AS mood FROM generate_series(1, 50000) AS i",
    ])
    .await;
    let options = PostgresOptions::from_url(&fresh.url()).unwrap().pool_size(1);
    let db = Database::new(options.open().await.unwrap());
    let read = async || {
        let read =
            async { db.store().query(Query::new("SELECT * FROM people")).await.unwrap().into_batch().await };
        let read = tokio::time::timeout(std::time::Duration::from_secs(60), read).await;
        read.expect("the query hangs").unwrap().num_rows()
    };
    assert_eq!(read().await, 50_000);
    fresh.run("ALTER TABLE people ALTER COLUMN mood TYPE mood USING mood::mood").await;
    assert_eq!(read().await, 50_000);
}

/// An array of a type that an extension made is cast, as one of an enum is: the driver knows neither.
#[tokio::test(flavor = "multi_thread")]
async fn many_arrays_of_an_extensions_type_are_looked_up() {
    let fresh = Fresh::with(&[
        "CREATE EXTENSION citext",
        "CREATE TABLE t AS SELECT i::bigint AS id, ARRAY[i::text]::citext[] AS words FROM generate_series(1, 50000) AS i",
    ])
    .await;
    let item = Arc::new(Field::new("item", DataType::Utf8, true));
    let words = Field::new("words", DataType::List(item), true);
    let table =
        Table::of_schema("t", &Schema::new(vec![Field::new("id", DataType::Int64, true), words]), &["id"]);
    let keys: ArrayRef = Arc::new(Int64Array::from_iter_values(1..=50_000));
    let look_up = LookUp::new(Arc::new(table.unwrap()), RecordBatch::try_from_iter([("id", keys)]).unwrap());
    let options = PostgresOptions::from_url(&fresh.url()).unwrap();
    let db = Database::new(options.open().await.unwrap());
    let found = async { db.store().look_up(look_up).await.unwrap().into_batch().await.unwrap() };
    let found = tokio::time::timeout(std::time::Duration::from_secs(60), found).await.expect("it hangs");
    assert_eq!(found.num_rows(), 50_000);
    let words = found.column_by_name("words").unwrap().as_any().downcast_ref::<ListArray>().unwrap().value(0);
    assert!(words.as_any().is::<StringArray>());
}

/// Where the driver asks for a type, its statement keeps its name on the server's connection, which the pooler gives to others.
#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_another_client_left_behind_a_pooler_is_passed_over() {
    use barge_testkit::servers::{self, PoolMode};
    let server = servers::postgres();
    let database = server.database();
    let pooler = servers::pgbouncer(&server, PoolMode::Transaction);
    let (side, connection) = tokio_postgres::connect(&pooler.url(database.name()), NoTls).await.unwrap();
    tokio::spawn(connection);
    // Names that this process will give next, taken by somebody on every connection that the pooler has.
    let probe = side.prepare("SELECT 1").await;
    drop(probe);
    let mut holders = Vec::new();
    for _ in 0..3 {
        let (holder, connection) =
            tokio_postgres::connect(&pooler.url(database.name()), NoTls).await.unwrap();
        tokio::spawn(connection);
        holder.batch_execute("BEGIN").await.unwrap();
        holders.push(holder);
    }
    for holder in &holders {
        for name in 0..4_000 {
            if name % 2 == 0 {
                holder.batch_execute(&format!("PREPARE s{name} AS SELECT 1")).await.unwrap();
            }
        }
        holder.batch_execute("COMMIT").await.unwrap();
    }
    let options = PostgresOptions::from_url(&pooler.url(database.name())).unwrap();
    let db = Database::new(options.open().await.unwrap());
    for _ in 0..5 {
        let read = db.store().query(Query::new("SELECT 7 AS n")).await.unwrap().into_batch().await.unwrap();
        assert_eq!(read.num_rows(), 1);
    }
}

/// A COPY that is refused before its first row: what is answered next on that connection would be taken for something else.
#[tokio::test(flavor = "multi_thread")]
async fn a_copy_that_is_refused_at_its_start_says_why() {
    let fresh = Fresh::with(&["CREATE TABLE t(id bigint PRIMARY KEY, n bigint)"]).await;
    fresh.run("DROP ROLE IF EXISTS reader_of_t").await;
    fresh.run("CREATE ROLE reader_of_t LOGIN").await;
    fresh.run("GRANT SELECT ON t TO reader_of_t").await;
    fresh.run("GRANT CREATE ON SCHEMA public TO reader_of_t").await;
    let db = fresh.as_role("reader_of_t").await;
    for _ in 0..3 {
        assert_eq!(db.insert_all(&rows(0..1_000)).await.unwrap_err().kind(), ErrorKind::Permission);
    }
    let writer = db.writer().start();
    let table = Arc::new(Row::table().clone());
    let receipt =
        writer.add_batch(&table, Operation::Insert, &batch_of(&rows(0..1_000)).unwrap()).await.unwrap();
    let answers = receipt.outcomes().await;
    assert!(
        answers
            .iter()
            .all(|answer| answer.as_ref().is_err_and(|error| error.kind() == ErrorKind::Permission))
    );
    assert_eq!(writer.close().await.unwrap().statistics.retries, 0);
    // In a transaction of one's own nothing can be done after it, and COMMIT doesn't say that all is well.
    let mut transaction = db.begin().await.unwrap();
    transaction.execute("CREATE TABLE mine(id bigint)").await.unwrap();
    assert_eq!(transaction.insert_all(&rows(0..1_000)).await.unwrap_err().kind(), ErrorKind::Permission);
    transaction.commit().await.unwrap_err();
    assert_eq!(fresh.rows("SELECT count(*) FROM pg_tables WHERE tablename = 'mine'").await, ["0"]);
    assert_eq!(fresh.rows("SELECT count(*) FROM t").await, ["0"]);
    fresh.run("DROP OWNED BY reader_of_t").await;
    fresh.run("DROP ROLE reader_of_t").await;
}

/// A policy that came since refuses COPY, and lets rows in one by one statement.
#[tokio::test(flavor = "multi_thread")]
async fn rows_go_in_under_a_policy_that_came_since() {
    let fresh = Fresh::with(&["CREATE TABLE t(id bigint PRIMARY KEY, n bigint)"]).await;
    fresh.run("DROP ROLE IF EXISTS guest_of_t").await;
    fresh.run("CREATE ROLE guest_of_t LOGIN").await;
    fresh.run("GRANT SELECT, INSERT ON t TO guest_of_t").await;
    fresh.run("GRANT CREATE ON SCHEMA public TO guest_of_t").await;
    let writer = fresh.as_role("guest_of_t").await.writer().start();
    writer.insert(&rows(0..1)[0]).await.unwrap().await.unwrap();
    for sql in [
        "ALTER TABLE t ENABLE ROW LEVEL SECURITY",
        "CREATE POLICY low ON t USING (true) WITH CHECK (id <> 777)",
    ] {
        fresh.run(sql).await;
    }
    let table = Arc::new(Row::table().clone());
    let receipt =
        writer.add_batch(&table, Operation::Insert, &batch_of(&rows(1..1_001)).unwrap()).await.unwrap();
    let answers = receipt.outcomes().await;
    let refused: Vec<usize> = (0..1_000).filter(|&place| answers[place].is_err()).collect();
    assert_eq!(refused, [776], "{:?}", answers[0]);
    assert_eq!(writer.close().await.unwrap().statistics.retries, 0);
    assert_eq!(fresh.rows("SELECT count(*) FROM t").await, ["1000"]);
    fresh.run("DROP OWNED BY guest_of_t").await;
    fresh.run("DROP ROLE guest_of_t").await;
}
