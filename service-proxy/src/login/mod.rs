//! `service-proxy login CODE@HUB`: gets an operator's connection string with a one-time code, and
//! writes the configuration file that service-proxy uses when nothing else is given. With `--hub HUB`
//! there is no code: the person logs in by name.

mod by_name;

use std::path::PathBuf;

use common::connection_string::{ConnectionStringError, ServiceConnectionString};
use common::enrolment::{
    Enrolled, Folder, FolderError, GivenError, RedeemError, Repeats, Wanted, given, redeem,
};
use common::files::Access;
use common::hub_address::{HubAddress, HubAddressError};
use common::net::Dialer;
use common::net::proxy::ProxyOptions;
use common::output;
use common::places;
use common::text_input::TextError;
use common::tls::{TlsConfigError, pinned_config};

use crate::config::{self, LoginConfig};

/// The environment variable of the code.
pub const VARIABLE: &str = "SERVICE_PROXY_ENROLMENT";
/// The environment variable of the client secret.
pub const SECRET_VARIABLE: &str = "SERVICE_PROXY_CLIENT_SECRET";
const CONNECTION_STRING: &str = "hub.cs";
const AUTHORITIES: &str = "hub-ca.pem";

/// Why there is no login.
#[derive(Debug, thiserror::Error)]
pub enum LoginError {
    /// There is no code.
    #[error(transparent)]
    Code(#[from] GivenError),
    /// The files cannot be written.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// TLS is of no use.
    #[error(transparent)]
    Tls(#[from] TlsConfigError),
    /// The hub does not take the code, or is out of reach.
    #[error("not logged in")]
    Redeem(#[from] RedeemError),
    /// The hub's name is none.
    #[error("--hub: {0}")]
    Hub(#[from] HubAddressError),
    /// Both were given.
    #[error("give a code, which names its hub, or --hub to log in by name, but not both")]
    Both,
    /// The client secret cannot be read.
    #[error("cannot read the client secret from {}", path.display())]
    Secret {
        /// Its file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: TextError,
    },
    /// The client secret is empty, or no text.
    #[error("{0} has no client secret")]
    NoSecret(String),
    /// There is no login by name.
    #[error("not logged in")]
    ByName(#[from] crate::oidc::LoginError),
    /// The hub's answer is a device's, or none.
    #[error("the hub's answer to the code is not an operator's connection string")]
    Answer(#[from] ConnectionStringError),
}

impl LoginError {
    /// Whether the command line is at fault: exit code 2, else 1.
    pub fn is_usage(&self) -> bool {
        matches!(
            self,
            Self::Code(_) | Self::Hub(_) | Self::Both | Self::Secret { .. } | Self::NoSecret(_)
        ) || matches!(self, Self::Folder(folder) if folder.is_usage())
    }
}

/// Redeems a code, writes the files, and prints what to do next. May be dropped: the code may then
/// have been used.
///
/// # Errors
/// [`LoginError`]: one sentence for a person.
pub async fn run(config: LoginConfig) -> Result<(), LoginError> {
    if let Some(hub) = &config.hub {
        if config.args.code.is_some() {
            return Err(LoginError::Both);
        }
        return by_name::run(&HubAddress::parse(hub.as_str())?, &config).await;
    }
    let LoginConfig {
        args,
        proxy,
        proxy_options,
        ..
    } = config;
    let invitation = given(args.code, VARIABLE).await?;
    let folder = args.dir.map_or_else(places::of_user, Some);
    let folder = Folder::open(
        &folder.ok_or(FolderError::Nowhere)?,
        config::FILE,
        args.force,
    )?;
    let dialer = Dialer::new(&pinned_config(invitation.code.fingerprint(), None)?).through(proxy);
    let enrolled = redeem(&invitation, Wanted::default(), &dialer, Repeats::Unsent).await?;
    let policy = ServiceConnectionString::parse(enrolled.connection_string.expose())?.policy;
    let config = write(&folder, &enrolled, &proxy_options)?;
    let text = format!(
        "logged in at {} with the policy {policy}; wrote {}\nnow: service-proxy devices\n",
        invitation.hub,
        config.display(),
    );
    output::stdout().text(&text);
    Ok(())
}

/// Writes the connection string, the CA if the hub has one of its own, and the configuration file.
fn write(
    folder: &Folder,
    enrolled: &Enrolled,
    proxy: &ProxyOptions,
) -> Result<PathBuf, FolderError> {
    let connection_string = format!("{}\n", enrolled.connection_string.expose());
    folder.write(CONNECTION_STRING, &connection_string, Access::Private)?;
    let mut text = format!(
        "# Written by `service-proxy login`, and used when no other connection string is given.\n\
         # `service-proxy --help` explains the settings.\n\
         connection-string-file = {}\n",
        folder.quoted(CONNECTION_STRING),
    );
    if let Some(authorities) = &enrolled.authorities {
        folder.write(AUTHORITIES, authorities, Access::Public)?;
        text += &format!("ca-file = {}\n", folder.quoted(AUTHORITIES));
    }
    text += &proxy.to_lines();
    folder.write_configuration(&text)
}
