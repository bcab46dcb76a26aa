//! What concerns the CAs whose certificates devices may show.

use std::path::Path;

use common::log_about;
use common::report::chain;
use common::telemetry::About;

use super::Reason;

/// What happened to a registered CA, seen by the hub's process.
#[derive(Clone, Copy)]
pub enum Authority<'a> {
    /// Certificates that it signed are believed from now on.
    Added {
        /// The operator's name for it.
        name: &'a str,
    },
    /// Certificates that it signed are not believed any more.
    Removed {
        /// The operator's name for it.
        name: &'a str,
    },
    /// Its certificate is of no use.
    Unusable {
        /// The operator's name for it.
        name: &'a str,
        /// Why.
        reason: Reason<'a>,
    },
    /// Its revocation lists were read.
    CrlRead {
        /// The operator's name for it.
        name: &'a str,
        /// Their file.
        file: &'a Path,
        /// One of them should have been replaced by now.
        is_old: bool,
    },
    /// Its revocation lists cannot be read.
    CrlNotRead {
        /// The operator's name for it.
        name: &'a str,
        /// Their file.
        file: &'a Path,
        /// Why not.
        reason: Reason<'a>,
        /// The last ones stay in force; else nothing that the CA signed is believed.
        has_earlier: bool,
    },
}

/// Writes its line of the log.
pub(super) fn write(event: Authority<'_>) {
    match event {
        Authority::Added { name } => log_about!(
            audit info,
            About::default(),
            authority = name,
            "certificates of this CA are believed"
        ),
        Authority::Removed { name } => log_about!(
            audit info,
            About::default(),
            authority = name,
            "certificates of this CA are not believed any more"
        ),
        Authority::Unusable { name, reason } => tracing::error!(
            authority = name,
            "the certificate of this CA cannot be used, so no device can connect by it: {}",
            chain(reason)
        ),
        Authority::CrlRead {
            name,
            file,
            is_old: false,
        } => tracing::info!(
            authority = name,
            "read the revocation list {}",
            file.display()
        ),
        Authority::CrlRead {
            name,
            file,
            is_old: true,
        } => tracing::warn!(
            authority = name,
            "the revocation list {} should have been replaced; it stays in force",
            file.display()
        ),
        Authority::CrlNotRead {
            name,
            file,
            reason,
            has_earlier: true,
        } => tracing::error!(
            authority = name,
            "cannot read the revocation list {}, so the last one stays in force: {}",
            file.display(),
            chain(reason)
        ),
        Authority::CrlNotRead {
            name,
            file,
            reason,
            has_earlier: false,
        } => tracing::error!(
            authority = name,
            "cannot read the revocation list {}, so no device can connect by this CA: {}",
            file.display(),
            chain(reason)
        ),
    }
}
