//! Sockets that systemd listens on for the hub (socket activation): connections wait in them while
//! the hub is started again.

use std::net::SocketAddr;

use tokio::net::TcpListener;

/// Listening sockets that this process was started with and nothing uses yet.
pub struct Inherited(Vec<TcpListener>);

impl Inherited {
    /// Those of `LISTEN_FDS`, which only the first call finds. Others than TCP are closed. Within a
    /// runtime.
    pub fn of_process() -> Self {
        let mut given = listenfd::ListenFd::from_env();
        let sockets = (0..given.len()).filter_map(|index| {
            let socket = given.take_tcp_listener(index).ok()??;
            socket.set_nonblocking(true).ok()?;
            TcpListener::from_std(socket).ok()
        });
        Self(sockets.collect())
    }

    /// The socket that listens on this address's port, and on its IP address or on all.
    pub fn take(&mut self, wanted: SocketAddr) -> Option<TcpListener> {
        let fits = |found: SocketAddr| {
            found.port() == wanted.port()
                && (found.ip() == wanted.ip() || found.ip().is_unspecified())
        };
        let index = self
            .0
            .iter()
            .position(|socket| socket.local_addr().is_ok_and(fits))?;
        Some(self.0.swap_remove(index))
    }
}
