//! The admin commands: they read and change the data folder, also while a hub serves
//! it. Data goes to one writer (stdout), talk to another (stderr).

use std::io::{self, Write};
use std::path::Path;

use common::hub_address::HubAddress;
use common::identity::DeviceIdentity;
use common::outside;
use common::session::STREAM_PREFIX;
use common::settings::SettingError;
use common::tls::{Fingerprint, TlsConfigError};
use serde_json::Value;

use crate::cli::{AdminCommand, DeviceCommand};
use crate::data_dir::{DataDir, DataDirError};
use crate::events::audit::check::CheckError;
use crate::registry::credentials::CredentialError;
use crate::registry::{Actor, Registry, RegistryError, SqliteRegistry};

mod approvals;
mod audit;
mod ca;
mod device;
mod endpoints;
mod enrol;
mod identity;
mod list;
mod module;
mod policy;
mod token;

pub use ca::CaError;

/// Why a command did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// The data folder cannot be used.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// There is no such device.
    #[error(
        "there is no device {0}; `stream-hub device list` shows those that exist, ids have case"
    )]
    NoDevice(DeviceIdentity),
    /// There is no such module.
    #[error(
        "there is no module {0}; `stream-hub module list {device}` shows those that exist, ids have case",
        device = .0.device
    )]
    NoModule(DeviceIdentity),
    /// There is one already.
    #[error("{0} exists already; delete it first, or choose another id")]
    Exists(DeviceIdentity),
    /// A connection string, or a part of one, in the place of an id.
    #[error(
        "the id looks like a key or a connection string; give the name of the device or module"
    )]
    SecretAsId,
    /// Others change it all the time.
    #[error("{0} was changed by somebody else at the same moment; try again")]
    Changed(DeviceIdentity),
    /// The store failed.
    #[error(transparent)]
    Store(RegistryError),
    /// There is such a policy.
    #[error("there is a shared access policy {0:?} already; choose another name")]
    PolicyExists(String),
    /// There is no such policy.
    #[error("there is no shared access policy {0:?}; `stream-hub policy list` shows them")]
    NoPolicy(String),
    /// There is such a CA.
    #[error("there is a CA {0:?} already; choose another name")]
    AuthorityExists(String),
    /// The CA is there.
    #[error(
        "this CA is registered already, as {0:?}; remove that first, if its certificate is to be replaced"
    )]
    AuthorityKnown(String),
    /// There is no such CA.
    #[error("there is no CA {0:?}; `stream-hub ca list` shows them")]
    NoAuthority(String),
    /// A CA cannot be registered.
    #[error(transparent)]
    Ca(#[from] CaError),
    /// The file of a certificate cannot be used.
    #[error(transparent)]
    CertificateFile(#[from] TlsConfigError),
    /// There is no such request.
    #[error("there is no request {0:?}; `stream-hub approvals list` shows those that wait")]
    NoApproval(String),
    /// The request is not open to the decision.
    #[error(
        "request {id} is {state}: only one that waits can be granted, and nobody waits for one that was withdrawn; whoever needs access asks anew"
    )]
    ApprovalClosed {
        /// The request.
        id: String,
        /// What it is.
        state: &'static str,
    },
    /// There is no such token.
    #[error("there is no token {0:?}; `stream-hub token list` shows those that have a name")]
    NoToken(String),
    /// The person may log in as it is.
    #[error("{0:?} is not shut out; `stream-hub token list` shows who is")]
    NotShutOut(String),
    /// The policy cannot open streams, so its token could not either.
    #[error(
        "the shared access policy {0:?} does not allow ServiceConnect, so that its token could open no stream; `stream-hub policy list` shows which do"
    )]
    PolicyWithoutStreams(String),
    /// A token for nothing.
    #[error(
        "the shared access policy {0:?} does not allow ServiceConnect, nor TwinRead, so that its token could do nothing with a device; `stream-hub policy list` shows which do"
    )]
    PolicyWithoutTwins(String),
    /// The name stands for sessions.
    #[error(
        "a target's name does not begin with {STREAM_PREFIX}; sessions of a target need no token of their own"
    )]
    SessionAsTarget,
    /// No code can name the hub's certificate.
    #[error(
        "no hub has served this data folder yet, so a code could not name its certificate; start `stream-hub serve` first"
    )]
    NotServedYet,
    /// The identity cannot be put into a connection string.
    #[error("{0} has no authentication, so there is no connection string for it")]
    NoCredential(DeviceIdentity),
    /// A given key or thumbprint cannot be taken.
    #[error(transparent)]
    Credential(#[from] CredentialError),
    /// The key file cannot be read.
    #[error(transparent)]
    KeyFile(#[from] SettingError),
    /// More thumbprints than an identity has room for.
    #[error("give --x509-thumbprint once or twice, not {0} times")]
    TooManyThumbprints(usize),
    /// The audit log cannot be verified.
    #[error(transparent)]
    Audit(#[from] CheckError),
    /// The audit log was verified, and is not whole.
    #[error("the audit log is not whole: {0}")]
    AuditBroken(String),
    /// The output cannot be written.
    #[error("cannot write the output")]
    Output(#[from] io::Error),
}

impl CommandError {
    /// Whether the command line is at fault, not the world: exit code 2, else 1.
    pub fn is_usage(&self) -> bool {
        match self {
            Self::DataDir(error) => error.is_usage(),
            Self::Credential(_)
            | Self::KeyFile(_)
            | Self::Ca(_)
            | Self::CertificateFile(_)
            | Self::TooManyThumbprints(_)
            | Self::SecretAsId
            | Self::SessionAsTarget => true,
            _ => false,
        }
    }
}

impl From<RegistryError> for CommandError {
    fn from(error: RegistryError) -> Self {
        match error {
            RegistryError::NotFound(id) if id.module.is_some() => Self::NoModule(id),
            RegistryError::NotFound(id) => Self::NoDevice(id),
            RegistryError::AlreadyExists(id) => Self::Exists(id),
            RegistryError::PreconditionFailed(id) => Self::Changed(id),
            // No command writes twins, scopes, jobs or messages, or queries twins.
            error @ (RegistryError::TwinRule(_)
            | RegistryError::Busy
            | RegistryError::TooLong
            | RegistryError::Scope(_)
            | RegistryError::Job(_)
            | RegistryError::Enrolment(_)
            | RegistryError::QueueFull(_)
            | RegistryError::Damaged { .. }
            | RegistryError::Store(_)) => Self::Store(error),
        }
    }
}

/// Carries out a command on a data folder, which `device create` makes when it is missing. `out`
/// gets the data that was asked for, `talk` everything else.
///
/// Dropped, it may have changed the registry already.
///
/// # Errors
/// [`CommandError`]: one sentence on what failed and what to do.
pub async fn run(
    data_dir: &Path,
    command: AdminCommand,
    out: &mut (dyn Write + Send),
    talk: &mut (dyn Write + Send),
) -> Result<(), CommandError> {
    if let AdminCommand::Audit(command) = command {
        return audit::run(data_dir, command, out, talk);
    }
    // A mistyped folder is a mistake, unless a first device is created in a new one.
    let dir = match command {
        AdminCommand::Device(DeviceCommand::Create(_)) => DataDir::open(data_dir)?,
        _ => DataDir::open_existing(data_dir)?,
    };
    if dir.is_new() {
        let _ = writeln!(
            talk,
            "made the data folder {}",
            outside::printable(&dir.path().display().to_string())
        );
    }
    let registry = SqliteRegistry::open(&dir)?.acting(&Actor::Command {
        name: command.name().to_owned(),
        user: user(),
    });
    let mut session = Session {
        registry: &*registry,
        address: dir.address()?,
        is_address_known: dir.stored_address()?.is_some(),
        fingerprint: dir.fingerprint()?,
        out,
        talk,
    };
    let mut result = session.perform(command).await;
    if result.is_ok() {
        result = session.out.flush().map_err(CommandError::from);
    }
    match result {
        // Who reads the output has seen enough of it.
        Err(CommandError::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
}

/// Who calls the command, for the notes of what it changes: what the system knows of them.
#[cfg(unix)]
fn user() -> String {
    format!("uid {}", rustix::process::getuid().as_raw())
}

#[cfg(not(unix))]
fn user() -> String {
    std::env::var("USERNAME").unwrap_or_default()
}

/// What every command works with.
struct Session<'a> {
    registry: &'a dyn Registry,
    /// What connection strings and URLs carry.
    address: HubAddress,
    /// Whether a hub has stored it, or it is the default.
    is_address_known: bool,
    /// By what enrolment codes name the hub; `None`: none has served this folder yet.
    fingerprint: Option<Fingerprint>,
    out: &'a mut (dyn Write + Send),
    talk: &'a mut (dyn Write + Send),
}

impl Session<'_> {
    async fn perform(&mut self, command: AdminCommand) -> Result<(), CommandError> {
        match command {
            AdminCommand::Device(command) => device::run(self, command).await,
            AdminCommand::Module(command) => module::run(self, command).await,
            AdminCommand::Policy(command) => policy::run(self, command).await,
            AdminCommand::Endpoints { form: _ } => endpoints::run(self),
            AdminCommand::Enrol(args) => enrol::run(self, args).await,
            AdminCommand::Token(command) => token::run(self, command).await,
            AdminCommand::Ca(command) => ca::run(self, command).await,
            AdminCommand::Approvals(command) => approvals::run(self, command).await,
            // It needs no registry, and is carried out before there is one.
            AdminCommand::Audit(_) => Ok(()),
        }
    }

    /// Prints a line of data. REST clients wrote parts of it: they must not steer the terminal.
    fn line(&mut self, text: &str) -> Result<(), CommandError> {
        Ok(writeln!(self.out, "{}", outside::printable(text))?)
    }

    /// Prints JSON, for programs and for people.
    fn json(&mut self, value: &Value) -> Result<(), CommandError> {
        let text = outside::printable_json(&format!("{value:#}"));
        Ok(writeln!(self.out, "{text}")?)
    }

    /// Prints something that is not the data; a closed output is no failure.
    fn say(&mut self, text: &str) {
        let _ = writeln!(self.talk, "{}", outside::printable(text));
    }

    /// Prints a piece of JSON.
    fn json_text(&mut self, text: &str) -> Result<(), CommandError> {
        Ok(write!(self.out, "{}", outside::printable_json(text))?)
    }

    /// Says where the host name comes from when no hub has stored one.
    fn warn_of_default_address(&mut self) {
        if self.is_address_known {
            return;
        }
        let text = format!(
            "note: no hub has served this data folder yet, so HostName is the default, {}; \
             `stream-hub serve` stores the real one",
            self.address
        );
        self.say(&text);
    }
}

#[cfg(test)]
mod tests;
