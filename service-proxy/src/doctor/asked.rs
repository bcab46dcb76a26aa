//! What the hub answers: whether it works, and whether it believes us.

use common::doctor::{Check, Examination};
use common::report;
use tokio::time::{Instant, timeout};

use crate::config::DoctorConfig;
use crate::hub_api::{CallError, HubApi, InitiateError};

/// Whether the hub answers as one.
pub(super) const HUB: (&str, &str) = ("hub", "hub");
/// Whether it believes us.
pub(super) const AUTHENTICATION: (&str, &str) = ("authentication", "authentication");

/// What an answer of the hub says of the hub and of our credential.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Standing {
    /// It works, and believes us.
    Good,
    /// It works, and does not believe us.
    Refused,
    /// It does not work.
    Broken,
    /// It does not say.
    Unknown,
}

/// Asks a hub without a device.
pub(super) async fn hub_alone(
    api: &HubApi,
    config: &DoctorConfig,
    examination: &mut Examination<'_>,
) {
    let begun = Instant::now();
    let answer = timeout(config.limit, api.examine_query()).await;
    match answer {
        Ok(Ok(())) => {
            let check = Check::ok(HUB.0, "answers as a hub");
            examination.add(check.called(HUB.1).since(begun));
            let policy = &config.hub.service.policy;
            let detail = format!("policy `{policy}` is believed, and may reach devices");
            examination.add(Check::ok(AUTHENTICATION.0, detail).called(AUTHENTICATION.1));
        }
        Ok(Err(
            error @ (CallError::NotOffered(_) | CallError::Hub(InitiateError::Answer { .. })),
        )) => {
            // Without a stream nothing else would show it.
            let check = Check::warning(HUB.0, report::chain(&error))
                .remedy("is HostName really a hub? name a device, to test a stream");
            examination.add(check.called(HUB.1).since(begun));
            examination.skip(&[AUTHENTICATION], "the hub does not say it");
        }
        Ok(Err(error)) => {
            standing(&error, begun, examination);
        }
        Err(_) => {
            silent(config, begun, examination);
        }
    }
}

/// Adds what it means that the hub has not answered in time.
pub(super) fn silent(config: &DoctorConfig, begun: Instant, examination: &mut Examination<'_>) {
    let seconds = config.limit.as_secs_f32();
    let check = Check::failed(HUB.0, format!("no answer within {seconds} s"))
        .remedy("look at the hub's log: is it overloaded?");
    examination.add(check.called(HUB.1).since(begun));
    examination.skip(&[AUTHENTICATION], "the hub has to answer first");
}

/// Adds what an error says of the hub and of our credential.
pub(super) fn standing(
    error: &CallError,
    begun: Instant,
    examination: &mut Examination<'_>,
) -> Standing {
    use InitiateError as I;
    let text = report::chain(error);
    let good = |examination: &mut Examination<'_>| {
        let check = Check::ok(HUB.0, "answers as a hub");
        examination.add(check.called(HUB.1).since(begun));
    };
    match error {
        CallError::Hub(
            I::Unauthorised { .. }
            | I::Narrow { .. }
            | I::TokenExpired
            | I::BadToken
            | I::ClockSkew { .. },
        ) => {
            good(examination);
            examination.add(Check::failed(AUTHENTICATION.0, text).called(AUTHENTICATION.1));
            Standing::Refused
        }
        CallError::Hub(I::Refused { status, .. }) if status.as_u16() == 403 => {
            good(examination);
            let check = Check::failed(AUTHENTICATION.0, text)
                .remedy("the policy may not do this, or a rule of the hub's network refuses this address (403)");
            examination.add(check.called(AUTHENTICATION.1));
            Standing::Refused
        }
        CallError::Hub(
            I::UnknownDevice(_)
            | I::UnknownModule(_)
            | I::DeviceOffline { .. }
            | I::NoAnswer { .. },
        )
        | CallError::Offline { .. }
        | CallError::NoAnswer { .. } => {
            good(examination);
            let detail = "the hub believes us";
            examination.add(Check::ok(AUTHENTICATION.0, detail).called(AUTHENTICATION.1));
            Standing::Good
        }
        CallError::Hub(I::Refused { status, .. })
            if status.is_client_error() && status.as_u16() != 408 =>
        {
            let why = format!("not offered by this hub ({status}); opening a stream will show it");
            examination.skip(&[HUB, AUTHENTICATION], &why);
            Standing::Unknown
        }
        CallError::NotOffered(_) | CallError::Hub(I::Answer { .. }) => {
            let why = "not offered by this hub; opening a stream will show it";
            examination.skip(&[HUB, AUTHENTICATION], why);
            Standing::Unknown
        }
        error => {
            let check = Check::failed(HUB.0, text).called(HUB.1).since(begun);
            let check = match error {
                CallError::Hub(I::Throttled { .. }) => check,
                CallError::Hub(I::Refused { status, .. }) if status.is_server_error() => {
                    check.remedy("look at the hub's log, and at what stands before it")
                }
                _ => check,
            };
            examination.add(check);
            examination.skip(&[AUTHENTICATION], "the hub has to answer first");
            Standing::Broken
        }
    }
}
