//! What happened in the hub: one type for all that it reports, and the only place where it does. It
//! goes to the log; whatever else is to learn of it is another sink of [`Event::emit`].
//!
//! A line names what it is about by the fields of [`common::telemetry::About`]: `device`, `name`,
//! `stream`, `policy`, `peer`, `transport`. Beside them are, each in the lines of one kind of event,
//! `telemetry`; `to_device`, `to_service`, `seconds`; `leg`; `request`, `accepted`, `known`;
//! `status`; `job`, `succeeded`, `failed`; `version`; `code`; `delay`; `ca`, `file`, `host`; `streams_cut`, `in_time`.

mod connection;
mod fault;
mod in_session;
mod log;

use std::error::Error;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use common::identity::{DeviceIdentity, Leg, StreamId};

pub use self::connection::Connection;
pub use self::fault::Fault;
pub use self::in_session::InSession;

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
}

/// What became of a stream that was asked for.
#[derive(Clone, Copy)]
pub enum Outcome<'a> {
    /// The device accepts it: the legs may come.
    Accepted,
    /// The device rejects it.
    Rejected,
    /// It came to no answer of the device: it is not here, does not answer, or there is no room.
    NotAnswered(Reason<'a>),
    /// Who has asked for it went away before the device's answer, or the hub is stopping.
    GivenUp,
    /// Both legs have come.
    Established,
    /// It was accepted, and ended before its legs have met.
    Unpaired {
        /// Whether one of them was here.
        has_leg: bool,
        /// How it ended.
        reason: Reason<'a>,
    },
    /// It was established, and has ended.
    Closed {
        /// Bytes that were relayed to the device.
        to_device: u64,
        /// Bytes that were relayed to the service.
        to_service: u64,
        /// How long both legs were there.
        duration: Duration,
        /// How it ended.
        end: Reason<'a>,
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
    },
    /// A request of a service was not authorised.
    ServiceRefused {
        /// Where it came from.
        peer: SocketAddr,
        /// Why it is not believed.
        reason: Reason<'a>,
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
    /// An enrolment code was not redeemed.
    NotEnrolled {
        /// Where it came from.
        peer: SocketAddr,
        /// Why not.
        reason: Reason<'a>,
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
}

impl Event<'_> {
    /// Gives the event to all sinks.
    pub fn emit(self) {
        log::write(self);
    }
}
