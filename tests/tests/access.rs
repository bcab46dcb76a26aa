//! The access file, people that have logged in, and tokens that are revoked: what the hub's API
//! allows, and to whom.

use std::sync::Arc;
use std::time::Duration;

use common::clock::unix_now;
use common::identity::StreamName;
use common::secret::SharedKey;
use common::wire::initiation::Timeouts;
use hub::initiation::{Ask, Initiate as _, Refused};
use hub::legs::Opener;
use hub::registry::{Holder, IssuedToken, Login, OpenStreams, TwinPatch, random_id};
use reqwest::Method;
use serde_json::{Value, json};
use tests::hub::identity;
use tests::people::{
    DENIED, NOT_ONLINE, answer, document, ended, opened, person, person_of, rules, stream,
};
use tests::programs::run;
use tests::raw_service::refusal;
use tests::{RawDevice, RawService, TestHub, soon, wait};

const RULES: &str = r#"
[[allow]]
groups = ["field"]
tags = "tags.site = 'berlin'"
targets = ["ssh"]

[[allow]]
groups = ["guests"]
policies = ["contractors"]
devices = ["d*"]
targets = ["ssh"]
approval = { by = ["leads"], for = "1h", cut = true }
"#;

/// What the provider says of somebody.
fn login(name: &str, subject: &str) -> Login {
    Login {
        issuer: "https://id.example.com".to_owned(),
        subject: subject.to_owned(),
        name: name.to_owned(),
        groups: Vec::new(),
    }
}

async fn start() -> TestHub {
    let hub = TestHub::start().await;
    hub.state.access.set(rules(RULES));
    hub
}

async fn tag(hub: &TestHub, device: &str, site: &str) {
    let owner = RawService::with_policy(hub, "iothubowner").await;
    let patch = json!({ "tags": { "site": site } });
    let path = format!("/twins/{device}");
    let tagged = answer(&owner, Method::PATCH, &path, &patch).await;
    assert_eq!(tagged.status(), 200);
}

#[tokio::test]
async fn a_person_may_what_a_rule_allows_and_nothing_else() {
    let hub = start().await;
    for id in ["d", "e", "d/m"] {
        hub.create(id).await;
    }
    tag(&hub, "d", "berlin").await;
    let (ada, _) = person(&hub, "ada", &["field", "other"]).await;
    let (bob, _) = person(&hub, "bob", &["sales"]).await;
    for (device, name, code) in [
        ("d", "ssh", NOT_ONLINE),
        ("d", "_session.ssh", NOT_ONLINE),
        ("d", "%73sh", NOT_ONLINE),
        ("d", "SSH", DENIED),
        ("d", "ssh2", DENIED),
        ("d", "_session._session.ssh", DENIED),
        ("d", "web", DENIED),
        ("e", "ssh", DENIED),
        ("D", "ssh", DENIED),
        // Whether there is such a device is not said.
        ("nothing", "ssh", DENIED),
        ("d/modules/m", "ssh", DENIED),
    ] {
        assert_eq!(stream(&ada, device, name).await, code, "{device} {name}");
        assert_eq!(stream(&bob, device, name).await, DENIED, "{device} {name}");
    }
    let nothing = json!({});
    for (method, path, allowed) in [
        (Method::GET, "/twins/d", true),
        (Method::GET, "/twins/e", false),
        (Method::PATCH, "/twins/d", false),
        (Method::PUT, "/twins/d", false),
        (Method::POST, "/twins/d/methods", false),
        (Method::POST, "/devices/query", false),
        (Method::PUT, "/jobs/v2/j", false),
        (Method::GET, "/jobs/v2", false),
        (Method::GET, "/messages/events", false),
        (Method::DELETE, "/devices/d/commands", false),
        (Method::POST, "/devices/d/messages/devicebound", false),
        (Method::GET, "/access/approvals", true),
        (Method::GET, "/access/devices", true),
    ] {
        let status = answer(&ada, method.clone(), path, &nothing).await.status();
        let expected = if allowed { 200 } else { 403 };
        assert_eq!(status, expected, "{method} {path}");
    }
    // Those need a permission that no person has.
    for (method, path) in [(Method::GET, "/devices"), (Method::DELETE, "/devices/d")] {
        assert_eq!(answer(&ada, method, path, &nothing).await.status(), 401);
    }
    // What decides is what holds now.
    tag(&hub, "d", "rome").await;
    assert_eq!(stream(&ada, "d", "ssh").await, DENIED);
    hub.state.access.set(rules(
        "[[allow]]\npeople=['ada']\ndevices=['d']\ntargets=['*']",
    ));
    assert_eq!(stream(&ada, "d", "web").await, NOT_ONLINE);
    hub.state.access.set(None);
    assert_eq!(stream(&ada, "d", "web").await, DENIED);
}

