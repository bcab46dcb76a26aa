//! `device-proxy enrol CODE@HUB`: registers this device at a hub with a key that is made here, and
//! writes the configuration file with which device-proxy then starts.
//!
//! Key and certificate are written before the code is redeemed: when the answer is lost, the same
//! command with the same code goes on where it was.

mod key;
mod place;
mod start;

use std::path::PathBuf;

use common::enrolment::{FolderError, GivenError, RedeemError, Repeats, Wanted, given, redeem};
use common::identity::DeviceId;
use common::net::Dialer;
use common::net::proxy::ProxyOptions;
use common::settings::{self, SettingError};
use common::tls::{TlsConfigError, pinned_config};

use crate::cli::EnrolArgs;
use crate::config;
use crate::target::{TargetError, Targets};

pub use self::key::KeyError;
pub use self::place::Place;
pub use self::start::{Start, StartError};

/// The environment variable of the code.
pub const VARIABLE: &str = "DEVICE_PROXY_ENROLMENT";

/// Why this device was not enrolled.
#[derive(Debug, thiserror::Error)]
pub enum EnrolError {
    /// There is no code.
    #[error(transparent)]
    Code(#[from] GivenError),
    /// The proxy on the way is wrong.
    #[error(transparent)]
    Setting(#[from] SettingError),
    /// A target is wrong.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// The key cannot be made or read.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The files cannot be written.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// Key and certificate are of no use.
    #[error(transparent)]
    Tls(#[from] TlsConfigError),
    /// The hub does not take the code, or is out of reach.
    #[error("this device is not enrolled")]
    Redeem(#[from] RedeemError),
    /// The hub's answer is an operator's.
    #[error("the code is an operator's; use it with `service-proxy login`")]
    ForOperator,
    /// The service does not start.
    #[error(transparent)]
    Start(#[from] StartError),
}

impl EnrolError {
    /// Whether the command line is at fault: exit code 2, else 1.
    pub fn is_usage(&self) -> bool {
        matches!(self, Self::Code(_) | Self::Setting(_) | Self::Target(_))
            || matches!(self, Self::Folder(folder) if folder.is_usage())
    }
}

/// An enrolled device.
#[derive(Debug)]
pub struct Enrolment {
    /// The id that it has at the hub.
    pub device: String,
    /// The hub.
    pub hub: String,
    /// The configuration file that was written.
    pub config: PathBuf,
    /// How device-proxy is to start now.
    pub start: Start,
}

/// Redeems a code, and writes key, certificate, CA and configuration file. Everything that can be
/// wrong here is looked for before the code is used up. May be dropped: the same code then still
/// works for the key that was written.
///
/// # Errors
/// [`EnrolError`]: one sentence for a person.
pub async fn enrol(args: EnrolArgs) -> Result<Enrolment, EnrolError> {
    let invitation = given(args.code, VARIABLE).await?;
    let targets = if args.target.is_empty() {
        Targets::usual()
    } else {
        args.target
    };
    Targets::parse(&targets, true)?;
    let place = Place::open(args.dir, args.force)?;
    let own = key::ensure(&place)?;
    let tls = pinned_config(invitation.code.fingerprint(), Some(own))?;
    let options = ProxyOptions {
        proxy: args.proxy,
        file: args.proxy_auth_file,
        no_proxy: args.no_proxy,
    };
    let proxy = config::proxy(&settings::of_process, options.clone())?;
    let dialer = Dialer::new(&tls).through(proxy);
    let suggested = match args.device {
        Some(_) => None,
        None => host_name(),
    };
    let wanted = Wanted {
        device: args.device.as_ref(),
        suggested: suggested.as_ref(),
    };
    let enrolled = redeem(&invitation, wanted, &dialer, Repeats::SameKey).await?;
    let device = enrolled.device.clone().ok_or(EnrolError::ForOperator)?;
    let config = place.write(&enrolled, &targets, &options)?;
    let start = if args.no_start {
        Start::Not
    } else {
        start::choose(&place).await?
    };
    Ok(Enrolment {
        device,
        hub: invitation.hub.to_string(),
        config,
        start,
    })
}

/// The machine's name, if a device can have it.
fn host_name() -> Option<DeviceId> {
    let name = gethostname::gethostname();
    let name = name.to_str()?;
    DeviceId::parse(name.split('.').next().unwrap_or(name)).ok()
}
