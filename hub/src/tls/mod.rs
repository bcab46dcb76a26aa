//! The hub's certificates: its own CA and what that signs, files that an operator renews, and the
//! one certificate in use.

pub mod ca;
mod reload;
mod slot;

pub(crate) use reload::FINGERPRINT;
pub use reload::{Certificate, CertificateError, CertificateSource};
pub use slot::{Anchor, CertificateSlot};
