//! What happened in the hub: one type for all that it reports, and the only place where it does. It
//! goes to the sinks of [`Events`], of which the log is the first.
//!
//! A line names what it is about by the fields of [`common::telemetry::About`]: `device`, `name`,
//! `stream`, `policy`, `person`, `peer`, `transport`. Beside them are, each in the lines of one kind of event,
//! `telemetry`; `to_device`, `to_service`, `seconds`; `leg`; `request`, `accepted`, `known`;
//! `status`; `job`, `succeeded`, `failed`; `version`; `code`; `delay`; `ca`, `authority`, `file`, `host`; `token`;
//! `rules`; `streams_cut`, `in_time`; `limit`, `whose`.

mod acme;
pub mod audit;
mod authority;
mod connection;
mod fault;
mod in_session;
mod log;
mod meter;
mod metrics;
mod reports;
mod sinks;
#[cfg(feature = "otel")]
mod spans;

use std::error::Error;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use common::identity::{DeviceIdentity, Leg, StreamId};

use crate::limits::Over;

pub use self::acme::Acme;
pub use self::authority::Authority;
pub use self::connection::Connection;
pub use self::fault::{AuditFault, Fault};
pub use self::in_session::InSession;
pub use self::meter::{Meter, Meters, Relayed};
pub use self::metrics::{Bound, Counts, Present, Who};
pub use self::reports::{Change, ConnectionPhase, DeviceReport};
pub use self::sinks::Events;

/// Why something ended or was refused; with its causes it becomes a sentence for the operator. It
/// carries no secret.
pub type Reason<'a> = &'a (dyn Error + Sync);

/// A stream, and who has asked for it.
#[derive(Clone, Copy)]
pub struct Stream<'a> {
    /// Its id, which is in the URLs of both legs.
    pub id: &'a StreamId,
    /// The device or module that it leads to.
    pub device: &'a DeviceIdentity,
    /// The stream's name.
    pub name: &'a str,
    /// The shared access policy with which it was asked for.
    pub policy: &'a str,
    /// The address that it was asked for from.
    pub peer: &'a SocketAddr,
    /// Who has asked for it by name, if the token was issued to somebody.
    pub person: Option<&'a str>,
}

/// What has happened to a request for access.
#[derive(Clone, Copy)]
pub enum ApprovalStep<'a> {
    /// Somebody asks.
    Asked {
        /// Why, if they say so.
        reason: Option<&'a str>,
        /// For how long, in seconds.
        seconds: Option<u64>,
    },
    /// It is granted.
    Granted {
        /// By whom.
        by: &'a str,
        /// Until when, Unix seconds.
        until: Option<u64>,
    },
    /// It is refused, or taken back.
    Refused {
        /// By whom.
        by: &'a str,
        /// Why, if they say so.
        because: Option<&'a str>,
    },
}

/// What became of a stream that was asked for.
#[derive(Clone, Copy)]
pub enum Outcome<'a> {
    /// The device accepts it: the legs may come.
    Accepted,
    /// The device rejects it.
    Rejected,
    /// It came to no answer of the device: it is not here, does not answer, or there is no room.
    NotAnswered {
        /// Why.
        reason: Reason<'a>,
        /// The same, as one of a fixed set of words.
        kind: &'static str,
    },
    /// Who has asked for it went away before the device's answer, or the hub is stopping.
    GivenUp,
    /// Both legs have come.
    Established {
        /// How long that took, from the request on.
        opening: Duration,
    },
    /// It was accepted, and ended before its legs have met.
    Unpaired {
        /// Whether one of them was here.
        has_leg: bool,
        /// Who has ended it: `device`, `service` or `hub`.
        ended_by: &'static str,
        /// How it ended.
        reason: Reason<'a>,
        /// The same, as one of a fixed set of words.
        kind: &'static str,
    },
    /// It was established, and has ended.
    Closed {
        /// Bytes that were relayed to the device.
        to_device: u64,
        /// Bytes that were relayed to the service.
        to_service: u64,
        /// How long both legs were there.
        duration: Duration,
        /// Who has ended it: `device`, `service` or `hub`.
        ended_by: &'static str,
        /// How it ended.
        end: Reason<'a>,
        /// The same, as one of a fixed set of words.
        kind: &'static str,
    },
}

/// A direct method, and who has called it.
#[derive(Clone, Copy)]
pub struct Method<'a> {
    /// Its name.
    pub name: &'a str,
    /// The device or module that is to carry it out.
    pub device: &'a DeviceIdentity,
    /// The shared access policy with which it was called, or the job's.
    pub policy: &'a str,
    /// The address that it was called from; a job has none.
    pub peer: Option<&'a SocketAddr>,
}

