//! Arguments; all of them have defaults.

use std::path::PathBuf;

use clap::Parser;
use common::identity::DeviceId;
use tracing::level_filters::LevelFilter;

/// Runs hub, device-proxy and service-proxy in one process on loopback.
///
/// The first run makes a CA and keys in the data folder; later runs use them again.
#[derive(Debug, Parser)]
#[command(name = "quickstart", version)]
pub struct Cli {
    /// The hub's data folder.
    #[arg(long, value_name = "DIR", default_value = "./quickstart-data")]
    pub data_dir: PathBuf,

    /// The device to register.
    #[arg(long, value_name = "ID", default_value = "MyDevice")]
    pub device: DeviceId,

    /// The TCP service to which streams connect.
    #[arg(long, value_name = "HOST:PORT", default_value = "localhost:22")]
    pub target: String,

    /// The local port that leads there; 0 picks one.
    #[arg(long, value_name = "PORT", default_value_t = 2222)]
    pub port: u16,

    /// off, error, warn, info, debug or trace.
    #[arg(long, value_name = "LEVEL", default_value_t = LevelFilter::WARN)]
    pub log_level: LevelFilter,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_definition_is_valid() {
        Cli::command().debug_assert();
    }
}
