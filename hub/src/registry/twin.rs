//! Twins and their rules (`docs/protocol.md`, "Twins"). No I/O and no clock: the store keeps
//! what comes out of here.

use common::wire::problem::ErrorCode;
use serde_json::{Map, Value, json};

use crate::iso8601::NEVER;
use crate::limits;

/// When a property, or anything below it, was last changed.
const LAST_UPDATED: &str = "$lastUpdated";

/// The twin of one identity. Tags are not kept yet.
#[derive(Debug, Clone, PartialEq)]
pub struct Twin {
    /// Goes up by one with every change of any part.
    pub version: u64,
    /// Changes with every change of any part: unquoted base64 text.
    pub etag: String,
    /// What the service wants.
    pub desired: Section,
    /// What the device says.
    pub reported: Section,
}

impl Twin {
    /// The twin of an identity that was never written to.
    pub(super) fn untouched(etag: String) -> Self {
        Self {
            version: 1,
            etag,
            desired: Section::default(),
            reported: Section::default(),
        }
    }

    /// The document that the device gets.
    pub fn for_device(&self) -> Value {
        json!({
            "desired": self.desired.document(Metadata::LeftOut),
            "reported": self.reported.document(Metadata::LeftOut),
        })
    }
}

/// Whether a document tells when its properties were changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Metadata {
    /// It does: for services.
    Shown,
    /// It does not: for the device.
    LeftOut,
}

/// Desired or reported properties.
#[derive(Debug, Clone, PartialEq)]
pub struct Section {
    /// The properties themselves.
    pub properties: Map<String, Value>,
    /// For each property, and for the whole, when it was last changed.
    pub metadata: Map<String, Value>,
    /// Goes up by one with every change.
    pub version: u64,
}

impl Default for Section {
    /// No properties: version 1, never changed.
    fn default() -> Self {
        Self {
            properties: Map::new(),
            metadata: touched(NEVER),
            version: 1,
        }
    }
}

impl Section {
    /// The properties with `$version`, as clients read them.
    pub fn document(&self, metadata: Metadata) -> Value {
        let mut document = self.properties.clone();
        if metadata == Metadata::Shown {
            document.insert("$metadata".to_owned(), self.metadata.clone().into());
        }
        document.insert("$version".to_owned(), self.version.into());
        document.into()
    }

    /// Merges a patch; `now` is the time that the changed properties get.
    ///
    /// # Errors
    /// [`TwinRuleError::SectionTooLarge`]; the section is then of no more use.
    pub(super) fn apply(&mut self, patch: TwinPatch, now: &str) -> Result<(), TwinRuleError> {
        merge(&mut self.properties, &mut self.metadata, patch.0, now);
        self.version += 1;
        let size = Value::from(self.properties.clone()).to_string().len();
        if size > limits::TWIN_SECTION {
            return Err(TwinRuleError::SectionTooLarge);
        }
        Ok(())
    }
}

fn touched(now: &str) -> Map<String, Value> {
    Map::from_iter([(LAST_UPDATED.to_owned(), now.into())])
}

/// JSON merge patch (RFC 7386), with the metadata beside it. Goes no deeper than the
/// patch, whose depth is bounded.
fn merge(
    properties: &mut Map<String, Value>,
    metadata: &mut Map<String, Value>,
    patch: Map<String, Value>,
    now: &str,
) {
    metadata.insert(LAST_UPDATED.to_owned(), now.into());
    for (key, value) in patch {
        match value {
            Value::Null => {
                properties.remove(&key);
                metadata.remove(&key);
            }
            Value::Object(patch) => {
                if !properties.get(&key).is_some_and(Value::is_object) {
                    properties.insert(key.clone(), Map::new().into());
                    metadata.insert(key.clone(), touched(now).into());
                }
                let inner = properties.get_mut(&key).and_then(Value::as_object_mut);
                let told = metadata.entry(key).or_insert_with(|| touched(now).into());
                if let (Some(inner), Some(told)) = (inner, told.as_object_mut()) {
                    merge(inner, told, patch, now);
                }
            }
            value => {
                metadata.insert(key.clone(), touched(now).into());
                properties.insert(key, value);
            }
        }
    }
}

/// A patch of a section that keeps the rules for keys and values.
#[derive(Debug, Clone, PartialEq)]
pub struct TwinPatch(Map<String, Value>);

/// Which rule for twins is broken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TwinRuleError {
    /// The patch is no JSON.
    #[error("the patch is not JSON, at line {line} column {column}")]
    NotJson {
        /// From 1.
        line: usize,
        /// From 1.
        column: usize,
    },
    /// The patch is JSON, but nothing that has properties.
    #[error("the patch is not a JSON object")]
    NotAnObject,
    /// The patch itself is too large.
    #[error("the patch is larger than {} bytes", limits::TWIN_PATCH)]
    PatchTooLarge,
    /// The section would become too large.
    #[error("the properties would be larger than {} bytes", limits::TWIN_SECTION)]
    SectionTooLarge,
    /// A key with a character that keys may not have.
    #[error(
        "a property's name contains {0:?}; it may have no control characters, dots, blanks or $"
    )]
    KeyCharacter(char),
    /// A key is too long.
    #[error("a property's name is longer than {} bytes", limits::TWIN_KEY)]
    KeyTooLong,
    /// A text is too long.
    #[error("a text is longer than {} bytes", limits::TWIN_STRING)]
    StringTooLong,
    /// A whole number that some clients cannot hold.
    #[error(
        "a whole number is not between {} and {}",
        limits::TWIN_INTEGER_MIN,
        limits::TWIN_INTEGER_MAX
    )]
    Integer,
    /// Objects within objects.
    #[error("the properties are more than {} levels deep", limits::TWIN_DEPTH)]
    TooDeep,
}

