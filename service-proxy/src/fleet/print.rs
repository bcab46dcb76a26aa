//! Output that waits for its reader: a row that is not read in time is not lost.

use std::io;

use common::outside;
use serde_json::Value;
use tokio::io::{AsyncWrite, AsyncWriteExt as _};

use super::FleetError;

/// Bytes that are written at once, for rows that come many at a time.
const CHUNK: usize = 16 << 10;

/// Prints without unprintable characters.
pub(super) struct Printer {
    output: Box<dyn AsyncWrite + Unpin + Send>,
    waiting: String,
}

impl Printer {
    /// To standard output or error.
    pub(super) fn new(output: impl AsyncWrite + Unpin + Send + 'static) -> Self {
        Self {
            output: Box::new(output),
            waiting: String::new(),
        }
    }

    /// Prints a line; it is written with later ones, or by [`Self::flush`].
    pub(super) async fn line(&mut self, line: &str) -> Result<(), FleetError> {
        self.text(&outside::printable(line)).await?;
        self.text("\n").await
    }

    /// Prints JSON in one line.
    pub(super) async fn json_line(&mut self, value: &Value) -> Result<(), FleetError> {
        self.json_text(&format!("{value}\n")).await
    }

    /// Prints JSON for people.
    pub(super) async fn json(&mut self, value: &Value) -> Result<(), FleetError> {
        self.json_text(&format!("{value:#}\n")).await
    }

    /// Prints a part of a JSON text.
    pub(super) async fn json_text(&mut self, text: &str) -> Result<(), FleetError> {
        self.text(&outside::printable_json(text)).await
    }

    /// Writes what was printed. May be dropped: a part may then be written.
    pub(super) async fn flush(&mut self) -> Result<(), FleetError> {
        let text = std::mem::take(&mut self.waiting);
        let written = async {
            self.output.write_all(text.as_bytes()).await?;
            self.output.flush().await
        };
        written.await.map_err(|error| match error.kind() {
            io::ErrorKind::BrokenPipe => FleetError::OutputGone,
            _ => FleetError::Output(error),
        })
    }

    async fn text(&mut self, text: &str) -> Result<(), FleetError> {
        self.waiting.push_str(text);
        if self.waiting.len() >= CHUNK {
            self.flush().await?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tokio::io::AsyncReadExt as _;

    use super::*;

    #[tokio::test]
    async fn lines_are_printable_and_a_lost_reader_is_noticed() {
        let (mut reader, writer) = tokio::io::duplex(1 << 10);
        let mut printer = Printer::new(writer);
        printer.line("a\u{1b}[2J\nb").await.unwrap();
        printer.json_line(&json!(["\u{202e}"])).await.unwrap();
        printer.flush().await.unwrap();
        let expected = "a[2Jb\n[\"\\u202e\"]\n";
        let mut text = vec![0; expected.len()];
        reader.read_exact(&mut text).await.unwrap();
        assert_eq!(String::from_utf8(text).unwrap(), expected);
        drop(reader);
        printer.line("more").await.unwrap();
        assert!(matches!(printer.flush().await, Err(FleetError::OutputGone)));
    }
}
