//! What `device-proxy status` shows: the hub session, the targets, and what goes to them.

use common::status;
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::config::Config;
use crate::forwarding::Way;
use crate::streams::Streams;

/// Streams of one document, at most.
const MOST: usize = 1000;

/// The document.
pub(crate) fn document(streams: &Streams, config: &Config, started: Instant) -> Value {
    let program = env!("CARGO_PKG_NAME");
    let mut document = status::about(program, env!("CARGO_PKG_VERSION"), started);
    let connection = &config.connection;
    let mut hub = status::members(json!({
        "host": connection.host.to_string(),
        "device": connection.identity.to_string(),
    }));
    let (state, since) = streams.hub_session();
    hub.insert("state".to_owned(), state.into());
    hub.insert(
        "stateSeconds".to_owned(),
        status::seconds(since.elapsed()).into(),
    );
    document.insert("hubs".to_owned(), json!([hub]));
    document.insert(
        "targets".to_owned(),
        json!(streams.policy().borrow().targets.lines()),
    );
    document.insert("sessions".to_owned(), streams.session_status().into());
    let (_, open) = streams.forwardings().list(0, usize::MAX);
    let in_streams = open
        .iter()
        .filter(|open| matches!(open.way, Way::Stream(_)));
    let in_streams = in_streams.take(MOST).map(|open| {
        json!({
            "id": open.id(),
            "target": open.name,
            "upSeconds": status::seconds(open.since.elapsed()),
            // As both proxies count: from the local socket into the stream.
            "sent": open.traffic.sent(),
            "received": open.traffic.received(),
        })
    });
    document.insert("streams".to_owned(), in_streams.collect::<Vec<_>>().into());
    let totals = streams.forwardings().totals();
    document.insert(
        "totals".to_owned(),
        json!({
            "open": totals.active,
            "opened": totals.opened,
            "sent": totals.bytes_out,
            "received": totals.bytes_in,
        }),
    );
    if let Some(error) = totals.last_error {
        document.insert(
            "lastError".to_owned(),
            json!({ "time": error.time, "message": error.message }),
        );
    }
    Value::Object(document)
}
