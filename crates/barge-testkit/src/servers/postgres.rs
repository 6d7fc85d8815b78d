//! The PostgreSQL server that a test run shares.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;
use std::thread;
use std::time::Duration;

use tokio_postgres::NoTls;

use super::keeper::{Ending, Hold, Nest, clean_up, join, wait_for};
use super::place::{Account, base, lock, run_name, unique_name};
use super::port::ReservedPort;

/// The PostgreSQL server of this test run, which is started when the first test asks and is the same for all of them,
/// in whichever process they run. It ends a few seconds after the last process that asked.
///
/// Where `BARGE_TEST_POSTGRES_URL` is set, that server is used instead. It needs a role that may create databases.
///
/// # Panics
///
/// When PostgreSQL is not installed or does not start; the message says what to do.
pub fn postgres() -> PostgresServer {
    static OF_THIS_PROCESS: OnceLock<(PostgresServer, Option<Hold>)> = OnceLock::new();
    let (server, _hold) = OF_THIS_PROCESS.get_or_init(|| match env::var("BARGE_TEST_POSTGRES_URL") {
        Ok(url) => (PostgresServer { url, url_with_password: None, directory: None }, None),
        Err(_) => {
            let (server, hold) = start_or_join();
            (server, Some(hold))
        }
    });
    server.clone()
}

/// A PostgreSQL server for tests: [`postgres`].
#[derive(Clone, Debug)]
pub struct PostgresServer {
    url: String,
    url_with_password: Option<String>,
    directory: Option<PathBuf>,
}

impl PostgresServer {
    /// The database `postgres`, as a superuser. Nothing is to be made in it: it is everybody's.
    pub fn url(&self) -> String {
        self.url.clone()
    }

    /// The same as a role `with_password`, whose password is asked for and which is no superuser. None on a server that
    /// was not started here.
    pub fn url_with_password(&self) -> Option<String> {
        self.url_with_password.clone()
    }

    /// The port on 127.0.0.1. None on a server that was not started here.
    pub fn port(&self) -> Option<u16> {
        self.directory.as_deref().map(port_of)
    }

    /// The server's directory: `data`, the Unix socket in `socket`, its messages in `log`, the server's process in `pid`.
    /// None on a server that was not started here.
    pub fn directory(&self) -> Option<&Path> {
        self.directory.as_deref()
    }

    /// A fresh, empty database.
    pub fn database(&self) -> TestDatabase {
        let name = unique_name("test");
        execute(&self.url, &format!("create database {name}"));
        TestDatabase { url: with_database(&self.url, &name), name, server: self.clone() }
    }
}

/// A database of a test's own, dropped with this value, whoever is still connected to it.
#[derive(Debug)]
pub struct TestDatabase {
    server: PostgresServer,
    name: String,
    url: String,
}

impl TestDatabase {
    /// The database, as a superuser.
    pub fn url(&self) -> String {
        self.url.clone()
    }

    /// The database, as the role that has a password; see [`PostgresServer::url_with_password`].
    pub fn url_with_password(&self) -> Option<String> {
        self.server.url_with_password.as_deref().map(|url| with_database(url, &self.name))
    }

    /// The database's name: lower-case letters, digits and underscores.
    pub fn name(&self) -> &str {
        &self.name
    }
}

impl Drop for TestDatabase {
    fn drop(&mut self) {
        let statement = format!("drop database if exists {} with (force)", self.name);
        // A test that fails says why; that its server is gone, too, is no news. The server takes the database with it.
        if let Err(error) = try_execute(&self.server.url, &statement)
            && !thread::panicking()
        {
            panic!("{statement}: {error}");
        }
    }
}

/// What every server runs with. Its data is thrown away, so nothing is forced to disk; what a commit means to clients is
/// left alone.
const SETTINGS: &str = "\
listen_addresses = '127.0.0.1'
fsync = off
full_page_writes = off
max_connections = 200
shared_buffers = 128MB
lc_messages = 'C'
log_destination = 'stderr'
logging_collector = off
";

/// Who may connect: over the loopback address and the Unix socket in the server's own directory. A superuser can run
/// programs as the server's account, and anybody on this machine can be one, while tests run.
pub(super) const ACCESS: &str = "\
host all with_password 127.0.0.1/32 scram-sha-256
host all all 127.0.0.1/32 trust
local all all trust
";

