//! Lines of the log for programs: one JSON object each, with the time, the level, the message, and
//! then the fields that the text has too, under the same names and as values of their own.

use std::fmt;

use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use crate::json_line::JsonLine;

/// The format of these lines.
pub(super) struct Json {
    /// Whether a line has the module that it comes from, as `module`.
    pub(super) has_modules: bool,
    /// What stands before a line of this level.
    pub(super) prefix: fn(tracing::Level) -> &'static str,
}

impl<S, N> FormatEvent<S, N> for Json
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let metadata = event.metadata();
        let mut message = Message::default();
        event.record(&mut message);
        let mut line = JsonLine::new(*metadata.level(), &message.0);
        event.record(&mut Fields(&mut line));
        if self.has_modules {
            line.text("module", metadata.target());
        }
        writer.write_str((self.prefix)(*metadata.level()))?;
        writer.write_str(&line.finish())
    }
}

/// The name of the field that a macro's text is in.
const MESSAGE: &str = "message";

/// The message of an event.
#[derive(Default)]
struct Message(String);

impl Visit for Message {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == MESSAGE {
            self.0 = format!("{value:?}");
        }
    }
}

/// All other fields, in the order of the event.
struct Fields<'a>(&'a mut JsonLine);

impl Visit for Fields<'_> {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.0.value(field.name(), value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.0.value(field.name(), value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.0.value(field.name(), value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.0.value(field.name(), value);
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        if field.name() != MESSAGE {
            self.0.text(field.name(), value);
        }
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        if field.name() == MESSAGE {
            return;
        }
        // The other form: no quotes around what has a value of its own here (`Unquoted`).
        let text = format!("{value:#?}");
        match (field.name(), text.parse::<f64>()) {
            // In the text it has one decimal, and so it is written by its `Display`.
            (SECONDS, Ok(number)) => self.0.value(field.name(), number),
            _ => self.0.text(field.name(), &text),
        }
    }
}

/// The field of [`super::seconds`].
const SECONDS: &str = "seconds";
