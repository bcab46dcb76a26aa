//! The rules for what is written to twins (`docs/protocol.md`, "Twins"): keys, values and sizes.

use common::wire::problem::ErrorCode;
use serde_json::{Map, Value};

use crate::limits;

/// A patch of a section that keeps the rules for keys and values.
#[derive(Debug, Clone, PartialEq)]
pub struct TwinPatch(pub(super) Map<String, Value>);

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
    /// The tags would become too large.
    #[error("the tags would be larger than {} bytes", limits::TWIN_TAGS)]
    TagsTooLarge,
    /// Tags, or desired properties, that are no object.
    #[error("{0} is not a JSON object")]
    Part(&'static str),
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
            Self::PatchTooLarge | Self::SectionTooLarge | Self::TagsTooLarge => {
                ErrorCode::MESSAGE_TOO_LARGE
            }
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
        Self::checked(patch)
    }

    fn checked(patch: Map<String, Value>) -> Result<Self, TwinRuleError> {
        check_object(&patch, 0)?;
        Ok(Self(patch))
    }
}

/// How a part of a twin is changed.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Change {
    /// As by a JSON merge patch.
    Merge(TwinPatch),
    /// This takes its place.
    Replace(TwinPatch),
}

/// What a service changes in a twin.
#[derive(Debug, Clone, PartialEq)]
pub struct TwinChange {
    pub(super) tags: Option<Change>,
    pub(super) desired: Option<Change>,
}

impl TwinChange {
    /// Reads a document with the members `tags` and `properties.desired`, and checks all that does
    /// not depend on the present twin. Other members mean nothing, and neither do `$metadata` and
    /// `$version` in the desired properties: a document that was read can be sent back. With
    /// `replaces` both parts are replaced as wholes, and what is missing is then empty; else what
    /// is there is merged, and null empties a part.
    ///
    /// # Errors
    /// [`TwinRuleError`] names the rule that it breaks.
    pub fn from_document(document: &Value, replaces: bool) -> Result<Self, TwinRuleError> {
        let Value::Object(document) = document else {
            return Err(TwinRuleError::NotAnObject);
        };
        let properties = match document.get("properties") {
            None | Some(Value::Null) => None,
            Some(Value::Object(properties)) => Some(properties),
            Some(_) => return Err(TwinRuleError::Part("properties")),
        };
        let desired = properties.and_then(|properties| properties.get("desired"));
        Ok(Self {
            tags: change(document.get("tags"), "tags", replaces)?,
            desired: change(desired, "properties.desired", replaces)?,
        })
    }

    /// Whether it changes nothing.
    pub fn is_empty(&self) -> bool {
        self.tags.is_none() && self.desired.is_none()
    }
}

fn change(
    part: Option<&Value>,
    name: &'static str,
    replaces: bool,
) -> Result<Option<Change>, TwinRuleError> {
    let object = match part {
        None if !replaces => return Ok(None),
        None | Some(Value::Null) => return Ok(Some(Change::Replace(TwinPatch(Map::new())))),
        Some(Value::Object(object)) => object,
        Some(_) => return Err(TwinRuleError::Part(name)),
    };
    let mut object = object.clone();
    object.retain(|key, _| !matches!(key.as_str(), "$metadata" | "$version"));
    if object.is_empty() && !replaces {
        return Ok(None);
    }
    let patch = TwinPatch::checked(object)?;
    if size(&patch.0) > limits::TWIN_PATCH {
        return Err(TwinRuleError::PatchTooLarge);
    }
    Ok(Some(if replaces {
        Change::Replace(patch)
    } else {
        Change::Merge(patch)
    }))
}

/// Bytes as compact JSON.
pub(super) fn size(object: &Map<String, Value>) -> usize {
    // Writing into memory fails for no object.
    serde_json::to_string(object).map_or(usize::MAX, |text| text.len())
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
    use serde_json::json;

    use super::*;

    fn parse(patch: &Value) -> Result<TwinPatch, TwinRuleError> {
        TwinPatch::parse(patch.to_string().as_bytes())
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

    proptest! {
        #[test]
        fn patches_never_panic(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = TwinPatch::parse(&body);
        }
    }
}
