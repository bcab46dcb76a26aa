//! Expressions, and their values. Nothing here fails: what does not fit is undefined.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::collections::HashSet;

use serde_json::Value;

use super::datum::Datum;
use super::functions::Function;

/// A part of a condition or projection. Chains of operators are flat, and everything else is no
/// deeper than the parser permits, so that recursion over it is bounded.
#[derive(Debug, Clone)]
pub(super) enum Expression {
    Constant(Datum<'static>),
    Path(Path),
    /// AND.
    All(Vec<Expression>),
    /// OR.
    Any(Vec<Expression>),
    Not(Box<Expression>),
    Negate(Box<Expression>),
    Compare(Comparison, Box<[Expression; 2]>),
    /// The first operand, and operators of one precedence with their second operands.
    Arithmetic(Box<Expression>, Vec<(Operator, Expression)>),
    In {
        value: Box<Expression>,
        list: List,
        is_negated: bool,
    },
    Call(&'static Function, Vec<Expression>),
    /// One of the query's aggregates.
    Aggregate(usize),
}

/// Where a property is in a document.
#[derive(Debug, Clone)]
pub(super) struct Path {
    pub(super) names: Vec<String>,
    /// The byte of the query at which it begins.
    pub(super) at: usize,
}

/// Two places of one property are the same path.
impl PartialEq for Path {
    fn eq(&self, other: &Self) -> bool {
        self.names == other.names
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Operator {
    Add,
    Subtract,
    Multiply,
    Divide,
    Remainder,
}

/// What an expression is evaluated on.
pub(super) trait Scope {
    /// The value of a property, if there is one.
    fn property(&self, path: &Path) -> Option<&Value>;
    /// The value of an aggregate, if there is one.
    fn aggregate(&self, index: usize) -> Option<&Value>;
}

/// A document.
impl Scope for Value {
    fn property(&self, path: &Path) -> Option<&Value> {
        path.names
            .iter()
            .try_fold(self, |value, name| value.as_object()?.get(name))
    }

    fn aggregate(&self, _index: usize) -> Option<&Value> {
        None
    }
}

impl Expression {
    /// The value in this scope.
    pub(super) fn evaluate<'a>(&'a self, scope: &'a impl Scope) -> Datum<'a> {
        match self {
            Self::Constant(constant) => constant.clone(),
            Self::Path(path) => scope.property(path).into(),
            Self::Aggregate(index) => scope.aggregate(*index).into(),
            Self::All(parts) => dominated(parts, scope, false),
            Self::Any(parts) => dominated(parts, scope, true),
            Self::Not(part) => part.evaluate(scope).truth().map(|truth| !truth).into(),
            Self::Negate(part) => match part.evaluate(scope) {
                Datum::Number(number) => Datum::number(-number),
                _ => Datum::Undefined,
            },
            Self::Compare(comparison, sides) => {
                let [left, right] = &**sides;
                let order = left.evaluate(scope).compare(&right.evaluate(scope));
                order.map(|order| comparison.holds(order)).into()
            }
            Self::Arithmetic(first, rest) => {
                let first = first.evaluate(scope);
                rest.iter().fold(first, |left, (operator, right)| {
                    operator.apply(&left, &right.evaluate(scope))
                })
            }
            Self::In {
                value,
                list,
                is_negated,
            } => {
                let contained = list.contains(&value.evaluate(scope));
                contained.map(|contained| contained != *is_negated).into()
            }
            Self::Call(function, arguments) => {
                let arguments: Vec<_> = arguments.iter().map(|a| a.evaluate(scope)).collect();
                function.apply(&arguments)
            }
        }
    }

    /// Whether a condition selects.
    pub(super) fn selects(&self, scope: &impl Scope) -> bool {
        self.evaluate(scope).truth() == Some(true)
    }

    /// Shows every path in it.
    pub(super) fn visit_paths<'a>(&'a self, visit: &mut dyn FnMut(&'a Path)) {
        match self {
            Self::Path(path) => visit(path),
            Self::Constant(_) | Self::Aggregate(_) => {}
            Self::All(parts) | Self::Any(parts) | Self::Call(_, parts) => {
                parts.iter().for_each(|part| part.visit_paths(visit));
            }
            Self::Not(part) | Self::Negate(part) | Self::In { value: part, .. } => {
                part.visit_paths(visit);
            }
            Self::Compare(_, sides) => sides.iter().for_each(|side| side.visit_paths(visit)),
            Self::Arithmetic(first, rest) => {
                first.visit_paths(visit);
                rest.iter().for_each(|(_, part)| part.visit_paths(visit));
            }
        }
    }

    /// Hands out every part of it, the inner ones first.
    pub(super) fn try_visit_mut<E>(
        &mut self,
        visit: &mut dyn FnMut(&mut Expression) -> Result<(), E>,
    ) -> Result<(), E> {
        match self {
            Self::Path(_) | Self::Constant(_) | Self::Aggregate(_) => {}
            Self::All(parts) | Self::Any(parts) | Self::Call(_, parts) => {
                for part in parts {
                    part.try_visit_mut(visit)?;
                }
            }
            Self::Not(part) | Self::Negate(part) | Self::In { value: part, .. } => {
                part.try_visit_mut(visit)?;
            }
            Self::Compare(_, sides) => {
                for side in &mut **sides {
                    side.try_visit_mut(visit)?;
                }
            }
            Self::Arithmetic(first, rest) => {
                first.try_visit_mut(visit)?;
                for (_, part) in rest {
                    part.try_visit_mut(visit)?;
                }
            }
        }
        visit(self)
    }
}

/// AND and OR with three values: `dominant` decides alone, else one that is no Boolean makes the
/// whole undefined.
fn dominated<'a>(parts: &'a [Expression], scope: &'a impl Scope, dominant: bool) -> Datum<'a> {
    let mut result = Datum::Bool(!dominant);
    for part in parts {
        match part.evaluate(scope).truth() {
            Some(truth) if truth == dominant => return Datum::Bool(dominant),
            Some(_) => {}
            None => result = Datum::Undefined,
        }
    }
    result
}

impl Comparison {
    fn holds(self, order: Ordering) -> bool {
        match self {
            Self::Equal => order.is_eq(),
            Self::NotEqual => order.is_ne(),
            Self::Less => order.is_lt(),
            Self::LessOrEqual => order.is_le(),
            Self::Greater => order.is_gt(),
            Self::GreaterOrEqual => order.is_ge(),
        }
    }
}

impl Operator {
    fn apply<'a>(self, left: &Datum<'_>, right: &Datum<'_>) -> Datum<'a> {
        let (Datum::Number(left), Datum::Number(right)) = (left, right) else {
            return Datum::Undefined;
        };
        // Division by zero is no finite number, so it is undefined.
        Datum::number(match self {
            Self::Add => left + right,
            Self::Subtract => left - right,
            Self::Multiply => left * right,
            Self::Divide => left / right,
            Self::Remainder => left % right,
        })
    }
}

/// The constants behind IN. Looking one up does not depend on how many there are.
#[derive(Debug, Clone, Default)]
pub(super) struct List {
    pub(super) texts: HashSet<String>,
    /// As bits, with one zero.
    numbers: HashSet<u64>,
    bools: HashSet<bool>,
    has_null: bool,
    /// Numbers, truth values and null, for the index.
    pub(super) others: Vec<Datum<'static>>,
}

impl List {
    /// Adds a constant. Arrays and undefined equal nothing.
    pub(super) fn add(&mut self, constant: Datum<'static>) {
        match &constant {
            Datum::Text(text) => {
                self.texts.insert(text.to_string());
                return;
            }
            Datum::Number(number) => drop(self.numbers.insert(bits(*number))),
            Datum::Bool(truth) => drop(self.bools.insert(*truth)),
            Datum::Null => self.has_null = true,
            Datum::Undefined | Datum::Json(_) => return,
        }
        self.others.push(constant);
    }

    /// Whether it has this value; `None` when it has none of its type.
    fn contains(&self, value: &Datum<'_>) -> Option<bool> {
        match value {
            Datum::Text(text) => {
                (!self.texts.is_empty()).then(|| self.texts.contains(text.as_ref()))
            }
            Datum::Number(number) => {
                (!self.numbers.is_empty()).then(|| self.numbers.contains(&bits(*number)))
            }
            Datum::Bool(truth) => (!self.bools.is_empty()).then(|| self.bools.contains(truth)),
            Datum::Null => self.has_null.then_some(true),
            Datum::Undefined | Datum::Json(_) => None,
        }
    }
}

fn bits(number: f64) -> u64 {
    // The two zeros are equal.
    (number + 0.0).to_bits()
}

impl From<&str> for Datum<'static> {
    fn from(text: &str) -> Self {
        Self::Text(Cow::Owned(text.to_owned()))
    }
}
