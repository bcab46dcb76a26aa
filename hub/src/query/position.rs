//! A place in a result: where a page ends and the next one begins. It is made of values, and is
//! no count: rows that come and go before it do not move it.

use std::cmp::Ordering;

use serde_json::{Value, json};

use super::aggregate::rank;
use super::datum::{Datum, beginning, json_number};
use super::expression::Scope;
use super::statement::{Direction, Query};

/// Where a row stands in a result.
#[derive(Debug, Clone, PartialEq)]
pub struct Position {
    /// The values of ORDER BY.
    order: Vec<Key>,
    /// Decides between rows with equal values: no two rows have the same.
    tie: String,
}

/// A value that rows are ordered by: by type, then within the type.
#[derive(Debug, Clone, PartialEq)]
enum Key {
    Primitive(Value),
    /// Undefined, or an array or object, which have no order: the rank of the type.
    Type(u8),
}

/// So many bytes of a text decide about the order: a position travels in a header.
const TEXT_LENGTH: usize = 128;

impl Position {
    /// The place of a row.
    pub(super) fn of(query: &Query, scope: &impl Scope, tie: &str) -> Self {
        let order = query.order_by.iter();
        Self {
            order: order
                .map(|order| Key::of(order.value.evaluate(scope)))
                .collect(),
            tie: tie.to_owned(),
        }
    }

    /// Behind the row of this name, of a query without ORDER BY.
    pub fn behind(name: String) -> Self {
        Self {
            order: Vec::new(),
            tie: name,
        }
    }

    /// What tells the row from all others.
    pub fn tie(&self) -> &str {
        &self.tie
    }

    /// The order of two rows of a query.
    pub(super) fn compare(&self, other: &Self, query: &Query) -> Ordering {
        let keys = self.order.iter().zip(&other.order);
        for ((left, right), order) in keys.zip(&query.order_by) {
            let ordering = match order.direction {
                Direction::Ascending => left.compare(right),
                Direction::Descending => right.compare(left),
            };
            if ordering.is_ne() {
                return ordering;
            }
        }
        self.tie.cmp(&other.tie)
    }

    /// As JSON.
    pub(super) fn to_json(&self) -> Value {
        let keys = self.order.iter().map(|key| match key {
            Key::Primitive(value) => value.clone(),
            Key::Type(rank) => json!([rank]),
        });
        json!([self.tie, keys.collect::<Value>()])
    }

    /// Reads a position of this query; `None`: it is none.
    pub(super) fn from_json(value: &Value, query: &Query) -> Option<Self> {
        let [Value::String(tie), Value::Array(keys)] = value.as_array()?.as_slice() else {
            return None;
        };
        let keys = keys.iter().map(|key| match key {
            Value::Array(rank) => match rank.as_slice() {
                [rank] => Some(Key::Type(rank.as_u64()?.try_into().ok()?)),
                _ => None,
            },
            Value::Object(_) => None,
            primitive => Some(Key::Primitive(primitive.clone())),
        });
        let order: Vec<Key> = keys.collect::<Option<_>>()?;
        (order.len() == query.order_by.len()).then(|| Self {
            order,
            tie: tie.clone(),
        })
    }
}

impl Key {
    fn of(datum: Datum<'_>) -> Self {
        match datum {
            Datum::Undefined | Datum::Json(_) => Self::Type(rank(&datum)),
            Datum::Number(number) => Self::Primitive(json_number(number)),
            Datum::Text(text) => Self::Primitive(beginning(&text, TEXT_LENGTH).into()),
            other => other.into_value().map_or(Self::Type(0), Self::Primitive),
        }
    }

    fn compare(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::Primitive(left), Self::Primitive(right)) => {
                let (left, right) = (Datum::from(Some(left)), Datum::from(Some(right)));
                left.compare(&right)
                    .unwrap_or_else(|| rank(&left).cmp(&rank(&right)))
            }
            _ => self.rank().cmp(&other.rank()),
        }
    }

    fn rank(&self) -> u8 {
        match self {
            Self::Primitive(value) => rank(&Datum::from(Some(value))),
            Self::Type(rank) => *rank,
        }
    }
}
