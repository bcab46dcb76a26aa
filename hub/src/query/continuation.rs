//! Where a result goes on, as the text that travels with a page.

use aws_lc_rs::digest::{SHA256, digest};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use super::position::Position;
use super::statement::Query;

/// Where a result goes on.
///
/// As text it is bound to its query by a digest, and any change of it is noticed. The digest has
/// no key: a continuation only names a place in a result that its holder may read as a whole. So
/// one is good for as long as anybody likes, at any hub with these devices.
#[derive(Debug, Clone, PartialEq)]
pub struct Continuation {
    /// Behind this row.
    pub after: Position,
    /// How many rows are left of TOP, if the query has it.
    pub left: Option<u64>,
}

const DIGEST: usize = 16;

impl Continuation {
    /// The text, for the query of this text: letters, digits, `-` and `_`.
    pub fn to_token(&self, text: &str) -> String {
        let content = json!([self.after.to_json(), self.left]).to_string();
        let mut bytes = check(text, content.as_bytes()).to_vec();
        bytes.extend(content.into_bytes());
        URL_SAFE_NO_PAD.encode(bytes)
    }

    /// Reads the text; `None`: it is none of ours, or that of another query.
    pub fn from_token(token: &str, text: &str, query: &Query) -> Option<Self> {
        let bytes = URL_SAFE_NO_PAD.decode(token).ok()?;
        let (digest, content) = bytes.split_at_checked(DIGEST)?;
        if digest != check(text, content) {
            return None;
        }
        let content: Value = serde_json::from_slice(content).ok()?;
        let [after, left] = content.as_array()?.as_slice() else {
            return None;
        };
        Some(Self {
            after: Position::from_json(after, query)?,
            left: left.as_u64(),
        })
        .filter(|continuation| continuation.left.is_some() == query.top.is_some())
    }
}

fn check(text: &str, content: &[u8]) -> [u8; DIGEST] {
    let text = digest(&SHA256, text.as_bytes());
    let both = [text.as_ref(), content].concat();
    let mut check = [0; DIGEST];
    for (byte, digested) in check.iter_mut().zip(digest(&SHA256, &both).as_ref()) {
        *byte = *digested;
    }
    check
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_continuation_belongs_to_its_query() {
        let text = "SELECT TOP 7 * FROM devices ORDER BY tags.a DESC, tags.b";
        let query = Query::parse(text).unwrap();
        let long = "é".repeat(9_999);
        let document = json!({ "tags": { "a": long, "b": 0.5 } });
        let continuation = Continuation {
            after: Position::of(&query, &document, &"d".repeat(128)),
            left: Some(3),
        };
        let token = continuation.to_token(text);
        // Fits into a header.
        assert!(token.len() < 1_000, "{}", token.len());
        let read = |token: &str, text| Continuation::from_token(token, text, &query);
        assert_eq!(read(&token, text), Some(continuation));
        assert_eq!(
            read(
                &token,
                "SELECT TOP 7 * FROM devices ORDER BY tags.a, tags.b"
            ),
            None
        );
        for index in 0..token.len() {
            let mut changed = token.clone().into_bytes();
            changed[index] = if changed[index] == b'A' { b'B' } else { b'A' };
            assert_eq!(
                read(std::str::from_utf8(&changed).unwrap(), text),
                None,
                "{index}"
            );
            assert_eq!(read(&token[..index], text), None, "{index}");
        }
        assert_eq!(read(&format!("{token}AA"), text), None);
    }
}
