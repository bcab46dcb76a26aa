//! Texts that unauthenticated clients, devices and services send to a hub, and how its commands
//! show them.

use common::clock::unix_now;
use common::connection_string::{DeviceConnectionString, ServiceConnectionString};
use tests::program_hub::ProgramHub;
use tests::programs::run;
use tests::{RawDevice, RawService, raw_device, raw_hub, raw_service, soon};

use crate::texts::{check, encoded, text, texts};

/// An MQTT CONNECT with any texts.
fn connect(client_id: &str, user_name: &str, password: &str) -> Vec<u8> {
    let mut rest = b"\0\x04MQTT\x04\xc2\0\xf0".to_vec();
    for text in [client_id, user_name, password] {
        rest.extend_from_slice(&u16::try_from(text.len()).unwrap().to_be_bytes());
        rest.extend_from_slice(text.as_bytes());
    }
    let length = rest.len();
    let length = [0x80 | (length & 0x7f) as u8, (length >> 7) as u8];
    [&[0x10], &length[..], &rest].concat()
}

#[tokio::test]
async fn of_what_strangers_and_services_write_to_a_hub() {
    let mut hub = ProgramHub::start().await;
    let connection = hub.admin(&["device", "create", "MyDevice"]);
    let key = DeviceConnectionString::parse(&connection).unwrap();
    let owner = hub.admin(&["policy", "connection-string", "iothubowner"]);
    let owner = ServiceConnectionString::parse(&owner).unwrap();
    let expiry = unix_now() + 600;
    let good = raw_service::token(&owner, expiry);

    // The identity it claims, and its credential.
    let words = text("way-connect");
    let without = texts("way-connect", usize::MAX, &['\0']).remove(0);
    let encoded_words = encoded(&words);
    let forged = format!(
        "SharedAccessSignature sr={encoded_words}&sig={encoded_words}&se=1&skn={encoded_words}"
    );
    let raw = format!("SharedAccessSignature sr={words}&sig={words}&se={words}&skn={words}");
    for (client, user, password) in [
        (without.as_str(), without.as_str(), without.as_str()),
        (
            without.as_str(),
            "localhost/MyDevice/?api-version=2020-09-30",
            "x",
        ),
        (
            "MyDevice",
            "localhost/MyDevice/?api-version=2020-09-30",
            raw.as_str(),
        ),
        (
            "MyDevice",
            "localhost/MyDevice/?api-version=2020-09-30",
            forged.as_str(),
        ),
        (words.as_str(), words.as_str(), words.as_str()),
    ] {
        let mut device = RawDevice::at(hub.mqtts, hub.tls()).await;
        let _ = device.try_send(&connect(client, user, password)).await;
        device.ended().await;
    }
    // Topics, of an authenticated device.
    for topic in [
        format!("$iothub/streams/res/{without}/?$rid={without}"),
        format!("$iothub/twin/GET/?$rid={without}"),
        without.clone(),
        words.clone(),
    ] {
        let mut device = RawDevice::at(hub.mqtts, hub.tls()).await;
        device
            .hello(&key, &raw_device::password(&key, expiry))
            .await;
        device.subscribe().await;
        let _ = device.try_send(&raw_hub::publish(topic.as_bytes())).await;
        let _ = device.try_send(&[0xe0, 0]).await;
        device.ended().await;
    }

    // Requests: paths, names of streams, tokens. Short, so that the characters are the only fault.
    let named = format!("SharedAccessSignature sr=x&sig=AAAA&se={expiry}&skn={encoded_words}");
    for token in [good.clone(), as_header(&raw), forged.clone(), named] {
        for words in texts("way-path", 100, &[]) {
            let words = encoded(&words);
            for (method, path) in [
                ("GET", format!("/{words}")),
                ("GET", format!("/devices/{words}")),
                ("GET", format!("/devices/MyDevice/modules/{words}")),
                ("GET", format!("/twins/{words}")),
                ("POST", format!("/twins/{words}/streams/x")),
                ("POST", format!("/twins/MyDevice/streams/{words}")),
                (
                    "GET",
                    format!("/bridges/ih/{words}/d/{words}/sid/{words}/r/device"),
                ),
            ] {
                // A connection that is refused repeatedly is answered late.
                let service = RawService::at(hub.https, hub.tls(), token.clone());
                let call = service.call(
                    method.parse().unwrap(),
                    &format!("{path}?api-version=2020-09-30"),
                );
                let answer = soon("an answer", call.send()).await.unwrap();
                let status = answer.status();
                assert!(status.is_client_error(), "{path} {status}");
            }
        }
    }

    // What services write into the registry, in lists and details.
    let service = RawService::at(hub.https, hub.tls(), good);
    let data_dir = hub.data_dir();
    let admin = |arguments: &[&str], mark: &str| {
        let line = [arguments, &["--data-dir", &data_dir]].concat();
        let (ok, out, talk) = run("stream-hub", &line);
        assert!(ok, "{talk}");
        check(&out, &[mark]);
        check(&talk, &[]);
        out
    };
    for (number, reason) in texts("way-reason", 120, &[]).iter().enumerate() {
        let id = format!("Odd{number}");
        let put = |path: String, document: serde_json::Value| {
            let path = format!("{path}?api-version=2020-09-30");
            let call = service.call(reqwest::Method::PUT, &path);
            let call = call.header("content-type", "application/json");
            call.body(document.to_string()).send()
        };
        let device = serde_json::json!({
            "deviceId": id, "status": "disabled", "statusReason": reason
        });
        let answer = put(format!("/devices/{id}"), device).await.unwrap();
        assert!(answer.status().is_success(), "{}", answer.status());
        let module = serde_json::json!({ "deviceId": id, "moduleId": "m", "managedBy": reason });
        let answer = put(format!("/devices/{id}/modules/m"), module)
            .await
            .unwrap();
        assert!(answer.status().is_success(), "{}", answer.status());
        admin(&["device", "show", &id], "way-reason");
        admin(&["module", "show", &id, "m"], "way-reason");
        admin(&["module", "list", &id, "--json"], "way-reason");
        // The stored text is unchanged.
        let out = admin(&["device", "show", &id, "--json"], "way-reason");
        let value: serde_json::Value = serde_json::from_str(&out).unwrap();
        assert_eq!(value["statusReason"], *reason);
    }
    admin(&["device", "list"], "Odd0");
    admin(&["device", "list", "--json"], "way-reason");

    // The ends of a stream's two legs.
    let mut device = RawDevice::at(hub.mqtts, hub.tls()).await;
    device
        .hello(&key, &raw_device::password(&key, expiry))
        .await;
    device.subscribe().await;
    for reason in texts("way-close", 120, &[]) {
        let (answer, (request, leg)) =
            tokio::join!(service.initiate("MyDevice", "x", 10.0, 10.0), async {
                let request = device.request().await;
                device.answer(&request, true).await;
                let leg = device.leg(&request).await;
                (request, leg)
            });
        drop(request);
        let (url, token) = raw_service::accepted(&answer);
        let mut here = service.leg(&url, &token).await;
        here.start_close(4000, &reason).unwrap();
        std::future::poll_fn(|cx| here.poll_flush(cx))
            .await
            .unwrap();
        soon(
            "the hub's Close",
            std::future::poll_fn(|cx| here.poll_incoming(cx)),
        )
        .await
        .unwrap();
        drop(leg);
    }
    hub.program.line("with code 4000").await;
    hub.program.terminate();
    let (_, output) = hub.program.ended().await;
    check(&output, &["way-connect"]);
}

/// The characters that a header may contain.
fn as_header(text: &str) -> String {
    text.chars()
        .filter(|c| *c == '\t' || !c.is_ascii_control())
        .collect()
}
