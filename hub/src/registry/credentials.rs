//! Credentials as people and SDKs write them, checked the same way for the REST API
//! and the command line.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use common::secret::{KeyError, SharedKey};
use zeroize::Zeroizing;

use super::{Authentication, Thumbprint};

/// Shortest key, in bytes (IoT Hub's limit).
pub const KEY_LENGTH_MIN: usize = 16;
/// Longest key, in bytes (IoT Hub's limit).
pub const KEY_LENGTH_MAX: usize = 64;

/// Why a credential cannot be taken. No variant repeats it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CredentialError {
    /// The text is no key at all.
    #[error("the key is not the base64 text of 16 to 64 random bytes")]
    Key(#[from] KeyError),
    /// The key is too short or too long.
    #[error("the key has {0} bytes; it must have {KEY_LENGTH_MIN} to {KEY_LENGTH_MAX}")]
    KeyLength(usize),
    /// The text is no thumbprint.
    #[error("{0:?} is not a thumbprint: 40 (SHA-1) or 64 (SHA-256) hex digits")]
    Thumbprint(String),
    /// An X.509 identity with no thumbprint.
    #[error("an identity of type selfSigned needs at least one thumbprint")]
    NoThumbprint,
}

/// Reads a symmetric key.
///
/// # Errors
/// [`CredentialError`] when it is not base64 of 16 to 64 bytes.
pub fn key(text: &str) -> Result<SharedKey, CredentialError> {
    let key = SharedKey::parse(text)?;
    let bytes = Zeroizing::new(STANDARD.decode(text).map_err(|_| KeyError::NotBase64)?);
    if !(KEY_LENGTH_MIN..=KEY_LENGTH_MAX).contains(&bytes.len()) {
        return Err(CredentialError::KeyLength(bytes.len()));
    }
    Ok(key)
}

/// Two keys; each that is missing or empty is made at random.
///
/// # Errors
/// [`CredentialError`] when one is given that is no key.
pub fn keys(
    primary: Option<&str>,
    secondary: Option<&str>,
) -> Result<Authentication, CredentialError> {
    let given_or_random = |text: Option<&str>| match text {
        None | Some("") => Ok(SharedKey::random()),
        Some(text) => key(text),
    };
    Ok(Authentication::Sas {
        primary: given_or_random(primary)?,
        secondary: given_or_random(secondary)?,
    })
}

/// One or two thumbprints; an empty one is none.
///
/// # Errors
/// [`CredentialError`] when there is none or one is malformed.
pub fn thumbprints(
    primary: Option<&str>,
    secondary: Option<&str>,
) -> Result<Authentication, CredentialError> {
    let parse = |text: Option<&str>| {
        text.filter(|text| !text.is_empty())
            .map(|text| {
                Thumbprint::parse(text).ok_or_else(|| CredentialError::Thumbprint(text.to_owned()))
            })
            .transpose()
    };
    let (primary, secondary) = (parse(primary)?, parse(secondary)?);
    if primary.is_none() && secondary.is_none() {
        return Err(CredentialError::NoThumbprint);
    }
    Ok(Authentication::SelfSigned { primary, secondary })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_have_sixteen_to_sixty_four_bytes() {
        for (length, fits) in [(15, false), (16, true), (64, true), (65, false)] {
            assert_eq!(key(&STANDARD.encode(vec![1; length])).is_ok(), fits);
        }
        assert_eq!(key("!"), Err(CredentialError::Key(KeyError::NotBase64)));
    }

    #[test]
    fn missing_keys_are_made() {
        let given = SharedKey::random();
        let text = given.to_base64();
        let Ok(Authentication::Sas { primary, secondary }) = keys(Some(text.expose()), Some(""))
        else {
            panic!("no keys")
        };
        assert!(primary == given && secondary != given);
        assert_ne!(keys(None, None), keys(None, None));
    }

    #[test]
    fn thumbprints_may_have_colons() {
        let text = "ab:".repeat(20);
        assert!(thumbprints(Some(&text), None).is_ok());
        assert_eq!(
            thumbprints(None, Some("")),
            Err(CredentialError::NoThumbprint)
        );
        assert!(thumbprints(Some("abc"), None).is_err());
    }
}
