//! Faults of configurations and credentials.

use common::clock::unix_now;
use common::connection_string::ServiceCredential;
use common::doctor::{Outcome, Report};
use common::sas_token;
use tests::{TestDevice, TestHub};

use crate::path::string;
use crate::{Case, KEY, all_are_named, case, service};

/// A connection string with a SAS token for this path at this hub, signed with the key of the policy
/// `service`.
async fn token(hub: &TestHub, host: &str, path: &str, expiry: u64) -> String {
    let policy = hub.policy("service").await;
    let ServiceCredential::Key(key) = &policy.credential else {
        panic!("no key")
    };
    let token = sas_token::mint(&format!("{host}{path}"), key, Some("service"), expiry);
    format!(
        "HostName={};SharedAccessKeyName=service;SharedAccessSignature={}",
        policy.host,
        token.expose()
    )
}

async fn with_token(path: &'static str, host: &'static str, left: i64, more: &[&str]) -> Report {
    let hub = TestHub::start().await;
    let connection = hub.create("d").await;
    let _device = TestDevice::start(&hub, &connection, &["--echo"]).await;
    let expiry = unix_now().checked_add_signed(left).unwrap();
    let text = token(&hub, host, path, expiry).await;
    let ca_file = hub.ca_file();
    let arguments = [more, &["d", "--ca-file", ca_file.to_str().unwrap()]].concat();
    service(&text, &arguments).await
}

fn credentials() -> Vec<Case> {
    vec![
        case(
            "a malformed connection string",
            "configuration",
            "no `SharedAccessKey",
            async { service("HostName=h;SharedAccessKeyName=s;x=y", &[]).await },
        ),
        case(
            "no connection string",
            "configuration",
            "--connection-string-file",
            async { service("", &["--config", "/dev/null"]).await },
        ),
        case(
            "a file that is not there",
            "configuration",
            "/no/such/hub.cs",
            async { service("", &["--connection-string-file", "/no/such/hub.cs"]).await },
        ),
        case(
            "a CA file that is none",
            "configuration",
            "PEM certificate",
            async {
                let file = tempfile::NamedTempFile::new().unwrap();
                service(&string("h"), &["--ca-file", file.path().to_str().unwrap()]).await
            },
        ),
        #[cfg(unix)]
        case(
            "a file that everybody may read",
            "files",
            "chmod o-r",
            async {
                use std::os::unix::fs::PermissionsExt as _;
                let hub = TestHub::start().await;
                let file = tempfile::NamedTempFile::new().unwrap();
                let text = hub.policy("service").await.to_secret_text();
                std::fs::write(file.path(), text.expose()).unwrap();
                let rights = std::fs::Permissions::from_mode(0o644);
                std::fs::set_permissions(file.path(), rights).unwrap();
                let path = file.path().to_str().unwrap();
                let ca_file = hub.ca_file();
                let options = [
                    "--connection-string-file",
                    path,
                    "--ca-file",
                    ca_file.to_str().unwrap(),
                ];
                service("", &options).await
            },
        ),
        case(
            "a wrong key",
            "authentication",
            "the key is not that of policy `service`",
            async {
                let hub = TestHub::start().await;
                hub.create("d").await;
                let ca_file = hub.ca_file();
                let text = string(&hub.state.address.to_string());
                service(&text, &["d", "--ca-file", ca_file.to_str().unwrap()]).await
            },
        ),
        case(
            "a wrong key, without a device",
            "authentication",
            "refuses the connection string's key",
            async {
                let hub = TestHub::start().await;
                let ca_file = hub.ca_file();
                let text = string(&hub.state.address.to_string());
                service(&text, &["--ca-file", ca_file.to_str().unwrap()]).await
            },
        ),
        case(
            "a policy without the permission",
            "authentication",
            "lacks the permission ServiceConnect",
            async {
                let hub = TestHub::start().await;
                hub.create("d").await;
                let text = hub.policy("device").await.to_secret_text();
                let ca_file = hub.ca_file();
                service(
                    text.expose(),
                    &["d", "--ca-file", ca_file.to_str().unwrap()],
                )
                .await
            },
        ),
        case(
            "a token that has expired",
            "credential",
            "that expired",
            with_token("", "localhost", -60, &[]),
        ),
        case(
            "a token for another hub",
            "credential",
            "is for the hub elsewhere.example, and not for localhost",
            with_token("", "elsewhere.example", 600, &[]),
        ),
        case(
            "a token for another device",
            "credential",
            "for twins/e, and not for the device d",
            with_token("/twins/e", "localhost", 600, &[]),
        ),
        case(
            "a token for another target",
            "credential",
            "and not for the target web",
            with_token(
                "/twins/d/streams/ssh",
                "localhost",
                600,
                &["--target", "web"],
            ),
        ),
        case(
            "a token whose key has changed",
            "authentication",
            "the key of policy `service` has changed",
            async {
                let hub = TestHub::start().await;
                hub.create("d").await;
                let key = common::secret::SharedKey::parse(KEY).unwrap();
                let token =
                    sas_token::mint("localhost/twins/d", &key, Some("service"), unix_now() + 600);
                let host = &hub.state.address;
                let text = format!(
                    "HostName={host};SharedAccessKeyName=service;SharedAccessSignature={}",
                    token.expose()
                );
                let ca_file = hub.ca_file();
                service(&text, &["d", "--ca-file", ca_file.to_str().unwrap()]).await
            },
        ),
    ]
}

#[tokio::test]
async fn faults_of_credentials_are_named() {
    all_are_named(credentials(), 12).await;
}

#[tokio::test]
async fn a_token_for_one_target_is_enough_for_that() {
    let report = with_token("/twins/d/streams/echo", "localhost", 600, &[]).await;
    assert!(report.stuck_at().is_none(), "{}", report.sentence());
    for (id, outcome) in [
        ("credential", Outcome::Ok),
        ("device", Outcome::Skipped),
        ("stream", Outcome::Ok),
        ("throughput", Outcome::Ok),
        ("session", Outcome::Skipped),
    ] {
        assert_eq!(report.check(id).unwrap().outcome, outcome, "{id}");
    }
}
