//! Whole command lines on a data folder in a temporary place.

use std::path::PathBuf;

use clap::Parser as _;
use common::connection_string::{
    DeviceConnectionString, DeviceCredential, ServiceConnectionString, ServiceCredential,
};
use common::identity::DeviceId;
use serde_json::json;

use super::*;
use crate::cli::{Cli, Command};
use crate::registry::{
    Activity, ActivityRecord, Authentication, ChangeLog as _, Identities as _, IdentitySettings,
    IfMatch, Sessions as _,
};

const KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

struct Shell {
    temporary: tempfile::TempDir,
}

impl Shell {
    /// A folder that a hub has served at `localhost:8443`.
    fn new() -> Self {
        let shell = Self::unserved();
        shell
            .dir()
            .store_address(&HubAddress::parse("localhost:8443").unwrap())
            .unwrap();
        shell
    }

    fn unserved() -> Self {
        Self {
            temporary: tempfile::tempdir().unwrap(),
        }
    }

    fn path(&self) -> PathBuf {
        self.temporary.path().join("hub-data")
    }

    fn dir(&self) -> DataDir {
        DataDir::open(&self.path()).unwrap()
    }

    /// What was printed as data, and the messages beside it.
    async fn try_run(&self, line: &str) -> Result<(String, String), CommandError> {
        let cli = Cli::try_parse_from(format!("stream-hub {line}").split_whitespace()).expect(line);
        let Command::Admin(command) = cli.command else {
            panic!("{line} is no admin command")
        };
        let (mut out, mut talk) = (Vec::new(), Vec::new());
        run(&self.path(), command, &mut out, &mut talk).await?;
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Ok((text(out), text(talk)))
    }

    async fn run(&self, line: &str) -> String {
        self.try_run(line).await.expect(line).0
    }

    async fn json(&self, line: &str) -> Value {
        serde_json::from_str(&self.run(line).await).unwrap()
    }

    async fn error(&self, line: &str) -> CommandError {
        self.try_run(line).await.expect_err(line)
    }
}

