//! How a database is opened: its place, who asks, how the way there is protected, and how many connections are kept.

mod environment;
mod parameters;
mod passfile;
mod url;
mod without;

#[cfg(test)]
mod tests;

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use barge_core::{Error, ErrorKind, Result};
use tokio_postgres::Config;
use tokio_postgres::config;

use self::environment::{Environment, VARIABLES};
use self::parameters::Wrong;
use crate::tls::SslMode;
use crate::tls::{self, Check, Identity, Roots, Tls};
pub use without::Without;

/// The most connections where nothing else is said.
const POOL_SIZE: usize = 10;
/// The longest wait for a free connection where nothing else is said.
const POOL_WAIT: Duration = Duration::from_secs(30);
/// How long a connection may be idle and still be used untried, where nothing else is said.
const IDLE_CHECK: Duration = Duration::from_secs(30);
/// The longest wait for a connection to be made where nothing else is said.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// The name under which the server lists the connections where nothing else is said.
const APPLICATION_NAME: &str = "barge";
/// The port where nothing else is said.
const PORT: u16 = 5432;

/// After how long a silence of the server TCP asks whether it is still there.
const SILENCE: Duration = Duration::from_secs(30);

/// How to open a database.
///
/// ```
/// use std::time::Duration;
///
/// use barge_postgres::{PostgresOptions, SslMode};
///
/// # fn main() -> barge_core::Result<()> {
/// let options = PostgresOptions::host("db.example.com")
///     .user("shop")
///     .database("orders")
///     .ssl_mode(SslMode::VerifyFull)
///     .pool_size(20)
///     .pool_wait(Duration::from_secs(5));
///
/// // The same from a URL; the password comes from PGPASSWORD or ~/.pgpass.
/// let options = PostgresOptions::from_url(
///     "postgres://shop@db.example.com/orders?sslmode=verify-full&pool_size=20&pool_wait=5s",
/// )?;
/// # Ok(())
/// # }
/// ```
///
/// What is left out is taken, in this order, from the environment (only by [`from_url`](Self::from_url)), from the password
/// file `~/.pgpass` or the one that `PGPASSFILE` names (the password), and from the defaults below.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PostgresOptions {
    /// Never empty.
    places: Vec<Place>,
    user: Option<String>,
    password: Option<Secret>,
    database: Option<String>,
    password_file: Option<PathBuf>,
    /// `None` where it was left out: what that means hangs on the root certificates.
    ssl_mode: Option<SslMode>,
    root_certificates: Option<PathBuf>,
    client_certificate: Option<PathBuf>,
    client_key: Option<PathBuf>,
    connect_timeout: Duration,
    /// What goes to tokio-postgres as it is. Places, names, password, TLS mode and the time to connect are added by `config`.
    session: Config,
    /// The operating system's name of the user.
    account: Option<String>,
    home: Option<PathBuf>,
    // The pool reads these where they are: the methods of their names set them.
    pub(crate) pool_size: usize,
    pub(crate) pool_wait: Duration,
    pub(crate) idle_check: Duration,
    pub(crate) max_lifetime: Option<Duration>,
    pub(crate) statement_cache: usize,
    pub(crate) without: Without,
}

/// Where a server listens.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Place {
    /// A host's name or address, or the directory of a Unix socket, which begins with `/`.
    host: String,
    port: u16,
}

/// A password, which is never shown.
#[derive(Clone, PartialEq, Eq)]
struct Secret(String);

impl PostgresOptions {
    /// A server by its name or address, or by the directory of its Unix socket, which begins with `/`. The port is 5432 where
    /// [`port`](Self::port) sets no other.
    ///
    /// The environment's `PGUSER`, `PGSSLMODE` and so on are not looked at; begin with `from_url("postgres://")` for that.
    pub fn host(host: impl Into<String>) -> Self {
        PostgresOptions::at(vec![Place { host: host.into(), port: PORT }], &Environment::process())
    }

