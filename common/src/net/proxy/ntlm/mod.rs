//! NTLMv2 as a client (MS-NLMP): NEGOTIATE, the server's CHALLENGE, AUTHENTICATE. Only the proof of
//! who we are; no signing or sealing follows, since what comes after is TLS.
//!
//! The hashes are RustCrypto's: MD4 and MD5 are what the protocol is made of, and a TLS library does
//! not offer them. NTLMv1 and LM, which are broken, are not here.

use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use device_stream_websocket::random;
use hmac::{Hmac, KeyInit as _, Mac as _};
use md4::{Digest as _, Md4};
use md5::Md5;
use zeroize::Zeroizing;

use super::credentials::Credentials;
use crate::secret::Secret;

const SIGNATURE: &[u8; 8] = b"NTLMSSP\0";

/// Unicode, a target name, NTLM, always sign, extended session security, target information, 128 and
/// 56 bits (MS-NLMP, 2.2.2.5). Key exchange is not among them: there is no key to be exchanged.
const FLAGS: u32 =
    UNICODE | 0x4 | 0x200 | 0x8000 | 0x8_0000 | TARGET_INFO | 0x2000_0000 | 0x8000_0000;
const UNICODE: u32 = 0x1;
const TARGET_INFO: u32 = 0x80_0000;

/// Kinds of target information (2.2.2.1).
const END: u16 = 0;
const AV_FLAGS: u16 = 6;
const TIMESTAMP: u16 = 7;
/// In `AV_FLAGS`: there is a message integrity code.
const HAS_MIC: u32 = 2;

/// Bytes of AUTHENTICATE before its variable part, and where the code is in them.
const HEAD: usize = 88;
const MIC: usize = 72;

/// From 1601, where Windows' time begins, to 1970.
const EPOCH_SECONDS: u64 = 11_644_473_600;

/// A challenge that is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Malformed;

/// An exchange that was begun.
pub(super) struct Negotiation {
    message: Vec<u8>,
}

/// `SCHEME BASE64`.
pub(super) fn header(scheme: &str, message: &[u8]) -> Secret {
    let encoded = Zeroizing::new(STANDARD.encode(message));
    Secret::new(format!("{scheme} {}", encoded.as_str()))
}

/// The bytes of a message; `None` if it is not base64.
pub(super) fn decode(text: &str) -> Option<Vec<u8>> {
    STANDARD.decode(text).ok()
}

impl Negotiation {
    /// Begins one.
    pub(super) fn new() -> Self {
        let mut message = SIGNATURE.to_vec();
        message.extend(1u32.to_le_bytes());
        message.extend(FLAGS.to_le_bytes());
        // Neither a domain nor a workstation.
        message.extend([0; 16]);
        Self { message }
    }

    /// NEGOTIATE.
    pub(super) fn message(&self) -> &[u8] {
        &self.message
    }

    /// AUTHENTICATE, for a CHALLENGE.
    ///
    /// # Errors
    /// [`Malformed`].
    pub(super) fn answer(
        &self,
        challenge: &[u8],
        credentials: &Credentials,
    ) -> Result<Zeroizing<Vec<u8>>, Malformed> {
        self.answer_with(challenge, credentials, random::bytes::<8>(), file_time())
    }

    fn answer_with(
        &self,
        message: &[u8],
        credentials: &Credentials,
        nonce: [u8; 8],
        now: [u8; 8],
    ) -> Result<Zeroizing<Vec<u8>>, Malformed> {
        let challenge = Challenge::parse(message)?;
        let (domain, user) = credentials.domain_and_user();
        let key = response_key(credentials, domain, user);
        let timestamp = challenge.timestamp();
        let proof = Proof::new(&key, &challenge, nonce, timestamp.unwrap_or(now));
        // A server that gives the time is one that checks the code, and wants no LM response.
        let lm_response = match timestamp {
            Some(_) => vec![0; 24],
            None => {
                let code = hmac_md5(&key, &[&challenge.nonce, &nonce]);
                [code.as_slice(), &nonce].concat()
            }
        };
        let fields: [&[u8]; 6] = [
            &lm_response,
            &proof.response,
            &utf16(domain),
            &utf16(user),
            // No workstation, and no session key.
            &[],
            &[],
        ];
        let mut answer = Zeroizing::new(SIGNATURE.to_vec());
        answer.extend(3u32.to_le_bytes());
        let mut offset = HEAD;
        for field in fields {
            let length = u16::try_from(field.len()).map_err(|_| Malformed)?;
            answer.extend(length.to_le_bytes());
            answer.extend(length.to_le_bytes());
            let at = u32::try_from(offset).map_err(|_| Malformed)?;
            answer.extend(at.to_le_bytes());
            offset += field.len();
        }
        answer.extend((challenge.flags & FLAGS).to_le_bytes());
        // No version, and no code yet.
        answer.resize(HEAD, 0);
        answer.extend(fields.concat());
        if timestamp.is_some() {
            let code = hmac_md5(&proof.session_key, &[&self.message, message, &answer]);
            if let Some(place) = answer.get_mut(MIC..HEAD) {
                place.copy_from_slice(&*code);
            }
        }
        Ok(answer)
    }
}

