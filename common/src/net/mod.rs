//! What is opened towards others: TCP and TLS connections, WebSockets over them, and probes of a
//! path. All of it goes through a [`Dialer`].

#[cfg(target_os = "linux")]
mod calm;
mod dialer;
mod exchange;
mod host_stream;
#[cfg(feature = "https")]
mod https;
mod legs;
mod path_watch;
pub mod proxy;
mod socket;
mod upgrade;

pub use dialer::{DialError, Dialer, inspection};
pub use exchange::{ExchangeError, HttpError, exchange, exchange_with_body};
pub use host_stream::{HostStream, TlsHostStream, Via};
#[cfg(feature = "otel")]
pub(crate) use https::answer;
#[cfg(feature = "https")]
pub use https::{HttpsError, https};
pub use legs::{DialledAhead, LegOpener};
pub use path_watch::PathWatch;
pub use socket::{Calm, steady, tune};
pub use upgrade::{ConnectError, HandshakeError, Leg, leg, mqtt};
