//! People that have logged in and the access file, as tests of the hub's API use them.

use std::path::Path;
use std::sync::Arc;

use common::clock::unix_now;
use common::sas_token;
use common::secret::SharedKey;
use hub::access::Rules;
use hub::registry::{Holder, IssuedToken, Login, random_id};
use reqwest::{Method, Response};
use serde_json::Value;

use crate::raw_device::DeviceLeg;
use crate::raw_service::{accepted, refusal};
use crate::{RawDevice, RawService, TestHub, soon};

/// All was well with the initiation of a stream but for the device, which is not there.
pub const NOT_ONLINE: u32 = 404_103;
/// The access file does not allow it.
pub const DENIED: u32 = 403_901;
/// An approver has refused it.
pub const REFUSED: u32 = 403_902;
/// It waits for an approver.
pub const WAITS: u32 = 423_901;

/// What an access file of this text says.
pub fn rules(text: &str) -> Option<Arc<Rules>> {
    Some(Arc::new(
        Rules::parse(Path::new("access.toml"), text).unwrap(),
    ))
}

/// Somebody that has logged in, as the hub issues a token for it.
pub async fn person(hub: &TestHub, name: &str, groups: &[&str]) -> (RawService, String) {
    person_of(hub, &format!("subject of {name}"), name, groups).await
}

/// The same, whom the provider knows as this subject.
pub async fn person_of(
    hub: &TestHub,
    subject: &str,
    name: &str,
    groups: &[&str],
) -> (RawService, String) {
    let (id, key) = (random_id(), SharedKey::random());
    let now = unix_now();
    let host = hub.state.address.name();
    let token = sas_token::mint(host, &key, Some(&id), now + 3600);
    let issued = IssuedToken {
        id: id.clone(),
        holder: Holder::Person(Login {
            issuer: "https://id.example.com".to_owned(),
            subject: subject.to_owned(),
            name: name.to_owned(),
            groups: groups.iter().map(|&group| group.to_owned()).collect(),
        }),
        key,
        created: now,
        expires: now + 3600,
        revoked: None,
    };
    assert!(hub.state.registry.issue_token(issued).await.unwrap());
    (RawService::with_token(hub, token.expose().to_owned()), id)
}

/// What the hub answers to a call.
pub async fn answer(service: &RawService, method: Method, path: &str, body: &Value) -> Response {
    let call = service.call(method, &format!("{path}?api-version=2021-04-12"));
    let call = call.header("content-type", "application/json");
    let sending = call.header("if-match", "*").body(body.to_string()).send();
    soon("an answer", sending).await.unwrap()
}

/// The JSON document in an answer.
pub async fn document(answer: Response) -> Value {
    serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap()
}

/// The code with which a stream is refused: 404103 when all was well but for the device, which is
/// not there.
pub async fn stream(service: &RawService, device: &str, name: &str) -> u32 {
    let initiating = service.initiate(device, name, 0.1, 0.1);
    refusal(soon("an answer", initiating).await).await.1
}

/// A stream to ssh, with both legs.
pub async fn opened(
    device: &mut RawDevice,
    service: &RawService,
    id: &str,
) -> (common::net::Leg, DeviceLeg) {
    let (response, request) = tokio::join!(service.initiate(id, "ssh", 5.0, 5.0), async {
        let request = device.request().await;
        device.answer(&request, true).await;
        request
    });
    let (url, token) = accepted(&response);
    let leg = service.leg(&url, &token).await;
    (leg, device.leg(&request).await)
}

/// Waits for the end of a stream.
pub async fn ended(leg: &mut common::net::Leg) {
    soon(
        "the end of a stream",
        std::future::poll_fn(|cx| leg.poll_incoming(cx)),
    )
    .await
    .ok();
}
