//! Pages of lists, as IoT Hub's REST API has them, and what stands behind a path's `?`.

use http::HeaderName;
use percent_encoding::percent_decode_str;

/// How many rows a page has at most.
pub(super) const PAGE_SIZE: HeaderName = HeaderName::from_static("x-ms-max-item-count");
/// Where the list goes on. Absent on the last page: clients look whether it is there.
pub(super) const CONTINUATION: HeaderName = HeaderName::from_static("x-ms-continuation");
/// What the rows are. One SDK compares it, with case, with what was asked for.
pub(super) const ITEM_TYPE: HeaderName = HeaderName::from_static("x-ms-item-type");

/// A decoded parameter of what stands behind the path's `?`; what is not UTF-8 has replacements,
/// which no value has.
pub(super) fn parameter(query: &str, name: &str) -> Option<String> {
    let (_, value) = common::percent::pairs(query).find(|(key, _)| *key == name)?;
    let decoded = percent_decode_str(value).decode_utf8_lossy();
    Some(decoded.into_owned())
}

/// The same where an empty parameter means that there is none: some SDKs write all that they know.
pub(super) fn given(query: &str, name: &str) -> Option<String> {
    parameter(query, name).filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_decoded() {
        let query = "api-version=1&a=b%20c&a=d&empty=&bad=%ff&none";
        assert_eq!(parameter(query, "a").as_deref(), Some("b c"));
        assert_eq!(parameter(query, "empty").as_deref(), Some(""));
        assert_eq!(parameter(query, "bad").as_deref(), Some("\u{fffd}"));
        assert_eq!(given(query, "a").as_deref(), Some("b c"));
        assert_eq!(given(query, "empty"), None);
        for missing in ["b", "none", ""] {
            assert_eq!(parameter(query, missing), None, "{missing}");
        }
    }
}
