//! A condition by itself, as jobs have it.

use serde_json::Value;

use super::expression::Expression;
use super::fields::Fields;
use super::narrowing::Narrowing;
use super::{QueryError, parser};

/// The part of a query behind WHERE, on the twins of devices.
#[derive(Debug, Clone)]
pub struct Condition(Option<Expression>);

impl Condition {
    /// Reads a condition. `*` and nothing at all select every device.
    ///
    /// # Errors
    /// [`QueryError`] says where it is wrong.
    pub fn parse(text: &str) -> Result<Self, QueryError> {
        parser::condition(text).map(Self)
    }

    /// Whether a twin's document, as the REST API shows it, is selected: the condition is true,
    /// and neither undefined nor of another type.
    pub fn matches(&self, document: &Value) -> bool {
        self.0
            .as_ref()
            .is_none_or(|condition| condition.selects(document))
    }

    /// The properties that it reads: the rest of a document does not matter.
    pub fn fields(&self) -> Fields {
        let mut fields = Fields::default();
        if let Some(condition) = &self.0 {
            condition.visit_paths(&mut |path| fields.add(&path.names));
        }
        fields
    }

    /// Which devices can match at all.
    pub fn narrowing(&self) -> Narrowing {
        Narrowing::of(self.0.as_ref())
    }
}
