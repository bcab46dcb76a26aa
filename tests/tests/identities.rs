//! Identities as clients manage them: a device's modules by the device itself, the setup of Azure's
//! C end-to-end tests call by call, and the time of last activity.

use common::clock::unix_now;
use common::connection_string::{DeviceConnectionString, DeviceCredential};
use common::mqtt::ConnectReturnCode;
use common::sas_token;
use common::secret::SharedKey;
use hub::registry::{ActivityRecord, Authentication, Status};
use reqwest::{Method, Response};
use serde_json::{Value, json};
use tests::raw_device::password;
use tests::raw_service::{accepted, refusal};
use tests::{RawDevice, RawService, TestHub, soon};

const VERSION: &str = "api-version=2020-09-30";

fn key(connection: &DeviceConnectionString) -> SharedKey {
    match &connection.credential {
        DeviceCredential::Key { key, .. } => key.clone(),
        _ => panic!("no key"),
    }
}

/// Calls with a token for this resource, signed with this key.
fn caller(hub: &TestHub, resource: &str, key: &SharedKey) -> RawService {
    let token = sas_token::mint(resource, key, None, unix_now() + 3600);
    RawService::with_token(hub, token.expose().to_owned())
}

async fn call(caller: &RawService, method: Method, path: &str, body: Value) -> Response {
    // As clients do: `If-Match` on updates and deletions only.
    let mut request = caller.call(method.clone(), &format!("{path}?{VERSION}"));
    if method == Method::PUT {
        request = request.body(body.to_string());
        if body.get("update").is_some() {
            request = request.header("If-Match", "*");
        }
    }
    if method == Method::DELETE {
        request = request.header("If-Match", "*");
    }
    soon("an answer", request.send()).await.unwrap()
}

async fn document(response: Response) -> Value {
    assert_eq!(response.status(), 200);
    serde_json::from_slice(&response.bytes().await.unwrap()).unwrap()
}

const NO: (u16, u32) = (401, 401_002);

#[tokio::test]
async fn a_device_manages_its_own_modules() {
    let hub = TestHub::start().await;
    let device = hub.create("dev").await;
    let found = hub.state.registry.identity(&device.identity).await;
    let Authentication::Sas { primary, secondary } = found.unwrap().unwrap().authentication else {
        panic!("no keys")
    };
    for key in [&primary, &secondary] {
        let own = caller(&hub, "localhost/devices/dev", key);
        let path = "/devices/dev/modules/m";
        let made = json!({ "moduleId": "m", "deviceId": "dev", "managedBy": "a" });
        let made = document(call(&own, Method::PUT, path, made).await).await;
        assert_eq!(made["managedBy"], "a");
        let again = call(&own, Method::PUT, path, json!({})).await;
        assert_eq!(refusal(again).await, (409, 409_301));
        let change = json!({ "update": true, "managedBy": "b" });
        let changed = document(call(&own, Method::PUT, path, change).await).await;
        assert_eq!(changed["managedBy"], "b");
        let read = document(call(&own, Method::GET, path, Value::Null).await).await;
        assert_eq!(read, changed);
        let list = call(&own, Method::GET, "/devices/dev/modules", Value::Null).await;
        assert_eq!(document(list).await, json!([read]));
        let deleted = call(&own, Method::DELETE, path, Value::Null).await;
        assert_eq!(deleted.status(), 204);
        let gone = call(&own, Method::GET, path, Value::Null).await;
        assert_eq!(refusal(gone).await, (404, 404_010));
    }
}

