//! Percent-encoding, and lists of `name=value` separated by `&`, as in URLs, SAS tokens and MQTT
//! topics.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC};

/// Everything but letters, digits and `- . _ ~`, which RFC 3986 calls unreserved.
pub const COMPONENT: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');
/// Everything that is encoded in a value of an MQTT topic: the C parser accepts only the rest
/// literally, and no parser misreads it.
pub const TOPIC_VALUE: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_');

/// Names and values of `name=value&name=value`, not decoded; items without `=` are skipped.
pub fn pairs(text: &str) -> impl Iterator<Item = (&str, &str)> {
    text.split('&').filter_map(|pair| pair.split_once('='))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_without_a_name_or_a_value_are_pairs() {
        let all: Vec<_> = pairs("a=b&=c&d=&e&f=g=h&").collect();
        assert_eq!(all, [("a", "b"), ("", "c"), ("d", ""), ("f", "g=h")]);
    }
}
