//! `service-proxy login CODE@HUB`: gets an operator's connection string with a one-time code, and
//! writes the configuration file that service-proxy uses when nothing else is given.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use common::backoff::Backoff;
use common::connection_string::{ConnectionStringError, ServiceConnectionString};
use common::enrolment::{Enrolled, GivenError, RedeemError, given, redeem};
use common::files::{self, Access};
use common::net::Dialer;
use common::net::proxy::ProxyOptions;
use common::places::{self, quoted};
use common::tls::{TlsConfigError, pinned_config};
use common::{output, report};
use tokio::time::sleep;

use crate::config::{self, LoginConfig};

/// The environment variable of the code.
pub const VARIABLE: &str = "SERVICE_PROXY_ENROLMENT";
const CONNECTION_STRING: &str = "hub.cs";
const AUTHORITIES: &str = "hub-ca.pem";
/// More bytes than all files have together.
const TRIAL: usize = 16 << 10;
/// How often a code is tried while the hub cannot be reached.
const ATTEMPTS: usize = 4;

/// Why there is no login.
#[derive(Debug, thiserror::Error)]
pub enum LoginError {
    /// There is no code.
    #[error(transparent)]
    Code(#[from] GivenError),
    /// The user has no folder for it.
    #[error("this user has no folder for configuration files; name one with --dir")]
    Nowhere,
    /// There is a configuration already.
    #[error(
        "{} is there already; --force replaces it, --dir puts the new one elsewhere",
        .0.display()
    )]
    Exists(PathBuf),
    /// A file or the folder cannot be written.
    #[error("cannot write {}", path.display())]
    Write {
        /// Which one.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// TLS is of no use.
    #[error(transparent)]
    Tls(#[from] TlsConfigError),
    /// The hub does not take the code, or is out of reach.
    #[error("not logged in")]
    Redeem(#[from] RedeemError),
    /// The hub's answer is a device's, or none.
    #[error("the hub's answer to the code is not an operator's connection string")]
    Answer(#[from] ConnectionStringError),
}

impl LoginError {
    /// Whether the command line is at fault: exit code 2, else 1.
    pub fn is_usage(&self) -> bool {
        matches!(self, Self::Code(_) | Self::Nowhere | Self::Exists(_))
    }
}

/// Redeems a code, writes the files, and prints what to do next. May be dropped: the code may then
/// have been used.
///
/// # Errors
/// [`LoginError`]: one sentence for a person.
pub async fn run(config: LoginConfig) -> Result<(), LoginError> {
    let LoginConfig {
        args,
        proxy,
        proxy_options,
    } = config;
    let invitation = given(args.code.as_ref(), VARIABLE)?;
    let folder = args.dir.map_or_else(places::of_user, Some);
    let folder = folder.ok_or(LoginError::Nowhere)?;
    let folder = std::path::absolute(&folder).map_err(at(&folder))?;
    let config = folder.join(config::FILE);
    if config.exists() && !args.force {
        return Err(LoginError::Exists(config));
    }
    files::create_folder(&folder).map_err(at(&folder))?;
    try_to_write(&folder)?;
    let dialer = Dialer::new(&pinned_config(invitation.code.fingerprint(), None)?).through(proxy);
    let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(5));
    let mut attempt = 1;
    let enrolled = loop {
        match redeem(&invitation, None, None, &dialer).await {
            // Once it was sent, the code may have been used.
            Err(error @ RedeemError::Dial(_)) if error.is_passing() && attempt < ATTEMPTS => {
                tracing::warn!("{}; trying again", report::chain(&error));
                attempt += 1;
                sleep(backoff.next_delay()).await;
            }
            redeemed => break redeemed?,
        }
    };
    let policy = ServiceConnectionString::parse(enrolled.connection_string.expose())?.policy;
    write(&folder, &enrolled, &proxy_options)?;
    let text = format!(
        "logged in at {} with the policy {policy}; wrote {}\nnow: service-proxy devices\n",
        invitation.hub,
        config.display(),
    );
    output::stdout().text(&text);
    Ok(())
}

/// A code works once: what cannot be written shows before it is used. What is there stays until
/// there is something for its place.
fn try_to_write(folder: &Path) -> Result<(), LoginError> {
    let trial = folder.join("trial");
    files::write(&trial, &[b'\n'; TRIAL], Access::Private)
        .and_then(|()| std::fs::remove_file(&trial))
        .map_err(at(&trial))
}

/// Writes the connection string, the CA if the hub has one of its own, and the configuration file.
fn write(folder: &Path, enrolled: &Enrolled, proxy: &ProxyOptions) -> Result<(), LoginError> {
    let path = |name: &str| folder.join(name);
    let write = |name: &str, text: &str, access| {
        files::write(&path(name), text.as_bytes(), access).map_err(at(&path(name)))
    };
    let shown = |name: &str| quoted(&path(name).display().to_string());
    let connection_string = format!("{}\n", enrolled.connection_string.expose());
    write(CONNECTION_STRING, &connection_string, Access::Private)?;
    let mut text = format!(
        "# Written by `service-proxy login`, and used when no other connection string is given.\n\
         # `service-proxy --help` explains the settings.\n\
         connection-string-file = {}\n",
        shown(CONNECTION_STRING),
    );
    if let Some(authorities) = &enrolled.authorities {
        write(AUTHORITIES, authorities, Access::Public)?;
        text += &format!("ca-file = {}\n", shown(AUTHORITIES));
    }
    text += &proxy.to_lines();
    write(config::FILE, &text, Access::Public)
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> LoginError + use<> {
    let path = path.to_owned();
    |source| LoginError::Write { path, source }
}