/// How the server is ended: an immediate shutdown, which stops the children, too.
pub(super) const IMMEDIATE: &str = "QUIT";

/// How long the shared server waits for another user: longer than a test runner takes from one test to the next.
const GRACE: Duration = Duration::from_secs(3);

fn start_or_join() -> (PostgresServer, Hold) {
    let account = Account::unprivileged();
    let base = base(account);
    let directory = base.join(format!("postgres-{}", run_name()));
    let _turn = lock(&base);
    let hold = join(&directory).unwrap_or_else(|| {
        clean_up(&base);
        start_shared(directory.clone(), account)
    });
    let port = port_of(&directory);
    let server = PostgresServer {
        url: url(port, "postgres"),
        url_with_password: Some(url(port, "with_password:secret")),
        directory: Some(directory),
    };
    (server, hold)
}

fn start_shared(directory: PathBuf, account: Account) -> Hold {
    let port = ReservedPort::new();
    let nest = Nest::new(directory.clone(), account);
    make_cluster(&nest, port.number(), "", ACCESS);
    let (hold, _keeper) = nest.keep(Ending { grace: GRACE, signal: IMMEDIATE }, command_of(&directory));
    start(&hold);
    fs::write(directory.join("ready"), "").expect("the server's directory can be written");
    hold
}

/// Makes a cluster: the folders, the superuser `postgres`, the role `with_password`, and the configuration.
pub(super) fn make_cluster(nest: &Nest, port: u16, more_settings: &str, access: &str) {
    let data = nest.directory.join("data");
    let mut initdb = nest.account.command(program("initdb"));
    initdb.args(["--no-sync", "--no-instructions", "--username=postgres", "--auth=trust"]);
    initdb.args(["--encoding=UTF8", "--locale=C", "--pgdata"]).arg(&data).current_dir(&nest.directory);
    must_succeed(&mut initdb);

    let socket = nest.directory.join("socket");
    fs::create_dir(&socket).unwrap_or_else(|error| panic!("cannot make {}: {error}", socket.display()));
    nest.account.give(&socket);
    let socket = socket.display();
    let settings =
        format!("{SETTINGS}port = {port}\nunix_socket_directories = '{socket}'\n{more_settings}\n");
    // Written over what initdb has put there, whose owner stays.
    fs::write(data.join("postgresql.conf"), settings).expect("a new cluster can be configured");
    fs::write(data.join("pg_hba.conf"), access).expect("a new cluster can be configured");
    fs::write(nest.directory.join("port"), port.to_string()).expect("the directory can be written");
    make_role(nest);
}

/// Makes the role `with_password` before the server runs, so that a server that accepts connections is complete.
fn make_role(nest: &Nest) {
    let statement = nest.directory.join("role.sql");
    fs::write(&statement, "create role with_password login password 'secret';\n")
        .expect("the directory can be written");
    let input = fs::File::open(&statement).expect("the statement was just written");
    let mut single = nest.account.command(program("postgres"));
    single.args(["--single", "-j", "-D"]).arg(nest.directory.join("data")).arg("postgres").stdin(input);
    must_succeed(single.current_dir(&nest.directory));
}

/// The command that runs the cluster in a directory.
pub(super) fn command_of(directory: &Path) -> [PathBuf; 3] {
    [program("postgres"), "-D".into(), directory.join("data")]
}

/// Starts a server and waits until it accepts connections.
pub(super) fn start(hold: &Hold) {
    hold.start();
    wait_for("PostgreSQL to accept connections", || {
        assert!(!has_ended(hold), "PostgreSQL did not start:\n{}", log_of(&hold.directory));
        is_ready(hold)
    });
}

/// Whether the running server accepts connections, which its lock file says in the eighth line. A connection would prove
/// less: another server could have taken the port.
fn is_ready(hold: &Hold) -> bool {
    let lines = fs::read_to_string(hold.directory.join("data/postmaster.pid")).unwrap_or_default();
    let of_this_start = lines.lines().next().and_then(|line| line.trim().parse().ok())
        == hold.process().map(rustix::process::Pid::as_raw_nonzero);
    of_this_start && lines.lines().nth(7).is_some_and(|line| line.trim() == "ready")
}

