//! Why a query is refused.

/// A query or condition that the hub does not understand, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the query is invalid at {}: {message}", place(*line, *column))]
pub struct QueryError {
    /// From 1.
    pub line: usize,
    /// In characters, from 1.
    pub column: usize,
    /// One sentence.
    pub message: String,
}

impl QueryError {
    /// An error at this byte of the text.
    pub(super) fn at(text: &str, byte: usize, message: impl Into<String>) -> Self {
        let before = text.get(..byte).unwrap_or(text);
        let line = before.rsplit('\n').next().unwrap_or_default();
        Self {
            line: before.matches('\n').count() + 1,
            column: line.chars().count() + 1,
            message: message.into(),
        }
    }
}

/// Most queries are one line.
fn place(line: usize, column: usize) -> String {
    match line {
        1 => format!("column {column}"),
        _ => format!("line {line}, column {column}"),
    }
}
