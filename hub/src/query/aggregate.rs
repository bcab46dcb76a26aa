//! COUNT, AVG, SUM, MIN and MAX: one value of many.

use std::cmp::Ordering;

use serde_json::Value;

use super::datum::{Datum, json_number};
use super::expression::{Expression, Scope};

/// An aggregate as the query has it.
#[derive(Debug, Clone)]
pub(super) struct Aggregate {
    pub(super) kind: Kind,
    /// None only for COUNT: it then counts documents.
    pub(super) argument: Option<Expression>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Count,
    Average,
    Sum,
    Minimum,
    Maximum,
}

impl Kind {
    /// The aggregate of this name, in any case.
    pub(super) fn find(name: &str) -> Option<Self> {
        match name.to_ascii_uppercase().as_str() {
            "COUNT" => Some(Self::Count),
            "AVG" => Some(Self::Average),
            "SUM" => Some(Self::Sum),
            "MIN" => Some(Self::Minimum),
            "MAX" => Some(Self::Maximum),
            _ => None,
        }
    }
}

/// What is known of an aggregate so far. Undefined values do not count. A value that is no number
/// makes a sum and an average undefined, so that they never leave anything out.
#[derive(Debug, Clone, Default)]
pub(super) struct State {
    count: u64,
    sum: f64,
    has_others: bool,
    /// The smallest or largest primitive value.
    extreme: Option<Value>,
}

impl State {
    /// Takes in a document.
    pub(super) fn add(&mut self, aggregate: &Aggregate, scope: &impl Scope) {
        let Some(argument) = &aggregate.argument else {
            self.count += 1;
            return;
        };
        let value = argument.evaluate(scope);
        if value == Datum::Undefined {
            return;
        }
        self.count += 1;
        match (aggregate.kind, value) {
            (Kind::Count, _) => {}
            (Kind::Sum | Kind::Average, Datum::Number(number)) => self.sum += number,
            (Kind::Sum | Kind::Average, _) => self.has_others = true,
            (Kind::Minimum, value) => self.replace(value, Ordering::Less),
            (Kind::Maximum, value) => self.replace(value, Ordering::Greater),
        }
    }

    fn replace(&mut self, value: Datum<'_>, better: Ordering) {
        if !value.is_primitive() {
            return;
        }
        let present = Datum::from(self.extreme.as_ref());
        if present == Datum::Undefined || across_types(&value, &present) == better {
            self.extreme = value.into_value();
        }
    }

    /// The value; none when it is undefined.
    pub(super) fn value(&self, kind: Kind) -> Option<Value> {
        match kind {
            Kind::Count => Some(self.count.into()),
            Kind::Minimum | Kind::Maximum => self.extreme.clone(),
            Kind::Sum | Kind::Average if self.count == 0 || self.has_others => None,
            Kind::Sum => finite(self.sum),
            Kind::Average => finite(self.sum / self.count as f64),
        }
    }
}

fn finite(number: f64) -> Option<Value> {
    number.is_finite().then(|| json_number(number))
}

/// The order of primitive values: by type first.
fn across_types(left: &Datum<'_>, right: &Datum<'_>) -> Ordering {
    left.compare(right)
        .unwrap_or_else(|| rank(left).cmp(&rank(right)))
}

/// The order of the types.
pub(super) fn rank(datum: &Datum<'_>) -> u8 {
    match datum {
        Datum::Undefined => 0,
        Datum::Null => 1,
        Datum::Bool(_) => 2,
        Datum::Number(_) => 3,
        Datum::Text(_) => 4,
        Datum::Json(value) if value.is_array() => 5,
        Datum::Json(_) => 6,
    }
}
