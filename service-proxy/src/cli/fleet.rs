//! The commands for many devices: their arguments only.

use std::ffi::OsString;
use std::time::Duration;

use clap::{Args, Subcommand};
use common::identity::{DeviceId, StreamName};

use super::approvals::{ApprovalsCommand, RequestArgs};
use super::form::FormArgs;
use super::values::{condition, job_id, method_seconds, path, start_time, user};
use crate::input::Input;

/// What to do with many devices.
#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
pub enum FleetCommand {
    /// List devices: whether they are online, their targets and streams, and when they were last
    /// active.
    Devices(DevicesArgs),
    /// Read or change the twin of a device, or with --module of a module.
    #[command(subcommand)]
    Twin(TwinCommand),
    /// Call a direct method of a device and print the payload of its answer; exit code 1 when its
    /// status is 300 or more.
    Method {
        /// The device.
        #[arg(value_name = "ID")]
        device: DeviceId,
        #[command(flatten)]
        method: MethodArgs,
    },
    /// Print all rows of a query: a table on a terminal if the rows are simple, else JSON.
    Query(QueryArgs),
    /// Change twins or call methods of many devices, and watch it happen; exit code 1 when any of
    /// them failed.
    #[command(subcommand)]
    Job(JobCommand),
    /// Run a command on many devices, with ssh through a stream to each. Lines of output begin with
    /// the device's id, and the exit code is the largest of all.
    Run(RunArgs),
    /// Print the devices as a dynamic inventory for Ansible, which runs a script of two lines:
    /// `#!/bin/sh` and `exec service-proxy inventory --group-by tags.site "$@"`.
    Inventory(InventoryArgs),
    /// Print telemetry as it arrives, and first what the hub still has (stream-hub only: IoT Hub
    /// gives telemetry over AMQP).
    Monitor(MonitorArgs),
    /// Ask for access to a target ahead of time, where the hub has somebody approve it, and wait for
    /// the decision.
    Request(RequestArgs),
    /// List and decide requests for access.
    #[command(subcommand)]
    Approvals(ApprovalsCommand),
}

/// Arguments of `devices`.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct DevicesArgs {
    /// Only devices for which this is true: what stands behind WHERE in a query.
    #[arg(long = "where", value_name = "CONDITION")]
    pub condition: Option<String>,

    #[command(flatten)]
    pub form: FormArgs,
}

/// What to do with a twin.
#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
pub enum TwinCommand {
    /// Print the twin, as JSON.
    Get {
        /// The device.
        #[arg(value_name = "ID")]
        device: DeviceId,
    },
    /// Merge a patch into tags and desired properties, where null removes; print the new twin.
    Set {
        /// The device.
        #[arg(value_name = "ID")]
        device: DeviceId,
        /// {"tags":{…},"properties":{"desired":{…}}}, @FILE with it, or - for stdin.
        #[arg(value_name = "PATCH")]
        patch: Input,
        /// Only if the twin still has this etag.
        #[arg(long)]
        etag: Option<String>,
    },
    /// Replace tags and desired properties as a whole; print the new twin.
    Replace {
        /// The device.
        #[arg(value_name = "ID")]
        device: DeviceId,
        /// A twin as `get` prints it, or only what is to be replaced; @FILE, or - for stdin.
        #[arg(value_name = "TWIN")]
        twin: Input,
        /// Only if the twin still has this etag; * for any [default: that in TWIN, else *].
        #[arg(long)]
        etag: Option<String>,
    },
}

/// A direct method and what it is given.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct MethodArgs {
    /// The method's name; device-proxy has ping, status, listStreams, closeStream, setLogLevel and
    /// reconnect.
    #[arg(value_name = "NAME")]
    pub name: String,

    /// JSON for the device, @FILE with it, or - for stdin [default: null].
    #[arg(value_name = "PAYLOAD")]
    pub payload: Option<Input>,

    /// How long the device may take to answer, 5 to 300 s [default: --response-timeout].
    #[arg(long, value_name = "SECONDS", value_parser = method_seconds)]
    pub timeout: Option<Duration>,
}

/// Arguments of `query`.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct QueryArgs {
    /// The query, in IoT Hub's query language, for instance
    /// 'SELECT deviceId FROM devices WHERE tags.site = "berlin"'.
    #[arg(value_name = "QUERY")]
    pub query: String,

    #[command(flatten)]
    pub form: FormArgs,
}

