//! A query that was read: what it selects, from where, in which order.

use super::aggregate::Aggregate;
use super::expression::{Expression, Path};
use super::fields::Fields;
use super::narrowing::Narrowing;
use super::source::Source;
use super::{QueryError, parser};

/// A query that the hub understands.
#[derive(Debug, Clone)]
pub struct Query {
    pub(super) select: Select,
    pub(super) source: Source,
    pub(super) condition: Option<Expression>,
    /// Whether a row is a group of documents, and not one.
    pub(super) has_groups: bool,
    pub(super) group_by: Vec<Path>,
    pub(super) aggregates: Vec<Aggregate>,
    pub(super) order_by: Vec<Order>,
    pub(super) top: Option<u64>,
}

/// What a row of the result has.
#[derive(Debug, Clone)]
pub(super) enum Select {
    /// The whole document.
    All,
    Columns(Vec<Column>),
}

#[derive(Debug, Clone)]
pub(super) struct Column {
    pub(super) name: String,
    pub(super) value: Expression,
}

#[derive(Debug, Clone)]
pub(super) struct Order {
    pub(super) value: Expression,
    pub(super) direction: Direction,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    Ascending,
    Descending,
}

impl Query {
    /// Reads a query.
    ///
    /// # Errors
    /// [`QueryError`] says where it is wrong.
    pub fn parse(text: &str) -> Result<Self, QueryError> {
        parser::query(text)
    }

    /// What it reads.
    pub fn source(&self) -> Source {
        self.source
    }

    /// Whether its rows are whole documents.
    pub fn selects_documents(&self) -> bool {
        matches!(self.select, Select::All)
    }

    /// Whether its rows are groups of documents.
    pub fn has_groups(&self) -> bool {
        self.has_groups
    }

    /// Whether its rows are in an order of values, and not of names.
    pub fn has_order(&self) -> bool {
        !self.order_by.is_empty()
    }

    /// How many rows it has at most.
    pub fn top(&self) -> Option<u64> {
        self.top
    }

    /// The properties that decide which documents are in the result, and where.
    pub fn fields(&self) -> Fields {
        let mut fields = Fields::default();
        let columns = self.results().filter(|_| self.has_groups);
        let orders = self.order_by.iter().map(|order| &order.value);
        let arguments = self.aggregates.iter().filter_map(|a| a.argument.as_ref());
        let all = self
            .condition
            .iter()
            .chain(columns)
            .chain(orders)
            .chain(arguments);
        all.for_each(|expression| expression.visit_paths(&mut |path| fields.add(&path.names)));
        self.group_by
            .iter()
            .for_each(|path| fields.add(&path.names));
        fields
    }

    /// The properties that its rows have.
    pub fn result_fields(&self) -> Fields {
        let Select::Columns(columns) = &self.select else {
            return Fields::all();
        };
        let mut fields = Fields::default();
        for column in columns {
            column
                .value
                .visit_paths(&mut |path| fields.add(&path.names));
        }
        fields
    }

    /// Which documents can be in the result at all.
    pub fn narrowing(&self) -> Narrowing {
        Narrowing::of(self.condition.as_ref())
    }

    /// What is computed for the rows of the result.
    pub(super) fn results(&self) -> impl Iterator<Item = &Expression> {
        let columns = match &self.select {
            Select::All => &[],
            Select::Columns(columns) => columns.as_slice(),
        };
        let orders = self.order_by.iter().map(|order| &order.value);
        columns.iter().map(|column| &column.value).chain(orders)
    }

    /// Everything that has paths of the documents in it, but for the columns.
    pub(super) fn expressions_mut(&mut self) -> impl Iterator<Item = &mut Expression> {
        let orders = self.order_by.iter_mut().map(|order| &mut order.value);
        let arguments = self
            .aggregates
            .iter_mut()
            .filter_map(|a| a.argument.as_mut());
        self.condition.iter_mut().chain(orders).chain(arguments)
    }
}
