//! The id of one run of a device's program: when it changes, its sessions are lost.

use std::fmt;
use std::str::FromStr;

/// Names one run of a device-proxy, from its start to its end: 128 random bits, written
/// as 32 hex digits. Not a secret.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BootId([u8; 16]);

/// A text is not a [`BootId`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a boot id has 32 hex digits")]
pub struct BadBootId;

impl BootId {
    /// A fresh id from the system's random source.
    pub fn random() -> Self {
        Self(device_stream_websocket::random::bytes())
    }

    /// The id of these 16 bytes.
    pub const fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }

    /// Its 16 bytes.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// Reads 32 hex digits, in either case.
    ///
    /// # Errors
    /// [`BadBootId`] for anything else.
    pub fn parse(text: &str) -> Result<Self, BadBootId> {
        if text.len() != 32 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(BadBootId);
        }
        let number = u128::from_str_radix(text, 16).map_err(|_| BadBootId)?;
        Ok(Self(number.to_be_bytes()))
    }
}

impl FromStr for BootId {
    type Err = BadBootId;
    fn from_str(text: &str) -> Result<Self, BadBootId> {
        Self::parse(text)
    }
}

impl fmt::Display for BootId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

impl fmt::Debug for BootId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
