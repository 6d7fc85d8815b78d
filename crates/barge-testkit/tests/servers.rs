//! The throw-away servers of `barge_testkit::servers`: that they serve, and that none outlives its users.

use std::env;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use barge_testkit::servers;
use tokio_postgres::{Client, NoTls};

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

/// Not a test: what [`a_server_ends_after_its_users_are_killed`] runs in processes of its own.
#[test]
#[ignore = "holds a server until it is killed"]
fn hold_a_server() {
    let Ok(kind) = env::var("HOLD_A_SERVER") else { return };
    let (server, _held): (PathBuf, Box<dyn std::any::Any>) = match kind.as_str() {
        "shared" => (servers::postgres().directory().unwrap().to_owned(), Box::new(())),
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
