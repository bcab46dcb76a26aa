//! From tokens to a query. Every error names a place; nothing is guessed.

mod expressions;

use std::collections::HashSet;

use super::QueryError;
use super::aggregate::Aggregate;
use super::expression::{Expression, Path};
use super::lexer::{self, Spanned, Token};
use super::source::Source;
use super::statement::{Column, Direction, Order, Query, Select};
use crate::limits;

type Result<T> = std::result::Result<T, QueryError>;

/// Reads a whole query.
pub(super) fn query(text: &str) -> Result<Query> {
    let mut parser = Parser::new(text)?;
    let query = parser.query()?;
    parser.end()?;
    Ok(query)
}

/// Reads a condition on twins, of devices unless it says of what; none selects everything.
pub(super) fn condition(text: &str) -> Result<(Source, Option<Expression>)> {
    let mut parser = Parser::new(text)?;
    let mut source = Source::Devices;
    let mut has_condition = !matches!(parser.peek(), Token::End);
    if parser.accept_word("FROM") {
        let at = parser.at();
        source = parser.source()?;
        if source == Source::Jobs {
            return Err(parser.error_at(at, "expected devices or devices.modules behind FROM"));
        }
        has_condition = parser.accept_word("WHERE");
    } else if parser.accept_symbol("*") {
        has_condition = false;
    }
    let mut condition = None;
    if has_condition {
        condition = Some(parser.expression()?);
    }
    parser.end()?;
    if let Some(condition) = &mut condition {
        parser.resolve(condition, source)?;
    }
    Ok((source, condition))
}

struct Parser<'a> {
    text: &'a str,
    tokens: Vec<Spanned>,
    position: usize,
    /// How deep in expressions it is.
    depth: usize,
    /// Where they may stand, the aggregates so far.
    aggregates: Option<Vec<Aggregate>>,
}

impl<'a> Parser<'a> {
    fn new(text: &'a str) -> Result<Self> {
        if text.chars().count() > limits::QUERY_LENGTH {
            let message = format!("a query has at most {} characters", limits::QUERY_LENGTH);
            return Err(QueryError::at(text, 0, message));
        }
        Ok(Self {
            text,
            tokens: lexer::tokens(text)?,
            position: 0,
            depth: 0,
            aggregates: None,
        })
    }

    fn query(&mut self) -> Result<Query> {
        self.expect_word("SELECT")?;
        let top = self.top()?;
        let at = self.at();
        self.aggregates = Some(Vec::new());
        let mut columns = self.columns()?;
        let aggregates = self.aggregates.take().unwrap_or_default();
        self.expect_word("FROM")?;
        let source = self.source()?;
        let mut condition = None;
        if self.accept_word("WHERE") {
            condition = Some(self.expression()?);
        }
        let mut group_by = Vec::new();
        if self.accept_word("GROUP") {
            self.expect_word("BY")?;
            group_by = self.separated(Self::path)?;
        }
        let has_groups = !(aggregates.is_empty() && group_by.is_empty());
        self.aggregates = Some(aggregates).filter(|_| has_groups);
        let mut order_by = Vec::new();
        if self.accept_word("ORDER") {
            self.expect_word("BY")?;
            order_by = self.orders(&columns)?;
        }
        let aggregates = self.aggregates.take().unwrap_or_default();

        let mut query = Query {
            select: Select::All,
            source,
            condition: condition.take(),
            has_groups,
            group_by,
            aggregates,
            order_by,
            top,
        };
        let has_columns = columns.is_some();
        if source == Source::Jobs && (has_columns || has_groups) {
            return Err(self.error_at(at, "a query of devices.jobs is `SELECT *` without GROUP BY"));
        }
        if has_groups && !has_columns {
            return Err(self.error_at(at, "with GROUP BY, columns are named instead of `*`"));
        }
        for expression in query
            .expressions_mut()
            .chain(columns.iter_mut().flatten().map(|c| &mut c.value))
        {
            self.resolve(expression, source)?;
        }
        for path in &mut query.group_by {
            let at = path.at;
            source
                .resolve(path)
                .map_err(|message| self.error_at(at, message))?;
        }
        if let Some(columns) = columns {
            query.select = Select::Columns(self.named(columns)?);
        }
        self.check_groups(&query)?;
        Ok(query)
    }

    fn top(&mut self) -> Result<Option<u64>> {
        if !self.accept_word("TOP") {
            return Ok(None);
        }
        let at = self.at();
        match self.next() {
            Token::Number(number) if number >= 1.0 && number.fract() == 0.0 => {
                Ok(Some(number as u64))
            }
            _ => Err(self.error_at(at, "expected a whole number from 1 behind TOP")),
        }
    }

    /// `None` is `*`.
    fn columns(&mut self) -> Result<Option<Vec<Draft>>> {
        if self.accept_symbol("*") {
            return Ok(None);
        }
        self.separated(Self::column).map(Some)
    }

    fn column(&mut self) -> Result<Draft> {
        let at = self.at();
        let value = self.expression()?;
        let mut name = None;
        if self.accept_word("AS") {
            let at = self.at();
            name = Some(match self.next() {
                Token::Word(word) => word,
                Token::Path(mut names) if names.len() == 1 => names.remove(0),
                _ => return Err(self.error_at(at, "expected a name behind AS")),
            });
        }
        Ok(Draft { value, name, at })
    }

