//! Revocation lists of a CA, and of the intermediate CAs below it, in one file.

use std::fs::{File, Metadata};
use std::io::{self, Read as _};
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use rustls::pki_types::CertificateRevocationListDer;
use rustls::pki_types::pem::PemObject as _;
use webpki::{
    CertRevocationList, ExpirationPolicy, OwnedCertRevocationList, RevocationCheckDepth,
    RevocationOptions, RevocationOptionsBuilder, UnknownStatusPolicy,
};
use x509_parser::prelude::{CertificateRevocationList, FromDer as _, X509Version};

/// Largest file: some 400,000 revoked certificates in PEM.
const FILE: u64 = 32 << 20;

/// Why a file is of no use as a revocation list.
#[derive(Debug, thiserror::Error)]
pub enum CrlError {
    /// It cannot be read.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// It is too large.
    #[error("it is larger than {} MiB", FILE >> 20)]
    TooLarge,
    /// There is no list in it, or one that is not whole.
    #[error("there is no revocation list in it, in PEM or DER, or one that is not whole")]
    NoCrl,
    /// It is of a version that nobody should use, and webpki does not take.
    #[error(
        "a revocation list in it is of version 1, and version 2 is needed (with `openssl ca`: crlnumber and crl_extensions in its configuration)"
    )]
    Version1,
    /// webpki does not take it: delta CRLs, say.
    #[error("a revocation list in it cannot be used")]
    Unusable(#[source] webpki::Error),
    /// It is another CA's.
    #[error("none of the revocation lists in it is of this CA")]
    OtherIssuer,
}

/// The lists of one file.
#[derive(Debug, Clone)]
pub struct Crls {
    lists: Arc<Vec<CertRevocationList<'static>>>,
    /// By when the first of them should have been replaced, Unix seconds.
    next_update: Option<u64>,
}

impl Crls {
    /// Reads the lists of a file, of which one has to be by the CA of this subject, in DER. Blocks.
    ///
    /// # Errors
    /// [`CrlError`], which does not name the file.
    pub fn read(file: &Path, subject: &[u8]) -> Result<Self, CrlError> {
        let mut bytes = Vec::new();
        File::open(file)?.take(FILE + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > FILE {
            return Err(CrlError::TooLarge);
        }
        Self::of(&bytes, subject)
    }

    /// The same of a file's bytes, in PEM or DER.
    ///
    /// # Errors
    /// [`CrlError`].
    pub fn of(bytes: &[u8], subject: &[u8]) -> Result<Self, CrlError> {
        let found = if bytes.first() == Some(&0x30) {
            vec![CertificateRevocationListDer::from(bytes)]
        } else {
            CertificateRevocationListDer::pem_slice_iter(bytes)
                .collect::<Result<Vec<_>, _>>()
                .map_err(|_| CrlError::NoCrl)?
        };
        let (mut lists, mut next_update) = (Vec::new(), None);
        for der in found {
            let (_, parsed) =
                CertificateRevocationList::from_der(&der).map_err(|_| CrlError::NoCrl)?;
            if parsed
                .version()
                .is_none_or(|version| version == X509Version::V1)
            {
                return Err(CrlError::Version1);
            }
            let ends = parsed.next_update().map(|time| time.timestamp());
            let ends = ends.map(|time| u64::try_from(time).unwrap_or_default());
            next_update = [next_update, ends].into_iter().flatten().min();
            let list = OwnedCertRevocationList::from_der(&der).map_err(CrlError::Unusable)?;
            lists.push(CertRevocationList::from(list));
        }
        if lists.is_empty() {
            return Err(CrlError::NoCrl);
        }
        if !lists.iter().any(|list| list.issuer() == subject) {
            return Err(CrlError::OtherIssuer);
        }
        Ok(Self {
            lists: Arc::new(lists),
            next_update,
        })
    }

    /// What [`options`] takes; there is at least one.
    pub(super) fn lists(&self) -> Vec<&CertRevocationList<'static>> {
        self.lists.iter().collect()
    }

    /// By when the first of the lists should have been replaced, Unix seconds.
    pub fn next_update(&self) -> Option<u64> {
        self.next_update
    }

    /// Whether these are the same, and not only equal.
    pub(super) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.lists, &other.lists)
    }
}

/// How revocation is looked up in these lists; not at all, if there are none. Every certificate of
/// a path is looked up, and one whose issuer has no list here is refused. A list that should have
/// been replaced still counts: what it revokes stays revoked, and a renewal that somebody has
/// forgotten does not cut off all devices.
pub(super) fn options<'a>(
    lists: &'a [&'a CertRevocationList<'a>],
) -> Option<RevocationOptions<'a>> {
    let builder = RevocationOptionsBuilder::new(lists).ok()?;
    Some(
        builder
            .with_depth(RevocationCheckDepth::Chain)
            .with_status_policy(UnknownStatusPolicy::Deny)
            .with_expiration_policy(ExpirationPolicy::Ignore)
            .build(),
    )
}

/// What shows that a file is not as it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stamp {
    modified: Option<SystemTime>,
    length: u64,
    #[cfg(unix)]
    inode: (u64, u64),
}

impl Stamp {
    /// Of a file as it is now; `None` when there is none. Blocks.
    pub(super) fn of(file: &Path) -> Option<Self> {
        let metadata: Metadata = std::fs::metadata(file).ok()?;
        Some(Self {
            modified: metadata.modified().ok(),
            length: metadata.len(),
            #[cfg(unix)]
            inode: {
                use std::os::unix::fs::MetadataExt as _;
                (metadata.dev(), metadata.ino())
            },
        })
    }
}
