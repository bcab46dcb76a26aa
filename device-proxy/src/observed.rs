//! What the admin listener answers: the counts, what is carried now, and whether the device can be
//! reached.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;

use common::admin::{Metrics, NotReady, Program};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use tokio_util::sync::CancellationToken;

use crate::counts::Counts;
use crate::streams::{Carried, Streams};

/// A device-proxy, as its admin listener shows it.
pub(crate) struct Observed {
    metrics: Metrics,
    counts: Counts,
    stop: CancellationToken,
}

impl Observed {
    /// With these streams; it is not ready once `stop` is cancelled.
    pub(crate) fn new(streams: &Streams, stop: &CancellationToken) -> Arc<Self> {
        let (counts, carried) = (streams.counts().clone(), streams.carried());
        let metrics = Metrics::new("device_proxy", env!("CARGO_PKG_VERSION"), |registry| {
            counts.register(registry);
            registry.register_collector(Box::new(Sampled(carried)));
        });
        Arc::new(Self {
            metrics,
            counts,
            stop: stop.clone(),
        })
    }
}

impl Program for Observed {
    fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    fn not_ready(&self) -> Pin<Box<dyn Future<Output = NotReady> + Send + '_>> {
        let reasons = [
            self.stop
                .is_cancelled()
                .then_some("device-proxy is stopping"),
            (!self.counts.is_hub_session_up()).then_some("the session with the hub is down"),
        ];
        let reasons = reasons.into_iter().flatten().map(str::to_owned).collect();
        Box::pin(std::future::ready(reasons))
    }
}

/// What is looked at when somebody asks.
struct Sampled(Carried);

impl fmt::Debug for Sampled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sampled")
    }
}

impl Collector for Sampled {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let totals = self.0.totals();
        let (sessions, detached) = self.0.sessions();
        let gauges = [
            (
                "tunnels",
                "Streams and connections to targets that are open",
                totals.active,
            ),
            ("sessions", "Sessions, interrupted ones included", sessions),
            (
                "sessions_detached",
                "Sessions that are interrupted and kept",
                detached,
            ),
        ];
        for (name, help, value) in gauges {
            let gauge = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            let value = i64::try_from(value).unwrap_or(i64::MAX);
            ConstGauge::new(value).encode(gauge)?;
        }
        let opened = encoder.encode_descriptor(
            "tunnels_opened",
            "Streams and connections to targets that were opened",
            None,
            MetricType::Counter,
        )?;
        ConstCounter::new(totals.opened).encode(opened)?;
        let mut bytes = encoder.encode_descriptor(
            "bytes",
            "Bytes that were carried, by where they went",
            None,
            MetricType::Counter,
        )?;
        for (direction, count) in [
            ("to_target", totals.bytes_in),
            ("from_target", totals.bytes_out),
        ] {
            let labels = [("direction", direction)];
            ConstCounter::new(count).encode(bytes.encode_family(&labels)?)?;
        }
        Ok(())
    }
}
