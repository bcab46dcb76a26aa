//! Holds one outbound hub session and turns each accepted stream request into a
//! tunnel to an allowed local target.
//!
//! ```text
//! cli → config → hub_session → streams ─┬─► stream (pump) ──┬─► requests (repeated? a permit, the
//!                                       └─► session ────────┘   answer, our leg) → policy, target
//! ```

mod admission;
pub mod cli;
pub mod clock_check;
pub mod config;
mod counts;
pub mod doctor;
mod echo;
pub mod enrol;
mod follow;
mod forwarding;
pub mod hub_session;
pub mod limits;
mod observed;
pub mod policy;
mod reports;
mod requests;
pub mod sample_output;
#[cfg(windows)]
pub mod service;
mod session;
mod status;
mod stream;
pub mod streams;
pub mod target;
pub mod transport;
mod view;

use std::pin::pin;
use std::sync::Arc;

use common::admin::Admin;
use common::optional::or_never;
use common::retirement;
use common::service_manager::{self, Watchdog};
use common::status::Place;
use common::wire::twin::BootId;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use crate::config::Config;
pub use crate::follow::Followed;
use crate::follow::{Followers, follow};
use crate::hub_session::{Fatal, Supervisor};
use crate::observed::Observed;
use crate::policy::Control;
use crate::streams::Streams;

/// Runs until `stop` is cancelled, until it was retired (SIGUSR1) and carries nothing, or until the
/// first start meets what retrying cannot cure. Open tunnels are then closed, within
/// [`limits::DRAIN`]. Dropping the future leaves
/// them to end by themselves: cancel `stop`.
///
/// # Errors
/// [`Fatal`], with its causes one sentence for the person who started it.
pub async fn run(config: Config, stop: CancellationToken) -> Result<(), Fatal> {
    serve(Arc::new(config), None, None, stop).await
}

/// The same, with a configuration that is followed while it runs.
///
/// # Errors
/// As [`run`].
pub async fn run_following(mut followed: Followed, stop: CancellationToken) -> Result<(), Fatal> {
    followed.reloads.arm();
    let config = Arc::clone(&followed.current.config);
    let admin = Admin::bind(followed.current.admin).await?;
    serve(config, admin, Some(followed), stop).await
}

async fn serve(
    config: Arc<Config>,
    admin: Option<Admin>,
    followed: Option<Followed>,
    stop: CancellationToken,
) -> Result<(), Fatal> {
    config.log_proxy();
    // Answers outlive a hub session: the next one delivers them.
    let (answers, outbox) = mpsc::channel(limits::STREAMS_PER_DEVICE);
    let policy = Control::new(config.local());
    let streams = Streams::new(
        &config,
        policy.watch(),
        BootId::random(),
        answers,
        stop.clone(),
    );
    let administering = or_never(admin.map(|admin| {
        log_admin(&admin);
        let observed = Observed::new(&streams, &stop);
        // To the end of the program: it shows that it is stopping.
        admin.run(observed, CancellationToken::new())
    }));
    let mut administering = pin!(administering);
    // Not when the hub is reached: a machine that boots offline shall not wait for it.
    service_manager::ready();
    let mut watchdog = Watchdog::new();
    let (connection, changes) = watch::channel(config);
    let place = followed.as_ref().map_or(Place::Off, |it| it.status.clone());
    let started = Instant::now();
    let document = || status::document(&streams, &connection.borrow(), started);
    let answering = common::status::serve(env!("CARGO_PKG_NAME"), &place, document);
    let followers = Followers {
        policy: &policy,
        streams: &streams,
        connection: &connection,
    };
    let following = async {
        or_never(followed.map(|followed| follow(followed, followers, &stop))).await;
        // It ends with the program's terminal: the program ends in order.
        std::future::pending::<Result<(), Fatal>>().await
    };
    let supervising = Supervisor::new(changes, outbox).run(&streams, &policy, &stop);
    let forwardings = streams.forwardings();
    let result = tokio::select! {
        result = supervising => result,
        never = following => never,
        () = &mut administering => Ok(()),
        never = answering => match never {},
        () = async { loop { watchdog.feed().await } } => Ok(()),
        () = retirement::wait(forwardings.watch(), || forwardings.in_use()) => Ok(()),
    };
    service_manager::stopping();
    stop.cancel();
    tokio::select! {
        _ = timeout(limits::DRAIN + limits::CLOSE, streams.drain()) => {}
        () = administering => {}
    }
    result
}

fn log_admin(admin: &Admin) {
    if let Ok(address) = admin.address() {
        tracing::info!("metrics and health checks are at http://{address}");
    }
}
