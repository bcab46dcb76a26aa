//! Which connections and requests the hub admits, and when it disconnects a device.

use common::clock::unix_now;
use common::connection_string::{DeviceConnectionString, DeviceCredential};
use common::mqtt::ConnectReturnCode;
use common::secret::SharedKey;
use hub::registry::{Authentication, IdentitySettings, IfMatch, Status};
use reqwest::Method;
use serde_json::json;
use tests::people::{answer, document, opened};
use tests::programs::run;
use tests::raw_device::password;
use tests::raw_service::{accepted, refusal, token};
use tests::{RawDevice, RawService, TestHub, wait};

async fn verdict(
    hub: &TestHub,
    connection: &DeviceConnectionString,
    password: &str,
) -> ConnectReturnCode {
    RawDevice::open(hub).await.hello(connection, password).await
}

#[tokio::test]
async fn devices_are_let_in_by_their_own_fresh_token_only() {
    let hub = TestHub::start().await;
    let device = hub.create("d").await;
    let other = hub.create("d2").await;
    let later = unix_now() + 3600;
    let good = password(&device, later);
    assert_eq!(
        verdict(&hub, &device, &good).await,
        ConnectReturnCode::Accepted
    );

    let no = ConnectReturnCode::NotAuthorized;
    let mut wrong_key = device.clone();
    wrong_key.credential = other.credential.clone();
    assert_eq!(
        verdict(&hub, &device, &password(&wrong_key, later)).await,
        no,
        "wrong key"
    );
    assert_eq!(
        verdict(&hub, &device, &password(&other, later)).await,
        no,
        "another's token"
    );
    assert_eq!(
        verdict(&hub, &device, &password(&device, unix_now() - 3600)).await,
        no,
        "expired"
    );
    assert_eq!(verdict(&hub, &device, "malformed").await, no);
    let skewed = password(&device, unix_now() - 60);
    assert_eq!(
        verdict(&hub, &device, &skewed).await,
        ConnectReturnCode::Accepted,
        "five minutes are forgiven"
    );

    let mut unknown = device.clone();
    unknown.identity = tests::hub::identity("nobody");
    assert_eq!(
        verdict(&hub, &unknown, &password(&unknown, later)).await,
        no,
        "unknown"
    );
    hub.set_status("d", Status::Disabled).await;
    assert_eq!(verdict(&hub, &device, &good).await, no, "disabled");
    hub.set_status("d", Status::Enabled).await;
    assert_eq!(
        verdict(&hub, &device, &good).await,
        ConnectReturnCode::Accepted,
        "enabled again"
    );
    hub.delete("d").await;
    assert_eq!(verdict(&hub, &device, &good).await, no, "deleted");
}

#[tokio::test]
async fn a_module_may_use_its_devices_key_and_no_other() {
    let hub = TestHub::start().await;
    let device = hub.create("d").await;
    let module = hub.create("d/m").await;
    let sibling = hub.create("d/n").await;
    let other = hub.create("d2").await;
    let bare = hub.create_with("d/bare", Authentication::None).await;
    let later = unix_now() + 3600;
    let (yes, no) = (
        ConnectReturnCode::Accepted,
        ConnectReturnCode::NotAuthorized,
    );
    let signed = |id: &DeviceConnectionString, by: &DeviceConnectionString| {
        let mut token = id.clone();
        token.credential = by.credential.clone();
        password(&token, later)
    };
    for module in [&module, &bare] {
        // As Azure's clients do: a token for the module, or for its device.
        assert_eq!(verdict(&hub, module, &signed(module, &device)).await, yes);
        assert_eq!(verdict(&hub, module, &password(&device, later)).await, yes);
        assert_eq!(verdict(&hub, module, &signed(module, &other)).await, no);
        assert_eq!(verdict(&hub, module, &signed(module, &sibling)).await, no);
        assert_eq!(verdict(&hub, module, &password(&other, later)).await, no);
    }
    assert_eq!(verdict(&hub, &module, &password(&module, later)).await, yes);
    assert_eq!(verdict(&hub, &device, &password(&module, later)).await, no);
    assert_eq!(verdict(&hub, &device, &signed(&device, &module)).await, no);
    // The modules of a disabled device are refused too.
    hub.set_status("d", Status::Disabled).await;
    assert_eq!(verdict(&hub, &module, &password(&module, later)).await, no);
    assert_eq!(verdict(&hub, &bare, &signed(&bare, &device)).await, no);
}

