//! One connection through the proxy.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until, timeout};

use super::fault::{AtQuery, Way};
use super::message::{Cutter, Phase, Statements};
use super::{Shared, addresses};

/// The connection is to be cut, or is lost.
struct Cut;

impl From<io::Error> for Cut {
    fn from(_: io::Error) -> Self {
        Cut
    }
}

/// What both directions of a connection know.
struct Link {
    shared: Arc<Shared>,
    state: Mutex<LinkState>,
}

struct LinkState {
    phase: Phase,
    /// The client hears nothing more, and is cut when the server has closed its side.
    is_last_query: bool,
}

/// How many chunks of one direction can be on their way; what is more waits at the sender.
const CHUNKS_MAX: usize = 1024;
const CHUNK_BYTES_MAX: usize = 64 * 1024;

/// How long a server whose client was cut is given to close its side.
const SERVER_PATIENCE: Duration = Duration::from_secs(10);

/// Forwards one connection until it ends or is cut.
pub(super) async fn serve(client: TcpStream, shared: Arc<Shared>, mut cut: watch::Receiver<()>) {
    let targets = addresses(&shared.target).await;
    // Where no server is, the client finds its connection closed.
    let Ok(server) = TcpStream::connect(targets.as_slice()).await else { return };
    if client.set_nodelay(true).and_then(|()| server.set_nodelay(true)).is_err() {
        return;
    }
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_server, mut to_server) = server.into_split();
    let state = LinkState { phase: Phase::Opening, is_last_query: false };
    let link = Link { shared, state: Mutex::new(state) };
    let both_ways = async {
        tokio::try_join!(
            forward(&link, Way::ToServer, &mut from_client, &mut to_server),
            forward(&link, Way::ToClient, &mut from_server, &mut to_client),
        )
    };
    let is_cut = tokio::select! {
        // First, so that what was held back is lost by a cut even where it might be forwarded by now.
        biased;
        _ = cut.changed() => true,
        ended = both_ways => ended.is_err(),
    };
    if is_cut {
        drop((from_client, to_client));
        let _ = timeout(SERVER_PATIENCE, let_finish(from_server, to_server)).await;
    }
}

/// Tells a server that its client is gone, and reads on until it has noticed: a server that cannot send its answers stops
/// before it has done what it was sent.
async fn let_finish(mut from_server: OwnedReadHalf, mut to_server: OwnedWriteHalf) -> io::Result<()> {
    to_server.shutdown().await?;
    tokio::io::copy(&mut from_server, &mut tokio::io::sink()).await?;
    Ok(())
}

/// Forwards one direction to its end.
async fn forward(
    link: &Link,
    way: Way,
    from: &mut OwnedReadHalf,
    to: &mut OwnedWriteHalf,
) -> Result<(), Cut> {
    let (sender, mut receiver) = mpsc::channel(CHUNKS_MAX);
    let read = async move {
        loop {
            let mut chunk = Vec::with_capacity(CHUNK_BYTES_MAX);
            if from.read_buf(&mut chunk).await? == 0 {
                return Ok(());
            }
            let due = Instant::now() + link.shared.control().delay;
            sender.send((due, chunk)).await.map_err(|_| Cut)?;
        }
    };
    let write = async move {
        let mut gate = Gate::default();
        while let Some((due, chunk)) = receiver.recv().await {
            if due > Instant::now() {
                sleep_until(due).await;
            }
            link.shared.hold_back().await;
            let passed = gate.pass(link, way, &chunk);
            to.write_all(&passed.bytes).await?;
            match passed.then {
                Then::GoOn => {}
                Then::Cut => return Err(Cut),
                Then::LetFinish => {
                    to.shutdown().await?;
                    return std::future::pending().await;
                }
            }
        }
        link.shared.hears().await;
        // The other end of the server's silence after a last query: it is through.
        if way == Way::ToClient && link.is_last_query() {
            return Err(Cut);
        }
        Ok(to.shutdown().await?)
    };
    tokio::try_join!(read, write).map(|_| ())
}

impl Link {
    fn is_last_query(&self) -> bool {
        self.state.lock().unwrap_or_else(PoisonError::into_inner).is_last_query
    }
}

/// What comes of a chunk.
struct Passed {
    bytes: Vec<u8>,
    then: Then,
}

#[derive(Clone, Copy)]
enum Then {
    GoOn,
    Cut,
    /// Nothing more is sent to the server, which ends by itself.
    LetFinish,
}

/// Lets one direction's messages pass, one after another.
#[derive(Default)]
struct Gate {
    cutter: Cutter,
    statements: Statements,
    /// The last query is a prepared statement's; it still needs its Sync.
    awaits_sync: bool,
}

impl Gate {
    fn pass(&mut self, link: &Link, way: Way, chunk: &[u8]) -> Passed {
        self.cutter.take_in(chunk);
        let mut bytes = Vec::with_capacity(chunk.len());
        let then = match way {
            Way::ToServer => self.pass_to_server(link, &mut bytes),
            Way::ToClient => self.pass_to_client(link, &mut bytes),
        };
        Passed { bytes, then }
    }

    fn pass_to_server(&mut self, link: &Link, out: &mut Vec<u8>) -> Then {
        let mut state = link.state.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some(piece) = self.cutter.next_from_client(&mut state.phase) {
            let mut control = link.shared.control();
            let at_query = match self.statements.run_by(&piece) {
                Some(text) => control.meter.at_query(&text),
                None => AtQuery::Pass,
            };
            if at_query == AtQuery::CutBefore {
                return Then::Cut;
            }
            if at_query == AtQuery::CutAfter {
                // Set before anything of it reaches the server, so that no answer gets by.
                state.is_last_query = true;
                self.awaits_sync = !piece.is_simple_query();
            }
            let admitted = control.meter.admit(Way::ToServer, piece.bytes.len(), piece.is_message);
            out.extend_from_slice(&piece.bytes[..admitted.bytes]);
            if admitted.cut {
                return Then::Cut;
            }
            if state.is_last_query && (!self.awaits_sync || piece.is_sync()) {
                return Then::LetFinish;
            }
        }
        Then::GoOn
    }

    fn pass_to_client(&mut self, link: &Link, out: &mut Vec<u8>) -> Then {
        let mut state = link.state.lock().unwrap_or_else(PoisonError::into_inner);
        while let Some(piece) = self.cutter.next_from_server(&mut state.phase) {
            if state.is_last_query {
                continue;
            }
            let admitted =
                link.shared.control().meter.admit(Way::ToClient, piece.bytes.len(), piece.is_message);
            out.extend_from_slice(&piece.bytes[..admitted.bytes]);
            if admitted.cut {
                return Then::Cut;
            }
        }
        Then::GoOn
    }
}
