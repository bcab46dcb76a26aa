//! Many devices from one place: service-proxy's commands for twins, methods, queries and ssh against
//! a hub.

use common::wire::method;
use serde_json::json;
use tests::commands::{command, ran, service};
use tests::{RawDevice, TestDevice, TestHub, soon};
use tokio::process::Command;

#[tokio::test]
async fn twins_are_read_changed_and_replaced() {
    let hub = TestHub::start().await;
    hub.create("d").await;
    hub.create("d/m").await;
    let patch = r#"{"tags":{"site":"berlin"},"properties":{"desired":{"a":1,"b":2}}}"#;
    let twin = service(&hub, &["twin", "set", "d", patch]).await.json();
    assert_eq!(twin["tags"], json!({ "site": "berlin" }));
    let read = service(&hub, &["twin", "get", "d"]).await.ok();
    let of_module = service(&hub, &["--module", "m", "twin", "get", "d"]).await;
    assert_eq!(of_module.json()["moduleId"], "m");
    // What was read can be given back, with a change.
    let changed = read.replace("berlin", "bremen");
    let replace = command(&hub, &["twin", "replace", "d", "-"]).await;
    let twin = ran(replace, &changed).await.json();
    assert_eq!(twin["tags"], json!({ "site": "bremen" }));
    assert_eq!(twin["properties"]["desired"]["b"], 2);
    // But not when it is outdated.
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("twin.json");
    std::fs::write(&path, &changed).unwrap();
    let file = format!("@{}", path.to_str().unwrap());
    let outdated = service(&hub, &["twin", "replace", "d", &file]).await;
    outdated.fails(1, &["twin of d", "localhost:", "etag"]);
    service(&hub, &["twin", "replace", "d", &file, "--etag", "*"])
        .await
        .ok();
    let only = ["twin", "set", "d", "{}", "--etag", "AAAA"];
    service(&hub, &only).await.fails(1, &["etag"]);
    // Wrong input is another exit code than a refusal.
    service(&hub, &["twin", "set", "d", "[]"])
        .await
        .fails(2, &["not a JSON object"]);
    service(&hub, &["twin", "set", "d", "@/no/such"])
        .await
        .fails(2, &["/no/such"]);
    service(&hub, &["twin", "get", "nobody"])
        .await
        .fails(1, &["knows no device `nobody`", "localhost:"]);
}

#[tokio::test]
async fn a_method_prints_the_answer_of_the_device() {
    let hub = TestHub::start().await;
    let connection = hub.create("d").await;
    let mut device = RawDevice::connect(&hub, &connection).await;
    device.subscribe_to(method::FILTER).await;
    let answering = async {
        for status in [200, 404] {
            let (topic, payload) = device.message().await;
            let (name, rid) = topic.split_once("/?$rid=").unwrap();
            assert_eq!(name, "$iothub/methods/POST/lockDoor");
            let answer = format!("$iothub/methods/res/{status}/?$rid={rid}");
            device.publish(&answer, &payload).await;
        }
    };
    let calling = async {
        let words = ["method", "d", "lockDoor", r#"{"a":[1]}"#];
        let answer = service(&hub, &words).await;
        assert_eq!(answer.json(), json!({ "a": [1] }));
        let answer = service(&hub, &["method", "d", "lockDoor"]).await;
        answer.fails(1, &["method lockDoor of d", "status 404"]);
        // What the device says about it is printed nevertheless.
        assert_eq!(answer.out, "null\n");
    };
    tokio::join!(answering, calling);
    hub.create("offline").await;
    let words = ["method", "offline", "ping", "--connect-timeout", "0"];
    let offline = service(&hub, &words).await;
    offline.fails(1, &["ping of offline", "not connected"]);
    let words = ["method", "nobody", "ping", "--connect-timeout", "0"];
    let unknown = service(&hub, &words).await;
    unknown.fails(1, &["knows no device `nobody`"]);
}

#[tokio::test]
async fn queries_print_all_pages() {
    const DEVICES: usize = 230;
    let hub = TestHub::start().await;
    for number in 0..DEVICES {
        hub.create(&format!("d{number:03}")).await;
    }
    let patch = r#"{"tags":{"site":"berlin"}}"#;
    service(&hub, &["twin", "set", "d007", patch]).await.ok();
    let query = "SELECT deviceId FROM devices";
    let lines = service(&hub, &["query", query]).await.ok();
    let mut ids: Vec<&str> = lines.lines().collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), DEVICES);
    assert_eq!(ids[7], r#"{"deviceId":"d007"}"#);
    let array = service(&hub, &["query", query, "--json"]).await.json();
    assert_eq!(array.as_array().unwrap().len(), DEVICES);
    let table = service(&hub, &["devices"]).await.ok();
    assert_eq!(table.lines().count(), DEVICES + 1);
    let berlin = ["devices", "--where", "tags.site = 'berlin'"];
    let table = service(&hub, &berlin).await.ok();
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(lines[0].split_whitespace().next(), Some("ID"));
    assert_eq!(
        lines[1].split_whitespace().collect::<Vec<_>>(),
        ["d007", "no", "never"]
    );
    let none = service(&hub, &["devices", "--where", "tags.site = 1", "--json"]).await;
    assert_eq!(none.json(), json!([]));
    service(&hub, &["devices", "--where", "tags.site = = 1"])
        .await
        .fails(1, &["WHERE tags.site = = 1", "column", "localhost:"]);
}

