//! A Redis server that one test has to itself, to kill, to halt and to start again.

use std::fs;
use std::path::Path;

use rustix::process::{Pid, Signal};

use super::certificates::{Certificates, make_certificates};
use super::keeper::{Nest, Owned, is_halted, kill_with_children, send, wait_for};
use super::place::own_nest;
use super::port::BusPort;
use super::redis::{ENDING, Node, command_in, log_in, start};
use super::resp::Reply;

/// The password of [`own_redis_with_password`].
pub const REDIS_PASSWORD: &str = "s3cret:/@?";

/// A server of the test's own, with nothing in it.
pub fn own_redis() -> OwnRedis {
    own_redis_with(&[])
}

/// A server of the test's own with further settings, as Redis's command line takes them: `["--maxmemory", "2mb"]`.
pub fn own_redis_with(settings: &[&str]) -> OwnRedis {
    let settings: Vec<String> = settings.iter().map(|&setting| setting.to_owned()).collect();
    OwnRedis::start_in(own_nest("own_redis"), false, &settings)
}

/// A server of the test's own that asks for the password [`REDIS_PASSWORD`].
pub fn own_redis_with_password() -> OwnRedis {
    own_redis_with(&["--requirepass", REDIS_PASSWORD])
}

/// A server of the test's own that speaks TLS alone on its port, and the certificates that go with it.
///
/// Its own certificate is for `localhost` and for no address: a client that connects to 127.0.0.1 can check who signed it
/// and finds that the name does not match. `authenticate` says whether clients need a certificate: `yes` or `no`.
pub fn own_redis_with_tls(authenticate: &str) -> (OwnRedis, Certificates) {
    let nest = own_nest("own_redis");
    let certificates = make_certificates(&nest);
    let settings = tls_settings(&certificates, authenticate);
    (OwnRedis::start_in(nest, false, &settings), certificates)
}

/// What a server is told that speaks TLS with those certificates.
fn tls_settings(certificates: &Certificates, authenticate: &str) -> Vec<String> {
    let file = |name: &str| certificates.folder.join(name).display().to_string();
    let settings = [
        ("--tls-cert-file", file("server.crt")),
        ("--tls-key-file", file("server.key")),
        ("--tls-ca-cert-file", file("ca.crt")),
        ("--tls-auth-clients", authenticate.to_owned()),
    ];
    settings.into_iter().flat_map(|(name, value)| [name.to_owned(), value]).collect()
}

/// A Redis server of one test: [`own_redis`]. It ends, and its directory goes, when this value is dropped.
#[derive(Debug)]
pub struct OwnRedis {
    server: Owned,
    /// Held also while the server is down.
    port: BusPort,
}

impl OwnRedis {
    /// A node for a cluster.
    pub(super) fn node() -> Self {
        OwnRedis::start_in(own_nest("own_redis_node"), true, &[])
    }

    /// Nodes for a cluster that speak TLS alone, with their clients and with each other, and the certificates they share, which are in the first
    /// one's directory.
    pub(super) fn nodes_with_tls(count: usize) -> (Vec<Self>, Certificates) {
        let nests: Vec<Nest> = (0..count).map(|_| own_nest("own_redis_node")).collect();
        let certificates = make_certificates(&nests[0]);
        let mut settings = tls_settings(&certificates, "no");
        settings.extend(["--tls-cluster".into(), "yes".into()]);
        let nodes = nests.into_iter().map(|nest| OwnRedis::start_in(nest, true, &settings)).collect();
        (nodes, certificates)
    }

    fn start_in(nest: Nest, is_cluster: bool, settings: &[String]) -> Self {
        let port = BusPort::new();
        let mut settings = settings.to_vec();
        if settings.iter().any(|setting| setting == "--tls-cert-file") {
            settings.extend(["--tls-port".into(), port.number().to_string(), "--port".into(), "0".into()]);
        }
        let command = Node { port: port.number(), is_cluster, settings: &settings }.command(&nest);
        let server = OwnRedis { server: Owned::new(nest.keep(ENDING, command)), port };
        server.start();
        server
    }

    /// Its URL, without what it asks of its clients.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port())
    }

    /// The port on 127.0.0.1, the same for all starts. While the server is down, connecting to it is refused.
    pub fn port(&self) -> u16 {
        self.port.number()
    }

    /// The server's directory: its messages in `log`, the server's process in `pid`, what it saves in `dump.rdb`.
    pub fn directory(&self) -> &Path {
        &self.server.hold().directory
    }

    /// What the server has written to its log.
    pub fn log(&self) -> String {
        log_in(self.directory())
    }

    /// Runs a command, on a way of its own that no pause of the network and no TLS is in.
    ///
    /// # Panics
    ///
    /// When it fails.
    pub fn command(&self, arguments: &[&str]) -> Reply {
        command_in(self.directory(), arguments)
    }

    /// SIGKILL: what isn't saved is lost.
    pub fn kill(&self) {
        kill_with_children(self.process());
        self.server.hold().reap();
    }

    /// Starts the server after [`OwnRedis::kill`], in the same directory and on the same port, with what was saved there. Returns when it
    /// answers.
    pub fn start(&self) {
        assert!(self.server.hold().process().is_none(), "the server runs already");
        start(self.server.hold());
    }

    /// Halts the server: it stays connected and says nothing.
    pub fn pause(&self) {
        send(self.process(), Signal::STOP);
        wait_for("Redis to halt", || is_halted(self.process()));
    }

    /// Lets it go on.
    pub fn resume(&self) {
        send(self.process(), Signal::CONT);
    }

    /// Keeps aside what the server holds now.
    pub fn save_aside(&self) {
        self.command(&["SAVE"]);
        self.copy("dump.rdb", "aside.rdb");
    }

    /// Kills the server and starts it again with what [`save_aside`](OwnRedis::save_aside) kept, however long ago.
    pub fn go_back(&self) {
        self.kill();
        self.copy("aside.rdb", "dump.rdb");
        self.start();
    }

    fn copy(&self, from: &str, to: &str) {
        let directory = self.directory();
        // A file that is there keeps its owner.
        let copied = fs::copy(directory.join(from), directory.join(to));
        copied
            .unwrap_or_else(|error| panic!("cannot copy {from} to {to} in {}: {error}", directory.display()));
    }

    fn process(&self) -> Pid {
        self.server.hold().process().expect("the server runs")
    }
}
