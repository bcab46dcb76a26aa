//! Which documents can be in a result at all, from equalities that the store has an index for.
//! The condition decides: what is found here is all that it selects, and possibly more.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use super::datum::{Datum, beginning, json_number};
use super::expression::{Comparison, Expression, Path};

/// The documents among which a condition selects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Narrowing {
    /// All of the source.
    All,
    /// Those with one of these values of a property of text, as `deviceId` or `jobId`.
    Ids(&'static str, BTreeSet<String>),
    /// Those with one of these values of a tag.
    Tags(BTreeSet<TagValue>),
}

/// A tag with its value, as the index has it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TagValue {
    /// The names below `tags`, as a JSON array.
    pub path: String,
    /// The value as JSON, of a long one the beginning.
    pub value: String,
}

/// Properties that are ids in the tables.
const IDS: &[&str] = &["deviceId", "jobId"];
/// Of longer values the index has the beginning only: a key of it is read and compared as a whole.
const VALUE_LENGTH: usize = 256;

impl Narrowing {
    pub(super) fn of(condition: Option<&Expression>) -> Self {
        condition.map_or(Self::All, Self::of_expression)
    }

    fn of_expression(expression: &Expression) -> Self {
        match expression {
            Expression::Compare(Comparison::Equal, sides) => match &**sides {
                [Expression::Path(path), Expression::Constant(constant)]
                | [Expression::Constant(constant), Expression::Path(path)] => {
                    Self::of_values(path, std::iter::once(constant.clone()))
                }
                _ => Self::All,
            },
            Expression::In {
                value,
                list,
                is_negated: false,
            } => match &**value {
                Expression::Path(path) => {
                    let texts = list.texts.iter().map(|text| text.as_str().into());
                    Self::of_values(path, texts.chain(list.others.iter().cloned()))
                }
                _ => Self::All,
            },
            // Each part alone has all that the whole selects: the best one is enough.
            Expression::All(parts) => {
                let parts = parts.iter().map(Self::of_expression);
                parts.min_by_key(Self::cost).unwrap_or(Self::All)
            }
            Expression::Any(parts) => {
                let mut parts = parts.iter().map(Self::of_expression);
                let first = parts.next().unwrap_or(Self::All);
                parts.fold(first, Self::or)
            }
            _ => Self::All,
        }
    }

    fn of_values(path: &Path, values: impl Iterator<Item = Datum<'static>>) -> Self {
        match path.names.as_slice() {
            [name] => {
                let Some(name) = IDS.iter().find(|id| **id == name) else {
                    return Self::All;
                };
                // An id is text: nothing else equals it.
                let ids = values.filter_map(|value| match value {
                    Datum::Text(text) => Some(text.into_owned()),
                    _ => None,
                });
                Self::Ids(name, ids.collect())
            }
            [first, names @ ..] if first == "tags" => {
                let path = path_text(names);
                let values = values.filter_map(|value| value_text(&value));
                Self::Tags(
                    values
                        .map(|value| TagValue {
                            path: path.clone(),
                            value,
                        })
                        .collect(),
                )
            }
            _ => Self::All,
        }
    }

    fn or(self, other: Self) -> Self {
        match (self, other) {
            (Self::Ids(name, mut ids), Self::Ids(other, others)) if name == other => {
                ids.extend(others);
                Self::Ids(name, ids)
            }
            (Self::Tags(mut tags), Self::Tags(others)) => {
                tags.extend(others);
                Self::Tags(tags)
            }
            _ => Self::All,
        }
    }

    fn cost(&self) -> (u8, usize) {
        match self {
            Self::Ids(_, ids) => (0, ids.len()),
            Self::Tags(tags) => (1, tags.len()),
            Self::All => (2, 0),
        }
    }
}

/// What the index has of a twin's tags: every value that can equal a constant.
pub fn tag_values(tags: &Map<String, Value>) -> BTreeSet<TagValue> {
    let mut values = BTreeSet::new();
    collect(tags, &mut Vec::new(), &mut values);
    values
}

/// Goes as deep as the tags, whose depth is bounded.
fn collect(tags: &Map<String, Value>, names: &mut Vec<String>, values: &mut BTreeSet<TagValue>) {
    for (name, value) in tags {
        names.push(name.clone());
        match value {
            Value::Object(inner) => collect(inner, names, values),
            value => {
                values.extend(value_text(&Some(value).into()).map(|value| TagValue {
                    path: path_text(names),
                    value,
                }));
            }
        }
        names.pop();
    }
}

fn path_text(names: &[String]) -> String {
    Value::from(names).to_string()
}

/// One text for all values that are equal; none for what equals nothing.
fn value_text(value: &Datum<'_>) -> Option<String> {
    let text = match value {
        Datum::Undefined | Datum::Json(_) => return None,
        // The two zeros are equal.
        Datum::Number(number) => json_number(number + 0.0).to_string(),
        other => other.clone().into_value()?.to_string(),
    };
    Some(beginning(&text, VALUE_LENGTH).to_owned())
}
