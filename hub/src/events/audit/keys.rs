//! The key that signs heads: Ed25519, in the data folder. Its public half is what a verification
//! needs, on this machine or another one.

use std::io;
use std::path::{Path, PathBuf};

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use common::files::{self, Access};
use pem::Pem;
use zeroize::Zeroizing;

use super::chain::hex;

/// The file of the private key, in the audit folder of the data folder.
const FILE: &str = "key.pem";
const PRIVATE: &str = "PRIVATE KEY";
const PUBLIC: &str = "PUBLIC KEY";
/// What stands before the 32 bytes of an Ed25519 key in a `SubjectPublicKeyInfo` (RFC 8410).
const SPKI: [u8; 12] = [
    0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00,
];

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// A file cannot be read or written.
    #[error("cannot {what} {}", file.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// Which.
        file: PathBuf,
        /// The system's error.
        #[source]
        source: io::Error,
    },
    /// The file has something else.
    #[error("{} is not a PEM file with an Ed25519 key", .0.display())]
    Unreadable(PathBuf),
    /// The machine has no randomness.
    #[error("a key cannot be made")]
    NotMade,
}

/// The private key.
pub struct SigningKey {
    pair: Ed25519KeyPair,
    public: PublicKey,
}

impl SigningKey {
    /// The key of this folder; made when it is missing. Blocks.
    ///
    /// # Errors
    /// [`KeyError`].
    pub fn ensure(folder: &Path) -> Result<Self, KeyError> {
        match Self::load(folder)? {
            Some(key) => Ok(key),
            None => Self::make(folder),
        }
    }

    /// The key of this folder, if it has one. Blocks.
    ///
    /// # Errors
    /// [`KeyError`].
    pub fn load(folder: &Path) -> Result<Option<Self>, KeyError> {
        let file = folder.join(FILE);
        let text = match std::fs::read(&file) {
            Ok(text) => Zeroizing::new(text),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(failed("read", &file)(source)),
        };
        let unreadable = || KeyError::Unreadable(file.clone());
        let pem = pem::parse(&*text).map_err(|_| unreadable())?;
        let der = Zeroizing::new(pem.into_contents());
        let pair = Ed25519KeyPair::from_pkcs8(&der).map_err(|_| unreadable())?;
        Ok(Some(Self::of(pair).ok_or_else(unreadable)?))
    }

    fn make(folder: &Path) -> Result<Self, KeyError> {
        let pair = Ed25519KeyPair::generate().map_err(|_| KeyError::NotMade)?;
        let document = pair.to_pkcs8().map_err(|_| KeyError::NotMade)?;
        let text = Zeroizing::new(pem::encode(&Pem::new(PRIVATE, document.as_ref())));
        let file = folder.join(FILE);
        files::write(&file, text.as_bytes(), Access::Private).map_err(failed("write", &file))?;
        Self::of(pair).ok_or(KeyError::NotMade)
    }

    fn of(pair: Ed25519KeyPair) -> Option<Self> {
        let public = PublicKey(pair.public_key().as_ref().try_into().ok()?);
        Some(Self { pair, public })
    }

    /// Its public half.
    pub fn public(&self) -> &PublicKey {
        &self.public
    }

    /// Signs a message.
    pub fn sign(&self, message: &[u8]) -> Vec<u8> {
        self.pair.sign(message).as_ref().to_vec()
    }
}

/// The public key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PublicKey([u8; 32]);

impl PublicKey {
    /// Reads a PEM file, as [`to_pem`](Self::to_pem) makes it. Blocks.
    ///
    /// # Errors
    /// [`KeyError`].
    pub fn read(file: &Path) -> Result<Self, KeyError> {
        let text = std::fs::read(file).map_err(failed("read", file))?;
        let key = pem::parse(text).ok().and_then(|pem| {
            let key = pem.contents().strip_prefix(&SPKI)?.try_into().ok()?;
            (pem.tag() == PUBLIC).then_some(Self(key))
        });
        key.ok_or_else(|| KeyError::Unreadable(file.to_owned()))
    }

    /// The key as PEM, which openssl reads as well.
    pub fn to_pem(self) -> String {
        pem::encode(&Pem::new(PUBLIC, [&SPKI[..], &self.0].concat()))
    }

    /// What heads name the key by: the first half of its SHA-256.
    pub fn id(&self) -> String {
        let digest = digest(&SHA256, &self.0);
        hex(digest.as_ref().get(..16).unwrap_or_default())
    }

    /// Whether this key has signed the message.
    pub fn verify(&self, message: &[u8], signature: &[u8]) -> bool {
        let key = UnparsedPublicKey::new(&ED25519, &self.0[..]);
        key.verify(message, signature).is_ok()
    }
}

fn failed<'a>(what: &'static str, file: &'a Path) -> impl FnOnce(io::Error) -> KeyError + 'a {
    move |source| KeyError::Io {
        what,
        file: file.to_owned(),
        source,
    }
}
