//! What the REST API answers with.

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Response, StatusCode};
use http_body_util::Full;
use serde_json::Value;

/// A whole answer.
pub type Answer = Response<Full<Bytes>>;

/// The Node SDK parses a body only under this very content type.
const JSON: HeaderValue = HeaderValue::from_static("application/json; charset=utf-8");

/// A success with a JSON body.
pub fn json(body: &Value) -> Answer {
    json_text(body.to_string())
}

/// A JSON array that is written as it grows: of a long list only the text is in memory.
#[derive(Debug, Default)]
pub struct List(String);

impl List {
    /// Adds an element.
    pub fn push(&mut self, value: &Value) {
        self.0.push(if self.0.is_empty() { '[' } else { ',' });
        self.0.push_str(&value.to_string());
    }

    /// Bytes so far.
    pub fn size(&self) -> usize {
        self.0.len()
    }

    /// Whether there is no element.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// A success with the array as its body.
    pub fn into_answer(mut self) -> Answer {
        if self.is_empty() {
            self.0.push('[');
        }
        self.0.push(']');
        json_text(self.0)
    }
}

/// A success with a body that is JSON already.
pub fn json_text(body: String) -> Answer {
    let mut answer = Response::new(Full::from(body));
    answer.headers_mut().insert(CONTENT_TYPE, JSON);
    answer
}

/// An answer without a body.
pub fn empty(status: StatusCode) -> Answer {
    let mut answer = Response::new(Full::default());
    *answer.status_mut() = status;
    answer
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;
    use serde_json::json;

    use super::*;

    #[tokio::test]
    async fn a_list_reads_as_one_value() {
        let values = [json!({ "a": 1 }), json!("b"), json!([])];
        for count in 0..=values.len() {
            let mut list = List::default();
            values[..count].iter().for_each(|value| list.push(value));
            let body = list.into_answer().into_body().collect().await.unwrap();
            let whole = Value::from(values[..count].to_vec()).to_string();
            assert_eq!(body.to_bytes(), whole.as_bytes());
        }
    }
}
