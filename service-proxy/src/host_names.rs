//! Devices and their targets as host names and ports: `MyDevice.device:22` is the target `ssh` of the
//! device `MyDevice`.
//!
//! ```text
//! [_TARGET.]DEVICE.SUFFIX    the suffix is `device` unless another one is configured
//! PORT                       a number, which stands for a target, or a target's name
//! ```
//!
//! A device id is compared with case, and a host name keeps it. `%XX` stands for a character that
//! host names cannot have. Nothing else is a name of a device: no address, and no other name.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use common::identity::{DeviceId, IdentityError, StreamName};
use common::session::STREAM_PREFIX;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

/// Ports whose targets are called otherwise than the port.
const PORTS: [(u16, &str); 5] = [
    (22, "ssh"),
    (80, "http"),
    (443, "https"),
    (3389, "rdp"),
    (5900, "vnc"),
];

/// What stands as itself in a host's name, a known_hosts file and a shell.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_');

/// The name of a device as a host's, without a suffix: programs refuse some of the characters that ids
/// may have, and take others for patterns, so that one device could pass for another in known_hosts.
/// Ids of letters, digits, `-`, `.` and `_` stay as they are, unless they begin with `_` or `-`.
pub fn host_of(device: &DeviceId) -> String {
    let host = utf8_percent_encode(device.as_str(), PLAIN).to_string();
    match (host.strip_prefix('-'), host.strip_prefix('_')) {
        (Some(rest), _) => format!("%2D{rest}"),
        (_, Some(rest)) => format!("%5F{rest}"),
        _ => host,
    }
}

/// What host names of devices end with, without the dot before it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Suffix(String);

/// A text cannot be the end of host names.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not what host names can end with, as `device` or `device.example`")]
pub struct SuffixError(String);

impl Default for Suffix {
    fn default() -> Self {
        Self("device".to_owned())
    }
}

impl FromStr for Suffix {
    type Err = SuffixError;

    fn from_str(text: &str) -> Result<Self, SuffixError> {
        let bare = text.strip_prefix('.').unwrap_or(text);
        let is_label = |label: &str| {
            let fits = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
            (1..=63).contains(&label.len()) && label.bytes().all(fits)
        };
        let is_number = |label: &str| label.bytes().all(|b| b.is_ascii_digit());
        let last = bare.rsplit('.').next().unwrap_or_default();
        if bare.len() > 128 || !bare.split('.').all(is_label) || is_number(last) {
            return Err(SuffixError(text.to_owned()));
        }
        Ok(Self(bare.to_ascii_lowercase()))
    }
}

impl fmt::Display for Suffix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Suffix {
    /// What stands before the suffix in a host name, if it ends with that.
    fn strip<'a>(&self, host: &'a str) -> Option<&'a str> {
        // A full host name ends with a dot.
        let host = host.strip_suffix('.').unwrap_or(host);
        let split = host.len().checked_sub(self.0.len())?;
        let (before, end) = (host.get(..split)?, host.get(split..)?);
        before
            .strip_suffix('.')
            .filter(|before| !before.is_empty() && end.eq_ignore_ascii_case(&self.0))
    }

    /// The device that a host name stands for, where a name without the suffix is the device's id.
    ///
    /// # Errors
    /// [`IdentityError`] when it is no id.
    pub fn device(&self, host: &str) -> Result<DeviceId, IdentityError> {
        match self.strip(host) {
            Some(name) => decoded(name),
            None => DeviceId::parse(host),
        }
    }
}

fn decoded(name: &str) -> Result<DeviceId, IdentityError> {
    DeviceId::parse(&percent_decode_str(name).decode_utf8_lossy())
}

/// `PORT=TARGET`: connections to this port lead to that target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortTarget {
    /// The port.
    pub port: u16,
    /// The target's stream name.
    pub target: StreamName,
}

/// Why a text is not `PORT=TARGET`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PortTargetError {
    /// There is no port before a `=`.
    #[error("{0:?} is not PORT=TARGET, for instance 8080=web")]
    Form(String),
    /// The target is no stream name.
    #[error(transparent)]
    Target(#[from] IdentityError),
    /// The name is one of session mode.
    #[error("a target's name may not begin with {STREAM_PREFIX}: streams of session mode do")]
    Reserved,
}

impl FromStr for PortTarget {
    type Err = PortTargetError;

