//! Ids and names, which are validated once, when they are parsed.

use std::fmt;
use std::sync::Arc;

/// Why a text is not a valid name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// The text is empty.
    #[error("the {what} is empty")]
    Empty {
        /// Which name was parsed.
        what: &'static str,
    },
    /// The text is longer than [`crate::limits::ID_LENGTH`] bytes.
    #[error("the {what} is longer than {max} characters")]
    TooLong {
        /// Which name was parsed.
        what: &'static str,
        /// The longest that is allowed.
        max: usize,
    },
    /// The text contains a character that the grammar does not allow.
    #[error("the {what} contains {found:?}; allowed are {allowed}")]
    BadCharacter {
        /// Which name was parsed.
        what: &'static str,
        /// The character at fault.
        found: char,
        /// The allowed characters, for display.
        allowed: &'static str,
    },
    /// `.` and `..` would be removed by URL normalisation.
    #[error("the {what} may not be \".\" or \"..\"")]
    Dots {
        /// Which name was parsed.
        what: &'static str,
    },
}

fn check(
    what: &'static str,
    text: &str,
    allowed: &'static str,
    ok: impl Fn(char) -> bool,
) -> Result<(), IdentityError> {
    if text.is_empty() {
        return Err(IdentityError::Empty { what });
    }
    if text.len() > crate::limits::ID_LENGTH {
        return Err(IdentityError::TooLong {
            what,
            max: crate::limits::ID_LENGTH,
        });
    }
    if let Some(found) = text.chars().find(|c| !ok(*c)) {
        return Err(IdentityError::BadCharacter {
            what,
            found,
            allowed,
        });
    }
    if text == "." || text == ".." {
        return Err(IdentityError::Dots { what });
    }
    Ok(())
}

const ID_CHARACTERS: &str = "ASCII letters, digits and - . + % _ # * ? ! ( ) , : = @ $ '";

fn is_id_character(c: char) -> bool {
    c.is_ascii_alphanumeric() || "-.+%_#*?!(),:=@$'".contains(c)
}

macro_rules! name_type {
    ($(#[$doc:meta])* $name:ident, $what:literal, $allowed:expr, $check:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Checks the text against the grammar.
            ///
            /// # Errors
            /// [`IdentityError`] names the rule that the text violates.
            pub fn parse(text: &str) -> Result<Self, IdentityError> {
                check($what, text, $allowed, $check)?;
                Ok(Self(text.into()))
            }

            /// The name as text, unchanged.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&*self.0, f)
            }
        }

        impl std::str::FromStr for $name {
            type Err = IdentityError;
            fn from_str(text: &str) -> Result<Self, IdentityError> {
                Self::parse(text)
            }
        }
    };
}

name_type!(
    /// A device's id: at most 128 characters, compared with case
    /// (`docs/protocol.md`, "Names and topics").
    DeviceId,
    "device id",
    ID_CHARACTERS,
    is_id_character
);
name_type!(
    /// A module's id on its device; same grammar as [`DeviceId`].
    ModuleId,
    "module id",
    ID_CHARACTERS,
    is_id_character
);
name_type!(
    /// A stream's name. It must be valid without encoding in an MQTT topic level and in a URL path,
    /// because no client decodes it (`docs/protocol.md`, "Names and topics").
    StreamName,
    "stream name",
    "ASCII letters, digits and - . _",
    |c| c.is_ascii_alphanumeric() || "-._".contains(c)
);
name_type!(
    /// A direct method's name: the characters that IoT Hub documents, without `#` and `+`, which
    /// cannot stand in the topic of a message. Compared with case, as the SDKs do.
    MethodName,
    "method name",
    "ASCII letters, digits and ! % & ' * - . ^ _ ` | ~",
    |c| c.is_ascii_alphanumeric() || "!%&'*-.^_`|~".contains(c)
);

/// A device, or one module on a device: either can hold a hub session.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct DeviceIdentity {
    /// The device.
    pub device: DeviceId,
    /// The module, when the identity is a module's.
    pub module: Option<ModuleId>,
}

impl DeviceIdentity {
    /// The identity of a device.
    pub fn of_device(device: DeviceId) -> Self {
        Self {
            device,
            module: None,
        }
    }

    /// The identity of a module on a device.
    pub fn of_module(device: DeviceId, module: ModuleId) -> Self {
        Self {
            device,
            module: Some(module),
        }
    }

    /// The resource that a SAS token of this identity names after the host:
    /// `devices/{id}` or `devices/{id}/modules/{m}`.
    pub fn resource_path(&self) -> String {
        match &self.module {
            None => format!("devices/{}", self.device),
            Some(module) => format!("devices/{}/modules/{module}", self.device),
        }
    }
}