    /// The columns with their names: a property has its own, other values have a number.
    fn named(&self, drafts: Vec<Draft>) -> Result<Vec<Column>> {
        let mut names = HashSet::new();
        let mut unnamed = 0;
        let mut columns = Vec::with_capacity(drafts.len());
        for Draft { value, name, at } in drafts {
            let name = match (name, &value) {
                (Some(name), _) => name,
                (None, Expression::Path(path)) => path.names.last().cloned().unwrap_or_default(),
                (None, _) => {
                    unnamed += 1;
                    format!("${unnamed}")
                }
            };
            if !names.insert(name.clone()) {
                let message = format!("another column is called `{name}`: name this one with AS");
                return Err(self.error_at(at, message));
            }
            columns.push(Column { name, value });
        }
        Ok(columns)
    }

    fn source(&mut self) -> Result<Source> {
        let at = self.at();
        let names = match self.next() {
            Token::Word(name) => vec![name],
            Token::Path(names) => names,
            _ => Vec::new(),
        };
        Source::find(&names).ok_or_else(|| {
            self.error_at(
                at,
                "expected devices, devices.modules or devices.jobs behind FROM",
            )
        })
    }

    fn path(&mut self) -> Result<Path> {
        let at = self.at();
        match self.next() {
            Token::Word(name) if !expressions::is_keyword(&name) => Ok(Path {
                names: vec![name],
                at,
            }),
            Token::Path(names) => Ok(Path { names, at }),
            _ => Err(self.error_at(at, "expected a property")),
        }
    }

    fn orders(&mut self, columns: &Option<Vec<Draft>>) -> Result<Vec<Order>> {
        let at = self.at();
        let orders = self.separated(|parser| {
            let mut value = parser.expression()?;
            // The name of a column stands for its value.
            if let Expression::Path(path) = &value
                && let [name] = path.names.as_slice()
            {
                let mut columns = columns.iter().flatten();
                if let Some(column) = columns.find(|column| column.name.as_ref() == Some(name)) {
                    value = column.value.clone();
                }
            }
            let is_descending = parser.accept_word("DESC");
            if !is_descending {
                parser.accept_word("ASC");
            }
            let direction = if is_descending {
                Direction::Descending
            } else {
                Direction::Ascending
            };
            Ok(Order { value, direction })
        })?;
        if orders.len() > limits::QUERY_ORDERS {
            let message = format!("ORDER BY has at most {} values", limits::QUERY_ORDERS);
            return Err(self.error_at(at, message));
        }
        Ok(orders)
    }

    /// Replaces names by those that the documents have.
    fn resolve(&self, expression: &mut Expression, source: Source) -> Result<()> {
        expression.try_visit_mut(&mut |part| {
            if let Expression::Path(path) = part {
                let at = path.at;
                source
                    .resolve(path)
                    .map_err(|message| self.error_at(at, message))?;
            }
            source.translate(part);
            Ok(())
        })
    }

    /// Of a group there are only the values that it is grouped by, and its aggregates.
    fn check_groups(&self, query: &Query) -> Result<()> {
        if !query.has_groups {
            return Ok(());
        }
        let mut stray = None;
        for expression in query.results() {
            expression.visit_paths(&mut |path| {
                if !query.group_by.contains(path) {
                    stray.get_or_insert(path);
                }
            });
        }
        stray.map_or(Ok(()), |path| {
            let name = path.names.join(".");
            Err(self.error_at(path.at, format!("`{name}` is not in GROUP BY")))
        })
    }

    // Tokens.

    fn peek(&self) -> &Token {
        // The last token is the end, behind which nothing is read.
        self.tokens
            .get(self.position)
            .map_or(&Token::End, |spanned| &spanned.token)
    }

    fn peek_second(&self) -> &Token {
        self.tokens
            .get(self.position + 1)
            .map_or(&Token::End, |spanned| &spanned.token)
    }

    fn at(&self) -> usize {
        self.tokens
            .get(self.position)
            .map_or(self.text.len(), |spanned| spanned.at)
    }

    fn next(&mut self) -> Token {
        let token = self.peek().clone();
        self.position += 1;
        token
    }

    fn accept_word(&mut self, word: &str) -> bool {
        let is_it = matches!(self.peek(), Token::Word(name) if name.eq_ignore_ascii_case(word));
        self.position += usize::from(is_it);
        is_it
    }

    fn accept_symbol(&mut self, symbol: &str) -> bool {
        let is_it = matches!(self.peek(), Token::Symbol(found) if *found == symbol);
        self.position += usize::from(is_it);
        is_it
    }

    fn expect_word(&mut self, word: &str) -> Result<()> {
        if self.accept_word(word) {
            return Ok(());
        }
        Err(self.unexpected(word))
    }

    fn expect_symbol(&mut self, symbol: &str) -> Result<()> {
        if self.accept_symbol(symbol) {
            return Ok(());
        }
        Err(self.unexpected(&format!("`{symbol}`")))
    }

    fn end(&mut self) -> Result<()> {
        match self.peek() {
            Token::End => Ok(()),
            _ => Err(self.unexpected("an operator or the end of the query")),
        }
    }

    /// At least one, with commas between them.
    fn separated<T>(&mut self, mut one: impl FnMut(&mut Self) -> Result<T>) -> Result<Vec<T>> {
        let mut all = vec![one(self)?];
        while self.accept_symbol(",") {
            all.push(one(self)?);
        }
        Ok(all)
    }

    fn unexpected(&self, expected: &str) -> QueryError {
        let message = format!("expected {expected}, found {}", self.peek());
        self.error_at(self.at(), message)
    }

    fn error_at(&self, at: usize, message: impl Into<String>) -> QueryError {
        QueryError::at(self.text, at, message)
    }
}

/// A column whose name is not known yet.
struct Draft {
    value: Expression,
    name: Option<String>,
    at: usize,
}