    fn from_str(text: &str) -> Result<Self, PortTargetError> {
        let form = || PortTargetError::Form(text.to_owned());
        let (port, target) = text.split_once('=').ok_or_else(form)?;
        let port = number(port).ok_or_else(form)?;
        let target = StreamName::parse(target)?;
        if target.as_str().starts_with(STREAM_PREFIX) {
            return Err(PortTargetError::Reserved);
        }
        Ok(Self { port, target })
    }
}

/// A port number, without a sign; 0 is none.
fn number(text: &str) -> Option<u16> {
    let is_number = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    text.parse().ok().filter(|port| is_number && *port != 0)
}

/// Why a host name and a port do not name a target of a device.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HostNameError {
    /// It is an address.
    #[error(
        "{0} is an address, and service-proxy connects to devices only: give a name as MyDevice.{1}, and let the proxy resolve it (socks5h)"
    )]
    Address(IpAddr, Suffix),
    /// It does not end with the suffix.
    #[error(
        "{0:?} is not the name of a device, and service-proxy connects to nothing else: a device's ends with .{1}"
    )]
    Elsewhere(String, Suffix),
    /// What stands before the suffix is no device id.
    #[error("{0:?} is not the name of a device")]
    Device(String, #[source] IdentityError),
    /// The port is neither a number nor a target's name.
    #[error("{0:?} is neither a port nor the name of a target")]
    Port(String),
    /// The name is one of session mode.
    #[error("{0:?} is not a target's name: it begins with {STREAM_PREFIX}")]
    Reserved(String),
}

/// How host names and ports stand for devices and targets.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HostNames {
    /// What the names of devices end with.
    pub suffix: Suffix,
    /// Targets of ports, beside the well-known ones and instead of them.
    pub ports: BTreeMap<u16, StreamName>,
}

impl HostNames {
    /// The device and the target that a host name and a port stand for. The port is a number, or a
    /// target's name; before the device, `_TARGET.` names the target whatever the port.
    ///
    /// # Errors
    /// [`HostNameError`].
    pub fn find(&self, host: &str, port: &str) -> Result<(DeviceId, StreamName), HostNameError> {
        let bare = host
            .strip_prefix('[')
            .and_then(|host| host.strip_suffix(']'))
            .unwrap_or(host);
        if let Ok(address) = bare.parse() {
            return Err(HostNameError::Address(address, self.suffix.clone()));
        }
        let name = self
            .suffix
            .strip(host)
            .ok_or_else(|| HostNameError::Elsewhere(host.to_owned(), self.suffix.clone()))?;
        let (target, name) = match name.strip_prefix('_').and_then(|it| it.split_once('.')) {
            Some((target, name)) => (named(target)?, name),
            None => (self.target(port)?, name),
        };
        let device = decoded(name).map_err(|error| HostNameError::Device(host.into(), error))?;
        Ok((device, target))
    }

    /// The target that a port stands for: what is configured, else the well-known one, else the
    /// target that is called like the number.
    fn target(&self, port: &str) -> Result<StreamName, HostNameError> {
        let Some(number) = number(port) else {
            let has_letter = port.bytes().any(|b| b.is_ascii_alphabetic());
            return match has_letter {
                true => named(port),
                false => Err(HostNameError::Port(port.to_owned())),
            };
        };
        if let Some(target) = self.ports.get(&number) {
            return Ok(target.clone());
        }
        let known = PORTS.iter().find(|(known, _)| *known == number);
        match known {
            Some((_, name)) => named(name),
            None => named(&number.to_string()),
        }
    }
}