#[tokio::test]
async fn a_modules_session_ends_with_the_key_of_its_device_that_opened_it() {
    let hub = TestHub::start().await;
    let device = hub.create("d").await;
    let own = hub.create("d/own").await;
    let mut bare = hub.create_with("d/bare", Authentication::None).await;
    bare.credential = device.credential.clone();
    let mut by_device = RawDevice::connect(&hub, &bare).await;
    let by_own = RawDevice::connect(&hub, &own).await;
    let found = hub.state.registry.identity(&device.identity).await;
    let settings = IdentitySettings {
        authentication: Authentication::random_keys(),
        ..found.unwrap().unwrap().settings()
    };
    let change = hub
        .state
        .registry
        .update(&device.identity, settings, IfMatch::Any);
    change.await.unwrap();
    by_device.ended().await;
    assert!(hub.state.presence.is_connected(&own.identity));
    drop(by_own);
}

#[tokio::test]
async fn a_session_ends_with_its_token() {
    let hub = TestHub::start().await;
    let connection = hub.create("d").await;
    let mut device = RawDevice::open(&hub).await;
    let verdict = device
        .hello(&connection, &password(&connection, unix_now() + 2))
        .await;
    assert_eq!(verdict, ConnectReturnCode::Accepted);
    device.ended().await;
}

#[tokio::test]
async fn disabling_and_deleting_end_sessions_and_streams() {
    for delete in [false, true] {
        let hub = TestHub::start().await;
        let connection = hub.create("d").await;
        let module = hub.create("d/m").await;
        let mut device = RawDevice::connect(&hub, &connection).await;
        let mut module = RawDevice::connect(&hub, &module).await;
        let service = RawService::new(&hub).await;
        let (response, request) = tokio::join!(service.initiate("d", "s", 5.0, 5.0), async {
            let request = device.request().await;
            device.answer(&request, true).await;
            request
        });
        let (url, token) = accepted(&response);
        let _ours = device.leg(&request).await;
        let _theirs = service.leg(&url, &token).await;
        if delete {
            hub.delete("d").await;
        } else {
            hub.set_status("d", Status::Disabled).await;
        }
        device.ended().await;
        module.ended().await;
        wait("the stream's end", || hub.state.legs.count() == 0).await;
    }
}

