//! What a program counts, in Prometheus form.

use std::sync::OnceLock;

use prometheus_client::encoding::prometheus_text;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;

use super::process::Process;
use crate::output;

/// The form that every scraper takes.
pub(super) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The families of one program. Those of the process itself, its version and the lines that its
/// log has lost are always there.
#[derive(Debug)]
pub struct Metrics(Registry);

/// When this process had its first metrics: a moment after its start.
static STARTED: OnceLock<f64> = OnceLock::new();

impl Metrics {
    /// Those of a program of this version, whose families begin with `prefix`; `register` adds
    /// them.
    pub fn new(
        prefix: &'static str,
        version: &'static str,
        register: impl FnOnce(&mut Registry),
    ) -> Self {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(Process {
            started: *STARTED.get_or_init(now),
        }));
        let own = registry.sub_registry_with_prefix(prefix);
        own.register(
            "build",
            "The program that runs",
            Info::new([("version", version)]),
        );
        own.register_collector(Box::new(LostLines));
        register(own);
        Self(registry)
    }

    /// All of it, in the text format 0.0.4.
    pub fn text(&self) -> String {
        let mut text = String::new();
        // Into memory: it does not fail.
        let _ = prometheus_text::encode(&mut text, &self.0);
        text
    }
}

fn now() -> f64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.map_or(0.0, |since| since.as_secs_f64())
}

/// Bounds of a histogram of seconds, from what an idle hub needs to what a request may take.
pub fn latency_buckets() -> impl Iterator<Item = f64> {
    [
        0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0,
        60.0,
    ]
    .into_iter()
}

/// Lines of the log that nobody has taken.
#[derive(Debug)]
struct LostLines;

impl prometheus_client::collector::Collector for LostLines {
    fn encode(
        &self,
        mut encoder: prometheus_client::encoding::DescriptorEncoder<'_>,
    ) -> Result<(), std::fmt::Error> {
        use prometheus_client::encoding::EncodeMetric as _;
        use prometheus_client::metrics::MetricType;
        use prometheus_client::metrics::counter::ConstCounter;
        let lost = encoder.encode_descriptor(
            "log_lines_lost",
            "Lines of the log that were dropped since they were not read in time",
            None,
            MetricType::Counter,
        )?;
        ConstCounter::new(output::lost()).encode(lost)
    }
}