impl fmt::Display for DeviceIdentity {
    /// `device` or `device/module`: also the MQTT client id.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.module {
            None => write!(f, "{}", self.device),
            Some(module) => write!(f, "{}/{module}", self.device),
        }
    }
}

/// Names one request (for a stream, a twin or a direct method) on one identity's hub session. Short decimal text is
/// the safest choice for the SDKs' parsers (`docs/protocol.md`, "Names and topics").
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Debug)]
pub struct RequestId(String);

impl RequestId {
    /// Reads a request id from a topic: any non-empty text without separators.
    pub fn parse(text: &str) -> Option<Self> {
        let fits = !text.is_empty()
            && text.len() <= crate::limits::ID_LENGTH
            && !text.contains(['/', '#', '+', '&', '?'])
            && !text.chars().any(crate::outside::is_unprintable);
        fits.then(|| Self(text.to_owned()))
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<u64> for RequestId {
    fn from(number: u64) -> Self {
        Self(number.to_string())
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Names one stream at the streaming endpoint: 128 random bits, written as 32 hex digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StreamId(u128);

impl StreamId {
    /// A fresh id from the system's random source.
    pub fn random() -> Self {
        Self(u128::from_be_bytes(device_stream_websocket::random::bytes()))
    }

    /// Reads 32 hex digits.
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() != 32 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return None;
        }
        u128::from_str_radix(text, 16).ok().map(Self)
    }

    /// Its 128 bits.
    pub fn to_bytes(self) -> [u8; 16] {
        self.0.to_be_bytes()
    }

    /// Reads the id from a streaming endpoint's URL, in either known form (`docs/protocol.md`,
    /// "Streaming endpoints"). `None` if the URL has no id.
    pub fn of_url(url: &str) -> Option<Self> {
        // The last one: the device's id precedes it, and may look like one.
        url.rsplit('/').find_map(Self::parse)
    }
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

impl fmt::Debug for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// One of the two WebSockets of a stream at the hub.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Leg {
    /// The WebSocket that the device opened.
    Device,
    /// The WebSocket that the service opened.
    Service,
}

impl Leg {
    /// The word for this leg in URLs, tokens and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Device => "device",
            Self::Service => "service",
        }
    }

    /// Reads the word back.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "device" => Some(Self::Device),
            "service" => Some(Self::Service),
            _ => None,
        }
    }

    /// The leg at the other side of the stream.
    pub fn other(self) -> Self {
        match self {
            Self::Device => Self::Service,
            Self::Service => Self::Device,
        }
    }
}

impl fmt::Display for Leg {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_s_id_is_read_from_either_form_of_its_url() {
        let id = StreamId::random();
        let device = StreamId::random();
        for url in [
            format!("wss://h:443/bridges/myhub/{device}/{id}"),
            format!("wss://h:443/bridges/ih/myhub/d/{device}/sid/{id}/r/device"),
        ] {
            assert_eq!(StreamId::of_url(&url), Some(id), "{url}");
        }
        assert_eq!(StreamId::of_url("wss://h:443/other"), None);
    }

    #[test]
    fn device_ids_follow_the_documented_grammar() {
        for good in ["dev1", "a+b@c%d", "A:b=c", "x'y", &"d".repeat(128)] {
            assert!(DeviceId::parse(good).is_ok(), "{good}");
        }
        for bad in ["", "a b", "a/b", "a;b", "ü", ".", "..", &"d".repeat(129)] {
            assert!(DeviceId::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn stream_names_need_no_encoding_in_topics_and_urls() {
        assert!(StreamName::parse("TestStream").is_ok());
        for bad in ["a/b", "a+b", "a#", "a b", "a%20b", "a?b", "a&b", "a=b", ""] {
            assert!(StreamName::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn method_names_are_what_a_topic_can_hold() {
        for good in [
            "reboot",
            "thermostat1*getMaxMin",
            "a.b-c_d~e",
            &"m".repeat(128),
        ] {
            assert!(MethodName::parse(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            "a/b",
            "a+b",
            "a#",
            "a b",
            "a?b",
            "a$b",
            "ü",
            &"m".repeat(129),
        ] {
            assert!(MethodName::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn stream_ids_round_trip() {
        let id = StreamId::random();
        assert_eq!(StreamId::parse(&id.to_string()), Some(id));
        assert_eq!(StreamId::parse("+123"), None);
        assert_eq!(StreamId::parse(&"g".repeat(32)), None);
    }
}