#[tokio::test]
async fn a_session_does_not_outlive_its_key() {
    let hub = TestHub::start().await;
    let connection = hub.create("d").await;
    let mut device = RawDevice::connect(&hub, &connection).await;
    let owner = RawService::with_policy(&hub, "iothubowner").await;
    // Update without keys: the hub makes new ones.
    let answer = owner
        .call(Method::PUT, "/devices/d?api-version=2021-04-12")
        .header("If-Match", "\"*\"")
        .header("Content-Type", "application/json")
        .body(r#"{"deviceId":"d","status":"enabled"}"#)
        .send()
        .await
        .unwrap();
    assert_eq!(answer.status(), 200);
    device.ended().await;
    assert_eq!(
        verdict(&hub, &connection, &password(&connection, unix_now() + 3600)).await,
        ConnectReturnCode::NotAuthorized
    );
}

#[tokio::test]
async fn a_session_outlives_the_key_that_it_does_not_use() {
    let hub = TestHub::start().await;
    let connection = hub.create("d").await;
    let owner = RawService::with_policy(&hub, "iothubowner").await;
    let read = document(answer(&owner, Method::GET, "/devices/d", &json!({})).await).await;
    let keys = &read["authentication"]["symmetricKey"];
    let key = keys["secondaryKey"].as_str().unwrap().to_owned();
    // The device goes over to the secondary key, and then the primary one is replaced.
    let mut second = connection.clone();
    second.credential = DeviceCredential::Key {
        key: SharedKey::parse(&key).unwrap(),
        policy: None,
    };
    let mut device = RawDevice::connect(&hub, &second).await;
    let body = json!({
        "deviceId": "d",
        "status": "enabled",
        "authentication": { "type": "sas", "symmetricKey": {
            "primaryKey": SharedKey::random().to_base64().expose(),
            "secondaryKey": key,
        } },
    });
    let answered = answer(&owner, Method::PUT, "/devices/d", &body).await;
    assert_eq!(answered.status(), 200);
    let later = unix_now() + 3600;
    assert_eq!(
        verdict(&hub, &connection, &password(&connection, later)).await,
        ConnectReturnCode::NotAuthorized
    );
    // The change was seen, and the session is still there: it gets a request.
    let service = RawService::new(&hub).await;
    drop(opened(&mut device, &service, "d").await);
}

#[tokio::test]
async fn a_token_may_read_one_twin_and_nothing_else() {
    let hub = TestHub::start().await;
    for device in ["d", "e"] {
        hub.create(device).await;
    }
    let data_dir = hub.data_dir();
    let admin = |arguments: &[&str]| {
        let line = [arguments, &["--data-dir", data_dir.to_str().unwrap()]].concat();
        run("stream-hub", &line)
    };
    let (ok, _, said) = admin(&["policy", "create", "readers", "--allow", "TwinRead"]);
    assert!(ok, "{said}");
    let create = ["token", "create", "--device", "d", "--policy", "readers"];
    let (ok, out, said) = admin(&create);
    assert!(ok && said.contains("for reading the twin of d"), "{said}");
    // A token for a target would open nothing.
    let (ok, _, said) = admin(&[&create[..], &["--target", "ssh"]].concat());
    assert!(!ok && said.contains("ServiceConnect"), "{said}");

    let one = RawService::with_token(&hub, out.trim_end().to_owned());
    let all = RawService::with_policy(&hub, "readers").await;
    let none = json!({});
    let query = json!({ "query": "SELECT * FROM devices" });
    for (method, path, body, of_one, of_all) in [
        (Method::GET, "/twins/d", &none, 200, 200),
        (Method::GET, "/twins/e", &none, 401, 200),
        (Method::POST, "/devices/query", &query, 401, 200),
        (Method::PATCH, "/twins/d", &none, 401, 401),
        (Method::PUT, "/twins/d", &none, 401, 401),
        (Method::POST, "/twins/d/methods", &none, 401, 401),
        (Method::GET, "/devices/d", &none, 401, 401),
        (Method::PUT, "/jobs/v2/j", &none, 401, 401),
        (Method::GET, "/jobs/v2/j", &none, 401, 401),
    ] {
        for (service, status) in [(&one, of_one), (&all, of_all)] {
            let answered = answer(service, method.clone(), path, body).await;
            assert_eq!(answered.status(), status, "{method} {path}");
        }
    }
    for service in [&one, &all] {
        let answered = refusal(service.initiate("d", "ssh", 0.0, 0.0).await).await;
        assert_eq!(answered, (401, 401_002));
    }
}

#[tokio::test]
async fn services_need_a_policy_that_allows_it() {
    let hub = TestHub::start().await;
    hub.create("d").await;
    let no = (401, 401_002);
    for policy in ["device", "registryRead", "registryReadWrite"] {
        let service = RawService::with_policy(&hub, policy).await;
        assert_eq!(
            refusal(service.initiate("d", "s", 0.0, 0.0).await).await,
            no,
            "{policy}"
        );
    }
    for policy in ["service", "iothubowner"] {
        let service = RawService::with_policy(&hub, policy).await;
        let answer = refusal(service.initiate("d", "s", 0.0, 0.0).await).await;
        assert_eq!(answer, (404, 404_103), "{policy}");
    }
    let policy = hub.policy("service").await;
    let mut forged = policy.clone();
    forged.credential = hub.policy("device").await.credential;
    let mut unknown = policy.clone();
    unknown.policy = "nobody".into();
    let later = unix_now() + 3600;
    for bad in [
        token(&forged, later),
        token(&unknown, later),
        "malformed".into(),
        String::new(),
    ] {
        let service = RawService::with_token(&hub, bad);
        assert_eq!(
            refusal(service.initiate("d", "s", 0.0, 0.0).await).await,
            no
        );
    }
    let expired = RawService::with_token(&hub, token(&policy, unix_now() - 3600));
    assert_eq!(
        refusal(expired.initiate("d", "s", 0.0, 0.0).await).await,
        (401, 401_003)
    );
    let device = hub.create("e").await;
    let device_token = RawService::with_token(&hub, password(&device, later));
    assert_eq!(
        refusal(device_token.initiate("e", "s", 0.0, 0.0).await).await,
        no
    );
}

#[tokio::test]
async fn registry_permissions() {
    let hub = TestHub::start().await;
    hub.create("d").await;
    let reader = RawService::with_policy(&hub, "registryRead").await;
    let writer = RawService::with_policy(&hub, "registryReadWrite").await;
    let service = RawService::new(&hub).await;
    let path = "/devices/d?api-version=2021-04-12";
    let status = async |service: &RawService, method| {
        service
            .call(method, path)
            .send()
            .await
            .unwrap()
            .status()
            .as_u16()
    };
    assert_eq!(status(&reader, Method::GET).await, 200);
    assert_eq!(status(&service, Method::GET).await, 401);
    assert_eq!(status(&reader, Method::DELETE).await, 401);
    assert_eq!(status(&writer, Method::DELETE).await, 204);
    assert_eq!(status(&writer, Method::GET).await, 404);
}

#[tokio::test]
async fn the_newest_connection_wins() {
    let hub = TestHub::start().await;
    let connection = hub.create("d").await;
    let mut first = RawDevice::connect(&hub, &connection).await;
    let _second = RawDevice::connect(&hub, &connection).await;
    first.ended().await;
    assert!(hub.state.presence.is_subscribed(&connection.identity));
    assert_eq!(hub.state.presence.count(), 1);
}
