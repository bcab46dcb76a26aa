//! Spans of streams and tunnels, for a collector of OpenTelemetry: OTLP over HTTP, to where the
//! standard variables say (`OTEL_EXPORTER_OTLP_ENDPOINT`, `…_TRACES_ENDPOINT`, `…_HEADERS`,
//! `…_TIMEOUT`). Only in programs that are built with the feature `otel`.
//!
//! A stream's id has 128 bits, as the id of a trace, and it is in the URLs of both legs: so it is the
//! trace's id, and what all three programs report of a stream comes together without a header of its
//! own in the protocol. What is carried in a session has the session's id.
//!
//! The spans are made when they have ended, and not by `tracing`: its spans cost something each time
//! that a task is polled ([`crate::telemetry`]).

mod client;

use std::sync::{Mutex, OnceLock};
use std::time::{Duration, SystemTime};

use device_stream_session::SessionId;
use opentelemetry::trace::{
    SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState,
};
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_otlp::{
    ExporterBuildError, Protocol, SpanExporter, WithExportConfig as _, WithHttpConfig as _,
};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanExporter as _, SpanLinks};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until, timeout};

use crate::identity::StreamId;
use crate::locks::lock;
use crate::random;

/// Spans that wait to be sent; more are dropped.
const WAITING: usize = 4_096;
/// Spans of one request to the collector.
const BATCH: usize = 512;
/// How long a span waits for others.
const DELAY: Duration = Duration::from_secs(2);
/// How long the end of the program waits for the collector.
const PATIENCE: Duration = Duration::from_secs(3);

/// Where the spans of this process go, if they do.
static SPANS: OnceLock<mpsc::Sender<SpanData>> = OnceLock::new();
/// Ends the task that sends them.
static END: Mutex<Option<oneshot::Sender<oneshot::Sender<()>>>> = Mutex::new(None);

/// Which trace a span is of.
#[derive(Debug, Clone, Copy)]
pub enum Trace {
    /// A stream's.
    Stream(StreamId),
    /// A session's.
    Session(SessionId),
}

impl Trace {
    fn bytes(self) -> [u8; 16] {
        match self {
            Self::Stream(id) => id.to_bytes(),
            Self::Session(SessionId(bytes)) => bytes,
        }
    }
}

