//! Names with `*` in them.

/// A name in which `*` stands for any characters, or none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pattern(String);

impl Pattern {
    pub(super) fn new(text: String) -> Self {
        Self(text)
    }

    /// As it is written.
    pub(super) fn text(&self) -> &str {
        &self.0
    }

    /// Whether it stands for this name; case counts.
    pub(super) fn matches(&self, name: &str) -> bool {
        let mut parts = self.0.split('*');
        let Some(mut rest) = parts.next().and_then(|first| name.strip_prefix(first)) else {
            return false;
        };
        let mut parts = parts.peekable();
        if parts.peek().is_none() {
            return rest.is_empty();
        }
        while let Some(part) = parts.next() {
            if parts.peek().is_none() {
                return rest.ends_with(part);
            }
            match rest.find(part) {
                Some(at) => rest = rest.get(at + part.len()..).unwrap_or_default(),
                None => return false,
            }
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_is_any_text() {
        for (pattern, name, expected) in [
            ("MyDevice", "MyDevice", true),
            ("MyDevice", "mydevice", false),
            ("MyDevice", "MyDevice2", false),
            ("", "", true),
            ("", "x", false),
            ("*", "", true),
            ("*", "anything", true),
            ("edge-*", "edge-1", true),
            ("edge-*", "edge", false),
            ("*-1", "edge-1", true),
            ("*-1", "edge-12", false),
            ("a*b*c", "abc", true),
            ("a*b*c", "axxbyyc", true),
            ("a*b*c", "acb", false),
            ("a*a", "a", false),
            ("a**", "a", true),
            ("*ä*", "xäx", true),
        ] {
            assert_eq!(
                Pattern::new(pattern.to_owned()).matches(name),
                expected,
                "{pattern} {name}"
            );
        }
    }
}
