//! Holds one outbound hub session and turns each accepted stream request into a
//! tunnel to an allowed local target.
//!
//! CLI → config → hub session → stream handshake (request, policy, dial the target,
//! accept or reject) → streaming endpoint → pump, or a session of many connections.

pub mod cli;
pub mod clock_check;
pub mod config;
pub mod hub_session;
pub mod sample_output;
mod session;
pub mod stream;
pub mod target;
pub mod transport;

use common::limits;
use common::wire::twin::BootId;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use crate::config::Config;
use crate::hub_session::{Fatal, Supervisor};
use crate::stream::Streams;

/// Runs until `stop` is cancelled, or until the first start meets what retrying
/// cannot cure. Open tunnels are then closed, within [`limits::DRAIN`].
///
/// # Errors
/// [`Fatal`]: one sentence for the person who started it.
pub async fn run(config: Config, stop: CancellationToken) -> Result<(), Fatal> {
    // Answers outlive a hub session: the next one delivers them.
    let (answers, outbox) = mpsc::channel(limits::STREAMS_PER_DEVICE);
    let streams = Streams::new(&config, BootId::random(), answers, stop.clone());
    let result = Supervisor::new(config, outbox).run(&streams, &stop).await;
    stop.cancel();
    let _ = timeout(limits::DRAIN + limits::CLOSE, streams.drain()).await;
    result
}
