//! A proxy that loses connections where a test says, slows them down, and falls silent.

mod fault;
mod link;
mod message;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc as standard_mpsc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tokio::net::{TcpListener, lookup_host};
use tokio::sync::{mpsc, watch};

use super::port::{ReservedPort, bind};
use fault::Meter;
pub use fault::{Counts, FaultPoint, Traffic, Way};

/// A proxy before a server, which loses connections where a test says, slows them down, and falls silent. It ends when this
/// value is dropped.
///
/// It runs in the test's process, on a thread and a clock of its own, and forwards what comes to a loopback port. It
/// understands PostgreSQL's messages as far as to tell one from the next and to find the statement that a message runs, so
/// that a fault can be put before or after a COMMIT, or after any message or byte of an exchange.
///
/// # How a connection is cut
///
/// The client's side is closed at once. What was forwarded to the server is not taken back: the server reads it to its
/// end, then finds that its client is gone. Only after [`FaultPoint::AfterQuery`] and [`FaultPoint::AfterCommit`] does the
/// client's end come second: it hears nothing more, and its side is closed when the server is through and has closed its
/// own.
///
/// Inside TLS, messages cannot be told apart; bytes still count. Faults after a query are for a proxy directly before
/// PostgreSQL: behind a PgBouncer, the server may not be through when the client is cut.
#[derive(Debug)]
pub struct Proxy {
    url: String,
    port: ReservedPort,
    shared: Arc<Shared>,
    /// None only while it is dropped, which ends the thread.
    commands: Option<mpsc::UnboundedSender<Command>>,
    thread: Option<JoinHandle<()>>,
}

/// What the thread and its connections share with the one who controls them.
#[derive(Debug)]
struct Shared {
    target: String,
    control: Mutex<Control>,
    /// Changes when all connections are to be cut.
    cut: watch::Sender<()>,
    /// Whether nothing is forwarded.
    silent: watch::Sender<bool>,
    /// Whether something came that was to be forwarded since it last fell silent.
    holds: AtomicBool,
}

#[derive(Debug, Default)]
struct Control {
    delay: Duration,
    meter: Meter,
}

impl Shared {
    fn control(&self) -> MutexGuard<'_, Control> {
        self.control.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until something that came may be forwarded.
    async fn hold_back(&self) {
        let mut silent = self.silent.subscribe();
        while *silent.borrow_and_update() {
            self.holds.store(true, Ordering::Relaxed);
            // The sender lives in self, so waiting can't fail.
            let _ = silent.changed().await;
        }
    }

    /// Waits while nothing is forwarded.
    async fn hears(&self) {
        // The sender lives in self, so waiting can't fail.
        let _ = self.silent.subscribe().wait_for(|silent| !silent).await;
    }
}

/// What the thread is told; it answers when it is done.
#[derive(Debug)]
struct Command {
    listen: bool,
    done: standard_mpsc::Sender<()>,
}