/// What a caller may reach: each device with its targets, and with those that need approval.
async fn reachable(service: &RawService) -> Vec<(String, Value)> {
    let listed = answer(service, Method::GET, "/access/devices", &json!({})).await;
    assert_eq!(listed.status(), 200);
    let Value::Array(rows) = document(listed).await else {
        panic!("no list");
    };
    let row = |row: Value| {
        assert_eq!(row["tags"], Value::Null, "{row}");
        assert_eq!(row["connectionState"], "Disconnected", "{row}");
        (
            row["deviceId"].as_str().unwrap().to_owned(),
            row["access"].clone(),
        )
    };
    rows.into_iter().map(row).collect()
}

fn reach(device: &str, targets: &[&str], with_approval: &[&str]) -> (String, Value) {
    let access = json!({ "targets": targets, "withApproval": with_approval });
    (device.to_owned(), access)
}

#[tokio::test]
async fn whoever_is_governed_finds_what_they_may_reach_now() {
    let hub = start().await;
    for id in ["d", "e", "x"] {
        hub.create(id).await;
    }
    tag(&hub, "d", "berlin").await;
    tag(&hub, "x", "berlin").await;
    // What device-proxy reports: of one device only.
    let id = identity("d");
    let report = r#"{"deviceStreams":{"targets":["ssh","web"]}}"#;
    let patch = TwinPatch::parse(report.as_bytes()).unwrap();
    hub.state.registry.patch_reported(&id, patch).await.unwrap();

    let (ada, _) = person(&hub, "ada", &["field"]).await;
    let found = [reach("d", &["ssh"], &[]), reach("x", &["ssh"], &[])];
    assert_eq!(reachable(&ada).await, found);
    let (both, _) = person(&hub, "both", &["field", "guests"]).await;
    assert_eq!(reachable(&both).await, found);
    let (guest, _) = person(&hub, "guest", &["guests"]).await;
    assert_eq!(reachable(&guest).await, [reach("d", &[], &["ssh"])]);
    let (bob, _) = person(&hub, "bob", &["sales"]).await;
    assert_eq!(reachable(&bob).await, []);
    // Who is not governed may open streams to all.
    let service = RawService::new(&hub).await;
    let all = [
        reach("d", &["ssh", "web"], &[]),
        reach("e", &["*"], &[]),
        reach("x", &["*"], &[]),
    ];
    assert_eq!(reachable(&service).await, all);
    let reader = RawService::with_policy(&hub, "registryRead").await;
    let refused = answer(&reader, Method::GET, "/access/devices", &json!({})).await;
    assert_eq!(refused.status(), 401);

    // As it is now: the tags, the hours, and the file.
    tag(&hub, "x", "rome").await;
    assert_eq!(reachable(&ada).await, found[..1]);
    hub.state.access.set(rules(
        "[[allow]]\npeople=['ada']\ndevices=['*']\ntargets=['*']\nuntil=2020-01-01T00:00:00Z\n\
         [[allow]]\npeople=['ada']\ndevices=['d']\ntargets=['w*']",
    ));
    assert_eq!(reachable(&ada).await, [reach("d", &["web"], &[])]);
    hub.state.access.set(None);
    assert_eq!(reachable(&ada).await, []);
}

#[tokio::test]
async fn a_policy_that_no_rule_names_is_as_before() {
    let hub = start().await;
    hub.create("e").await;
    let data_dir = hub.data_dir();
    let data_dir = data_dir.to_str().unwrap();
    assert!(
        run(
            "stream-hub",
            &["policy", "create", "contractors", "--data-dir", data_dir]
        )
        .0
    );
    let service = RawService::new(&hub).await;
    assert_eq!(stream(&service, "e", "anything").await, NOT_ONLINE);
    assert_eq!(
        answer(&service, Method::PATCH, "/twins/e", &json!({}))
            .await
            .status(),
        200
    );
    let contractors = RawService::with_policy(&hub, "contractors").await;
    assert_eq!(stream(&contractors, "e", "ssh").await, DENIED);
    assert_eq!(
        answer(&contractors, Method::PATCH, "/twins/e", &json!({}))
            .await
            .status(),
        403
    );
    hub.state.access.set(None);
    assert_eq!(stream(&contractors, "e", "ssh").await, NOT_ONLINE);
}

