//! One server, and the connection to it.
//!
//! All calls share one connection, on which they follow each other without waiting; one that takes long keeps those behind it waiting. A
//! connection that fails, or doesn't answer in time, is given up, and the next call makes a new one: a network that drops everything in
//! silence can't be told from a server that is slow, and waiting for it is of no use to a cache.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use barge_core::{Error, ErrorKind, Result};
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Pipeline, RedisConnectionInfo, RedisError, Value};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::sync::Mutex;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsConnector;

use crate::error::{is_of_connection, of_connecting, of_connection, of_server};
use crate::options::{Place, Secret};

/// After how long a silence TCP asks whether the other side is there, so that firewalls in between don't forget the connection.
const SILENCE: Duration = Duration::from_secs(30);

/// What all connections have in common.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) user: Option<String>,
    pub(crate) password: Option<Secret>,
    pub(crate) database: u32,
    pub(crate) tls: Option<Arc<ClientConfig>>,
    pub(crate) connect_timeout: Duration,
    pub(crate) response_timeout: Duration,
}

/// A server.
#[derive(Debug)]
pub(crate) struct Server {
    address: Arc<Address>,
    state: Mutex<State>,
    closed: AtomicBool,
}

/// Where a server is, and how to connect to it.
#[derive(Debug)]
struct Address {
    place: Place,
    /// For messages.
    name: String,
    settings: Arc<Settings>,
}

#[derive(Debug, Default)]
struct State {
    live: Option<Arc<Live>>,
    /// Under way, or done with nobody waiting for it any more.
    attempt: Option<Attempt>,
    /// When the last attempt to connect failed, and why.
    failed: Option<(Instant, Error)>,
}

/// An attempt to connect, in a task of its own: calls are dropped when their time is up, which may be sooner than a connection can be
/// made, and the next one goes on with what was begun. The task ends with this value.
#[derive(Debug)]
struct Attempt(JoinHandle<Result<Live>>);

impl Drop for Attempt {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A connection, and the task that carries its bytes. The task ends with this value, or when the connection is lost.
#[derive(Debug)]
struct Live {
    connection: MultiplexedConnection,
    carrier: JoinHandle<()>,
    made: Instant,
    /// Whether it is not to be used again.
    lost: AtomicBool,
    /// When the first and the last call were given up over it since one was answered.
    given_up: std::sync::Mutex<Option<(Instant, Instant)>>,
}

impl Live {
    fn is_lost(&self, response_timeout: Duration) -> bool {
        let silent = self.given_up().is_some_and(|(first, last)| last - first >= response_timeout);
        silent || self.lost.load(Ordering::Relaxed) || self.carrier.is_finished()
    }

    fn given_up(&self) -> std::sync::MutexGuard<'_, Option<(Instant, Instant)>> {
        self.given_up.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A call that has no answer. Dropped so, as by who had less time than the server is given, it tells the connection.
struct Awaited<'a> {
    live: &'a Live,
    began: Instant,
    is_answered: bool,
}

impl Drop for Awaited<'_> {
    fn drop(&mut self) {
        let mut given_up = self.live.given_up();
        *given_up = match (self.is_answered, *given_up) {
            (true, _) => None,
            (false, first) => Some((first.map_or(self.began, |(first, _)| first), Instant::now())),
        };
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.carrier.abort();
    }
}

impl Server {
    pub(crate) fn new(place: Place, settings: Arc<Settings>) -> Self {
        let name = format!("Redis at {place}");
        let address = Arc::new(Address { place, name, settings });
        Server { address, state: Mutex::default(), closed: AtomicBool::new(false) }
    }

    pub(crate) fn place(&self) -> &Place {
        &self.address.place
    }

    /// What messages call it.
    pub(crate) fn name(&self) -> &str {
        &self.address.name
    }

    /// Sends commands together, and gives their answers, errors among them, in order.
    ///
    /// Where the connection turns out to be lost that calls before had used, they are sent once more over a new one: that is what a restart of
    /// the server looks like, and every command here may happen twice.
    pub(crate) async fn send(&self, commands: &Pipeline) -> Result<Vec<Value>> {
        let began = Instant::now();
        let live = self.live().await?;
        match self.send_over(&live, commands).await {
            Err(error) if error.kind() == ErrorKind::ConnectionLost && live.made < began => {
                let live = self.live().await?;
                self.send_over(&live, commands).await
            }
            answered => answered,
        }
    }

    async fn send_over(&self, live: &Arc<Live>, commands: &Pipeline) -> Result<Vec<Value>> {
        let mut connection = live.connection.clone();
        let mut awaited = Awaited { live, began: Instant::now(), is_answered: false };
        let answers = connection.send_packed_commands(commands, 0, commands.len());
        let answers = match timeout(self.address.settings.response_timeout, answers).await {
            Ok(answers) => answers.map_err(|error| of_connection(error, &self.address.name)),
            Err(_) => Err(self.address.late("answer", self.address.settings.response_timeout)),
        };
        awaited.is_answered = answers.is_ok();
        drop(awaited);
        let is_lost = match &answers {
            Ok(answers) => answers.iter().any(|answer| self.is_turned_away(answer)),
            Err(error) => is_of_connection(error),
        };
        if is_lost {
            // Other calls under way over it may still get their answers.
            live.lost.store(true, Ordering::Relaxed);
        }
        let answers = answers?;
        match answers.len() == commands.len() {
            true => Ok(answers),
            false => {
                Err(Error::new(ErrorKind::ConnectionLost, format!("{} lost answers", self.address.name)))
            }
        }
    }