/// What became of a call of a direct method.
#[derive(Clone, Copy)]
pub enum MethodOutcome<'a> {
    /// The device has answered.
    Answered {
        /// With this status, which the device chooses.
        status: i32,
    },
    /// It is not here, does not answer, or too many calls wait for it.
    NotAnswered(Reason<'a>),
    /// Who has called it went away before the device's answer, or the hub is stopping.
    GivenUp,
}

/// What has become of a job.
#[derive(Clone, Copy)]
pub enum JobOutcome<'a> {
    /// It was made.
    Made {
        /// The shared access policy with which it was.
        policy: &'a str,
    },
    /// It was called off.
    Cancelled {
        /// The shared access policy with which it was.
        policy: &'a str,
    },
    /// It has run.
    Ended {
        /// How it ended.
        status: &'static str,
        /// On so many devices it has worked,
        succeeded: u64,
        /// and on so many it has not.
        failed: u64,
    },
}

/// What happened to the certificate that the hub shows, and to the CA that proxies and SDK clients
/// need for it.
#[derive(Clone, Copy)]
pub enum Certificate<'a> {
    /// The hub made a CA.
    CaMade {
        /// The CA's certificate.
        file: &'a Path,
        /// For which host name.
        host: &'a str,
        /// There was another one, which is of no more use.
        is_replaced: bool,
    },
    /// The hub renewed its own certificate.
    Renewed,
    /// The CA changed with it.
    CaRenewed {
        /// The CA's certificate.
        file: &'a Path,
    },
    /// The hub cannot renew its own certificate; the old one stays in use.
    NotRenewed(Reason<'a>),
    /// Another program changed the certificate's files, and they are in use.
    Reloaded,
    /// Another program changed the certificate's files, and they are of no use; the old one stays.
    NotReloaded(Reason<'a>),
    /// No enrolment code can name the certificate: it could not be put down.
    NotPublished(Reason<'a>),
    /// A given certificate is a CA's own: clients will refuse it.
    IsCa {
        /// The certificate.
        file: &'a Path,
    },
    /// A given certificate is not for the hub's host name: clients will refuse it.
    OtherHost {
        /// The certificate.
        file: &'a Path,
        /// The host name.
        host: &'a str,
    },
}

/// Something that happened.
#[derive(Clone, Copy)]
pub enum Event<'a> {
    /// A device has opened its session.
    DeviceConnected {
        /// Who it is.
        device: &'a DeviceIdentity,
        /// Where it connected from.
        peer: SocketAddr,
        /// What carries the session.
        transport: &'static str,
    },
    /// A device's session has ended.
    DeviceDisconnected {
        /// Who it is.
        device: &'a DeviceIdentity,
        /// Where it connected from.
        peer: SocketAddr,
        /// Telemetry messages that it has sent in this session.
        telemetry: u64,
        /// How the session ended.
        end: Reason<'a>,
        /// The same, as one of a fixed set of words.
        kind: &'static str,
    },
    /// A device has proven its identity, and yet got no session.
    SessionNotOpened {
        /// Who it is.
        device: &'a DeviceIdentity,
        /// Where it connected from.
        peer: SocketAddr,
        /// Why not.
        reason: Reason<'a>,
    },
    /// Who wanted to open a device's session could not prove its identity.
    DeviceRefused {
        /// Where it connected from.
        peer: SocketAddr,
        /// What was to carry the session.
        transport: &'static str,
        /// Whom it claimed to be, and why it is not believed.
        reason: Reason<'a>,
        /// Why, as one of a fixed set of words.
        kind: &'static str,
    },
    /// A request of a service was not authorised.
    ServiceRefused {
        /// Where it came from.
        peer: SocketAddr,
        /// Why it is not believed.
        reason: Reason<'a>,
        /// The same, as one of a fixed set of words.
        kind: &'static str,
    },
    /// A device has redeemed an enrolment code.
    DeviceEnrolled {
        /// Who it is now.
        device: &'a DeviceIdentity,
        /// Where it came from.
        peer: SocketAddr,
    },
    /// An operator has redeemed an enrolment code.
    OperatorEnrolled {
        /// The shared access policy whose key it was for.
        policy: &'a str,
        /// Where it came from.
        peer: SocketAddr,
    },
    /// A person has got a token, by what the identity provider says of them.
    PersonLoggedIn {
        /// Who, by name.
        person: &'a str,
        /// The token.
        token: &'a str,
        /// Where they came from.
        peer: SocketAddr,
    },
    /// A person has got no token.
    PersonRefused {
        /// Where they came from.
        peer: SocketAddr,
        /// Why not.
        reason: Reason<'a>,
    },
    /// Access that somebody has to approve was asked for, or decided.
    Approval {
        /// The request.
        id: &'a str,
        /// The device or module.
        device: &'a DeviceIdentity,
        /// The target.
        target: &'a str,
        /// Who asks: the shared access policy, or `oidc:` and the person.
        policy: &'a str,
        /// What has happened.
        step: ApprovalStep<'a>,
    },
    /// The streams of a token end, since it was revoked.
    TokenStreamsEnded {
        /// Which.
        token: &'a str,
    },
    /// The access file does not allow a stream, or anything else.
    AccessDenied {
        /// The device or module, if it is about one.
        device: Option<&'a DeviceIdentity>,
        /// The name of the stream.
        name: Option<&'a str>,
        /// The shared access policy, or who it is in its place.
        policy: &'a str,
        /// Who asks.
        person: Option<&'a str>,
        /// Where the request came from.
        peer: SocketAddr,
        /// Why not.
        reason: Reason<'a>,
    },
    /// The access file was changed, and the new one is in force.
    AccessFileRead {
        /// Which.
        file: &'a Path,
        /// How many rules it has.
        rules: usize,
        /// The shared access policies that it governed before, and does not any more.
        freed: &'a [String],
    },
    /// An enrolment code was not redeemed.
    NotEnrolled {
        /// Where it came from.
        peer: SocketAddr,
        /// Why not.
        reason: Reason<'a>,
    },
    /// A limit was reached: something was refused, delayed or ended.
    Limited {
        /// Which limit, and whose.
        over: &'a Over,
        /// The shared access policy of who asked, if there is one.
        policy: Option<&'a str>,
        /// The device or module that it is about, if it is about one.
        device: Option<&'a DeviceIdentity>,
    },
    /// A client of a protocol that this hub does not speak was refused.
    AmqpRefused {
        /// Where it connected from.
        peer: SocketAddr,
        /// What it came over.
        transport: &'static str,
    },
    /// A service asks for a stream, and its device has been asked.
    StreamRequested(Stream<'a>),
    /// What became of it.
    Stream(Stream<'a>, Outcome<'a>),
    /// What became of a call of a direct method.
    Method(Method<'a>, MethodOutcome<'a>),
    /// A service has changed a twin's tags or desired properties.
    TwinChanged {
        /// Whose.
        device: &'a DeviceIdentity,
        /// The shared access policy with which it did.
        policy: &'a str,
        /// The address that it did from.
        peer: SocketAddr,
        /// The twin's version after it.
        version: u64,
    },
    /// What has become of a job.
    Job(&'a str, JobOutcome<'a>),
    /// A leg of a stream is here.
    LegConnected {
        /// The stream.
        stream: Stream<'a>,
        /// Which leg.
        leg: Leg,
        /// Where the leg comes from.
        peer: SocketAddr,
    },
    /// Something in the session of a device.
    InSession(&'a DeviceIdentity, InSession<'a>),
    /// Something on a connection.
    Connection(Connection<'a>),
    /// Something that failed.
    Fault(Fault<'a>),
    /// The registry has a changed identity, by whichever process.
    IdentityChanged {
        /// Which.
        device: &'a DeviceIdentity,
    },
    /// A session is ended since its identity may no longer have it.
    SessionRevoked {
        /// Whose.
        device: &'a DeviceIdentity,
    },
    /// All streams of an identity are ended since it may no longer have them.
    StreamsRevoked {
        /// Whose.
        device: &'a DeviceIdentity,
    },
    /// A port takes connections.
    ListenerStarted {
        /// What is spoken there.
        protocol: &'static str,
        /// Where.
        address: SocketAddr,
    },
    /// Clients of AMQP are refused on this port, in their own protocol.
    AmqpListenerStarted {
        /// Where.
        address: SocketAddr,
    },
    /// The configuration was changed while the hub runs, and the change is in force.
    ConfigurationChanged {
        /// Its file.
        file: &'a str,
        /// Which settings; no values.
        settings: &'a [&'a str],
    },
    /// Something was changed in the registry.
    Changed(Change<'a>),
    /// A device reports what happens in its sessions.
    DeviceReport(&'a DeviceIdentity, DeviceReport<'a>),
    /// Settings were changed that hold from the next start on.
    NeedsRestart {
        /// The configuration file.
        file: &'a str,
        /// Which.
        settings: &'a str,
    },
    /// The hub was told to stop: its ports take no more connections.
    Stopping,
    /// The hub has stopped.
    Stopped {
        /// Streams that were still open at the end of their grace.
        streams_cut: usize,
        /// Whether all connections ended within theirs.
        in_time: bool,
    },
    /// What concerns the certificate that the hub shows.
    Certificate(Certificate<'a>),
    /// What concerns a CA whose certificates devices may show.
    Authority(Authority<'a>),
    /// What concerns one that a CA signs by ACME.
    Acme(Acme<'a>),
}

impl Event<'_> {
    /// Writes the event to the log and gives it to no other sink: for faults that are found where
    /// no hub's [`Events`] are within reach.
    pub fn log(self) {
        log::write(self);
    }
}
