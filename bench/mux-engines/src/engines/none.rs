//! No engine: the carrier itself is the one stream. The reference for the others.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::engine::{Acceptor, Carrier, Engine, MuxStream, Opener};

/// The carrier without an engine on it.
#[derive(Clone, Copy)]
pub struct None;

/// Both ends: the carrier, until it is taken.
pub struct End(Option<Direct>);

/// The carrier as a stream.
pub struct Direct(Box<dyn Carrier>);

impl Engine for None {
    type Opener = End;
    type Acceptor = End;

    fn name(self) -> &'static str {
        "none"
    }

    fn multiplexes(self) -> bool {
        false
    }

    fn for_streams(self, _streams: usize) -> Self {
        self
    }

    async fn client<C: Carrier>(self, carrier: C) -> io::Result<End> {
        Ok(End(Some(Direct(Box::new(carrier)))))
    }

    async fn server<C: Carrier>(self, carrier: C) -> io::Result<End> {
        Ok(End(Some(Direct(Box::new(carrier)))))
    }
}

impl Opener for End {
    type Stream = Direct;

    async fn open(&mut self) -> io::Result<Direct> {
        self.0
            .take()
            .ok_or_else(|| io::Error::other("only one stream without an engine"))
    }
}

impl Acceptor for End {
    type Stream = Direct;

    async fn accept(&mut self) -> io::Result<Option<Direct>> {
        Ok(self.0.take())
    }
}

impl MuxStream for Direct {
    fn reset(self) {}
}

impl AsyncRead for Direct {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Direct {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