/// CHALLENGE.
struct Challenge {
    flags: u32,
    nonce: [u8; 8],
    /// Kinds and values, without the end.
    target_info: Vec<(u16, Vec<u8>)>,
}

impl Challenge {
    fn parse(message: &[u8]) -> Result<Self, Malformed> {
        let is_challenge = message.starts_with(SIGNATURE) && number(message, 8)? == 2;
        let flags = number(message, 20)?;
        if !is_challenge || flags & UNICODE == 0 {
            return Err(Malformed);
        }
        let nonce = *piece(message, 24)?;
        let mut challenge = Self {
            flags,
            nonce,
            target_info: Vec::new(),
        };
        if flags & TARGET_INFO != 0 {
            let length = usize::from(u16::from_le_bytes(*piece(message, 40)?));
            let start = usize::try_from(number(message, 44)?).map_err(|_| Malformed)?;
            let end = start.checked_add(length).ok_or(Malformed)?;
            let mut rest = message.get(start..end).ok_or(Malformed)?;
            while !rest.is_empty() {
                let kind = u16::from_le_bytes(*piece(rest, 0)?);
                let length = usize::from(u16::from_le_bytes(*piece(rest, 2)?));
                if kind == END {
                    break;
                }
                let value = rest.get(4..4 + length).ok_or(Malformed)?;
                challenge.target_info.push((kind, value.to_vec()));
                rest = rest.get(4 + length..).ok_or(Malformed)?;
            }
        }
        Ok(challenge)
    }

    fn timestamp(&self) -> Option<[u8; 8]> {
        let (_, value) = self
            .target_info
            .iter()
            .find(|(kind, _)| *kind == TIMESTAMP)?;
        value.as_slice().try_into().ok()
    }

    /// What is sent back of the target information: all of it, and that there is a code.
    fn confirmed(&self) -> Vec<u8> {
        let mut info = Vec::new();
        let mut add = |kind: u16, value: &[u8]| {
            info.extend(kind.to_le_bytes());
            // It was as long when it came.
            info.extend(u16::try_from(value.len()).unwrap_or_default().to_le_bytes());
            info.extend(value);
        };
        let mut flags = 0;
        for (kind, value) in &self.target_info {
            if *kind == AV_FLAGS {
                flags = number(value, 0).unwrap_or_default();
            } else {
                add(*kind, value);
            }
        }
        if self.timestamp().is_some() {
            flags |= HAS_MIC;
        }
        if flags != 0 {
            add(AV_FLAGS, &flags.to_le_bytes());
        }
        add(END, &[]);
        info
    }
}

/// `NTOWFv2` (3.3.2).
fn response_key(credentials: &Credentials, domain: &str, user: &str) -> Zeroizing<[u8; 16]> {
    let password = Zeroizing::new(utf16(credentials.password().expose()));
    let hash: Zeroizing<[u8; 16]> = Zeroizing::new(Md4::digest(&*password).into());
    hmac_md5(&hash, &[&utf16(&user.to_uppercase()), &utf16(domain)])
}

/// `NTLMv2_RESPONSE`, and the session's key.
struct Proof {
    response: Vec<u8>,
    session_key: Zeroizing<[u8; 16]>,
}

impl Proof {
    fn new(key: &[u8; 16], challenge: &Challenge, nonce: [u8; 8], time: [u8; 8]) -> Self {
        let mut claims = vec![1, 1, 0, 0, 0, 0, 0, 0];
        claims.extend(time);
        claims.extend(nonce);
        claims.extend([0; 4]);
        claims.extend(challenge.confirmed());
        claims.extend([0; 4]);
        let proof = hmac_md5(key, &[&challenge.nonce, &claims]);
        Self {
            response: [proof.as_slice(), &claims].concat(),
            session_key: hmac_md5(key, &[&*proof]),
        }
    }
}

fn hmac_md5(key: &[u8; 16], parts: &[&[u8]]) -> Zeroizing<[u8; 16]> {
    // HMAC fills up a short key with zeros (RFC 2104).
    let mut block = Zeroizing::new([0; 64]);
    for (to, from) in block.iter_mut().zip(key) {
        *to = *from;
    }
    let mut mac = Hmac::<Md5>::new((&*block).into());
    for part in parts {
        mac.update(part);
    }
    Zeroizing::new(mac.finalize().into_bytes().into())
}

fn utf16(text: &str) -> Vec<u8> {
    text.encode_utf16().flat_map(u16::to_le_bytes).collect()
}

/// The time as Windows counts it: tenths of a microsecond since 1601.
fn file_time() -> [u8; 8] {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    ((now.as_secs() + EPOCH_SECONDS) * 10_000_000).to_le_bytes()
}

fn number(bytes: &[u8], at: usize) -> Result<u32, Malformed> {
    Ok(u32::from_le_bytes(*piece(bytes, at)?))
}

fn piece<const N: usize>(bytes: &[u8], at: usize) -> Result<&[u8; N], Malformed> {
    let rest = bytes.get(at..).ok_or(Malformed)?;
    rest.first_chunk().ok_or(Malformed)
}

#[cfg(test)]
pub(super) mod tests;