#[tokio::test]
async fn a_devices_credential_is_good_for_nothing_else() {
    let hub = TestHub::start().await;
    let device = hub.create("dev").await;
    for other in ["dev2", "Dev", "de"] {
        hub.create(other).await;
        hub.create(&format!("{other}/m")).await;
    }
    hub.create("dev/m").await;
    let own = caller(&hub, "localhost/devices/dev", &key(&device));
    for (method, path) in [
        // Its own identity, others, and all.
        (Method::GET, "/devices/dev"),
        (Method::PUT, "/devices/dev"),
        (Method::DELETE, "/devices/dev"),
        (Method::PUT, "/devices/new"),
        (Method::GET, "/devices"),
        (Method::POST, "/devices"),
        (Method::GET, "/statistics/devices"),
        (Method::GET, "/twins/dev"),
        (Method::GET, "/twins/dev/modules/m"),
        (Method::POST, "/twins/dev/streams/s"),
        (Method::POST, "/twins/dev/modules/m/streams/s"),
        // Other devices' modules, with every spelling of the name.
        (Method::GET, "/devices/dev2/modules"),
        (Method::GET, "/devices/dev2/modules/m"),
        (Method::PUT, "/devices/dev2/modules/new"),
        (Method::DELETE, "/devices/dev2/modules/m"),
        (Method::GET, "/devices/Dev/modules/m"),
        (Method::GET, "/devices/%44ev/modules/m"),
        (Method::GET, "/devices/de/modules/m"),
        (Method::GET, "/devices/dev%2Fmodules%2Fm/modules/m"),
        (Method::GET, "/devices/dev%2F..%2Fdev2/modules/m"),
        (Method::GET, "/devices/dev%00/modules/m"),
        (Method::GET, "/devices/dev%20/modules/m"),
    ] {
        let response = call(&own, method.clone(), path, json!({})).await;
        assert_eq!(response.status(), 401, "{method} {path}");
    }
    let query = call(&own, Method::POST, "/devices/query", json!({})).await;
    assert!(query.status().is_client_error());
    // A slash in the module's name does not name another resource.
    let bent = call(
        &own,
        Method::GET,
        "/devices/dev/modules/m%2F..%2F..",
        Value::Null,
    )
    .await;
    assert_eq!(refusal(bent).await.0, 400);
    assert!(
        hub.state
            .registry
            .identity(&device.identity)
            .await
            .unwrap()
            .is_some()
    );
    let page = hub.state.registry.devices(None, 99).await.unwrap();
    let devices = page.identities;
    assert_eq!(devices.len(), 4, "nothing was made or deleted");
}

#[tokio::test]
async fn only_the_devices_own_credential_will_do() {
    let hub = TestHub::start().await;
    let device = hub.create("dev").await;
    let other = hub.create("dev2").await;
    let module = hub.create("dev/m").await;
    let path = "/devices/dev/modules/m";
    let get = async |caller: &RawService| call(caller, Method::GET, path, Value::Null).await;
    let (own, module_key) = (key(&device), key(&module));
    for (resource, key) in [
        ("localhost/devices/dev", &key(&other)),
        ("localhost/devices/dev", &module_key),
        ("localhost/devices/dev", &SharedKey::random()),
        ("localhost/devices/dev/modules/m", &module_key),
        ("localhost/devices/dev/modules/m", &own),
        ("localhost/devices/dev2", &own),
        ("localhost/devices/DEV", &own),
        ("localhost/devices/de", &own),
        ("localhost/devices", &own),
        ("localhost", &own),
        ("elsewhere/devices/dev", &own),
        ("localhost/devices/nobody", &own),
    ] {
        let response = get(&caller(&hub, resource, key)).await;
        assert_eq!(refusal(response).await, NO, "{resource}");
    }
    let expired = RawService::with_token(&hub, password(&device, unix_now() - 3600));
    assert_eq!(refusal(get(&expired).await).await, (401, 401_003));
    // A token with a policy's name is checked as that policy's.
    let policy = sas_token::mint(
        "localhost/devices/dev",
        &own,
        Some("device"),
        unix_now() + 60,
    );
    let policy = RawService::with_token(&hub, policy.expose().to_owned());
    assert_eq!(refusal(get(&policy).await).await, NO);
    // The rights of services are unchanged.
    let reader = RawService::with_policy(&hub, "registryRead").await;
    assert_eq!(get(&reader).await.status(), 200);
    let change = call(&reader, Method::DELETE, path, Value::Null).await;
    assert_eq!(refusal(change).await, NO);

    let good = caller(&hub, "localhost/devices/dev", &own);
    assert_eq!(get(&good).await.status(), 200);
    hub.set_status("dev", Status::Disabled).await;
    assert_eq!(refusal(get(&good).await).await, NO);
    hub.set_status("dev", Status::Enabled).await;
    assert_eq!(get(&good).await.status(), 200);
    hub.delete("dev").await;
    assert_eq!(refusal(get(&good).await).await, NO);

    // A device without keys has no valid token.
    for authentication in [Authentication::None, Authentication::CertificateAuthority] {
        hub.create_with("keyless", authentication).await;
        let caller = caller(&hub, "localhost/devices/keyless", &own);
        let path = "/devices/keyless/modules";
        let response = call(&caller, Method::GET, path, Value::Null).await;
        assert_eq!(refusal(response).await, NO);
        hub.delete("keyless").await;
    }
}

