//! The path of a request, percent-decoded once.

use percent_encoding::{AsciiSet, CONTROLS, percent_decode_str, utf8_percent_encode};

/// What would make another path of a decoded segment.
const BORDERS: &AsciiSet = &CONTROLS.add(b'%').add(b'/');

/// A path without empty segments.
#[derive(Debug)]
pub(super) struct Path {
    /// The decoded segments with slashes between them: what a SAS token has to cover.
    pub(super) scope: String,
    /// One spelling for all that mean the same, with a slash before each segment: here every
    /// slash is a border, and those that belong to a segment are encoded.
    pub(super) canonical: String,
}

impl Path {
    /// `None`: decoded, it is not UTF-8.
    pub(super) fn parse(path: &str) -> Option<Self> {
        let mut parsed = Self {
            scope: String::with_capacity(path.len()),
            canonical: String::with_capacity(path.len() + 1),
        };
        for segment in path.split('/').filter(|segment| !segment.is_empty()) {
            let segment = percent_decode_str(segment).decode_utf8().ok()?;
            if !parsed.scope.is_empty() {
                parsed.scope.push('/');
            }
            parsed.scope.push_str(&segment);
            parsed.canonical.push('/');
            parsed
                .canonical
                .extend(utf8_percent_encode(&segment, BORDERS));
        }
        Some(parsed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_means_the_same_is_spelled_the_same() {
        for (path, scope, canonical) in [
            ("/", "", ""),
            ("//devices/d/", "devices/d", "/devices/d"),
            ("/%64evices/a%2Bb", "devices/a+b", "/devices/a+b"),
            ("/devices/a%2Fb", "devices/a/b", "/devices/a%2Fb"),
            ("/devices/a%252Fb", "devices/a%2Fb", "/devices/a%252Fb"),
            ("*", "*", "/*"),
        ] {
            let parsed = Path::parse(path).unwrap();
            assert_eq!((&*parsed.scope, &*parsed.canonical), (scope, canonical));
        }
        assert!(Path::parse("/devices/%ff").is_none());
    }
}
