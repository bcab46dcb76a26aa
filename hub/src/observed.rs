//! What the hub's admin listener answers: what was counted ([`crate::events`]), what is there now,
//! and whether the hub can do its work.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use common::admin::{Metrics, NotReady, Program};
use common::permits::Permits;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use time::OffsetDateTime;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::admission::Strangers;
use crate::events::audit::Audit;
use crate::state::HubState;

/// How long the registry may take for its answer.
const REGISTRY: Duration = Duration::from_secs(2);

/// A hub, as its admin listener shows it.
pub(crate) struct Observed {
    metrics: Metrics,
    state: HubState,
    /// Cancelled as soon as its ports take no more connections.
    stop: CancellationToken,
}

impl Observed {
    /// With these strangers, and these permits of connections, at its listeners. It is not ready any
    /// more once `stop` is cancelled.
    pub(crate) fn new(
        state: &HubState,
        strangers: &Strangers,
        permits: [&Arc<Permits>; 2],
        stop: &CancellationToken,
    ) -> Arc<Self> {
        let sampled = Sampled {
            state: state.clone(),
            strangers: strangers.clone(),
            permits: permits.map(Arc::clone),
        };
        let metrics = Metrics::new("stream_hub", env!("CARGO_PKG_VERSION"), |registry| {
            state.events.counts().register(registry);
            registry.register_collector(Box::new(sampled));
        });
        Arc::new(Self {
            metrics,
            state: state.clone(),
            stop: stop.clone(),
        })
    }

    /// Why the certificate is of no use, if it is not.
    fn no_certificate(&self) -> Option<String> {
        let slot = self.state.certificate.as_ref()?;
        match slot.expires() {
            None => Some("there is no TLS certificate yet".to_owned()),
            Some(expires) if expires <= OffsetDateTime::now_utc() => {
                Some("the TLS certificate has expired".to_owned())
            }
            Some(_) => None,
        }
    }

    async fn reasons(&self) -> NotReady {
        let mut reasons = Vec::new();
        if self.stop.is_cancelled() {
            reasons.push("the hub is stopping".to_owned());
        }
        reasons.extend(self.no_certificate());
        if self.state.events.allow_streams().is_err() {
            reasons.push("the audit log cannot be written".to_owned());
        }
        // Any policy: it is a row that is there, or not.
        match timeout(REGISTRY, self.state.registry.policy("service")).await {
            Ok(Ok(_)) => {}
            // The log says how; whoever asks here learns no more than a client.
            Ok(Err(_)) => reasons.push("the registry fails".to_owned()),
            Err(_) => reasons.push(format!(
                "the registry does not answer within {} s",
                REGISTRY.as_secs()
            )),
        }
        reasons
    }
}

impl Program for Observed {
    fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    fn not_ready(&self) -> Pin<Box<dyn Future<Output = NotReady> + Send + '_>> {
        Box::pin(self.reasons())
    }
}

/// What is looked at when somebody asks.
struct Sampled {
    state: HubState,
    strangers: Strangers,
    /// Of HTTPS, and of MQTT and AMQP.
    permits: [Arc<Permits>; 2],
}

impl fmt::Debug for Sampled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sampled")
    }
}

impl Sampled {
    /// How the audit log is, if there is one.
    fn encode_audit(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let Some(health) = self.state.events.audit().map(Audit::health) else {
            return Ok(());
        };
        let writable = encoder.encode_descriptor(
            "audit_writable",
            "Whether the audit log can be written: 1 or 0",
            None,
            MetricType::Gauge,
        )?;
        ConstGauge::new(i64::from(health.is_writable)).encode(writable)?;
        let lost = encoder.encode_descriptor(
            "audit_records_lost",
            "Records that the audit log has no room for while it cannot be written",
            None,
            MetricType::Counter,
        )?;
        ConstCounter::new(health.lost).encode(lost)
    }
}

impl Collector for Sampled {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let (open, relayed) = self.state.events.counts().meters().now();
        let limits = self.state.limits.now();
        let waiting = self.state.legs.count().saturating_sub(open);
        for (name, help, value) in [
            (
                "streams",
                "Streams that are open: both of their legs are there",
                open,
            ),
            (
                "streams_waiting",
                "Streams that wait for their device's answer or for their legs",
                waiting,
            ),
            (
                "strangers",
                "Connections that have not shown yet who they are",
                self.strangers.count(),
            ),
        ] {
            let gauge = encoder.encode_descriptor(name, help, None, MetricType::Gauge)?;
            ConstGauge::new(whole(value)).encode(gauge)?;
        }
        let mut bytes = encoder.encode_descriptor(
            "relayed_bytes",
            "Bytes that streams have carried, by where they went",
            None,
            MetricType::Counter,
        )?;
        for (direction, count) in [
            ("to_device", relayed.to_device),
            ("to_service", relayed.to_service),
        ] {
            let labels = [("direction", direction)];
            ConstCounter::new(count).encode(bytes.encode_family(&labels)?)?;
        }
        let mut most = encoder.encode_descriptor(
            "limit",
            "The most that there may be at once, as it is configured",
            None,
            MetricType::Gauge,
        )?;
        for (limit, value) in [
            ("connections", limits.connections),
            ("streams", limits.streams),
            ("strangers", limits.strangers),
        ] {
            let labels = [("limit", limit)];
            ConstGauge::new(whole(value)).encode(most.encode_family(&labels)?)?;
        }
        let mut open = encoder.encode_descriptor(
            "connections",
            "Connections that are open, by listener; those of AMQP count as MQTT's",
            None,
            MetricType::Gauge,
        )?;
        for (listener, permits) in ["https", "mqtts"].into_iter().zip(&self.permits) {
            let labels = [("listener", listener)];
            ConstGauge::new(whole(permits.in_use())).encode(open.encode_family(&labels)?)?;
        }
        let mut free = encoder.encode_descriptor(
            "connections_free",
            "Connections that there is room for, by listener; as many as descriptors allow",
            None,
            MetricType::Gauge,
        )?;
        for (listener, permits) in ["https", "mqtts"].into_iter().zip(&self.permits) {
            let labels = [("listener", listener)];
            ConstGauge::new(whole(permits.free())).encode(free.encode_family(&labels)?)?;
        }
        self.encode_audit(&mut encoder)?;
        let expires = self
            .state
            .certificate
            .as_ref()
            .and_then(|slot| slot.expires());
        if let Some(expires) = expires {
            let gauge = encoder.encode_descriptor(
                "certificate_expiry_timestamp_seconds",
                "When the TLS certificate in use expires, in seconds of Unix time",
                None,
                MetricType::Gauge,
            )?;
            ConstGauge::new(expires.unix_timestamp()).encode(gauge)?;
        }
        Ok(())
    }
}

fn whole(value: usize) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