impl TwinRuleError {
    /// IoT Hub's code for it.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::PatchTooLarge | Self::SectionTooLarge => ErrorCode::MESSAGE_TOO_LARGE,
            _ => ErrorCode::ARGUMENT_INVALID,
        }
    }
}

impl TwinPatch {
    /// Reads a patch and checks everything that does not depend on the present twin.
    ///
    /// # Errors
    /// [`TwinRuleError`] names the rule that it breaks.
    pub fn parse(body: &[u8]) -> Result<Self, TwinRuleError> {
        if body.len() > limits::TWIN_PATCH {
            return Err(TwinRuleError::PatchTooLarge);
        }
        let patch = serde_json::from_slice(body).map_err(|error| TwinRuleError::NotJson {
            line: error.line(),
            column: error.column(),
        })?;
        let Value::Object(patch) = patch else {
            return Err(TwinRuleError::NotAnObject);
        };
        check_object(&patch, 0)?;
        Ok(Self(patch))
    }
}

fn check_object(object: &Map<String, Value>, depth: usize) -> Result<(), TwinRuleError> {
    for (key, value) in object {
        if key.len() > limits::TWIN_KEY {
            return Err(TwinRuleError::KeyTooLong);
        }
        let is_bad = |c: &char| c.is_control() || matches!(c, '.' | '$' | ' ');
        if let Some(found) = key.chars().find(is_bad) {
            return Err(TwinRuleError::KeyCharacter(found));
        }
        check_value(value, depth)?;
    }
    Ok(())
}

