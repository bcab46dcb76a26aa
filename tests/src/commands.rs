//! service-proxy's commands that print a result, as the real program.

use std::process::Stdio;

use serde_json::Value;
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

use crate::programs::{DIRECT, binary};
use crate::{TestHub, soon};

/// What a run of service-proxy has done.
pub struct Ran {
    /// Its exit code; none when a signal has ended it.
    pub code: Option<i32>,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

impl Ran {
    /// Standard output of a success.
    pub fn ok(self) -> String {
        assert_eq!(self.code, Some(0), "{}", self.err);
        self.out
    }

    /// The same as JSON.
    pub fn json(self) -> Value {
        serde_json::from_str(&self.ok()).unwrap()
    }

    /// Checks the exit code and that the error has these words.
    pub fn fails(&self, code: i32, words: &[&str]) {
        assert_eq!(self.code, Some(code), "{}", self.err);
        for word in words {
            assert!(self.err.contains(word), "{word}: {}", self.err);
        }
    }
}

/// service-proxy for this hub, with pipes.
pub async fn command(hub: &TestHub, words: &[&str]) -> Command {
    let connection = hub.policy("service").await.to_secret_text();
    let mut command = Command::new(binary("service-proxy"));
    command
        .arg("--ca-file")
        .arg(hub.ca_file())
        .args(words)
        .envs(DIRECT)
        .env("IOTHUB_CONNECTION_STRING", connection.expose())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    command
}

/// Runs it to its end with this input.
pub async fn ran(mut command: Command, input: &str) -> Ran {
    let mut child = command.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    // A command that reads no input may be over by now.
    let _ = stdin.write_all(input.as_bytes()).await;
    drop(stdin);
    let output = soon("service-proxy's end", child.wait_with_output()).await;
    let output = output.unwrap();
    Ran {
        code: output.status.code(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

/// Runs service-proxy for this hub to its end, without input.
pub async fn service(hub: &TestHub, words: &[&str]) -> Ran {
    ran(command(hub, words).await, "").await
}
