//! Which events are for the audit log, and their records (`docs/audit.md`).

use std::error::Error;

use common::report::chain;
use common::wire::stream::carries_session;
use serde_json::value::RawValue;

use super::record::Record;
use crate::events::{
    ApprovalStep, Change, ConnectionPhase, DeviceReport, Event, JobOutcome, Method, MethodOutcome,
    Outcome, Stream,
};

const STREAMS: &str = "DeviceStreams";
const CONNECTIONS: &str = "Connections";
const IDENTITIES: &str = "DeviceIdentityOperations";
const TWINS: &str = "C2DTwinOperations";
const METHODS: &str = "DirectMethods";
const JOBS: &str = "JobsOperations";
const HUB: &str = "Hub";

/// Whether anybody can cause it, without a valid credential.
pub(super) fn is_by_stranger(event: &Event<'_>) -> bool {
    matches!(
        event,
        Event::DeviceRefused { .. }
            | Event::ServiceRefused { .. }
            | Event::NotEnrolled { .. }
            | Event::PersonRefused { .. }
    )
}

/// That so many records of [`is_by_stranger`] were counted only.
pub(super) fn held_back(count: u64) -> Record {
    Record::new(CONNECTIONS, "AuthenticationRefused")
        .failure("more refusals than are recorded one by one")
        .with("count", count)
}

/// The record of an event; `None`: it is not for the audit log.
pub(super) fn of(event: &Event<'_>) -> Option<Record> {
    Some(match event {
        Event::StreamRequested(stream) => of_stream("StreamRequested", stream).success(),
        Event::Stream(stream, outcome) => of_outcome(stream, outcome)?,
        Event::DeviceConnected {
            device,
            peer,
            transport,
        } => Record::new(CONNECTIONS, "deviceConnect")
            .about(device)
            .success()
            .with("callerAddress", peer)
            .with("protocol", transport),
        Event::DeviceDisconnected {
            device,
            peer,
            telemetry,
            end,
            ..
        } => Record::new(CONNECTIONS, "deviceDisconnect")
            .about(device)
            .success()
            .with("callerAddress", peer)
            .with("reason", text(*end))
            .with("telemetryMessages", telemetry),
        Event::SessionNotOpened {
            device,
            peer,
            reason,
        } => Record::new(CONNECTIONS, "deviceConnect")
            .about(device)
            .failure(&text(*reason))
            .with("callerAddress", peer),
        Event::DeviceRefused {
            peer,
            transport,
            reason,
            ..
        } => Record::new(CONNECTIONS, "AuthenticationRefused")
            .failure(&text(*reason))
            .with("callerAddress", peer)
            .with("protocol", transport),
        Event::ServiceRefused { peer, reason, .. } => {
            Record::new(CONNECTIONS, "AuthenticationRefused")
                .failure(&text(*reason))
                .with("callerAddress", peer)
                .with("protocol", "https")
        }
        Event::NotEnrolled { peer, reason } => Record::new(CONNECTIONS, "AuthenticationRefused")
            .failure(&text(*reason))
            .with("callerAddress", peer)
            .with("protocol", "enrolment"),
        Event::DeviceEnrolled { device, peer } => Record::new(IDENTITIES, "DeviceEnrolled")
            .about(device)
            .success()
            .with("callerAddress", peer),
        Event::OperatorEnrolled { policy, peer } => Record::new(IDENTITIES, "OperatorEnrolled")
            .success()
            .with("policy", policy)
            .with("callerAddress", peer),
        Event::PersonLoggedIn {
            person,
            token,
            peer,
        } => Record::new(IDENTITIES, "PersonLoggedIn")
            .success()
            .with("person", person)
            .with("token", token)
            .with("callerAddress", peer),
        Event::PersonRefused { peer, reason } => Record::new(CONNECTIONS, "AuthenticationRefused")
            .failure(&text(*reason))
            .with("callerAddress", peer)
            .with("protocol", "login"),
        Event::Approval {
            id,
            device,
            target,
            policy,
            step,
        } => of_approval(step)
            .about(device)
            .with("approvalId", id)
            .with("streamName", target)
            .with("policy", policy),
        Event::TokenStreamsEnded { token } => Record::new(STREAMS, "StreamsRevoked")
            .success()
            .with("token", token),
        Event::AccessDenied {
            device,
            name,
            policy,
            person,
            peer,
            reason,
        } => {
            let record = Record::new(STREAMS, "AccessDenied").failure(&text(*reason));
            let record = match device {
                Some(device) => record.about(device),
                None => record,
            };
            record
                .maybe("streamName", *name)
                .with("policy", policy)
                .maybe("person", *person)
                .with("callerAddress", peer)
        }
        Event::AccessFileRead { file, rules, freed } => {
            let freed = (!freed.is_empty()).then(|| freed.join(", "));
            Record::new(HUB, "AccessFileRead")
                .success()
                .with("file", file.display().to_string())
                .with("rules", rules)
                .maybe("noLongerGoverned", freed)
        }
        Event::Method(method, outcome) => of_method(method, outcome),
        Event::Job(id, outcome) => of_job(id, outcome),
        Event::TwinChanged {
            device,
            policy,
            peer,
            version,
        } => Record::new(TWINS, "update")
            .about(device)
            .success()
            .with("policy", policy)
            .with("callerAddress", peer)
            .with("version", version),
        Event::SessionRevoked { device } => Record::new(CONNECTIONS, "SessionRevoked")
            .about(device)
            .success(),
        Event::StreamsRevoked { device } => Record::new(STREAMS, "StreamsRevoked")
            .about(device)
            .success(),
        Event::ConfigurationChanged { file, settings } => Record::new(HUB, "ConfigurationChanged")
            .success()
            .with("file", file)
            .with("settings", settings),
        Event::Changed(change) => of_change(change),
        Event::DeviceReport(device, report) => of_report(report).about(device).success(),
        Event::ListenerStarted { protocol, address } => Record::new(HUB, "ListenerStarted")
            .success()
            .with("protocol", protocol)
            .with("address", address),
        Event::Stopping => Record::new(HUB, "Stopping").success(),
        Event::Stopped {
            streams_cut,
            in_time,
        } => Record::new(HUB, "Stopped")
            .success()
            .with("streamsCut", streams_cut)
            .with("inTime", in_time),
        Event::AmqpRefused { .. }
        // The registry's note of it says who has done it.
        | Event::Authority(_)
        | Event::Limited { .. }
        | Event::LegConnected { .. }
        | Event::InSession(..)
        | Event::Connection(_)
        | Event::Fault(_)
        | Event::IdentityChanged { .. }
        | Event::AmqpListenerStarted { .. }
        | Event::NeedsRestart { .. }
        | Event::Certificate(_)
        | Event::Acme(_) => return None,
    })
}

