//! The log's filter that lets the first of repeated events pass, and the thread that reports the
//! number of the others.

use std::fmt;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Instant;

use tracing::callsite::Identifier;
use tracing::field::{self, Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::subscriber::Interest;
use tracing::{Level, Metadata};
use tracing_subscriber::layer::{Context, Filter};

use super::AUDIT;
use super::about::Unquoted;
use crate::locks::lock;
use crate::repeats::{Event, Fields, Repeats, Report, Verdict};

/// The target of reports: they are not counted themselves.
const REPORT: &str = "common::repeats";

/// The events that were counted and not reported yet.
#[derive(Default)]
pub(super) struct Summing {
    /// Held for moments, and never while a line is written.
    repeats: Mutex<Repeats<Identifier>>,
    /// Something was counted.
    counted: Condvar,
    /// Held from the moment that counts are taken until their lines are queued, so that a report
    /// of all at the end comes behind.
    reporting: Mutex<()>,
}

impl Summing {
    /// Starts the thread that reports; it ends with the process.
    pub(super) fn start(self: Arc<Self>) {
        // Without it, what was counted is reported at the end.
        let _ = std::thread::Builder::new()
            .name("log-repeats".into())
            .spawn(move || self.run());
    }

    fn run(&self) {
        loop {
            self.wait();
            let _reporting = lock(&self.reporting);
            let due = lock(&self.repeats).take_due(Instant::now());
            due.iter().for_each(log);
        }
    }

    /// Waits until a report is due.
    fn wait(&self) {
        let mut repeats = lock(&self.repeats);
        loop {
            repeats = match repeats.due() {
                Some(due) => {
                    let left = due.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return;
                    }
                    let waited = self.counted.wait_timeout(repeats, left);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
                None => self
                    .counted
                    .wait(repeats)
                    .unwrap_or_else(PoisonError::into_inner),
            };
        }
    }

    /// Reports all that was counted so far.
    pub(super) fn report_all(&self) {
        let _reporting = lock(&self.reporting);
        let all = lock(&self.repeats).take_all(Instant::now());
        all.iter().for_each(log);
    }

    fn may_pass(&self, event: &tracing::Event<'_>) -> bool {
        let metadata = event.metadata();
        if !is_summed(metadata) {
            return true;
        }
        let mut seen = Seen(Event {
            level: *metadata.level(),
            message: String::new(),
            fields: Fields::default(),
        });
        event.record(&mut seen);
        let noted = lock(&self.repeats).note(metadata.callsite(), seen.0, Instant::now());
        if noted == (Verdict::Count { is_first: true }) {
            self.counted.notify_one();
        }
        noted == Verdict::Show
    }
}

/// Whether repeated events of this kind are summed up. Below INFO each is shown: these levels are
/// for looking closely.
fn is_summed(metadata: &Metadata<'_>) -> bool {
    *metadata.level() <= Level::INFO && metadata.name() != AUDIT && metadata.target() != REPORT
}

/// Writes a report as an event of its own, so that it comes in the log's form.
fn log(report: &Report) {
    let text = if report.is_mixed {
        format!("{} (and others like it)", report.message)
    } else {
        report.message.clone()
    };
    let Fields {
        device,
        name,
        target,
        peer,
        transport,
    } = &report.fields;
    let shown = [device, name, target, peer, transport].map(|value| {
        let text = value.as_ref();
        text.map(|text| field::display(Unquoted(text)))
    });
    let [device, name, target, peer, transport] = shown;
    macro_rules! event {
        ($level:ident) => {
            tracing::$level!(
                target: REPORT,
                device,
                name,
                target = target,
                peer,
                transport,
                repeated = report.count,
                seconds = report.time.as_secs(),
                "{text}"
            )
        };
    }
    match report.level {
        Level::ERROR => event!(error),
        Level::WARN => event!(warn),
        _ => event!(info),
    }
}

/// What an event says.
struct Seen(Event);

impl Seen {
    fn keep(&mut self, field: &Field, value: String) {
        let Event {
            message, fields, ..
        } = &mut self.0;
        match field.name() {
            "message" => *message = value,
            "device" => fields.device = Some(value),
            "name" => fields.name = Some(value),
            "target" => fields.target = Some(value),
            "peer" => fields.peer = Some(value),
            "transport" => fields.transport = Some(value),
            _ => {}
        }
    }
}

impl Visit for Seen {
    // As they are: the report's line puts them in quotes, if its form has some.
    fn record_str(&mut self, field: &Field, value: &str) {
        self.keep(field, value.to_owned());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.keep(field, format!("{value:#?}"));
    }
}

/// The filter of one log.
pub(super) struct Summed(Arc<Summing>);

impl Summed {
    pub(super) fn new(summing: Arc<Summing>) -> Self {
        Self(summing)
    }
}

impl<S> Filter<S> for Summed {
    fn enabled(&self, _: &Metadata<'_>, _: &Context<'_, S>) -> bool {
        true
    }

    fn callsite_enabled(&self, metadata: &'static Metadata<'static>) -> Interest {
        if is_summed(metadata) {
            Interest::sometimes()
        } else {
            Interest::always()
        }
    }

    fn event_enabled(&self, event: &tracing::Event<'_>, _: &Context<'_, S>) -> bool {
        self.0.may_pass(event)
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(LevelFilter::TRACE)
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use tracing_subscriber::filter::FilterExt as _;
    use tracing_subscriber::prelude::*;

    use super::*;
    use crate::repeats::FIRST;

    #[derive(Clone, Default)]
    struct Keeper(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Keeper {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            lock(&self.0).extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// What is logged by `work`, and then by the report of all.
    fn logged(level: LevelFilter, work: impl FnOnce()) -> Vec<String> {
        let (kept, summing) = (Keeper::default(), Arc::new(Summing::default()));
        let writer = kept.clone();
        let layer = tracing_subscriber::fmt::layer()
            .with_ansi(false)
            .with_target(false)
            .without_time()
            .with_writer(move || writer.clone());
        let filter = super::super::shown(level).and(Summed::new(Arc::clone(&summing)));
        let log = tracing_subscriber::registry().with(layer.with_filter(filter));
        tracing::subscriber::with_default(log, || {
            work();
            summing.report_all();
        });
        let text = String::from_utf8(lock(&kept.0).clone()).unwrap();
        text.lines()
            .map(|line| line.trim_start().to_owned())
            .collect()
    }

    #[test]
    fn the_first_lines_are_as_ever_and_the_last_has_the_number() {
        let lines = logged(LevelFilter::INFO, || {
            for port in 0..2_000u16 {
                let peer = std::net::SocketAddr::from(([10, 0, 0, 1], port));
                tracing::warn!(%peer, transport = "mqtt", attempt = port, "refused: the key is wrong");
            }
            tracing::warn!(peer = "10.0.0.2:1", "refused: the key is wrong");
        });
        let first = usize::try_from(FIRST).unwrap();
        assert_eq!(lines.len(), first + 2, "{lines:#?}");
        assert_eq!(
            lines[0],
            r#"WARN refused: the key is wrong peer=10.0.0.1:0 transport="mqtt" attempt=0"#
        );
        assert!(lines[first].contains("10.0.0.2:1"), "{lines:#?}");
        assert_eq!(
            lines[first + 1],
            r#"WARN refused: the key is wrong peer=10.0.0.1 transport=mqtt repeated=1995 seconds=0"#
        );
    }

    #[test]
    fn an_audit_is_never_summed_up_and_neither_is_what_is_for_debugging() {
        let lines = logged(LevelFilter::DEBUG, || {
            for _ in 0..100 {
                tracing::warn!("refused");
                tracing::info!(name: AUDIT, "device connected");
                tracing::debug!("a packet");
            }
        });
        assert_eq!(lines.len(), 200 + 5 + 1, "{lines:#?}");
        let lines = logged(LevelFilter::WARN, || {
            for _ in 0..100 {
                tracing::info!("something");
                tracing::error!("the disk is full");
            }
        });
        assert_eq!(lines.len(), 6, "{lines:#?}");
        assert!(lines[5].starts_with("ERROR the disk is full repeated=95"));
    }

    #[test]
    fn the_thread_waits_for_what_is_due() {
        let summing = Summing::default();
        let waited = std::thread::scope(|scope| {
            let waiting = scope.spawn(|| summing.wait());
            let now = Instant::now();
            // A machine that has just started has no such time; it waits for it.
            let old = now.checked_sub(crate::repeats::PERIOD).unwrap_or(now);
            let event = Event {
                level: Level::WARN,
                message: "refused".into(),
                fields: Fields::default(),
            };
            let kind = kind();
            for _ in 0..=FIRST {
                lock(&summing.repeats).note(kind.clone(), event.clone(), old);
            }
            summing.counted.notify_one();
            waiting.join()
        });
        assert!(waited.is_ok());
        let due = lock(&summing.repeats).take_due(Instant::now());
        assert_eq!(due.len(), 1);
        assert_eq!(due[0].count, 1);
    }

    /// Some callsite.
    fn kind() -> Identifier {
        struct Here;
        impl tracing::callsite::Callsite for Here {
            fn set_interest(&self, _: Interest) {}
            fn metadata(&self) -> &Metadata<'_> {
                unreachable!("it is a name only")
            }
        }
        static HERE: Here = Here;
        Identifier(&HERE)
    }
}
