//! The PostgreSQL server that a test run shares.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::thread;
use std::time::Duration;

use tokio_postgres::NoTls;

use super::cluster::{ACCESS, Cluster, ENDING, command_of, start};
use super::keeper::{Ending, Hold, Nest, clean_up, join};
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
        execute(&self.url, &format!("create database {name}{}", self.strategy()));
        TestDatabase { url: with_database(&self.url, &name), name, server: self.clone() }
    }

    fn strategy(&self) -> &'static str {
        let version = self.directory().and_then(|path| fs::read_to_string(path.join("data/PG_VERSION")).ok());
        let major: Option<u32> = version.and_then(|version| version.trim().parse().ok());
        if major.is_some_and(|major| major >= 15) { FILE_COPY } else { "" }
    }
}

/// How a database is copied from the template, from PostgreSQL 15 on. Copying files takes 27 ms with a first connection
/// and the drop, where writing them to the log takes 43 ms.
const FILE_COPY: &str = " strategy file_copy";

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

/// How long the shared server waits for another user: longer than a test runner takes from one test to the next.
const GRACE: Duration = Duration::from_secs(3);

fn start_or_join() -> (PostgresServer, Hold) {
    let account = Account::unprivileged();
    let base = base(account);
    let directory = base.join(format!("postgres_{}", run_name()));
    let _turn = lock(&base);
    let hold = join(&directory).unwrap_or_else(|| {
        clean_up(&base);
        start_shared(Nest::new(directory.clone(), account))
    });
    let port = port_of(&directory);
    let server = PostgresServer {
        url: url("127.0.0.1", port, "postgres"),
        url_with_password: Some(url("127.0.0.1", port, "with_password:secret")),
        directory: Some(directory),
    };
    (server, hold)
}

fn start_shared(nest: Nest) -> Hold {
    let port = ReservedPort::new();
    Cluster { port: port.number(), settings: "", access: ACCESS }.make(&nest);
    let command = command_of(&nest.directory);
    // The keeper is not waited for: it outlives this process.
    let (hold, _keeper) = nest.keep(Ending { grace: GRACE, ..ENDING }, command);
    start(&hold);
    hold.say_ready();
    hold
}

fn port_of(directory: &Path) -> u16 {
    let port = fs::read_to_string(directory.join("port")).ok().and_then(|port| port.parse().ok());
    port.unwrap_or_else(|| panic!("{} does not say the server's port", directory.display()))
}

pub(super) fn url(host: &str, port: u16, user: &str) -> String {
    format!("postgres://{user}@{host}:{port}/postgres")
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
