//! What sockets of ours want of the system.

use std::time::Duration;

#[cfg(target_os = "linux")]
use device_stream_session::limits::CARRIER_UNSENT;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;

/// What every socket of ours wants: no waiting for company (`TCP_NODELAY`), and the
/// kernel's probes when idle. Refusal by the system is not fatal.
pub fn tune(socket: &TcpStream) {
    let _ = socket.set_nodelay(true);
    let probes = TcpKeepalive::new()
        .with_time(Duration::from_secs(30))
        .with_interval(Duration::from_secs(10));
    let _ = SockRef::from(socket).set_tcp_keepalive(&probes);
}

/// What a socket knows of the congestion control that it should have. See [`steady`].
#[cfg(target_os = "linux")]
pub use super::calm::Calm;

/// The congestion control does not change here.
#[cfg(not(target_os = "linux"))]
#[derive(Debug, Default)]
pub struct Calm;

#[cfg(not(target_os = "linux"))]
impl Calm {
    /// A write to the socket has ended like this.
    pub fn wrote(&mut self, _: &TcpStream, _: &std::task::Poll<std::io::Result<usize>>) {}
}

/// What a socket wants that carries a session: not BBR, where that is the system's choice, and few
/// bytes that TCP has not sent, since a keystroke waits behind all of them. A session keeps the path
/// full and its queues short by itself, and BBR stops a connection that is never idle for 200 ms
/// every 10 s, to see the idle path; a person who types beside a copy feels each of them. `calm` learns
/// of every write from then on, so that a direction that sends little does not lose TCP's slow start.
/// Refusal by the system is not fatal.
pub fn steady(socket: &TcpStream, calm: &mut Calm) {
    #[cfg(any(target_os = "linux", target_os = "freebsd"))]
    {
        let socket = SockRef::from(socket);
        #[cfg(target_os = "linux")]
        let _ = socket.set_tcp_notsent_lowat(CARRIER_UNSENT);
        if socket
            .tcp_congestion()
            .is_ok_and(|name| name.starts_with(b"bbr"))
        {
            let _ = socket.set_tcp_congestion(b"cubic");
        }
    }
    #[cfg(target_os = "linux")]
    calm.begin(socket);
    #[cfg(not(target_os = "linux"))]
    let _ = (socket, calm);
}
