//! What every path means, and to whom.

use common::hub_address::HubAddress;
use common::identity::DeviceIdentity;
use proptest::prelude::*;

use super::table::patterns;
use super::*;
use crate::documents;
use crate::registry::Permissions;
use crate::streaming;

const METHODS: [Method; 7] = [
    Method::GET,
    Method::PUT,
    Method::POST,
    Method::DELETE,
    Method::PATCH,
    Method::HEAD,
    Method::OPTIONS,
];

fn rest(method: &Method, path: &str) -> Target {
    match route(method, path) {
        Ok(Route::Rest(target)) => *target,
        other => panic!("{method} {path} is {other:?}"),
    }
}

fn code(method: &Method, path: &str) -> u32 {
    rest(method, path).call.map_or_else(
        |refusal| refusal.code.number,
        |call| panic!("{path} is {call:?}"),
    )
}

fn id(device: &str, module: Option<&str>) -> DeviceIdentity {
    documents::id(device, module).unwrap()
}

#[test]
fn each_pattern_finds_its_own_resource() {
    for (pattern, resource) in patterns() {
        let path = pattern.replace("{*rest}", "x/y").replace(['{', '}'], "");
        let (found, _) = table::find(&path).unwrap_or_else(|| panic!("{path} is nowhere"));
        assert_eq!(found, resource, "{path}");
    }
}

#[test]
fn a_device_owns_its_modules_and_nothing_else() {
    let owner = |path: &str| {
        let owner = rest(&Method::GET, path).access.owner;
        owner.map(|id| id.to_string())
    };
    let own = Some("d".to_owned());
    assert_eq!(owner("/devices/d/modules"), own);
    assert_eq!(owner("/devices/d/modules/m"), own);
    for path in [
        "/devices",
        "/devices/d",
        "/devices/query",
        "/devices/d/commands",
        "/devices/d/modules/m/x",
        "/devices/a%2Fb/modules/m",
        "/Devices/d/modules/m",
        "/twins/d/modules/m",
        "/statistics/devices",
    ] {
        assert_eq!(owner(path), None, "{path:?}");
    }
}

#[test]
fn permissions_and_foreign_paths() {
    let needs = |method, path: &str| rest(&method, path).access.permission;
    assert_eq!(needs(Method::GET, "/devices/d"), Permission::RegistryRead);
    for method in [Method::PUT, Method::DELETE, Method::POST] {
        assert_eq!(needs(method, "/devices/d"), Permission::RegistryWrite);
    }
    for (method, path, permission) in [
        (Method::POST, "/devices/query", Permission::Query),
        (Method::GET, "/devices/query", Permission::RegistryRead),
        (
            Method::POST,
            "/devices/d/messages/events",
            Permission::RegistryWrite,
        ),
        (Method::POST, "/devices/a b/files", Permission::Any),
        (Method::GET, "/twins/d", Permission::TwinRead),
        (Method::GET, "/twins/d/modules/m", Permission::TwinRead),
        (Method::PATCH, "/twins/d", Permission::ServiceConnect),
        (Method::PUT, "/twins/d", Permission::ServiceConnect),
        (Method::GET, "/jobs/v2/query", Permission::JobsRead),
        (Method::GET, "/jobs/v2/j", Permission::JobsRead),
        (Method::PUT, "/jobs/v2/j", Permission::Jobs),
        (Method::POST, "/jobs/v2/j/cancel", Permission::Jobs),
        (Method::POST, "/jobs/create", Permission::RegistryWrite),
        (Method::GET, "/twins", Permission::Any),
        (Method::GET, "/twins/d/modules", Permission::Any),
        (Method::GET, "/", Permission::Any),
    ] {
        assert_eq!(needs(method.clone(), path), permission, "{method} {path}");
    }
    let reader = Permissions {
        registry_read: true,
        ..Permissions::default()
    };
    assert!(Permission::RegistryRead.is_met_by(reader));
    assert!(!Permission::RegistryWrite.is_met_by(reader));
    assert!(!Permission::RegistryRead.is_met_by(Permissions::default()));
    let service = Permissions {
        service_connect: true,
        ..Permissions::default()
    };
    for permission in [Permission::Query, Permission::JobsRead] {
        assert!(permission.is_met_by(reader) && permission.is_met_by(service));
    }
    let twins = Permissions {
        twin_read: true,
        ..Permissions::default()
    };
    assert!(Permission::TwinRead.is_met_by(twins) && Permission::Query.is_met_by(twins));
    assert!(Permission::TwinRead.is_met_by(service) && !Permission::TwinRead.is_met_by(reader));
    for permission in [
        Permission::RegistryRead,
        Permission::ServiceConnect,
        Permission::Jobs,
        Permission::JobsRead,
    ] {
        assert!(!permission.is_met_by(twins), "{permission:?}");
    }
    assert!(!Permission::Query.is_met_by(Permissions {
        device_connect: true,
        ..Permissions::default()
    }));
}

