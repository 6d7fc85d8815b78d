//! A loopback port that stays free for the server it is meant for.

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

/// A socket on a port of the loopback address, 0 for any that is free.
pub(super) fn bind(port: u16) -> TcpSocket {
    let bound = TcpSocket::new_v4().and_then(|socket| {
        socket.set_reuseaddr(true)?;
        socket.bind(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))?;
        Ok(socket)
    });
    bound.unwrap_or_else(|error| panic!("cannot bind port {port} of 127.0.0.1: {error}"))
}
