//! A condition by itself, as jobs have it.

use serde_json::Value;

use super::expression::Expression;
use super::fields::Fields;
use super::narrowing::Narrowing;
use super::source::Source;
use super::{QueryError, parser};

/// The part of a query behind WHERE, on the twins of devices; or the part from FROM on, on those of
/// devices or modules: IoT Hub takes `FROM devices.modules WHERE …` for jobs on modules.
#[derive(Debug, Clone)]
pub struct Condition {
    source: Source,
    expression: Option<Expression>,
}

impl Condition {
    /// Reads a condition. `*` and nothing at all select every device.
    ///
    /// # Errors
    /// [`QueryError`] says where it is wrong.
    pub fn parse(text: &str) -> Result<Self, QueryError> {
        let (source, expression) = parser::condition(text)?;
        Ok(Self { source, expression })
    }

    /// On what it is: devices or modules.
    pub fn source(&self) -> Source {
        self.source
    }

    /// Whether a twin's document, as the REST API shows it, is selected: the condition is true,
    /// and neither undefined nor of another type.
    pub fn matches(&self, document: &Value) -> bool {
        self.expression
            .as_ref()
            .is_none_or(|condition| condition.selects(document))
    }

    /// The properties that it reads: the rest of a document does not matter.
    pub fn fields(&self) -> Fields {
        let mut fields = Fields::default();
        if let Some(condition) = &self.expression {
            condition.visit_paths(&mut |path| fields.add(&path.names));
        }
        fields
    }

    /// Which twins can match at all.
    pub fn narrowing(&self) -> Narrowing {
        Narrowing::of(self.expression.as_ref())
    }
}
