//! `doctor` of both proxies: faults are made, one at a time, and each is named correctly: by the check
//! at which it is stuck, or that warns, and in the sentence at the end.

mod bundle;
mod device;
mod path;
mod service;

use std::pin::Pin;

use clap::Parser as _;
use common::doctor::{Outcome, Report};
use futures_util::StreamExt as _;
use futures_util::stream;
use service_proxy::config::Config;
use tests::TestHub;

/// Cases that run at once.
const AT_ONCE: usize = 4;

/// A key that is nobody's.
const KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

/// A fault, and what is expected of a report.
struct Case {
    fault: &'static str,
    id: &'static str,
    says: &'static str,
    report: Pin<Box<dyn Future<Output = Report>>>,
}

fn case(
    fault: &'static str,
    id: &'static str,
    says: &'static str,
    report: impl Future<Output = Report> + 'static,
) -> Case {
    Case {
        fault,
        id,
        says,
        report: Box::pin(report),
    }
}

/// Makes all reports, and compares each with what is expected of it.
async fn all_are_named(cases: Vec<Case>, least: usize) {
    assert!(cases.len() >= least, "{} cases", cases.len());
    let results = stream::iter(cases)
        .map(|case| async move {
            let report = case.report.await;
            let lines: Vec<String> = report
                .checks
                .iter()
                .map(|check| common::doctor::Printer::plain().line(check))
                .collect();
            let found = report.stuck_at().or_else(|| {
                let mut checks = report.checks.iter();
                checks.find(|check| check.outcome == Outcome::Warning)
            });
            let is_named = found.is_some_and(|check| check.id == case.id)
                && report.sentence().contains(case.says);
            (!is_named).then(|| {
                format!(
                    "{}: expected {} and {:?}:\n{}\n{}",
                    case.fault,
                    case.id,
                    case.says,
                    lines.join("\n"),
                    report.sentence()
                )
            })
        })
        .buffer_unordered(AT_ONCE)
        .collect::<Vec<_>>()
        .await;
    let wrong: Vec<String> = results.into_iter().flatten().collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

/// service-proxy's report with these arguments.
async fn service(connection_string: &str, arguments: &[&str]) -> Report {
    let line = [&["service-proxy", "doctor"], arguments].concat();
    let cli = service_proxy::cli::Cli::parse_from(line);
    let environment =
        |name: &str| (name == "IOTHUB_CONNECTION_STRING").then(|| connection_string.into());
    let config = service_proxy::config::sources(&cli.options, &environment)
        .and_then(|sources| service_proxy::config::resolve(cli, &sources));
    match config {
        Ok(Config::Doctor(config)) => service_proxy::doctor::examine(&config, |_| ()).await,
        Ok(other) => panic!("{other:?}"),
        Err(error) => service_proxy::doctor::unconfigured(&error, |_| ()),
    }
}

/// The same at a hub, with the connection string of its policy `service`.
async fn service_at(hub: &TestHub, arguments: &[&str]) -> Report {
    let policy = hub.policy("service").await;
    let ca_file = hub.ca_file();
    let arguments = [arguments, &["--ca-file", ca_file.to_str().unwrap()]].concat();
    service(policy.to_secret_text().expose(), &arguments).await
}

/// device-proxy's report with these arguments.
async fn device(connection_string: &str, arguments: &[&str]) -> Report {
    let line = [&["device-proxy", "doctor"], arguments].concat();
    let cli = device_proxy::cli::Cli::parse_from(line);
    let Some(device_proxy::cli::Command::Doctor(args)) = cli.command else {
        panic!("not doctor");
    };
    let environment =
        |name: &str| (name == "IOTHUB_DEVICE_CONNECTION_STRING").then(|| connection_string.into());
    let config = device_proxy::config::sources(&args.options, &environment)
        .and_then(|sources| device_proxy::config::Config::resolve(args.options.clone(), &sources));
    match config {
        Ok(config) => device_proxy::doctor::examine(&config, &args, |_| ()).await,
        Err(error) => device_proxy::doctor::unconfigured(&error, |_| ()),
    }
}