#[cfg(unix)]
#[tokio::test]
async fn a_reader_that_goes_ends_the_query() {
    let hub = TestHub::start().await;
    hub.create("d").await;
    let mut query = command(&hub, &["query", "SELECT * FROM devices"]).await;
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let ran = ran_into(&mut query, writer).await;
    assert_eq!(ran, Some(141));
}

#[cfg(unix)]
async fn ran_into(command: &mut Command, output: std::io::PipeWriter) -> Option<i32> {
    let mut child = command.stdout(output).spawn().unwrap();
    let status = soon("service-proxy's end", child.wait()).await;
    status.unwrap().code()
}

#[tokio::test]
async fn devices_are_an_inventory() {
    let hub = TestHub::start().await;
    for (device, site) in [("a", "berlin-1"), ("b,c", "berlin-1"), ("d", "bremen")] {
        hub.create(device).await;
        let patch = json!({ "tags": { "site": site } }).to_string();
        service(&hub, &["twin", "set", device, &patch]).await.ok();
    }
    hub.create("e").await;
    let words = ["inventory", "--group-by", "tags.site", "--user", "ada"];
    let inventory = service(&hub, &words).await.json();
    assert_eq!(inventory["site_berlin_1"]["hosts"], json!(["a", "b,c"]));
    assert_eq!(inventory["site_bremen"]["hosts"], json!(["d"]));
    assert_eq!(inventory["ungrouped"]["hosts"], json!(["e"]));
    let variables = &inventory["_meta"]["hostvars"]["b,c"];
    assert_eq!(variables["ansible_host"], "b%2Cc");
    assert_eq!(variables["ansible_user"], "ada");
    let options = variables["ansible_ssh_common_args"].as_str().unwrap();
    let ca_file = hub.ca_file();
    assert!(options.contains(ca_file.to_str().unwrap()), "{options}");
    let shown = inventory.to_string();
    assert!(!shown.contains("SharedAccessKey"), "{shown}");
    let words = ["inventory", "--where", "tags.site = 'bremen'"];
    let inventory = service(&hub, &words).await.json();
    assert_eq!(inventory["ungrouped"]["hosts"], json!(["d"]));
    // A host's name is no part of the query's text.
    let words = ["inventory", "--host", "x' OR deviceId != 'x"];
    assert_eq!(service(&hub, &words).await.json(), json!({}));
    let one = service(&hub, &["inventory", "--host", "d"]).await.json();
    assert_eq!(one["iothub_tags"]["site"], "bremen");
}

/// A program that stands for ssh: it sends the command through its ProxyCommand to the device's echo
/// target, prints what comes back, and exits with the command's last word.
#[cfg(unix)]
const SSH: &str = r#"#!/bin/sh
for word; do
    case $word in ProxyCommand=*) proxy=${word#ProxyCommand=} ;; esac
    line=$last' '$word last=$word
done
proxy=$(printf %s "$proxy" | sed 's/%%/%/g')
printf 'args %s\n' "$*" >>"$LOG"
printf '%s\n' "$line" | sh -c "exec $proxy" || exit 255
echo warning >&2
exit "$last"
"#;

#[cfg(unix)]
#[tokio::test]
async fn a_command_runs_on_each_device_through_its_stream() {
    use std::os::unix::fs::PermissionsExt as _;

    let hub = TestHub::start().await;
    let mut devices = Vec::new();
    for id in ["a", "b,c", "d"] {
        let connection = hub.create(id).await;
        devices.push(TestDevice::start(&hub, &connection, &["--echo"]).await);
    }
    hub.create("offline").await;
    let folder = tempfile::tempdir().unwrap();
    let ssh = folder.path().join("ssh");
    std::fs::write(&ssh, SSH).unwrap();
    std::fs::set_permissions(&ssh, std::fs::Permissions::from_mode(0o755)).unwrap();
    let log = folder.path().join("log");
    let path = std::env::var("PATH").unwrap();
    let path = format!("{}:{path}", folder.path().display());
    let service = async |words: &[&str]| {
        let words = [&["run", "--target", "echo"], words].concat();
        let mut command = command(&hub, &words).await;
        command.env("PATH", &path).env("LOG", &log);
        ran(command, "").await
    };
    let online = ["--where", "deviceId != 'offline'", "--parallel", "2"];
    let all = service(&[&online[..], &["--", "hello", "0"]].concat()).await;
    let mut errors: Vec<&str> = all.err.lines().collect();
    errors.sort_unstable();
    assert_eq!(errors, ["a: warning", "b,c: warning", "d: warning"]);
    let out = all.ok();
    let mut lines: Vec<&str> = out.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["a: hello 0", "b,c: hello 0", "d: hello 0"]);
    // The worst exit code counts: of an offline device it is ssh's own.
    let failed = service(&[&online[..], &["--user", "ada", "--", "hello", "3"]].concat()).await;
    failed.fails(3, &["failed on 3 of 3 devices", "b,c (exit code 3)"]);
    let words = ["--connect-timeout", "0", "--where", "*", "--", "hello", "0"];
    let offline = service(&words).await;
    offline.fails(
        255,
        &["offline: ", "not connected", "failed on 1 of 4 devices"],
    );
    let nobody = service(&["--where", "deviceId = 'x'", "--", "hello", "0"]).await;
    nobody.fails(1, &["no device", "deviceId = 'x'"]);
    let log = std::fs::read_to_string(&log).unwrap();
    assert!(
        log.contains("HostKeyAlias=b%2Cc") && log.contains("-l ada"),
        "{log}"
    );
    assert!(!log.contains("SharedAccessKey"), "{log}");
}

