//! What a client of the proxy asks for, or why it does not.

use std::io;

use super::refusal::{Kind, Refusal};

/// In which protocol a client speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// SOCKS5.
    Socks5,
    /// HTTP CONNECT.
    Http,
}

/// The host and the port that a client asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// The name.
    pub host: String,
    /// A number or a name.
    pub port: String,
}

/// Why there is no request.
#[derive(Debug)]
pub enum Unasked {
    /// It is refused, and the client is to know.
    Refused(Protocol, Refusal),
    /// The client speaks neither protocol, or one that has already been answered.
    Foreign(String),
    /// The client is gone.
    Lost(io::Error),
}

impl From<io::Error> for Unasked {
    fn from(error: io::Error) -> Self {
        Self::Lost(error)
    }
}

/// A refusal in this protocol.
pub(super) fn refused(protocol: Protocol, kind: Kind, text: impl Into<String>) -> Unasked {
    Unasked::Refused(protocol, Refusal::new(kind, text))
}

#[cfg(test)]
pub(super) mod tests {
    use tokio::net::{TcpListener, TcpStream};

    /// A client's socket, and ours.
    pub(in super::super) async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap())
            .await
            .unwrap();
        (client, listener.accept().await.unwrap().0)
    }
}
