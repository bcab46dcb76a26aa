//! A client of an echo target.

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
