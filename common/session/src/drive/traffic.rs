//! Byte counts that can be read while they grow.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Running byte counts of a tunnel or a connection, readable while it runs.
#[derive(Debug, Default)]
pub struct Traffic {
    sent: AtomicU64,
    received: AtomicU64,
}

impl Traffic {
    /// Counts bytes from the local socket.
    #[inline]
    pub fn add_sent(&self, bytes: usize) {
        self.sent.fetch_add(bytes as u64, Relaxed);
    }

    /// Counts bytes to the local socket.
    #[inline]
    pub fn add_received(&self, bytes: usize) {
        self.received.fetch_add(bytes as u64, Relaxed);
    }

    /// Bytes from the local socket into the stream so far.
    #[inline]
    pub fn sent(&self) -> u64 {
        self.sent.load(Relaxed)
    }

    /// Bytes from the stream to the local socket so far.
    #[inline]
    pub fn received(&self) -> u64 {
        self.received.load(Relaxed)
    }
}
