//! What a multiplexing engine has to offer to be measured.
//!
//! An engine turns one reliable byte stream (the carrier) into many. The client end opens streams, the server end
//! accepts them; a stream is [`AsyncRead`] + [`AsyncWrite`] and can be reset. An engine spawns whatever tasks it
//! needs on the current runtime; they end with the carrier or with the runtime.
//!
//! To add an engine: one file in `engines/`, one line in `engines::for_each`.

use std::io;

use tokio::io::{AsyncRead, AsyncWrite};

/// A byte stream both ways: what an engine is given.
pub trait Carrier: AsyncRead + AsyncWrite + Unpin + Send + 'static {}

impl<T: AsyncRead + AsyncWrite + Unpin + Send + 'static> Carrier for T {}

/// One engine with one configuration. Cheap to copy: it holds settings only.
pub trait Engine: Copy + Send + Sync + 'static {
    /// The end that opens streams.
    type Opener: Opener;
    /// The end that accepts them.
    type Acceptor: Acceptor;

    /// How the row is called, such as `yamux, tuned`.
    fn name(self) -> &'static str;

    /// Whether more than one stream at a time is possible. Where not, measurements that need two are left out.
    fn multiplexes(self) -> bool {
        true
    }

    /// The same engine with any limit that forbids `streams` at a time raised, and nothing else changed.
    fn for_streams(self, streams: usize) -> Self;

    /// Starts the opening end on `carrier`; returns when streams can be opened.
    fn client<C: Carrier>(
        self,
        carrier: C,
    ) -> impl Future<Output = io::Result<Self::Opener>> + Send;

    /// Starts the accepting end on `carrier`; returns when streams can be accepted.
    fn server<C: Carrier>(
        self,
        carrier: C,
    ) -> impl Future<Output = io::Result<Self::Acceptor>> + Send;
}

/// The end that opens streams.
pub trait Opener: Send + 'static {
    type Stream: MuxStream;

    /// Opens a stream. The other end need not learn of it before the first write.
    fn open(&mut self) -> impl Future<Output = io::Result<Self::Stream>> + Send;
}

/// The end that accepts streams.
pub trait Acceptor: Send + 'static {
    type Stream: MuxStream;

    /// The next stream, in the order of opening; `None` once the carrier has ended.
    fn accept(&mut self) -> impl Future<Output = io::Result<Option<Self::Stream>>> + Send;
}

/// One stream. `shutdown` ends the writing direction only; the reader at the other end then reads its end.
pub trait MuxStream: AsyncRead + AsyncWrite + Unpin + Send + 'static {
    /// Ends both directions at once, without order: what a TCP reset is to be turned into. An engine that has no
    /// such thing drops the stream.
    fn reset(self);
}
