//! One local end and the stream name behind it: `[BIND:]PORT[:TARGET]`, or `PATH[:TARGET]` for a Unix
//! socket; with `DEVICE/` before it, of another device.

mod place;

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use common::identity::{DeviceId, DeviceIdentity, IdentityError, StreamName};

pub use self::place::{Bind, BindError, Place};

/// Before the path of a Unix socket. A path that begins with `/` or `.` needs none.
const UNIX: &str = "unix:";

/// Why a text is not `[BIND:]PORT[:TARGET]` or `PATH[:TARGET]`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ForwardError {
    /// The port is missing or no number from 0 to 65535.
    #[error("{0:?} is not a port; give [BIND:]PORT[:TARGET], for instance 2222 or 2222:ssh")]
    BadPort(String),
    /// Something stands behind the port where nothing may.
    #[error("{0:?} is not [BIND:]PORT, for instance 1080 or 127.0.0.1:1080")]
    BadPlace(String),
    /// The bind address cannot be one.
    #[error("{0:?} is not an address to listen on; IPv6 stands in brackets, as [::1]:2222")]
    BadBind(String),
    /// The target is no stream name. The parser of the command line shows this text and no cause,
    /// so the reason is part of it.
    #[error(
        "{0}; TARGET is a stream name, which the device-proxy maps to a host and port with --target"
    )]
    BadTarget(IdentityError),
    /// What stands before the slash is no device id.
    #[error(
        "{0}; before a slash stands a device, as MyDevice/2222:ssh, and a path begins with / or unix:"
    )]
    BadDevice(IdentityError),
    /// No path behind `unix:`.
    #[error("unix: needs the path of a socket behind it, as unix:/run/user/1000/docker.sock")]
    NoPath,
    /// This system has none.
    #[error("{0:?} is a Unix socket, and service-proxy has none on this system; give a port")]
    NoUnixSockets(String),
}

/// The local end of a forward.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Local {
    /// A TCP port.
    Port(Place),
    /// A Unix socket at this path.
    Socket(PathBuf),
}

impl Local {
    /// Whether both cannot be listened on, as far as that can be told without asking the system.
    pub fn overlaps(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Port(one), Self::Port(other)) => one.overlaps(other),
            (Self::Socket(one), Self::Socket(other)) => one == other,
            _ => false,
        }
    }
}

impl fmt::Display for Local {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Port(place) => place.fmt(f),
            Self::Socket(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// `[DEVICE/][BIND:]PORT[:TARGET]` or `[DEVICE/]PATH[:TARGET]` as given; device and target may be left
/// to the defaults.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForwardSpec {
    /// The device.
    pub device: Option<DeviceId>,
    /// Where to listen.
    pub local: Local,
    /// The stream name.
    pub target: Option<StreamName>,
}

impl FromStr for ForwardSpec {
    type Err = ForwardError;

    fn from_str(text: &str) -> Result<Self, ForwardError> {
        if let Some(path) = text.strip_prefix(UNIX) {
            return socket(path);
        }
        if ["/", "./", "../"].iter().any(|it| text.starts_with(it)) {
            return socket(text);
        }
        // Neither ids nor addresses have one.
        if let Some((device, rest)) = text.split_once('/') {
            let device = DeviceId::parse(device).map_err(ForwardError::BadDevice)?;
            let spec: Self = rest.parse()?;
            return match spec.device {
                None => Ok(Self {
                    device: Some(device),
                    ..spec
                }),
                Some(_) => Err(ForwardError::BadPort(rest.to_owned())),
            };
        }
        let (place, target) = Place::split_off(text)?;
        let target = target.map(StreamName::parse).transpose();
        Ok(Self {
            device: None,
            local: Local::Port(place),
            target: target.map_err(ForwardError::BadTarget)?,
        })
    }
}

/// Reads `PATH[:TARGET]`. What stands behind the last colon and can be a target is one; a path with
/// such an end needs a target behind it.
fn socket(text: &str) -> Result<ForwardSpec, ForwardError> {
    if cfg!(not(unix)) {
        return Err(ForwardError::NoUnixSockets(text.to_owned()));
    }
    let (path, target) = match text.rsplit_once(':') {
        Some((path, target)) if !target.contains('/') => {
            let target = StreamName::parse(target).map_err(ForwardError::BadTarget)?;
            (path, Some(target))
        }
        _ => (text, None),
    };
    if path.is_empty() || path.ends_with('/') {
        return Err(ForwardError::NoPath);
    }
    Ok(ForwardSpec {
        device: None,
        local: Local::Socket(path.into()),
        target,
    })
}

/// A local end to listen on and the stream name of its connections; nothing left open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forward {
    /// Where to listen.
    pub local: Local,
    /// The device, or a module of it.
    pub identity: DeviceIdentity,
    /// The stream name.
    pub name: StreamName,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_table_of_specifications() {
        let v4 = |text: &str| Bind::Address(text.parse().unwrap());
        for (text, bind, port, target) in [
            ("2222", Bind::Loopback, 2222, None),
            ("0", Bind::Loopback, 0, None),
            ("2222:ssh", Bind::Loopback, 2222, Some("ssh")),
            ("2222:22", Bind::Loopback, 2222, Some("22")),
            ("localhost:2222", Bind::Loopback, 2222, None),
            (
                "LocalHost:2222:a.b-c_d",
                Bind::Loopback,
                2222,
                Some("a.b-c_d"),
            ),
            ("0.0.0.0:2222:rdp", v4("0.0.0.0"), 2222, Some("rdp")),
            ("127.0.0.1:0", v4("127.0.0.1"), 0, None),
            ("[::1]:2222:ssh", v4("::1"), 2222, Some("ssh")),
            ("[::]:2222", v4("::"), 2222, None),
            ("my-host:2222", Bind::Name("my-host".into()), 2222, None),
        ] {
            let spec: ForwardSpec = text.parse().unwrap();
            assert_eq!(spec.local, Local::Port(Place { bind, port }), "{text}");
            assert_eq!(
                spec.target.as_ref().map(StreamName::as_str),
                target,
                "{text}"
            );
        }
    }

