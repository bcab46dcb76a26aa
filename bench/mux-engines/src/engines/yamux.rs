//! The `yamux` crate. Its connection object must be polled for anything to move, so a task owns it and hands out
//! streams.

use std::future::poll_fn;
use std::io;
use std::task::Poll;

use tokio::sync::{mpsc, oneshot};
use tokio_util::compat::{Compat, FuturesAsyncReadCompatExt, TokioAsyncReadCompatExt};
use yamux::{Config, Connection, DEFAULT_CREDIT, Mode};

use super::Tuning;
use crate::engine::{Acceptor, Carrier, Engine, MuxStream, Opener};

/// The crate's own default.
const DEFAULT_STREAMS: usize = 512;
/// Payload of one frame, tuned: as large as HTTP/2's in its tuned row.
const TUNED_FRAME: usize = 64 * 1024;

/// yamux. Windows start at 256 KiB and grow by themselves with the round-trip time; there is no setting for one
/// stream's window, only a limit for the sum of all.
#[derive(Clone, Copy)]
pub struct Yamux {
    tuning: Tuning,
    streams: usize,
}

type OpenRequest = oneshot::Sender<yamux::Result<yamux::Stream>>;

pub struct YamuxOpener(mpsc::Sender<OpenRequest>);

pub struct YamuxAcceptor {
    accepted: mpsc::UnboundedReceiver<yamux::Stream>,
    /// Kept so that the task sees no end of requests.
    _requests: mpsc::Sender<OpenRequest>,
}

impl Yamux {
    /// yamux with the crate's defaults, or with no limit to the windows and larger frames.
    pub fn new(tuning: Tuning) -> Self {
        Self {
            tuning,
            streams: DEFAULT_STREAMS,
        }
    }

    fn config(self) -> Config {
        let mut config = Config::default();
        if self.tuning == Tuning::Tuned {
            config
                .set_max_connection_receive_window(None)
                .set_split_send_size(TUNED_FRAME);
        }
        if self.streams > DEFAULT_STREAMS {
            // The crate insists on room for every stream's first window, and checks at each call.
            if self.tuning == Tuning::Default {
                let least = self.streams.saturating_mul(DEFAULT_CREDIT as usize);
                config.set_max_connection_receive_window(Some(least.max(1 << 30)));
            }
            config.set_max_num_streams(self.streams);
        }
        config
    }

    fn start<C: Carrier>(self, carrier: C, mode: Mode) -> (YamuxOpener, YamuxAcceptor) {
        let connection = Connection::new(carrier.compat(), self.config(), mode);
        let (request, requests) = mpsc::channel(1);
        let (accept, accepted) = mpsc::unbounded_channel();
        tokio::spawn(drive(connection, requests, accept));
        let acceptor = YamuxAcceptor {
            accepted,
            _requests: request.clone(),
        };
        (YamuxOpener(request), acceptor)
    }
}

impl Engine for Yamux {
    type Opener = YamuxOpener;
    type Acceptor = YamuxAcceptor;

    fn name(self) -> &'static str {
        match self.tuning {
            Tuning::Default => "yamux",
            Tuning::Tuned => "yamux, tuned",
        }
    }

    fn for_streams(self, streams: usize) -> Self {
        Self {
            streams: self.streams.max(streams),
            ..self
        }
    }

    async fn client<C: Carrier>(self, carrier: C) -> io::Result<YamuxOpener> {
        Ok(self.start(carrier, Mode::Client).0)
    }

    async fn server<C: Carrier>(self, carrier: C) -> io::Result<YamuxAcceptor> {
        Ok(self.start(carrier, Mode::Server).1)
    }
}

impl Opener for YamuxOpener {
    type Stream = Compat<yamux::Stream>;

    async fn open(&mut self) -> io::Result<Self::Stream> {
        let (reply, stream) = oneshot::channel();
        self.0
            .send(reply)
            .await
            .map_err(|_| io::ErrorKind::BrokenPipe)?;
        let stream = stream.await.map_err(|_| io::ErrorKind::BrokenPipe)?;
        Ok(stream.map_err(io::Error::other)?.compat())
    }
}

impl Acceptor for YamuxAcceptor {
    type Stream = Compat<yamux::Stream>;

    async fn accept(&mut self) -> io::Result<Option<Self::Stream>> {
        Ok(self.accepted.recv().await.map(|stream| stream.compat()))
    }
}

impl MuxStream for Compat<yamux::Stream> {
    /// yamux resets what is dropped before it was closed.
    fn reset(self) {}
}

/// Moves everything: reads and writes the carrier, opens streams on request, hands over what the peer opened.
async fn drive<C: Carrier>(
    mut connection: Connection<Compat<C>>,
    mut requests: mpsc::Receiver<OpenRequest>,
    accept: mpsc::UnboundedSender<yamux::Stream>,
) {
    let mut request: Option<OpenRequest> = None;
    poll_fn(|cx| {
        loop {
            if request.is_none()
                && let Poll::Ready(next) = requests.poll_recv(cx)
            {
                request = next;
            }
            if request.is_some()
                && let Poll::Ready(stream) = connection.poll_new_outbound(cx)
            {
                if let Some(request) = request.take() {
                    // Nobody waits any more: the stream is dropped, and nothing was sent for it yet.
                    let _ = request.send(stream);
                }
                continue;
            }
            match connection.poll_next_inbound(cx) {
                // No acceptor: the end that only opens.
                Poll::Ready(Some(Ok(stream))) => drop(accept.send(stream)),
                Poll::Ready(Some(Err(_)) | None) => return Poll::Ready(()),
                Poll::Pending => return Poll::Pending,
            }
        }
    })
    .await;
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    /// A reader's end of the stream after the other end closed, or reset: what `is_closed` says of it.
    async fn closed_at_the_end(reset: bool) -> bool {
        let engine = Yamux::new(Tuning::Default);
        let (near, far) = tokio::io::duplex(4096);
        let mut opener = engine.client(near).await.unwrap();
        let mut acceptor = engine.server(far).await.unwrap();
        let mut client = opener.open().await.unwrap();
        client.write_all(b"x").await.unwrap();
        let mut server = acceptor.accept().await.unwrap().unwrap();
        server.read_u8().await.unwrap();
        if reset {
            drop(client);
            assert_eq!(server.read(&mut [0]).await.unwrap(), 0);
        } else {
            client.shutdown().await.unwrap();
            assert_eq!(server.read(&mut [0]).await.unwrap(), 0);
        }
        server.get_ref().is_closed()
    }

    /// Both read as an end. While the reader's own direction is open, this is the one way to tell them apart.
    #[tokio::test]
    async fn a_reset_reads_as_an_end_but_closes_both_directions() {
        assert!(closed_at_the_end(true).await);
        assert!(!closed_at_the_end(false).await);
    }

    #[tokio::test]
    async fn a_lost_carrier_reads_as_an_end() {
        let (near, far) = tokio::io::duplex(4096);
        let mut opener = Yamux::new(Tuning::Default).client(near).await.unwrap();
        let mut stream = opener.open().await.unwrap();
        stream.write_all(b"x").await.unwrap();
        drop(far);
        assert_eq!(stream.read(&mut [0]).await.unwrap(), 0);
    }
}
