//! What an expression yields, and how two of these compare.

use std::borrow::Cow;
use std::cmp::Ordering;

use serde_json::{Number, Value};

/// The value of an expression: of JSON's types, or undefined.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Datum<'a> {
    /// A missing property, and whatever is computed from values that do not fit.
    Undefined,
    Null,
    Bool(bool),
    /// Always finite.
    Number(f64),
    Text(Cow<'a, str>),
    /// An array or an object.
    Json(Cow<'a, Value>),
}

impl<'a> Datum<'a> {
    /// A number, unless it is none that JSON has.
    pub(super) fn number(number: f64) -> Self {
        if number.is_finite() {
            Self::Number(number)
        } else {
            Self::Undefined
        }
    }

    /// The logical value; `None` is neither true nor false.
    pub(super) fn truth(&self) -> Option<bool> {
        match self {
            Self::Bool(truth) => Some(*truth),
            _ => None,
        }
    }

    pub(super) fn is_primitive(&self) -> bool {
        !matches!(self, Self::Undefined | Self::Json(_))
    }

    /// The order of two primitive values of one type. Others do not compare.
    pub(super) fn compare(&self, other: &Self) -> Option<Ordering> {
        match (self, other) {
            (Self::Null, Self::Null) => Some(Ordering::Equal),
            (Self::Bool(a), Self::Bool(b)) => Some(a.cmp(b)),
            (Self::Number(a), Self::Number(b)) => a.partial_cmp(b),
            (Self::Text(a), Self::Text(b)) => Some(a.as_ref().cmp(b.as_ref())),
            _ => None,
        }
    }

    /// As JSON; nothing when it is undefined.
    pub(super) fn into_value(self) -> Option<Value> {
        Some(match self {
            Self::Undefined => return None,
            Self::Null => Value::Null,
            Self::Bool(truth) => truth.into(),
            Self::Number(number) => json_number(number),
            Self::Text(text) => text.into_owned().into(),
            Self::Json(value) => value.into_owned(),
        })
    }
}

impl<'a> From<Option<&'a Value>> for Datum<'a> {
    fn from(value: Option<&'a Value>) -> Self {
        match value {
            None => Self::Undefined,
            Some(Value::Null) => Self::Null,
            Some(Value::Bool(truth)) => Self::Bool(*truth),
            Some(Value::Number(number)) => number.as_f64().map_or(Self::Undefined, Self::number),
            Some(Value::String(text)) => Self::Text(text.as_str().into()),
            Some(json) => Self::Json(Cow::Borrowed(json)),
        }
    }
}

impl From<bool> for Datum<'_> {
    fn from(truth: bool) -> Self {
        Self::Bool(truth)
    }
}

impl From<Option<bool>> for Datum<'_> {
    fn from(truth: Option<bool>) -> Self {
        truth.map_or(Self::Undefined, Self::Bool)
    }
}

/// All whole numbers up to here are exact in a `f64`.
const EXACT: f64 = (1_u64 << 53) as f64;

/// Whole numbers are written without a fraction.
pub(super) fn json_number(number: f64) -> Value {
    if number.fract() == 0.0 && number.abs() <= EXACT {
        return Value::from(number as i64);
    }
    Number::from_f64(number).map_or(Value::Null, Value::Number)
}

/// At most so many bytes of a text.
pub(super) fn beginning(text: &str, bytes: usize) -> &str {
    let mut end = bytes.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default()
}