    /// Whether an answer says that this connection won't do, though it is open.
    fn is_turned_away(&self, answer: &Value) -> bool {
        matches!(answer, Value::ServerError(error) if is_of_connection(&of_server(error, &self.address.name)))
    }

    /// The connection, made where there is none.
    async fn live(&self) -> Result<Arc<Live>> {
        let asked = Instant::now();
        let mut state = self.state.lock().await;
        if self.closed.load(Ordering::Relaxed) {
            return Err(closed());
        }
        if let Some(live) = &state.live
            && !live.is_lost(self.address.settings.response_timeout)
        {
            return Ok(Arc::clone(live));
        }
        // Calls that waited for one attempt don't wait for one more each.
        if let Some((at, error)) = &state.failed
            && *at >= asked
        {
            return Err(error.clone());
        }
        state.live = None;
        // One that failed before this call says nothing of now.
        let done = state.attempt.as_ref().is_some_and(|attempt| attempt.0.is_finished());
        let mut made = state.connect(&self.address).await;
        if done && made.is_err() {
            made = state.connect(&self.address).await;
        }
        match made {
            Ok(live) => {
                let live = Arc::new(live);
                state.live = Some(Arc::clone(&live));
                state.failed = None;
                Ok(live)
            }
            Err(error) => {
                state.failed = Some((Instant::now(), error.clone()));
                Err(error)
            }
        }
    }

    /// Ends the connection. Calls under way may still get their answers.
    pub(crate) async fn close(&self) {
        self.closed.store(true, Ordering::Relaxed);
        let mut state = self.state.lock().await;
        state.live = None;
        state.attempt = None;
    }
}

impl State {
    /// Waits for the attempt that is under way, or for one that begins now.
    async fn connect(&mut self, address: &Arc<Address>) -> Result<Live> {
        let attempt = self.attempt.get_or_insert_with(|| {
            let address = Arc::clone(address);
            Attempt(tokio::spawn(async move { address.connect_in_time().await }))
        });
        let made = (&mut attempt.0).await;
        self.attempt = None;
        made.unwrap_or_else(|error| {
            let message = format!("connecting to {} was broken off", address.name);
            Err(Error::new(ErrorKind::ConnectionLost, message).with_source(error))
        })
    }
}

impl Address {
    async fn connect_in_time(&self) -> Result<Live> {
        let limit = self.settings.connect_timeout;
        timeout(limit, self.connect()).await.unwrap_or_else(|_| Err(self.late("accept", limit)))
    }

    async fn connect(&self) -> Result<Live> {
        let failed = |error| of_connecting(error, &self.name);
        let stream = TcpStream::connect((self.place.host.as_str(), self.place.port)).await.map_err(failed)?;
        prepare(&stream).map_err(failed)?;
        let Some(tls) = &self.settings.tls else {
            return self.log_in(stream).await;
        };
        let name = ServerName::try_from(self.place.host.clone()).map_err(|error| {
            let message = format!("{} is no name that a certificate can have", self.place.host);
            Error::new(ErrorKind::InvalidConfig, message).with_source(error)
        })?;
        let stream = TlsConnector::from(Arc::clone(tls)).connect(name, stream).await.map_err(failed)?;
        self.log_in(stream).await
    }

    async fn log_in<S>(&self, stream: S) -> Result<Live>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let failed = |error: RedisError| of_connection(error, &self.name).context("connecting");
        // Nothing is asked of the server here: the log-in below is told apart by its errors.
        let info = RedisConnectionInfo::default().set_skip_set_lib_name();
        let config = AsyncConnectionConfig::new().set_response_timeout(None);
        let made = MultiplexedConnection::new_with_config(&info, stream, config).await;
        let (mut connection, carrier) = made.map_err(failed)?;
        let live = Live {
            connection: connection.clone(),
            carrier: tokio::spawn(carrier),
            made: Instant::now(),
            lost: AtomicBool::new(false),
            given_up: std::sync::Mutex::new(None),
        };

        let commands = self.log_in_commands();
        if !commands.is_empty() {
            let answers = connection.send_packed_commands(&commands, 0, commands.len()).await;
            for answer in answers.map_err(failed)? {
                if let Value::ServerError(error) = answer {
                    return Err(of_server(&error, &self.name).context("logging in"));
                }
            }
        }
        Ok(live)
    }

    fn log_in_commands(&self) -> Pipeline {
        let Settings { user, password, database, .. } = &*self.settings;
        let mut commands = redis::pipe();
        if let Some(Secret(password)) = password {
            let log_in = commands.cmd("AUTH");
            user.iter().for_each(|user| {
                log_in.arg(user);
            });
            log_in.arg(password);
        }
        if *database != 0 {
            commands.cmd("SELECT").arg(*database);
        }
        commands
    }

    fn late(&self, what: &str, limit: Duration) -> Error {
        Error::new(ErrorKind::Timeout, format!("{} did not {what} within {limit:?}", self.name))
    }
}

fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let socket = SockRef::from(stream);
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(SILENCE).with_interval(SILENCE / 3))?;
    // Calls that are dropped before their time is up never find out that nothing is answered any more.
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(SILENCE))?;
    Ok(())
}

/// What a call gets after `close`.
pub(crate) fn closed() -> Error {
    Error::new(ErrorKind::Closed, "the shared cache was closed")
}
