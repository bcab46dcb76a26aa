//! Holds one outbound hub session and turns each accepted stream request into a
//! tunnel to an allowed local target.
//!
//! ```text
//! cli → config → hub_session → streams ─┬─► stream (pump) ──┬─► requests (repeated? a permit, the
//!                                       └─► session ────────┘   answer, our leg) → policy, target
//! ```

pub mod cli;
pub mod clock_check;
pub mod config;
mod echo;
pub mod enrol;
mod forwarding;
pub mod hub_session;
pub mod limits;
pub mod policy;
mod requests;
pub mod sample_output;
mod session;
mod stream;
pub mod streams;
pub mod target;
pub mod transport;

use common::optional::or_never;
use common::service_manager::{self, Watchdog};
use common::wire::twin::BootId;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::config::{Config, follow};
use crate::hub_session::{Fatal, Supervisor};
use crate::policy::Control;
use crate::streams::Streams;

/// Runs until `stop` is cancelled, or until the first start meets what retrying
/// cannot cure. Open tunnels are then closed, within [`limits::DRAIN`]. Dropping the future leaves
/// them to end by themselves: cancel `stop`.
///
/// # Errors
/// [`Fatal`], with its causes one sentence for the person who started it.
pub async fn run(mut config: Config, stop: CancellationToken) -> Result<(), Fatal> {
    config.log_proxy();
    // Answers outlive a hub session: the next one delivers them.
    let (answers, outbox) = mpsc::channel(limits::STREAMS_PER_DEVICE);
    let policy = Control::new(config.local());
    let file = config.file.take();
    let streams = Streams::new(
        &config,
        policy.watch(),
        BootId::random(),
        answers,
        stop.clone(),
    );
    // Not when the hub is reached: a machine that boots offline shall not wait for it.
    service_manager::ready();
    let mut watchdog = Watchdog::new();
    let result = tokio::select! {
        result = Supervisor::new(config, outbox).run(&streams, &policy, &stop) => result,
        never = or_never(file.map(|file| follow(file, &policy))) => match never {},
        () = async { loop { watchdog.feed().await } } => Ok(()),
    };
    service_manager::stopping();
    stop.cancel();
    let _ = timeout(limits::DRAIN + limits::CLOSE, streams.drain()).await;
    result
}
