//! Streams as spans of OpenTelemetry: how each was opened, and then how long it was open. A stream's
//! id is its trace's, so the spans of both proxies are below its own.

use std::time::Duration;

use common::otel::{Span, Trace, is_on, send};
use common::report::chain;

use super::{Event, Outcome, Stream};

/// Gives the end of something to the collector, if there is one.
pub(super) fn write(event: &Event<'_>) {
    if let Event::Stream(stream, outcome) = event
        && is_on()
        && let Some(span) = span(stream, outcome)
    {
        send(span);
    }
}

fn span(stream: &Stream<'_>, outcome: &Outcome<'_>) -> Option<Span> {
    let of = |name, is_root, duration, end, is_failure| Span {
        trace: Trace::Stream(*stream.id),
        is_root,
        name,
        duration,
        attributes: vec![
            ("device", stream.device.to_string()),
            ("name", stream.name.to_owned()),
            ("policy", stream.policy.to_owned()),
            ("peer", stream.peer.to_string()),
        ],
        bytes: None,
        end,
        is_failure,
    };
    const OPENING: &str = "stream opening";
    let failed = |why: String| of(OPENING, true, Duration::ZERO, why, true);
    match outcome {
        Outcome::Established { opening } => Some(of(
            OPENING,
            false,
            *opening,
            "both legs have come".to_owned(),
            false,
        )),
        Outcome::Closed {
            to_device,
            to_service,
            duration,
            end,
            kind,
            ..
        } => Some(Span {
            bytes: Some([("to_device", *to_device), ("to_service", *to_service)]),
            ..of("stream", true, *duration, chain(*end), *kind != "closed")
        }),
        Outcome::Rejected => Some(failed("the device rejects it".to_owned())),
        Outcome::NotAnswered { reason, .. } | Outcome::Unpaired { reason, .. } => {
            Some(failed(chain(*reason)))
        }
        Outcome::Accepted | Outcome::GivenUp => None,
    }
}
