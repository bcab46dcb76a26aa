//! Why a command for many devices did not do all that was asked.

use std::io;

use common::hub_address::HubAddress;
use common::identity::DeviceIdentity;

use crate::hub_api::CallError;
use crate::input::InputError;
use crate::stream::SetupError;

/// Why a command did not do all that was asked.
#[derive(Debug, thiserror::Error)]
pub enum FleetError {
    /// The hub cannot be called at all.
    #[error(transparent)]
    Setup(#[from] SetupError),
    /// The document to send cannot be used.
    #[error(transparent)]
    Input(#[from] InputError),
    /// The hub cannot be reached, or refuses.
    #[error("cannot {doing}{}", place(source, hub))]
    Call {
        /// What was tried, behind "cannot".
        doing: String,
        /// Where.
        hub: HubAddress,
        /// Why not.
        #[source]
        source: CallError,
    },
    /// Access was asked for, and is not granted.
    #[error("request {id} is {state}")]
    NotApproved {
        /// The request.
        id: String,
        /// What has become of it.
        state: String,
    },
    /// The device was called and did not succeed.
    #[error("method {method} of {identity}: the device answered with status {status}")]
    MethodStatus {
        /// The method.
        method: String,
        /// The device, or a module of it.
        identity: DeviceIdentity,
        /// The device's status.
        status: i64,
    },
    /// A job is over, and not every device succeeded.
    #[error(
        "job {id}: {failed} of {devices} devices failed; `service-proxy job show {id} --devices` says why"
    )]
    DevicesFailed {
        /// The job.
        id: String,
        /// How many devices failed.
        failed: u64,
        /// How many devices it was for.
        devices: u64,
    },
    /// A job is over before its end.
    #[error("job {id} is {status}{}", .reason.as_ref().map(|reason| format!(": {reason}")).unwrap_or_default())]
    JobEnded {
        /// The job.
        id: String,
        /// How it ended.
        status: String,
        /// What the hub says about it.
        reason: Option<String>,
    },
    /// The job is no longer watched.
    #[error(
        "stopped, but job {id} goes on: `service-proxy job show {id} --wait` watches it, `service-proxy job cancel {id}` ends it"
    )]
    JobGoesOn {
        /// The job.
        id: String,
    },
    /// There is nothing to do anything with.
    #[error("hub {hub} has no device for which this is true: {condition}")]
    NoDevice {
        /// Where.
        hub: HubAddress,
        /// The condition.
        condition: String,
    },
    /// The command did not succeed on every device.
    #[error("the command failed on {failed} of {devices} devices: {which}")]
    Commands {
        /// On how many it failed.
        failed: usize,
        /// On how many it was to run.
        devices: usize,
        /// The first of them, with their exit codes.
        which: String,
        /// The largest exit code.
        worst: u8,
    },
    /// This program does not know where it is.
    #[error("cannot find service-proxy's own file, which ssh would have to start")]
    OwnFile(#[source] io::Error),
    /// The hub has no telemetry for us.
    #[error(
        "hub {hub} gives no telemetry over HTTPS: only stream-hub does (IoT Hub gives it over AMQP, for instance to `az iot hub monitor-events`)"
    )]
    NoTelemetry {
        /// Where.
        hub: HubAddress,
    },
    /// It was to stop before its end.
    #[error("stopped before the end")]
    Stopped,
    /// Nothing reads standard output any more.
    #[error("nothing reads standard output any more")]
    OutputGone,
    /// Standard output cannot be written.
    #[error("cannot write the output")]
    Output(#[source] io::Error),
}

/// The hub, unless the reason names it.
fn place(source: &CallError, hub: &HubAddress) -> String {
    if source.names_hub() {
        String::new()
    } else {
        format!(" at hub {hub}")
    }
}