    #[test]
    fn another_device_stands_before_a_slash() {
        let spec = |text: &str| text.parse::<ForwardSpec>();
        let other = spec("My:Device/127.0.0.1:2222:ssh").unwrap();
        assert_eq!(other.device.unwrap().as_str(), "My:Device");
        let here = spec("127.0.0.1:2222:ssh").unwrap();
        assert_eq!((other.local, other.target), (here.local, here.target));
        assert_eq!(here.device, None);
        #[cfg(unix)]
        {
            let socket = spec("d/unix:/run/x:docker").unwrap();
            assert_eq!(socket.local, Local::Socket("/run/x".into()));
            assert_eq!(socket.device.unwrap().as_str(), "d");
        }
        for bad in ["d/", "d/x", "d/e/1", "a b/1", "d/1:a/b"] {
            assert!(spec(bad).is_err(), "{bad}");
        }
        let error = spec("run me/x.sock").unwrap_err().to_string();
        assert!(error.contains("a path begins with"), "{error}");
    }

    #[test]
    fn what_is_no_specification() {
        for bad in [
            "",
            ":",
            "ssh",
            "99999",
            "2222:",
            "2222:a/b",
            "2222:localhost:22",
            "1.2.3.4",
            "1.2.3.999:1",
            ":2222",
            "::1:2222",
            "[::1]",
            "[::1]2222",
            "[x]:1",
            "a b:1",
            "host:",
            "host:x",
            "host:+1",
            "-1",
            "fe80::1:2222",
        ] {
            assert!(bad.parse::<ForwardSpec>().is_err(), "{bad}");
        }
        let error = "2222:localhost:22".parse::<ForwardSpec>().unwrap_err();
        assert!(error.to_string().contains("--target"), "{error}");
    }

    #[cfg(unix)]
    #[test]
    fn paths_are_unix_sockets() {
        for (text, path, target) in [
            ("/run/d.sock:docker", "/run/d.sock", Some("docker")),
            ("/run/d.sock", "/run/d.sock", None),
            ("./d.sock:a.b", "./d.sock", Some("a.b")),
            ("../d", "../d", None),
            ("unix:d.sock", "d.sock", None),
            ("unix:/a:b/c", "/a:b/c", None),
            ("unix:/a:b:c", "/a:b", Some("c")),
        ] {
            let spec: ForwardSpec = text.parse().unwrap();
            assert_eq!(spec.local, Local::Socket(path.into()), "{text}");
            let found = spec.target.as_ref().map(StreamName::as_str);
            assert_eq!(found, target, "{text}");
        }
        for bad in ["unix:", "unix::x", "/", "/run/", "/d.sock:", "/d.sock:a b"] {
            assert!(bad.parse::<ForwardSpec>().is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "(unix:|/|\\[|[0-9]{0,3})?[a-z0-9:./\\[\\]é ]{0,20}") {
            if let Ok(spec) = text.parse::<ForwardSpec>()
                && let Some(target) = spec.target
            {
                let behind = format!(":{target}");
                prop_assert!(text.ends_with(&behind));
            }
        }
    }
}
