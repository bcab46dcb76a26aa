//! A byte stream to a host: a TCP connection, direct or through a proxy.

use std::fmt;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Buf as _, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_util::either::Either;

use super::socket::{Calm, steady};
use crate::tls::stream::ClientTlsStream;

/// TLS with a host.
pub type TlsHostStream = ClientTlsStream<HostStream>;

/// A TCP connection to a proxy, or TLS with it.
pub(super) type ProxyStream = Either<TcpStream, Box<ClientTlsStream<TcpStream>>>;

/// A byte stream to a host.
#[derive(Debug)]
pub struct HostStream {
    stream: ProxyStream,
    calm: Calm,
    /// What only a proxy brings; most streams have none.
    proxied: Option<Box<Proxied>>,
}

#[derive(Debug)]
struct Proxied {
    /// What the host sent behind the proxy's answer, and was not read yet.
    early: Bytes,
    name: Arc<str>,
}

impl HostStream {
    /// A TCP connection to the host itself.
    pub(super) fn direct(socket: TcpStream) -> Self {
        Self {
            stream: Either::Left(socket),
            calm: Calm::default(),
            proxied: None,
        }
    }

    /// One that a proxy has opened; `early` are the bytes behind its answer.
    pub(super) fn proxied(stream: ProxyStream, early: Bytes, proxy: &Arc<str>) -> Self {
        let proxied = Proxied {
            early,
            name: Arc::clone(proxy),
        };
        Self {
            stream,
            calm: Calm::default(),
            proxied: Some(Box::new(proxied)),
        }
    }

    /// The socket at the bottom.
    pub fn socket(&self) -> &TcpStream {
        bottom(&self.stream)
    }

    /// It carries a session from now on (see [`steady`]).
    pub fn steady(&mut self) {
        steady(bottom(&self.stream), &mut self.calm);
    }

    /// What it goes through.
    pub(super) fn via(&self) -> Via {
        Via(self
            .proxied
            .as_ref()
            .map(|proxied| Arc::clone(&proxied.name)))
    }
}

fn bottom(stream: &ProxyStream) -> &TcpStream {
    match stream {
        Either::Left(socket) => socket,
        Either::Right(tls) => tls.get_ref().0,
    }
}

impl AsyncRead for HostStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Some(proxied) = &mut self.proxied
            && proxied.early.has_remaining()
        {
            let count = proxied.early.len().min(buffer.remaining());
            buffer.put_slice(&proxied.early.split_to(count));
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for HostStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let Self { stream, calm, .. } = &mut *self;
        let result = Pin::new(&mut *stream).poll_write(cx, bytes);
        calm.wrote(bottom(stream), &result);
        result
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let Self { stream, calm, .. } = &mut *self;
        let result = Pin::new(&mut *stream).poll_write_vectored(cx, bytes);
        calm.wrote(bottom(stream), &result);
        result
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { stream, calm, .. } = &mut *self;
        let flushed = Pin::new(&mut *stream).poll_flush(cx);
        if flushed.is_pending() {
            // TLS with a proxy takes bytes that its socket does not.
            calm.wrote(bottom(stream), &Poll::Pending);
        }
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// What a host is reached through, in an error: ` through the proxy HOST:PORT`, or nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Via(Option<Arc<str>>);

impl Via {
    /// Through this proxy.
    #[cfg(test)]
    pub(super) fn proxy(name: &Arc<str>) -> Self {
        Self(Some(Arc::clone(name)))
    }

    /// The proxy, as `HOST:PORT`.
    pub fn name(&self) -> Option<&str> {
        self.0.as_deref()
    }
}

impl fmt::Display for Via {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some(name) => write!(f, " through the proxy {name}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    #[tokio::test]
    async fn what_came_behind_the_proxys_answer_is_read_first() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (near, far) = tokio::join!(TcpStream::connect(address), listener.accept());
        let (near, (mut far, _)) = (near.unwrap(), far.unwrap());
        let name: Arc<str> = "proxy:1".into();
        let mut stream = HostStream::proxied(Either::Left(near), Bytes::from("early"), &name);
        far.write_all(b" and late").await.unwrap();
        far.shutdown().await.unwrap();
        let mut two = [0; 2];
        stream.read_exact(&mut two).await.unwrap();
        let mut rest = String::new();
        stream.read_to_string(&mut rest).await.unwrap();
        assert_eq!((&two[..], rest.as_str()), (&b"ea"[..], "rly and late"));
        assert_eq!(stream.via().to_string(), " through the proxy proxy:1");
    }
}