/// A connection string of the command line reaches ssh's own service-proxy, and only that way.
#[cfg(unix)]
#[tokio::test]
async fn a_connection_string_is_never_an_argument_of_another_program() {
    use std::os::unix::fs::PermissionsExt as _;

    let hub = TestHub::start().await;
    hub.create("d").await;
    let folder = tempfile::tempdir().unwrap();
    let ssh = folder.path().join("ssh");
    let script = "#!/bin/sh\nprintf '%s\\n' \"$*\" \"$IOTHUB_CONNECTION_STRING\"\n";
    std::fs::write(&ssh, script).unwrap();
    std::fs::set_permissions(&ssh, std::fs::Permissions::from_mode(0o755)).unwrap();
    let connection = hub.policy("service").await.to_secret_text();
    let words = ["--connection-string", connection.expose()];
    let words = [&words[..], &["run", "--where", "*", "--", "true"]].concat();
    let mut command = command(&hub, &words).await;
    command
        .env("PATH", folder.path())
        .env("IOTHUB_CONNECTION_STRING", "");
    let out = ran(command, "").await.ok();
    let lines: Vec<&str> = out.lines().collect();
    assert!(!lines[0].contains("SharedAccessKey"), "{out}");
    assert_eq!(lines[1], format!("d: {}", connection.expose()));
}

/// Telemetry that the hub still has, and what comes while a service watches.
#[tokio::test]
async fn telemetry_is_printed_as_it_arrives() {
    use tokio::io::{AsyncBufReadExt as _, BufReader};

    let hub = TestHub::start().await;
    let connection = hub.create("d").await;
    let mut device = RawDevice::connect(&hub, &connection).await;
    let topic = "devices/d/messages/events/floor=3";
    device.publish(topic, br#"{"t":21.5}"#).await;
    device.publish("devices/d/messages/events/", b"text").await;
    // An answer to a later request shows that the hub has both.
    device.subscribe_twin().await;
    let kept = service(&hub, &["monitor", "--no-wait"]).await.ok();
    let lines: Vec<&str> = kept.lines().collect();
    assert_eq!(lines.len(), 2, "{kept}");
    assert!(
        lines[0].ends_with(r#"Z d {"t":21.5} {"floor":"3"}"#),
        "{kept}"
    );
    assert!(lines[1].ends_with(r#"Z d "text""#), "{kept}");
    hub.create("e").await;
    let other = service(&hub, &["monitor", "e", "--no-wait"]).await;
    assert_eq!(other.ok(), "");
    let mut watching = command(&hub, &["monitor", "d", "--json"])
        .await
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(watching.stdout.take().unwrap()).lines();
    for body in [r#"{"t":21.5}"#, "text", "[1]"] {
        if body == "[1]" {
            device.publish("devices/d/messages/events/", b"[1]").await;
        }
        let line = soon("a message", lines.next_line()).await.unwrap().unwrap();
        let message: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(message["deviceId"], "d");
        match body {
            "text" => assert_eq!(message["bodyBase64"], "dGV4dA=="),
            body => assert_eq!(message["body"].to_string(), body),
        }
    }
    #[cfg(unix)]
    {
        tests::programs::signal(&watching, rustix::process::Signal::TERM);
        let status = soon("service-proxy's end", watching.wait()).await.unwrap();
        assert_eq!(status.code(), Some(0));
    }
}
