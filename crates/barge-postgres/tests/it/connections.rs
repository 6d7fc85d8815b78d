//! Connections: how many, to whom, how protected, and what is said when there is none.

use std::time::Duration;

use arrow::array::AsArray;
use arrow::datatypes::{DataType, Int32Type};
use barge_core::store::{Direction, Store};
use barge_core::{Database, Error, ErrorKind, FromRow, LookUpBy, Operation, Outcome, Record};
use barge_postgres::{PostgresOptions, PostgresStore};
use barge_testkit::servers::{FaultPoint, Proxy, own_postgres_with_tls, postgres};

use crate::support::{Fresh, words, write};

async fn refused(url: &str) -> Error {
    match PostgresStore::open(url).await {
        Ok(_) => panic!("{url} should have been refused"),
        Err(error) => error,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_pool_says_so_after_the_time_allowed() {
    let fresh = Fresh::with(&[]).await;
    let options = PostgresOptions::from_url(&fresh.url()).unwrap();
    let store = options.pool_size(1).pool_wait(Duration::from_millis(50)).open().await.unwrap();
    let held = store.begin().await.unwrap();
    let error = store.begin().await.err().unwrap();
    assert!(error.kind() == ErrorKind::Busy && error.is_retryable());
    assert!(error.message().contains("pool_size") && error.message().contains("50ms"), "{error}");
    held.rollback().await.unwrap();
    store.begin().await.unwrap().rollback().await.unwrap();
}

/// A transaction asks for all it has to know over its own connection: for a second one it might wait for itself.
#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_needs_no_second_connection() {
    #[derive(Record, FromRow)]
    #[record(table = "words")]
    struct Word {
        #[record(key)]
        word: String,
        n: i64,
    }
    let words =
        |texts: &[&str]| texts.iter().map(|text| Word { word: (*text).to_owned(), n: 1 }).collect::<Vec<_>>();
    let fresh =
        Fresh::with(&["CREATE EXTENSION citext", "CREATE TABLE words(word citext PRIMARY KEY, n bigint)"])
            .await;
    let options =
        PostgresOptions::from_url(&fresh.url()).unwrap().pool_size(1).pool_wait(Duration::from_millis(300));
    let db = Database::new(options.open().await.unwrap());
    let mut tx = db.begin().await.unwrap();
    // Neither was the table described, nor is it known which of the keys are equal.
    let written = tx.upsert_all(&words(&["a", "b", "A"])).await.unwrap();
    assert_eq!(written.outcomes(), [Outcome::Inserted, Outcome::Inserted, Outcome::Updated]);
    assert_eq!(tx.get_all::<Word, _>(&["B", "c"]).await.unwrap().iter().flatten().count(), 1);
    // What it made and changed itself, it sees, and nobody else.
    tx.execute("ALTER TABLE words ADD COLUMN more bigint DEFAULT 3").await.unwrap();
    tx.execute("CREATE TABLE made(id bigint PRIMARY KEY)").await.unwrap();
    #[derive(Record)]
    #[record(table = "made")]
    struct Made {
        #[record(key)]
        id: i64,
    }
    tx.insert_all(&[Made { id: 1 }, Made { id: 2 }]).await.unwrap();
    tx.rollback().await.unwrap();
    let error = db.insert_all(&[Made { id: 1 }]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::MissingTable, "{error:?}");
    db.insert_all(&words(&["a", "b"])).await.unwrap();
    // What it commits, others see.
    let mut tx = db.begin().await.unwrap();
    tx.execute("CREATE TABLE made(id bigint PRIMARY KEY)").await.unwrap();
    tx.commit().await.unwrap();
    db.insert_all(&[Made { id: 1 }]).await.unwrap();
    assert_eq!(fresh.rows("SELECT count(*) FROM made").await, ["1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn closing_waits_for_what_is_open_and_no_longer_than_the_wait() {
    let fresh = Fresh::with(&[]).await;
    let options = PostgresOptions::from_url(&fresh.url()).unwrap();
    let store = options.pool_wait(Duration::from_millis(100)).open().await.unwrap();
    let held = store.begin().await.unwrap();
    assert_eq!(store.close().await.unwrap_err().kind(), ErrorKind::Busy);
    held.commit().await.unwrap();
    store.close().await.unwrap();
    assert_eq!(store.tables().await.unwrap_err().kind(), ErrorKind::Closed);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_died_idle_is_replaced_unseen() {
    let fresh = Fresh::with(&["CREATE TABLE t(id bigint)"]).await;
    let options = PostgresOptions::from_url(&fresh.url()).unwrap();
    let store = options.idle_check(Duration::ZERO).open().await.unwrap();
    store.tables().await.unwrap();
    let end_others = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                      WHERE datname = current_database() AND pid <> pg_backend_pid()";
    fresh.rows(end_others).await;
    assert_eq!(store.tables().await.unwrap(), ["t".into()]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_an_address_is_said_without_the_password() {
    let fresh = Fresh::with(&[]).await;
    let url = fresh.url();
    let missing = url.replace(url.rsplit('/').next().unwrap(), "nowhere");
    let error = refused(&missing).await;
    assert!(error.kind() == ErrorKind::InvalidConfig && error.message().contains("nowhere"), "{error:?}");
    let nobody = refused("postgres://me:secret@127.0.0.1:1/db?connect_timeout=1").await;
    assert!(nobody.kind() == ErrorKind::ConnectionLost && nobody.is_retryable(), "{nobody:?}");
    assert!(nobody.message().contains("127.0.0.1:1"), "{nobody}");
    assert!(!format!("{nobody:?}").contains("secret"));
    if let Some(url) = postgres().url_with_password() {
        PostgresStore::open(&url).await.unwrap();
        let error = refused(&url.replace("secret", "wrong")).await;
        assert!(error.kind() == ErrorKind::Permission && !error.is_retryable(), "{error:?}");
        let error = refused(&url.replace(":secret", "")).await;
        assert!(
            error.kind() == ErrorKind::InvalidConfig && error.message().contains("password"),
            "{error:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_with_a_certificate_is_trusted_as_the_mode_says() {
    let (server, certificates) = own_postgres_with_tls();
    let plain = server.url();
    let by_name = plain.split('?').next().unwrap().to_owned();
    let by_address = by_name.replace("localhost", "127.0.0.1");
    let with = |url: &str, mode: &str, root: Option<&std::path::Path>| {
        let root = root.map(|root| format!("&sslrootcert={}", root.display())).unwrap_or_default();
        format!("{url}?sslmode={mode}{root}")
    };
    let (ours, other) = (certificates.authority.as_path(), certificates.other_authority.as_path());
    for mode in ["prefer", "require"] {
        PostgresStore::open(&with(&by_name, mode, None)).await.unwrap();
    }
    for mode in ["require", "verify-ca", "verify-full"] {
        PostgresStore::open(&with(&by_name, mode, Some(ours))).await.unwrap();
        let error = refused(&with(&by_name, mode, Some(other))).await;
        assert!(error.kind() == ErrorKind::Permission && !error.is_retryable(), "{mode}: {error:?}");
    }
    // The certificate is for localhost.
    PostgresStore::open(&with(&by_address, "verify-ca", Some(ours))).await.unwrap();
    let error = refused(&with(&by_address, "verify-full", Some(ours))).await;
    assert_eq!(error.kind(), ErrorKind::Permission, "{error:?}");
    let error = refused(&with(&by_name, "disable", None)).await;
    assert_eq!(error.kind(), ErrorKind::Permission, "{error:?}");
    let user = server.url_as("with_certificate");
    let user = user.split('?').next().unwrap();
    let with_certificate = |certificate: &std::path::Path, key: &std::path::Path| {
        let client = format!("&sslcert={}&sslkey={}", certificate.display(), key.display());
        with(user, "verify-full", Some(ours)) + &client
    };
    PostgresStore::open(&with_certificate(&certificates.client, &certificates.client_key)).await.unwrap();
    refused(&with_certificate(&certificates.other_client, &certificates.other_client_key)).await;
}

/// Rows whose key is there are found by reading the table's keys near the batch's. A user who may insert and no more may not read them: that is no
/// reason to give up the connection, nor the rows.
#[tokio::test(flavor = "multi_thread")]
async fn a_refused_question_about_keys_leaves_its_connection_in_use() {
    let fresh = Fresh::with(&[
        "CREATE TABLE keyed(id bigint PRIMARY KEY, name text)",
        "INSERT INTO keyed VALUES (150, 'there')",
        "CREATE TABLE barge_flushes(writer uuid, lane bigint, sequence bigint, PRIMARY KEY (writer, lane))",
    ])
    .await;
    let role = format!("near_{}", std::process::id());
    for sql in [
        format!("CREATE ROLE {role} LOGIN"),
        format!("GRANT INSERT ON keyed TO {role}"),
        format!("GRANT SELECT, INSERT, UPDATE ON barge_flushes TO {role}"),
    ] {
        fresh.run(&sql).await;
    }
    let options = PostgresOptions::from_url(&fresh.url()).unwrap().user(&role).pool_size(1);
    let db = Database::new(options.open().await.unwrap());
    let before = process_of(&db).await;
    assert_eq!(insert_300(&db).await, (299, 150));
    assert_eq!(process_of(&db).await, before, "another connection");
    drop(db);
    fresh.run(&format!("DROP OWNED BY {role}")).await;
    fresh.run(&format!("DROP ROLE {role}")).await;
}

/// The server's process behind the only connection.
async fn process_of(db: &Database) -> i32 {
    let found = db.query("SELECT pg_backend_pid() AS pid").await.unwrap().into_batch().await.unwrap();
    found.column(0).as_primitive::<Int32Type>().value(0)
}

#[derive(Debug, Record, FromRow)]
#[record(table = "moments")]
struct Moment {
    #[record(key)]
    id: i64,
    at: chrono::NaiveDateTime,
}

/// A row that can't be read costs a look-up its error, and not the connection.
#[tokio::test(flavor = "multi_thread")]
async fn a_connection_is_of_use_after_a_row_that_cannot_be_read() {
    let fresh = Fresh::with(&[
        "CREATE TABLE moments(id bigint PRIMARY KEY, at timestamp)",
        "INSERT INTO moments SELECT n, CASE n WHEN 300 THEN 'infinity'::timestamp ELSE now() END FROM generate_series(1, 1000) n",
    ])
    .await;
    let options = PostgresOptions::from_url(&fresh.url()).unwrap().pool_size(1);
    let db = Database::new(options.open().await.unwrap());
    let before = process_of(&db).await;
    let keys: Vec<i64> = (1..=1_000).collect();
    for _ in 0..2 {
        let error = db.get_all::<Moment, _>(&keys).await.unwrap_err();
        assert_eq!((error.kind(), error.row()), (ErrorKind::InvalidValue, Some(299)));
    }
    let newest = LookUpBy::columns(["id"]).order_by("at", Direction::Descending).limit(1);
    let error = db.get_by::<Moment, _>(newest, &[1_i64, 300]).await.unwrap_err();
    assert_eq!((error.kind(), error.row()), (ErrorKind::InvalidValue, Some(1)));
    assert_eq!(process_of(&db).await, before, "another connection");
    assert_eq!(db.get_all::<Moment, _>(&keys[..299]).await.unwrap().iter().flatten().count(), 299);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_question_about_keys_that_is_cut_off_is_tried_again() {
    for before in [true, false] {
        let fresh = Fresh::with(&[
            "CREATE TABLE keyed(id bigint PRIMARY KEY, name text)",
            "INSERT INTO keyed VALUES (150, 'there')",
        ])
        .await;
        let proxy = Proxy::before(&fresh.url());
        let db = Database::new(PostgresStore::open(&proxy.url()).await.unwrap());
        let question = "BETWEEN (SELECT b.least".to_owned();
        proxy.fail(match before {
            true => FaultPoint::BeforeQuery(question),
            false => FaultPoint::AfterQuery(question),
        });
        assert_eq!(insert_300(&db).await, (299, 150));
        assert!(proxy.has_failed(), "the question never came");
        assert_eq!(fresh.rows("SELECT count(*) FROM keyed").await, ["300"]);
    }
}

/// Writes 300 rows, of which one key is there. How many were inserted, and which was not.
async fn insert_300(db: &Database) -> (usize, usize) {
    let ids: Vec<String> = (0..300).map(|id| id.to_string()).collect();
    let rows: Vec<[Option<&str>; 1]> = ids.iter().map(|id| [Some(id.as_str())]).collect();
    let rows: Vec<&[Option<&str>]> = rows.iter().map(|row| &row[..]).collect();
    let answers = words(&write(db, "keyed", Operation::Insert, &[], &[("id", DataType::Int64)], &rows).await);
    let failed = answers.iter().position(|answer| answer == "UniqueViolation").unwrap();
    (answers.iter().filter(|answer| *answer == "Inserted").count(), failed)
}
