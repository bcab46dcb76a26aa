//! One record of the audit log before it has its place in the chain: fields in their order, as JSON.

use std::fmt::Write as _;

use common::identity::DeviceIdentity;
use serde::Serialize;

/// The fields of a record, in the order in which they were added. All texts are escaped, so that
/// no name can end a line or a field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record(String);

impl Record {
    /// A record of this category and operation, as IoT Hub's diagnostics name them.
    pub fn new(category: &str, operation: &str) -> Self {
        Self(String::with_capacity(256))
            .with("category", category)
            .with("operationName", operation)
    }

    /// Adds a field. The name is one of ours, and needs no escapes.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Serialize) -> Self {
        // Of what is passed here nothing fails to be JSON.
        let value = serde_json::to_string(&value).unwrap_or_else(|_| "null".to_owned());
        let _ = write!(self.0, r#","{name}":{value}"#);
        self
    }

    /// The same with a field that may have no value.
    #[must_use]
    pub fn maybe(self, name: &str, value: Option<impl Serialize>) -> Self {
        match value {
            Some(value) => self.with(name, value),
            None => self,
        }
    }

    /// Names the device or module that the record is about.
    #[must_use]
    pub fn about(self, id: &DeviceIdentity) -> Self {
        let module = id.module.as_ref();
        self.with("deviceId", id.device.as_str())
            .maybe("moduleId", module.map(|module| module.as_str()))
    }

    /// Says that it worked.
    #[must_use]
    pub fn success(self) -> Self {
        self.with("resultType", "success")
    }

    /// Says that it did not, and why.
    #[must_use]
    pub fn failure(self, why: &str) -> Self {
        self.with("resultType", "failure")
            .with("resultDescription", why)
    }

    /// The fields, each behind a comma.
    pub(super) fn fields(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_text_ends_a_line_or_a_field() {
        let record = Record::new("A", "B").with("name", "x\",\"hash\":\"0\"}\n{\u{2028}");
        assert!(!record.fields().contains('\n'));
        let json: serde_json::Value =
            serde_json::from_str(&format!("{{\"seq\":1{}}}", record.fields())).unwrap();
        assert_eq!(json["name"], "x\",\"hash\":\"0\"}\n{\u{2028}");
        assert_eq!(json.get("hash"), None);
    }
}
