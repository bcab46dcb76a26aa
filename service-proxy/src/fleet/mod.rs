//! Many devices from one place: their list, twins, direct methods, queries, jobs, commands over ssh,
//! an inventory, telemetry. One file per command.
//!
//! Results go to standard output and wait for its reader, so that no row is lost; all else goes to
//! standard error.

mod approvals;
mod devices;
mod error;
mod inventory;
mod job;
mod method;
mod monitor;
mod print;
mod query;
mod run;
mod table;
mod twin;
mod watch;

use common::hub_address::HubAddress;
use tokio_util::sync::CancellationToken;

pub use self::error::FleetError;
use self::print::Printer;
use crate::config::{FleetConfig, HubConfig, Task};
use crate::hub_api::{CallError, HubApi};
use crate::stream::SetupError;

/// Does what is asked, until it is done or `stop` is cancelled. When the future is dropped, programs
/// that it started are ended, and a request that is under way may have its effect or not.
///
/// # Errors
/// [`FleetError`], with its causes one sentence for a person.
pub async fn run(config: FleetConfig, stop: &CancellationToken) -> Result<(), FleetError> {
    let fleet = Fleet::new(&config.hub)?;
    let mut out = Printer::new(tokio::io::stdout());
    let result = fleet.perform(config.task, &mut out, stop).await;
    // What was found before a failure is of use, too.
    let printed = out.flush().await;
    result.and(printed)
}

/// The hub whose devices are managed.
struct Fleet {
    api: HubApi,
}

impl Fleet {
    fn new(hub: &HubConfig) -> Result<Self, FleetError> {
        let dialer = hub.dialer().map_err(SetupError::from)?;
        Ok(Self {
            api: HubApi::new(&hub.service, hub.connection_file.clone(), &dialer),
        })
    }

    async fn perform(
        &self,
        task: Task,
        out: &mut Printer,
        stop: &CancellationToken,
    ) -> Result<(), FleetError> {
        let work = async {
            match task {
                Task::Devices(args) => self.devices(args, out).await,
                Task::Twin { command, module } => self.twin(command, module, out).await,
                Task::Method {
                    identity,
                    method,
                    limits,
                } => self.method(&identity, method, limits, out).await,
                Task::Query(args) => self.query(args, out).await,
                Task::Job { command, limits } => self.job(command, limits, stop, out).await,
                Task::Run {
                    args,
                    target,
                    connection,
                } => self.run(args, &target, &connection, out).await,
                Task::Inventory {
                    args,
                    target,
                    connection,
                } => self.inventory(args, &target, &connection, out).await,
                Task::Monitor(args) => self.monitor(args, stop, out).await,
                Task::Request {
                    identity,
                    args,
                    wait,
                } => {
                    let target = args.target.clone();
                    self.request(&identity, &target, args, wait, out).await
                }
                Task::Approvals(command) => self.approvals(command, out).await,
            }
        };
        tokio::pin!(work);
        tokio::select! {
            biased;
            result = &mut work => result,
            // Some have a better answer to the signal than to be dropped.
            () = stop.cancelled() => match tokio::time::timeout(STOPPING, work).await {
                Ok(result) => result,
                Err(_) => Err(FleetError::Stopped),
            },
        }
    }

    fn hub(&self) -> &HubAddress {
        self.api.hub()
    }

    /// Says of an error what was tried, and where.
    fn failed(&self, doing: impl Into<String>) -> impl FnOnce(CallError) -> FleetError {
        let (doing, hub) = (doing.into(), self.hub().clone());
        move |source| FleetError::Call { doing, hub, source }
    }
}

/// How long a command may take to notice that it is to stop.
const STOPPING: std::time::Duration = std::time::Duration::from_millis(200);
