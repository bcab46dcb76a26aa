//! The beginning of a connection, and the daemon's answers.
//!
//! The client sends a header: what to do, for how many bytes, and the phase of the pattern. The
//! daemon echoes at once. For bulk it first sends [`READY`], which means that the whole path works,
//! and after the last byte of an upload it sends a verdict. So no half-close is needed.

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

use super::{LoadError, broken};

/// Bytes of a header.
pub const HEADER: usize = 13;
/// Bytes of a verdict.
pub const VERDICT: usize = 9;
/// The daemon waits for the bytes, or for [`GO`].
pub const READY: u8 = b'R';
/// The client is ready for the bytes of a download.
pub const GO: u8 = b'G';

/// What the daemon does on a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// Send received bytes back.
    Echo,
    /// Check received bytes.
    Sink,
    /// Send the pattern.
    Source,
}

/// The first bytes of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// What to do.
    pub work: Work,
    /// For how many bytes.
    pub length: u64,
    /// Their start in the pattern.
    pub phase: u32,
}

impl Header {
    /// Its encoding.
    pub fn to_bytes(self) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        let work = match self.work {
            Work::Echo => b'E',
            Work::Sink => b'U',
            Work::Source => b'D',
        };
        let fields = std::iter::once(work)
            .chain(self.length.to_le_bytes())
            .chain(self.phase.to_le_bytes());
        for (place, byte) in bytes.iter_mut().zip(fields) {
            *place = byte;
        }
        bytes
    }

    /// Reads it.
    ///
    /// # Errors
    /// The error of the connection, or [`LoadError::Stranger`].
    pub async fn read(stream: &mut (impl AsyncRead + Unpin)) -> Result<Self, LoadError> {
        let lost = broken("its header was read");
        let work = match stream.read_u8().await.map_err(&lost)? {
            b'E' => Work::Echo,
            b'U' => Work::Sink,
            b'D' => Work::Source,
            _ => return Err(LoadError::Stranger),
        };
        let length = stream.read_u64_le().await.map_err(&lost)?;
        let phase = stream.read_u32_le().await.map_err(&lost)?;
        Ok(Self {
            work,
            length,
            phase,
        })
    }
}

/// Sends the verdict: whether an upload arrived, or how much of it was correct.
///
/// # Errors
/// The error of the connection.
pub async fn send_verdict(
    stream: &mut (impl AsyncWrite + Unpin),
    right: Result<u64, u64>,
) -> Result<(), LoadError> {
    let (word, count) = match right {
        Ok(count) => (b'K', count),
        Err(count) => (b'X', count),
    };
    let mut bytes = [word; VERDICT];
    for (place, byte) in bytes.iter_mut().skip(1).zip(count.to_le_bytes()) {
        *place = byte;
    }
    let lost = broken("a verdict was sent");
    stream.write_all(&bytes).await.map_err(lost)
}

/// Waits for the verdict on an upload of this length.
///
/// # Errors
/// The error of the connection; [`LoadError::Wrong`] when the daemon received other bytes.
pub async fn read_verdict(
    stream: &mut (impl AsyncRead + Unpin),
    length: u64,
) -> Result<(), LoadError> {
    let lost = broken("the daemon's verdict was awaited");
    let word = stream.read_u8().await.map_err(&lost)?;
    let count = stream.read_u64_le().await.map_err(&lost)?;
    match word {
        b'K' if count == length => Ok(()),
        b'K' | b'X' => Err(LoadError::Wrong { at: count }),
        _ => Err(LoadError::Stranger),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_header_is_read_as_it_was_sent() {
        for work in [Work::Echo, Work::Sink, Work::Source] {
            let header = Header {
                work,
                length: 1 << 40,
                phase: 77,
            };
            let read = Header::read(&mut header.to_bytes().as_slice()).await;
            assert_eq!(read.unwrap(), header);
        }
        let other = Header::read(&mut b"SSH-2.0-OpenSSH".as_slice()).await;
        assert!(matches!(other, Err(LoadError::Stranger)));
    }

    #[tokio::test]
    async fn a_verdict_has_the_position_of_the_error() {
        let mut sent = Vec::new();
        send_verdict(&mut sent, Ok(5)).await.unwrap();
        assert!(read_verdict(&mut sent.as_slice(), 5).await.is_ok());
        assert!(read_verdict(&mut sent.as_slice(), 6).await.is_err());
        sent.clear();
        send_verdict(&mut sent, Err(3)).await.unwrap();
        let verdict = read_verdict(&mut sent.as_slice(), 5).await;
        assert!(matches!(verdict, Err(LoadError::Wrong { at: 3 })));
    }
}
