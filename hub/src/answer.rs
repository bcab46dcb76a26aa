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
    let mut answer = Response::new(Full::from(body.to_string()));
    answer.headers_mut().insert(CONTENT_TYPE, JSON);
    answer
}

/// An answer without a body.
pub fn empty(status: StatusCode) -> Answer {
    let mut answer = Response::new(Full::default());
    *answer.status_mut() = status;
    answer
}