fn device_key(text: &str) -> String {
    match DeviceConnectionString::parse(text.trim_end())
        .unwrap()
        .credential
    {
        DeviceCredential::Key { key, .. } => key.to_base64().expose().to_owned(),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn create_prints_one_connection_string_and_nothing_else() {
    let shell = Shell::new();
    let (out, talk) = shell.try_run("device create MyDevice").await.unwrap();
    assert_eq!(out.lines().count(), 1);
    assert!(out.starts_with("HostName=localhost:8443;DeviceId=MyDevice;SharedAccessKey="));
    assert_eq!(talk, "created MyDevice\n");
    assert_eq!(shell.run("device connection-string MyDevice").await, out);
    let second = shell
        .run("device connection-string MyDevice --secondary")
        .await;
    assert_ne!(second, out);
    let module = shell.run("module create MyDevice m").await;
    assert!(module.contains("DeviceId=MyDevice;ModuleId=m;SharedAccessKey="));
    assert_eq!(
        shell.run("module connection-string MyDevice m").await,
        module
    );

    let document = shell.json("device create Other --json --disabled").await;
    assert_eq!(document["status"], "disabled");
    let text = document["connectionString"].as_str().unwrap();
    let key = &document["authentication"]["symmetricKey"]["primaryKey"];
    assert_eq!(device_key(text), key.as_str().unwrap());
}

#[tokio::test]
async fn given_credentials() {
    let shell = Shell::new();
    let out = shell
        .run(&format!("device create a --primary-key {KEY}"))
        .await;
    assert_eq!(device_key(&out), KEY);
    let file = shell.temporary.path().join("key");
    std::fs::write(&file, format!("{KEY}\n")).unwrap();
    let file = file.display();
    let out = shell
        .run(&format!("device create b --primary-key-file {file}"))
        .await;
    assert_eq!(device_key(&out), KEY);
    let (first, second) = ("ab".repeat(20), "cd".repeat(32));
    let out = shell
        .run(&format!(
            "device create c --x509-thumbprint {first} --x509-thumbprint {second}"
        ))
        .await;
    assert_eq!(out, "HostName=localhost:8443;DeviceId=c;x509=true\n");
    let shown = shell.run("device show c").await;
    assert!(shown.contains(&first.to_uppercase()) && shown.contains(&second.to_uppercase()));

    let thrice = format!(" --x509-thumbprint {first}").repeat(3);
    for line in [
        "device create x --primary-key AAAA".to_owned(),
        format!("device create x{thrice}"),
    ] {
        assert!(shell.error(&line).await.is_usage(), "{line}");
    }
    let error = shell
        .error("device create x --primary-key-file /no/such")
        .await;
    assert!(error.is_usage() && error.to_string().contains("/no/such"));
    std::fs::write(shell.temporary.path().join("key"), "\n").unwrap();
    let line = format!("device create x --primary-key-file {file}");
    assert!(matches!(
        shell.error(&line).await,
        CommandError::Credential(_)
    ));
    assert!(matches!(
        shell.error("device show x").await,
        CommandError::NoDevice(_)
    ));
}

#[tokio::test]
async fn long_lists_are_printed_as_one() {
    let shell = Shell::new();
    let registry = SqliteRegistry::open(&shell.dir()).unwrap();
    for number in 0..3 {
        let device = format!("device{number}");
        shell.run(&format!("device create {device}")).await;
        let mut ids = Vec::new();
        for module in 0..number * 501 {
            ids.push(format!("m{module:04}"));
        }
        let connection = rusqlite::Connection::open(shell.dir().database().unwrap()).unwrap();
        // Made one by one, each would wait for the disk.
        let mut copy = connection
            .prepare(
                "INSERT INTO identities (device, module, generation, etag, enabled, \
                 authentication, iot_edge, parent_scopes) \
                 VALUES (?1, ?2, '1', 'e', 1, 'none', 0, '[]')",
            )
            .unwrap();
        connection.execute_batch("BEGIN").unwrap();
        for id in &ids {
            copy.execute([&device, id]).unwrap();
        }
        connection.execute_batch("COMMIT").unwrap();

        let text = shell.run(&format!("module list {device} --json")).await;
        let list: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(text, format!("{list:#}\n"), "as one value");
        let listed: Vec<_> = list
            .as_array()
            .unwrap()
            .iter()
            .map(|m| &m["moduleId"])
            .collect();
        assert_eq!(listed, ids.iter().collect::<Vec<_>>());
        let table = shell.run(&format!("module list {device}")).await;
        assert_eq!(
            table.lines().count(),
            ids.len() + usize::from(!ids.is_empty())
        );
        let device = DeviceId::parse(&device).unwrap();
        let page = registry.modules(&device, None, 501).await.unwrap();
        assert_eq!(page.identities.len(), ids.len().min(501));
    }
}

#[tokio::test]
async fn lists_and_shows_keep_keys_to_themselves() {
    let shell = Shell::new();
    let (out, talk) = shell.try_run("device list").await.unwrap();
    assert_eq!(
        (out.as_str(), talk.as_str()),
        ("", "there are no devices\n")
    );
    assert_eq!(shell.json("device list --json").await, json!([]));
    shell
        .run(&format!("device create long-name --primary-key {KEY}"))
        .await;
    shell.run("device create b --disabled").await;
    shell.run("module create b m").await;
    assert_eq!(
        shell.run("device list").await,
        "ID         STATUS    AUTHENTICATION  LAST ACTIVITY\n\
         b          disabled  sas             never\n\
         long-name  enabled   sas             never\n"
    );
    let list = shell.run("device list --json").await;
    assert!(list.contains("long-name") && !list.contains("Key"));
    let shown = shell.run("device show long-name").await;
    assert!(shown.contains("enabled") && !shown.contains(KEY), "{shown}");
    let shown = shell.json("device show long-name --json").await;
    assert_eq!(shown["authentication"]["symmetricKey"]["primaryKey"], KEY);
    assert!(shell.run("module list b").await.contains("\nm   disabled"));
    assert_eq!(shell.json("module show b m --json").await["moduleId"], "m");
}

#[tokio::test]
async fn shows_what_rest_clients_have_set_and_switching_keeps_it() {
    let shell = Shell::new();
    shell.run("device create d").await;
    let registry = SqliteRegistry::open(&shell.dir()).unwrap();
    let id = DeviceIdentity::of_device("d".parse().unwrap());
    let made = registry.identity(&id).await.unwrap().unwrap();
    let settings = IdentitySettings {
        iot_edge: true,
        ..made.settings()
    };
    registry.update(&id, settings, IfMatch::Any).await.unwrap();
    let module = DeviceIdentity::of_module(id.device.clone(), "m".parse().unwrap());
    let settings = IdentitySettings {
        managed_by: Some("me\u{1b}[2J".to_owned()),
        ..IdentitySettings::new(Authentication::None)
    };
    registry.create(&module, settings).await.unwrap();
    let record = ActivityRecord {
        id: id.clone(),
        generation_id: made.generation_id.clone(),
        activity: Activity {
            connected: false,
            connection_state_updated: Some(1_700_000_000_000_000),
            last_activity: Some(1_700_000_001_500_000),
        },
    };
    registry.record_activity(vec![record]).await.unwrap();

    shell.run("device disable d").await;
    let shown = shell.run("device show d").await;
    let scope = format!("ms-azure-iot-edge://d-{}", made.generation_id);
    for line in [
        "edge device        yes",
        &format!("scope              {scope}"),
        "connection changed 2023-11-14T22:13:20Z",
        "last activity      2023-11-14T22:13:21Z",
    ] {
        assert!(shown.lines().any(|shown| shown == line), "{shown}");
    }
    assert!(
        shell
            .run("device list")
            .await
            .ends_with("2023-11-14T22:13:21Z\n")
    );
    let document = shell.json("device show d --json").await;
    assert_eq!(document["deviceScope"], scope);
    assert_eq!(document["lastActivityTime"], "2023-11-14T22:13:21.5000000Z");
    let shown = shell.run("module show d m").await;
    assert!(
        shown.contains("managed by         me\\u{1b}[2J\n"),
        "{shown}"
    );
    assert!(shown.contains("last activity      never\n"), "{shown}");
}

#[tokio::test]
async fn switching_and_deleting() {
    let shell = Shell::new();
    let created = shell.run("device create d").await;
    for (line, status) in [
        ("device disable d", "disabled"),
        ("device disable d", "disabled"),
        ("device enable d", "enabled"),
    ] {
        let (out, talk) = shell.try_run(line).await.unwrap();
        assert!(out.is_empty() && talk.contains(status), "{talk}");
        assert_eq!(shell.json("device show d --json").await["status"], status);
    }
    assert_eq!(shell.run("device connection-string d").await, created);
    shell.run("module create d m").await;
    assert_eq!(shell.run("module delete d m").await, "");
    assert_eq!(shell.run("device delete d").await, "");
    for line in [
        "device delete d",
        "device enable d",
        "device connection-string d",
        "module list d",
        "module create d m",
    ] {
        let error = shell.error(line).await;
        assert!(matches!(error, CommandError::NoDevice(_)), "{line}");
        assert!(error.to_string().contains("device list"));
    }
    shell.run("device create d").await;
    for (line, part) in [
        ("device create d", "exists already"),
        ("module show d m", "module list d"),
        ("policy connection-string nobody", "policy list"),
    ] {
        let error = shell.error(line).await.to_string();
        assert!(error.contains(part), "{error}");
    }
}

#[tokio::test]
async fn policies_and_endpoints() {
    let shell = Shell::new();
    let text = shell.run("policy connection-string service").await;
    let service = ServiceConnectionString::parse(text.trim_end()).unwrap();
    assert_eq!(service.host.to_string(), "localhost:8443");
    assert_eq!(service.policy, "service");
    let ServiceCredential::Key(key) = service.credential else {
        panic!("no key")
    };
    let list = shell.run("policy list").await;
    assert!(list.contains("registryReadWrite  RegistryRead, RegistryReadWrite\n"));
    assert!(!list.contains(key.to_base64().expose()));
    let list = shell.json("policy list --json").await;
    assert_eq!(
        list[4],
        json!({"name": "service", "permissions": ["ServiceConnect"]})
    );
    assert_eq!(
        shell.run("endpoints").await,
        "{\"streamingEndpoints\":[\"https://localhost:8443\"]}\n"
    );
}

#[tokio::test]
async fn before_the_first_serve() {
    let shell = Shell::unserved();
    let (out, talk) = shell.try_run("device create d").await.unwrap();
    assert!(out.starts_with("HostName=localhost;DeviceId=d;"));
    assert!(talk.contains("made the data folder") && talk.contains("`stream-hub serve`"));
    let (out, _) = shell.try_run("endpoints").await.unwrap();
    assert_eq!(out, "{\"streamingEndpoints\":[\"https://localhost\"]}\n");
}

#[tokio::test]
async fn commands_work_beside_a_hub() {
    let shell = Shell::new();
    let dir = shell.dir();
    let _lock = dir.lock().unwrap();
    let hub = SqliteRegistry::open(&dir).unwrap();
    let start = hub.changes_since(0).await.unwrap().upto;
    shell.run("device create d").await;
    shell.run("device disable d").await;
    let changes = hub.changes_since(start).await.unwrap();
    assert_eq!(changes.identities.len(), 1);
    assert_eq!(changes.identities[0].to_string(), "d");
}

/// A pipe whose reader is gone.
struct Closed;

impl Write for Closed {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(io::ErrorKind::BrokenPipe.into())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn a_reader_that_left_is_no_failure() {
    let shell = Shell::new();
    let list = || {
        AdminCommand::Policy(crate::cli::PolicyCommand::List {
            form: crate::cli::Form::default(),
        })
    };
    run(&shell.path(), list(), &mut Closed, &mut Closed)
        .await
        .unwrap();
    let mut out = Vec::new();
    run(&shell.path(), list(), &mut out, &mut Closed)
        .await
        .unwrap();
    assert!(!out.is_empty());
}

#[tokio::test]
async fn every_hub_has_keys_of_its_own() {
    let mut keys = std::collections::HashSet::new();
    for shell in [Shell::new(), Shell::new()] {
        shell.run("device create d").await;
        let policies = shell.json("policy list --json").await;
        for policy in policies.as_array().unwrap() {
            let name = policy["name"].as_str().unwrap();
            for which in ["", " --secondary"] {
                let line = format!("policy connection-string {name}{which}");
                let text = shell.run(&line).await;
                let (_, key) = text.trim().split_once("SharedAccessKey=").unwrap();
                keys.insert(key.to_owned());
            }
        }
        keys.insert(device_key(&shell.run("device connection-string d").await));
    }
    // Two keys of each of the five policies, and one of the device.
    assert_eq!(keys.len(), 2 * (2 * 5 + 1));
}
