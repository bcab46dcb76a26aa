//! Where lines go, and what is not there yet.

use std::io::{self, Write};

use crate::events::audit::file::LogFile;

/// Room that is kept for what is written next.
const KEPT_ROOM: usize = 256 << 10;

/// A file that has what was written on its disk once it is synced.
pub trait Disk: Write {
    /// Has what was written on the disk. Blocks.
    ///
    /// # Errors
    /// The system's; then nobody knows what of it is there.
    fn sync(&self) -> io::Result<()>;

    /// Takes so many bytes off the end. Blocks.
    ///
    /// # Errors
    /// The system's; all of them are still there.
    fn cut(&mut self, bytes: usize) -> io::Result<()>;
}

/// Writes as much as can be written now; how much that was.
fn write_all(to: &mut impl Write, bytes: &[u8]) -> (usize, io::Result<()>) {
    let mut at = 0;
    loop {
        let rest = bytes.get(at..).unwrap_or_default();
        if rest.is_empty() {
            return (at, to.flush());
        }
        match to.write(rest) {
            Ok(0) => return (at, Err(io::ErrorKind::WriteZero.into())),
            Ok(written) => at += written,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return (at, Err(error)),
        }
    }
}

/// Standard output, and what it has not taken yet.
pub struct StdoutSink {
    to: io::Stdout,
    waiting: Vec<u8>,
}

impl StdoutSink {
    /// Nothing waits for it.
    pub fn new() -> Self {
        Self {
            to: io::stdout(),
            waiting: Vec::new(),
        }
    }

    /// This is to be written.
    pub fn queue(&mut self, line: &[u8]) {
        self.waiting.extend_from_slice(line);
    }

    /// Writes what waits. Blocks.
    ///
    /// # Errors
    /// The system's; what was not written still waits.
    pub fn write(&mut self) -> io::Result<()> {
        let (written, result) = write_all(&mut self.to, &self.waiting);
        self.waiting.drain(..written);
        result
    }
}

/// A file, and what is not on its disk yet.
pub struct FileSink<D = LogFile> {
    to: D,
    waiting: Vec<u8>,
    /// Written, and not known to be on the disk. A system that could not put it there has let go of
    /// it, and the next sync says that all is well: it has to be written anew.
    unsynced: Vec<u8>,
    /// It stands in the file, and has to go before that.
    is_doubtful: bool,
}

impl<D: Disk> FileSink<D> {
    /// All that is in this file is on the disk.
    pub fn new(to: D) -> Self {
        Self {
            to,
            waiting: Vec::new(),
            unsynced: Vec::new(),
            is_doubtful: false,
        }
    }

    /// The file.
    pub fn file(&self) -> &D {
        &self.to
    }

    /// The same, to note something about it.
    pub fn file_mut(&mut self) -> &mut D {
        &mut self.to
    }

    /// Gives the file back. Whoever calls this has written and synced all before.
    pub fn into_file(self) -> D {
        self.to
    }

    /// This is to be written.
    pub fn queue(&mut self, line: &[u8]) {
        self.waiting.extend_from_slice(line);
    }

    /// Writes what waits. Blocks.
    ///
    /// # Errors
    /// The system's; what was not written still waits.
    pub fn write(&mut self) -> io::Result<()> {
        if self.is_doubtful {
            self.to.cut(self.unsynced.len())?;
            self.is_doubtful = false;
            self.unsynced.append(&mut self.waiting);
            std::mem::swap(&mut self.unsynced, &mut self.waiting);
        }
        let (written, result) = write_all(&mut self.to, &self.waiting);
        self.unsynced.extend(self.waiting.drain(..written));
        result
    }

    /// Has on the disk what was written. Blocks.
    ///
    /// # Errors
    /// The system's; what was written since the last time waits again.
    pub fn sync(&mut self) -> io::Result<()> {
        if self.is_doubtful {
            return Err(io::Error::other("what may be lost is not written anew yet"));
        }
        let synced = self.to.sync();
        match &synced {
            Ok(()) => {
                self.unsynced.clear();
                self.unsynced.shrink_to(KEPT_ROOM);
            }
            Err(_) => self.is_doubtful = true,
        }
        synced
    }

    /// How many bytes were written and are not known to be on the disk.
    pub fn unsynced(&self) -> usize {
        self.unsynced.len()
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use super::*;

    /// A disk that loses what it fails to sync, as Linux does.
    #[derive(Default)]
    struct Lossy {
        synced: RefCell<Vec<u8>>,
        cached: RefCell<Vec<u8>>,
        fails: RefCell<u32>,
        cuts_fail: u32,
    }

    impl Write for Lossy {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let some = bytes.get(..3).unwrap_or(bytes);
            self.cached.get_mut().extend_from_slice(some);
            Ok(some.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl Disk for Lossy {
        fn sync(&self) -> io::Result<()> {
            let mut cached = self.cached.borrow_mut();
            let mut fails = self.fails.borrow_mut();
            if *fails > 0 {
                *fails -= 1;
                // The pages are clean from now on, and their blocks hold something else.
                cached.fill(0);
                self.synced.borrow_mut().append(&mut cached);
                return Err(io::ErrorKind::Other.into());
            }
            self.synced.borrow_mut().append(&mut cached);
            Ok(())
        }

        fn cut(&mut self, bytes: usize) -> io::Result<()> {
            if self.cuts_fail > 0 {
                self.cuts_fail -= 1;
                return Err(io::ErrorKind::Other.into());
            }
            let synced = self.synced.get_mut();
            let len = synced.len() - bytes;
            synced.truncate(len);
            Ok(())
        }
    }

    #[test]
    fn what_a_failed_sync_may_have_lost_is_written_anew() {
        let mut sink = FileSink::new(Lossy::default());
        sink.queue(b"first\n");
        sink.write().unwrap();
        sink.sync().unwrap();
        sink.queue(b"second\n");
        sink.write().unwrap();
        *sink.file().fails.borrow_mut() = 2;
        assert_eq!(sink.unsynced(), 7);
        sink.file_mut().cuts_fail = 1;
        sink.sync().unwrap_err();
        // Linux would say now that all is well.
        sink.sync().unwrap_err();
        // While it cannot be taken off, nothing is written behind it.
        sink.queue(b"third\n");
        sink.write().unwrap_err();
        sink.write().unwrap();
        sink.sync().unwrap_err();
        sink.write().unwrap();
        sink.sync().unwrap();
        assert_eq!(*sink.file().synced.borrow(), b"first\nsecond\nthird\n");
    }
}