    fn at(places: Vec<Place>, environment: &Environment<'_>) -> Self {
        let home = environment.get("HOME").map(PathBuf::from);
        let mut session = Config::new();
        session.application_name(APPLICATION_NAME);
        // A network that drops everything in silence must not be waited for for hours: retries begin when a connection is lost.
        session.keepalives_idle(SILENCE).keepalives_interval(SILENCE / 3).keepalives_retries(3);
        session.tcp_user_timeout(SILENCE * 2);
        PostgresOptions {
            places,
            user: None,
            password: None,
            database: None,
            password_file: environment
                .get("PGPASSFILE")
                .map(PathBuf::from)
                .or_else(|| Some(home.as_ref()?.join(".pgpass"))),
            ssl_mode: None,
            root_certificates: None,
            client_certificate: None,
            client_key: None,
            connect_timeout: CONNECT_TIMEOUT,
            session,
            account: environment.account(),
            home,
            pool_size: POOL_SIZE,
            pool_wait: POOL_WAIT,
            idle_check: IDLE_CHECK,
            max_lifetime: None,
            statement_cache: 0,
            without: Without::default(),
        }
    }

    /// Options from a URL as libpq reads it: `postgres://user:password@host:port/database?parameter=value&…`, where every part may
    /// be left out, the scheme may be `postgresql://`, and several servers, tried in turn, are separated by commas. A `%` and
    /// two hexadecimal digits stand for a byte; `/`, `?`, `@`, `:` and `%` in a user or password are written so.
    ///
    /// | to reach | write |
    /// |---|---|
    /// | this machine's server, as this user | `postgres://` |
    /// | a server | `postgres://shop@db.example.com/orders` |
    /// | whichever of two can be written to | `postgres://a:5432,b:5433/orders?target_session_attrs=read-write` |
    /// | an IPv6 address | `postgres://[::1]:5433/orders` |
    /// | a Unix socket | `postgres:///orders?host=/var/run/postgresql` |
    ///
    /// The parameters:
    ///
    /// | parameter | meaning | default |
    /// |---|---|---|
    /// | `pool_size` | [the most connections](Self::pool_size) | 10 |
    /// | `pool_wait` | [the longest wait for a free one](Self::pool_wait), as `30s` or `500ms` | 30 seconds |
    /// | `idle_check` | [the idle time after which a connection is tried before use](Self::idle_check), as `30s` | 30 seconds |
    /// | `max_lifetime` | [the age at which a connection is replaced](Self::max_lifetime), as `3600s` | none |
    /// | `statement_cache` | [prepared statements kept per connection](Self::statement_cache) | 0 |
    /// | `without` | [parts of PostgreSQL that the server lacks](Without): `copy`, `temporary`, `xmax`, with commas between | none |
    /// | `host`, `port`, `user`, `password`, `dbname` | instead of the same before the `?`; hosts and ports may be lists | |
    /// | `passfile` | the password file | `~/.pgpass` |
    /// | `sslmode` | `disable`, `prefer`, `require`, `verify-ca` or `verify-full`, see [`SslMode`] | `prefer` |
    /// | `sslrootcert` | [whom to trust](Self::root_certificates): a file, or `system` | `~/.postgresql/root.crt` |
    /// | `sslcert`, `sslkey` | [a certificate of one's own, and its key](Self::client_certificate) | none |
    /// | `application_name` | the name under which the server lists the connections | `barge` |
    /// | `connect_timeout` | [the longest wait for a server to accept](Self::connect_timeout), in seconds or as `500ms` | 10 |
    /// | `options` | [the server's settings](Self::server_options), as in `-c%20search_path=sales` | none |
    /// | `target_session_attrs` | `any`, `read-write` or `read-only`: the first server that is so | `any` |
    /// | `channel_binding` | `disable`, `prefer` or `require`: whether a SCRAM log-in is tied to the TLS connection | `prefer` |
    /// | `load_balance_hosts` | `disable` or `random`: the order in which servers are tried | `disable` |
    /// | `keepalives` | 0 or 1: whether TCP asks after a silent server | 1 |
    /// | `keepalives_idle` | the silence after which it asks, in seconds or as `500ms` | 30 seconds |
    /// | `keepalives_interval` | the time between two questions, in seconds or as `500ms` | 10 seconds |
    /// | `keepalives_count` | how many unanswered questions end a connection | 3 |
    /// | `tcp_user_timeout` | how long sent data may stay unconfirmed, in milliseconds or as `30s`; Linux only | 60 seconds |
    ///
    /// libpq's other parameters are refused.
    ///
    /// What the URL leaves out is taken from the environment's `PGHOST`, `PGPORT`, `PGUSER`, `PGPASSWORD`, `PGPASSFILE`,
    /// `PGDATABASE`, `PGSSLMODE`, `PGSSLROOTCERT`, `PGSSLCERT`, `PGSSLKEY`, `PGAPPNAME`, `PGCONNECT_TIMEOUT`, `PGOPTIONS`,
    /// `PGTARGETSESSIONATTRS` and `PGCHANNELBINDING`; an empty variable counts as missing. A host that is named nowhere is
    /// the Unix socket in `/var/run/postgresql` or `/tmp` if there is one, else `localhost`.
    ///
    /// # Errors
    /// `InvalidConfig`, naming the parameter or the variable that is wrong, and the parameters there are. No message holds
    /// the password.
    pub fn from_url(url: &str) -> Result<Self> {
        PostgresOptions::from_url_in(url, &Environment::process())
    }

