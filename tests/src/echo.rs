//! A client of an echo target.

use std::io::ErrorKind;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::soon;

/// Connects to a port on this machine.
///
/// # Panics
/// When nothing listens there.
pub async fn connect(port: u16) -> TcpStream {
    TcpStream::connect(("127.0.0.1", port)).await.unwrap()
}

/// Whether a byte comes back over a new connection; false: the connection ends, perhaps as soon as it is
/// there.
///
/// # Panics
/// When nothing listens there, and when neither happens in time.
pub async fn echoes(port: u16) -> bool {
    match TcpStream::connect(("127.0.0.1", port)).await {
        Ok(mut socket) => is_echoed(&mut socket).await,
        // A system may say so at once.
        Err(error) if error.kind() == ErrorKind::ConnectionReset => false,
        Err(error) => panic!("{error}"),
    }
}

/// Whether a byte comes back; false: the connection ends.
///
/// # Panics
/// When neither happens in time.
pub async fn is_echoed(socket: &mut TcpStream) -> bool {
    let mut byte = [0];
    let echo = async {
        socket.write_all(b"x").await?;
        socket.read_exact(&mut byte).await
    };
    soon("an echo or an end", echo).await.is_ok()
}
