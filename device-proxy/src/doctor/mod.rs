//! `device-proxy doctor`: the path from the device's chair. Its configuration and credential, the way
//! to the hub, a hub session, the targets, and what ends an idle session from inside.

mod credential;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use common::doctor::path::{HubPath, Reached};
use common::doctor::{Check, Examination, Outcome, Printer, Report, Secrets};
use common::net;
use common::session_mode::SessionMode;
use common::{doctor, output, report};
use serde_json::{Value, json};
use tokio::time::{Instant, timeout};

use crate::cli::DoctorArgs;
use crate::clock_check;
use crate::config::{Config, ConfigError};
use crate::hub_session::{Causes, ConnectError, connect};
use crate::policy::Policy;
use crate::transport::Transport;
use crate::view;

/// How long a step may take, by default.
const STEP: Duration = Duration::from_secs(10);

/// Why there is no report, or no bundle.
#[derive(Debug, thiserror::Error)]
pub enum DoctorError {
    /// The bundle cannot be written.
    #[error("cannot write the bundle {0}")]
    Bundle(String, #[source] std::io::Error),
}

/// Examines everything and prints it; whether nothing has failed. May be dropped.
///
/// # Errors
/// [`DoctorError`].
pub async fn run(
    config: Result<Arc<Config>, ConfigError>,
    args: &DoctorArgs,
) -> Result<bool, DoctorError> {
    let printer = Printer::of_stdout();
    let mut lines = printer.lines();
    let is_quiet = args.json;
    let observer = |check: &Check| {
        if let Some(line) = lines(check)
            && !is_quiet
        {
            output::stdout().coloured(&line);
        }
    };
    let report = match &config {
        Ok(config) => examine(config, args, observer).await,
        Err(error) => unconfigured(error, observer),
    };
    if args.json {
        output::stdout().line(&format!("{:#}", report.to_json()));
    } else {
        for line in printer.end(&report) {
            output::stdout().coloured(&line);
        }
    }
    if let Some(path) = &args.bundle {
        bundle(path, &report, config.ok().as_deref(), args).await?;
    }
    Ok(report.outcome() != Outcome::Failed)
}

async fn bundle(
    path: &Path,
    report: &Report,
    config: Option<&Config>,
    args: &DoctorArgs,
) -> Result<(), DoctorError> {
    let mut secrets = Secrets::new();
    secrets.add_environment();
    for text in args
        .options
        .positional
        .iter()
        .chain(&args.options.connection_string)
    {
        secrets.add_connection(text.expose());
    }
    if let Some(config) = config {
        secrets.add_connection(config.connection.to_secret_text().expose());
        if let Some(login) = &config.proxy.credentials {
            secrets.add_login(login.user(), login.password().expose());
        }
    }
    let log = doctor::journal("device-proxy").await;
    doctor::write_bundle(path, report, log, &secrets)
        .map_err(|error| DoctorError::Bundle(path.display().to_string(), error))?;
    if !args.json {
        let path = path.display();
        output::stdout().line(&format!("wrote {path}, without secrets"));
    }
    Ok(())
}

/// The report where there is no configuration to examine anything with.
pub fn unconfigured(error: &ConfigError, observer: impl FnMut(&Check) + Send) -> Report {
    let mut examination = Examination::new("device-proxy", "this device".to_owned(), observer);
    examination.add(Check::failed("configuration", report::chain(error)));
    examination.into_report()
}

/// Examines everything. May be dropped.
pub async fn examine(
    config: &Config,
    args: &DoctorArgs,
    observer: impl FnMut(&Check) + Send,
) -> Report {
    let limit = args.timeout.map_or(STEP, Duration::from_secs);
    let hub = config.connection.connect_host();
    let subject = format!("{} at {hub}", config.connection.identity);
    let mut examination = Examination::new("device-proxy", subject, observer);
    examination.configured(effective(config));
    let policy = config.policy();
    let detail = format!("{}; {}", config.transport_name(), policy.summary());
    examination.add(Check::ok("configuration", detail));
    credential::examine(config, &mut examination);

    let path = HubPath {
        dialer: &config.dialer,
        hub,
        port: config.session_port(),
        ca_file: config.ca_file.as_deref(),
        limit,
    };
    let reached = path.examine(&mut examination).await;
    other_transport(config, reached, limit, &mut examination).await;
    hub_session(config, args, (reached, limit), &mut examination).await;
    targets(config, &policy, &mut examination).await;
    session(config, &mut examination);
    idle(config, &policy, &mut examination).await;
    examination.into_report()
}

/// Where the configured way to the hub is blocked, whether the other one is open.
async fn other_transport(
    config: &Config,
    reached: Reached,
    limit: Duration,
    examination: &mut Examination<'_>,
) {
    const ID: &str = "transport";
    let hub = config.connection.connect_host();
    let begun = Instant::now();
    let check = match config.transport {
        Transport::Mqtt if !reached.tls => {
            let opening = net::mqtt(&config.dialer, hub);
            match timeout(limit, opening).await {
                Ok(Ok(_)) => Check::failed(
                    ID,
                    format!(
                        "MQTT on port {} is blocked, and over WebSockets on port {} it is not",
                        config.mqtts_port,
                        hub.https_port()
                    ),
                )
                .remedy("use --transport mqtt-ws, which is the default")
                .explaining(),
                _ => Check::skipped(ID, "WebSockets lead to the hub as little"),
            }
        }
        Transport::MqttWs if reached.tls && !reached.websocket => {
            let opening = config.dialer.tls(hub.name(), config.mqtts_port);
            match timeout(limit, opening).await {
                Ok(Ok(_)) => Check::warning(
                    ID,
                    format!("MQTT on port {} is open, where no WebSocket is needed", config.mqtts_port),
                )
                .remedy("--transport mqtt takes it for the hub session; streams need WebSockets all the same"),
                _ => Check::skipped(ID, "MQTT without WebSockets leads to the hub as little"),
            }
        }
        _ => return,
    };
    examination.add(check.called("transport").since(begun));
}

/// Opens a hub session as device-proxy does, and closes it.
async fn hub_session(
    config: &Config,
    args: &DoctorArgs,
    (reached, limit): (Reached, Duration),
    examination: &mut Examination<'_>,
) {
    const TITLES: [(&str, &str); 2] = [("hub-session", "hub session"), ("twin", "twin")];
    let is_way_open = reached.tls && (reached.websocket || config.transport == Transport::Mqtt);
    if !is_way_open {
        return examination.skip(&TITLES, "the way to the hub has to be open first");
    }
    if args.no_connect {
        return examination.skip(&TITLES, "--no-connect");
    }
    let [(id, title), twin] = TITLES;
    let begun = Instant::now();
    let connected = match timeout(limit, connect(config)).await {
        Ok(Ok(connected)) => connected,
        Err(_) => {
            let seconds = limit.as_secs_f32();
            let check = Check::failed(id, format!("no hub session within {seconds} s"))
                .remedy("look at the hub's log: is it overloaded?");
            examination.add(check.called(title).since(begun));
            return examination.skip(&[twin], "there is no hub session");
        }
        Ok(Err(error)) => {
            let check = refused(config, &error).await;
            examination.add(check.called(title).since(begun));
            return examination.skip(&[twin], "there is no hub session");
        }
    };
    let detail = format!(
        "{} takes {} with {}",
        config.connection.host,
        config.connection.identity,
        credential::kind(config)
    );
    examination.add(Check::ok(id, detail).called(title).since(begun));
    let check = if connected.has_twin {
        Check::ok(
            twin.0,
            "the hub has one for this device: policy and session mode are known there",
        )
    } else {
        Check::skipped(twin.0, "the hub offers none")
    };
    examination.add(check.called(twin.1));
}

async fn refused(config: &Config, error: &ConnectError) -> Check {
    const ID: &str = "hub-session";
    let detail = report::chain(error);
    match error {
        ConnectError::Refused { .. } => {
            let skew = clock_check::skew(config).await;
            match skew {
                Some(skew) if skew.is_too_large() => Check::failed(ID, format!("{detail}: {skew}")),
                skew => {
                    let causes = Causes::new(config, skew);
                    Check::failed(ID, format!("{detail}: {causes}"))
                }
            }
        }
        ConnectError::NoStreams { .. } => Check::failed(
            ID,
            format!("{detail}: it refuses the subscription for stream requests"),
        )
        .remedy("a hub in Azure needs a tier and a region with device streams"),
        ConnectError::NotAHub { .. } => {
            Check::failed(ID, detail).remedy("is HostName really a hub, and the port right?")
        }
        ConnectError::Timeout { .. } | ConnectError::Lost { .. } => {
            Check::failed(ID, detail).remedy("look at the hub's log, and try again")
        }
        ConnectError::Dial(_) | ConnectError::WebSocket(_) => Check::failed(ID, detail),
    }
}

async fn targets(config: &Config, policy: &Policy, examination: &mut Examination<'_>) {
    let permits =
        |target: &crate::target::Target, address| policy.addresses.permit(target, address);
    for found in policy.targets.examine(&config.dialer, &permits, None).await {
        let check = match &found.verdict {
            Ok(detail) => Check::ok("target", format!("{}: {detail}", found.target)),
            Err(fault) => Check::failed("target", format!("{}: {}", found.target, fault.detail))
                .remedy(fault.remedy),
        };
        let title = format!("target {}", found.name);
        examination.add(check.called(title).took(found.time));
    }
}

fn session(config: &Config, examination: &mut Examination<'_>) {
    let (id, title) = ("session", "session mode");
    let hours = config.session.grace.as_secs() / 3600;
    let check = match config.session.mode {
        SessionMode::Never => {
            Check::warning(id, "off: connections end when the network is interrupted")
                .remedy("--session auto")
        }
        mode => Check::ok(
            id,
            format!("{mode}: connections survive interruptions of up to {hours} h"),
        ),
    };
    examination.add(check.called(title));
}

/// What ends a session from inside.
async fn idle(config: &Config, policy: &Policy, examination: &mut Examination<'_>) {
    let (id, title) = ("idle", "idle sessions");
    let check = match view::sshd(policy).await {
        None => Check::skipped(id, "no sshd of this machine is a target, or it does not say"),
        Some((alive, source)) => match alive.ends_after() {
            Some(seconds) if config.session.mode != SessionMode::Never => Check::warning(
                id,
                format!(
                    "sshd ends a session after {seconds} s without an answer (ClientAliveInterval {}, ClientAliveCountMax {}, {source}): an interruption that is longer ends it",
                    alive.interval, alive.count
                ),
            )
            .remedy("ClientAliveInterval 0 in /etc/ssh/sshd_config leaves that to session mode"),
            Some(seconds) => Check::ok(
                id,
                format!("sshd ends a session after {seconds} s without an answer ({source})"),
            ),
            None => Check::ok(
                id,
                format!("sshd ends none (ClientAliveInterval {}, {source})", alive.interval),
            ),
        },
    };
    let rdp: Vec<&str> = policy.targets.rdp().collect();
    let check = check.adding(&doctor::idle::of_rdp(&rdp));
    examination.add(check.called(title));
}

/// What is configured, without secrets.
fn effective(config: &Config) -> Value {
    let path = |path: &Path| path.display().to_string();
    json!({
        "hub": config.connection.host.to_string(),
        "gateway": config.connection.gateway.as_ref().map(ToString::to_string),
        "identity": config.connection.identity.to_string(),
        "credential": credential::kind(config),
        "connectionStringFile": config.connection_file.as_deref().map(path),
        "transport": config.transport_name(),
        "mqttsPort": config.mqtts_port,
        "proxy": config.proxy.address.as_ref().map(ToString::to_string),
        "proxyAuth": config.proxy.credentials.is_some(),
        "proxyAuthFile": config.proxy.file.as_deref().map(path),
        "tlsFiles": config.tls_files.iter().map(|it| path(it)).collect::<Vec<_>>(),
        "session": config.session.mode.to_string(),
        "sessionGraceSeconds": config.session.grace.as_secs(),
        "memory": config.session.memory,
        "maxStreams": config.max_streams,
        "targets": config.targets.summary(),
    })
}
