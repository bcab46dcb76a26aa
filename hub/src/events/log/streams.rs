//! What services do with devices: streams, methods and jobs.

use common::log_about;
use common::report::chain;
use common::telemetry::{self, About};

use crate::events::{JobOutcome, Method, MethodOutcome, Outcome, Stream};

pub(super) fn write_job(job: &str, outcome: JobOutcome<'_>) {
    match outcome {
        JobOutcome::Made { policy } => {
            log_about!(audit info, About::default().policy(&policy), job, "job made");
        }
        JobOutcome::Cancelled { policy } => {
            log_about!(audit info, About::default().policy(&policy), job, "job cancelled");
        }
        JobOutcome::Ended {
            status,
            succeeded,
            failed,
        } => log_about!(
            audit info,
            About::default(),
            job,
            succeeded,
            failed,
            "job {status}"
        ),
    }
}

/// The outcome of a call of a direct method, with who has called it.
pub(super) fn write_method(method: &Method<'_>, outcome: MethodOutcome<'_>) {
    let Method {
        name,
        device,
        policy,
        peer,
    } = method;
    let about = About::stream(None, name).of(device).policy(policy);
    let about = match peer {
        Some(peer) => about.peer(peer),
        None => about,
    };
    match outcome {
        MethodOutcome::Answered { status } => {
            log_about!(audit info, about, status, "direct method answered");
        }
        MethodOutcome::NotAnswered(reason) => {
            log_about!(info, about, "direct method not answered: {}", chain(reason));
        }
        MethodOutcome::GivenUp => log_about!(
            info,
            about,
            "direct method given up before the device answered"
        ),
    }
}

/// The outcome of a stream, with who has asked for it.
pub(super) fn write_outcome(stream: &Stream<'_>, outcome: Outcome<'_>) {
    let about = about(stream);
    match outcome {
        Outcome::Accepted => log_about!(audit info, about, "stream accepted"),
        // A service can cause it without end.
        Outcome::Rejected => log_about!(info, about, "stream rejected"),
        Outcome::NotAnswered { reason, .. } => {
            log_about!(debug, about, "no stream: {}", chain(reason));
        }
        Outcome::GivenUp => log_about!(
            debug,
            about,
            "no stream: given up before the device answered"
        ),
        Outcome::Established { .. } => log_about!(debug, about, "stream established"),
        Outcome::Unpaired {
            has_leg: true,
            reason,
            ..
        } => log_about!(
            audit info,
            about,
            "stream ended before its other leg came: {}",
            chain(reason)
        ),
        Outcome::Unpaired {
            has_leg: false,
            reason,
            ..
        } => log_about!(
            audit info,
            about,
            "stream ended before its legs came: {}",
            chain(reason)
        ),
        Outcome::Closed {
            to_device,
            to_service,
            duration,
            end,
            ..
        } => log_about!(
            audit info,
            about,
            to_device,
            to_service,
            seconds = telemetry::seconds(duration),
            "stream closed: {}", chain(end)
        ),
    }
}

pub(super) fn about<'a>(stream: &'a Stream<'a>) -> About<'a> {
    let about = About::stream(Some(stream.id), &stream.name)
        .of(stream.device)
        .policy(&stream.policy)
        .peer(stream.peer);
    match &stream.person {
        Some(person) => about.person(person),
        None => about,
    }
}