#[test]
fn refusals_come_in_their_order() {
    for (method, path, refused) in [
        (Method::PUT, "/twins/a b", 400_004),
        (Method::DELETE, "/twins/a b", 405_000),
        (Method::POST, "/twins/a b/methods", 400_004),
        (Method::GET, "/twins/a b/methods", 405_000),
        (Method::POST, "/devices/a b/files", 501_000),
        (Method::GET, "/nothing", 404_000),
        (Method::GET, "/twins/d/streams", 404_000),
        (Method::GET, "/twins/d/methods/x", 404_000),
        (Method::POST, "/devices/query/x", 404_000),
        (Method::GET, "/twins/a b/streams/s", 405_000),
        (Method::PATCH, "/devices/a b", 405_000),
        (Method::GET, "/devices/a b", 400_004),
        (Method::POST, "/twins/d/streams/a b", 400_004),
        (Method::GET, "/devices/d/modules/..", 400_004),
    ] {
        assert_eq!(code(&method, path), refused, "{method} {path}");
    }
}

#[test]
fn what_is_there_is_not_missing() {
    for (method, path) in [
        (Method::GET, "/twins/d"),
        (Method::GET, "/twins/d/modules/m"),
        (Method::GET, "/devices"),
        (Method::POST, "/devices/query"),
        (Method::PUT, "/devices/query"),
        (Method::PUT, "/devices/d"),
        (Method::GET, "/devices/d/modules"),
        (Method::GET, "/devices/query/modules"),
        (Method::GET, "/statistics/devices"),
        (Method::POST, "/twins/d/modules/m/streams/s"),
        (Method::PATCH, "/twins/d"),
        (Method::PUT, "/twins/d/modules/m"),
        (Method::POST, "/twins/d/methods"),
        (Method::POST, "/twins/d/modules/m/methods"),
    ] {
        assert!(rest(&method, path).call.is_ok(), "{method} {path}");
    }
}

#[test]
fn ids_are_decoded_once() {
    let path = "//%64evices/a%2Bb%25/modules/m%2F/";
    assert_eq!(code(&Method::GET, path), 400_004);
    let target = rest(&Method::GET, "/devices/a%2Bb%2525/modules/m/");
    assert_eq!(target.access.scope.below, "devices/a+b%25/modules/m");
    let Ok(Call::Identities(identities::Call::Read(found))) = target.call else {
        panic!("{target:?}");
    };
    assert_eq!(found, id("a+b%25", Some("m")));
    assert!(route(&Method::GET, "/devices/%ff").is_err());
}

#[test]
fn legs_find_their_stream_by_their_url() {
    let hub = HubAddress::parse("myhub.example.net").unwrap();
    let stream = StreamId::random();
    let url = streaming::url(&hub, &id("a+b%c", None), stream, Leg::Device);
    let path = url.strip_prefix("wss://myhub.example.net:443").unwrap();
    for (path, leg) in [
        (path, Some((stream, Leg::Device))),
        ("/bridges", None),
        ("/bridges/x", None),
        ("/bridges/ih/h/d/d/sid/x/r/device", None),
    ] {
        let found = route(&Method::GET, path).unwrap();
        assert!(matches!(found, Route::Leg(found) if found == leg), "{path}");
    }
    assert!(matches!(
        route(&Method::PUT, MQTT_WEBSOCKET_PATH),
        Ok(Route::Mqtt)
    ));
}

/// Paths near those that there are, and any others.
fn paths() -> impl Strategy<Value = String> {
    let word = prop_oneof![
        4 => proptest::sample::select(
            patterns().flat_map(|(pattern, _)| pattern.split('/')).collect::<Vec<_>>()
        ).prop_map(str::to_owned),
        2 => proptest::sample::select(vec!["d", "query", "a%2Fb", "%00", "%ff", "%", "..", "{", ""])
            .prop_map(str::to_owned),
        1 => ".{0,8}",
    ];
    prop_oneof![
        3 => proptest::collection::vec(word, 0..9).prop_map(|words| format!("/{}", words.join("/"))),
        1 => ".{0,40}",
    ]
}

proptest! {
    #[test]
    fn any_request_is_a_call_or_a_refusal(
        method in proptest::sample::select(METHODS.to_vec()),
        path in paths(),
    ) {
        match route(&method, &path) {
            Ok(Route::Rest(target)) => {
                let is_wrong = |code| (400..=501).contains(&code);
                if let Err(refusal) = &target.call {
                    prop_assert!(is_wrong(refusal.code.number / 1_000));
                    let has_methods = refusal.allow.is_some();
                    prop_assert_eq!(has_methods, refusal.code == ErrorCode::METHOD_NOT_ALLOWED);
                }
                // A device owns nothing outside of its own path.
                if let Some(device) = &target.access.owner {
                    let own = format!("devices/{device}/");
                    prop_assert!(target.access.scope.below.starts_with(&own));
                }
            }
            Ok(Route::Leg(_)) => prop_assert!(path.contains("ridges") || path.contains('%')),
            Ok(Route::Mqtt) => prop_assert_eq!(path, MQTT_WEBSOCKET_PATH),
            Ok(Route::Enrolment) => prop_assert_eq!(path, common::enrolment::PATH),
            Ok(Route::Provider | Route::Login) => {
                prop_assert_eq!(path, common::wire::access::LOGIN_PATH);
            }
            Err(refusal) if [common::enrolment::PATH, common::wire::access::LOGIN_PATH].contains(&&*path) => {
                prop_assert_eq!(refusal.code, ErrorCode::METHOD_NOT_ALLOWED);
            }
            Err(refusal) => prop_assert_eq!(refusal.code, ErrorCode::ARGUMENT_INVALID),
        }
    }
}
