//! Answers those who ask. They are few, served in the program's own task, and cost what they ask
//! for.

use std::cell::Cell;
use std::convert::Infallible;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::time::{sleep, timeout};

use super::Place;
use super::local::Listener;

/// Clients at once; more are sent away.
pub(super) const CLIENTS: usize = 16;
/// A client that asks for nothing for this long is gone.
const IDLE: Duration = Duration::from_secs(60);
/// How long a client may take to read a document.
const WRITE: Duration = Duration::from_secs(5);
/// From one answer to the next of a client, at least.
const PAUSE: Duration = Duration::from_millis(20);
/// What there may be to read at a time: what is asked has no contents.
const ASKED: usize = 64;

/// A place that cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("there is no status socket{}", path.as_ref().map_or_else(String::new, |path| format!(" at {}", path.display())))]
pub(super) struct BindError {
    path: Option<PathBuf>,
    #[source]
    source: io::Error,
}

impl BindError {
    /// There is no folder for it.
    pub(super) fn nowhere(source: io::Error) -> Self {
        Self { path: None, source }
    }

    /// It cannot be there.
    pub(super) fn at(path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self {
            path: Some(path.to_owned()),
            source,
        }
    }
}

/// Listens, if that is wanted.
///
/// # Errors
/// [`BindError`].
pub(super) fn bind(program: &str, place: &Place) -> Result<Option<Listener>, BindError> {
    match place {
        Place::Off => Ok(None),
        Place::At(path) => Listener::at(path).map_err(BindError::at(path)).map(Some),
        Place::Usual => Listener::usual(program).map(Some),
    }
}

/// Answers, for as long as the future is kept.
pub(super) async fn run(listener: Listener, snapshot: impl Fn() -> Value) -> Infallible {
    let snapshot = &snapshot;
    let open = Cell::new(0);
    let mut clients = FuturesUnordered::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok(Some(client)) if open.get() < CLIENTS => {
                    open.set(open.get() + 1);
                    clients.push(answer(client, snapshot));
                }
                Ok(_) => {}
                // No descriptor is left, perhaps.
                Err(_) => sleep(WRITE).await,
            },
            Some(()) = clients.next() => open.set(open.get() - 1),
        }
    }
}

/// A document at once, and another one for each time that the client writes something.
async fn answer(mut client: impl AsyncRead + AsyncWrite + Unpin, snapshot: &impl Fn() -> Value) {
    loop {
        let mut line = snapshot().to_string();
        line.push('\n');
        let written = timeout(WRITE, client.write_all(line.as_bytes())).await;
        if !matches!(written, Ok(Ok(()))) {
            return;
        }
        sleep(PAUSE).await;
        let asked = timeout(IDLE, client.read(&mut [0; ASKED])).await;
        if !matches!(asked, Ok(Ok(count)) if count > 0) {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::client::Client;
    use super::super::local::a_path;
    use super::*;

    #[tokio::test]
    async fn each_question_has_its_answer() {
        let folder = tempfile::tempdir().unwrap();
        let path = a_path(folder.path());
        let listener = bind("a", &Place::At(path.clone())).unwrap().unwrap();
        let asked = Cell::new(0);
        let serving = run(listener, || {
            asked.set(asked.get() + 1);
            json!({ "asked": asked.get() })
        });
        let asking = async {
            let mut client = Client::connect(&path).await.unwrap();
            for time in 1..4 {
                assert_eq!(client.next().await.unwrap(), json!({ "asked": time }));
            }
            // No more than there may be, and those who leave make room.
            let mut clients = vec![client];
            for _ in 1..CLIENTS {
                let mut client = Client::connect(&path).await.unwrap();
                client.next().await.unwrap();
                clients.push(client);
            }
            let refused = Client::connect(&path).await.unwrap().next().await;
            assert!(refused.is_err());
            clients.clear();
            loop {
                let mut client = Client::connect(&path).await.unwrap();
                if client.next().await.is_ok() {
                    break;
                }
            }
        };
        tokio::select! {
            never = serving => match never {},
            () = asking => {}
        }
        // It goes with the program; a pipe as soon as the runtime has seen to it.
        while Client::connect(&path).await.is_ok() {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn it_is_in_one_program_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let place = Place::At(a_path(folder.path()));
        let first = bind("a", &place).unwrap().unwrap();
        assert!(bind("a", &place).is_err(), "it is in use");
        drop(first);
        // A pipe is gone as soon as the runtime has seen to it.
        while bind("a", &place).is_err() {
            tokio::task::yield_now().await;
        }
        assert!(bind("a", &Place::Off).unwrap().is_none());
    }
}
