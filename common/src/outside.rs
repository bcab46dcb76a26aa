//! External text for a terminal or a log: it must not change how a line reads, and secrets in it
//! must not be repeated.

use std::borrow::Cow;

pub use device_stream_websocket::text::{is_unprintable, printable};

/// The same for text of several lines: line ends stay.
pub fn printable_lines(text: &str) -> Cow<'_, str> {
    let is_bad = |c: char| c != '\n' && is_unprintable(c);
    if text.chars().any(is_bad) {
        Cow::Owned(text.chars().filter(|c| !is_bad(*c)).collect())
    } else {
        Cow::Borrowed(text)
    }
}

/// Equivalent JSON without [unprintable](is_unprintable) characters; line ends between its parts
/// stay.
pub fn printable_json(json: &str) -> String {
    use std::fmt::Write as _;
    let mut text = String::with_capacity(json.len());
    for c in json.chars() {
        if c != '\n' && is_unprintable(c) {
            // They can only occur in strings.
            for unit in c.encode_utf16(&mut [0; 2]) {
                let _ = write!(text, "\\u{unit:04x}");
            }
        } else {
            text.push(c);
        }
    }
    text
}

/// Replaces a secret.
const MASK: &str = "***";
/// Names whose values are secrets, in connection strings and SAS tokens.
const SECRET_NAMES: [&str; 4] = ["sharedaccesskey=", "sharedaccesssignature=", "sig=", "key="];
/// Shortest text that may be a key: 16 bytes, IoT Hub's shortest, in base64.
const KEY_LENGTH: usize = 24;

/// The text with everything masked that looks like a key, a token or the secret part of a
/// connection string: users sometimes give them in the wrong place.
pub fn masked(text: &str) -> Cow<'_, str> {
    let mut masked = String::with_capacity(text.len());
    let mut is_changed = false;
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let is_begin = masked
            .chars()
            .next_back()
            .is_none_or(|before| !before.is_ascii_alphanumeric());
        if is_begin && let Some((name, value)) = secret_at(rest) {
            masked.push_str(rest.get(..name).unwrap_or_default());
            masked.push_str(MASK);
            rest = rest.get(name + value..).unwrap_or_default();
            is_changed = true;
            continue;
        }
        masked.push(c);
        rest = rest.get(c.len_utf8()..).unwrap_or_default();
    }
    if is_changed {
        Cow::Owned(masked)
    } else {
        Cow::Borrowed(text)
    }
}

/// A secret at the beginning of the text: the lengths of its name and of its value.
fn secret_at(text: &str) -> Option<(usize, usize)> {
    for name in SECRET_NAMES {
        let is_named = text
            .get(..name.len())
            .is_some_and(|start| start.eq_ignore_ascii_case(name));
        if !is_named {
            continue;
        }
        let value = text.get(name.len()..)?;
        // A token as a value contains blanks and `&`.
        let is_token = value
            .get(..TOKEN.len())
            .is_some_and(|start| start.eq_ignore_ascii_case(TOKEN));
        let ends: &[char] = if is_token {
            &[';', '\'', '"', '`', '\n']
        } else {
            &[';', '\'', '"', '`', '&', ' ', '\n', '\t', '\r']
        };
        let length = value.find(ends).unwrap_or(value.len());
        return (length > 0).then_some((name.len(), length));
    }
    let length = text
        .find(|c: char| !(c.is_ascii_alphanumeric() || "+/=%_-".contains(c)))
        .unwrap_or(text.len());
    let word = text.get(..length)?;
    looks_like_key(word).then_some((0, length))
}

const TOKEN: &str = "SharedAccessSignature ";

/// Whether a word could be a key in base64: long, and with the characters of random base64.
fn looks_like_key(word: &str) -> bool {
    let body = word.trim_end_matches('=');
    let has = |test: fn(&char) -> bool| body.chars().any(|c| test(&c));
    let is_padded = body.len() < word.len();
    body.len() >= KEY_LENGTH - 2
        && !body.contains('=')
        && has(char::is_ascii_uppercase)
        && has(char::is_ascii_lowercase)
        && (is_padded || (has(char::is_ascii_digit) && body.len() >= 40))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "ICEiIyQlJicoKSorLC0uLzAxMjM0NTY3ODk6Ozw9Pj8=";

    #[test]
    fn lines_and_json_keep_their_meaning() {
        assert_eq!(printable_lines("a\u{1b}b\r\nc\u{202e}\n"), "ab\nc\n");
        assert!(matches!(printable_lines("a\nb"), Cow::Borrowed(_)));
        let value =
            serde_json::json!({ "a": "\u{202e}\u{9b}\n\u{e0041}x\u{1b}", "b": ["\u{feff}"] });
        let text = printable_json(&format!("{value:#}"));
        assert!(
            !text.chars().any(|c| c != '\n' && is_unprintable(c)),
            "{text}"
        );
        let back: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(back, value);
    }

    #[test]
    fn secrets_are_masked_anywhere_in_a_text() {
        let token = "SharedAccessSignature sr=h&sig=abc%3D&se=1&skn=p";
        for text in [
            format!("HostName=h;DeviceId=d;SharedAccessKey={KEY}"),
            format!("error: invalid value 'HostName=h;sharedaccesskey={KEY}' for DEVICE"),
            format!("SharedAccessKey={KEY}"),
            format!("unexpected argument '{KEY}' found"),
            format!("no device {}", KEY.trim_end_matches('=')),
            format!("--primary-key={KEY}"),
            format!("x;SharedAccessSignature={token}"),
            token.to_owned(),
            "sr=h&sig=abc%3D&se=1".to_owned(),
        ] {
            let masked = masked(&text);
            assert!(masked.contains(MASK), "{masked}");
            for secret in [KEY.trim_end_matches('='), "abc%3D"] {
                assert!(!masked.contains(secret), "{masked}");
            }
        }
        assert_eq!(
            masked(&format!("HostName=h;SharedAccessKey={KEY};x=y")),
            "HostName=h;SharedAccessKey=***;x=y"
        );
    }

    #[test]
    fn plain_words_stay() {
        for text in [
            "no such device MyDeviceWithQuiteALongNameOfItsOwn",
            "/home/ada/Projects/some-long-folder-name/with-More/hub-data/tls/ca.pem",
            "0123456789abcdef0123456789abcdef01234567",
            "AB:CD:EF:01:23:45:67:89:AB:CD:EF:01:23:45:67:89:AB:CD:EF:01",
            "the connection string has no `SharedAccessKey`",
        ] {
            assert_eq!(masked(text), text);
        }
    }
}
