//! Files with secrets in them.

use std::path::Path;

use super::Check;

/// Whether other users of this machine may read the file; `None` if that is not known, as where
/// rights are not those of Unix.
pub fn others_may_read(path: &Path) -> Option<bool> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        let metadata = std::fs::metadata(path).ok()?;
        Some(metadata.permissions().mode() & 0o004 != 0)
    }
    #[cfg(not(unix))]
    {
        let _ = path;
        None
    }
}

/// A warning about the first of these files, which hold secrets, that others may read.
pub fn secret_files<'a>(files: impl IntoIterator<Item = &'a Path>) -> Option<Check> {
    let open = files
        .into_iter()
        .find(|path| others_may_read(path) == Some(true))?;
    let path = open.display();
    Some(
        Check::warning(
            "files",
            format!("{path} holds a secret, and every user of this machine may read it"),
        )
        .called("file rights")
        .remedy(format!("chmod o-r {path}")),
    )
}
