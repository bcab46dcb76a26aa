//! `enrol` and `token`: what gives devices and operators their first or their only access.

use std::ops::RangeInclusive;
use std::time::Duration;

use clap::{Args, Subcommand};
use common::identity::{DeviceId, ModuleId, StreamName};

use super::Form;

/// Options of `enrol`.
#[derive(Debug, Clone, Args)]
pub struct EnrolArgs {
    /// How long the code is valid, 1m to 30d.
    #[arg(long, value_name = "TIME", default_value = "15m", value_parser = ttl)]
    pub ttl: Duration,

    /// The device that may redeem it; one that exists gets a new certificate. Without this, the
    /// code is for any device that does not exist yet.
    #[arg(long, value_name = "ID")]
    pub device: Option<DeviceId>,

    /// It is for an operator, who gets the connection string of a shared access policy.
    #[arg(long, conflicts_with = "device")]
    pub operator: bool,

    /// The operator's shared access policy.
    #[arg(
        long,
        value_name = "NAME",
        default_value = "service",
        requires = "operator"
    )]
    pub policy: String,

    /// Log in service-proxy on this machine as well, for the user that called sudo or else for the
    /// one that calls this: what `service-proxy login` does with an operator's code.
    #[arg(long, conflicts_with = "operator")]
    pub login: bool,

    /// Print no code, but revoke all that were not redeemed yet.
    #[arg(long, conflicts_with_all = ["device", "operator", "policy", "ttl", "login"])]
    pub revoke: bool,
}

/// `token …`
#[derive(Debug, Clone, Subcommand)]
pub enum TokenCommand {
    /// Print a token for `service-proxy --token-file`. It opens nothing but what is named here.
    Create(TokenCreateArgs),
    /// List the tokens that have a name and work: those of people that have logged in, and those that
    /// were made with --name.
    List {
        #[command(flatten)]
        form: Form,
    },
    /// Revoke a token by its id, as `token list` shows it, or all tokens of a person, who gets no
    /// others until `token let-in`. Streams that were opened with them end within a second.
    Revoke {
        /// The token.
        #[arg(value_name = "ID", required_unless_present = "person")]
        id: Option<String>,
        /// The person, by the name in `token list`.
        #[arg(long, value_name = "NAME", conflicts_with = "id")]
        person: Option<String>,
        /// Let streams that are open go on.
        #[arg(long)]
        keep_streams: bool,
    },
    /// Let a person log in again who was shut out by `token revoke --person`.
    LetIn {
        /// The person.
        #[arg(value_name = "NAME")]
        person: String,
    },
}

/// `approvals …`
#[derive(Debug, Clone, Subcommand)]
pub enum ApprovalsCommand {
    /// List the requests for access that wait for somebody to approve, and those that are granted.
    List {
        /// Also those that were refused or withdrawn, or are over.
        #[arg(long)]
        all: bool,
        #[command(flatten)]
        form: Form,
    },
    /// Grant a request: whoever waits for it goes on within a second.
    Grant {
        /// The request, as `list` shows it.
        #[arg(value_name = "ID")]
        id: String,
        /// How long it lasts, instead of what was asked for; at most what the access file says.
        #[arg(long = "for", value_name = "TIME", value_parser = ttl)]
        lasts: Option<Duration>,
    },
    /// Refuse a request, or take back what was granted.
    Refuse {
        /// The request, as `list` shows it.
        #[arg(value_name = "ID")]
        id: String,
        /// Why, for who has asked.
        #[arg(long, value_name = "TEXT")]
        because: Option<String>,
    },
    /// Print requests as they come, until Ctrl-C.
    Watch,
}

/// Options of `token create`.
#[derive(Debug, Clone, Args)]
pub struct TokenCreateArgs {
    /// The device. Without --target the token is for all that its policy allows with this device
    /// and its modules: all streams, the twin, direct methods and messages; with a policy of TwinRead
    /// alone, reading the twin.
    #[arg(long, value_name = "ID")]
    pub device: DeviceId,

    /// The module of the device that the streams are to.
    #[arg(long, value_name = "ID")]
    pub module: Option<ModuleId>,

    /// The one target that streams and sessions may be opened to, as `ssh`.
    #[arg(long, value_name = "NAME")]
    pub target: Option<StreamName>,

    /// How long the token is valid, 1m to 30d. Sessions that are open then go on until they are
    /// interrupted.
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = ttl)]
    pub ttl: Duration,

    /// Who it is for: the hub's log names them, and `token revoke` ends this token alone, before it
    /// expires.
    #[arg(long, value_name = "NAME", value_parser = holder)]
    pub name: Option<String>,

    /// The shared access policy whose permissions the token has, and whose key signs it unless it has
    /// a name.
    #[arg(long, value_name = "NAME", default_value = "service")]
    pub policy: String,
}

fn holder(text: &str) -> Result<String, &'static str> {
    let is_fit = |c: char| !c.is_whitespace() && !common::outside::is_unprintable(c);
    match (1..=64).contains(&text.len()) && text.chars().all(is_fit) {
        true => Ok(text.to_owned()),
        false => Err("a name has 1 to 64 characters, and no spaces"),
    }
}

/// How long a code or a token may be valid.
const TTL: RangeInclusive<Duration> = Duration::from_secs(60)..=Duration::from_secs(30 * 86_400);

fn ttl(text: &str) -> Result<Duration, String> {
    let ttl = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    if TTL.contains(&ttl) {
        Ok(ttl)
    } else {
        Err("give a time from 1m to 30d".to_owned())
    }
}
