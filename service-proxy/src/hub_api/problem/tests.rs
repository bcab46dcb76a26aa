//! Sentences from status and body, as hubs send them (`docs/protocol.md`, "Errors over REST").

use std::time::UNIX_EPOCH;

use common::identity::{DeviceId, ModuleId};
use common::wire::problem::{BodyFamily, body};

use super::*;

const NOW: u64 = 1_700_000_000;

fn judged(status: u16, pairs: &[(&str, &str)], body: &str) -> InitiateError {
    let mut headers = HeaderMap::new();
    for (name, value) in pairs {
        headers.insert(
            http::HeaderName::from_bytes(name.as_bytes()).unwrap(),
            value.parse().unwrap(),
        );
    }
    let identity = DeviceIdentity::of_module(
        DeviceId::parse("MyDevice").unwrap(),
        ModuleId::parse("m").unwrap(),
    );
    Refusal {
        status: StatusCode::from_u16(status).unwrap(),
        headers,
        body: Bytes::copy_from_slice(body.as_bytes()),
    }
    .into_error(
        &Whom {
            hub: &HubAddress::parse("localhost:8443").unwrap(),
            policy: "service",
            token_path: None,
            token_expired: false,
            identity: Some(&identity),
            timeouts: Timeouts {
                connect: Duration::from_secs(30),
                response: Duration::from_secs(20),
            },
        },
        UNIX_EPOCH + Duration::from_secs(NOW),
    )
}

fn nested(code: ErrorCode) -> String {
    body(BodyFamily::Nested, code, "text", "id", "now").to_string()
}

fn date(seconds: u64) -> String {
    httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_secs(seconds))
}

#[test]
fn the_dossiers_offline_device() {
    let text = r#"{"Message":"{\"errorCode\":404103,\"trackingId\":\"0123456789abcdef0123456789abcdef-TimeStamp:11/14/2023 22:13:20\",\"message\":\"Timed out waiting for device to connect.\",\"info\":{\"timeout\":\"00:00:30\"},\"timestampUtc\":\"2023-11-14T22:13:20.0000000Z\"}","ExceptionMessage":""}"#;
    let expected = InitiateError::DeviceOffline {
        waited: Duration::from_secs(30),
    };
    assert_eq!(judged(404, &[], text), expected);
    // The header alone tells it too.
    let named = judged(404, &[("iothub-errorcode", "DeviceNotOnline")], "");
    assert_eq!(named, expected);
    assert!(expected.to_string().contains("waited 30 s"), "{expected}");
}

#[test]
fn every_code_has_its_error() {
    let code = |code: ErrorCode| judged(code.status().as_u16(), &[], &nested(code));
    assert_eq!(
        code(ErrorCode::DEVICE_NOT_FOUND),
        InitiateError::UnknownDevice("MyDevice".into())
    );
    assert_eq!(
        code(ErrorCode::MODULE_NOT_FOUND),
        InitiateError::UnknownModule("MyDevice/m".into())
    );
    assert_eq!(
        code(ErrorCode::GATEWAY_TIMEOUT),
        InitiateError::NoAnswer {
            waited: Duration::from_secs(20)
        }
    );
    assert_eq!(
        code(ErrorCode::THROTTLING),
        InitiateError::Throttled {
            why: Some("text".into()),
            retry_after: None
        }
    );
    let registry = r#"{"Message":"ErrorCode:DeviceNotFound;Device x not registered","ExceptionMessage":"Tracking ID:1"}"#;
    assert!(matches!(
        judged(404, &[], registry),
        InitiateError::UnknownDevice(_)
    ));
}

#[test]
fn unauthorised_or_a_wrong_clock() {
    let text = nested(ErrorCode::UNAUTHORIZED_ACCESS);
    let error = |seconds: u64| judged(401, &[("date", &date(seconds))], &text);
    for near in [NOW, NOW - 299, NOW + 299] {
        let error = error(near);
        assert!(error.to_string().contains("policy `service`"), "{error}");
    }
    let behind = error(NOW + 3600).to_string();
    assert!(
        behind.contains("clock is 60 min behind the hub's"),
        "{behind}"
    );
    let ahead = error(NOW - 601).to_string();
    assert!(
        ahead.contains("clock is 10 min ahead of the hub's"),
        "{ahead}"
    );
    assert!(matches!(
        judged(401, &[], ""),
        InitiateError::Unauthorised { .. }
    ));
}

#[test]
fn retry_after_is_seconds_or_a_date() {
    let after = |text: &str| match judged(429, &[("retry-after", text)], "") {
        InitiateError::Throttled { retry_after, .. } => retry_after,
        other => panic!("{other}"),
    };
    assert_eq!(after("7"), Some(Duration::from_secs(7)));
    assert_eq!(after(&date(NOW + 9)), Some(Duration::from_secs(9)));
    assert_eq!(after(&date(NOW - 9)), Some(Duration::ZERO));
    assert_eq!(after("soon"), None);
}

#[test]
fn anything_else_is_told_as_it_is() {
    let error = judged(503, &[], &nested(ErrorCode::SERVICE_UNAVAILABLE));
    assert_eq!(
        error.to_string(),
        "the hub refuses with status 503 Service Unavailable: text"
    );
    let error = judged(500, &[], "<html>\x07");
    assert_eq!(
        error.to_string(),
        "the hub refuses with status 500 Internal Server Error"
    );
    let error = judged(404, &[], "not found");
    assert!(error.to_string().contains("really a hub"), "{error}");
}

#[test]
fn what_can_cure_it() {
    let code = |code: ErrorCode| judged(code.status().as_u16(), &[], &nested(code)).verdict();
    assert_eq!(code(ErrorCode::UNAUTHORIZED_ACCESS), Verdict::AskPerson);
    assert_eq!(code(ErrorCode::DEVICE_NOT_FOUND), Verdict::Never);
    for passing in [
        ErrorCode::DEVICE_NOT_ONLINE,
        ErrorCode::GATEWAY_TIMEOUT,
        ErrorCode::THROTTLING,
        ErrorCode::SERVICE_UNAVAILABLE,
    ] {
        assert_eq!(code(passing), Verdict::Retry);
    }
}

#[test]
fn a_cause_stands_behind_what_it_caused_and_once() {
    let error = InitiateError::Unreachable {
        hub: "localhost:8443".into(),
        why: Unreachable::Timeout(Duration::from_secs(10)),
    };
    assert_eq!(
        common::report::chain(&error),
        "hub localhost:8443 cannot be reached (is it running, and is HostName right?): no connection within 10 s"
    );
}
