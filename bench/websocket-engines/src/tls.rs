//! TLS 1.3 over loopback TCP: tokio-rustls, the same with a larger read below it, and
//! rustls' unbuffered API with buffers of our own.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use rustls::client::UnbufferedClientConnection;
use rustls::pki_types::{PrivatePkcs8KeyDer, ServerName};
use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::ConnectionState;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, BufReader, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};

use crate::socket::{Io, Stream};

#[derive(Clone, Copy)]
pub enum Tls {
    /// tokio-rustls, with this limit of rustls' buffers.
    Buffered(usize),
    /// tokio-rustls that reads this much from TCP at once.
    ReadAhead(usize),
    /// rustls' unbuffered API.
    Unbuffered,
}

pub struct Ends {
    client: Arc<ClientConfig>,
    server: Arc<ServerConfig>,
    name: ServerName<'static>,
}

impl Ends {
    pub fn new() -> Result<Self, Box<dyn std::error::Error>> {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()])?;
        let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
        let mut roots = RootCertStore::empty();
        roots.add(made.cert.der().clone())?;
        Ok(Self {
            client: ClientConfig::builder()
                .with_root_certificates(roots)
                .with_no_client_auth()
                .into(),
            server: ServerConfig::builder()
                .with_no_client_auth()
                .with_single_cert(vec![made.cert.der().clone()], key.into())?
                .into(),
            name: ServerName::try_from("localhost")?,
        })
    }

    /// The stream above `tcp`, after the handshake.
    pub async fn shake(&self, tls: Tls, tcp: TcpStream, client: bool) -> io::Result<Stream> {
        tcp.set_nodelay(true)?;
        match tls {
            Tls::Buffered(limit) => self.buffered(tcp, client, limit).await,
            Tls::ReadAhead(size) => {
                let tcp = BufReader::with_capacity(size, tcp);
                self.buffered(tcp, client, 64 << 10).await
            }
            Tls::Unbuffered if client => {
                let client = Arc::clone(&self.client);
                let session = UnbufferedClientConnection::new(client, self.name.clone());
                Unbuffered::shake(session.map_err(io::Error::other)?, tcp).await
            }
            Tls::Unbuffered => {
                let session = UnbufferedServerConnection::new(Arc::clone(&self.server));
                Unbuffered::shake(session.map_err(io::Error::other)?, tcp).await
            }
        }
    }

    async fn buffered<S>(&self, tcp: S, client: bool, limit: usize) -> io::Result<Stream>
    where
        S: Io + 'static,
    {
        let mut stream = if client {
            let connector = TlsConnector::from(Arc::clone(&self.client));
            TlsStream::Client(connector.connect(self.name.clone(), tcp).await?)
        } else {
            let acceptor = TlsAcceptor::from(Arc::clone(&self.server));
            TlsStream::Server(acceptor.accept(tcp).await?)
        };
        match &mut stream {
            TlsStream::Client(end) => end.get_mut().1.set_buffer_limit(Some(limit)),
            TlsStream::Server(end) => end.get_mut().1.set_buffer_limit(Some(limit)),
        }
        Ok(Box::new(stream))
    }
}

const INCOMING: usize = 64 << 10;
/// Plaintext encrypted at once, and room for it as records.
const CHUNK: usize = 256 << 10;
const OUTGOING: usize = CHUNK + (4 << 10);

enum Step {
    Again,
    NeedsData,
    Transmit,
    Traffic,
    Closed,
}

/// Either end's session.
trait Session: Unpin + Send + 'static {
    /// One step of the state machine: what to discard of `incoming`, what to do next.
    fn step(
        &mut self,
        incoming: &mut [u8],
        plain: &mut dyn FnMut(&[u8]),
        outgoing: &mut Vec<u8>,
    ) -> io::Result<(usize, Step)>;

    fn encrypt(&mut self, plain: &[u8], outgoing: &mut [u8]) -> io::Result<usize>;
}

macro_rules! session {
    ($type:ty) => {
        impl Session for $type {
            fn step(
                &mut self,
                incoming: &mut [u8],
                plain: &mut dyn FnMut(&[u8]),
                outgoing: &mut Vec<u8>,
            ) -> io::Result<(usize, Step)> {
                let status = self.process_tls_records(incoming);
                let step = match status.state.map_err(io::Error::other)? {
                    ConnectionState::ReadTraffic(mut traffic) => {
                        while let Some(record) = traffic.next_record() {
                            plain(record.map_err(io::Error::other)?.payload);
                        }
                        Step::Again
                    }
                    ConnectionState::EncodeTlsData(mut data) => {
                        let start = outgoing.len();
                        outgoing.resize(start + CHUNK, 0);
                        let end = data.encode(&mut outgoing[start..]);
                        outgoing.truncate(start + end.map_err(io::Error::other)?);
                        Step::Again
                    }
                    ConnectionState::TransmitTlsData(data) => {
                        data.done();
                        Step::Transmit
                    }
                    ConnectionState::BlockedHandshake => Step::NeedsData,
                    ConnectionState::WriteTraffic(_) => Step::Traffic,
                    _ => Step::Closed,
                };
                Ok((status.discard, step))
            }

            fn encrypt(&mut self, plain: &[u8], outgoing: &mut [u8]) -> io::Result<usize> {
                match self.process_tls_records(&mut []).state {
                    Ok(ConnectionState::WriteTraffic(mut traffic)) => {
                        traffic.encrypt(plain, outgoing).map_err(io::Error::other)
                    }
                    _ => Err(io::ErrorKind::NotConnected.into()),
                }
            }
        }
    };
}