fn check_value(value: &Value, depth: usize) -> Result<(), TwinRuleError> {
    match value {
        Value::Null | Value::Bool(_) => Ok(()),
        Value::String(text) if text.len() > limits::TWIN_STRING => {
            Err(TwinRuleError::StringTooLong)
        }
        Value::String(_) => Ok(()),
        Value::Number(number) => {
            let range = limits::TWIN_INTEGER_MIN..=limits::TWIN_INTEGER_MAX;
            let is_whole = number.is_i64() || number.is_u64();
            if is_whole && !number.as_i64().is_some_and(|n| range.contains(&n)) {
                return Err(TwinRuleError::Integer);
            }
            Ok(())
        }
        Value::Object(_) | Value::Array(_) if depth >= limits::TWIN_DEPTH => {
            Err(TwinRuleError::TooDeep)
        }
        Value::Object(object) => check_object(object, depth + 1),
        Value::Array(values) => values
            .iter()
            .try_for_each(|value| check_value(value, depth + 1)),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(patch: &Value) -> Result<TwinPatch, TwinRuleError> {
        TwinPatch::parse(patch.to_string().as_bytes())
    }

    fn applied(patches: &[Value]) -> Section {
        let mut section = Section::default();
        for (now, patch) in patches.iter().enumerate() {
            let patch = parse(patch).unwrap();
            section.apply(patch, &now.to_string()).unwrap();
        }
        section
    }

    #[test]
    fn patches_merge_and_the_metadata_follows() {
        let section = applied(&[
            json!({ "a": 1, "b": { "c": true, "d": "x" }, "gone": [1] }),
            json!({ "b": { "c": null, "e": { "f": 1.5 } }, "gone": null, "never": null }),
            json!({ "a": { "n": null } }),
        ]);
        assert_eq!(
            section.document(Metadata::LeftOut),
            json!({ "a": {}, "b": { "d": "x", "e": { "f": 1.5 } }, "$version": 4 })
        );
        assert_eq!(
            Value::from(section.metadata),
            json!({
                "$lastUpdated": "2",
                "a": { "$lastUpdated": "2" },
                "b": {
                    "$lastUpdated": "1",
                    "d": { "$lastUpdated": "0" },
                    "e": { "$lastUpdated": "1", "f": { "$lastUpdated": "1" } },
                },
            })
        );
    }

    #[test]
    fn the_examples_of_the_rfc() {
        // Those whose patch is an object and whose result is one (RFC 7386, appendix A).
        for (original, patch, result) in [
            (json!({"a":"b"}), json!({"a":"c"}), json!({"a":"c"})),
            (json!({"a":"b"}), json!({"b":"c"}), json!({"a":"b","b":"c"})),
            (json!({"a":"b"}), json!({"a":null}), json!({})),
            (
                json!({"a":"b","b":"c"}),
                json!({"a":null}),
                json!({"b":"c"}),
            ),
            (json!({"a":["b"]}), json!({"a":"c"}), json!({"a":"c"})),
            (json!({"a":"c"}), json!({"a":["b"]}), json!({"a":["b"]})),
            (
                json!({"a":{"b":"c"}}),
                json!({"a":{"b":"d","c":null}}),
                json!({"a":{"b":"d"}}),
            ),
            (json!({"a":[{"b":"c"}]}), json!({"a":[1]}), json!({"a":[1]})),
            (
                json!({}),
                json!({"a":{"bb":{"ccc":null}}}),
                json!({"a":{"bb":{}}}),
            ),
        ] {
            assert_eq!(Value::from(applied(&[original, patch]).properties), result);
        }
    }

    #[test]
    fn an_untouched_twin_has_both_sections() {
        let twin = Twin::untouched("e".to_owned());
        assert_eq!(
            twin.for_device(),
            json!({ "desired": { "$version": 1 }, "reported": { "$version": 1 } })
        );
    }

    #[test]
    fn keys_and_values_have_rules() {
        let nested = |levels: usize| (0..levels).fold(json!(1), |inner, _| json!({ "k": inner }));
        for good in [
            json!({}),
            json!({ "ü-_#+/": "x".repeat(4096), &"k".repeat(1024): null }),
            json!({ "min": -4_503_599_627_370_496_i64, "max": 4_503_599_627_370_495_i64, "f": 1e300 }),
            // The section itself and ten objects in it.
            nested(11),
        ] {
            assert!(parse(&good).is_ok(), "{good}");
        }
        use TwinRuleError as E;
        for (bad, error) in [
            (json!({ "a.b": 1 }), E::KeyCharacter('.')),
            (json!({ "$version": 1 }), E::KeyCharacter('$')),
            (json!({ "a": { "b c": 1 } }), E::KeyCharacter(' ')),
            (json!({ "a": [{ "\u{7f}": 1 }] }), E::KeyCharacter('\u{7f}')),
            (json!({ &"k".repeat(1025): 1 }), E::KeyTooLong),
            (json!({ "a": "x".repeat(4097) }), E::StringTooLong),
            (json!({ "a": -4_503_599_627_370_497_i64 }), E::Integer),
            (json!({ "a": 4_503_599_627_370_496_i64 }), E::Integer),
            (json!({ "a": u64::MAX }), E::Integer),
            (nested(12), E::TooDeep),
            (json!([]), E::NotAnObject),
            (json!(null), E::NotAnObject),
        ] {
            let seen = parse(&bad).unwrap_err();
            assert_eq!(seen.code().number, 400_004);
            assert_eq!(seen, error, "{bad}");
        }
        let deep = "[".repeat(60_000);
        for bad in ["", " ", "{", "{}x", r#"{"a":1e999}"#, "\u{0}", &deep] {
            let error = TwinPatch::parse(bad.as_bytes()).unwrap_err();
            assert!(matches!(error, E::NotJson { .. }), "{error}");
        }
        assert!(matches!(
            TwinPatch::parse(b"{\"a\":\"\xff\"}"),
            Err(E::NotJson { .. })
        ));
        let blanks = vec![b' '; limits::TWIN_PATCH + 1];
        assert_eq!(TwinPatch::parse(&blanks), Err(E::PatchTooLarge));
    }

    #[test]
    fn a_section_has_a_largest_size() {
        let part = |key: &str, size| parse(&json!({ key: vec!["x".repeat(4000); size] })).unwrap();
        let mut section = Section::default();
        section.apply(part("a", 5), "0").unwrap();
        let error = section.clone().apply(part("b", 5), "0").unwrap_err();
        assert_eq!(error.code().number, 413_001);
        section.apply(part("a", 8), "0").unwrap();
    }

    proptest! {
        #[test]
        fn patches_never_panic(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = TwinPatch::parse(&body);
        }

        /// Every property has its metadata, and the other way round.
        #[test]
        fn metadata_mirrors(patches in proptest::collection::vec(patch(), 1..6)) {
            fn mirrors(properties: &Map<String, Value>, metadata: &Map<String, Value>) -> bool {
                metadata.len() == properties.len() + 1
                    && properties.iter().all(|(key, value)| {
                        let told = metadata.get(key).and_then(Value::as_object).unwrap();
                        match value {
                            Value::Object(inner) => mirrors(inner, told),
                            _ => told.len() == 1,
                        }
                    })
            }
            let section = applied(&patches);
            prop_assert!(mirrors(&section.properties, &section.metadata), "{:?}", section);
        }
    }

    fn patch() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![Just(json!(null)), Just(json!(1)), Just(json!([{ "a": 1 }]))];
        let object = |inner: BoxedStrategy<Value>| {
            proptest::collection::btree_map("[ab]", inner, 0..3)
                .prop_map(|map| Value::from(Map::from_iter(map)))
        };
        let inner = leaf.prop_recursive(3, 16, 3, move |inner| object(inner.boxed()));
        proptest::collection::btree_map("[ab]", inner, 0..3)
            .prop_map(|map| Value::from(Map::from_iter(map)))
    }
}
