//! The parsers of topics, SAS tokens and connection strings on any text.

use common::connection_string::{DeviceConnectionString, ServiceConnectionString};
use common::hub_address::HubAddress;
use common::identity::{DeviceId, DeviceIdentity, ModuleId};
use common::sas_token::SasToken;
use common::wire::report;
use common::wire::stream::{StreamAnswer, StreamRequest};
use common::wire::topics;
use common::wire::twin::TwinRequest;

/// The input as text: these parsers only get UTF-8.
fn text(input: &[u8]) -> Option<&str> {
    std::str::from_utf8(input).ok()
}

/// Parses MQTT topics, filters and user names, and the reports of devices. Requests, answers and
/// reports round-trip.
pub fn topics(input: &[u8]) {
    if let Some(read) = report::read(input) {
        assert_eq!(report::read(&report::write(&read)), Some(read));
    }
    let Some(text) = text(input) else { return };
    // Ids may have characters that have a meaning in filters.
    let device = DeviceId::parse("a+b#c").expect("an id");
    let module = ModuleId::parse("m").expect("an id");
    for module in [None, Some(module)] {
        let identity = DeviceIdentity {
            device: device.clone(),
            module,
        };
        let _ = topics::device_publish(&identity, text);
        let _ = topics::device_filter(&identity, text);
    }
    let _ = topics::canonical_filter(text);
    if let Ok(identity) = topics::identity_from_user_name(text) {
        let written = topics::user_name("h", &identity, "x");
        assert_eq!(topics::identity_from_user_name(&written), Ok(identity));
    }
    if let Ok(request) = StreamRequest::from_topic(text) {
        let topic = request.to_topic();
        let again = StreamRequest::from_topic(&topic).expect("what we write");
        assert_eq!(again.to_topic(), topic);
    }
    if let Some(answer) = StreamAnswer::from_topic(text) {
        let again = StreamAnswer::from_topic(&answer.to_topic()).expect("what we write");
        assert_eq!(again.to_topic(), answer.to_topic());
    }
    if let Some(request) = TwinRequest::from_topic(text) {
        let again = TwinRequest::from_topic(&request.to_topic()).expect("what we write");
        assert_eq!(again.to_topic(), request.to_topic());
    }
}

/// Parses SAS tokens: no token is valid for two hosts.
pub fn sas_token(input: &[u8]) {
    let Some(text) = text(input) else { return };
    let Ok(token) = SasToken::parse(text) else {
        return;
    };
    let hub = HubAddress::parse("myhub.example.net").expect("an address");
    let other = HubAddress::parse("other.example.org").expect("an address");
    let is_for = |hub| token.is_for(hub, "devices/dev1") || token.covers(hub, "devices/dev1");
    assert!(!(is_for(&hub) && is_for(&other)));
    let _ = (token.expiry(), token.policy(), token.names_only_host());
}

/// Parses connection strings, which round-trip.
pub fn connection_string(input: &[u8]) {
    let Some(text) = text(input) else { return };
    if let Ok(parsed) = DeviceConnectionString::parse(text) {
        let written = parsed.to_secret_text();
        assert!(DeviceConnectionString::parse(written.expose()) == Ok(parsed));
    }
    if let Ok(parsed) = ServiceConnectionString::parse(text) {
        let written = parsed.to_secret_text();
        assert!(ServiceConnectionString::parse(written.expose()) == Ok(parsed));
    }
}
