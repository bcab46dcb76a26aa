//! Secrets: they are not printed, are compared in constant time, and are wiped when dropped.

use std::fmt;

use aws_lc_rs::{constant_time, digest, hmac};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use zeroize::Zeroizing;

/// A text that must never be logged: a key, a token, a connection string.
#[derive(Clone, Default)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Wraps a text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(Zeroizing::new(text.into()))
    }

    /// The text itself: only for the wire, or for a user who requested it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        constant_time::verify_slices_are_equal(self.0.as_bytes(), other.0.as_bytes()).is_ok()
    }
}

impl Eq for Secret {}

impl From<&str> for Secret {
    fn from(text: &str) -> Self {
        Self::new(text)
    }
}

/// For command line parsers, which then never print the secret.
impl std::str::FromStr for Secret {
    type Err = std::convert::Infallible;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self::new(text))
    }
}

/// Why a text is not a shared access key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The text is empty.
    #[error("it is empty")]
    Empty,
    /// The text contains a line break or a blank, often from pasting.
    #[error("it contains a line break or a blank (was it pasted in pieces?)")]
    Blank,
    /// The text is not base64.
    #[error("it is not valid base64")]
    NotBase64,
}

/// A symmetric key, decoded from base64.
#[derive(Clone)]
pub struct SharedKey(Zeroizing<Vec<u8>>);

impl PartialEq for SharedKey {
    fn eq(&self, other: &Self) -> bool {
        constant_time::verify_slices_are_equal(&self.0, &other.0).is_ok()
    }
}

impl Eq for SharedKey {}

impl SharedKey {
    /// Decodes the base64 text of connection strings and of the registry.
    ///
    /// # Errors
    /// [`KeyError`] states the reason, without repeating the text.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        if text.is_empty() {
            return Err(KeyError::Empty);
        }
        if text.chars().any(char::is_whitespace) {
            return Err(KeyError::Blank);
        }
        let bytes = STANDARD.decode(text).map_err(|_| KeyError::NotBase64)?;
        if bytes.is_empty() {
            return Err(KeyError::Empty);
        }
        Ok(Self(Zeroizing::new(bytes)))
    }

    /// A fresh key of 32 random bytes.
    pub fn random() -> Self {
        Self(Zeroizing::new(
            device_stream_websocket::random::bytes::<32>().to_vec(),
        ))
    }

    /// The key as base64, for connection strings and the registry.
    pub fn to_base64(&self) -> Secret {
        Secret::new(STANDARD.encode(&*self.0))
    }

    /// HMAC-SHA256 over a message.
    pub fn sign(&self, message: &[u8]) -> [u8; 32] {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &self.0);
        let mut signature = [0u8; 32];
        signature.copy_from_slice(hmac::sign(&key, message).as_ref());
        signature
    }

    /// Whether the signature is this key's HMAC-SHA256 over the message, in constant time.
    pub fn verify(&self, message: &[u8], signature: &[u8]) -> bool {
        let key = hmac::Key::new(hmac::HMAC_SHA256, &self.0);
        hmac::verify(&key, message, signature).is_ok()
    }

    /// A digest that identifies the key without revealing it.
    pub fn fingerprint(&self) -> [u8; 32] {
        let mut fingerprint = [0u8; 32];
        fingerprint.copy_from_slice(digest::digest(&digest::SHA256, &self.0).as_ref());
        fingerprint
    }
}

impl fmt::Debug for SharedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[key]")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_output_hides_secrets() {
        let key = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";
        let shown = format!(
            "{:?} {:?}",
            Secret::new(key),
            SharedKey::parse(key).unwrap()
        );
        assert_eq!(shown, "[secret] [key]");
    }

    #[test]
    fn keys_say_what_is_wrong() {
        assert_eq!(SharedKey::parse(""), Err(KeyError::Empty));
        assert_eq!(SharedKey::parse("AAEC\nAwQF"), Err(KeyError::Blank));
        assert_eq!(SharedKey::parse("!!"), Err(KeyError::NotBase64));
        let key = SharedKey::random();
        assert_eq!(SharedKey::parse(key.to_base64().expose()), Ok(key));
    }

    #[test]
    fn keys_compare_by_content() {
        let key = SharedKey::random();
        let mut longer = key.0.to_vec();
        longer.push(0);
        assert!(key == key.clone());
        assert!(key != SharedKey::random());
        assert!(key != SharedKey(Zeroizing::new(longer)));
    }

    #[test]
    fn secrets_compare_by_content() {
        assert_eq!(Secret::new("a"), Secret::new("a"));
        assert_ne!(Secret::new("a"), Secret::new("b"));
        assert_ne!(Secret::new("a"), Secret::new("ab"));
    }
}
