//! IoT Hub's query language: from the text of a query to the rows of its result. Without I/O: who
//! has documents feeds them in.
//!
//! ```text
//! text ─► lexer ─► parser ─► Query ─┬─► narrowing, fields   which documents, and what of each
//!         (QueryError: the column)  └─► selection, groups   the rows of one page
//!                                        └─► expression, functions, aggregate, on datums
//! ```
//!
//! Every value has a type, and what does not fit is undefined: a missing property, a comparison
//! between two types, arithmetic on text. AND, OR and NOT have three values, and a condition
//! selects only where it is true.

mod aggregate;
mod condition;
mod continuation;
mod datum;
mod error;
mod expression;
mod fields;
mod functions;
mod groups;
mod lexer;
mod narrowing;
mod parser;
mod position;
mod selection;
mod source;
mod statement;

pub use condition::Condition;
pub use continuation::Continuation;
pub use error::QueryError;
pub use fields::Fields;
pub use groups::{Groups, TooManyGroups};
pub use narrowing::{Narrowing, TagValue, tag_values};
pub use position::Position;
pub use selection::{Page, Selection};
pub use source::Source;
pub use statement::Query;

#[cfg(test)]
mod tests;
