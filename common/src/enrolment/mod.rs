//! Enrolment: a one-time code of the hub becomes a device's registration, or an operator's
//! connection string. The code names the hub's certificate, so that nobody copies a CA file, and
//! the device makes its key itself: only its certificate travels.
//!
//! ```text
//! stream-hub enrol ──► CODE@HUB ──(any way between people)──► device-proxy enrol CODE@HUB
//!                                                             service-proxy login CODE@HUB
//! POST /enrolments {"code", "deviceId"?, "suggestedDeviceId"?}  over TLS with the device's certificate
//! 200 {"deviceId", "connectionString", "certificateAuthorities"}
//! ```
//!
//! It is ours: IoT Hub has the Device Provisioning Service for it, which is another protocol.

mod client;
mod code;
mod folder;
mod given;

pub use client::{Enrolled, RedeemError, Repeats, Wanted, redeem};
pub use code::{Code, CodeError, Invitation};
pub use folder::{Folder, FolderError};
pub use given::{GivenError, given};

/// Where codes are redeemed.
pub const PATH: &str = "/enrolments";
/// The largest answer to a redeemed code: connection string and a CA's certificate.
pub const ANSWER: usize = 64 << 10;

/// The members of request and answer.
pub mod members {
    /// The code, as [`super::Code::secret`] has it.
    pub const CODE: &str = "code";
    /// The device: in the request, the wanted one.
    pub const DEVICE: &str = "deviceId";
    /// In the request: the id to take when neither the code nor `deviceId` names one.
    pub const SUGGESTED: &str = "suggestedDeviceId";
    /// The connection string.
    pub const CONNECTION_STRING: &str = "connectionString";
    /// The CA that clients of the hub need, PEM; absent when the system's are enough.
    pub const AUTHORITIES: &str = "certificateAuthorities";
}