fn has_ended(hold: &Hold) -> bool {
    hold.process().is_none_or(super::keeper::has_ended)
}

fn log_of(directory: &Path) -> String {
    fs::read_to_string(directory.join("log")).unwrap_or_default()
}

fn port_of(directory: &Path) -> u16 {
    let port = fs::read_to_string(directory.join("port")).ok().and_then(|port| port.parse().ok());
    port.unwrap_or_else(|| panic!("{} does not say the server's port", directory.display()))
}

pub(super) fn url(port: u16, user: &str) -> String {
    format!("postgres://{user}@127.0.0.1:{port}/postgres")
}

/// A URL with another database in it.
pub(super) fn with_database(url: &str, database: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap_or_else(|| panic!("{url}: not a postgres:// URL"));
    let (place, parameters) = rest.split_once('?').unwrap_or((rest, ""));
    let authority = place.split('/').next().unwrap_or_default();
    let mark = if parameters.is_empty() { "" } else { "?" };
    format!("{scheme}://{authority}/{database}{mark}{parameters}")
}

/// Runs a statement over a connection of its own.
pub(super) fn execute(url: &str, statement: &str) {
    try_execute(url, statement).unwrap_or_else(|error| panic!("{statement}: {error}"));
}

/// On a thread and a runtime of its own: the caller may be in a runtime, whose clock may stand still.
fn try_execute(url: &str, statement: &str) -> Result<(), String> {
    let run = async {
        let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
        let connection = tokio::spawn(connection);
        client.batch_execute(statement).await?;
        // The server is told before the connection is closed, so it does not write of a lost client in its log.
        drop(client);
        connection.await.expect("a connection does not panic")
    };
    thread::scope(|scope| {
        let worker = scope.spawn(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime can be made").block_on(run)
        });
        worker.join().expect("a statement does not panic").map_err(|error: tokio_postgres::Error| {
            error.as_db_error().map_or_else(|| error.to_string(), ToString::to_string)
        })
    })
}

/// One of PostgreSQL's programs.
fn program(name: &str) -> PathBuf {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(find_programs).join(name)
}

fn find_programs() -> PathBuf {
    let named = env::var_os("BARGE_TEST_POSTGRES_BIN").map(PathBuf::from);
    let in_path =
        env::var_os("PATH").into_iter().flat_map(|path| env::split_paths(&path).collect::<Vec<_>>());
    let candidates = named.into_iter().chain(in_path).chain(folder_by_pg_config()).chain(folders_of_debian());
    let has_server = |folder: &PathBuf| ["initdb", "postgres"].iter().all(|name| folder.join(name).is_file());
    candidates.into_iter().find(has_server).unwrap_or_else(|| {
        panic!("PostgreSQL is missing: on Debian or Ubuntu install the package postgresql; or set BARGE_TEST_POSTGRES_BIN or BARGE_TEST_POSTGRES_URL")
    })
}

fn folder_by_pg_config() -> Option<PathBuf> {
    let output = Command::new("pg_config").arg("--bindir").output().ok()?;
    Some(PathBuf::from(String::from_utf8(output.stdout).ok()?.trim()))
}

/// Debian keeps the programs of each major version in a folder of its own. The newest comes first.
fn folders_of_debian() -> Vec<PathBuf> {
    let folders = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut versions: Vec<u32> =
        folders.filter_map(|folder| folder.file_name().to_str()?.parse().ok()).collect();
    versions.sort_unstable_by(|left, right| right.cmp(left));
    versions.iter().map(|version| PathBuf::from(format!("/usr/lib/postgresql/{version}/bin"))).collect()
}

fn must_succeed(command: &mut Command) {
    let Output { status, stdout, stderr } =
        command.output().unwrap_or_else(|error| panic!("cannot run {command:?}: {error}"));
    assert!(
        status.success(),
        "{command:?}: {status}\n{}{}",
        String::from_utf8_lossy(&stdout),
        String::from_utf8_lossy(&stderr)
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_keeps_all_but_its_database() {
        let changed = |url| with_database(url, "mine");
        assert_eq!(
            changed("postgres://u:p@h:1/old?sslmode=require"),
            "postgres://u:p@h:1/mine?sslmode=require"
        );
        assert_eq!(changed("postgresql://h"), "postgresql://h/mine");
    }
}
