//! Text of a peer or of the system, for one line of a log.

use std::borrow::Cow;
use std::io;

/// Whether a character is not allowed in a displayed line: control characters, line and paragraph
/// separators, characters that change the direction of text (they could make a line read
/// differently), and invisible characters.
pub fn is_unprintable(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}'
            | '\u{e0000}'..='\u{e007f}')
}

/// The text without [unprintable](is_unprintable) characters.
pub fn printable(text: &str) -> Cow<'_, str> {
    if text.chars().any(is_unprintable) {
        Cow::Owned(text.chars().filter(|c| !is_unprintable(*c)).collect())
    } else {
        Cow::Borrowed(text)
    }
}

/// An I/O error with a short text: rustls has a very long one for a peer that is just gone.
pub fn plain(error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => io::Error::new(error.kind(), "it ended without a Close"),
        _ => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unprintable_characters_are_removed() {
        let mut all: Vec<char> = (0..0x20)
            .chain(0x7f..0xa0)
            .filter_map(char::from_u32)
            .collect();
        all.extend('\u{202a}'..='\u{202e}');
        all.extend('\u{2066}'..='\u{2069}');
        all.extend(['\u{2028}', '\u{2029}', '\u{200f}', '\u{feff}']);
        for c in all {
            assert_eq!(printable(&format!("a{c}b")), "ab", "{c:?}");
        }
        let plain = "gr\u{fc}\u{df}e, \u{4f60}\u{597d} \u{5e9}";
        assert!(matches!(printable(plain), Cow::Borrowed(_)));
    }
}
