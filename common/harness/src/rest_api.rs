//! The hub's REST API behind its login, on any requests, with a real registry.

use std::cell::RefCell;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use bytes::Bytes;
use common::hub_address::HubAddress;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};
use http_body_util::BodyExt as _;
use hub::api::{self, router};
use hub::auth::{Caller, ServicePrincipal};
use hub::data_dir::DataDir;
use hub::events::Events;
use hub::limits::Limits;
use hub::registry::{Permissions, SqliteRegistry};
use hub::state::HubState;
use tokio::runtime::{Builder, Runtime};
use tokio_util::sync::CancellationToken;

/// Between two requests of one input.
const BETWEEN: &str = "\n===\n";
/// Most requests of one input.
const REQUESTS: usize = 8;
/// So many inputs have one hub: what they leave in its registry shall not grow for ever.
const INPUTS: u32 = 2_000;

/// A hub without listeners, in a folder of its own, which is removed with it.
struct Hub {
    runtime: Runtime,
    state: HubState,
    /// Nothing waits: neither for a device nor for telemetry.
    stop: CancellationToken,
    folder: PathBuf,
    inputs: u32,
}

impl Hub {
    fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("rest-api-{}-{number}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        let runtime = Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        let data = DataDir::open(&folder).expect("a folder");
        let state = runtime.block_on(async {
            let registry = SqliteRegistry::open(&data).expect("a registry");
            let address = HubAddress::parse("localhost").expect("an address");
            HubState::new(
                address,
                Arc::new(registry),
                Limits::default(),
                Events::default(),
            )
        });
        let stop = CancellationToken::new();
        stop.cancel();
        Self {
            runtime,
            state,
            stop,
            folder,
            inputs: 0,
        }
    }
}

impl Drop for Hub {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

thread_local! {
    static HUB: RefCell<Option<Hub>> = const { RefCell::new(None) };
}

/// Sends requests, each as `METHOD PATH`, lines of headers, an empty line and a body, with `\n===\n`
/// between them, by somebody who may do everything. Each has an answer that a client can read, and
/// none is the hub's own fault.
pub fn run(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else {
        return;
    };
    HUB.with_borrow_mut(|hub| {
        if hub.as_ref().is_some_and(|hub| hub.inputs >= INPUTS) {
            *hub = None;
        }
        let hub = hub.get_or_insert_with(Hub::new);
        hub.inputs += 1;
        for text in text.split(BETWEEN).take(REQUESTS) {
            send(hub, text);
        }
    });
}

fn send(hub: &Hub, text: &str) {
    let (head, body) = text.split_once("\n\n").unwrap_or((text, ""));
    let mut lines = head.split('\n');
    let Some((method, uri)) = lines.next().and_then(|line| line.split_once(' ')) else {
        return;
    };
    // What HTTP has refused before.
    let (Ok(method), Ok(uri)) = (Method::from_bytes(method.as_bytes()), uri.parse::<Uri>()) else {
        return;
    };
    let headers: HeaderMap = lines
        .filter_map(|line| line.split_once(": "))
        .filter_map(|(name, value)| {
            let name = HeaderName::from_bytes(name.as_bytes()).ok()?;
            Some((name, HeaderValue::from_str(value).ok()?))
        })
        .collect();
    let Ok(router::Route::Rest(target)) = router::route(&method, uri.path()) else {
        return;
    };
    let Ok(call) = target.call else { return };
    let caller = match &target.access.owner {
        Some(device) if headers.contains_key("x-as-device") => Caller::Device(device.clone()),
        _ => Caller::Service(ServicePrincipal {
            policy: "iothubowner".to_owned(),
            person: None,
            token: None,
            login: None,
            permissions: Permissions {
                registry_read: true,
                registry_write: true,
                service_connect: true,
                device_connect: true,
                twin_read: true,
            },
        }),
    };
    let request = api::Request {
        caller,
        peer: SocketAddr::from((Ipv4Addr::LOCALHOST, 1)),
        query: uri.query().unwrap_or_default().to_owned(),
        headers,
        body: Bytes::from(body.to_owned()),
    };
    hub.runtime.block_on(async {
        let handling = api::handle(call, request, &hub.state, &hub.stop);
        let (answer, is_refused) = match handling.await {
            Ok(answer) => (answer, false),
            Err(refusal) => {
                let number = refusal.code.number;
                // 503: the hub is stopping, which it says instead of waiting.
                assert!(
                    (400_000..500_000).contains(&number) || number / 1_000 == 503,
                    "{number}: {refusal}"
                );
                (refusal.into_answer(target.family), true)
            }
        };
        let status = answer.status();
        // A bulk request has an answer also where a part of it was refused.
        assert!(!is_refused || !status.is_success(), "{status}");
        let body = answer
            .into_body()
            .collect()
            .await
            .expect("a body")
            .to_bytes();
        if !body.is_empty() {
            serde_json::from_slice::<serde_json::Value>(&body).expect("JSON");
        }
    });
}

#[cfg(test)]
mod tests {
    #[test]
    fn corpus() {
        crate::corpus::play("rest_api", super::run);
    }
}