session!(UnbufferedClientConnection);
session!(UnbufferedServerConnection);

struct Unbuffered<C> {
    tcp: TcpStream,
    session: C,
    incoming: Box<[u8]>,
    start: usize,
    end: usize,
    /// Plaintext that found no room in the reader's buffer.
    rest: Vec<u8>,
    rest_start: usize,
    outgoing: Box<[u8]>,
    sent: usize,
    filled: usize,
}

impl<C: Session> Unbuffered<C> {
    async fn shake(session: C, tcp: TcpStream) -> io::Result<Stream> {
        let mut this = Self {
            tcp,
            session,
            incoming: vec![0; INCOMING].into(),
            start: 0,
            end: 0,
            rest: Vec::new(),
            rest_start: 0,
            outgoing: vec![0; OUTGOING].into(),
            sent: 0,
            filled: 0,
        };
        let mut outgoing = Vec::new();
        loop {
            let incoming = &mut this.incoming[this.start..this.end];
            let rest = &mut this.rest;
            let mut plain = |bytes: &[u8]| rest.extend_from_slice(bytes);
            let (discard, step) = this.session.step(incoming, &mut plain, &mut outgoing)?;
            this.start += discard;
            match step {
                Step::Again => {}
                Step::Transmit => this.tcp.write_all(&std::mem::take(&mut outgoing)).await?,
                Step::NeedsData => {
                    let read = this.tcp.read(&mut this.incoming[this.end..]).await?;
                    if read == 0 {
                        return Err(io::ErrorKind::UnexpectedEof.into());
                    }
                    this.end += read;
                }
                Step::Traffic => return Ok(Box::new(this)),
                Step::Closed => return Err(io::ErrorKind::UnexpectedEof.into()),
            }
        }
    }

    fn poll_drain(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.sent < self.filled {
            let records = &self.outgoing[self.sent..self.filled];
            self.sent += ready!(Pin::new(&mut self.tcp).poll_write(cx, records))?;
        }
        (self.sent, self.filled) = (0, 0);
        Poll::Ready(Ok(()))
    }
}

impl<C: Session> AsyncRead for Unbuffered<C> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buf.remaining();
        loop {
            let rest = &this.rest[this.rest_start..];
            let take = rest.len().min(buf.remaining());
            buf.put_slice(&rest[..take]);
            this.rest_start += take;
            if buf.remaining() == 0 {
                return Poll::Ready(Ok(()));
            }
            this.rest.clear();
            this.rest_start = 0;
            let rest = &mut this.rest;
            let mut plain = |bytes: &[u8]| {
                let (now, later) = bytes.split_at(bytes.len().min(buf.remaining()));
                buf.put_slice(now);
                rest.extend_from_slice(later);
            };
            let incoming = &mut this.incoming[this.start..this.end];
            let mut none = Vec::new();
            let (discard, step) = this.session.step(incoming, &mut plain, &mut none)?;
            this.start += discard;
            match step {
                Step::Again => continue,
                Step::Closed => return Poll::Ready(Ok(())),
                _ => {}
            }
            this.incoming.copy_within(this.start..this.end, 0);
            (this.start, this.end) = (0, this.end - this.start);
            let mut room = ReadBuf::new(&mut this.incoming[this.end..]);
            match Pin::new(&mut this.tcp).poll_read(cx, &mut room)? {
                Poll::Ready(()) if room.filled().is_empty() => return Poll::Ready(Ok(())),
                Poll::Ready(()) => this.end += room.filled().len(),
                Poll::Pending if buf.remaining() < before => return Poll::Ready(Ok(())),
                Poll::Pending => return Poll::Pending,
            }
        }
    }
}

impl<C: Session> AsyncWrite for Unbuffered<C> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        ready!(this.poll_drain(cx))?;
        let taken = buf.len().min(CHUNK);
        this.filled = this.session.encrypt(&buf[..taken], &mut this.outgoing)?;
        if let Poll::Ready(Err(error)) = this.poll_drain(cx) {
            return Poll::Ready(Err(error));
        }
        Poll::Ready(Ok(taken))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let first = bufs.iter().find(|buf| !buf.is_empty());
        self.poll_write(cx, first.map_or(&[], |buf| buf))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().poll_drain(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().poll_drain(cx)
    }
}
