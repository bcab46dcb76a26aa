//! The hub's certificates: its own CA and what that signs, a CA that signs by ACME, files that an
//! operator renews, and the one certificate in use.

pub mod acme;
#[cfg(test)]
mod any_server;
pub mod ca;
mod reload;
mod slot;

#[cfg(test)]
pub(crate) use any_server::AnyServer;
pub(crate) use reload::FINGERPRINT;
pub use reload::{Certificate, CertificateError, CertificateSource};
pub use slot::{Anchor, CertificateSlot};
