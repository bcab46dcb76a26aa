//! What a hub sends to the proxies, which believe none of it before they have read it.

use common::enrolment::{Code, Invitation};
use common::hub_address::HubAddress;
use common::net::{exchange, exchange_with_body};
use common::streaming_hosts::StreamingHosts;
use common::wire::initiation::{InitiationResult, Timeouts};
use common::wire::message::Properties;
use common::wire::method::{MethodRequest, MethodResponse};
use common::wire::problem::Problem;
use common::wire::twin::{DesiredChange, SessionReport, TwinResponse};
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::pieces::{Pieces, finished};

/// Gives a hub's bytes to everything in the proxies that reads them.
pub fn run(input: &[u8]) {
    answer(input);
    let _ = Problem::from_body(input);
    if let Ok(twin) = serde_json::from_slice(input)
        && let Some(report) = SessionReport::from_twin(&twin)
    {
        let patch = serde_json::json!({"properties": {"reported": report.to_patch()}});
        assert_eq!(SessionReport::from_twin(&patch), Some(report));
    }
    let Ok(text) = std::str::from_utf8(input) else {
        return;
    };
    endpoint(text);
    topics(text);
    codes(text);
    let headers = headers(text);
    let _ = InitiationResult::from_headers(&headers);
    if let Ok(timeouts) = Timeouts::from_headers(&headers) {
        assert!(timeouts.connect.as_secs() <= 60 && timeouts.response.as_secs() <= 60);
    }
}

/// A URL to which a proxy would go names a host that it may go to.
fn endpoint(text: &str) {
    for hub in ["hub.example.net:8443", "myhub.azure-devices.net"] {
        let hub = HubAddress::parse(hub).expect("an address");
        let Ok(endpoint) = StreamingHosts::new([&hub], None).check(text) else {
            continue;
        };
        let host = endpoint.host().to_ascii_lowercase();
        // A full host name ends with a dot.
        let host = host.strip_suffix('.').unwrap_or(&host);
        let is_azure =
            hub.name().ends_with(".azure-devices.net") && host.ends_with(".azure-devices.net");
        assert!(host == hub.name() || is_azure, "{host}");
        assert_eq!(endpoint.uri().scheme_str(), Some("wss"));
        assert_ne!(endpoint.port(), 0);
    }
}

fn topics(text: &str) {
    if let Some(request) = MethodRequest::from_topic(text) {
        let again = MethodRequest::from_topic(&request.to_topic()).expect("what we write");
        assert_eq!(again.to_topic(), request.to_topic());
    }
    if let Some(response) = MethodResponse::from_topic(text) {
        let again = MethodResponse::from_topic(&response.to_topic()).expect("what we write");
        assert_eq!(again.to_topic(), response.to_topic());
    }
    if let Some(response) = TwinResponse::from_topic(text) {
        let again = TwinResponse::from_topic(&response.to_topic()).expect("what we write");
        assert_eq!(again.to_topic(), response.to_topic());
    }
    if let Some(change) = DesiredChange::from_topic(text) {
        let again = DesiredChange::from_topic(&change.to_topic()).expect("what we write");
        assert_eq!(again.to_topic(), change.to_topic());
    }
    let properties = Properties::from_text(text);
    let written = properties.to_text();
    assert_eq!(Properties::from_text(&written).to_text(), written);
}

/// Codes are typed by people; those that are read say which hub is to be asked.
fn codes(text: &str) {
    if let Ok(code) = Code::parse(text) {
        let again = Code::parse(code.to_text().expose()).expect("what we write");
        assert_eq!(again.fingerprint(), code.fingerprint());
    }
    if let Ok(invitation) = text.parse::<Invitation>() {
        let written = invitation.to_text();
        let again: Invitation = written.expose().parse().expect("what we write");
        assert!(again.to_text().expose() == written.expose());
    }
}

fn headers(text: &str) -> HeaderMap {
    let parse = |line: &str| {
        let (name, value) = line.split_once(": ")?;
        let name = HeaderName::from_bytes(name.as_bytes()).ok()?;
        Some((name, HeaderValue::from_str(value).ok()?))
    };
    text.lines().filter_map(parse).collect()
}

/// The answer to a request, in pieces of a size that its first byte says.
fn answer(input: &[u8]) {
    const MOST: usize = 1_000;
    let Some((size, bytes)) = input.split_first() else {
        return;
    };
    let piece = usize::from(*size) + 1;
    let mut stream = Pieces::new(bytes, piece);
    if let Ok((_, rest)) = finished(exchange(&mut stream, b"GET / HTTP/1.1\r\n\r\n")) {
        // What stands behind the head is given, and no byte twice.
        assert!(bytes.ends_with(stream.unread()));
        let before = bytes.len() - stream.unread().len();
        assert!(
            bytes
                .get(..before)
                .is_some_and(|read| read.ends_with(&rest))
        );
    }
    let mut stream = Pieces::new(bytes, piece);
    if let Ok((_, body)) = finished(exchange_with_body(&mut stream, b"", MOST)) {
        assert!(body.len() <= MOST);
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn corpus() {
        crate::corpus::play("hub_answers", super::run);
    }
}