/// Something that has ended.
#[derive(Debug, Clone)]
pub struct Span {
    /// Of which trace it is.
    pub trace: Trace,
    /// Whether all others of the trace are below it.
    pub is_root: bool,
    /// What it is.
    pub name: &'static str,
    /// How long it took, until now.
    pub duration: Duration,
    /// What it was about, by the names of the log's fields.
    pub attributes: Vec<(&'static str, String)>,
    /// Bytes one way and the other.
    pub bytes: Option<[(&'static str, u64); 2]>,
    /// How it ended.
    pub end: String,
    /// Whether that was a failure.
    pub is_failure: bool,
}

impl Span {
    fn into_data(self) -> SpanData {
        let end = SystemTime::now();
        let trace = self.trace.bytes();
        let [root @ .., _, _, _, _, _, _, _, _] = trace;
        let own = match self.is_root {
            true => root,
            false => random::bytes(),
        };
        let context = SpanContext::new(
            TraceId::from_bytes(trace),
            SpanId::from_bytes(own),
            TraceFlags::SAMPLED,
            false,
            TraceState::NONE,
        );
        let text = |(name, value)| KeyValue::new::<&str, String>(name, value);
        let mut attributes: Vec<KeyValue> = self.attributes.into_iter().map(text).collect();
        let count = |(name, bytes)| KeyValue::new::<&str, i64>(name, whole(bytes));
        attributes.extend(self.bytes.into_iter().flatten().map(count));
        attributes.push(KeyValue::new("end", self.end.clone()));
        SpanData {
            span_context: context,
            parent_span_id: match self.is_root {
                true => SpanId::INVALID,
                false => SpanId::from_bytes(root),
            },
            parent_span_is_remote: true,
            span_kind: SpanKind::Internal,
            name: self.name.into(),
            start_time: end.checked_sub(self.duration).unwrap_or(end),
            end_time: end,
            attributes,
            dropped_attributes_count: 0,
            events: SpanEvents::default(),
            links: SpanLinks::default(),
            status: match self.is_failure {
                true => Status::error(self.end),
                false => Status::Ok,
            },
            instrumentation_scope: InstrumentationScope::builder("device-streams").build(),
        }
    }
}

fn whole(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

/// Whether spans are sent anywhere: else none needs to be made.
pub fn is_on() -> bool {
    SPANS.get().is_some()
}

/// Gives a span to the task that sends them. Never waits: a collector that is too slow costs spans.
pub fn send(span: Span) {
    if let Some(spans) = SPANS.get() {
        let _ = spans.try_send(span.into_data());
    }
}

/// The collector cannot be used.
#[derive(Debug, thiserror::Error)]
#[error(
    "the variables OTEL_EXPORTER_OTLP_… name no collector that can be used; give one as OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:4318"
)]
pub struct OtelError(#[from] ExporterBuildError);

/// Begins to send spans if the environment names a collector, under the name of a program. In a
/// runtime; a second call does nothing. [`finish`] ends it.
///
/// # Errors
/// [`OtelError`].
pub fn start(program: &'static str, version: &'static str) -> Result<(), OtelError> {
    let is_named = [
        "OTEL_EXPORTER_OTLP_ENDPOINT",
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
    ]
    .iter()
    .any(|name| std::env::var_os(name).is_some_and(|value| !value.is_empty()));
    if !is_named {
        return Ok(());
    }
    let mut exporter = SpanExporter::builder()
        .with_http()
        .with_protocol(Protocol::HttpBinary)
        .with_http_client(client::Client)
        .build()?;
    let resource = Resource::builder()
        .with_service_name(program)
        .with_attribute(KeyValue::new("service.version", version))
        .build();
    exporter.set_resource(&resource);
    let (sender, spans) = mpsc::channel(WAITING);
    if SPANS.set(sender).is_ok() {
        let (end, ended) = oneshot::channel();
        *lock(&END) = Some(end);
        tokio::spawn(run(exporter, spans, ended));
    }
    Ok(())
}

/// Sends what is left, and ends. Takes a few seconds at most; may be dropped.
pub async fn finish() {
    let end = lock(&END).take();
    let (done, is_done) = oneshot::channel();
    if end.is_some_and(|end| end.send(done).is_ok()) {
        let _ = timeout(PATIENCE, is_done).await;
    }
}

/// Sends spans in batches until it is told to end; one request at a time.
async fn run(
    exporter: SpanExporter,
    mut spans: mpsc::Receiver<SpanData>,
    mut ended: oneshot::Receiver<oneshot::Sender<()>>,
) {
    let mut is_lost = false;
    loop {
        let mut batch = Vec::new();
        let done = tokio::select! {
            received = spans.recv_many(&mut batch, BATCH) => {
                if received == 0 {
                    return;
                }
                None
            }
            done = &mut ended => done.ok(),
        };
        let until = Instant::now() + DELAY;
        let done = match done {
            Some(done) => Some(done),
            None => loop {
                let room = BATCH.saturating_sub(batch.len());
                if room == 0 {
                    break None;
                }
                tokio::select! {
                    _ = spans.recv_many(&mut batch, room) => {}
                    () = sleep_until(until) => break None,
                    done = &mut ended => break done.ok(),
                }
            },
        };
        if done.is_some() {
            while batch.len() < WAITING + BATCH
                && let Ok(span) = spans.try_recv()
            {
                batch.push(span);
            }
        }
        if !batch.is_empty() {
            let count = batch.len();
            match exporter.export(batch).await {
                Ok(()) => is_lost = false,
                // Once an outage.
                Err(error) if !is_lost => {
                    is_lost = true;
                    tracing::warn!(count, "spans were not taken by the collector: {error}");
                }
                Err(error) => tracing::debug!(count, "spans were not taken: {error}"),
            }
        }
        if let Some(done) = done {
            let _ = done.send(());
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_spans_of_a_stream_are_in_its_trace_below_one_root() {
        let id = StreamId::random();
        let span = |is_root| Span {
            trace: Trace::Stream(id),
            is_root,
            name: "stream",
            duration: Duration::from_secs(3),
            attributes: vec![("device", "MyDevice".to_owned())],
            bytes: Some([("to_device", 1), ("to_service", u64::MAX)]),
            end: "the device closed it".to_owned(),
            is_failure: !is_root,
        };
        let (root, other) = (span(true).into_data(), span(false).into_data());
        assert_eq!(root.span_context.trace_id().to_string(), id.to_string());
        assert_eq!(root.span_context.trace_id(), other.span_context.trace_id());
        assert_eq!(root.parent_span_id, SpanId::INVALID);
        assert_eq!(other.parent_span_id, root.span_context.span_id());
        assert_ne!(other.span_context.span_id(), root.span_context.span_id());
        assert_eq!(root.status, Status::Ok);
        assert_eq!(other.status, Status::error("the device closed it"));
        let lasted = root.end_time.duration_since(root.start_time);
        assert_eq!(lasted.unwrap(), Duration::from_secs(3));
    }
}