fn named(name: &str) -> Result<StreamName, HostNameError> {
    if name.starts_with(STREAM_PREFIX) {
        return Err(HostNameError::Reserved(name.to_owned()));
    }
    StreamName::parse(name).map_err(|_| HostNameError::Port(name.to_owned()))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn found(host: &str, port: &str) -> Result<(String, String), HostNameError> {
        let names = HostNames {
            ports: BTreeMap::from([(8080, StreamName::parse("web").unwrap())]),
            ..HostNames::default()
        };
        let (device, target) = names.find(host, port)?;
        Ok((device.to_string(), target.to_string()))
    }

    #[test]
    fn host_and_port_name_device_and_target() {
        for (host, port, device, target) in [
            ("MyDevice.device", "22", "MyDevice", "ssh"),
            ("mydevice.DEVICE", "3389", "mydevice", "rdp"),
            ("MyDevice.device.", "80", "MyDevice", "http"),
            ("a.b.device", "443", "a.b", "https"),
            ("d.device", "5900", "d", "vnc"),
            ("d.device", "8080", "d", "web"),
            ("d.device", "5432", "d", "5432"),
            ("d.device", "00022", "d", "ssh"),
            ("d.device", "ssh", "d", "ssh"),
            ("d.device", "web", "d", "web"),
            ("_web.d.device", "80", "d", "web"),
            ("_web.a.b.device", "80", "a.b", "web"),
            ("a%2Cb.device", "22", "a,b", "ssh"),
            ("%5Fweb.d.device", "22", "_web.d", "ssh"),
            ("device.device", "22", "device", "ssh"),
            ("1.2.3.4.device", "22", "1.2.3.4", "ssh"),
        ] {
            let expected = (device.to_owned(), target.to_owned());
            assert_eq!(found(host, port), Ok(expected), "{host}:{port}");
        }
    }

    #[test]
    fn nothing_else_is_reached() {
        use HostNameError as E;
        for host in ["127.0.0.1", "::1", "[::1]", "0.0.0.0"] {
            let error = found(host, "22").unwrap_err();
            assert!(matches!(error, E::Address(..)), "{host}: {error}");
        }
        for host in [
            "example.com",
            "localhost",
            "",
            ".",
            "device",
            ".device",
            "xdevice",
            "d.device.com",
        ] {
            let error = found(host, "22").unwrap_err();
            assert!(matches!(error, E::Elsewhere(..)), "{host}: {error}");
        }
        for host in ["a b.device", "ü.device", "a%00b.device", "_web..device"] {
            let error = found(host, "22").unwrap_err();
            assert!(matches!(error, E::Device(..)), "{host}: {error}");
        }
        for port in ["", "0", "65536", "+22", "-1", "a/b", "22 "] {
            let error = found("d.device", port).unwrap_err();
            assert!(matches!(error, E::Port(_)), "{port}: {error}");
        }
        let error = found("d.device", "_session.ssh").unwrap_err();
        assert!(matches!(error, E::Reserved(_)), "{error}");
    }

    #[test]
    fn suffixes_and_ports_are_read() {
        for (text, suffix) in [("device", "device"), (".My-Dev.Example", "my-dev.example")] {
            assert_eq!(text.parse::<Suffix>().unwrap().to_string(), suffix);
        }
        for bad in ["", ".", "a..b", "a_b", "a b", "device.", "1.2.3.4", "*"] {
            assert!(bad.parse::<Suffix>().is_err(), "{bad}");
        }
        let port: PortTarget = "8080=web".parse().unwrap();
        assert_eq!((port.port, port.target.as_str()), (8080, "web"));
        for bad in [
            "8080",
            "=web",
            "0=web",
            "x=web",
            "8080=",
            "8080=a/b",
            "1=_session.x",
        ] {
            assert!(bad.parse::<PortTarget>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_suffix_is_only_taken_off_where_it_stands() {
        let suffix = Suffix::default();
        for (host, device) in [
            ("MyDevice.device", "MyDevice"),
            ("MyDevice", "MyDevice"),
            ("my.device.x", "my.device.x"),
            ("a%2Cb.device", "a,b"),
            ("a%2Cb", "a%2Cb"),
        ] {
            assert_eq!(suffix.device(host).unwrap().as_str(), device, "{host}");
        }
    }

    #[test]
    fn no_device_passes_for_another() {
        let of = |device| host_of(&DeviceId::parse(device).unwrap());
        assert_eq!(of("My_Device-1.x"), "My_Device-1.x");
        assert_eq!(of("*"), "%2A");
        assert_eq!(of("a,b"), "a%2Cb");
        assert_eq!(of("-oProxyCommand=x"), "%2DoProxyCommand%3Dx");
        assert_eq!(of("%2A"), "%252A");
        assert_eq!(of("_web.d"), "%5Fweb.d");
    }

    proptest! {
        #[test]
        fn every_device_has_a_host_name(id in "[-A-Za-z0-9.+%_#*?!(),:=@$']{1,40}") {
            prop_assume!(DeviceId::parse(&id).is_ok());
            let device = DeviceId::parse(&id).unwrap();
            let host = format!("{}.device", host_of(&device));
            let found = HostNames::default().find(&host, "22").map(|(device, _)| device);
            prop_assert_eq!(found, Ok(device));
        }

        #[test]
        fn any_text_is_a_target_of_a_device_or_refused(host in ".{0,30}(\\.device)?", port in ".{0,6}") {
            if let Ok((_, target)) = HostNames::default().find(&host, &port) {
                prop_assert!(!target.as_str().starts_with(STREAM_PREFIX));
            }
        }
    }
}