    fn from_url_in(url: &str, environment: &Environment<'_>) -> Result<Self> {
        let in_url = |message: String| invalid(format!("in the PostgreSQL URL: {message}"));
        let given = url::parse(url).map_err(in_url)?;
        let places = environment.places(&given.hosts, &given.ports).map_err(invalid)?;
        let mut options = PostgresOptions::at(places, environment);
        for (name, value) in &given.parameters {
            let told = |wrong: Wrong| in_url(wrong.message(name, value, given.guarded));
            options.set(name, value).map_err(told)?;
        }
        for (variable, name) in VARIABLES {
            if let (false, Some(value)) = (given.has(name), environment.get(variable)) {
                let told = |wrong: Wrong| invalid(wrong.message(variable, &value, false));
                options.set(name, &value).map_err(told)?;
            }
        }
        options.check()?;
        Ok(options)
    }

    /// Sets a parameter by the name it has in a [URL](Self::from_url); `host` and `port` have methods only.
    ///
    /// # Errors
    /// `InvalidConfig` where there is no such parameter, or its value isn't one it can have.
    pub fn parameter(mut self, name: &str, value: &str) -> Result<Self> {
        self.set(name, value).map_err(|wrong| invalid(wrong.message(name, value, false)))?;
        Ok(self)
    }

    /// Adds a server to be tried where those before it don't answer, or aren't what `target_session_attrs` asks for.
    #[must_use]
    pub fn or_host(mut self, host: impl Into<String>) -> Self {
        self.places.push(Place { host: host.into(), port: PORT });
        self
    }

    /// The port of the host named last. Defaults to 5432. A Unix socket has one, too: it is part of the file's name.
    #[must_use]
    pub fn port(mut self, port: u16) -> Self {
        if let Some(place) = self.places.last_mut() {
            place.port = port;
        }
        self
    }

    /// Who logs in. Defaults to the operating system's name of the user.
    #[must_use]
    pub fn user(mut self, user: impl Into<String>) -> Self {
        self.user = Some(user.into());
        self
    }

    /// The password. Without one, the file that `PGPASSFILE` names, else `~/.pgpass`, is searched for a line
    /// `host:port:database:user:password`, where `*` stands for anything and `\` goes before a `:` or `\` that is meant; the
    /// first that fits counts, and of several hosts the first that has one. A file that others than its owner may read is left
    /// aside with a warning.
    #[must_use]
    pub fn password(mut self, password: impl Into<String>) -> Self {
        self.password = Some(Secret(password.into()));
        self
    }

    /// The database. Defaults to the one named as the user.
    #[must_use]
    pub fn database(mut self, database: impl Into<String>) -> Self {
        self.database = Some(database.into());
        self
    }

    /// How the connection is protected. Defaults to [`SslMode::Prefer`], or to [`SslMode::VerifyFull`] where the root
    /// certificates are the `system`'s. A Unix socket is never encrypted.
    #[must_use]
    pub fn ssl_mode(mut self, mode: SslMode) -> Self {
        self.ssl_mode = Some(mode);
        self
    }

    /// Whom to trust: a PEM file with the certificates of the authorities, or the server's own. The word `system` means those
    /// of the operating system, and needs [`SslMode::VerifyFull`], since anybody has a certificate from one of them. Defaults to
    /// `~/.postgresql/root.crt` if it is there, else to the system's; [`SslMode`] tells when they are asked.
    #[must_use]
    pub fn root_certificates(mut self, file: impl Into<PathBuf>) -> Self {
        self.root_certificates = Some(file.into());
        self
    }

