//! Text as common tools write it: with a byte order mark, in UTF-16, with CRLF, in quotes. All
//! programs read their files and variables with this code.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use serde_json::Value;
use zeroize::Zeroizing;

/// Largest file that is read: several times the size of a complete CA bundle.
const FILE: u64 = 4 << 20;

/// Why a file cannot be read as text. No variant repeats any of it.
#[derive(Debug, thiserror::Error)]
pub enum TextError {
    /// It cannot be read.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// It is too large.
    #[error("it is larger than {} MiB", FILE >> 20)]
    TooLarge,
    /// It is neither UTF-8 nor UTF-16.
    #[error("it is not text (neither UTF-8 nor UTF-16)")]
    NotText,
}

/// Reads a text file of at most 4 MiB. Blocks.
///
/// # Errors
/// [`TextError`], which does not name the file.
pub fn read(path: &Path) -> Result<Zeroizing<String>, TextError> {
    let mut bytes = Zeroizing::new(Vec::new());
    File::open(path)?.take(FILE + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > FILE {
        return Err(TextError::TooLarge);
    }
    decode(&bytes).map(Zeroizing::new).ok_or(TextError::NotText)
}

/// Text from bytes: UTF-8, or UTF-16 as Windows PowerShell's `>` writes it, without the byte order
/// mark. `None` when it is neither.
pub fn decode(bytes: &[u8]) -> Option<String> {
    let utf16 = |bytes: &[u8], number: fn([u8; 2]) -> u16| {
        let (pairs, rest) = bytes.as_chunks::<2>();
        let units: Vec<u16> = pairs.iter().map(|pair| number(*pair)).collect();
        rest.is_empty().then(|| String::from_utf16(&units).ok())?
    };
    match bytes {
        [0xEF, 0xBB, 0xBF, rest @ ..] => std::str::from_utf8(rest).ok().map(str::to_owned),
        [0xFF, 0xFE, rest @ ..] => utf16(rest, u16::from_le_bytes),
        [0xFE, 0xFF, rest @ ..] => utf16(rest, u16::from_be_bytes),
        // UTF-16 without a mark: our texts begin with ASCII and contain no NUL.
        [first, 0, ..] if *first != 0 => utf16(bytes, u16::from_le_bytes),
        [0, second, ..] if *second != 0 => utf16(bytes, u16::from_be_bytes),
        _ => std::str::from_utf8(bytes).ok().map(str::to_owned),
    }
}

/// The value in a file or variable, without what tools add around it: blanks and line ends, quotes
/// (docker's `--env-file` keeps them), and az's JSON, a text or an object with `connectionString`.
pub fn value(text: &str) -> Zeroizing<String> {
    let mut text = trimmed(text);
    if let Some(inner) = from_json(text) {
        return inner;
    }
    for quote in ['"', '\'', '`'] {
        let inner = text
            .strip_prefix(quote)
            .and_then(|text| text.strip_suffix(quote));
        if let Some(inner) = inner {
            text = trimmed(inner);
        }
    }
    Zeroizing::new(text.to_owned())
}

/// The value of an environment variable; `None` if it is empty or blank.
pub fn variable(text: &str) -> Option<Zeroizing<String>> {
    Some(value(text)).filter(|value| !value.is_empty())
}

fn trimmed(text: &str) -> &str {
    text.trim_matches(|c: char| c.is_whitespace() || c == '\u{feff}' || c == '\0')
}

fn from_json(text: &str) -> Option<Zeroizing<String>> {
    if !text.starts_with(['"', '{']) {
        return None;
    }
    let inner = match serde_json::from_str(text).ok()? {
        Value::String(inner) => inner,
        Value::Object(mut object) => match object.remove("connectionString")? {
            Value::String(inner) => inner,
            _ => return None,
        },
        _ => return None,
    };
    Some(Zeroizing::new(trimmed(&inner).to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "HostName=h;DeviceId=gr\u{fc}n;SharedAccessKey=AAEC";

    fn utf16(text: &str, bytes: fn(u16) -> [u8; 2]) -> Vec<u8> {
        text.encode_utf16().flat_map(bytes).collect()
    }

    #[test]
    fn all_encodings_are_read() {
        let marked = format!("\u{feff}{TEXT}");
        for bytes in [
            TEXT.as_bytes().to_vec(),
            marked.as_bytes().to_vec(),
            utf16(&marked, u16::to_le_bytes),
            utf16(&marked, u16::to_be_bytes),
            utf16(TEXT, u16::to_le_bytes),
            utf16(TEXT, u16::to_be_bytes),
        ] {
            assert_eq!(decode(&bytes).as_deref(), Some(TEXT), "{bytes:?}");
        }
        for bytes in [&b"\xff\xfea"[..], b"a\xff", &[0xff, 0xfe, 0x00, 0xd8]] {
            assert_eq!(decode(bytes), None, "{bytes:?}");
        }
        assert_eq!(decode(b"").as_deref(), Some(""));
    }

    #[test]
    fn a_value_has_nothing_around_it() {
        for around in [
            TEXT.to_owned(),
            format!("\u{feff}{TEXT}\r\n"),
            format!("  {TEXT}\t\n\n"),
            format!("\"{TEXT}\""),
            format!("'{TEXT}'\r\n"),
            format!("\"'{TEXT}'\"").replace('\'', ""),
            Value::from(TEXT).to_string(),
            format!("{{\r\n  \"connectionString\": \"{TEXT}\"\r\n}}\r\n"),
        ] {
            assert_eq!(value(&around).as_str(), TEXT, "{around}");
        }
        // A quote at one end only is part of the value.
        assert_eq!(value("\"abc").as_str(), "\"abc");
        assert_eq!(value("{\"a\":1}").as_str(), "{\"a\":1}");
        for nothing in ["", " ", "\r\n", "\"\"", "\u{feff}"] {
            assert_eq!(variable(nothing), None, "{nothing:?}");
        }
    }

    #[test]
    fn the_size_of_files_is_limited() {
        let folder = std::env::temp_dir().join(format!("text-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join("f");
        std::fs::write(&path, vec![b'a'; FILE as usize + 1]).unwrap();
        assert!(matches!(read(&path), Err(TextError::TooLarge)));
        std::fs::write(&path, utf16("\u{feff}a\r\n", u16::to_le_bytes)).unwrap();
        assert_eq!(read(&path).unwrap().as_str(), "a\r\n");
        assert!(matches!(read(&folder.join("none")), Err(TextError::Io(_))));
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
