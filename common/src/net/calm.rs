//! The congestion control of a carrier's socket, by how much it sends.
//!
//! CUBIC ends its slow start when acknowledgements take longer (HyStart), even in a direction that
//! carries little but a session's acknowledgements, and it grows slowly from then on, as if its few
//! segments filled the path. What makes them late is the queue of the other direction. So a copy
//! that followed one in the other direction had 20 Mbit/s after 2 s on a path of 1 Gbit/s and
//! 120 ms, and the first copy of a session 500. Reno stays in slow start until a loss: a socket uses
//! it while its direction is quiet, and CUBIC from the moment at which bytes have to wait.

use std::io;
use std::sync::OnceLock;
use std::task::Poll;
use std::time::{Duration, Instant};

use socket2::{Domain, SockRef, Socket, Type};
use tokio::net::TcpStream;

/// A direction is quiet again when nothing has waited for this time and less than this was sent: with
/// 1 Gbit/s in the other direction acknowledgements are a third of it.
const QUIET_TIME: Duration = Duration::from_secs(1);
const QUIET_BYTES: usize = 64 << 10;

/// A congestion control.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Control {
    Reno,
    Cubic,
}

impl Control {
    fn name(self) -> &'static [u8] {
        match self {
            Self::Reno => b"reno",
            Self::Cubic => b"cubic",
        }
    }

    /// A refusal is not fatal.
    fn set(self, socket: &TcpStream) {
        let _ = SockRef::from(socket).set_tcp_congestion(self.name());
    }
}

/// Whether a socket is quiet, and its congestion control that of a quiet one.
#[derive(Debug, Default)]
pub struct Calm(State);

#[derive(Debug, Default)]
enum State {
    /// The congestion control does not change.
    #[default]
    Fixed,
    Quiet,
    Busy(Busy),
}

/// What was sent since a time.
#[derive(Debug)]
struct Busy {
    since: Instant,
    bytes: usize,
    has_waited: bool,
}

impl Calm {
    /// Of a socket that has sent little. Where the system's choice is not CUBIC, or a socket might
    /// not get that back, nothing changes.
    pub(super) fn begin(&mut self, socket: &TcpStream) {
        let is_cubic = SockRef::from(socket)
            .tcp_congestion()
            .is_ok_and(|name| name.starts_with(Control::Cubic.name()));
        if is_cubic && can_change() {
            self.0 = State::Quiet;
            Control::Reno.set(socket);
        }
    }

    /// A write to the socket has ended like this.
    #[inline]
    pub fn wrote(&mut self, socket: &TcpStream, result: &Poll<io::Result<usize>>) {
        let bytes = match result {
            Poll::Ready(Ok(count)) => Some(*count),
            Poll::Ready(Err(_)) => return,
            Poll::Pending => None,
        };
        if let Some(control) = self.0.wrote(bytes, Instant::now) {
            control.set(socket);
        }
    }
}

impl State {
    /// A write has taken so many bytes, or none, since too many wait. The congestion control from
    /// now on, if it changes.
    fn wrote(&mut self, bytes: Option<usize>, now: impl FnOnce() -> Instant) -> Option<Control> {
        match (&mut *self, bytes) {
            (Self::Fixed, _) | (Self::Quiet, Some(_)) => None,
            (Self::Quiet, None) => {
                *self = Self::Busy(Busy {
                    since: now(),
                    bytes: 0,
                    has_waited: true,
                });
                Some(Control::Cubic)
            }
            (Self::Busy(busy), None) => {
                busy.has_waited = true;
                None
            }
            (Self::Busy(busy), Some(count)) => {
                let now = now();
                if now.saturating_duration_since(busy.since) >= QUIET_TIME {
                    if !busy.has_waited && busy.bytes < QUIET_BYTES {
                        *self = Self::Quiet;
                        return Some(Control::Reno);
                    }
                    *busy = Busy {
                        since: now,
                        bytes: 0,
                        has_waited: false,
                    };
                }
                busy.bytes = busy.bytes.saturating_add(count);
                None
            }
        }
    }
}

/// Whether the system lets a socket change from Reno to CUBIC: a socket may get CUBIC from a route,
/// although it may not choose it.
fn can_change() -> bool {
    static CAN: OnceLock<bool> = OnceLock::new();
    *CAN.get_or_init(|| {
        let try_it = || {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
            socket.set_tcp_congestion(Control::Reno.name())?;
            socket.set_tcp_congestion(Control::Cubic.name())
        };
        try_it().is_ok()
    })
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWrite as _;
    use tokio::net::TcpListener;

    use super::*;

    #[test]
    fn a_direction_is_busy_from_when_bytes_wait_until_a_second_with_little() {
        let start = Instant::now();
        let at = |milliseconds| move || start + Duration::from_millis(milliseconds);
        let mut state = State::Quiet;
        for milliseconds in 0..5_000 {
            assert_eq!(state.wrote(Some(100), at(milliseconds)), None);
        }
        assert_eq!(state.wrote(None, at(5_000)), Some(Control::Cubic));
        // Bytes wait in each of these seconds, later much is sent, later little.
        for second in 5..8 {
            assert_eq!(state.wrote(None, at(second * 1000)), None);
            assert_eq!(state.wrote(Some(100), at(second * 1000 + 1)), None);
        }
        for second in 7..11 {
            let much = state.wrote(Some(QUIET_BYTES), at(second * 1000 + 500));
            assert_eq!(much, None, "{second}");
        }
        assert_eq!(state.wrote(Some(100), at(11_000)), None);
        assert_eq!(state.wrote(Some(100), at(11_600)), None);
        assert_eq!(state.wrote(Some(100), at(12_600)), Some(Control::Reno));
        assert_eq!(state.wrote(Some(100), at(14_003)), None);
        assert_eq!(state.wrote(None, at(14_003)), Some(Control::Cubic));
    }

    /// Otherwise a socket keeps what it has.
    #[tokio::test]
    async fn a_quiet_socket_uses_reno_and_one_whose_bytes_wait_cubic() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut near = TcpStream::connect(listener.local_addr().unwrap())
            .await
            .unwrap();
        let _far = listener.accept().await.unwrap();
        let has = |socket: &TcpStream, control: Control| {
            let name = SockRef::from(socket).tcp_congestion().unwrap();
            name.starts_with(control.name())
        };
        Control::Cubic.set(&near);
        let could = has(&near, Control::Cubic) && can_change();
        let before = SockRef::from(&near).tcp_congestion().unwrap();
        let mut calm = Calm::default();
        calm.begin(&near);
        assert_eq!(
            has(&near, Control::Reno),
            could || before.starts_with(b"reno")
        );
        let block = [0; 64 << 10];
        std::future::poll_fn(|cx| {
            let mut writes = 0;
            loop {
                let result = std::pin::Pin::new(&mut near).poll_write(cx, &block);
                calm.wrote(&near, &result);
                if result.is_pending() {
                    return Poll::Ready(());
                }
                writes += 1;
                assert!(writes < 10_000, "nobody reads, and nothing waits");
            }
        })
        .await;
        assert_eq!(SockRef::from(&near).tcp_congestion().unwrap(), before);
    }
}
