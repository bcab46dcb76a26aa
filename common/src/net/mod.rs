//! What is opened towards others: TCP and TLS connections, WebSockets over them, and probes of a
//! path. All of it goes through a [`Dialer`].

mod dialer;
mod exchange;
mod legs;
mod path_watch;
mod socket;
mod upgrade;

pub use dialer::{DialError, Dialer};
pub use exchange::{ExchangeError, HttpError, exchange, exchange_with_body};
pub use legs::{DialledAhead, LegOpener};
pub use path_watch::PathWatch;
pub use socket::{steady, tune};
pub use upgrade::{ConnectError, HandshakeError, Leg, leg, mqtt};
