//! Conditions on a change: the etag that the caller has seen.

use http::HeaderMap;
use http::header::IF_MATCH;

use crate::documents::invalid;
use crate::refusal::Refusal;
use crate::registry::IfMatch;

/// The condition of the header `If-Match`, if there is one.
pub fn if_match(headers: &HeaderMap) -> Result<Option<IfMatch>, Refusal> {
    let Some(value) = headers.get(IF_MATCH) else {
        return Ok(None);
    };
    let text = value
        .to_str()
        .map_err(|_| invalid("If-Match is not an etag.".to_owned()))?;
    Ok(IfMatch::parse(text))
}
