//! What can fail here, as a whole; the details stand where they arise.

use common::admin::AdminError;

use crate::doctor::DoctorError;
use crate::echo::EchoError;
use crate::fleet::FleetError;
use crate::local::listener::ListenError;
use crate::local::stdio::ConnectError;
use crate::login::LoginError;
use crate::openssh::OpensshError;
use crate::rdp::RdpError;
use common::status::StatusError;

/// Why the program did not do what it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The ports could not be opened.
    #[error(transparent)]
    Listen(#[from] ListenError),
    /// ssh or its configuration cannot be used.
    #[error(transparent)]
    Openssh(#[from] OpensshError),
    /// An RDP client was not run to a good end.
    #[error(transparent)]
    Rdp(#[from] RdpError),
    /// The transfer over stdin and stdout is not complete.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// Nothing reads standard output any more.
    #[error("nothing reads standard output any more")]
    OutputGone,
    /// A signal ended what had nothing to close.
    #[error("interrupted")]
    Interrupted,
    /// The terminal or program that started this one has hung up (SIGHUP).
    #[error("hung up")]
    HungUp,
    /// The echo test is no success.
    #[error(transparent)]
    Echo(#[from] EchoError),
    /// An examination has found that something has failed, or cannot be written down.
    #[error(transparent)]
    Doctor(#[from] DoctorError),
    /// There is no login.
    #[error(transparent)]
    Login(#[from] LoginError),
    /// There is no status to show.
    #[error(transparent)]
    Status(#[from] StatusError),
    /// A command for many devices did not do all that was asked.
    #[error(transparent)]
    Fleet(#[from] FleetError),
    /// The admin listener cannot be bound.
    #[error(transparent)]
    Admin(#[from] AdminError),
}

impl Error {
    /// Whether what was given is at fault, and not the world: exit code 2, else 1.
    pub fn is_usage(&self) -> bool {
        matches!(
            self,
            Self::Listen(ListenError::Setup(_))
                | Self::Rdp(RdpError::Listen(ListenError::Setup(_)))
                | Self::Connect(ConnectError::Setup(_))
                | Self::Echo(EchoError::Setup(_))
                | Self::Fleet(FleetError::Setup(_) | FleetError::Input(_))
        ) || matches!(self, Self::Login(error) if error.is_usage())
    }

    /// The exit code where no error is printed: of a program whose reader is gone, that of one which
    /// the signal has ended; of one that has run another, that one's.
    pub fn silent_exit_code(&self) -> Option<u8> {
        match self {
            Self::HungUp | Self::Connect(ConnectError::HungUp) => Some(128 + 1),
            Self::Connect(ConnectError::OutputGone)
            | Self::OutputGone
            | Self::Fleet(FleetError::OutputGone) => Some(128 + 13),
            Self::Interrupted => Some(128 + 2),
            // The report has said what.
            Self::Doctor(DoctorError::Stuck) => Some(1),
            // These programs have said why.
            Self::Openssh(OpensshError::Ended(code)) | Self::Rdp(RdpError::Ended(code)) => {
                Some(*code)
            }
            _ => None,
        }
    }

    /// The exit code where it is that of other programs.
    pub fn exit_code(&self) -> Option<u8> {
        match self {
            Self::Fleet(FleetError::Commands { worst, .. }) => Some(*worst),
            // As shells have it.
            Self::Openssh(OpensshError::NoSsh(_)) => Some(127),
            _ => None,
        }
    }
}
