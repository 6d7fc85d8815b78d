//! How Redis is reached: its servers, who asks, how the way there is protected, and how long to wait.

mod parameters;
#[cfg(test)]
mod tests;
mod url;

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use barge_core::{Error, ErrorKind, Result};

use crate::server::Settings;
use crate::tier::RedisTier;
use crate::tls::{self, Roots, TlsVerify};

/// The port where nothing else is said.
const PORT: u16 = 6379;
/// What all keys begin with where nothing else is said.
const PREFIX: &str = "barge:";
/// The longest wait for a connection where nothing else is said.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// The longest wait for answers where nothing else is said.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(1);

/// How to reach Redis.
///
/// ```
/// use std::time::Duration;
///
/// use barge_redis::RedisOptions;
///
/// # fn main() -> barge_core::Result<()> {
/// let options = RedisOptions::host("cache.example.com")
///     .user("shop")
///     .password("secret")
///     .prefix("shop:")
///     .response_timeout(Duration::from_millis(200));
///
/// // The same from a URL.
/// let same = RedisOptions::from_url("redis://shop:secret@cache.example.com?prefix=shop:&response_timeout=200ms")?;
/// assert_eq!(options, same);
///
/// // A cluster: some of its nodes, which tell of the others.
/// let cluster = RedisOptions::host("a.example.com").and_host("b.example.com").port(7000).cluster();
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedisOptions {
    /// Never empty.
    places: Vec<Place>,
    cluster: bool,
    tls: bool,
    user: Option<String>,
    password: Option<Secret>,
    database: u32,
    prefix: String,
    connect_timeout: Duration,
    response_timeout: Duration,
    verify: TlsVerify,
    authorities: Option<PathBuf>,
    certificate: Option<PathBuf>,
    key: Option<PathBuf>,
}

/// Where a server listens.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Place {
    /// A name or an address.
    pub(crate) host: String,
    pub(crate) port: u16,
}

/// A password, which is never shown.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Secret(pub(crate) String);

impl RedisOptions {
    /// A server by its name or address. The port is 6379 where [`port`](Self::port) sets no other.
    pub fn host(host: impl Into<String>) -> Self {
        RedisOptions {
            places: vec![Place { host: host.into(), port: PORT }],
            cluster: false,
            tls: false,
            user: None,
            password: None,
            database: 0,
            prefix: PREFIX.into(),
            connect_timeout: CONNECT_TIMEOUT,
            response_timeout: RESPONSE_TIMEOUT,
            verify: TlsVerify::default(),
            authorities: None,
            certificate: None,
            key: None,
        }
    }

    /// Options from a URL: `redis://user:password@host:port/database?parameter=value&…`, where every part but the host may be left out. A `%`
    /// and two hexadecimal digits stand for a byte; `/`, `?`, `@`, `:`, `,` and `%` in a user or password are written so.
    ///
    /// | to reach | write |
    /// |---|---|
    /// | a server | `redis://cache.example.com` |
    /// | one with a password and no users | `redis://:secret@cache.example.com` |
    /// | one of its databases as a user, encrypted | `rediss://shop:secret@cache.example.com:6380/2` |
    /// | a cluster, by some of its nodes | `redis-cluster://a.example.com:7000,b.example.com:7000` |
    /// | a cluster, encrypted | `rediss-cluster://a.example.com,b.example.com` |
    ///
    /// The parameters:
    ///
    /// | parameter | meaning | default |
    /// |---|---|---|
    /// | `prefix` | [what all keys begin with](Self::prefix) | `barge:` |
    /// | `connect_timeout` | [the longest wait for a connection](Self::connect_timeout), as `2s` or `500ms` | 1 second |
    /// | `response_timeout` | [the longest wait for answers](Self::response_timeout), as `2s` or `500ms` | 1 second |
    /// | `tls_verify` | `full`, `ca` or `none`: see [`TlsVerify`] | `full` |
    /// | `tls_ca` | [whom to trust](Self::authorities): a file, or `system` | `system` |
    /// | `tls_cert`, `tls_key` | [a certificate of one's own, and its key](Self::certificate) | none |
    ///
    /// # Errors
    /// `InvalidConfig`, naming the part or the parameter that is wrong. No message holds the password.
    pub fn from_url(url: &str) -> Result<Self> {
        let given = url::parse(url).map_err(|message| invalid(format!("in the Redis URL: {message}")))?;
        let mut options = RedisOptions {
            places: given.places,
            cluster: given.cluster,
            tls: given.tls,
            user: given.user,
            password: given.password.map(Secret),
            database: given.database,
            ..RedisOptions::host("")
        };
        for (name, value) in &given.parameters {
            options.set(name, value).map_err(|wrong| {
                invalid(format!("in the Redis URL: {}", wrong.message(name, value, given.guarded)))
            })?;
        }
        options.check()?;
        Ok(options)
    }

    /// Adds a further node of a [cluster](Self::cluster), to be asked for the others.
    #[must_use]
    pub fn and_host(mut self, host: impl Into<String>) -> Self {
        self.places.push(Place { host: host.into(), port: PORT });
        self
    }

    /// The port of the host named last. Defaults to 6379.
    #[must_use]
    pub fn port(mut self, port: u16) -> Self {
        if let Some(place) = self.places.last_mut() {
            place.port = port;
        }
        self
    }

