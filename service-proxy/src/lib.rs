//! The operator's side of device streams: listens locally, and carries each connection to
//! a device, in a session that all of them share or in a stream of its own.
//!
//! ```text
//! cli → config ─┬─► local ─► tunnel ─► session ─┬─► stream ─► hub_api
//!               ├─► echo ────────────────────────────────────┘               ▲
//!               └─► fleet ───────────────────────────────────────────────────┘
//! ```
//!
//! A tunnel goes in a session (`common::session`) or in a stream of its own (`common::tunnel`); both
//! run over our leg of a stream (`common::websocket`).
//!
//! ```text
//! local    where connections come from      tunnel   one connection's life, and its last line
//! session  carried by stream after stream   stream   opened: initiation, then our leg
//! fleet    twins, methods, jobs, queries    login    an operator's connection string, by a code
//! doctor   what is wrong on the way
//! ```

pub mod carried;
pub mod cli;
pub mod config;
mod counts;
pub mod doctor;
pub mod echo;
pub mod echo_plan;
pub mod error;
pub mod exit_code;
pub mod fleet;
mod follow;
pub mod forward;
pub mod host_names;
pub mod hub_api;
pub mod hub_name;
pub mod input;
pub mod limits;
pub mod local;
pub mod login;
pub mod oidc;
pub mod openssh;
pub mod rdp;
pub mod sample_output;
pub mod session;
pub mod status;
pub mod stream;
pub mod tunnel;

use std::convert::Infallible;

use common::admin::Admin;
use common::optional::or_never;
use common::status::Place;
use common::{output, service_manager, shutdown};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::config::{Config, ListenConfig, SocksConfig};
use crate::counts::Observed;
use crate::error::Error;
pub use crate::follow::Followed;
use crate::follow::follow;
use crate::local::listener::Listener;
use crate::local::running::Update;
use crate::local::socks::Proxy;
use crate::local::stdio;
use crate::status::Board;

/// Does what is configured, until it is done or `stop` is cancelled. Dropping the future cuts what is
/// open.
///
/// # Errors
/// [`Error`], with its causes one sentence for a person.
pub async fn run(config: Config, stop: CancellationToken) -> Result<(), Error> {
    match config {
        Config::Listen(config) => listen(config, none(), &Seen::by_nobody(), stop).await,
        Config::Socks(config) => socks(config, none(), &Seen::by_nobody(), stop).await,
        Config::Ssh(config, _) => Ok(openssh::session(*config)?),
        Config::SshConfig(config, _) => Ok(openssh::config(&config)?),
        Config::Rdp(config) => Ok(rdp::run(*config, stop).await?),
        Config::Connect(config) => Ok(stdio::run(config, &Place::Off, &stop).await?),
        Config::Echo(config) => tokio::select! {
            result = echo::run_and_print(config, &stop) => Ok(result?),
            () = shutdown::output_gone() => Err(Error::OutputGone),
        },
        Config::Doctor(config) => tokio::select! {
            result = doctor::run(&config) => Ok(result?),
            () = stop.cancelled() => Err(Error::Interrupted),
            () = shutdown::output_gone() => Err(Error::OutputGone),
        },
        Config::Status(asked) => tokio::select! {
            result = common::status::ask(env!("CARGO_PKG_NAME"), asked) => Ok(result?),
            () = stop.cancelled() => Ok(()),
        },
        Config::Login(config) => tokio::select! {
            result = login::run(config) => Ok(result?),
            () = stop.cancelled() => Err(Error::Interrupted),
        },
        Config::Fleet(config) => tokio::select! {
            result = fleet::run(config, &stop) => Ok(result?),
            () = shutdown::output_gone() => Err(Error::OutputGone),
        },
    }
}

