//! What a connection brings to whoever gets it next, what the driver has to ask over it, and tables by their whole name.

use std::time::Duration;

use barge_core::store::Query;
use barge_core::{Database, ErrorKind, Record};
use barge_postgres::PostgresOptions;

use crate::support::Fresh;

/// The driver asked for a type's name over the connection on which the rows came, and took no more of them until it was told: with more rows than it
/// takes in beforehand, both sides waited for ever.
#[tokio::test(flavor = "multi_thread")]
async fn many_rows_of_a_type_that_users_made_are_read() {
    const ROWS: usize = 50_000;
    let fresh = Fresh::with(&[
        "CREATE TYPE mood AS ENUM ('sad', 'happy')",
        "CREATE TABLE people AS SELECT i AS id, (ARRAY['sad', 'happy'])[1 + i % 2]::mood AS mood \
         FROM generate_series(1, 50000) AS i",
    ])
    .await;
    for sql in ["SELECT * FROM people", "SELECT id, ARRAY[mood] AS moods FROM people"] {
        // A connection that knows no type yet; once as a stream, once within a transaction.
        let db = Database::new(PostgresOptions::from_url(&fresh.url()).unwrap().open().await.unwrap());
        let query = async {
            let stream = db.store().query(Query::new(sql)).await.unwrap();
            assert_eq!(stream.into_batch().await.unwrap().num_rows(), ROWS);
        };
        tokio::time::timeout(Duration::from_secs(60), query).await.expect("the query hangs");
        let db = Database::new(PostgresOptions::from_url(&fresh.url()).unwrap().open().await.unwrap());
        let over = async {
            let mut transaction = db.store().begin().await.unwrap();
            assert_eq!(transaction.over(&Query::new(sql)).await.unwrap().num_rows(), ROWS);
        };
        tokio::time::timeout(Duration::from_secs(60), over).await.expect("the statement hangs");
    }
}

/// A setting, or a temporary table that hides another one, would send somebody else's rows elsewhere.
#[tokio::test(flavor = "multi_thread")]
async fn what_statements_leave_in_a_session_goes_with_its_connection() {
    let fresh =
        Fresh::with(&["CREATE TABLE t(id bigint)", "CREATE SCHEMA other", "CREATE TABLE other.t(id bigint)"])
            .await;
    let options = PostgresOptions::from_url(&fresh.url()).unwrap().pool_size(1);
    let db = Database::new(options.open().await.unwrap());
    for statement in ["SET search_path TO other", "CREATE TEMPORARY TABLE t(id bigint)"] {
        db.execute(statement).await.unwrap();
        let mut transaction = db.begin().await.unwrap();
        transaction.execute("INSERT INTO t VALUES (1)").await.unwrap();
        transaction.commit().await.unwrap();
    }
    assert_eq!(
        fresh.rows("SELECT (SELECT count(*) FROM public.t), (SELECT count(*) FROM other.t)").await,
        ["2|0"]
    );
}

#[derive(Record)]
#[record(schema = "public", table = "t")]
struct Row {
    #[record(key)]
    id: i64,
    n: i64,
}

/// The database calls it `t`, and so it was remembered under one name and forgotten under another: a flush was tried again and again.
#[tokio::test(flavor = "multi_thread")]
async fn a_table_by_its_whole_name_is_described_anew() {
    let fresh = Fresh::with(&["CREATE TABLE t(id bigint PRIMARY KEY, n bigint)"]).await;
    let db = Database::new(PostgresOptions::from_url(&fresh.url()).unwrap().open().await.unwrap());
    let writer = db.writer().start();
    writer.insert(&Row { id: 1, n: 1 }).await.unwrap().await.unwrap();
    // Somebody else changes it: this database isn't told.
    fresh.run("ALTER TABLE t DROP COLUMN n").await;
    let receipt = writer.insert(&Row { id: 2, n: 2 }).await.unwrap();
    let answer =
        tokio::time::timeout(Duration::from_secs(30), receipt).await.expect("the flush goes on for ever");
    assert_eq!(answer.unwrap_err().kind(), ErrorKind::MissingColumn);
    fresh.run("ALTER TABLE t ADD COLUMN n bigint").await;
    writer.insert(&Row { id: 3, n: 3 }).await.unwrap().await.unwrap();
    assert_eq!(fresh.rows("SELECT id, n FROM t ORDER BY id").await, ["1|NULL", "3|3"]);
    let _ = writer.close().await.unwrap();
}

/// Rows that don't fit a column as it was are held against the column as it is: somebody may have widened it.
#[tokio::test(flavor = "multi_thread")]
async fn a_column_that_was_widened_takes_what_it_refused() {
    #[derive(Record)]
    #[record(table = "notes")]
    struct Note<'a> {
        id: i64,
        text: Option<&'a str>,
    }
    let fresh = Fresh::with(&["CREATE TABLE notes(id bigint, text varchar(3) NOT NULL)"]).await;
    let db = Database::new(PostgresOptions::from_url(&fresh.url()).unwrap().open().await.unwrap());
    let writer = db.writer().start();
    writer.insert(&Note { id: 1, text: Some("abc") }).await.unwrap().await.unwrap();
    fresh.run("ALTER TABLE notes ALTER text TYPE varchar(10), ALTER text DROP NOT NULL").await;
    let long = writer.insert(&Note { id: 2, text: Some("abcdef") }).await.unwrap();
    let none = writer.insert(&Note { id: 3, text: None }).await.unwrap();
    long.await.unwrap();
    none.await.unwrap();
    let too_long = writer.insert(&Note { id: 4, text: Some("abcdefghijk") }).await.unwrap().await;
    assert_eq!(too_long.unwrap_err().kind(), ErrorKind::InvalidValue);
    let _ = writer.close().await.unwrap();
}
