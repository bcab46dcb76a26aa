//! Which documents are on a page of a result.

use std::cmp::Ordering;
use std::collections::BinaryHeap;
use std::ops::ControlFlow;

use serde_json::{Map, Value};

use super::position::Position;
use super::statement::{Query, Select};

/// Selects the documents of one page. It holds as many as a page has, however many there are.
/// `T` is kept for each of them.
pub struct Selection<'q, T> {
    query: &'q Query,
    after: Option<Position>,
    /// One more than the page has: it tells whether there are more.
    limit: usize,
    /// Without ORDER BY, in the order in which they come.
    plain: Vec<(Position, T)>,
    /// With it, the last one on top.
    ordered: BinaryHeap<Ranked<'q, T>>,
}

/// A page of a result.
#[derive(Debug)]
pub struct Page<T> {
    /// In their order.
    pub rows: Vec<(Position, T)>,
    /// Whether more rows follow.
    pub has_more: bool,
}

struct Ranked<'q, T> {
    query: &'q Query,
    position: Position,
    kept: T,
}

impl<'q, T> Selection<'q, T> {
    /// The next `limit` rows of a query without groups, behind this position or from the first.
    pub fn new(query: &'q Query, after: Option<Position>, limit: usize) -> Self {
        Self {
            query,
            after,
            limit: limit.saturating_add(1),
            plain: Vec::new(),
            ordered: BinaryHeap::new(),
        }
    }

    /// Takes in a document, whose name tells it from all others; `Break`: the page is full.
    pub fn add(
        &mut self,
        name: &str,
        document: &Value,
        keep: impl FnOnce() -> T,
    ) -> ControlFlow<()> {
        let query = self.query;
        if query
            .condition
            .as_ref()
            .is_some_and(|condition| !condition.selects(document))
        {
            return ControlFlow::Continue(());
        }
        let position = Position::of(query, document, name);
        if let Some(after) = &self.after
            && position.compare(after, query).is_le()
        {
            return ControlFlow::Continue(());
        }
        if query.order_by.is_empty() {
            self.plain.push((position, keep()));
            return match self.plain.len() < self.limit {
                true => ControlFlow::Continue(()),
                false => ControlFlow::Break(()),
            };
        }
        let is_full = self.ordered.len() >= self.limit;
        if is_full
            && let Some(last) = self.ordered.peek()
            && last.position.compare(&position, query).is_le()
        {
            return ControlFlow::Continue(());
        }
        if is_full {
            self.ordered.pop();
        }
        self.ordered.push(Ranked {
            query,
            position,
            kept: keep(),
        });
        ControlFlow::Continue(())
    }

    /// The page.
    pub fn finish(self) -> Page<T> {
        let mut rows = self.plain;
        let ordered = self.ordered.into_sorted_vec().into_iter();
        rows.extend(ordered.map(|ranked| (ranked.position, ranked.kept)));
        let has_more = rows.len() >= self.limit;
        rows.truncate(self.limit - 1);
        Page { rows, has_more }
    }
}

impl Query {
    /// A row of the result, from its document or the properties in [`Query::result_fields`]: the
    /// document, or the columns that are defined.
    pub fn row(&self, document: Value) -> Value {
        let Select::Columns(columns) = &self.select else {
            return document;
        };
        let mut row = Map::new();
        for column in columns {
            if let Some(value) = column.value.evaluate(&document).into_value() {
                row.insert(column.name.clone(), value);
            }
        }
        row.into()
    }
}

impl<T> Ord for Ranked<'_, T> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.position.compare(&other.position, self.query)
    }
}

impl<T> PartialOrd for Ranked<'_, T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> PartialEq for Ranked<'_, T> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl<T> Eq for Ranked<'_, T> {}