#[tokio::test]
async fn tokens_that_are_revoked_work_no_more_and_neither_do_their_streams() {
    let hub = start().await;
    let connection = hub.create("d").await;
    tag(&hub, "d", "berlin").await;
    let mut device = RawDevice::connect(&hub, &connection).await;
    let registry = Arc::clone(&hub.state.registry);
    let (first, id) = person(&hub, "ada", &["field"]).await;
    let (second, other) = person(&hub, "ada", &["field"]).await;
    let (bob, _) = person(&hub, "bob", &["field"]).await;
    assert_ne!(id, other);
    let mut legs = Vec::new();
    for service in [&first, &second, &bob] {
        let leg = opened(&mut device, service, "d").await;
        legs.push(leg);
    }
    wait("three streams", || hub.state.legs.count() == 3).await;

    assert!(registry.revoke_token(&id, OpenStreams::End).await.unwrap());
    wait("the end of one", || hub.state.legs.count() == 2).await;
    ended(&mut legs[0].0).await;
    let path = "/twins/d";
    let status = async |service: &RawService| {
        let answer = answer(service, Method::GET, path, &json!({})).await;
        answer.status().as_u16()
    };
    assert_eq!(status(&first).await, 401);
    assert_eq!((status(&second).await, status(&bob).await), (200, 200));

    let revoked = registry
        .shut_out("ada", OpenStreams::End, unix_now())
        .await
        .unwrap();
    assert_eq!(revoked, 1);
    wait("the end of another", || hub.state.legs.count() == 1).await;
    assert_eq!((status(&second).await, status(&bob).await), (401, 200));
    // Another name of the same person is no way back.
    let issued = |name: &str, subject: &str| IssuedToken {
        id: random_id(),
        holder: Holder::Person(login(name, subject)),
        key: SharedKey::random(),
        created: unix_now(),
        expires: unix_now() + 60,
        revoked: None,
    };
    let issue = async |name, subject| registry.issue_token(issued(name, subject)).await.unwrap();
    assert!(!issue("ada", "another").await && !issue("another", "subject of ada").await);
    assert!(issue("another", "another").await);
    assert!(registry.let_in("ada").await.unwrap() && !registry.let_in("ada").await.unwrap());
    assert!(issue("ada", "subject of ada").await);

    registry
        .shut_out("bob", OpenStreams::Keep, unix_now())
        .await
        .unwrap();
    assert_eq!(status(&bob).await, 401);
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(hub.state.legs.count(), 1, "bob's stream goes on");
}

#[tokio::test]
async fn tokens_under_an_earlier_name_are_revoked_as_well() {
    let hub = start().await;
    hub.create("d").await;
    tag(&hub, "d", "berlin").await;
    let (old, _) = person_of(&hub, "1", "ada", &["field"]).await;
    let (new, _) = person_of(&hub, "1", "ada.l", &["field"]).await;
    let (other, _) = person_of(&hub, "2", "bob", &["field"]).await;
    for service in [&old, &new, &other] {
        assert_eq!(stream(service, "d", "ssh").await, NOT_ONLINE);
    }
    let registry = &hub.state.registry;
    let revoked = registry.shut_out("ada.l", OpenStreams::End, unix_now());
    assert_eq!(revoked.await.unwrap(), 2);
    for (service, code) in [(&old, 401_002), (&new, 401_002), (&other, NOT_ONLINE)] {
        assert_eq!(stream(service, "d", "ssh").await, code);
    }
}

#[tokio::test]
async fn streams_under_an_earlier_name_end_also_when_its_token_is_gone() {
    let hub = start().await;
    let connection = hub.create("d").await;
    tag(&hub, "d", "berlin").await;
    let mut device = RawDevice::connect(&hub, &connection).await;
    let registry = Arc::clone(&hub.state.registry);
    let mut legs = Vec::new();
    for (subject, name) in [("1", "ada"), ("2", "bob")] {
        let (service, _) = person_of(&hub, subject, name, &["field"]).await;
        legs.push(opened(&mut device, &service, "d").await);
    }
    wait("two streams", || hub.state.legs.count() == 2).await;
    // Two hours later the provider has another name for her.
    let later = unix_now() + 7200;
    let renamed = IssuedToken {
        id: random_id(),
        holder: Holder::Person(login("ada.l", "1")),
        key: SharedKey::random(),
        created: later,
        expires: later + 3600,
        revoked: None,
    };
    assert!(registry.issue_token(renamed).await.unwrap());
    assert_eq!(registry.issued_tokens(unix_now()).await.unwrap().len(), 1);
    let out = registry.shut_out("ada.l", OpenStreams::End, later);
    assert_eq!(out.await.unwrap(), 1);
    ended(&mut legs[0].0).await;
    wait("one stream", || hub.state.legs.count() == 1).await;
}