/// What to do with jobs.
#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
pub enum JobCommand {
    /// Merge a patch into the twin of every device that matches.
    Twin {
        /// {"tags":{…},"properties":{"desired":{…}}}, @FILE with it, or - for stdin.
        #[arg(value_name = "PATCH")]
        patch: Input,
        #[command(flatten)]
        schedule: ScheduleArgs,
    },
    /// Call a direct method of every device that matches. A device that is not connected fails at
    /// once, unless --connect-timeout is given.
    Method {
        #[command(flatten)]
        method: MethodArgs,
        #[command(flatten)]
        schedule: ScheduleArgs,
    },
    /// Print the hub's jobs.
    List {
        /// Only jobs in this status, for instance running or completed.
        #[arg(long)]
        status: Option<String>,
        /// Only jobs of this type: scheduleUpdateTwin or scheduleDeviceMethod.
        #[arg(long = "type", value_name = "TYPE")]
        kind: Option<String>,
        #[command(flatten)]
        form: FormArgs,
    },
    /// Print a job; with --wait follow it to its end.
    Show {
        /// The job.
        #[arg(value_name = "ID")]
        id: String,
        /// Wait until it is over, and show how far it is meanwhile; exit code 1 when it did not
        /// succeed for every device.
        #[arg(long)]
        wait: bool,
        /// Print what became of each device instead, as rows.
        #[arg(long, conflicts_with = "wait")]
        devices: bool,
        #[command(flatten)]
        form: FormArgs,
    },
    /// Cancel a job: it begins with no further device.
    Cancel {
        /// The job.
        #[arg(value_name = "ID")]
        id: String,
    },
}

/// For which devices and when a job runs.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct ScheduleArgs {
    /// The devices: what stands behind WHERE in a query, or * for all. For modules: FROM
    /// devices.modules WHERE and a condition.
    #[arg(long = "where", value_name = "CONDITION", value_parser = condition)]
    pub condition: String,

    /// When to begin: a time as 2026-11-29T22:00:00Z, or +90s, +10m, +2h, +1d from now
    /// [default: now].
    #[arg(long, value_name = "TIME", value_parser = start_time)]
    pub at: Option<String>,

    /// How long the job may run [default: the hub's, an hour].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=172_800))]
    pub max_seconds: Option<u64>,

    /// The job's id [default: one from the time].
    #[arg(long, value_name = "ID", value_parser = job_id)]
    pub id: Option<String>,

    /// End when the hub has taken the job, and print its id.
    #[arg(long)]
    pub no_wait: bool,
}

/// How ssh reaches a device.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct SshArgs {
    /// The user to log in as [default: ssh's].
    #[arg(long, value_name = "USER", value_parser = user)]
    pub user: Option<String>,

    /// The stream name of the device's SSH server [default: ssh].
    #[arg(long, value_name = "TARGET")]
    pub target: Option<StreamName>,
}

/// Arguments of `run`.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct RunArgs {
    /// The devices: what stands behind WHERE in a query, or * for all.
    #[arg(long = "where", value_name = "CONDITION", value_parser = condition)]
    pub condition: String,

    #[command(flatten)]
    pub ssh: SshArgs,

    /// An option for ssh, as behind its -o, for instance StrictHostKeyChecking=accept-new;
    /// repeatable.
    #[arg(long = "ssh-option", value_name = "OPTION")]
    pub ssh_options: Vec<String>,

    /// On how many devices the command runs at once [default: 10].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1000))]
    pub parallel: Option<u16>,

    /// How long the command may run on each device; then it is ended there
    /// [default: as long as it wants].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=31_536_000))]
    pub max_seconds: Option<u64>,

    /// The command, as ssh gives it to the device's shell.
    #[arg(value_name = "COMMAND", last = true, required = true)]
    pub command: Vec<OsString>,
}

/// Arguments of `inventory`.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct InventoryArgs {
    /// Print all devices with their groups and variables; the default.
    #[arg(long)]
    pub list: bool,

    /// Print the variables of this device only.
    #[arg(long, value_name = "NAME", conflicts_with = "list")]
    pub host: Option<String>,

    /// Only devices for which this is true: what stands behind WHERE in a query.
    #[arg(long = "where", value_name = "CONDITION")]
    pub condition: Option<String>,

    /// Make a group of the devices with the same value here, for instance tags.site; repeatable.
    #[arg(long, value_name = "PATH", value_parser = path)]
    pub group_by: Vec<String>,

    #[command(flatten)]
    pub ssh: SshArgs,
}

/// Arguments of `monitor`.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub struct MonitorArgs {
    /// Only telemetry of this device.
    #[arg(value_name = "DEVICE")]
    pub device: Option<DeviceId>,

    /// Print what the hub has now, and end.
    #[arg(long)]
    pub no_wait: bool,

    /// Print each message as one JSON object, as the hub gives it.
    #[arg(long)]
    pub json: bool,
}
