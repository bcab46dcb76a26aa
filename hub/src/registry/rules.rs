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
