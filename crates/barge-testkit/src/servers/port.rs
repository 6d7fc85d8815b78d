//! A loopback port that stays free for the server it is meant for.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use tokio::net::TcpSocket;

/// A port of 127.0.0.1 that the system gives to nobody else.
///
/// It is bound and does not listen. Linux lets another socket bind the same port when both allow reuse of the address and
/// neither listens, and every server here allows it. So the server takes the port without a race, connecting while it is
/// down is refused, and it finds the port free when it starts again.
#[derive(Debug)]
pub(super) struct ReservedPort {
    socket: TcpSocket,
}

impl ReservedPort {
    pub(super) fn new() -> Self {
        Self { socket: bind(0) }
    }

    pub(super) fn number(&self) -> u16 {
        self.socket.local_addr().expect("the socket is bound").port()
    }
}

/// Two ports as [`ReservedPort`]: one for clients, and ten thousand above it the one over which nodes of a Redis Cluster talk to each other.
#[derive(Debug)]
pub(super) struct BusPort {
    port: ReservedPort,
    _bus: TcpSocket,
}

impl BusPort {
    const DISTANCE: u16 = 10_000;

    pub(super) fn new() -> Self {
        // Kept until one is found, so that none comes twice.
        let mut unsuitable = Vec::new();
        loop {
            let port = ReservedPort::new();
            match port.number().checked_add(Self::DISTANCE).map(try_bind) {
                Some(Ok(bus)) => return Self { port, _bus: bus },
                _ => unsuitable.push(port),
            }
            assert!(unsuitable.len() < 1_000, "no two ports {} apart are free", Self::DISTANCE);
        }
    }

    /// The clients' port.
    pub(super) fn number(&self) -> u16 {
        self.port.number()
    }
}

/// A socket on a port of the loopback address, 0 for any that is free.
pub(super) fn bind(port: u16) -> TcpSocket {
    try_bind(port).unwrap_or_else(|error| panic!("cannot bind port {port} of 127.0.0.1: {error}"))
}

fn try_bind(port: u16) -> io::Result<TcpSocket> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))?;
    Ok(socket)
}
