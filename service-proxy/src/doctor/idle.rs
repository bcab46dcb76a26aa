//! Session mode with the device, and what ends an idle session from inside.

use common::doctor::idle::{self, Alive};
use common::doctor::{Check, Examination};
use common::identity::DeviceIdentity;
use common::session_mode::SessionMode;

use super::device::Seen;
use crate::config::DoctorConfig;
use crate::host_names::host_of;

/// Whether connections outlive interruptions.
pub(super) const SESSION: (&str, &str) = ("session", "session mode");
/// What ends an idle session.
pub(super) const IDLE: (&str, &str) = ("idle", "idle sessions");

/// Whether connections outlive interruptions.
pub(super) fn session(config: &DoctorConfig, seen: &Seen, examination: &mut Examination<'_>) {
    let (id, title) = SESSION;
    let hours = config.session.grace.as_secs() / 3600;
    let is_offered = seen.report.is_some() && seen.session.as_deref() != Some("never");
    let check = match config.session.mode {
        SessionMode::Never => Check::warning(
            id,
            "off here (--session never): connections end when the network is interrupted",
        )
        .remedy("--session auto"),
        _ if is_offered => {
            let now = seen.sessions.map_or_else(String::new, |sessions| {
                format!("; {sessions} at the device now")
            });
            Check::ok(
                id,
                format!("used: connections survive interruptions of up to {hours} h{now}"),
            )
        }
        _ if !seen.is_twin_known => {
            Check::skipped(id, "the device's twin is not known, which would say it")
        }
        SessionMode::Always => Check::failed(
            id,
            "the device does not offer it, and --session always allows nothing else",
        )
        .remedy("use device-proxy there without --session never, or --session auto here"),
        SessionMode::Auto => Check::warning(
            id,
            "the device does not offer it (another program, or --session never): connections end when the network is interrupted",
        )
        .remedy("use device-proxy there, without --session never"),
    };
    examination.add(check.called(title));
}

/// What ends an idle session from inside. May be dropped.
pub(super) async fn examine(
    config: &DoctorConfig,
    identity: &DeviceIdentity,
    seen: &Seen,
    examination: &mut Examination<'_>,
) {
    let ssh = idle::of_ssh(&host_of(&identity.device)).await;
    let is_session = config.session.mode != SessionMode::Never && seen.report.is_some();
    let check = judged(ssh, seen.sshd, is_session);
    let rdp: Vec<&str> = seen.rdp.iter().map(String::as_str).collect();
    let check = check.adding(&idle::of_rdp(&rdp));
    examination.add(check.called(IDLE.1));
}

fn judged(ssh: Option<Alive>, sshd: Option<Alive>, is_session: bool) -> Check {
    let id = IDLE.0;
    let ends = |alive: Option<Alive>| alive.and_then(Alive::ends_after);
    let mut known = Vec::new();
    if let Some(ssh) = ssh {
        known.push(format!(
            "ssh's ServerAliveInterval is {} here",
            ssh.interval
        ));
    }
    match sshd {
        Some(sshd) => known.push(format!(
            "sshd's ClientAliveInterval is {} there",
            sshd.interval
        )),
        None => known.push("sshd's ClientAliveInterval is not known".to_owned()),
    }
    let known = known.join(", ");
    let first = [(ends(sshd), "sshd"), (ends(ssh), "ssh")];
    let first = first
        .into_iter()
        .filter_map(|(seconds, who)| Some((seconds?, who)))
        .min();
    let Some((seconds, who)) = first else {
        return match (ssh, sshd) {
            (None, None) => Check::skipped(id, "neither ssh nor sshd says what would end one"),
            _ => Check::ok(id, format!("nothing that is known ends one: {known}")),
        };
    };
    let detail = format!("{who} ends a session after {seconds} s without an answer ({known})");
    if !is_session {
        return Check::ok(id, detail);
    }
    let remedy = match who {
        "sshd" => "ClientAliveInterval 0 in the device's sshd_config leaves that to session mode",
        _ => "ServerAliveInterval 0 for this host in ~/.ssh/config leaves that to session mode",
    };
    Check::warning(
        id,
        format!("{detail}: an interruption that is longer ends it"),
    )
    .remedy(remedy)
}

#[cfg(test)]
mod tests {
    use common::doctor::Outcome;

    use super::*;

    #[test]
    fn the_side_that_gives_up_first_is_named() {
        let alive = |interval| Some(Alive { interval, count: 3 });
        let check = judged(alive(60), alive(15), true);
        assert_eq!(check.outcome, Outcome::Warning);
        assert!(check.detail.starts_with("sshd ends a session after 45 s"));
        assert!(
            judged(alive(10), alive(15), true)
                .detail
                .starts_with("ssh ends")
        );
        assert_eq!(judged(alive(10), None, false).outcome, Outcome::Ok);
        assert_eq!(judged(alive(0), alive(0), true).outcome, Outcome::Ok);
        assert_eq!(judged(None, None, true).outcome, Outcome::Skipped);
    }
}
