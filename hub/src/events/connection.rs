//! What happens on connections apart from what an operator counts: for looking closely.

use std::net::SocketAddr;

use super::Reason;

/// Something that happened on a connection.
#[derive(Clone, Copy)]
pub enum Connection<'a> {
    /// A TLS handshake failed.
    TlsFailed(Reason<'a>),
    /// A TLS handshake took longer than a stranger may.
    TlsTooSlow,
    /// A connection for MQTT ended before there was a CONNECT to judge.
    NoConnect {
        /// Where it came from.
        peer: SocketAddr,
        /// What it came over.
        transport: &'static str,
        /// How it ended.
        reason: Reason<'a>,
    },
    /// A client of AMQP did not stay to be refused in its own protocol.
    AmqpNotRefused {
        /// Where it came from.
        peer: SocketAddr,
        /// What it came over.
        transport: &'static str,
        /// Why not.
        reason: Reason<'a>,
    },
    /// An HTTP connection had to go before a request was authorised.
    HttpDisplaced {
        /// Where it came from.
        peer: SocketAddr,
    },
    /// An HTTP connection failed.
    HttpFailed {
        /// Where it came from.
        peer: SocketAddr,
        /// How.
        reason: Reason<'a>,
    },
    /// A request to the REST API was refused.
    RequestRefused {
        /// Where it came from.
        peer: SocketAddr,
        /// The error code's number.
        code: u32,
        /// The answer to the client.
        reason: Reason<'a>,
    },
}
