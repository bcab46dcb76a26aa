//! The read buffer of the local socket: none while nothing arrives, small while little does, as large
//! as a message under load.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{BufMut as _, Bytes, BytesMut};
use device_stream_session::ConnectionSocket;
use device_stream_websocket::limits::{SMALL_READ, SMALL_READS};
use tokio_util::io::poll_read_buf;

use crate::limits;

/// See the [module](self).
pub(super) struct ReadBuffer {
    buffer: BytesMut,
    size: usize,
    small_reads: u8,
}

impl Default for ReadBuffer {
    fn default() -> Self {
        Self {
            buffer: BytesMut::new(),
            size: SMALL_READ,
            small_reads: 0,
        }
    }
}

impl ReadBuffer {
    /// Reads at most one message; empty at the end of input. The memory is reused once the bytes
    /// have been dropped.
    pub(super) fn poll<R: ConnectionSocket>(
        &mut self,
        reader: &mut R,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<Bytes>> {
        let read = self.poll_read(reader, cx);
        if read.is_pending() && self.size == SMALL_READ {
            self.buffer = BytesMut::new();
        }
        let count = ready!(read)?;
        if count == 0 {
            *self = Self::default();
            return Poll::Ready(Ok(Bytes::new()));
        }
        if count == self.size {
            self.size = limits::STREAM_MESSAGE;
            self.small_reads = 0;
        } else if count < SMALL_READ && self.size > SMALL_READ {
            self.small_reads += 1;
            if self.small_reads == SMALL_READS {
                let bytes = Bytes::copy_from_slice(&self.buffer);
                *self = Self::default();
                return Poll::Ready(Ok(bytes));
            }
        } else {
            self.small_reads = 0;
        }
        Poll::Ready(Ok(self.buffer.split().freeze()))
    }

    fn poll_read<R: ConnectionSocket>(
        &mut self,
        reader: &mut R,
        cx: &mut Context<'_>,
    ) -> Poll<io::Result<usize>> {
        // Memory is allocated only when there is something to read.
        ready!(reader.poll_readable(cx))?;
        self.buffer.reserve(self.size);
        let mut room = (&mut self.buffer).limit(self.size);
        poll_read_buf(Pin::new(reader), cx, &mut room)
    }
}
