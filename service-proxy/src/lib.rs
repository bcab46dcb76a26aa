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
//! ```

pub mod cli;
pub mod config;
pub mod echo;
pub mod echo_plan;
pub mod error;
pub mod exit_code;
pub mod fleet;
pub mod forward;
pub mod host_names;
pub mod hub_api;
pub mod input;
pub mod limits;
pub mod local;
pub mod login;
pub mod openssh;
pub mod rdp;
pub mod sample_output;
pub mod session;
pub mod stream;
pub mod tunnel;

use common::{output, service_manager, shutdown};
use tokio_util::sync::CancellationToken;

use crate::config::{Config, ListenConfig};
use crate::error::Error;
use crate::local::listener::Listener;
use crate::local::socks::Proxy;
use crate::local::stdio;

/// Does what is configured, until it is done or `stop` is cancelled. Dropping the future cuts what is
/// open.
///
/// # Errors
/// [`Error`], with its causes one sentence for a person.
pub async fn run(config: Config, stop: CancellationToken) -> Result<(), Error> {
    match config {
        Config::Listen(config) => listen(config, stop).await,
        Config::Socks(config) => {
            let proxy = Proxy::bind(config).await?;
            // The program that started us waits for these lines.
            proxy.announce();
            proxy.run(stop).await;
            Ok(())
        }
        Config::Ssh(config, _) => Ok(openssh::session(*config)?),
        Config::SshConfig(config, _) => Ok(openssh::config(&config)?),
        Config::Rdp(config) => Ok(rdp::run(*config, stop).await?),
        Config::Connect(config) => Ok(stdio::run(config, &stop).await?),
        Config::Echo(config) => tokio::select! {
            result = echo::run_and_print(config, &stop) => Ok(result?),
            () = shutdown::output_gone() => Err(Error::OutputGone),
        },
        Config::Login(config) => Ok(login::run(config).await?),
        Config::Fleet(config) => tokio::select! {
            result = fleet::run(config, &stop) => Ok(result?),
            () = shutdown::output_gone() => Err(Error::OutputGone),
        },
    }
}

async fn listen(config: ListenConfig, stop: CancellationToken) -> Result<(), Error> {
    let listener = Listener::bind(config).await?;
    // The program that started us waits for these lines; a closed output is no reason to end.
    output::stdout().text(&listener.announcement());
    service_manager::ready();
    listener.run(stop).await;
    Ok(())
}