/// A request for access, or what somebody has decided about it.
fn of_approval(step: &ApprovalStep<'_>) -> Record {
    match step {
        ApprovalStep::Asked { reason, seconds } => Record::new(STREAMS, "ApprovalRequested")
            .success()
            .maybe("reason", *reason)
            .maybe("seconds", *seconds),
        ApprovalStep::Granted { by, until } => Record::new(STREAMS, "ApprovalGranted")
            .success()
            .with("approver", by)
            .maybe("until", *until),
        ApprovalStep::Refused { by, because } => Record::new(STREAMS, "ApprovalRefused")
            .failure("an approver refused it")
            .with("approver", by)
            .maybe("reason", *because),
    }
}

fn text(reason: &(dyn Error + Sync)) -> String {
    chain(reason).to_string()
}

/// A stream, and who has asked for it. A session's target is in the stream's name.
fn of_stream(operation: &str, stream: &Stream<'_>) -> Record {
    Record::new(STREAMS, operation)
        .about(stream.device)
        .with("streamName", stream.name)
        .with("streamId", stream.id.to_string())
        .maybe(
            "carriesSession",
            carries_session(stream.name).then_some(true),
        )
        .with("policy", stream.policy)
        .maybe("person", stream.person)
        .with("callerAddress", stream.peer)
}

