//! Access that somebody has to approve: who waits, who decides, and what becomes of it.

use std::sync::Arc;
use std::time::Duration;

use common::clock::unix_now;
use hub::registry::{ApprovalOutcome, ApprovalVerdict, Decider};
use reqwest::Method;
use serde_json::{Value, json};
use tests::people::{
    DENIED, NOT_ONLINE, REFUSED, WAITS, answer, document, ended, opened, person, person_of, rules,
    stream,
};
use tests::raw_service::refusal;
use tests::{RawDevice, RawService, TestHub, soon, wait};

const RULES: &str = r#"
[[allow]]
groups = ["field"]
devices = ["e"]
targets = ["ssh"]

[[allow]]
groups = ["guests"]
devices = ["d*"]
targets = ["ssh"]
approval = { by = ["leads"], for = "1h", cut = true }

[[allow]]
groups = ["guests"]
devices = ["keeps"]
targets = ["ssh"]
approval = { by = ["leads"] }
"#;

async fn start() -> TestHub {
    let hub = TestHub::start().await;
    hub.state.access.set(rules(RULES));
    hub
}

#[tokio::test]
async fn a_stream_waits_for_an_approver() {
    let hub = start().await;
    let connection = hub.create("d").await;
    let mut device = RawDevice::connect(&hub, &connection).await;
    let registry = Arc::clone(&hub.state.registry);
    let (eve, _) = person(&hub, "eve", &["guests"]).await;
    // It waits, and says for what.
    let response = soon("an answer", eve.initiate("d", "ssh", 5.0, 5.0)).await;
    let id = response.headers()["iothub-approval"]
        .to_str()
        .unwrap()
        .to_owned();
    assert_eq!(response.headers()["retry-after"], "1");
    assert_eq!(refusal(response).await, (423, WAITS));
    // A device that does not exist needs no approver.
    assert_eq!(stream(&eve, "d2", "ssh").await, 404_001);
    assert_eq!(stream(&eve, "e", "ssh").await, DENIED);
    let waiting = registry.approvals(unix_now(), false).await.unwrap();
    assert_eq!(waiting.len(), 1);
    assert_eq!(
        (waiting[0].id.as_str(), waiting[0].ask.caller.as_str()),
        (&*id, "oidc:eve")
    );
    // Asked again, it is the same, and is held for a moment; granted meanwhile, it is to be asked again at once.
    let (response, ()) = tokio::join!(eve.initiate("d", "_session.ssh", 5.0, 5.0), async {
        let until = unix_now() + 10;
        let verdict = ApprovalVerdict::Granted(until);
        registry
            .decide_approval(&id, verdict, local(), unix_now())
            .await
            .unwrap();
    });
    if response.status() == 423 {
        assert_eq!(response.headers()["iothub-approval"], *id);
        assert_eq!(response.headers()["retry-after"], "0");
    } else {
        // It came after the decision, and the device has not answered.
        drop(device.request().await);
    }
    let (mut leg, _other) = opened(&mut device, &eve, "d").await;
    wait("a stream", || hub.state.legs.count() == 1).await;
    // The rule wants that it ends with the grant.
    ended(&mut leg).await;
    wait("its end", || hub.state.legs.count() == 0).await;
    // And then somebody is asked again, and refuses.
    let (response, ()) = tokio::join!(eve.initiate("d", "ssh", 5.0, 5.0), async {
        let again = async || {
            let all = registry.approvals(unix_now(), false).await.unwrap();
            all.into_iter().find(|request| request.id != id)
        };
        let request = loop {
            if let Some(request) = again().await {
                break request;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        };
        let verdict = ApprovalVerdict::Refused(Some("no".to_owned()));
        registry
            .decide_approval(&request.id, verdict, local(), unix_now())
            .await
            .unwrap();
    });
    // Who is the first to ask learns at once that it waits.
    let first = refusal(response).await;
    assert!([(403, REFUSED), (423, WAITS)].contains(&first), "{first:?}");
    assert_eq!(stream(&eve, "d", "ssh").await, REFUSED);
}

#[tokio::test]
async fn approvers_decide_over_rest_and_nobody_their_own() {
    let hub = start().await;
    hub.create("d").await;
    let (eve, _) = person(&hub, "eve", &["guests"]).await;
    let (lea, _) = person(&hub, "lea", &["leads", "guests"]).await;
    let (bob, _) = person(&hub, "bob", &["field"]).await;
    let path = "/access/approvals";
    let ask = async |service: &RawService, body: Value| {
        let answer = answer(service, Method::POST, path, &body).await;
        (answer.status().as_u16(), document(answer).await)
    };
    let wanted = json!({ "deviceId": "d", "target": "ssh", "seconds": 60, "reason": "pump\u{7}" });
    let (status, request) = ask(&eve, wanted.clone()).await;
    assert_eq!((status, request["state"].as_str()), (200, Some("waiting")));
    assert_eq!(
        (request["mayDecide"].as_bool(), request["seconds"].as_u64()),
        (Some(false), Some(60))
    );
    assert!(!request["reason"].as_str().unwrap().contains('\u{7}'));
    for (service, body, status) in [
        (&eve, json!({ "deviceId": "d", "target": "web" }), 403),
        (&eve, json!({ "deviceId": "d9", "target": "ssh" }), 404),
        (&eve, json!({ "deviceId": "", "target": "ssh" }), 400),
        (&eve, json!({ "deviceId": "d" }), 400),
        (&eve, json!(1), 400),
        (&bob, wanted.clone(), 403),
    ] {
        assert_eq!(ask(service, body.clone()).await.0, status, "{body}");
    }
    // What needs no approval needs no request.
    let owner = RawService::new(&hub).await;
    assert_eq!(ask(&owner, wanted.clone()).await.1["state"], "unneeded");

    let one = format!("{path}/{}", request["id"].as_str().unwrap());
    let grant = json!({ "grant": true, "seconds": 7200 });
    let decide = async |service: &RawService, body: &Value| {
        let answer = answer(service, Method::POST, &one, body).await;
        answer.status().as_u16()
    };
    let list = async |service: &RawService| {
        let list = answer(service, Method::GET, path, &json!({})).await;
        document(list).await.as_array().unwrap().len()
    };
    assert_eq!(
        (list(&eve).await, list(&lea).await, list(&bob).await),
        (1, 1, 0)
    );
    // Who may not know of it does not learn that there is one.
    for (service, status) in [(&eve, 403), (&bob, 404), (&owner, 404)] {
        assert_eq!(decide(service, &grant).await, status);
    }
    assert_eq!(decide(&lea, &json!({ "grant": "yes" })).await, 400);
    assert_eq!(stream(&eve, "d", "web").await, DENIED);
    assert_eq!(decide(&lea, &grant).await, 200);
    let read = answer(&eve, Method::GET, &one, &json!({})).await;
    let read = document(read).await;
    assert_eq!(
        (read["state"].as_str(), read["decidedBy"].as_str()),
        (Some("granted"), Some("oidc:lea"))
    );
    assert_eq!(stream(&eve, "d", "ssh").await, NOT_ONLINE);
    // Not for longer than was asked for.
    let all = hub
        .state
        .registry
        .approvals(unix_now(), false)
        .await
        .unwrap();
    assert!(all[0].granted_until(unix_now() + 100).is_none());
    // It can be taken back.
    assert_eq!(
        decide(&lea, &json!({ "grant": false, "because": "enough" })).await,
        200
    );
    assert_eq!(stream(&eve, "d", "ssh").await, REFUSED);
    // One's own.
    let (_, own) = ask(&lea, wanted).await;
    let own = format!("{path}/{}", own["id"].as_str().unwrap());
    assert_eq!(answer(&lea, Method::POST, &own, &grant).await.status(), 403);
}

/// Asks for a stream to ssh, and grants what is asked for with it.
async fn granted(hub: &TestHub, service: &RawService, device: &str) -> String {
    assert_eq!(stream(service, device, "ssh").await, WAITS);
    let now = unix_now();
    let waiting = hub.state.registry.approvals(now, false).await.unwrap();
    let waiting = waiting.into_iter().find(|request| request.waits(now));
    let id = waiting.unwrap().id;
    decide(hub, &id, ApprovalVerdict::Granted(now + 600)).await;
    id
}

async fn decide(hub: &TestHub, id: &str, verdict: ApprovalVerdict) {
    let registry = &hub.state.registry;
    let decided = registry.decide_approval(id, verdict, local(), unix_now());
    let decided = decided.await.unwrap();
    assert!(
        matches!(decided, ApprovalOutcome::Decided(_)),
        "{decided:?}"
    );
}

/// Whoever has the hub's folder.
fn local() -> Decider {
    Decider {
        name: "local:me".to_owned(),
        through: None,
    }
}

#[tokio::test]
async fn what_is_taken_back_ends_what_is_open_where_the_rule_says_so() {
    let hub = start().await;
    let (eve, _) = person(&hub, "eve", &["guests"]).await;
    let mut open = Vec::new();
    for id in ["d", "keeps"] {
        let connection = hub.create(id).await;
        let mut device = RawDevice::connect(&hub, &connection).await;
        let request = granted(&hub, &eve, id).await;
        let legs = opened(&mut device, &eve, id).await;
        open.push((request, legs, device));
    }
    wait("two streams", || hub.state.legs.count() == 2).await;
    // The one that goes on first: it would have been seen to end by then.
    for (request, ..) in open.iter().rev() {
        decide(&hub, request, ApprovalVerdict::Refused(None)).await;
    }
    ended(&mut open[0].1.0).await;
    wait("the end of one", || hub.state.legs.count() == 1).await;
    assert_eq!(stream(&eve, "keeps", "ssh").await, REFUSED);
    assert_eq!(hub.state.legs.count(), 1);
}

#[tokio::test]
async fn approvers_that_were_removed_grant_nothing() {
    let hub = start().await;
    hub.create("d").await;
    let (eve, _) = person(&hub, "eve", &["guests"]).await;
    let (lea, _) = person(&hub, "lea", &["leads"]).await;
    let (bob, _) = person(&hub, "bob", &["field"]).await;
    let path = "/access/approvals";
    let wanted = json!({ "deviceId": "d", "target": "ssh" });
    let asked = async || {
        let asked = answer(&eve, Method::POST, path, &wanted).await;
        let id = document(asked).await["id"].as_str().unwrap().to_owned();
        format!("{path}/{id}")
    };
    let decide = async |service: &RawService, one: &str, is_granted: bool| {
        let body = json!({ "grant": is_granted });
        let answer = answer(service, Method::POST, one, &body).await;
        answer.status().as_u16()
    };
    let others = RULES.replace("leads", "bob");
    let one = asked().await;
    hub.state.access.set(rules(&others));
    // She may not know of it any more; and he was no approver when it was asked.
    assert_eq!(decide(&lea, &one, true).await, 404);
    assert_eq!(decide(&bob, &one, true).await, 404);
    hub.state.access.set(rules(RULES));
    assert_eq!(decide(&lea, &one, true).await, 200);
    assert_eq!(decide(&lea, &one, true).await, 409);
    assert_eq!(stream(&eve, "d", "ssh").await, NOT_ONLINE);
    // What she has granted does not count without her.
    hub.state.access.set(rules(&others));
    assert_eq!(stream(&eve, "d", "ssh").await, WAITS);
    hub.state.access.set(rules(RULES));
    assert_eq!(stream(&eve, "d", "ssh").await, NOT_ONLINE);
    // Whoever approves now can take it back, and not grant it again.
    hub.state.access.set(rules(&others));
    assert_eq!(decide(&lea, &one, false).await, 404);
    assert_eq!(decide(&bob, &one, false).await, 200);
    assert_eq!(decide(&bob, &one, true).await, 409);
    hub.state.access.set(rules(RULES));
    assert_eq!(decide(&lea, &one, true).await, 409);
}

#[tokio::test]
async fn another_name_is_not_another_person() {
    let hub = start().await;
    hub.create("d").await;
    let path = "/access/approvals";
    let wanted = json!({ "deviceId": "d", "target": "ssh" });
    let groups = ["leads", "guests"];
    let (lea, _) = person_of(&hub, "1", "lea", &groups).await;
    let (renamed, _) = person_of(&hub, "1", "lea.m", &groups).await;
    let (namesake, _) = person_of(&hub, "2", "lea", &groups).await;
    let asked = answer(&lea, Method::POST, path, &wanted).await;
    let asked = document(asked).await;
    let one = format!("{path}/{}", asked["id"].as_str().unwrap());
    let grant = json!({ "grant": true });
    for service in [&lea, &renamed] {
        let status = answer(service, Method::POST, &one, &grant).await.status();
        assert_eq!(status, 403, "her own");
    }
    let status = answer(&namesake, Method::POST, &one, &grant).await.status();
    assert_eq!(status, 200, "it is another person's");
    assert_eq!(stream(&lea, "d", "ssh").await, NOT_ONLINE);
    // What one has is nothing for whoever gets the name.
    assert_eq!(stream(&namesake, "d", "ssh").await, WAITS);
}
