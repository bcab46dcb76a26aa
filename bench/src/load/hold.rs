//! Idle connections, which are held while their memory is measured, and checked at the end.

use std::future::Future;
use std::net::SocketAddr;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::echo::first_echo;
use super::{LoadError, broken};

/// Connections that are opened at the same time.
const TOGETHER: usize = 32;

/// Opens the connections, calls `ready`, and holds them until `stop` ends.
///
/// # Errors
/// [`LoadError`] of the first that cannot be opened, or is not alive at the end.
pub async fn run(
    to: SocketAddr,
    connections: usize,
    ready: impl FnOnce(),
    stop: impl Future<Output = ()>,
) -> Result<Value, LoadError> {
    let mut tasks = JoinSet::new();
    let mut held = Vec::with_capacity(connections);
    for number in 0..connections {
        if number >= TOGETHER {
            held.push(next(&mut tasks).await?);
        }
        tasks.spawn(first_echo(to, 2));
    }
    while !tasks.is_empty() {
        held.push(next(&mut tasks).await?);
    }
    ready();
    stop.await;
    let mut alive = 0;
    for socket in held {
        last_echo(socket).await?;
        alive += 1;
    }
    Ok(json!({ "connections": connections, "alive": alive }))
}

async fn next(tasks: &mut JoinSet<Result<TcpStream, LoadError>>) -> Result<TcpStream, LoadError> {
    match tasks.join_next().await {
        Some(Ok(result)) => result,
        _ => Err(LoadError::Lost),
    }
}

/// Echoes the second and last byte of a connection.
async fn last_echo(mut socket: TcpStream) -> Result<(), LoadError> {
    let lost = broken("it was held");
    socket.write_all(&[0xa5]).await.map_err(&lost)?;
    match socket.read_u8().await.map_err(&lost)? {
        0xa5 => Ok(()),
        _ => Err(LoadError::Wrong { at: 1 }),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use tokio::net::TcpListener;

    use super::super::serve;
    use super::*;

    #[tokio::test]
    async fn all_are_held_and_alive() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let to = listener.local_addr().unwrap();
        tokio::spawn(serve::run(listener, std::future::pending()));
        let mut is_ready = false;
        let result = run(to, 100, || is_ready = true, async {}).await.unwrap();
        assert_eq!(result["alive"], 100);
        assert!(is_ready);
    }
}