#[tokio::test]
async fn a_token_that_is_revoked_while_a_stream_is_opened_opens_none() {
    let hub = start().await;
    let connection = hub.create("d").await;
    let _device = RawDevice::connect(&hub, &connection).await;
    let registry = &hub.state.registry;
    let (_, first) = person(&hub, "ada", &["field"]).await;
    let (_, second) = person(&hub, "bob", &["field"]).await;
    // As when the call was let through, and waits to enter its stream.
    let ask = |token: &str| Ask {
        identity: identity("d"),
        name: StreamName::parse("ssh").unwrap(),
        opener: Opener {
            policy: "oidc:ada".to_owned(),
            peer: hub.https,
            person: Some("ada".into()),
            token: Some(token.into()),
            login: Some(Arc::new(login("ada", "subject of ada"))),
            grant: None,
        },
        timeouts: Timeouts {
            connect: Duration::from_secs(1),
            response: Duration::from_secs(1),
        },
    };
    let is_revoked = async |token: &str| {
        let refused = soon("an answer", hub.state.initiate(ask(token))).await;
        matches!(refused, Err(Refused::Revoked(_)))
    };
    assert!(!is_revoked(&first).await);
    registry
        .revoke_token(&first, OpenStreams::End)
        .await
        .unwrap();
    assert!(is_revoked(&first).await);
    let out = registry.shut_out("bob", OpenStreams::End, unix_now() + 7200);
    assert_eq!(out.await.unwrap(), 0, "its token has expired by then");
    assert!(is_revoked(&second).await);
    assert_eq!(hub.state.legs.count(), 0);
}

#[tokio::test]
async fn a_token_with_a_name_is_revoked_alone() {
    let hub = TestHub::start().await;
    hub.create("d").await;
    let data_dir = hub.data_dir();
    let admin = |arguments: &[&str]| {
        let line = [arguments, &["--data-dir", data_dir.to_str().unwrap()]].concat();
        run("stream-hub", &line)
    };
    let create = |name: &str| {
        let line = [
            "token", "create", "--device", "d", "--target", "ssh", "--name", name,
        ];
        let (ok, out, said) = admin(&line);
        assert!(ok, "{said}");
        RawService::with_token(&hub, out.trim_end().to_owned())
    };
    let (ada, bob) = (create("ada"), create("bob"));
    assert_eq!(stream(&ada, "d", "ssh").await, NOT_ONLINE);
    assert_eq!(stream(&ada, "d", "web").await, 401_002);
    let (_, list, _) = admin(&["token", "list", "--json"]);
    let list: Value = serde_json::from_str(&list).unwrap();
    let tokens = list["tokens"].as_array().unwrap();
    assert_eq!(tokens.len(), 2);
    let of_ada = tokens.iter().find(|token| token["name"] == "ada").unwrap();
    assert_eq!(of_ada["policy"], "service");
    assert!(admin(&["token", "revoke", of_ada["id"].as_str().unwrap()]).0);
    assert_eq!(stream(&ada, "d", "ssh").await, 401_002);
    assert_eq!(stream(&bob, "d", "ssh").await, NOT_ONLINE);
    // Its policy counts as well.
    assert!(admin(&["policy", "delete", "service"]).0);
    assert_eq!(stream(&bob, "d", "ssh").await, 401_002);
    for (line, said) in [
        (&["token", "revoke", "~nothing"][..], "there is no token"),
        (&["token", "let-in", "nobody"], "is not shut out"),
        (&["token", "revoke"], "ID"),
        (
            &["token", "create", "--device", "d", "--name", "a b"],
            "--name",
        ),
    ] {
        let (ok, _, talk) = admin(line);
        assert!(!ok && talk.contains(said), "{line:?}: {talk}");
    }
}

#[tokio::test]
async fn a_hub_without_a_provider_has_no_login_by_name() {
    let hub = TestHub::start().await;
    let service = RawService::new(&hub).await;
    for method in [Method::GET, Method::POST] {
        let response = answer(&service, method, "/access/login", &json!({})).await;
        assert_eq!(refusal(response).await, (404, 404_000));
    }
    let response = answer(&service, Method::DELETE, "/access/login", &json!({})).await;
    assert_eq!(response.status(), 405);
}
