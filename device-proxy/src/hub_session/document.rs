//! The device's twin as the hub gives it, and in it the sections that are ours. Whatever else
//! services and other programs of the device keep there is left alone.

use serde_json::Value;

use super::reported::SECTION;

/// Our sections of a twin.
#[derive(Debug, PartialEq)]
pub(super) struct Twin {
    /// The version of the desired properties.
    pub(super) version: u64,
    /// What is desired of us, if anything.
    pub(super) desired: Option<Value>,
    /// What we have reported, if anything.
    pub(super) reported: Option<Value>,
}

impl Twin {
    /// Reads what the hub answers; `None`: it is no twin.
    pub(super) fn parse(body: &[u8]) -> Option<Self> {
        let mut twin: Value = serde_json::from_slice(body).ok()?;
        let version = twin.pointer("/desired/$version")?.as_u64()?;
        let mut take = |name: &str| {
            let section = twin.get_mut(name)?.get_mut(SECTION)?;
            Some(section.take()).filter(|section| !section.is_null())
        };
        Some(Self {
            version,
            desired: take("desired"),
            reported: take("reported"),
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn twins_are_read_without_ours() {
        for (body, expected) in [
            (json!({ "desired": { "$version": 1 } }), Some((1, None))),
            (
                json!({ "desired": { "$version": 1, SECTION: null } }),
                Some((1, None)),
            ),
            (
                json!({ "desired": { "$version": 2, SECTION: 7 } }),
                Some((2, Some(json!(7)))),
            ),
            (json!({ "desired": {} }), None),
            (json!({ "desired": { "$version": -1 } }), None),
            (json!([]), None),
        ] {
            let twin = Twin::parse(body.to_string().as_bytes());
            assert_eq!(
                twin.map(|twin| (twin.version, twin.desired)),
                expected,
                "{body}"
            );
        }
        assert_eq!(Twin::parse(b""), None);
    }
}
