//! What can fail here, as a whole; the details stand where they arise.

use crate::connect::ConnectError;
use crate::echo::EchoFailure;
use crate::listener::ListenError;
use crate::stream::{SetupError, StreamError};

/// Why the program did not do what it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The ports could not be opened.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// The transfer over stdin and stdout is not complete.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// Streams cannot be opened at all.
    #[error(transparent)]
    Setup(#[from] SetupError),
    /// The stream of an echo test could not be opened.
    #[error(transparent)]
    Stream(#[from] StreamError),
    /// Nothing reads standard output any more.
    #[error("nothing reads standard output any more")]
    OutputGone,
    /// Not every byte came back right.
    #[error("the echo test failed")]
    Echo(#[source] EchoFailure),
}

impl Error {
    /// The exit code of a program that has nothing to say to a person, since none is there: that
    /// of one which the signal would have ended.
    pub fn silent_exit_code(&self) -> Option<u8> {
        match self {
            Self::Connect(ConnectError::HungUp) => Some(128 + 1),
            Self::Connect(ConnectError::OutputGone) | Self::OutputGone => Some(128 + 13),
            _ => None,
        }
    }
}
