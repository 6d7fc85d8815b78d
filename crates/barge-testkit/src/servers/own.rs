//! A PostgreSQL server that one test has to itself, to kill and to start again.

use std::fs;
use std::path::Path;

use rustix::process::{Pid, Signal};

use super::certificates::{Certificates, make_certificates};
use super::cluster::{ACCESS, Cluster, ENDING, command_of, remove_shared_memory, start};
use super::keeper::{Nest, Owned, kill_with_children, send};
use super::place::{Account, own_nest};
use super::port::ReservedPort;
use super::postgres::url;

/// A server of the test's own. It takes about a second to start; [`super::postgres`] is there already.
pub fn own_postgres() -> OwnPostgres {
    own_postgres_with("")
}

/// A server of the test's own with further lines in its `postgresql.conf`, which win over those it has anyway.
pub fn own_postgres_with(settings: &str) -> OwnPostgres {
    OwnPostgres::start_in(own_nest("own_postgres"), settings, ACCESS, "127.0.0.1")
}

/// A server of the test's own that refuses connections without TLS, and the certificates that go with it.
///
/// Its own certificate is for `localhost` and for no address: a client that connects to 127.0.0.1 can check who signed it
/// and finds that the name does not match.
pub fn own_postgres_with_tls() -> (OwnPostgres, Certificates) {
    let nest = own_nest("own_postgres");
    let certificates = make_certificates(&nest);
    let folder = certificates.folder.display();
    let settings = format!(
        "ssl = on\nssl_cert_file = '{folder}/server.crt'\nssl_key_file = '{folder}/server.key'\nssl_ca_file = '{folder}/ca.crt'\n"
    );
    (OwnPostgres::start_in(nest, &settings, TLS_ACCESS, "localhost"), certificates)
}

/// Who may connect to a server with TLS: the role `with_certificate` only with a certificate that has this name.
const TLS_ACCESS: &str = "\
hostssl all with_certificate 127.0.0.1/32 cert
hostssl all with_password 127.0.0.1/32 scram-sha-256
hostssl all all 127.0.0.1/32 trust
local all all trust
";

/// A PostgreSQL server of one test: [`own_postgres`]. It ends, and its directory goes, when this value is dropped.
#[derive(Debug)]
pub struct OwnPostgres {
    server: Owned,
    host: &'static str,
    /// Held also while the server is down.
    port: ReservedPort,
}

impl OwnPostgres {
    fn start_in(nest: Nest, settings: &str, access: &str, host: &'static str) -> Self {
        let port = ReservedPort::new();
        Cluster { port: port.number(), settings, access }.make(&nest);
        let command = command_of(&nest.directory);
        let server = OwnPostgres { server: Owned::new(nest.keep(ENDING, command)), host, port };
        server.start();
        server
    }

    /// The database `postgres`, as a superuser.
    pub fn url(&self) -> String {
        self.url_as("postgres")
    }

    /// The database `postgres`, as a role: `with_password:secret`, which is asked for the password, or
    /// `with_certificate`, which is asked for its certificate where the server has TLS.
    pub fn url_as(&self, user: &str) -> String {
        url(self.host, self.port(), user)
    }

    /// The port on 127.0.0.1, the same for all starts. While the server is down, connecting to it is refused.
    pub fn port(&self) -> u16 {
        self.port.number()
    }

    /// The server's directory: `data`, the Unix socket in `socket`, its messages in `log`, the server's process in `pid`.
    pub fn directory(&self) -> &Path {
        &self.server.hold().directory
    }

    /// What the server has written to its log.
    pub fn log(&self) -> String {
        fs::read_to_string(self.directory().join("log")).unwrap_or_default()
    }

    /// SIGKILL for the server and everything it has started, as when a machine loses power, but for what the system has
    /// yet to write. Returns when they are gone.
    pub fn kill(&self) {
        kill_with_children(self.process());
        self.server.hold().reap();
        remove_shared_memory(self.directory(), Account::unprivileged());
    }

    /// Shuts the server down in order: transactions are rolled back, connections closed.
    pub fn stop(&self) {
        send(self.process(), Signal::INT);
        self.server.hold().reap();
    }

    /// Starts the server after [`OwnPostgres::kill`] or [`OwnPostgres::stop`], in the same directory and on the same
    /// port. Returns when it has recovered and accepts connections.
    pub fn start(&self) {
        assert!(self.server.hold().process().is_none(), "the server runs already");
        start(self.server.hold());
    }

    fn process(&self) -> Pid {
        self.server.hold().process().expect("the server runs")
    }
}
