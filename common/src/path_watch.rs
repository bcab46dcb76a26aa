//! Notices that a host can be reached again. While a session waits for its path, the wait
//! between whole attempts may be long and an attempt that is under way may hang in TCP's
//! retransmissions; a bare connect, made often, is cheap, and tells at once.

use std::net::SocketAddr;

use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Duration, Instant, sleep, timeout};

/// How long one connect may take: a path that needs longer is not back.
const PATIENCE: Duration = Duration::from_secs(1);
/// Connects that may be under way at once.
const AT_ONCE: usize = 24;
/// How much longer the pauses are while the path works.
const WORKING: u32 = 5;
/// So many looks in a row that found nothing: one may be a lost packet, or an answer that
/// came a moment too late.
const MISSES: u32 = 3;

/// The time between two looks at a path that was lost so long ago: short while somebody
/// is likely to be waiting in front of it.
fn interval(lost_for: Duration) -> Duration {
    match lost_for.as_secs() {
        0..120 => Duration::from_millis(50),
        120..900 => Duration::from_millis(250),
        _ => Duration::from_secs(1),
    }
}

/// Ends when `host:port` accepts a connection after it did not: never, while it always
/// does. The path was lost at `lost`. Cancel-safe.
pub async fn path_is_back(host: &str, port: u16, lost: Instant) {
    watch(host, port, lost, |_| ()).await;
}

/// The same; `seen` hears of each look.
async fn watch(host: &str, port: u16, lost: Instant, mut seen: impl FnMut(&Look)) {
    let mut looks: JoinSet<Look> = JoinSet::new();
    let mut addresses: Vec<SocketAddr> = Vec::new();
    let mut is_asking = false;
    let mut misses = 0;
    loop {
        if addresses.is_empty() && !is_asking {
            // One lookup at a time: where the path is lost, so may be the resolver.
            is_asking = true;
            let host = host.to_owned();
            looks.spawn(async move {
                let found = tokio::net::lookup_host((host.as_str(), port)).await;
                Look::Resolved(found.map(Iterator::collect).unwrap_or_default())
            });
        } else if addresses.is_empty() {
            misses += 1;
        } else if looks.len() < AT_ONCE {
            let addresses = addresses.clone();
            looks.spawn(async move {
                let connect = TcpStream::connect(addresses.as_slice());
                match timeout(PATIENCE, connect).await {
                    Ok(Ok(_)) => Look::Open,
                    Ok(Err(_)) => Look::Closed,
                    Err(_) => Look::Nothing,
                }
            });
        }
        // A path that works is looked at less often.
        let pause = interval(lost.elapsed()) * if misses == 0 { WORKING } else { 1 };
        let pausing = sleep(pause);
        tokio::pin!(pausing);
        loop {
            tokio::select! {
                Some(look) = looks.join_next() => {
                    let look = look.unwrap_or(Look::Nothing);
                    seen(&look);
                    match look {
                        Look::Open if misses >= MISSES => return,
                        Look::Open => misses = 0,
                        // Somebody said so: that is no lost packet.
                        Look::Closed => misses = misses.max(MISSES),
                        Look::Nothing => misses += 1,
                        Look::Resolved(found) => {
                            is_asking = false;
                            addresses = found;
                            if !addresses.is_empty() {
                                break;
                            }
                        }
                    }
                }
                () = &mut pausing => break,
            }
        }
    }
}

/// What one look has found.
enum Look {
    /// The host's addresses; none, if nobody knows them.
    Resolved(Vec<SocketAddr>),
    /// It accepts a connection.
    Open,
    /// It, or something before it, refuses.
    Closed,
    /// Nobody answers.
    Nothing,
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;
    use tokio::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn a_port_that_opens_is_noticed() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (tell, mut looks) = mpsc::unbounded_channel();
        let watching = tokio::spawn(async move {
            watch("127.0.0.1", address.port(), Instant::now(), |look| {
                let _ = tell.send(std::mem::discriminant(look));
            })
            .await;
        });
        let mut until = async |wanted: Look| {
            let wanted = std::mem::discriminant(&wanted);
            let seeing = async { while looks.recv().await.unwrap() != wanted {} };
            timeout(Duration::from_secs(10), seeing).await.unwrap();
        };
        // A path that works is no news.
        until(Look::Open).await;
        until(Look::Open).await;
        assert!(!watching.is_finished());
        drop(listener);
        until(Look::Closed).await;
        let _listener = TcpListener::bind(address).await.unwrap();
        timeout(Duration::from_secs(10), watching)
            .await
            .unwrap()
            .unwrap();
    }
}
