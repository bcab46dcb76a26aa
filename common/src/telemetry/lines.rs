//! How an event becomes a line on stderr: for people and files with time and level; for systemd's
//! journal and the event log of Windows, which have both in fields of their own, with the level as the
//! priority that `journalctl -p` selects by (sd-daemon(3)).
//!
//! The journal's own protocol would keep our fields apart too, but who writes to its socket waits when
//! the journal is slow; our lines never wait for their reader ([`crate::output`]).

use std::fmt;

use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::{Format, Full, Writer, format};
use tracing_subscriber::fmt::time::SystemTime;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use super::LogFormat;
use super::json::Json;
use crate::output::{self, priority};

/// The format of the log's lines.
pub(super) enum Lines {
    Plain(Format<Full, SystemTime>),
    System(Format<Full, ()>),
    Json(Json),
}

impl Lines {
    /// Those for who reads stderr; with the names of modules, if they are wanted.
    pub(super) fn new(form: LogFormat, has_targets: bool) -> Self {
        match form {
            LogFormat::Text => Self::of(is_of_system(), has_targets),
            LogFormat::Json => Self::Json(Json {
                has_modules: has_targets,
                prefix,
            }),
        }
    }

    fn of(is_of_system: bool, has_targets: bool) -> Self {
        let format = format().with_target(has_targets);
        if is_of_system {
            Self::System(format.without_time().with_level(false))
        } else {
            Self::Plain(format)
        }
    }
}

impl<S, N> FormatEvent<S, N> for Lines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        match self {
            Self::Plain(format) => format.format_event(context, writer, event),
            Self::System(format) => {
                writer.write_str(priority(*event.metadata().level()))?;
                format.format_event(context, writer, event)
            }
            Self::Json(format) => format.format_event(context, writer, event),
        }
    }
}

/// What stands before a message of this level, if a system's own log reads it.
pub fn prefix(level: Level) -> &'static str {
    if is_of_system() { priority(level) } else { "" }
}

fn is_of_system() -> bool {
    is_journal() || output::is_redirected()
}

/// Whether stderr leads to the journal: systemd says which stream it has connected (systemd.exec(5)).
fn is_journal() -> bool {
    #[cfg(target_os = "linux")]
    {
        use std::os::linux::fs::MetadataExt as _;
        let Ok(stream) = std::env::var("JOURNAL_STREAM") else {
            return false;
        };
        std::fs::metadata("/proc/self/fd/2")
            .is_ok_and(|stderr| stream == format!("{}:{}", stderr.st_dev(), stderr.st_ino()))
    }
    #[cfg(not(target_os = "linux"))]
    false
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::locks::lock;
    use crate::telemetry::About;

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            lock(&self.0).extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn written(is_of_system: bool) -> String {
        written_as(Lines::of(is_of_system, false), || {
            tracing::warn!(device = "d", "it is late");
            tracing::info!("fine");
        })
    }

    fn written_as(lines: Lines, log: impl FnOnce()) -> String {
        let written = Written::default();
        let writer = written.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_ansi(false)
            .event_format(lines)
            .with_writer(move || writer.clone())
            .finish();
        tracing::subscriber::with_default(subscriber, log);
        let bytes = lock(&written.0).clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn json_has_an_object_a_line_with_all_fields_as_values() {
        let lines = Lines::Json(Json {
            has_modules: true,
            prefix: |_| "",
        });
        let text = written_as(lines, || {
            let peer = "192.0.2.1:22";
            let about = About::stream(None, &"a \"b\" \u{e9}").peer(&peer);
            let end = "it\nleft";
            crate::log_about!(
                audit info,
                about,
                sent = 7_u64,
                seconds = super::super::seconds(std::time::Duration::from_millis(1_540)),
                is_known = true,
                host = "h \"",
                none = None::<u64>,
                "tunnel closed: {end}"
            );
            tracing::error!("\u{202e}");
        });
        let (first, second) = text.split_once('\n').unwrap();
        let (time, rest) = first.split_once("\",\"level\"").unwrap();
        assert!(
            time.starts_with("{\"timestamp\":\"2") && time.ends_with('Z'),
            "{time}"
        );
        let expected = r#":"INFO","message":"tunnel closed: it\nleft","name":"a \"b\" é","peer":"192.0.2.1:22","sent":7,"seconds":1.5,"is_known":true,"host":"h \"","module":"common::telemetry::lines::tests"}"#;
        assert_eq!(rest, expected);
        let second: serde_json::Value = serde_json::from_str(second).unwrap();
        assert_eq!(second["level"], "ERROR");
    }

    #[test]
    fn the_journal_gets_priorities_and_others_time_and_level() {
        assert_eq!(written(true), "<4>it is late device=\"d\"\n<6>fine\n");
        let plain = written(false);
        assert!(
            plain.contains("Z  WARN it is late device=\"d\"\n"),
            "{plain}"
        );
    }
}
