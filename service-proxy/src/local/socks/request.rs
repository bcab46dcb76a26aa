//! What a client of the proxy asks for. Its first byte says in which protocol: SOCKS5 begins with 5,
//! an HTTP request with a letter.
//!
//! Nothing behind the request is read: what a client sends early stays in the socket.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::asked::{Asked, Protocol, Unasked};
use super::refusal::Refusal;
use super::{http, socks5};

/// A client's socket.
pub trait Client: AsyncRead + AsyncWrite + Unpin {
    /// Copies what can be read next, and leaves it there; nothing at its end. May be dropped.
    fn peek(&self, buffer: &mut [u8]) -> impl Future<Output = io::Result<usize>> + Send;
}

impl Client for TcpStream {
    fn peek(&self, buffer: &mut [u8]) -> impl Future<Output = io::Result<usize>> + Send {
        Self::peek(self, buffer)
    }
}

/// Reads a request; takes as long as the client. Dropping the future loses what was read.
///
/// # Errors
/// [`Unasked`].
pub async fn read<S: Client>(socket: &mut S) -> Result<(Protocol, Asked), Unasked> {
    let mut first = [0];
    if socket.peek(&mut first).await? == 0 {
        return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
    }
    match first {
        [5] => Ok((Protocol::Socks5, socks5::read(socket).await?)),
        [4] => {
            // "Request rejected or failed", and no address.
            let _ = socket.write_all(&[0, 0x5b, 0, 0, 0, 0, 0, 0]).await;
            Err(Unasked::Foreign(
                "it speaks SOCKS4, which has no host names; use socks5h".to_owned(),
            ))
        }
        [byte] if byte.is_ascii_alphabetic() => {
            let asked = http::read(socket).await?;
            Ok((Protocol::Http, asked))
        }
        [byte] => Err(Unasked::Foreign(format!(
            "it speaks neither SOCKS5 nor HTTP: its first byte is 0x{byte:02x}{}",
            if byte == 0x16 { " (TLS)" } else { "" }
        ))),
    }
}

/// Tells the client that its tunnel is open.
///
/// # Errors
/// The socket's.
pub async fn accept<S: AsyncWrite + Unpin>(socket: &mut S, protocol: Protocol) -> io::Result<()> {
    match protocol {
        Protocol::Socks5 => socket.write_all(&socks5::SUCCESS).await,
        Protocol::Http => socket.write_all(http::SUCCESS).await,
    }
}

/// Tells the client why it gets no tunnel, and ends the connection in order: a reset could overtake
/// the answer.
///
/// # Errors
/// The socket's.
pub async fn refuse<S: AsyncRead + AsyncWrite + Unpin>(
    socket: &mut S,
    protocol: Protocol,
    refusal: &Refusal,
) -> io::Result<()> {
    match protocol {
        Protocol::Socks5 => socket.write_all(&socks5::refusal(refusal.kind)).await?,
        Protocol::Http => socket.write_all(&http::refusal(refusal)).await?,
    }
    socket.shutdown().await?;
    let mut scrap = [0; 1024];
    // What a client may have sent early, up to its end.
    for _ in 0..64 {
        if socket.read(&mut scrap).await? == 0 {
            break;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::asked::tests::pair;
    use super::super::refusal::Kind;
    use super::*;

    async fn first(bytes: &[u8]) -> Unasked {
        let (mut client, mut socket) = pair().await;
        client.write_all(bytes).await.unwrap();
        client.shutdown().await.unwrap();
        read(&mut socket).await.unwrap_err()
    }

    #[tokio::test]
    async fn other_protocols_are_recognised() {
        for (bytes, said) in [
            (&[4, 1, 0, 22, 127, 0, 0, 1, 0][..], "SOCKS4"),
            (&[0x16, 3, 1], "TLS"),
            (&[0], "first byte is 0x00"),
        ] {
            let unasked = first(bytes).await;
            let Unasked::Foreign(text) = &unasked else {
                panic!("{unasked:?}")
            };
            assert!(text.contains(said), "{text}");
        }
        assert!(matches!(first(&[]).await, Unasked::Lost(_)));
    }

    #[tokio::test]
    async fn a_refusal_arrives_although_the_client_has_sent_more() {
        let (mut client, mut socket) = pair().await;
        client.write_all(&[b'x'; 10_000]).await.unwrap();
        let refusal = Refusal::new(Kind::NotAllowed, "no");
        let refusing = refuse(&mut socket, Protocol::Socks5, &refusal);
        let reading = async {
            let mut answer = Vec::new();
            client.read_to_end(&mut answer).await.unwrap();
            drop(client);
            answer
        };
        let (refused, answer) = tokio::join!(refusing, reading);
        refused.unwrap();
        assert_eq!(answer.get(..2), Some(&[5, 2][..]));
    }
}
