//! The Redis servers that a test run shares: a single one, and a cluster of three.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::thread;
use std::time::Duration;

use super::keeper::{Ending, Hold, Nest, clean_up, has_ended, join, wait_for};
use super::place::{Account, base, lock, run_name, unique_name};
use super::port::BusPort;
use super::redis_cluster::form;
use super::resp::{Reply, ask};

/// How many nodes a cluster has, all masters.
pub(super) const NODES: usize = 3;

/// The Redis server of this test run, which is started when the first test asks and is the same for all of them, in whichever
/// process they run. It ends a few seconds after the last process that asked.
///
/// # Panics
///
/// When Redis is not installed or does not start; the message says what to do.
pub fn redis() -> RedisServer {
    static OF_THIS_PROCESS: OnceLock<(RedisServer, Vec<Hold>)> = OnceLock::new();
    let (server, _holds) = OF_THIS_PROCESS.get_or_init(|| start_or_join("redis", 1));
    server.clone()
}

/// The Redis Cluster of this test run: three nodes without replicas. Otherwise as [`redis`].
///
/// # Panics
///
/// When Redis is not installed or does not start; the message says what to do.
pub fn redis_cluster() -> RedisServer {
    static OF_THIS_PROCESS: OnceLock<(RedisServer, Vec<Hold>)> = OnceLock::new();
    let (server, _holds) = OF_THIS_PROCESS.get_or_init(|| start_or_join("redis_cluster", NODES));
    server.clone()
}

/// A Redis for tests: [`redis`], [`redis_cluster`].
#[derive(Clone, Debug)]
pub struct RedisServer {
    directories: Vec<PathBuf>,
}

impl RedisServer {
    /// Its URL, `redis://` or `redis-cluster://`, with a prefix for keys that nobody else has.
    pub fn fresh_url(&self) -> String {
        let run = unique_name("test");
        let places: Vec<String> = self.ports().map(|port| format!("127.0.0.1:{port}")).collect();
        let scheme = if places.len() == 1 { "redis" } else { "redis-cluster" };
        format!("{scheme}://{}?prefix={run}:", places.join(","))
    }

    /// The ports on 127.0.0.1.
    pub fn ports(&self) -> impl Iterator<Item = u16> {
        self.directories.iter().map(|directory| port_of(directory))
    }

    /// Runs a command on a node, the only one or one of the cluster's three.
    ///
    /// # Panics
    ///
    /// When it fails.
    pub fn command(&self, node: usize, arguments: &[&str]) -> Reply {
        command_in(&self.directories[node], arguments)
    }
}

/// How long a shared server waits for another user: longer than a test runner takes from one test to the next.
const GRACE: Duration = Duration::from_secs(3);

/// SIGKILL at the end: what is kept is thrown away.
pub(super) const ENDING: Ending = Ending { grace: Duration::ZERO, signal: "KILL" };

fn start_or_join(kind: &str, nodes: usize) -> (RedisServer, Vec<Hold>) {
    let account = Account::unprivileged();
    let base = base(account);
    let run = run_name();
    let directories: Vec<PathBuf> = (0..nodes).map(|node| base.join(format!("{kind}{node}_{run}"))).collect();
    let _turn = lock(&base);
    loop {
        let holds: Vec<Hold> = directories.iter().filter_map(|directory| join(directory)).collect();
        if holds.len() == nodes {
            return (RedisServer { directories }, holds);
        }
        if holds.is_empty() {
            clean_up(&base);
            let nests = directories.iter().map(|directory| Nest::new(directory.clone(), account));
            let holds = start_shared(nests.collect());
            return (RedisServer { directories }, holds);
        }
        // Some of its nodes ended a moment ago and the others are about to.
        drop(holds);
        thread::sleep(GRACE / 10);
    }
}

fn start_shared(nests: Vec<Nest>) -> Vec<Hold> {
    let is_cluster = nests.len() > 1;
    let start_one = |nest: Nest| {
        let port = BusPort::new();
        let command = Node { port: port.number(), is_cluster, settings: &[] }.command(&nest);
        // The keeper is not waited for: it outlives this process.
        let (hold, _keeper) = nest.keep(Ending { grace: GRACE, ..ENDING }, command);
        start(&hold);
        // Held until now: the server has taken its ports.
        drop(port);
        hold
    };
    let holds: Vec<Hold> = nests.into_iter().map(start_one).collect();
    if is_cluster {
        let directories: Vec<&Path> = holds.iter().map(|hold| hold.directory.as_path()).collect();
        form(&directories);
    }
    holds.iter().for_each(Hold::say_ready);
    holds
}