/// The calls of `iothubclient_mqtt_mod_ds_e2e` of Azure's C SDK, with the bodies that its service
/// client writes.
#[tokio::test]
async fn the_set_up_of_azures_c_tests() {
    let hub = TestHub::start().await;
    let owner = RawService::with_policy(&hub, "iothubowner").await;
    let keys = json!({ "primaryKey": "", "secondaryKey": "" });
    let body = json!({
        "deviceId": "e2e", "status": "enabled", "capabilities": { "iotEdge": false },
        "authentication": { "type": "sas", "symmetricKey": keys },
    });
    let device = document(call(&owner, Method::PUT, "/devices/e2e", body).await).await;
    let device_key = device["authentication"]["symmetricKey"]["primaryKey"].as_str();
    let device_key = SharedKey::parse(device_key.unwrap()).unwrap();

    // From here on with the device's connection string.
    let own = caller(&hub, "localhost/devices/e2e", &device_key);
    let path = "/devices/e2e/modules/TestModule";
    let body = json!({
        "deviceId": "e2e", "moduleId": "TestModule", "managedBy": "TestManagedBy1",
        "status": "enabled", "authentication": { "type": "none" },
    });
    let module = document(call(&own, Method::PUT, path, body).await).await;
    assert_eq!(module["moduleId"], "TestModule");
    assert_eq!(module["deviceId"], "e2e");
    assert_eq!(module["managedBy"], "TestManagedBy1");
    assert_eq!(module["authentication"]["type"], "none");
    let no_keys = json!({ "primaryKey": null, "secondaryKey": null });
    assert_eq!(module["authentication"]["symmetricKey"], no_keys);

    let body = json!({
        "deviceId": "e2e", "moduleId": "TestModule", "managedBy": "TestManagedBy2",
        "status": "enabled", "authentication": { "type": "sas", "symmetricKey": keys },
        "update": true,
    });
    document(call(&own, Method::PUT, path, body).await).await;
    let module = document(call(&own, Method::GET, path, Value::Null).await).await;
    assert_eq!(module["managedBy"], "TestManagedBy2");
    assert_eq!(module["authentication"]["type"], "sas");
    let module_key = module["authentication"]["symmetricKey"]["primaryKey"].as_str();
    let module_key = SharedKey::parse(module_key.unwrap()).unwrap();
    assert_ne!(module_key, device_key, "empty keys are made");

    // The module connects with the device's key; its own would do as well.
    let mut connection = DeviceConnectionString {
        host: hub.state.address.clone(),
        identity: tests::hub::identity("e2e/TestModule"),
        credential: DeviceCredential::Key {
            key: module_key,
            policy: None,
        },
        gateway: None,
    };
    let token = password(&connection, unix_now() + 3600);
    let mut first = RawDevice::open(&hub).await;
    let verdict = first.hello(&connection, &token).await;
    assert_eq!(verdict, ConnectReturnCode::Accepted);
    connection.credential = DeviceCredential::Key {
        key: device_key,
        policy: None,
    };
    let mut module = RawDevice::connect(&hub, &connection).await;
    for accept in [true, false] {
        let stream = format!("/twins/e2e/modules/TestModule/streams/iothubclient_e2etest_{accept}");
        let initiation = owner
            .call(Method::POST, &format!("{stream}?{VERSION}"))
            .header("iothub-streaming-connect-timeout-in-seconds", "60")
            .header("iothub-streaming-response-timeout-in-seconds", "60")
            .send();
        let (response, request) = tokio::join!(initiation, async {
            let request = module.request().await;
            module.answer(&request, accept).await;
            request
        });
        let response = response.unwrap();
        if accept {
            let (url, token) = accepted(&response);
            let _ours = module.leg(&request).await;
            let _theirs = owner.leg(&url, &token).await;
        } else {
            assert_eq!(response.headers()["iothub-streaming-is-accepted"], "False");
        }
    }
    let deleted = call(&owner, Method::DELETE, "/devices/e2e", Value::Null).await;
    assert_eq!(deleted.status(), 204);
    module.ended().await;
}