    /// The hosts are nodes of a Redis Cluster, and tell of the others. Defaults to a single server.
    #[must_use]
    pub fn cluster(mut self) -> Self {
        self.cluster = true;
        self
    }

    /// Who logs in, where the server has users (ACLs); it needs a [password](Self::password). Defaults to Redis's user `default`.
    #[must_use]
    pub fn user(mut self, user: impl Into<String>) -> Self {
        self.user = Some(user.into());
        self
    }

    /// The password. Defaults to none: the connection isn't logged in.
    #[must_use]
    pub fn password(mut self, password: impl Into<String>) -> Self {
        self.password = Some(Secret(password.into()));
        self
    }

    /// The number of the database. Defaults to 0, the only one that a cluster has.
    #[must_use]
    pub fn database(mut self, database: u32) -> Self {
        self.database = database;
        self
    }

    /// What all keys begin with, so that several applications can use one Redis. It holds no braces, which would decide where in a cluster
    /// keys are. Processes share what they cache only where they have the same prefix. Defaults to `barge:`.
    #[must_use]
    pub fn prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = prefix.into();
        self
    }

    /// The longest wait for a connection: for the server to accept it, for encryption and log-in. Defaults to 1 second. A call takes no
    /// longer than this and [`response_timeout`](Self::response_timeout) together.
    #[must_use]
    pub fn connect_timeout(mut self, timeout: Duration) -> Self {
        self.connect_timeout = timeout;
        self
    }

    /// The longest wait for the answers to what was sent together. Defaults to 1 second. A connection that is late once is given up, as it may
    /// be dead: so it should leave time for the largest batch, and be shorter than what looking up in the store is worth.
    #[must_use]
    pub fn response_timeout(mut self, timeout: Duration) -> Self {
        self.response_timeout = timeout;
        self
    }

    /// Encrypts connections, and verifies the server's certificate as far as is said. Defaults to no encryption.
    #[must_use]
    pub fn tls(mut self, verify: TlsVerify) -> Self {
        self.tls = true;
        self.verify = verify;
        self
    }

    /// Whom to trust: a PEM file with the certificates of the authorities. The word `system` means those of the operating system, which is
    /// also the default.
    #[must_use]
    pub fn authorities(mut self, file: impl Into<PathBuf>) -> Self {
        self.authorities = Some(file.into());
        self
    }

    /// A certificate to log in with, and its key: PEM files; the certificate may be followed by those that lead to the authority, and the
    /// key is PKCS#8, PKCS#1 or SEC1, not encrypted. Defaults to none.
    #[must_use]
    pub fn certificate(mut self, certificate: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Self {
        self.certificate = Some(certificate.into());
        self.key = Some(key.into());
        self
    }

    /// The cache. Reads the certificates, and sends nothing: connections are made when they are needed.
    ///
    /// # Errors
    /// `InvalidConfig` where settings contradict each other, or a file doesn't hold what it should.
    pub fn open(&self) -> Result<RedisTier> {
        self.check()?;
        let identity = self.certificate.clone().zip(self.key.clone());
        let roots = match self.authorities.as_deref() {
            Some(file) if file.as_os_str() != "system" => Roots::File(file),
            _ => Roots::System,
        };
        let tls = self.tls.then(|| tls::client(self.verify, &roots, identity.as_ref())).transpose()?;
        let settings = Settings {
            user: self.user.clone(),
            password: self.password.clone(),
            database: self.database,
            tls,
            connect_timeout: self.connect_timeout,
            response_timeout: self.response_timeout,
        };
        Ok(RedisTier::new(self.name(), &self.prefix, self.places.clone(), self.cluster, settings))
    }

    /// What messages call it.
    fn name(&self) -> String {
        let scheme = match (self.cluster, self.tls) {
            (false, false) => "redis",
            (false, true) => "rediss",
            (true, false) => "redis-cluster",
            (true, true) => "rediss-cluster",
        };
        let user = self.user.iter().map(|user| format!("{user}@")).collect::<String>();
        let places: Vec<String> = self.places.iter().map(ToString::to_string).collect();
        let database = if self.cluster { String::new() } else { format!("/{}", self.database) };
        format!("{scheme}://{user}{}{database}", places.join(","))
    }

    /// Refuses settings that contradict each other.
    fn check(&self) -> Result<()> {
        let wrong = match () {
            () if self.places.iter().any(|place| place.host.is_empty()) => "a host is empty",
            () if !self.cluster && self.places.len() > 1 => {
                "several hosts are nodes of a cluster: use redis-cluster://"
            }
            () if self.cluster && self.database != 0 => "a Redis Cluster has no database but 0",
            () if self.user.is_some() && self.password.is_none() => {
                "a user needs a password; a password alone is written :password@host"
            }
            () if self.prefix.contains(['{', '}']) => "prefix: braces decide where in a cluster keys are",
            () if self.connect_timeout.is_zero() => "connect_timeout: no time is too short",
            () if self.response_timeout.is_zero() => "response_timeout: no time is too short",
            () if self.certificate.is_some() != self.key.is_some() => {
                "tls_cert and tls_key go together: give both or neither"
            }
            () if !self.tls && (self.authorities.is_some() || self.certificate.is_some()) => {
                "certificates are of no use without encryption: use rediss:// or rediss-cluster://"
            }
            () => return Ok(()),
        };
        Err(invalid(wrong.into()))
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