    /// A certificate to log in with, and its key: PEM files; the certificate may be followed by those that lead to the authority,
    /// and the key is PKCS#8, PKCS#1 or SEC1, not encrypted. Defaults to none.
    #[must_use]
    pub fn client_certificate(mut self, certificate: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Self {
        self.client_certificate = Some(certificate.into());
        self.client_key = Some(key.into());
        self
    }

    /// The name under which the server lists the connections. Defaults to `barge`.
    #[must_use]
    pub fn application_name(mut self, name: impl Into<String>) -> Self {
        self.session.application_name(name);
        self
    }

    /// The longest wait for a server to accept a connection, at each address of each host. Defaults to 10 seconds; zero means
    /// no limit. The log-in that follows isn't part of it.
    #[must_use]
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// The server's settings for the connections, as its command line takes them: `-c search_path=sales -c lock_timeout=5s`,
    /// a space in a value as `\ `. Limits for statements belong here: `statement_timeout`, `lock_timeout`,
    /// `idle_in_transaction_session_timeout`. Defaults to none. A pooler in between may refuse them.
    #[must_use]
    pub fn server_options(mut self, options: impl Into<String>) -> Self {
        self.session.options(options);
        self
    }

    /// The most connections, made when they are needed. At least 1; defaults to 10.
    #[must_use]
    pub fn pool_size(mut self, size: usize) -> Self {
        self.pool_size = size.max(1);
        self
    }

    /// The longest wait for a connection while all are in use, before the call fails with `Timeout`. Defaults to 30 seconds; zero
    /// waits not at all.
    #[must_use]
    pub fn pool_wait(mut self, wait: Duration) -> Self {
        self.pool_wait = wait;
        self
    }

    /// How long a connection may be idle and still be used untried: after a longer time it may have been cut off unseen, by a
    /// firewall or a restart, and a round trip finds out. Defaults to 30 seconds; zero tries every time.
    #[must_use]
    pub fn idle_check(mut self, idle: Duration) -> Self {
        self.idle_check = idle;
        self
    }

    /// The age at which a connection is closed instead of used again: so that servers that come and go behind one address
    /// share the load, and what a connection piles up on its server is given back. Defaults to none; zero means none.
    #[must_use]
    pub fn max_lifetime(mut self, lifetime: Duration) -> Self {
        self.max_lifetime = above_zero(lifetime);
        self
    }

    /// How many prepared statements each connection keeps, so that the server parses them once. Defaults to 0: statements are
    /// unnamed, and so work through PgBouncer in transaction mode, where the next transaction may meet another server process,
    /// which doesn't know the names. There is little to gain: a statement over a batch is parsed once a batch, not once a row.
    #[must_use]
    pub fn statement_cache(mut self, statements: usize) -> Self {
        self.statement_cache = statements;
        self
    }

    /// Leaves parts of PostgreSQL alone that the server lacks. Defaults to using all of them.
    #[must_use]
    pub fn without(mut self, without: Without) -> Self {
        self.without = without;
        self
    }

    /// How long making a connection may take, with all its hosts and the log-in: a server that accepts and then says nothing must not
    /// be waited for for ever.
    pub(crate) fn log_in_wait(&self) -> Option<Duration> {
        let places = u32::try_from(self.places.len()).unwrap_or(u32::MAX);
        above_zero(self.connect_timeout.saturating_mul(places.saturating_add(1)))
    }

    /// What tokio-postgres connects with. Reads the password file.
    pub(crate) fn config(&self) -> Config {
        let mut config = self.session.clone();
        for place in &self.places {
            config.host(&place.host).port(place.port);
        }
        if let Some(user) = self.user_name() {
            config.user(user);
        }
        if let Some(database) = self.database_name() {
            config.dbname(database);
        }
        if let Some(Secret(password)) = self.password.clone().or_else(|| self.kept_password()) {
            config.password(password);
        }
        if !self.connect_timeout.is_zero() {
            config.connect_timeout(self.connect_timeout);
        }
        config.ssl_mode(match self.effective_mode() {
            _ if self.only_sockets() => config::SslMode::Disable,
            SslMode::Disable => config::SslMode::Disable,
            SslMode::Prefer => config::SslMode::Prefer,
            SslMode::Require | SslMode::VerifyCa | SslMode::VerifyFull => config::SslMode::Require,
        });
        config
    }

    /// The TLS that goes with it. Reads the certificates.
    ///
    /// # Errors
    /// `InvalidConfig` where a file can't be read or doesn't hold what it should, and where settings contradict each other.
    pub(crate) fn tls(&self) -> Result<Tls> {
        self.check()?;
        let mode = self.effective_mode();
        if mode == SslMode::Disable || self.only_sockets() {
            return Ok(Tls::Off);
        }
        let check = match mode {
            SslMode::Disable | SslMode::Prefer => Check::Nothing,
            SslMode::Require => self.root_file().map_or(Check::Nothing, Check::Chain),
            SslMode::VerifyCa => Check::Chain(self.root_file().unwrap_or(Roots::System)),
            SslMode::VerifyFull => Check::ChainAndName(self.root_file().unwrap_or(Roots::System)),
        };
        let identity = self.client_certificate.as_deref().zip(self.client_key.as_deref());
        let identity = identity.map(|(certificate, key)| Identity { certificate, key });
        tls::connector(&check, identity).map(Tls::Rustls)
    }

    /// What messages call the database: `postgres://user@host:port/database`.
    pub(crate) fn name(&self) -> String {
        let user = self.user_name().map(|user| format!("{user}@")).unwrap_or_default();
        let places: Vec<String> = self.places.iter().map(ToString::to_string).collect();
        format!("postgres://{user}{}/{}", places.join(","), self.database_name().unwrap_or_default())
    }

    /// Without a name, tokio-postgres finds out what the operating system calls the user.
    fn user_name(&self) -> Option<&str> {
        self.user.as_deref().or(self.account.as_deref())
    }

    fn database_name(&self) -> Option<&str> {
        self.database.as_deref().or(self.user_name())
    }

    /// The password that the password file has.
    fn kept_password(&self) -> Option<Secret> {
        let file = self.password_file.as_deref()?;
        passfile::find(file, &self.places, self.database_name()?, self.user_name()?).map(Secret)
    }

    fn effective_mode(&self) -> SslMode {
        let default = if self.trusts_system() { SslMode::VerifyFull } else { SslMode::Prefer };
        self.ssl_mode.unwrap_or(default)
    }

    fn trusts_system(&self) -> bool {
        self.root_certificates.as_deref().is_some_and(|file| file.as_os_str() == "system")
    }

    /// The root certificates that were named, or are where libpq looks for them.
    fn root_file(&self) -> Option<Roots> {
        match &self.root_certificates {
            Some(_) if self.trusts_system() => Some(Roots::System),
            Some(file) => Some(Roots::File(file.clone())),
            None => {
                let usual = self.home.as_ref()?.join(".postgresql/root.crt");
                usual.is_file().then_some(Roots::File(usual))
            }
        }
    }

    fn only_sockets(&self) -> bool {
        self.places.iter().all(Place::is_socket)
    }

    /// Refuses settings that contradict each other.
    fn check(&self) -> Result<()> {
        let mode = self.effective_mode();
        if self.trusts_system() && mode != SslMode::VerifyFull {
            return Err(invalid(format!(
                "sslmode={mode} with sslrootcert=system would trust a stranger with any public certificate: use verify-full"
            )));
        }
        if self.client_certificate.is_some() != self.client_key.is_some() {
            return Err(invalid("sslcert and sslkey go together: give both or neither".into()));
        }
        // tokio-postgres has one TLS mode for all hosts, and a server doesn't offer TLS on a Unix socket.
        if mode >= SslMode::Require && !self.only_sockets() && self.places.iter().any(Place::is_socket) {
            return Err(invalid(format!(
                "sslmode={mode} can't be kept on a Unix socket: name either hosts or sockets, or use sslmode=prefer"
            )));
        }
        Ok(())
    }
}

impl Place {
    fn is_socket(&self) -> bool {
        self.host.starts_with('/')
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(not shown)")
    }
}

fn invalid(message: String) -> Error {
    Error::new(ErrorKind::InvalidConfig, message)
}

fn above_zero(time: Duration) -> Option<Duration> {
    Some(time).filter(|time| !time.is_zero())
}
