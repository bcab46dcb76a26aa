//! The system's root certificates, loaded one by one. All at once, as `rustls-native-certs` returns
//! them, they take 300 KiB, and because of allocations in between that live on, most of that memory
//! would never be released.

use std::collections::HashSet;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::{env, fs};

use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

/// Adds the system's roots, or instead those in `SSL_CERT_FILE` and `SSL_CERT_DIR`. Unreadable ones
/// are ignored.
pub(super) fn add_to(roots: &mut RootCertStore) {
    let (file, directories) = places();
    let in_directories = directories
        .iter()
        .filter_map(|directory| fs::read_dir(directory).ok())
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.is_file());
    // A directory has several names for each of its files.
    let mut seen = HashSet::new();
    for path in file.into_iter().chain(in_directories) {
        let is_new = fs::metadata(&path)
            .is_ok_and(|file| !file.is_dir() && seen.insert((file.dev(), file.ino())));
        if is_new && let Ok(certificates) = CertificateDer::pem_file_iter(&path) {
            for certificate in certificates.flatten() {
                add_one(roots, certificate);
            }
        }
    }
}

fn places() -> (Option<PathBuf>, Vec<PathBuf>) {
    let file = env::var_os("SSL_CERT_FILE").map(PathBuf::from);
    let directories = env::var_os("SSL_CERT_DIR").unwrap_or_default();
    let directories: Vec<_> = env::split_paths(&directories)
        .filter(|path| !path.as_os_str().is_empty())
        .collect();
    if file.is_some() || !directories.is_empty() {
        return (file, directories);
    }
    let found = openssl_probe::probe();
    (found.cert_file, found.cert_dir)
}

/// Adds a CA certificate, unless it was added before.
fn add_one(roots: &mut RootCertStore, certificate: CertificateDer<'_>) {
    if roots.add(certificate).is_ok()
        && let Some(root) = roots.roots.pop()
        && !roots.roots.contains(&root)
    {
        roots.roots.push(root);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The same roots as `rustls-native-certs`, in any order.
    #[test]
    fn all_system_roots_are_added_once() {
        let mut ours = RootCertStore::empty();
        add_to(&mut ours);
        let mut all = RootCertStore::empty();
        all.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        assert!(all.roots.iter().all(|root| ours.roots.contains(root)));
        assert!(ours.roots.iter().all(|root| all.roots.contains(root)));
        let mut unique = Vec::new();
        for root in &ours.roots {
            assert!(!unique.contains(&root));
            unique.push(root);
        }
    }
}