#[tokio::test]
async fn the_last_activity_of_an_identity_survives_the_hub() {
    const NEVER: &str = "0001-01-01T00:00:00Z";
    let hub = TestHub::start().await;
    let connection = hub.create("d").await;
    let times = async |hub: &TestHub| {
        let owner = RawService::with_policy(hub, "iothubowner").await;
        let read = async |path| document(call(&owner, Method::GET, path, Value::Null).await).await;
        let (identity, twin) = (read("/devices/d").await, read("/twins/d").await);
        for name in [
            "connectionState",
            "connectionStateUpdatedTime",
            "lastActivityTime",
        ] {
            assert_eq!(identity[name], twin[name]);
        }
        [
            "connectionState",
            "connectionStateUpdatedTime",
            "lastActivityTime",
        ]
        .map(|name| identity[name].as_str().unwrap().to_owned())
    };
    assert_eq!(times(&hub).await, ["Disconnected", NEVER, NEVER]);

    let mut device = RawDevice::connect(&hub, &connection).await;
    let [state, connected, active] = times(&hub).await;
    assert_eq!(state, "Connected");
    assert!(NEVER < connected.as_str() && connected <= active);
    // Activity while connected: only the second time changes.
    device.subscribe_twin().await;
    let [_, same, later] = times(&hub).await;
    assert_eq!(same, connected);
    assert!(active < later, "{active} {later}");
    // A ping is activity, but no message.
    device.io.write(&[0xc0, 0]).await.unwrap();
    device.packet().await;
    assert_eq!(times(&hub).await[2], later);

    drop(device);
    let state = hub.state.clone();
    tests::wait("the device's end", || state.presence.count() == 0).await;
    let before = times(&hub).await;
    assert_eq!((&*before[0], &before[2]), ("Disconnected", &later));
    assert!(connected < before[1]);
    let hub = hub.restart().await;
    assert_eq!(times(&hub).await, before);

    // A device that is connected when the hub stops is stored as disconnected.
    let device = RawDevice::connect(&hub, &connection).await;
    let hub = hub.restart().await;
    let after = times(&hub).await;
    assert_eq!(after[0], "Disconnected");
    assert!(before[1] < after[1] && before[2] < after[2]);
    drop(device);

    // A hub that was killed could not store that the device was disconnected.
    let found = hub.state.registry.identity(&connection.identity).await;
    let mut found = found.unwrap().unwrap();
    found.activity.connected = true;
    let record = ActivityRecord {
        id: found.id,
        generation_id: found.generation_id,
        activity: found.activity,
    };
    hub.state
        .registry
        .record_activity(vec![record])
        .await
        .unwrap();
    let hub = hub.restart().await;
    let killed = times(&hub).await;
    assert_eq!((&*killed[0], &killed[2]), ("Disconnected", &after[2]));
    assert!(
        after[1] < killed[1],
        "when this hub has started, at the latest"
    );

    // A new identity of the same name has no activity.
    hub.delete("d").await;
    hub.create("d").await;
    assert_eq!(times(&hub).await, ["Disconnected", NEVER, NEVER]);
}
