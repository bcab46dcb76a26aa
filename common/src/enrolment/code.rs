//! Codes, and the certificate that they name.

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::digest::{SHA256, digest};
use data_encoding::BASE32_NOPAD;
use zeroize::Zeroizing;

use crate::hub_address::{HubAddress, HubAddressError};
use crate::secret::Secret;
use crate::tls::Fingerprint;

/// Bytes of a code's secret: 80 bits are not guessed at the few tries per second that a hub grants.
const SECRET: usize = 10;
/// Why a text is no code. No variant repeats any of it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CodeError {
    /// There is no hub in it.
    #[error("a code has the form CODE@HUB, as `stream-hub enrol` prints it")]
    NoHub,
    /// The part before the `@` is no code.
    #[error("the part before the @ is no code, which has 42 letters and digits; was it cut?")]
    NoCode,
    /// The part behind it is no hub.
    #[error("the part behind the @ is no hub's address")]
    Hub(#[source] HubAddressError),
}

/// A one-time code: its secret, and what the hub that made it is known by.
#[derive(Clone)]
pub struct Code {
    secret: Zeroizing<[u8; SECRET]>,
    fingerprint: Fingerprint,
}

impl Code {
    /// A fresh code of a hub with this certificate.
    pub fn random(fingerprint: Fingerprint) -> Self {
        Self {
            secret: Zeroizing::new(crate::random::bytes()),
            fingerprint,
        }
    }

    /// Reads 42 letters and digits, in any case; dashes between them do not count.
    ///
    /// # Errors
    /// [`CodeError::NoCode`].
    pub fn parse(text: &str) -> Result<Self, CodeError> {
        let text: Zeroizing<String> = Zeroizing::new(
            text.chars()
                .filter(|c| *c != '-')
                .map(|c| c.to_ascii_uppercase())
                .collect(),
        );
        let bytes = Zeroizing::new(
            BASE32_NOPAD
                .decode(text.as_bytes())
                .map_err(|_| CodeError::NoCode)?,
        );
        let (secret, fingerprint) = bytes.split_first_chunk().ok_or(CodeError::NoCode)?;
        let fingerprint = Fingerprint::from_bytes(fingerprint).ok_or(CodeError::NoCode)?;
        Ok(Self {
            secret: Zeroizing::new(*secret),
            fingerprint,
        })
    }

    /// All of it, for a person.
    pub fn to_text(&self) -> Secret {
        let bytes = Zeroizing::new([&self.secret[..], self.fingerprint.as_bytes()].concat());
        Secret::new(BASE32_NOPAD.encode(&bytes).to_ascii_lowercase())
    }

    /// What the hub is shown: base32 of the secret alone.
    pub fn secret(&self) -> Secret {
        Secret::new(BASE32_NOPAD.encode(&self.secret[..]).to_ascii_lowercase())
    }

    /// What the hub keeps of [`secret`](Self::secret): its SHA-256.
    pub fn digest_of(secret: &str) -> [u8; 32] {
        let secret = Zeroizing::new(secret.to_ascii_lowercase());
        let mut bytes = [0; 32];
        bytes.copy_from_slice(digest(&SHA256, secret.as_bytes()).as_ref());
        bytes
    }

    /// What the hub is known by: its public key, or the certificate of its own CA.
    pub fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }
}

impl fmt::Debug for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[code]")
    }
}

/// A code with the hub that redeems it: `CODE@HUB`.
#[derive(Debug, Clone)]
pub struct Invitation {
    /// The code.
    pub code: Code,
    /// Who redeems it.
    pub hub: HubAddress,
}

impl Invitation {
    /// `CODE@HUB`, for a person.
    pub fn to_text(&self) -> Secret {
        Secret::new(format!("{}@{}", self.code.to_text().expose(), self.hub))
    }
}

impl FromStr for Invitation {
    type Err = CodeError;

    fn from_str(text: &str) -> Result<Self, CodeError> {
        let (code, hub) = text.trim().split_once('@').ok_or(CodeError::NoHub)?;
        Ok(Self {
            code: Code::parse(code)?,
            hub: HubAddress::parse(hub).map_err(CodeError::Hub)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rustls::pki_types::CertificateDer;

    use super::*;

    fn invitation() -> Invitation {
        let certificate = CertificateDer::from(b"a certificate".to_vec());
        Invitation {
            code: Code::random(Fingerprint::of(&certificate)),
            hub: HubAddress::parse("hub.example.com:8443").unwrap(),
        }
    }

    #[test]
    fn what_is_printed_is_read() {
        let invitation = invitation();
        let text = invitation.to_text();
        let (code, hub) = text.expose().split_once('@').unwrap();
        assert_eq!((code.len(), hub), (42, "hub.example.com:8443"));
        let typed = format!(" {}-{}@{hub}\n", &code[..21].to_uppercase(), &code[21..]);
        let read: Invitation = typed.parse().unwrap();
        assert_eq!(read.to_text(), text);
        assert_eq!(read.code.fingerprint(), invitation.code.fingerprint());
        let secret = read.code.secret();
        let shouted = secret.expose().to_uppercase();
        assert_eq!(Code::digest_of(secret.expose()), Code::digest_of(&shouted));
    }

    #[test]
    fn what_is_no_code_is_named_and_not_repeated() {
        let code = invitation().code.to_text();
        let code = code.expose();
        for (text, error) in [
            (code.to_owned(), "CODE@HUB"),
            (format!("{}@h", &code[1..]), "no code"),
            ("@h".to_owned(), "no code"),
            (format!("{code}a@h"), "no code"),
            (format!("{code}@"), "no hub's address"),
            (format!("{code}@h:0"), "no hub's address"),
        ] {
            let found = text.parse::<Invitation>().unwrap_err().to_string();
            assert!(found.contains(error), "{found}");
            assert!(!found.contains(&code[1..9]), "{found}");
        }
        assert!(!format!("{:?}", invitation()).contains(&code[..9]));
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in ".{0,60}(@.{0,20})?") {
            if let Ok(read) = text.parse::<Invitation>() {
                let again: Invitation = read.to_text().expose().parse().unwrap();
                prop_assert_eq!(again.to_text(), read.to_text());
            }
        }
    }
}