async fn listen(
    config: ListenConfig,
    updates: mpsc::Receiver<Update>,
    seen: &Seen,
    stop: CancellationToken,
) -> Result<(), Error> {
    let listener = Listener::bind(config).await?;
    seen.listening.cancel();
    // The program that started us waits for these lines; a closed output is no reason to end.
    output::stdout().text(&listener.announcement());
    service_manager::ready();
    let board = listener.board();
    tokio::select! {
        () = listener.run_following(updates, stop) => Ok(()),
        never = answer(&seen.status, &board) => match never {},
    }
}

async fn socks(
    config: SocksConfig,
    updates: mpsc::Receiver<Update<SocksConfig>>,
    seen: &Seen,
    stop: CancellationToken,
) -> Result<(), Error> {
    let proxy = Proxy::bind(config).await?;
    seen.listening.cancel();
    // The program that started us waits for these lines.
    proxy.announce();
    let board = proxy.board();
    tokio::select! {
        () = proxy.run_following(updates, stop) => Ok(()),
        never = answer(&seen.status, &board) => match never {},
    }
}

/// Who looks at a running program from outside.
struct Seen {
    /// Cancelled as soon as the ports are bound.
    listening: CancellationToken,
    /// Where those who ask for the status are answered.
    status: Place,
}

impl Seen {
    /// Nobody looks.
    fn by_nobody() -> Self {
        Self {
            listening: CancellationToken::new(),
            status: Place::Off,
        }
    }
}

/// Answers those who ask for the status.
async fn answer(place: &Place, board: &Board) -> Infallible {
    let document = || board.document();
    common::status::serve(env!("CARGO_PKG_NAME"), place, document).await
}

/// Updates that never come.
fn none<T>() -> mpsc::Receiver<T> {
    mpsc::channel(1).1
}

/// The same as [`run`], with a configuration that is followed while it runs, as far as there is
/// something to follow: for local ports.
///
/// # Errors
/// As [`run`].
pub async fn run_following(followed: Followed, stop: CancellationToken) -> Result<(), Error> {
    let seen = Seen {
        listening: CancellationToken::new(),
        status: followed.status.clone(),
    };
    let has_ports = matches!(
        followed.current.config,
        Config::Listen(_) | Config::Socks(_)
    );
    let admin = match has_ports {
        true => Admin::bind(followed.current.admin).await?,
        // A command that ends by itself has nothing to show.
        false => None,
    };
    let administering = or_never(admin.map(|admin| {
        if let Ok(address) = admin.address() {
            tracing::info!("metrics and health checks are at http://{address}");
        }
        // To the end of the program: it shows that it is stopping.
        admin.run(
            Observed::new(&seen.listening, &stop),
            CancellationToken::new(),
        )
    }));
    tokio::select! {
        result = follow_to_end(followed, &seen, stop.clone()) => result,
        () = administering => Ok(()),
    }
}

/// The same without the admin listener.
async fn follow_to_end(
    mut followed: Followed,
    seen: &Seen,
    stop: CancellationToken,
) -> Result<(), Error> {
    match followed.current.config.clone() {
        Config::Listen(config) => {
            followed.reloads.arm();
            let (sender, updates) = mpsc::channel(1);
            let of = |config| match config {
                Config::Listen(config) => Some(config),
                _ => None,
            };
            tokio::select! {
                result = listen(config, updates, seen, stop.clone()) => result,
                never = follow(followed, of, sender, &stop) => match never {},
            }
        }
        Config::Socks(config) => {
            followed.reloads.arm();
            let (sender, updates) = mpsc::channel(1);
            let of = |config| match config {
                Config::Socks(config) => Some(config),
                _ => None,
            };
            tokio::select! {
                result = socks(config, updates, seen, stop.clone()) => result,
                never = follow(followed, of, sender, &stop) => match never {},
            }
        }
        Config::Connect(config) => Ok(stdio::run(config, &seen.status, &stop).await?),
        config => {
            // A login that is being renewed is stored before the end.
            let mut hangups = shutdown::Hangups::new();
            tokio::select! {
                result = run(config, stop) => result,
                () = hangups.next() => Err(Error::HungUp),
            }
        }
    }
}
