//! Sealed bytes on their way to the socket.

/// Bytes that were sealed, and those of them that were not written.
#[derive(Debug)]
pub(super) struct Outgoing {
    /// As long as it ever was: to lengthen it again would clear it again.
    bytes: Vec<u8>,
    from: usize,
    to: usize,
}

impl Outgoing {
    pub(super) const fn new() -> Self {
        Self {
            bytes: Vec::new(),
            from: 0,
            to: 0,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.from == self.to
    }

    #[cfg(test)]
    pub(super) fn capacity(&self) -> usize {
        self.bytes.capacity()
    }

    /// What was not written.
    pub(super) fn unwritten(&self) -> &[u8] {
        self.bytes.get(self.from..self.to).unwrap_or_default()
    }

    /// So much was written.
    pub(super) fn written(&mut self, count: usize) {
        self.from = self.to.min(self.from + count);
    }

    /// Empties it. The memory stays.
    pub(super) fn clear(&mut self) {
        (self.from, self.to) = (0, 0);
    }

    /// Moves what was not written to another place, which takes no more memory than that.
    pub(super) fn split_rest(&mut self) -> Self {
        let rest = self.unwritten().to_vec();
        self.clear();
        Self {
            from: 0,
            to: rest.len(),
            bytes: rest,
        }
    }

    /// Adds what `write` writes into room for at least so many bytes.
    ///
    /// # Errors
    /// That of `write`.
    pub(super) fn add<X>(
        &mut self,
        room: usize,
        write: impl FnOnce(&mut [u8]) -> Result<usize, X>,
    ) -> Result<(), X> {
        if self.bytes.len() < self.to + room {
            self.bytes.resize(self.to + room, 0);
        }
        let count = write(self.bytes.get_mut(self.to..).unwrap_or_default())?;
        self.to = self.bytes.len().min(self.to + count);
        Ok(())
    }
}

impl Default for Outgoing {
    fn default() -> Self {
        Self::new()
    }
}
