//! One line that is a JSON object, as programs write their log for programs: time, level, message,
//! then more fields.

use std::fmt::Write as _;

use serde_json::Value;
use tracing::Level;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::time::{FormatTime as _, SystemTime};

/// A line that is being written.
pub struct JsonLine(String);

impl JsonLine {
    /// Begins a line of now.
    pub fn new(level: Level, message: &str) -> Self {
        let mut time = String::new();
        // Into memory: it does not fail.
        let _ = SystemTime.format_time(&mut Writer::new(&mut time));
        let mut line = Self(String::from("{"));
        line.text("timestamp", &time);
        line.text("level", level.as_str());
        line.text("message", message);
        line
    }

    /// Adds a field that is a text.
    pub fn text(&mut self, name: &str, text: &str) {
        self.value(name, text);
    }

    /// Adds a field that is a number, a truth value or a text.
    pub fn value(&mut self, name: &str, value: impl Into<Value>) {
        if self.0.len() > 1 {
            self.0.push(',');
        }
        let _ = write!(self.0, "{}:{}", Value::from(name), value.into());
    }

    /// The line, with its end.
    pub fn finish(mut self) -> String {
        self.0.push_str("}\n");
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_in_a_value_ends_it() {
        let mut line = JsonLine::new(Level::WARN, "a\"b\\\n{");
        line.value("count", 3_u64);
        let line = line.finish();
        assert_eq!(line.matches('\n').count(), 1);
        let read: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(read["message"], "a\"b\\\n{");
        assert_eq!(read["level"], "WARN");
        assert_eq!(read["count"], 3);
    }
}
