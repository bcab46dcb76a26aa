//! Documents in groups, and what is computed of each group.

use std::collections::HashMap;

use serde_json::{Map, Value};

use super::aggregate::State;
use super::datum::{Datum, beginning, json_number};
use super::expression::{Path, Scope};
use super::position::Position;
use super::selection::Page;
use super::statement::{Query, Select};
use crate::limits;

/// The groups of a query so far. There may be a bounded number of them.
pub struct Groups<'q> {
    query: &'q Query,
    groups: HashMap<String, Group<'q>>,
    /// Bytes of their names.
    size: usize,
}

/// A query has more groups than the hub keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "the result has more than {} groups, or too large ones: add a condition, or group by a \
     property with fewer values",
    limits::QUERY_GROUPS
)]
pub struct TooManyGroups;

struct Group<'q> {
    query: &'q Query,
    /// Of GROUP BY.
    values: Vec<Option<Value>>,
    states: Vec<State>,
    /// Of the aggregates, at the end.
    results: Vec<Option<Value>>,
}

impl<'q> Groups<'q> {
    /// No groups yet, of a query that has them.
    pub fn new(query: &'q Query) -> Self {
        let mut groups = Self {
            query,
            groups: HashMap::new(),
            size: 0,
        };
        if query.group_by.is_empty() {
            // All documents are one group, also when there are none.
            let group = Group::new(query, Vec::new());
            groups.groups.insert(name(&group.values), group);
        }
        groups
    }

    /// Takes in a document.
    ///
    /// # Errors
    /// It would be one group too many.
    pub fn add(&mut self, document: &Value) -> Result<(), TooManyGroups> {
        let query = self.query;
        if query
            .condition
            .as_ref()
            .is_some_and(|condition| !condition.selects(document))
        {
            return Ok(());
        }
        let paths = query.group_by.iter();
        let values: Vec<_> = paths
            .map(|path| document.property(path).map(normal))
            .collect();
        let name = name(&values);
        let group = match self.groups.get_mut(&name) {
            Some(group) => group,
            None => {
                self.size += name.len();
                if self.groups.len() >= limits::QUERY_GROUPS || self.size > limits::QUERY_GROUP_SIZE
                {
                    return Err(TooManyGroups);
                }
                self.groups
                    .entry(name)
                    .or_insert_with(|| Group::new(query, values))
            }
        };
        for (state, aggregate) in group.states.iter_mut().zip(&query.aggregates) {
            state.add(aggregate, document);
        }
        Ok(())
    }

    /// The next `limit` groups behind this position, or from the first, as rows of the result.
    pub fn finish(self, after: Option<&Position>, limit: usize) -> Page<Value> {
        let query = self.query;
        let mut rows = Vec::new();
        for (name, mut group) in self.groups {
            let states = group.states.iter().zip(&query.aggregates);
            group.results = states
                .map(|(state, aggregate)| state.value(aggregate.kind))
                .collect();
            let position = Position::of(query, &group, &short(name));
            if after.is_none_or(|after| position.compare(after, query).is_gt()) {
                rows.push((position, group));
            }
        }
        rows.sort_by(|(left, _), (right, _)| left.compare(right, query));
        let has_more = rows.len() > limit;
        rows.truncate(limit);
        let rows = rows
            .into_iter()
            .map(|(position, group)| (position, group.row()));
        Page {
            rows: rows.collect(),
            has_more,
        }
    }
}

impl<'q> Group<'q> {
    fn new(query: &'q Query, values: Vec<Option<Value>>) -> Self {
        Self {
            query,
            values,
            states: vec![State::default(); query.aggregates.len()],
            results: Vec::new(),
        }
    }

    fn row(&self) -> Value {
        let mut row = Map::new();
        if let Select::Columns(columns) = &self.query.select {
            for column in columns {
                if let Some(value) = column.value.evaluate(self).into_value() {
                    row.insert(column.name.clone(), value);
                }
            }
        }
        row.into()
    }
}

impl Scope for Group<'_> {
    fn property(&self, path: &Path) -> Option<&Value> {
        let index = self.query.group_by.iter().position(|known| known == path)?;
        self.values.get(index)?.as_ref()
    }

    fn aggregate(&self, index: usize) -> Option<&Value> {
        self.results.get(index)?.as_ref()
    }
}

/// One value for all that are equal.
fn normal(value: &Value) -> Value {
    match Datum::from(Some(value)) {
        Datum::Number(number) => json_number(number + 0.0),
        _ => value.clone(),
    }
}

/// Tells a group from all others: its values, where an undefined one is the empty list.
fn name(values: &[Option<Value>]) -> String {
    let mut name = String::new();
    for value in values {
        name.push('[');
        if let Some(value) = value {
            name.push_str(&value.to_string());
        }
        name.push(']');
    }
    name
}

/// A position has it in a header: a long name by its beginning and a digest of the whole.
fn short(name: String) -> String {
    const LENGTH: usize = 256;
    if name.len() <= LENGTH {
        return name;
    }
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, name.as_bytes());
    let digest = digest.as_ref().iter().map(|byte| format!("{byte:02x}"));
    let digest: String = digest.collect();
    format!("{}{digest}", beginning(&name, LENGTH))
}
