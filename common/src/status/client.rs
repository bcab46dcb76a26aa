//! Asks running programs for their status.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::time::timeout;

use super::StatusError;
use super::local::{self, Connection};

/// How long a program may take to answer.
const ANSWER: Duration = Duration::from_secs(5);
/// Bytes of a document.
const DOCUMENT: u64 = 16 << 20;

/// A connection to a running program.
pub(super) struct Client {
    socket: BufReader<Connection>,
    is_new: bool,
}

impl Client {
    pub(super) async fn connect(path: &Path) -> io::Result<Self> {
        let socket = timeout(ANSWER, local::connect(path)).await??;
        Ok(Self {
            socket: BufReader::new(socket),
            is_new: true,
        })
    }

    /// The next document. Not to be dropped before its end.
    pub(super) async fn next(&mut self) -> io::Result<Value> {
        timeout(ANSWER, self.ask()).await?
    }

    async fn ask(&mut self) -> io::Result<Value> {
        if !std::mem::replace(&mut self.is_new, false) {
            self.socket.get_mut().write_all(b"\n").await?;
        }
        let mut line = Vec::new();
        let mut limited = (&mut self.socket).take(DOCUMENT);
        limited.read_until(b'\n', &mut line).await?;
        match line.last() {
            Some(b'\n') => Ok(serde_json::from_slice(&line)?),
            _ => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}

/// The status of one program, or of all that run; those that are just ending are left out.
pub(super) async fn all(
    program: &'static str,
    socket: Option<&Path>,
) -> Result<Vec<Value>, StatusError> {
    let unreachable = |path: PathBuf| move |source| StatusError::Unreachable { path, source };
    if let Some(path) = socket {
        let asked = async { Client::connect(path).await?.next().await };
        return Ok(vec![asked.await.map_err(unreachable(path.to_owned()))?]);
    }
    let mut documents = Vec::new();
    let mut failed = None;
    for path in local::all(program) {
        let asked = async { Client::connect(&path).await?.next().await };
        match asked.await {
            Ok(document) => documents.push(document),
            Err(source) => failed = Some(unreachable(path.clone())(source)),
        }
    }
    match (documents.is_empty(), failed) {
        (false, _) => Ok(documents),
        (true, Some(failed)) => Err(failed),
        (true, None) => Err(StatusError::None(program)),
    }
}