fn of_outcome(stream: &Stream<'_>, outcome: &Outcome<'_>) -> Option<Record> {
    let rejected = |by: &str, why: &str| {
        let record = of_stream("StreamRejected", stream);
        record.failure(why).with("rejectedBy", by)
    };
    Some(match outcome {
        // Nothing flows before both legs are there.
        Outcome::Accepted => return None,
        Outcome::Rejected => rejected("device", "the device rejected the stream"),
        Outcome::NotAnswered { reason, .. } => rejected("hub", &text(*reason)),
        Outcome::GivenUp => rejected("service", "given up before the device answered"),
        Outcome::Established { .. } => of_stream("StreamEstablished", stream).success(),
        Outcome::Unpaired {
            has_leg,
            ended_by,
            reason,
            ..
        } => of_stream("StreamEnded", stream)
            .failure("ended before both ends were there")
            .with("hadOneEnd", has_leg)
            .with("endedBy", ended_by)
            .with("reason", text(*reason)),
        Outcome::Closed {
            to_device,
            to_service,
            duration,
            ended_by,
            end,
            ..
        } => of_stream("StreamEnded", stream)
            .success()
            .with("bytesToDevice", to_device)
            .with("bytesToService", to_service)
            .with("durationMs", milliseconds(*duration))
            .with("endedBy", ended_by)
            .with("reason", text(*end)),
    })
}

fn milliseconds(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn of_method(method: &Method<'_>, outcome: &MethodOutcome<'_>) -> Record {
    let record = Record::new(METHODS, "send").about(method.device);
    let record = match outcome {
        MethodOutcome::Answered { status } => record.success().with("status", status),
        MethodOutcome::NotAnswered(reason) => record.failure(&text(*reason)),
        MethodOutcome::GivenUp => record.failure("given up before the device answered"),
    };
    record
        .with("methodName", method.name)
        .with("policy", method.policy)
        .maybe("callerAddress", method.peer)
}

fn of_job(id: &str, outcome: &JobOutcome<'_>) -> Record {
    match outcome {
        JobOutcome::Made { policy } => Record::new(JOBS, "createJob")
            .success()
            .with("jobId", id)
            .with("policy", policy),
        JobOutcome::Cancelled { policy } => Record::new(JOBS, "cancelJob")
            .success()
            .with("jobId", id)
            .with("policy", policy),
        JobOutcome::Ended {
            status,
            succeeded,
            failed,
        } => Record::new(JOBS, "jobCompleted")
            .success()
            .with("jobId", id)
            .with("status", status)
            .with("succeeded", succeeded)
            .with("failed", failed),
    }
}

/// What was changed in the registry, by this process or another one.
fn of_change(change: &Change<'_>) -> Record {
    let Change {
        id,
        time,
        operation,
        device,
        policy,
        what,
        actor,
    } = change;
    let record = Record::new(IDENTITIES, operation);
    let record = match device {
        Some(device) => record.about(device),
        None => record,
    };
    // The registry has made it, and it is JSON; what was damaged is no actor.
    let actor: Option<&RawValue> = actor.and_then(|actor| serde_json::from_str(actor).ok());
    record
        .success()
        .maybe("policy", *policy)
        .maybe("changed", (!what.is_empty()).then_some(what))
        .maybe("by", actor)
        .with("changeId", id)
        .with("changedAt", time)
}

/// A connection in a session, by the device's word.
fn of_report(report: &DeviceReport<'_>) -> Record {
    let record = match report {
        DeviceReport::Connection { phase, .. } => Record::new(
            STREAMS,
            match phase {
                ConnectionPhase::Opened => "ConnectionOpened",
                ConnectionPhase::Ended { .. } => "ConnectionEnded",
            },
        ),
        DeviceReport::Lost { .. } => Record::new(STREAMS, "ConnectionReportsLost"),
    };
    let record = record.with("reportedBy", "device");
    match report {
        DeviceReport::Lost { count } => record.with("count", count),
        DeviceReport::Connection {
            target,
            session,
            stream,
            connection,
            time_ms,
            phase,
        } => {
            let record = record
                .with("target", target)
                .with("sessionId", session)
                .maybe("streamId", *stream)
                .with("connection", connection)
                .with("reportedTimeMs", time_ms);
            match phase {
                ConnectionPhase::Opened => record,
                ConnectionPhase::Ended {
                    to_device,
                    to_service,
                    duration_ms,
                    ended_by,
                    reason,
                } => record
                    .with("bytesToDevice", to_device)
                    .with("bytesToService", to_service)
                    .with("durationMs", duration_ms)
                    .with("endedBy", ended_by)
                    .with("reason", reason),
            }
        }
    }
}
