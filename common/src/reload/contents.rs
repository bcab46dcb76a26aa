//! What was in files, to find out which of them say something else.

use std::collections::hash_map::DefaultHasher;
use std::fs;
use std::hash::{Hash as _, Hasher as _};
use std::path::{Path, PathBuf};

/// What was in files, as a hash of each: no secret is kept.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Contents(Vec<(PathBuf, Option<u64>)>);

impl Contents {
    /// Reads the files; blocks. What is no file, or cannot be read, has none.
    pub fn of<'a>(files: impl IntoIterator<Item = &'a PathBuf>) -> Self {
        let hashed = files
            .into_iter()
            .map(|file| (file.clone(), hash_of(file)))
            .collect();
        Self(hashed)
    }

    /// The files that are in both, and have other contents there.
    pub fn differing<'a>(&'a self, other: &'a Self) -> impl Iterator<Item = &'a Path> {
        let is_other = |(file, hash): &&(PathBuf, _)| {
            let mut others = other.0.iter();
            others.any(|(name, other)| name == file && other != hash)
        };
        self.0
            .iter()
            .filter(is_other)
            .map(|(file, _)| file.as_path())
    }
}

fn hash_of(file: &Path) -> Option<u64> {
    // A pipe can be read once only.
    if !fs::metadata(file).ok()?.is_file() {
        return None;
    }
    let mut hasher = DefaultHasher::new();
    fs::read(file).ok()?.hash(&mut hasher);
    Some(hasher.finish())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changed_files_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let [a, b, c] = ["a", "b", "c"].map(|name| folder.path().join(name));
        fs::write(&a, "1").unwrap();
        fs::write(&b, "1").unwrap();
        let before = Contents::of([&a, &b, &c]);
        fs::write(&b, "2").unwrap();
        let after = Contents::of([&a, &b]);
        assert_eq!(before.differing(&after).collect::<Vec<_>>(), [&b]);
        assert_eq!(before.differing(&before).count(), 0);
        fs::write(&c, "").unwrap();
        let after = Contents::of([&c]);
        assert_eq!(before.differing(&after).collect::<Vec<_>>(), [&c]);
    }
}
