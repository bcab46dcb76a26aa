//! `service-proxy doctor`: an X-ray of the path from here to a device and its targets. Its own
//! configuration and credential, the way to the hub, what the hub says, what the device sees from its
//! side, a test stream, and what ends an idle session from inside.

mod asked;
mod credential;
mod device;
mod idle;
mod stream;

use std::path::Path;

use common::doctor::path::HubPath;
use common::doctor::{Check, Examination, Outcome, Printer, Report, Secrets};
use common::{doctor, output, report};
use serde_json::{Value, json};

use crate::cli::DoctorArgs;
use crate::config::{ConfigError, DoctorConfig};
use crate::hub_api::HubApi;

/// Why there is no report, or no bundle; or what the report says.
#[derive(Debug, thiserror::Error)]
pub enum DoctorError {
    /// A check has failed. The report has said it.
    #[error("a check has failed")]
    Stuck,
    /// The bundle cannot be written.
    #[error("cannot write the bundle {0}")]
    Bundle(String, #[source] std::io::Error),
}

/// Examines everything and prints it. May be dropped.
///
/// # Errors
/// [`DoctorError::Stuck`] when a check has failed.
pub async fn run(config: &DoctorConfig) -> Result<(), DoctorError> {
    let report = examine(config, printing(&config.args)).await;
    let mut secrets = Secrets::new();
    secrets.add_connection(config.hub.service.to_secret_text().expose());
    if let Some(login) = &config.hub.proxy.credentials {
        secrets.add_login(login.user(), login.password().expose());
    }
    finish(&report, &config.args, secrets).await
}

/// Prints the report of a program that has no configuration to examine anything with.
///
/// # Errors
/// [`DoctorError`].
pub async fn run_unconfigured(error: &ConfigError, args: &DoctorArgs) -> Result<(), DoctorError> {
    let report = unconfigured(error, printing(args));
    finish(&report, args, Secrets::new()).await
}

/// The report where there is no configuration.
pub fn unconfigured(error: &ConfigError, observer: impl FnMut(&Check) + Send) -> Report {
    let mut examination = Examination::new("service-proxy", "this machine".to_owned(), observer);
    examination.add(Check::failed("configuration", report::chain(error)));
    examination.into_report()
}

/// Prints each check as soon as it is made.
fn printing(args: &DoctorArgs) -> impl FnMut(&Check) + Send + use<> {
    let mut lines = Printer::of_stdout().lines();
    let is_quiet = args.json;
    move |check| {
        if let Some(line) = lines(check)
            && !is_quiet
        {
            output::stdout().coloured(&line);
        }
    }
}

/// Prints the end of the report, and writes the bundle.
async fn finish(
    report: &Report,
    args: &DoctorArgs,
    mut secrets: Secrets,
) -> Result<(), DoctorError> {
    if args.json {
        output::stdout().line(&format!("{:#}", report.to_json()));
    } else {
        for line in Printer::of_stdout().end(report) {
            output::stdout().coloured(&line);
        }
    }
    if let Some(path) = &args.bundle {
        secrets.add_environment();
        let log = doctor::journal("service-proxy").await;
        doctor::write_bundle(path, report, log, &secrets)
            .map_err(|error| DoctorError::Bundle(path.display().to_string(), error))?;
        if !args.json {
            let path = path.display();
            output::stdout().line(&format!("wrote {path}, without secrets"));
        }
    }
    match report.outcome() {
        Outcome::Failed => Err(DoctorError::Stuck),
        Outcome::Ok | Outcome::Warning | Outcome::Skipped => Ok(()),
    }
}

/// Examines everything. May be dropped.
pub async fn examine(config: &DoctorConfig, observer: impl FnMut(&Check) + Send) -> Report {
    let hub = &config.hub.service.host;
    let subject = match &config.identity {
        Some(identity) => format!("{identity} at {hub}"),
        None => hub.to_string(),
    };
    let mut examination = Examination::new("service-proxy", subject, observer);
    examination.configured(effective(config));
    let dialer = match config.hub.dialer() {
        Ok(dialer) => dialer,
        Err(error) => {
            examination.add(Check::failed("configuration", report::chain(&error)));
            return examination.into_report();
        }
    };
    let origin = match &config.hub.connection_file {
        Some(path) => format!("the connection string is in {}", path.display()),
        None => "the connection string is no file's".to_owned(),
    };
    examination.add(Check::ok("configuration", origin));
    credential::examine(config, &mut examination);

    let path = HubPath {
        dialer: &dialer,
        hub,
        port: hub.https_port(),
        ca_file: config.hub.ca_file.as_deref(),
        limit: config.limit,
    };
    let reached = path.examine(&mut examination).await;
    if !reached.http {
        let why = "the way to the hub has to be open first";
        examination.skip(&[asked::HUB, asked::AUTHENTICATION], why);
        if config.identity.is_some() {
            examination.skip(&device::ALL, why);
            examination.skip(&stream::ALL, why);
            examination.skip(&[idle::SESSION, idle::IDLE], why);
        }
        return examination.into_report();
    }
    let api = HubApi::new(
        &config.hub.service,
        config.hub.connection_file.clone(),
        &dialer,
    );
    let Some(identity) = &config.identity else {
        asked::hub_alone(&api, config, &mut examination).await;
        return examination.into_report();
    };
    let seen = device::examine(&api, config, identity, &mut examination).await;
    if seen.is_lost {
        let why = "the device has to be reached first";
        examination.skip(&stream::ALL, why);
    } else {
        stream::examine(config, identity, &seen, &mut examination).await;
    }
    if seen.is_lost {
        examination.skip(
            &[idle::SESSION, idle::IDLE],
            "the device has to be reached first",
        );
    } else {
        idle::session(config, &seen, &mut examination);
        idle::examine(config, identity, &seen, &mut examination).await;
    }
    examination.into_report()
}

/// What is configured, without secrets.
fn effective(config: &DoctorConfig) -> Value {
    let path = |path: &Path| path.display().to_string();
    let hub = &config.hub;
    json!({
        "hub": hub.service.host.to_string(),
        "name": config.name.as_ref().map(ToString::to_string),
        "policy": hub.service.policy,
        "credential": credential::kind(&hub.service.credential),
        "connectionStringFile": hub.connection_file.as_deref().map(path),
        "caFile": hub.ca_file.as_deref().map(path),
        "proxy": hub.proxy.address.as_ref().map(ToString::to_string),
        "proxyAuth": hub.proxy.credentials.is_some(),
        "proxyAuthFile": hub.proxy.file.as_deref().map(path),
        "streamingHosts": hub.streaming_hosts.as_ref().map(ToString::to_string),
        "connectTimeoutSeconds": hub.timeouts.connect.as_secs_f64(),
        "responseTimeoutSeconds": hub.timeouts.response.as_secs_f64(),
        "session": config.session.mode.to_string(),
        "sessionGraceSeconds": config.session.grace.as_secs(),
        "memory": config.session.memory,
        "device": config.identity.as_ref().map(ToString::to_string),
    })
}
