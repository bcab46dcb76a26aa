//! Reading, and when the memory for it and for writing is freed.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::BufMut as _;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_util::io::poll_read_buf;

use super::Frames;
use crate::limits::{SMALL_READ, SMALL_READS};

/// Read size while little arrives, where messages are smaller than [`SMALL_READ`]. The missing part
/// of a message is read at once even so.
pub(super) const TINY_READ: usize = 512;
/// What is read with [`Appetite::Little`]: pings, keystrokes and a Close fit.
pub(super) const LITTLE: usize = 256;

impl<S: AsyncRead + AsyncWrite + Unpin> Frames<S> {
    /// Reads into the decoder's buffer, which holds memory only while bytes arrive.
    pub(super) fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        self.is_moved_out = false;
        let missing = self.decoder.missing();
        let room = if self.read_size > SMALL_READ {
            let missing = self.decoder.is_in_frame().then_some(missing);
            self.buffers
                .make_room(self.decoder.buffer(), missing, self.read_size)
        } else {
            let room = if self.read_size <= TINY_READ && missing > 1 {
                missing
            } else {
                self.read_size.max(missing)
            };
            self.decoder.buffer().reserve(room);
            room
        };
        let mut room = self.decoder.buffer().limit(room);
        let read = poll_read_buf(Pin::new(&mut self.io), cx, &mut room);
        match &read {
            Poll::Ready(Ok(count)) if *count >= SMALL_READ => {
                self.read_size = self.most_read;
                self.small_reads = 0;
                self.note_bulk();
            }
            Poll::Ready(_) => {
                self.small_reads = self.small_reads.saturating_add(1);
                if self.small_reads >= SMALL_READS {
                    self.read_size = self.read_size.min(SMALL_READ);
                    self.buffers.shrink();
                }
            }
            Poll::Pending => {
                if self.read_size <= SMALL_READ {
                    self.decoder.shrink();
                }
            }
        }
        read
    }

    /// Reads until there are [`LITTLE`] bytes, without a large buffer.
    pub(super) fn poll_read_little(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let room = LITTLE.saturating_sub(self.decoder.buffer().len());
        if room == 0 {
            return Poll::Pending;
        }
        if !self.is_moved_out {
            self.decoder.move_out(LITTLE);
            self.is_moved_out = true;
        }
        let buffer = self.decoder.buffer();
        buffer.reserve(room);
        poll_read_buf(Pin::new(&mut self.io), cx, &mut buffer.limit(room))
    }

    /// Whether [`Appetite::Little`] reads nothing more.
    pub(crate) fn is_full(&mut self) -> bool {
        self.decoder.buffer().len() >= LITTLE
    }

    /// From now on large buffers are kept until [`rest`](Self::rest), which the owner calls from
    /// time to time while [`is_bulk`](Self::is_bulk).
    pub(crate) fn keep_buffers(&mut self) {
        self.is_tidied = true;
    }

    /// Reuses the memory of at most so many earlier messages.
    pub(crate) fn reuse_buffers(&mut self, most: usize) {
        self.buffers.keep(most);
    }

    /// Whether large buffers may be held.
    #[inline]
    pub(crate) fn is_bulk(&self) -> bool {
        self.is_bulk
    }

    /// Frees the buffers if little has been read and queued since the last call.
    pub(crate) fn rest(&mut self) {
        if !std::mem::take(&mut self.was_bulk) {
            self.shrink();
        }
    }

    #[inline]
    pub(super) fn note_bulk(&mut self) {
        if self.is_tidied {
            (self.is_bulk, self.was_bulk) = (true, true);
        }
    }

    /// Frees empty buffers while the connection is idle.
    pub(crate) fn shrink(&mut self) {
        self.read_size = self.read_size.min(SMALL_READ);
        self.is_bulk = false;
        self.buffers.shrink();
        self.decoder.shrink();
        self.outbox.shrink();
    }
}
