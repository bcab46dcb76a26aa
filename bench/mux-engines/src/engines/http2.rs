//! HTTP/2 with the `h2` crate: a stream is a CONNECT request, answered with 200 at once.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use h2::client::{ResponseFuture, SendRequest};
use h2::{Reason, RecvStream, SendStream};
use http::{Method, Request, Response};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::mpsc;

use super::Tuning;
use crate::engine::{Acceptor, Carrier, Engine, MuxStream, Opener};

/// Window of a stream and of the connection, tuned.
const TUNED_WINDOW: u32 = 16 * 1024 * 1024;
/// Largest frame, tuned.
const TUNED_FRAME: u32 = 64 * 1024;

/// HTTP/2 CONNECT. The crate's windows are those of the standard by default: 65,535 bytes for a stream and for the
/// connection.
#[derive(Clone, Copy)]
pub struct Http2 {
    tuning: Tuning,
}

pub struct Http2Opener(SendRequest<Bytes>);

pub struct Http2Acceptor(mpsc::UnboundedReceiver<Http2Stream>);

/// The two halves of a CONNECT, as one byte stream.
pub struct Http2Stream {
    send: SendStream<Bytes>,
    receive: Receive,
    /// Received and not yet read.
    rest: Bytes,
}

enum Receive {
    /// The answer to the CONNECT has not come yet; writing need not wait for it.
    Answer(ResponseFuture),
    Body(RecvStream),
}

impl Http2 {
    /// HTTP/2 with the crate's defaults, or with windows of 16 MiB and frames of 64 KiB.
    pub fn new(tuning: Tuning) -> Self {
        Self { tuning }
    }
}

impl Engine for Http2 {
    type Opener = Http2Opener;
    type Acceptor = Http2Acceptor;

    fn name(self) -> &'static str {
        match self.tuning {
            Tuning::Default => "h2",
            Tuning::Tuned => "h2, tuned",
        }
    }

    fn for_streams(self, _streams: usize) -> Self {
        self
    }

    async fn client<C: Carrier>(self, carrier: C) -> io::Result<Http2Opener> {
        let mut builder = h2::client::Builder::new();
        if self.tuning == Tuning::Tuned {
            builder
                .initial_window_size(TUNED_WINDOW)
                .initial_connection_window_size(TUNED_WINDOW)
                .max_frame_size(TUNED_FRAME);
        }
        let (sender, connection) = builder.handshake(carrier).await.map_err(error)?;
        tokio::spawn(connection);
        Ok(Http2Opener(sender))
    }

    async fn server<C: Carrier>(self, carrier: C) -> io::Result<Http2Acceptor> {
        let mut builder = h2::server::Builder::new();
        if self.tuning == Tuning::Tuned {
            builder
                .initial_window_size(TUNED_WINDOW)
                .initial_connection_window_size(TUNED_WINDOW)
                .max_frame_size(TUNED_FRAME);
        }
        let mut connection = builder.handshake(carrier).await.map_err(error)?;
        let (accept, accepted) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            // Waiting for the next stream is also what moves the others, so it goes on whoever listens.
            while let Some(Ok((request, mut respond))) = connection.accept().await {
                let Ok(send) = respond.send_response(Response::new(()), false) else {
                    continue;
                };
                let receive = Receive::Body(request.into_body());
                // No acceptor any more: the stream is dropped, which resets it.
                let _ = accept.send(Http2Stream::new(send, receive));
            }
        });
        Ok(Http2Acceptor(accepted))
    }
}

impl Opener for Http2Opener {
    type Stream = Http2Stream;

    async fn open(&mut self) -> io::Result<Http2Stream> {
        let mut request = Request::new(());
        *request.method_mut() = Method::CONNECT;
        *request.uri_mut() = http::Uri::from_static("device:22");
        let mut sender = self.0.clone().ready().await.map_err(error)?;
        let (answer, send) = sender.send_request(request, false).map_err(error)?;
        Ok(Http2Stream::new(send, Receive::Answer(answer)))
    }
}

impl Acceptor for Http2Acceptor {
    type Stream = Http2Stream;

    async fn accept(&mut self) -> io::Result<Option<Http2Stream>> {
        Ok(self.0.recv().await)
    }
}

impl Http2Stream {
    fn new(send: SendStream<Bytes>, receive: Receive) -> Self {
        Self {
            send,
            receive,
            rest: Bytes::new(),
        }
    }

    /// The half that receives, once the other end has answered.
    fn poll_body(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<&mut RecvStream>> {
        if let Receive::Answer(answer) = &mut self.receive {
            let answer = ready!(Pin::new(answer).poll(cx)).map_err(error)?;
            self.receive = Receive::Body(answer.into_body());
        }
        match &mut self.receive {
            Receive::Body(body) => Poll::Ready(Ok(body)),
            Receive::Answer(_) => Poll::Pending,
        }
    }
}

impl MuxStream for Http2Stream {
    fn reset(mut self) {
        self.send.send_reset(Reason::CANCEL);
    }
}

impl AsyncRead for Http2Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        while this.rest.is_empty() {
            match ready!(ready!(this.poll_body(cx))?.poll_data(cx)) {
                Some(Ok(data)) => this.rest = data,
                Some(Err(failure)) => return Poll::Ready(Err(error(failure))),
                None => return Poll::Ready(Ok(())),
            }
        }
        let taken = this.rest.split_to(this.rest.len().min(buf.remaining()));
        buf.put_slice(taken.chunk());
        // The window opens again by what was read, not by what arrived.
        let body = ready!(this.poll_body(cx))?;
        body.flow_control()
            .release_capacity(taken.len())
            .map_err(error)?;
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Http2Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        if buf.is_empty() {
            return Poll::Ready(Ok(0));
        }
        self.send.reserve_capacity(buf.len());
        // `poll_capacity` speaks only of capacity that is new, so look at what is there first.
        while self.send.capacity() == 0 {
            match ready!(self.send.poll_capacity(cx)) {
                Some(Ok(_)) => {}
                Some(Err(failure)) => return Poll::Ready(Err(error(failure))),
                None => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
            }
        }
        let data = buf.get(..self.send.capacity()).unwrap_or(buf);
        self.send
            .send_data(Bytes::copy_from_slice(data), false)
            .map_err(error)?;
        Poll::Ready(Ok(data.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.send.send_data(Bytes::new(), true).map_err(error))
    }
}

fn error(failure: h2::Error) -> io::Error {
    if failure.is_reset() {
        io::Error::new(io::ErrorKind::ConnectionReset, failure)
    } else {
        io::Error::other(failure)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn a_lost_carrier_reads_as_an_error() {
        let engine = Http2::new(Tuning::Default);
        let (near, middle) = tokio::io::duplex(4096);
        let (mut other_middle, far) = tokio::io::duplex(4096);
        let relay = tokio::spawn(async move {
            let mut middle = middle;
            tokio::io::copy_bidirectional(&mut middle, &mut other_middle).await
        });
        let (opener, acceptor) = tokio::try_join!(engine.client(near), engine.server(far)).unwrap();
        let (mut opener, mut acceptor) = (opener, acceptor);
        let mut client = opener.open().await.unwrap();
        client.write_all(b"x").await.unwrap();
        let mut server = acceptor.accept().await.unwrap().unwrap();
        server.write_all(b"y").await.unwrap();
        assert_eq!(client.read(&mut [0]).await.unwrap(), 1);
        relay.abort();
        assert!(client.read(&mut [0]).await.is_err());
    }
}
