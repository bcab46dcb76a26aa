//! A user name and a password for a proxy. They come from a file, an environment variable or the
//! proxy's URL, and are never shown.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use crate::secret::Secret;

/// Why a text is no user name and password. No variant repeats any of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CredentialsError {
    /// There is no colon.
    #[error("give USER:PASSWORD on one line")]
    Form,
    /// The user name is empty.
    #[error("the proxy's user name is empty; give USER:PASSWORD")]
    NoUser,
    /// A line break or the like.
    #[error(
        "the proxy's user name or password has a control character; give USER:PASSWORD on one line"
    )]
    Control,
    /// A user name that Basic cannot carry.
    #[error("the proxy's user name has a colon")]
    Colon,
}

/// User name and password. `Debug` shows neither.
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    user: String,
    password: Secret,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials")
    }
}

impl Credentials {
    /// A user, perhaps with its domain as `DOMAIN\USER` or `USER@DOMAIN`, and its password, which
    /// may be empty.
    ///
    /// # Errors
    /// [`CredentialsError`].
    pub fn new(user: &str, password: Secret) -> Result<Self, CredentialsError> {
        if user.is_empty() {
            return Err(CredentialsError::NoUser);
        }
        if user.contains(':') {
            return Err(CredentialsError::Colon);
        }
        if user
            .chars()
            .chain(password.expose().chars())
            .any(char::is_control)
        {
            return Err(CredentialsError::Control);
        }
        Ok(Self {
            user: user.to_owned(),
            password,
        })
    }

    /// Reads `USER:PASSWORD`; the password may have colons.
    ///
    /// # Errors
    /// [`CredentialsError`].
    pub fn parse(text: &str) -> Result<Self, CredentialsError> {
        let (user, password) = text.split_once(':').ok_or(CredentialsError::Form)?;
        Self::new(user, Secret::new(password))
    }

    /// The user name, with its domain if it has one.
    pub fn user(&self) -> &str {
        &self.user
    }

    /// The password.
    pub fn password(&self) -> &Secret {
        &self.password
    }

    /// The domain, which may be empty, and the user in it, as NTLM wants them.
    #[cfg(feature = "ntlm")]
    pub(super) fn domain_and_user(&self) -> (&str, &str) {
        self.user.split_once('\\').unwrap_or(("", &self.user))
    }

    /// The value of `Proxy-Authorization` in the scheme Basic (RFC 7617, in UTF-8).
    pub(super) fn basic(&self) -> Secret {
        let plain = Zeroizing::new(format!("{}:{}", self.user, self.password.expose()));
        let encoded = Zeroizing::new(STANDARD.encode(plain.as_bytes()));
        Secret::new(format!("Basic {}", encoded.as_str()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_may_have_colons_and_a_user_may_not() {
        let credentials = Credentials::parse("ada:a:b").unwrap();
        assert_eq!(credentials.user(), "ada");
        assert_eq!(credentials.password().expose(), "a:b");
        // RFC 7617, section 2.
        let aladdin = Credentials::parse("Aladdin:open sesame").unwrap();
        assert_eq!(
            aladdin.basic().expose(),
            "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="
        );
        assert_eq!(format!("{aladdin:?}"), "Credentials");
        for (text, expected) in [
            ("ada", CredentialsError::Form),
            (":secret", CredentialsError::NoUser),
            ("ada:a\r\nHost: b", CredentialsError::Control),
        ] {
            assert_eq!(Credentials::parse(text), Err(expected), "{text}");
        }
    }
}