/// What a server is to be like.
pub(super) struct Node<'a> {
    pub(super) port: u16,
    pub(super) is_cluster: bool,
    /// Further arguments of the program, which win over those it has anyway.
    pub(super) settings: &'a [String],
}

impl Node<'_> {
    /// The command that runs it. It keeps nothing on the disk unless it is told to, and listens on the loopback address and on a socket in its
    /// directory, over which tests give it commands whatever else it asks of its clients.
    pub(super) fn command(&self, nest: &Nest) -> Vec<String> {
        let port = self.port.to_string();
        let directory = nest.directory.display().to_string();
        write(&nest.directory.join("port"), &port);
        if let Some(password) = self.settings.iter().skip_while(|setting| *setting != "--requirepass").nth(1)
        {
            write(&nest.directory.join(PASSWORD), password);
        }
        let mut command = vec![program().display().to_string()];
        let mut set =
            |arguments: &[&str]| command.extend(arguments.iter().map(|&argument| argument.to_owned()));
        set(&["--bind", "127.0.0.1", "--port", &port, "--dir", &directory, "--unixsocket", SOCKET]);
        set(&["--save", "", "--appendonly", "no", "--daemonize", "no", "--logfile", ""]);
        if self.is_cluster {
            set(&["--cluster-enabled", "yes", "--cluster-config-file", "nodes.conf"]);
            set(&["--cluster-node-timeout", "1500", "--cluster-require-full-coverage", "no"]);
        }
        command.extend(self.settings.iter().cloned());
        command
    }
}

/// Relative to the server's directory, which is its working directory.
const SOCKET: &str = "redis.sock";
/// The file in its directory that says its password.
const PASSWORD: &str = "password";

/// Starts a server and waits until it answers and has read what it kept.
pub(super) fn start(hold: &Hold) {
    // What a killed server left behind would look as if it were there.
    let _ = fs::remove_file(hold.directory.join(SOCKET));
    hold.start();
    wait_for("Redis to answer", || {
        let ended = hold.process().is_none_or(has_ended);
        assert!(!ended, "Redis did not start:\n{}", log_in(&hold.directory));
        // One that asks for a password answers, too.
        match ask(&hold.directory.join(SOCKET), &[&["PING"]]) {
            Ok(Reply::Error(error)) => !error.starts_with("LOADING"),
            answered => answered.is_ok(),
        }
    });
}

/// Runs a command over the server's socket, logged in where the server has a password.
pub(super) fn command_in(directory: &Path, arguments: &[&str]) -> Reply {
    let password = fs::read_to_string(directory.join(PASSWORD)).ok();
    let first: Option<[&str; 2]> = password.as_deref().map(|password| ["AUTH", password]);
    let commands: Vec<&[&str]> = first.iter().map(|first| first.as_slice()).chain([arguments]).collect();
    match ask(&directory.join(SOCKET), &commands) {
        Ok(Reply::Error(error)) => panic!("Redis refused {arguments:?}: {error}"),
        Ok(reply) => reply,
        Err(error) => panic!("Redis does not answer {arguments:?}: {error}\n{}", log_in(directory)),
    }
}

fn write(path: &Path, text: &str) {
    fs::write(path, text).unwrap_or_else(|error| panic!("cannot write {}: {error}", path.display()));
}

pub(super) fn port_of(directory: &Path) -> u16 {
    let port = fs::read_to_string(directory.join("port")).ok().and_then(|port| port.parse().ok());
    port.unwrap_or_else(|| panic!("{} does not say the server's port", directory.display()))
}

pub(super) fn log_in(directory: &Path) -> String {
    fs::read_to_string(directory.join("log")).unwrap_or_default()
}

fn program() -> PathBuf {
    let named = std::env::var_os("BARGE_TEST_REDIS").map(PathBuf::from);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let in_path = std::env::split_paths(&path).map(|folder| folder.join("redis-server"));
    named.into_iter().chain(in_path).find(|path| path.is_file()).unwrap_or_else(|| {
        panic!(
            "Redis is missing: on Debian or Ubuntu install the package redis-server; or set BARGE_TEST_REDIS"
        )
    })
}
