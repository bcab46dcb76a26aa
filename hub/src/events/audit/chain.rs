//! The chain: each line carries the hash of the one before it, and its own. Pure; what a file or a
//! verification makes of it is elsewhere.
//!
//! A line is `{"seq":N,"time":"…",…,"prev":"…"[,"signature":"…"],"hash":"…"}`. The hash is SHA-256
//! over [`HASHED`] and all bytes of the line before `,"hash"`, so there is no canonical form to
//! agree on. A signed head has a signature over [`SIGNED`] and all bytes before `,"signature"`:
//! over itself and, by `prev`, over everything before it.

use aws_lc_rs::digest::{Context, SHA256};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::keys::{PublicKey, SigningKey};
use super::record::Record;

/// What is hashed before a line, so that such a hash is of nothing else.
const HASHED: &[u8] = b"device-streams audit line 1\n";
/// What is signed before a head.
const SIGNED: &[u8] = b"device-streams audit head 1\n";

/// No hub writes so many lines in its life: a number above would have none behind it.
const MOST: u64 = u64::MAX / 2;

const HASH_FIELD: &str = ",\"hash\":\"";
const SIGNATURE_FIELD: &str = ",\"signature\":\"";
const HEX: usize = 64;
/// `,"hash":"…"}`
const HASH_TAIL: usize = HASH_FIELD.len() + HEX + 2;
/// 64 bytes in base64.
const SIGNATURE: usize = 88;
/// `,"signature":"…"`
const SIGNATURE_TAIL: usize = SIGNATURE_FIELD.len() + SIGNATURE + 1;

/// A place in the chain: a line's number and its hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Link {
    /// Lines are counted from 1, over all files.
    pub seq: u64,
    /// The line's hash.
    pub hash: [u8; 32],
}

impl Link {
    /// Before the first line.
    pub const START: Self = Self {
        seq: 0,
        hash: [0; 32],
    };

    /// Writes the hash in hex.
    pub fn hex(&self) -> String {
        hex(&self.hash)
    }

    /// The line of a record behind this one, and its own place. The line ends with a newline.
    pub fn seal(self, time: &str, record: &Record) -> (String, Self) {
        self.close(self.open(time, record))
    }

    /// The same with a signature.
    pub fn seal_signed(self, time: &str, record: &Record, key: &SigningKey) -> (String, Self) {
        let mut line = self.open(time, record);
        let signature = key.sign(&[SIGNED, line.as_bytes()].concat());
        line += SIGNATURE_FIELD;
        line += &BASE64.encode(signature);
        line.push('"');
        self.close(line)
    }

    fn open(self, time: &str, record: &Record) -> String {
        let (seq, fields, prev) = (self.seq + 1, record.fields(), self.hex());
        format!(r#"{{"seq":{seq},"time":"{time}"{fields},"prev":"{prev}""#)
    }

    fn close(self, mut line: String) -> (String, Self) {
        let link = Self {
            seq: self.seq + 1,
            hash: digest(line.as_bytes()),
        };
        line += HASH_FIELD;
        line += &link.hex();
        line += "\"}\n";
        (line, link)
    }
}

fn digest(line: &[u8]) -> [u8; 32] {
    let mut context = Context::new(&SHA256);
    context.update(HASHED);
    context.update(line);
    let mut hash = [0; 32];
    hash.copy_from_slice(context.finish().as_ref());
    hash
}

/// Bytes as lower-case hex.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The reverse, of 32 bytes.
pub fn unhex(text: &str) -> Option<[u8; 32]> {
    let (mut bytes, text) = ([0; 32], text.as_bytes());
    if text.len() != HEX {
        return None;
    }
    let nibble = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
        let &[high, low] = pair else { return None };
        *byte = nibble(high)? << 4 | nibble(low)?;
    }
    Some(bytes)
}

/// What a line says of itself, once its own hash was found to be right.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// Its place.
    pub link: Link,
    /// The hash of the line before it.
    pub prev: [u8; 32],
    /// RFC 3339.
    pub time: String,
    /// What happened.
    pub operation: String,
    /// Whether it is a signed head.
    pub is_signed: bool,
    /// Why there is a signed head here.
    pub reason: Option<String>,
    /// By which key.
    pub key: Option<String>,
    /// A head may say that all lines up to this one were removed by rotation.
    pub removed_through: Option<u64>,
    /// A head may say that a killed hub has left so many lines that nothing vouches for.
    pub not_vouched: Option<u64>,
}

/// Why a line is not one that this hub has written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LineError {
    /// It is no line of an audit log at all.
    #[error(
        "the line is not a record of an audit log: it was changed, or only a part of it is here"
    )]
    Malformed,
    /// Its hash is not that of its content.
    #[error("the line was changed: its hash is not that of its content")]
    Changed,
    /// It is signed, and not by this key.
    #[error(
        "the signed head has a bad signature: the log was written anew, or the key is another one"
    )]
    Signature,
}

#[derive(serde::Deserialize)]
#[serde(rename_all = "camelCase")]
struct Fields {
    seq: u64,
    time: String,
    operation_name: String,
    prev: String,
    reason: Option<String>,
    key: Option<String>,
    removed_through: Option<u64>,
    not_vouched: Option<u64>,
}

/// Reads a line, without its newline, and checks its hash and, if it is a signed head and there is a
/// key, its signature.
///
/// # Errors
/// [`LineError`].
pub fn read(line: &[u8], key: Option<&PublicKey>) -> Result<Line, LineError> {
    let at = line.len().checked_sub(HASH_TAIL);
    let (content, tail) = line.split_at(at.ok_or(LineError::Malformed)?);
    let hash = std::str::from_utf8(tail)
        .ok()
        .and_then(|tail| tail.strip_prefix(HASH_FIELD)?.strip_suffix("\"}"))
        .and_then(unhex)
        .ok_or(LineError::Malformed)?;
    if digest(content) != hash {
        return Err(LineError::Changed);
    }
    // A line with the right hash was made by somebody who knows the form.
    let fields: Fields = serde_json::from_slice(line).map_err(|_| LineError::Malformed)?;
    if fields.seq > MOST {
        return Err(LineError::Malformed);
    }
    let signature = signature(content);
    if let (Some((signed, signature)), Some(key)) = (&signature, key)
        && !key.verify(&[SIGNED, signed].concat(), signature)
    {
        return Err(LineError::Signature);
    }
    Ok(Line {
        link: Link {
            seq: fields.seq,
            hash,
        },
        prev: unhex(&fields.prev).ok_or(LineError::Malformed)?,
        time: fields.time,
        operation: fields.operation_name,
        is_signed: signature.is_some(),
        reason: fields.reason,
        key: fields.key,
        removed_through: fields.removed_through,
        not_vouched: fields.not_vouched,
    })
}

/// What is signed of a line, and the signature.
fn signature(content: &[u8]) -> Option<(&[u8], Vec<u8>)> {
    let (signed, tail) = content.split_at(content.len().checked_sub(SIGNATURE_TAIL)?);
    let tail = std::str::from_utf8(tail).ok()?;
    let text = tail.strip_prefix(SIGNATURE_FIELD)?.strip_suffix('"')?;
    Some((signed, BASE64.decode(text).ok()?))
}
