//! What the fuzz targets of parsers and of the hub do with their input. No dependency but the public items of
//! `common` and `hub`: `tests/tests/parsers.rs` compiles the same file and plays the corpora.

mod tables;

pub use tables::{legs_table, pending_table};

use common::connection_string::{DeviceConnectionString, ServiceConnectionString};
use common::hub_address::HubAddress;
use common::identity::{DeviceId, DeviceIdentity, ModuleId};
use common::sas_token::SasToken;
use common::wire::stream::{StreamAnswer, StreamRequest};
use common::wire::topics;
use common::wire::twin::TwinRequest;
use http::Method;
use hub::api::router::{self, Route};

/// The input as text; what is no text never comes to these parsers.
fn text(input: &[u8]) -> Option<&str> {
    std::str::from_utf8(input).ok()
}

/// MQTT topics, filters and user names. What is read as a request or an answer is read as the same
/// from what it is written as.
pub fn topics(input: &[u8]) {
    let Some(text) = text(input) else { return };
    // Ids may have characters that mean something in filters.
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

/// SAS tokens: none is for another host than its own, and none shows its signature.
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

/// Connection strings: what is read is read as the same from what it is written as.
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

/// A request line of HTTP: any method and any path give a call or a refusal, and a device's own
/// credential is never enough for what is not below that device.
pub fn http_routes(input: &[u8]) {
    let Some(text) = text(input) else { return };
    let (method, path) = text.split_once(' ').unwrap_or(("GET", text));
    let Ok(method) = Method::from_bytes(method.as_bytes()) else {
        return;
    };
    let Ok(Route::Rest(target)) = router::route(&method, path) else {
        return;
    };
    let access = &target.access;
    if let Some(device) = &access.owner {
        assert!(access.scope.starts_with(&format!("devices/{device}/")));
    }
    if let Err(refusal) = &target.call {
        let status = refusal.code.status().as_u16();
        assert!([400, 404, 405, 501].contains(&status));
        assert_eq!(refusal.allow.is_some(), status == 405);
    }
}
