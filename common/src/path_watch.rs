//! Notices that a host can be reached again. While a session waits for its path, the wait
//! between whole attempts may be long and an attempt that is under way may hang in TCP's
//! retransmissions; a bare connect, made often, is cheap, and tells at once.

use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Duration, Instant, sleep, timeout};

/// How long one connect may take: a path that needs longer is not back.
const PATIENCE: Duration = Duration::from_secs(1);
/// Connects that may be under way at once.
const AT_ONCE: usize = 24;
/// A path that works is looked at this often.
const WORKING: Duration = Duration::from_millis(500);

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
    let mut looks: JoinSet<bool> = JoinSet::new();
    let mut was_down = false;
    loop {
        let pause = if was_down {
            interval(lost.elapsed())
        } else {
            WORKING.min(interval(lost.elapsed()) * 2)
        };
        if looks.len() < AT_ONCE {
            let host = host.to_owned();
            looks.spawn(async move {
                let connect = TcpStream::connect((host.as_str(), port));
                matches!(timeout(PATIENCE, connect).await, Ok(Ok(_)))
            });
        }
        let pausing = sleep(pause);
        tokio::pin!(pausing);
        loop {
            tokio::select! {
                Some(look) = looks.join_next() => match look {
                    Ok(true) if was_down => return,
                    Ok(true) => {}
                    Ok(false) | Err(_) => was_down = true,
                },
                () = &mut pausing => break,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn a_port_that_opens_is_noticed() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let watching = tokio::spawn(async move {
            path_is_back("127.0.0.1", address.port(), Instant::now()).await;
        });
        // A path that works is no news.
        drop(timeout(Duration::from_millis(300), listener.accept()).await);
        assert!(!watching.is_finished());
        drop(listener);
        let refused = async {
            while TcpStream::connect(address).await.is_ok() {
                tokio::task::yield_now().await;
            }
        };
        timeout(Duration::from_secs(10), refused).await.unwrap();
        // It must have seen the port closed before it opens again.
        sleep(Duration::from_millis(300)).await;
        let _listener = TcpListener::bind(address).await.unwrap();
        timeout(Duration::from_secs(10), watching)
            .await
            .unwrap()
            .unwrap();
    }
}