impl Proxy {
    /// A proxy before the server of a URL, which forwards at once.
    ///
    /// # Panics
    ///
    /// When the URL names no host, as one for a Unix socket.
    pub fn before(url: &str) -> Self {
        let port = ReservedPort::new();
        let (url, target) = through(url, port.number());
        let (cut, _) = watch::channel(());
        let (silent, _) = watch::channel(false);
        let holds = AtomicBool::new(false);
        let shared = Arc::new(Shared { target, control: Mutex::default(), cut, silent, holds });
        let (commands, received) = mpsc::unbounded_channel();
        let thread = thread::Builder::new().name("proxy".to_owned()).spawn({
            let (shared, port) = (Arc::clone(&shared), port.number());
            move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
                runtime.expect("a runtime can be made").block_on(accept(port, shared, received));
            }
        });
        let thread = Some(thread.expect("a thread can be started"));
        let proxy = Self { url, port, shared, commands: Some(commands), thread };
        proxy.up();
        proxy
    }

    /// The URL given, through the proxy.
    pub fn url(&self) -> String {
        self.url.clone()
    }

    /// The port on 127.0.0.1.
    pub fn port(&self) -> u16 {
        self.port.number()
    }

    /// Holds everything back for this long, each way; zero at first. Throughput stays as it is: what was sent together
    /// arrives together. What is on its way keeps the delay that it started with.
    pub fn delay(&self, each_way: Duration) {
        self.shared.control().delay = each_way;
    }

    /// Cuts all connections now. New ones are taken; see [`Proxy::down`].
    pub fn cut(&self) {
        self.shared.cut.send_replace(());
    }

    /// Forwards nothing more, either way, and tells nobody, as a network that is down: connections stay, new ones are taken and hear nothing,
    /// and neither side learns that the other closed its own. See [`Proxy::resume`].
    pub fn silence(&self) {
        self.shared.holds.store(false, Ordering::Relaxed);
        self.shared.silent.send_replace(true);
    }

    /// Whether something came since it last fell silent, either way, that it held back.
    pub fn holds(&self) -> bool {
        self.shared.holds.load(Ordering::Relaxed)
    }

    /// Forwards again, first what came meanwhile.
    pub fn resume(&self) {
        self.shared.silent.send_replace(false);
    }

    /// Refuses new connections. Those that there are stay; see [`Proxy::cut`].
    pub fn down(&self) {
        self.listen(false);
    }

    /// Takes new connections again.
    pub fn up(&self) {
        self.listen(true);
    }

    /// Cuts one connection, once, at this point. Messages and bytes are counted from now on, over all connections.
    /// Replaces a fault that has not come to pass.
    pub fn fail(&self, at: FaultPoint) {
        self.fail_after(0, at);
    }

    /// As [`Proxy::fail`], but lets so many queries pass that would be it.
    pub fn fail_after(&self, skipped: u64, at: FaultPoint) {
        self.shared.control().meter.arm(skipped, at);
    }

    /// Whether the fault last asked for has come to pass.
    pub fn has_failed(&self) -> bool {
        self.shared.control().meter.has_failed()
    }

    /// Takes back a fault that has not come to pass.
    pub fn heal(&self) {
        self.shared.control().meter.disarm();
    }

    /// What has passed since the proxy was made.
    pub fn counts(&self) -> Counts {
        self.shared.control().meter.counts()
    }

    fn listen(&self, listen: bool) {
        let (done, is_done) = standard_mpsc::channel();
        let told =
            self.commands.as_ref().is_some_and(|commands| commands.send(Command { listen, done }).is_ok());
        assert!(told && is_done.recv().is_ok(), "the proxy's thread has ended");
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.commands = None;
        if let Some(thread) = self.thread.take() {
            // It ends with all of its connections. A panic in it was printed.
            let _ = thread.join();
        }
    }
}

/// Takes connections until nobody can tell it anything any more.
async fn accept(port: u16, shared: Arc<Shared>, mut commands: mpsc::UnboundedReceiver<Command>) {
    let mut listener = None;
    loop {
        tokio::select! {
            command = commands.recv() => {
                let Some(Command { listen, done }) = command else { return };
                listener = match listener {
                    Some(listener) if listen => Some(listener),
                    _ => listen.then(|| bind(port).listen(1024).expect("a port of ours can be listened on")),
                };
                // Nobody waits any more when the test has given up.
                let _ = done.send(());
            }
            client = next_client(listener.as_ref()) => {
                shared.control().meter.count_connection();
                tokio::spawn(link::serve(client, Arc::clone(&shared), shared.cut.subscribe()));
            }
        }
    }
}

async fn next_client(listener: Option<&TcpListener>) -> tokio::net::TcpStream {
    let Some(listener) = listener else { return std::future::pending().await };
    loop {
        // A client that is gone before it was taken is none of ours.
        if let Ok((client, _)) = listener.accept().await {
            return client;
        }
    }
}

/// The addresses of a server, by its name and port.
async fn addresses(target: &str) -> Vec<SocketAddr> {
    lookup_host(target).await.map(Iterator::collect).unwrap_or_default()
}

/// A URL through a port of the loopback address, and the server that it names, as host and port.
fn through(url: &str, port: u16) -> (String, String) {
    let (scheme, rest) = url.split_once("://").unwrap_or_else(|| panic!("{url}: not a URL"));
    let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    let (user, place) = authority.rsplit_once('@').map_or(("", authority), |(user, place)| (user, place));
    let (host, target_port) = place.rsplit_once(':').unwrap_or((place, "5432"));
    assert!(!host.is_empty() && !host.starts_with('%'), "{url}: names no host");
    let at = if user.is_empty() { "" } else { "@" };
    // The name stays where it is this machine's, so that a certificate for it fits.
    let host_here = if host == "localhost" { "localhost" } else { "127.0.0.1" };
    (format!("{scheme}://{user}{at}{host_here}:{port}{path}"), format!("{host}:{target_port}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_goes_through_the_port() {
        let (url, target) = through("postgres://u:p@db.example:6000/d?sslmode=require", 7);
        assert_eq!(
            (url.as_str(), target.as_str()),
            ("postgres://u:p@127.0.0.1:7/d?sslmode=require", "db.example:6000")
        );
        let (url, target) = through("postgres://localhost", 7);
        assert_eq!((url.as_str(), target.as_str()), ("postgres://localhost:7", "localhost:5432"));
    }
}
