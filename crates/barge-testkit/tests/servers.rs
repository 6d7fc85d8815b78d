//! The throw-away servers of `barge_testkit::servers`: that they serve, and that none outlives its users.

#![allow(clippy::unwrap_used, reason = "helpers of tests may unwrap as tests do")]

use std::collections::HashSet;
use std::env;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use barge_testkit::servers::{self, FaultPoint, PoolMode, Proxy, TestDatabase, Way};
use tokio_postgres::{Client, NoTls, Statement};

/// Longer than any of the waits here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

async fn connect(url: &str) -> Client {
    try_connect(url).await.unwrap_or_else(|error| panic!("{url}: {error}"))
}

async fn try_connect(url: &str) -> Result<Client, tokio_postgres::Error> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

async fn one_text(client: &Client, query: &str) -> String {
    client.query_one(query, &[]).await.unwrap().get(0)
}

fn wait_for(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "waited {PATIENCE:?} for {what}");
        thread::sleep(Duration::from_millis(20));
    }
}

#[tokio::test]
async fn the_shared_server_is_one_and_gives_each_test_an_empty_database() {
    let server = servers::postgres();
    assert_eq!(server.url(), servers::postgres().url());
    let (first, second) = (server.database(), server.database());
    assert_ne!(first.name(), second.name());

    let client = connect(&first.url()).await;
    client.batch_execute("create table t (id int)").await.unwrap();
    let client = connect(&second.url()).await;
    client.batch_execute("create table t (id int)").await.unwrap();
    assert_eq!(one_text(&client, "show server_encoding").await, "UTF8");
    assert_eq!(one_text(&client, "show synchronous_commit").await, "on");

    // One connection is still open: the database goes all the same.
    let name = second.name().to_owned();
    drop(second);
    let client = connect(&server.url()).await;
    let left = client.query("select 1 from pg_database where datname = $1", &[&name]).await.unwrap();
    assert!(left.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_role_with_a_password_is_asked_for_it() {
    let database = servers::postgres().database();
    let Some(url) = database.url_with_password() else { return };
    let client = connect(&url).await;
    assert_eq!(one_text(&client, "select current_user::text").await, "with_password");
    assert!(try_connect(&url.replace(":secret@", ":wrong@")).await.is_err());
}

/// Not a test: what [`holder`] runs in processes of its own.
#[test]
#[ignore = "holds a server until it is killed"]
fn hold_a_server() {
    let Ok(kind) = env::var("HOLD_A_SERVER") else { return };
    let (server, _held): (PathBuf, Box<dyn std::any::Any>) = match kind.as_str() {
        "shared" => (servers::postgres().directory().unwrap().to_owned(), Box::new(())),
        "own" => {
            let server = servers::own_postgres();
            (server.directory().to_owned(), Box::new(server))
        }
        other => panic!("there is no server {other}"),
    };
    println!("\nserver in {}", server.display());
    thread::sleep(PATIENCE);
}

/// A process that holds a server, and the server's directory.
fn holder(kind: &str, run: &str) -> (Child, PathBuf) {
    let mut child = Command::new(env::current_exe().unwrap())
        .args(["hold_a_server", "--exact", "--ignored", "--nocapture"])
        .env("HOLD_A_SERVER", kind)
        .env("NEXTEST_RUN_ID", run)
        .env_remove("BARGE_TEST_POSTGRES_URL")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let directory =
        lines.map_while(Result::ok).find_map(|line| Some(line.strip_prefix("server in ")?.into()));
    (child, directory.expect("the holder says where its server is"))
}

fn process_of(directory: &Path) -> u32 {
    fs::read_to_string(directory.join("pid")).unwrap().trim().parse().unwrap()
}

fn kill(mut child: Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

/// A process that nobody has waited for is as good as gone.
fn is_gone(process: u32) -> bool {
    fs::read_to_string(format!("/proc/{process}/stat")).map_or(true, |line| line.contains(") Z "))
}

#[test]
fn a_server_of_ones_own_ends_after_its_test_is_killed() {
    let (test, directory) = holder("own", "any");
    let server = process_of(&directory);
    kill(test);
    wait_for("the server's end", || is_gone(server));
    wait_for("the directory's end", || !directory.exists());
}

/// As after the machine ran out of memory: the shell that would end the server is gone, too.
#[test]
fn what_a_dead_run_left_behind_goes_when_the_next_server_starts() {
    let (test, directory) = holder("own", "any");
    let server = process_of(&directory);
    let keeper = fs::read_to_string(format!("/proc/{server}/stat")).unwrap();
    let keeper = keeper.rsplit(") ").next().unwrap().split(' ').nth(1).unwrap().to_owned();
    assert!(Command::new("kill").args(["-9", &keeper]).status().unwrap().success());
    kill(test);

    let _next = servers::own_postgres();
    assert!(is_gone(server));
    assert!(!directory.exists());
}

#[tokio::test]
async fn a_server_of_ones_own_is_killed_and_keeps_what_was_committed() {
    let server = servers::own_postgres_with("max_connections = 7");
    let client = connect(&server.url()).await;
    assert_eq!(one_text(&client, "show max_connections").await, "7");
    client.batch_execute("create table t (id int); insert into t values (1)").await.unwrap();
    client.batch_execute("begin; insert into t values (2)").await.unwrap();

    server.kill();
    assert!(client.simple_query("select 1").await.is_err());
    assert!(try_connect(&server.url()).await.is_err());
    server.start();
    let client = connect(&server.url()).await;
    assert_eq!(one_text(&client, "select string_agg(id::text, ',') from t").await, "1");

    server.stop();
    assert!(try_connect(&server.url()).await.is_err());
    server.start();
    assert_eq!(one_text(&connect(&server.url()).await, "select count(*)::text from t").await, "1");

    let directory = server.directory().to_owned();
    drop(server);
    assert!(!directory.exists());
}

#[tokio::test]
async fn a_server_with_tls_refuses_connections_without() {
    let (server, certificates) = servers::own_postgres_with_tls();
    let error = try_connect(&server.url()).await.expect_err("no connection without TLS");
    assert!(error.to_string().contains("db error"), "{error}");

    // psql is the judge of certificates: it shares no code with what they are made for.
    let authority = certificates.authority.display().to_string();
    let trusted = format!("{}?sslmode=verify-full&sslrootcert={authority}", server.url());
    assert_eq!(psql(&trusted), "t");
    assert!(psql(&trusted.replace("@localhost:", "@127.0.0.1:")).contains("does not match"));
    assert_eq!(psql(&trusted.replace("@localhost:", "@127.0.0.1:").replace("verify-full", "verify-ca")), "t");
    let other_authority = certificates.other_authority.display().to_string();
    assert!(psql(&trusted.replace(&authority, &other_authority)).contains("certificate verify failed"));

    let with_certificate = trusted.replace("postgres@", "with_certificate@");
    assert!(psql(&with_certificate).contains("valid client certificate"));
    let with = |certificate: &Path, key: &Path| {
        psql(&format!("{with_certificate}&sslcert={}&sslkey={}", certificate.display(), key.display()))
    };
    assert_eq!(with(&certificates.client, &certificates.client_key), "t");
    assert_ne!(with(&certificates.other_client, &certificates.other_client_key), "t");
}

/// What psql answers, or complains of.
fn psql(url: &str) -> String {
    let query = "select ssl from pg_stat_ssl where pid = pg_backend_pid()";
    let output = Command::new("psql").args(["-XAtc", query, url]).output().unwrap();
    let said = if output.status.success() { output.stdout } else { output.stderr };
    String::from_utf8(said).unwrap().trim().to_owned()
}

#[tokio::test]
async fn pgbouncer_gives_a_connection_to_another_client_after_each_transaction() {
    let server = servers::postgres();
    let database = server.database();
    let pool = servers::pgbouncer(&server, PoolMode::Transaction);
    let url = pool.url(database.name());

    let mut processes = HashSet::new();
    let mut clients = Vec::new();
    for _ in 0..6 {
        clients.push(connect(&url).await);
    }
    for client in &clients {
        let rows = client.simple_query("select pg_backend_pid()").await.unwrap();
        let process = rows.iter().find_map(|row| match row {
            tokio_postgres::SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
            _ => None,
        });
        processes.insert(process.unwrap());
    }
    assert!(processes.len() <= 3, "{processes:?}");
}

/// A database with an empty table `t (id int)`, and a proxy before it.
async fn proxied() -> (TestDatabase, Proxy) {
    let database = servers::postgres().database();
    connect(&database.url()).await.batch_execute("create table t (id int)").await.unwrap();
    let proxy = Proxy::before(&database.url());
    (database, proxy)
}

/// The ids in `t`, past the proxy.
async fn ids(database: &TestDatabase) -> String {
    let query = "select coalesce(string_agg(id::text, ',' order by id), '') from t";
    one_text(&connect(&database.url()).await, query).await
}

#[tokio::test]
async fn a_commit_whose_answer_is_lost_happens_and_one_that_is_lost_itself_does_not() {
    let (database, proxy) = proxied().await;
    for (point, statement, left) in [
        (FaultPoint::BeforeCommit, "commit", ""),
        (FaultPoint::AfterCommit, "commit", "1"),
        (FaultPoint::BeforeQuery("Values (3".to_owned()), "insert into t values (3)", "1"),
        (FaultPoint::AfterQuery("Values (4".to_owned()), "commit; insert into t values (4)", "1,1,4"),
    ] {
        let client = connect(&proxy.url()).await;
        client.batch_execute("create temp table s (i int) on commit drop").await.unwrap();
        client.batch_execute("begin; insert into t values (1)").await.unwrap();
        proxy.fail(point.clone());
        assert!(client.batch_execute(statement).await.is_err(), "{point:?}");
        assert!(proxy.has_failed());
        assert_eq!(ids(&database).await, left, "{point:?}");
    }
}

#[tokio::test]
async fn a_prepared_commit_is_known_by_its_text() {
    let (database, proxy) = proxied().await;
    for (id, point, left) in [(1, FaultPoint::BeforeCommit, ""), (2, FaultPoint::AfterCommit, "2")] {
        let client = connect(&proxy.url()).await;
        let insert = client.prepare("insert into t values ($1)").await.unwrap();
        let commit = client.prepare("COMMIT").await.unwrap();
        client.batch_execute("begin").await.unwrap();
        client.execute(&insert, &[&id]).await.unwrap();
        proxy.fail(point);
        assert!(client.execute(&commit, &[]).await.is_err());
        assert_eq!(ids(&database).await, left);
    }
}

/// Every step of an exchange can be its last. The row is there, or it is not, and a client that was told so is right.
#[tokio::test]
async fn an_exchange_can_be_cut_at_every_message_and_byte() {
    async fn exchange(client: &Client, insert: &Statement) -> Result<(), tokio_postgres::Error> {
        client.batch_execute("begin").await?;
        client.execute(insert, &[]).await?;
        client.batch_execute("commit").await
    }
    const INSERT: &str = "insert into t values (1)";
    let (database, proxy) = proxied().await;
    let client = connect(&proxy.url()).await;
    let insert = client.prepare(INSERT).await.unwrap();
    let before = proxy.counts();
    exchange(&client, &insert).await.unwrap();
    let passed = proxy.counts().since(before);
    assert_eq!(passed.to_server.messages, 5, "begin, Bind, Execute, Sync, commit");

    let points = |way| {
        let traffic = passed.of(way);
        let messages = (0..traffic.messages).map(move |count| FaultPoint::AfterMessages(way, count));
        messages.chain((0..traffic.bytes).step_by(19).map(move |count| FaultPoint::AfterBytes(way, count)))
    };
    for point in points(Way::ToServer).chain(points(Way::ToClient)) {
        connect(&database.url()).await.batch_execute("truncate t").await.unwrap();
        let client = connect(&proxy.url()).await;
        let insert = client.prepare(INSERT).await.unwrap();
        proxy.fail(point.clone());
        assert!(exchange(&client, &insert).await.is_err(), "{point:?}");
        assert!(proxy.has_failed(), "{point:?}");
        assert!(["", "1"].contains(&ids(&database).await.as_str()), "{point:?}");
    }
}

#[tokio::test]
async fn a_proxy_delays_cuts_and_refuses() {
    let (_database, proxy) = proxied().await;
    let client = connect(&proxy.url()).await;
    proxy.delay(Duration::from_millis(200));
    let began = Instant::now();
    client.simple_query("select 1").await.unwrap();
    assert!(began.elapsed() >= Duration::from_millis(400));
    // Requests that are sent together wait together.
    let began = Instant::now();
    let query = || client.simple_query("select 1");
    let answers = tokio::try_join!(query(), query(), query(), query(), query());
    assert!(answers.is_ok() && began.elapsed() < Duration::from_millis(5 * 400));
    proxy.delay(Duration::ZERO);

    proxy.down();
    assert!(try_connect(&proxy.url()).await.is_err());
    client.simple_query("select 1").await.unwrap();
    proxy.cut();
    assert!(client.simple_query("select 1").await.is_err());
    proxy.up();
    connect(&proxy.url()).await.simple_query("select 1").await.unwrap();
    assert_eq!(proxy.counts().connections, 2);
}

#[tokio::test]
async fn a_proxy_that_is_silent_keeps_what_comes_and_tells_nobody() {
    let (database, proxy) = proxied().await;
    let client = connect(&proxy.url()).await;
    proxy.silence();
    assert!(!proxy.holds(), "nothing came");
    let silence = Duration::from_millis(100);
    let mut insert = std::pin::pin!(client.batch_execute("insert into t values (1)"));
    assert!(tokio::time::timeout(silence, &mut insert).await.is_err(), "nothing is answered");
    assert!(proxy.holds());
    assert_eq!(ids(&database).await, "", "nothing arrives");
    let url = proxy.url();
    assert!(tokio::time::timeout(silence, try_connect(&url)).await.is_err(), "nobody is let in");
    proxy.resume();
    insert.await.unwrap();
    assert_eq!(ids(&database).await, "1");
    connect(&proxy.url()).await.simple_query("select 1").await.unwrap();
}

#[test]
fn the_shared_server_ends_after_its_users_are_killed() {
    let run = format!("killed-{}", std::process::id());
    let (first, directory) = holder("shared", &run);
    let (second, same) = holder("shared", &run);
    assert_eq!(directory, same);
    let server = process_of(&directory);

    kill(first);
    thread::sleep(Duration::from_secs(4));
    assert!(!is_gone(server), "the server ended while it had a user");

    // Within the time that the server waits for another user, a new one finds it.
    kill(second);
    let (third, same) = holder("shared", &run);
    assert_eq!((directory.as_path(), server), (same.as_path(), process_of(&same)));

    kill(third);
    wait_for("the server's end", || is_gone(server));
    wait_for("the directory's end", || !directory.exists());
}
