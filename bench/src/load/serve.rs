//! The daemon at the far end of a chain: does on each connection what its header requests.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};

use super::pattern::{PIECE, Pattern};
use super::protocol::{self, Header, Work};
use super::{LoadError, broken};

/// A connection that is silent for this long is closed.
const SILENCE: Duration = Duration::from_secs(3600);
/// How long the client's end is awaited after the last byte.
const END: Duration = Duration::from_secs(60);

/// Serves connections until `stop` ends. Errors are printed on standard error.
pub async fn run(listener: TcpListener, stop: impl Future<Output = ()>) {
    let pattern = Arc::new(Pattern::default());
    let accept = async {
        loop {
            match listener.accept().await {
                Ok((socket, _)) => {
                    let pattern = Arc::clone(&pattern);
                    tokio::spawn(async move {
                        if let Err(error) = serve(socket, &pattern).await {
                            eprintln!("stream-load serve: {error}");
                        }
                    });
                }
                Err(error) => {
                    eprintln!("stream-load serve: cannot accept: {error}");
                    sleep(Duration::from_millis(100)).await;
                }
            }
        }
    };
    tokio::select! {
        () = accept => {}
        () = stop => {}
    }
}

async fn serve(mut socket: TcpStream, pattern: &Pattern) -> Result<(), LoadError> {
    socket.set_nodelay(true).map_err(broken("it was set up"))?;
    let mut first = [0];
    // Some programs connect to a target to check it, and send nothing.
    if !matches!(timeout(SILENCE, socket.peek(&mut first)).await, Ok(Ok(1..))) {
        return Ok(());
    }
    let header = Header::read(&mut socket).await?;
    match header.work {
        Work::Echo => echo(&mut socket, header.length).await?,
        Work::Sink => sink(&mut socket, pattern, header).await?,
        Work::Source => source(&mut socket, pattern, header).await?,
    }
    // The client knows the length too, and ends the connection.
    let _ = timeout(END, socket.read(&mut first)).await;
    Ok(())
}

/// The next bytes, at most as many as are still expected.
async fn read(
    socket: &mut TcpStream,
    buffer: &mut [u8],
    left: u64,
    doing: &'static str,
) -> Result<usize, LoadError> {
    let most = usize::try_from(left).map_or(buffer.len(), |left| left.min(buffer.len()));
    let room = buffer.get_mut(..most).unwrap_or_default();
    match timeout(SILENCE, socket.read(room)).await {
        Ok(Ok(0)) => Err(broken(doing)(std::io::ErrorKind::UnexpectedEof.into())),
        Ok(result) => result.map_err(broken(doing)),
        Err(_) => Err(LoadError::Late {
            doing,
            limit: SILENCE,
        }),
    }
}

async fn echo(socket: &mut TcpStream, length: u64) -> Result<(), LoadError> {
    const DOING: &str = "echoing";
    // Small, since there are many idle connections.
    let mut buffer = vec![0; 4 << 10];
    let mut left = length;
    while left > 0 {
        let count = read(socket, &mut buffer, left, DOING).await?;
        let bytes = buffer.get(..count).unwrap_or_default();
        socket.write_all(bytes).await.map_err(broken(DOING))?;
        left -= count as u64;
    }
    Ok(())
}

async fn sink(socket: &mut TcpStream, pattern: &Pattern, header: Header) -> Result<(), LoadError> {
    const DOING: &str = "an upload was received";
    socket
        .write_all(&[protocol::READY])
        .await
        .map_err(broken(DOING))?;
    let mut buffer = vec![0; PIECE];
    let mut done = 0;
    while done < header.length {
        let count = read(socket, &mut buffer, header.length - done, DOING).await?;
        let bytes = buffer.get(..count).unwrap_or_default();
        if let Err(error) = pattern.check(header.phase, done, bytes) {
            if let LoadError::Wrong { at } = error {
                protocol::send_verdict(socket, Err(at)).await?;
            }
            return Err(error);
        }
        done += count as u64;
    }
    protocol::send_verdict(socket, Ok(done)).await
}

async fn source(
    socket: &mut TcpStream,
    pattern: &Pattern,
    header: Header,
) -> Result<(), LoadError> {
    let lost = broken("a download was sent");
    socket.write_all(&[protocol::READY]).await.map_err(&lost)?;
    if socket.read_u8().await.map_err(&lost)? != protocol::GO {
        return Err(LoadError::Stranger);
    }
    let mut done = 0;
    while done < header.length {
        let piece = pattern.at(header.phase, done, header.length - done);
        done += socket.write(piece).await.map_err(&lost)? as u64;
    }
    Ok(())
}
