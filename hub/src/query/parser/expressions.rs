//! Expressions, by precedence: OR, AND, NOT, comparisons, sums, products, signs.

use super::{Parser, Result};
use crate::limits;
use crate::query::aggregate::{Aggregate, Kind};
use crate::query::datum::Datum;
use crate::query::expression::{Comparison, Expression, List, Operator, Path};
use crate::query::functions::Function;
use crate::query::lexer::Token;

/// Words that are no properties, unless in `[[` and `]]`.
const KEYWORDS: &[&str] = &[
    "AND",
    "AS",
    "ASC",
    "BY",
    "DESC",
    "FALSE",
    "FROM",
    "GROUP",
    "IN",
    "NIN",
    "NOT",
    "NULL",
    "OR",
    "ORDER",
    "SELECT",
    "TOP",
    "TRUE",
    "UNDEFINED",
    "WHERE",
];

pub(super) fn is_keyword(name: &str) -> bool {
    KEYWORDS
        .iter()
        .any(|keyword| keyword.eq_ignore_ascii_case(name))
}

impl Parser<'_> {
    /// Any expression.
    pub(super) fn expression(&mut self) -> Result<Expression> {
        self.chain("OR", Self::conjunction, Expression::Any)
    }

    fn conjunction(&mut self) -> Result<Expression> {
        self.chain("AND", Self::negation, Expression::All)
    }

    /// Operands with the word between them, as one flat part.
    fn chain(
        &mut self,
        word: &str,
        operand: fn(&mut Self) -> Result<Expression>,
        part: fn(Vec<Expression>) -> Expression,
    ) -> Result<Expression> {
        let first = operand(self)?;
        if !self.accept_word(word) {
            return Ok(first);
        }
        let mut operands = vec![first, operand(self)?];
        while self.accept_word(word) {
            operands.push(operand(self)?);
        }
        Ok(part(operands))
    }

    fn negation(&mut self) -> Result<Expression> {
        if !self.accept_word("NOT") {
            return self.comparison();
        }
        let part = self.deeper(Self::negation)?;
        Ok(Expression::Not(Box::new(part)))
    }

    fn comparison(&mut self) -> Result<Expression> {
        let left = self.sum()?;
        let is_negated = match self.peek() {
            Token::Word(word) if word.eq_ignore_ascii_case("IN") => false,
            Token::Word(word) if word.eq_ignore_ascii_case("NIN") => true,
            Token::Word(word)
                if word.eq_ignore_ascii_case("NOT")
                    && matches!(self.peek_second(), Token::Word(next) if next.eq_ignore_ascii_case("IN")) =>
            {
                self.position += 1;
                true
            }
            Token::Symbol(symbol) => {
                let Some(comparison) = comparison(symbol) else {
                    return Ok(left);
                };
                self.position += 1;
                let right = self.sum()?;
                return Ok(Expression::Compare(comparison, Box::new([left, right])));
            }
            _ => return Ok(left),
        };
        self.position += 1;
        self.expect_symbol("[")?;
        let mut list = List::default();
        for constant in self.constants()? {
            list.add(constant);
        }
        Ok(Expression::In {
            value: Box::new(left),
            list,
            is_negated,
        })
    }

    fn sum(&mut self) -> Result<Expression> {
        self.arithmetic(Self::product, |symbol| match symbol {
            "+" => Some(Operator::Add),
            "-" => Some(Operator::Subtract),
            _ => None,
        })
    }

    fn product(&mut self) -> Result<Expression> {
        self.arithmetic(Self::signed, |symbol| match symbol {
            "*" => Some(Operator::Multiply),
            "/" => Some(Operator::Divide),
            "%" => Some(Operator::Remainder),
            _ => None,
        })
    }

    fn arithmetic(
        &mut self,
        operand: fn(&mut Self) -> Result<Expression>,
        operator: fn(&str) -> Option<Operator>,
    ) -> Result<Expression> {
        let first = operand(self)?;
        let mut rest = Vec::new();
        while let Token::Symbol(symbol) = self.peek()
            && let Some(operator) = operator(symbol)
        {
            self.position += 1;
            rest.push((operator, operand(self)?));
        }
        if rest.is_empty() {
            return Ok(first);
        }
        Ok(Expression::Arithmetic(Box::new(first), rest))
    }

    fn signed(&mut self) -> Result<Expression> {
        if !self.accept_symbol("-") {
            return self.primary();
        }
        Ok(match self.deeper(Self::signed)? {
            Expression::Constant(Datum::Number(number)) => {
                Expression::Constant(Datum::Number(-number))
            }
            part => Expression::Negate(Box::new(part)),
        })
    }

    fn primary(&mut self) -> Result<Expression> {
        let at = self.at();
        if self.accept_symbol("(") {
            let inner = self.deeper(Self::expression)?;
            self.expect_symbol(")")?;
            return Ok(inner);
        }
        if let Some(constant) = self.constant()? {
            return Ok(Expression::Constant(constant));
        }
        match (self.peek(), self.peek_second()) {
            (Token::Word(_), Token::Symbol("(")) => self.call(at),
            (Token::Word(name), _) if is_keyword(name) => Err(self.unexpected("a value")),
            (Token::Word(_) | Token::Path(_), _) => {
                let names = match self.next() {
                    Token::Path(names) => names,
                    Token::Word(name) => vec![name],
                    _ => Vec::new(),
                };
                Ok(Expression::Path(Path { names, at }))
            }
            _ => Err(self.unexpected("a value")),
        }
    }

    fn call(&mut self, at: usize) -> Result<Expression> {
        let Token::Word(name) = self.next() else {
            return Err(self.error_at(at, "expected a function"));
        };
        if let Some(kind) = Kind::find(&name) {
            return self.aggregate(kind, at);
        }
        let Some(function) = Function::find(&name) else {
            return Err(self.error_at(at, format!("there is no function `{name}`")));
        };
        let arguments = self.arguments()?;
        if !function.arguments.contains(&arguments.len()) {
            let message = match (*function.arguments.start(), *function.arguments.end()) {
                (1, 1) => format!("{name} has one argument"),
                (least, most) if least == most => format!("{name} has {least} arguments"),
                (least, usize::MAX) => format!("{name} has at least {least} arguments"),
                (least, most) => format!("{name} has {least} to {most} arguments"),
            };
            return Err(self.error_at(at, message));
        }
        Ok(Expression::Call(function, arguments))
    }

    fn aggregate(&mut self, kind: Kind, at: usize) -> Result<Expression> {
        // Not within each other: there are none while the argument is read.
        let Some(mut aggregates) = self.aggregates.take() else {
            let message = "aggregates stand behind SELECT, or behind ORDER BY with GROUP BY";
            return Err(self.error_at(at, message));
        };
        let mut arguments = match (kind, self.peek_second()) {
            (Kind::Count, Token::Symbol("*")) => {
                self.expect_symbol("(")?;
                self.expect_symbol("*")?;
                self.expect_symbol(")")?;
                Vec::new()
            }
            _ => self.arguments()?,
        };
        let argument = arguments.pop();
        if !arguments.is_empty() || (argument.is_none() && kind != Kind::Count) {
            return Err(self.error_at(at, "an aggregate has one argument, and COUNT may have none"));
        }
        aggregates.push(Aggregate { kind, argument });
        let index = aggregates.len() - 1;
        self.aggregates = Some(aggregates);
        Ok(Expression::Aggregate(index))
    }

    fn arguments(&mut self) -> Result<Vec<Expression>> {
        self.expect_symbol("(")?;
        if self.accept_symbol(")") {
            return Ok(Vec::new());
        }
        let arguments = self.deeper(|parser| parser.separated(Self::expression))?;
        self.expect_symbol(")")?;
        Ok(arguments)
    }

    /// A constant, if there is one here.
    fn constant(&mut self) -> Result<Option<Datum<'static>>> {
        let constant = match self.peek() {
            Token::Number(number) => Datum::Number(*number),
            Token::Text(text) => text.as_str().into(),
            Token::Word(word) => match word.to_ascii_lowercase().as_str() {
                "true" => Datum::Bool(true),
                "false" => Datum::Bool(false),
                "null" => Datum::Null,
                "undefined" => Datum::Undefined,
                _ => return Ok(None),
            },
            Token::Symbol("[") => {
                self.position += 1;
                let constants = self.deeper(Self::constants)?;
                let values = constants.into_iter().filter_map(Datum::into_value);
                return Ok(Some(Datum::Json(std::borrow::Cow::Owned(values.collect()))));
            }
            _ => return Ok(None),
        };
        self.position += 1;
        Ok(Some(constant))
    }

    /// Constants up to the `]`; there may be none.
    fn constants(&mut self) -> Result<Vec<Datum<'static>>> {
        if self.accept_symbol("]") {
            return Ok(Vec::new());
        }
        let constants = self.separated(|parser| {
            if parser.accept_symbol("-") {
                let Token::Number(number) = *parser.peek() else {
                    return Err(parser.unexpected("a number"));
                };
                parser.position += 1;
                return Ok(Datum::Number(-number));
            }
            let constant = parser.constant()?;
            constant.ok_or_else(|| parser.unexpected("a constant"))
        })?;
        self.expect_symbol("]")?;
        Ok(constants)
    }

    /// One level deeper: recursion here, and later over the result, is bounded.
    fn deeper<T>(&mut self, part: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        if self.depth >= limits::QUERY_DEPTH {
            let message = format!("more than {} levels within each other", limits::QUERY_DEPTH);
            return Err(self.error_at(self.at(), message));
        }
        self.depth += 1;
        let result = part(self);
        self.depth -= 1;
        result
    }
}

fn comparison(symbol: &str) -> Option<Comparison> {
    Some(match symbol {
        "=" => Comparison::Equal,
        "!=" => Comparison::NotEqual,
        "<" => Comparison::Less,
        "<=" => Comparison::LessOrEqual,
        ">" => Comparison::Greater,
        ">=" => Comparison::GreaterOrEqual,
        _ => return None,
    })
}
