//! A PgBouncer before a PostgreSQL server.

use std::env;
use std::fs;
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio_postgres::Config;
use tokio_postgres::config::Host;

use super::keeper::{Ending, Nest, Owned, has_ended, wait_for};
use super::place::own_nest;
use super::port::ReservedPort;
use super::postgres::{PostgresServer, with_database};

/// When PgBouncer takes a server's connection away from a client to give it to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PoolMode {
    /// When the client disconnects.
    Session,
    /// After each transaction. What a session keeps, such as a prepared statement, is then in another client's session.
    Transaction,
    /// After each statement; transactions of several statements are refused.
    Statement,
}

/// Starts a PgBouncer for a test. It forwards every database of the server, with no more than three connections to each,
/// so that a few clients are enough to be mixed. A role needs no password here.
///
/// # Panics
///
/// When PgBouncer is not installed or does not start; the message says what to do.
pub fn pgbouncer(server: &PostgresServer, mode: PoolMode) -> PgBouncer {
    pgbouncer_with(server, mode, "")
}

/// The same with more lines in its section of settings.
///
/// # Panics
///
/// As there.
pub fn pgbouncer_with(server: &PostgresServer, mode: PoolMode, settings: &str) -> PgBouncer {
    let program = program();
    let port = ReservedPort::new();
    let nest = own_nest("pgbouncer");
    configure(&nest, port.number(), &Upstream::of(server), mode, settings);
    let command = [program, "pgbouncer.ini".into()];
    let server = Owned::new(nest.keep(ENDING, command));
    server.hold().start();
    wait_for("PgBouncer to accept connections", || {
        let ended = server.hold().process().is_none_or(has_ended);
        assert!(!ended, "PgBouncer did not start:\n{}", log_in(&server.hold().directory));
        TcpStream::connect((Ipv4Addr::LOCALHOST, port.number())).is_ok()
    });
    PgBouncer { server, port }
}

/// A PgBouncer: [`pgbouncer`]. It ends when this value is dropped, and its clients' connections with it.
#[derive(Debug)]
pub struct PgBouncer {
    server: Owned,
    port: ReservedPort,
}

impl PgBouncer {
    /// A database of the server through PgBouncer, as a superuser. The database `pgbouncer` is PgBouncer's own console,
    /// which takes `SHOW POOLS` and the like as simple queries.
    pub fn url(&self, database: &str) -> String {
        with_database(&super::postgres::url("127.0.0.1", self.port(), "postgres"), database)
    }

    /// The port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port.number()
    }

    /// What PgBouncer has written to its log.
    pub fn log(&self) -> String {
        log_in(&self.server.hold().directory)
    }
}

/// What SIGTERM and SIGQUIT do depends on PgBouncer's version. It has no children, and nothing to lose.
const ENDING: Ending = Ending { grace: Duration::ZERO, signal: "KILL" };

/// Where and as whom PgBouncer connects.
struct Upstream {
    host: String,
    port: u16,
    user: String,
    password: String,
}

impl Upstream {
    fn of(server: &PostgresServer) -> Self {
        let url = server.url();
        let config: Config = url.parse().unwrap_or_else(|error| panic!("{url}: {error}"));
        let host = match config.get_hosts().first() {
            Some(Host::Tcp(host)) => host.clone(),
            Some(Host::Unix(folder)) => folder.display().to_string(),
            None => "127.0.0.1".to_owned(),
        };
        Self {
            host,
            port: config.get_ports().first().copied().unwrap_or(5432),
            user: config.get_user().unwrap_or("postgres").to_owned(),
            password: String::from_utf8_lossy(config.get_password().unwrap_or_default()).into_owned(),
        }
    }
}

fn configure(nest: &Nest, port: u16, upstream: &Upstream, mode: PoolMode, more: &str) {
    let Upstream { host, port: server_port, user, password } = upstream;
    let mode = match mode {
        PoolMode::Session => "session",
        PoolMode::Transaction => "transaction",
        PoolMode::Statement => "statement",
    };
    // Without a file for its log, PgBouncer writes it to standard error.
    let settings = format!(
        "[databases]\n* = host={host} port={server_port} user={user}\n\
         [pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n\
         auth_type = trust\nauth_file = users.txt\nadmin_users = postgres\n\
         pool_mode = {mode}\ndefault_pool_size = 3\nmax_client_conn = 200\n{more}"
    );
    // A user that is not listed is refused, also where no password is asked for.
    let mut users = format!("\"{user}\" \"{password}\"\n");
    if user != "postgres" {
        users.push_str("\"postgres\" \"\"\n");
    }
    for (name, text) in [("pgbouncer.ini", settings), ("users.txt", users)] {
        let path = nest.directory.join(name);
        fs::write(&path, text).unwrap_or_else(|error| panic!("cannot write {}: {error}", path.display()));
        nest.account.give(&path);
    }
}

fn log_in(directory: &Path) -> String {
    fs::read_to_string(directory.join("log")).unwrap_or_default()
}

fn program() -> PathBuf {
    let named = env::var_os("BARGE_TEST_PGBOUNCER").map(PathBuf::from);
    let folders: Vec<PathBuf> =
        env::var_os("PATH").map(|path| env::split_paths(&path).collect()).unwrap_or_default();
    let in_path = folders.into_iter().map(|folder| folder.join("pgbouncer"));
    // A folder that is not in everybody's path.
    let candidates = named.into_iter().chain(in_path).chain(["/usr/sbin/pgbouncer".into()]);
    candidates.into_iter().find(|path| path.is_file()).unwrap_or_else(|| {
        panic!("PgBouncer is missing: on Debian or Ubuntu install the package pgbouncer; or set BARGE_TEST_PGBOUNCER")
    })
}
