//! The bundle of the real programs: secrets are planted wherever there can be some, and none is in it,
//! in no form. And exit codes.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;
use tests::program_hub::ProgramHub;
use tests::programs::{DIRECT, binary};

const PASSWORD: &str = "open sesame/73!";

/// Options, environment and expected exit code of a run.
type Run<'a> = (&'a [&'a str], &'a [(&'a str, &'a str)], i32);

/// The exit code of a short run, its stdout and its stderr.
async fn run(
    program: &str,
    arguments: &[&str],
    environment: &[(&str, &str)],
) -> (i32, String, String) {
    let running = tokio::process::Command::new(binary(program))
        .args(arguments)
        .envs(DIRECT)
        .envs(environment.iter().copied())
        .output();
    let output = tests::soon("its end", running).await.unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (
        output.status.code().unwrap(),
        text(output.stdout),
        text(output.stderr),
    )
}

/// Every form in which a secret might be somewhere.
fn forms(secret: &str) -> Vec<String> {
    let mut forms = Vec::new();
    let decoded = STANDARD.decode(secret).ok();
    let all = [Some(secret.as_bytes().to_vec()), decoded];
    for bytes in all.into_iter().flatten() {
        let base64 = STANDARD.encode(&bytes);
        forms.push(base64.trim_end_matches('=').to_owned());
        forms.push(URL_SAFE.encode(&bytes).trim_end_matches('=').to_owned());
        forms.push(utf8_percent_encode(&base64, NON_ALPHANUMERIC).to_string());
        forms.push(bytes.iter().map(|byte| format!("{byte:02x}")).collect());
        if let Ok(text) = String::from_utf8(bytes) {
            forms.push(utf8_percent_encode(&text, NON_ALPHANUMERIC).to_string());
            forms.push(
                serde_json::to_string(&text)
                    .unwrap()
                    .trim_matches('"')
                    .to_owned(),
            );
        }
    }
    forms
}

fn has_none(text: &str, secrets: &[&str]) {
    for secret in secrets {
        for form in forms(secret) {
            assert!(!text.contains(&form), "{form} is in {text}");
        }
    }
}

fn key_of(connection: &str) -> &str {
    let (_, key) = connection.split_once("SharedAccessKey=").unwrap();
    key.split(';').next().unwrap()
}

#[tokio::test]
async fn no_secret_is_in_a_bundle() {
    let hub = ProgramHub::start().await;
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let device = hub.admin(&["device", "create", "d"]);
    let service = hub.admin(&["policy", "connection-string", "service"]);
    let other = hub.admin(&["policy", "connection-string", "iothubowner"]);
    let encoded = utf8_percent_encode(PASSWORD, NON_ALPHANUMERIC).to_string();
    let url = format!("http://ada:{encoded}@localhost:1");
    let secrets = [
        key_of(&device),
        key_of(&service),
        key_of(&other),
        PASSWORD,
        "topsecret99",
    ];
    let basic = STANDARD.encode(format!("ada:{PASSWORD}"));
    let in_file = path("hub.cs");
    let auth = path("proxy.auth");
    std::fs::write(&auth, "ada:topsecret99").unwrap();
    let ca_file = hub.ca_file();
    for (program, text, variable, start) in [
        (
            "service-proxy",
            &service,
            "IOTHUB_CONNECTION_STRING",
            &["doctor"][..],
        ),
        (
            "device-proxy",
            &device,
            "IOTHUB_DEVICE_CONNECTION_STRING",
            &["doctor", "--echo"],
        ),
    ] {
        std::fs::write(&in_file, text).unwrap();
        let config = path("config.toml");
        let settings =
            format!("connection-string = '{text}'\nproxy = '{url}'\nca-file = '{ca_file}'");
        std::fs::write(&config, settings).unwrap();
        let proxied = [
            ("HTTPS_PROXY", url.as_str()),
            ("no_proxy", ""),
            ("NO_PROXY", ""),
        ];
        let with_other = [
            (variable, text.as_str()),
            ("MY_CONNECTION_STRING", other.as_str()),
        ];
        let auth_option = ["--proxy", "http://localhost:1", "--proxy-auth-file", &auth];
        let cases: [Run<'_>; 6] = [
            (&["--connection-string-file", &in_file], &[], 0),
            (&["--connection-string", text], &with_other, 0),
            (&[], &with_other, 0),
            (&["--config", &config], &proxied, 1),
            (&["--connection-string", text], &proxied, 1),
            (
                &auth_option,
                &[with_other[0], ("no_proxy", ""), ("NO_PROXY", "")],
                1,
            ),
        ];
        for (number, (options, environment, expected)) in cases.into_iter().enumerate() {
            let bundle = path(&format!("{program}-{number}.json"));
            let last = ["--bundle", &bundle, "--timeout", "10"];
            let ca = ["--ca-file", &ca_file];
            let arguments = [start, options, &last, &ca].concat();
            let (code, out, err) = run(program, &arguments, environment).await;
            assert_eq!(code, expected, "{program} {number}: {out}{err}");
            let written = std::fs::read_to_string(&bundle).unwrap();
            for text in [&written, &out, &err] {
                has_none(text, &secrets);
                assert!(!text.contains(&basic));
            }
            let bundle: Value = serde_json::from_str(&written).unwrap();
            assert_eq!(bundle["report"]["program"], program);
            assert!(bundle["configuration"]["hub"].is_string(), "{written}");
            assert!(bundle["environment"].is_array() && bundle["system"]["os"].is_string());
        }
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            let file = std::fs::metadata(path(&format!("{program}-0.json"))).unwrap();
            assert_eq!(file.permissions().mode() & 0o777, 0o600);
        }
    }
}

#[tokio::test]
async fn exit_codes_and_json() {
    let hub = ProgramHub::start().await;
    let service = hub.admin(&["policy", "connection-string", "service"]);
    let device = hub.admin(&["device", "create", "d"]);
    let ca_file = hub.ca_file();
    let json = |out: &str| serde_json::from_str::<Value>(out).unwrap();
    for (program, text, variable, more) in [
        ("service-proxy", &service, "IOTHUB_CONNECTION_STRING", None),
        (
            "device-proxy",
            &device,
            "IOTHUB_DEVICE_CONNECTION_STRING",
            Some("--echo"),
        ),
    ] {
        let base: Vec<&str> = ["doctor"].into_iter().chain(more).collect();
        let with = |rest: &[&'static str]| [&base[..], rest].concat();
        let ca = ["--ca-file", ca_file.as_str()];
        let environment = [(variable, text.as_str())];
        let line = [&with(&["--json"])[..], &ca].concat();
        let (code, out, err) = run(program, &line, &environment).await;
        assert_eq!((code, err.as_str()), (0, ""), "{out}");
        let report = json(&out);
        assert_eq!(report["outcome"], "ok", "{out}");
        assert!(report["checks"].as_array().unwrap().len() > 10);

        // The CA is not trusted without its file.
        let (code, out, _) = run(program, &with(&[]), &environment).await;
        assert_eq!(code, 1, "{out}");
        assert!(out.contains("\nFAIL certificate "), "{out}");
        assert!(
            out.trim_end()
                .lines()
                .last()
                .unwrap()
                .contains(" is stuck at certificate: ")
        );

        let wrong = [(variable, "HostName=h")];
        let (code, out, err) = run(program, &with(&["--json"]), &wrong).await;
        assert_eq!((code, err.as_str()), (1, ""));
        assert_eq!(json(&out)["stuckAt"], "configuration");

        let (code, _, _) = run(program, &with(&["--timeout", "never"]), &environment).await;
        assert_eq!(code, 2);
    }
}
