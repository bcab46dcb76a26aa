//! How ssh reaches a device: by a ProxyCommand that is this program's own `connect`.

use std::path::Path;

use common::identity::DeviceId;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::config::ServiceConnection;
use common::identity::StreamName;

/// What stands as itself in a host's name, a known_hosts file and a shell.
const PLAIN: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_');

/// The command by which ssh connects to a device, with ssh's own `%` doubled.
pub(super) fn proxy_command(
    program: &Path,
    connection: &ServiceConnection,
    device: &DeviceId,
    target: &StreamName,
) -> String {
    let program = program.display().to_string();
    let words = [program.as_str(), "connect"].into_iter();
    let words = words
        .chain(connection.options.iter().map(String::as_str))
        .chain(["--", device.as_str(), target.as_str()]);
    let quoted: Vec<String> = words.map(quoted).collect();
    quoted.join(" ").replace('%', "%%")
}

/// The name of a device as a host's: ssh refuses some of the characters that ids may have, and takes
/// others for patterns, so that one device could pass for another in known_hosts. Ids of letters,
/// digits, `-`, `.` and `_` stay as they are.
pub(super) fn host(device: &DeviceId) -> String {
    let host = utf8_percent_encode(device.as_str(), PLAIN).to_string();
    match host.strip_prefix('-') {
        Some(rest) => format!("%2D{rest}"),
        None => host,
    }
}

/// A word as a shell takes it.
pub(super) fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-._/:=@,+".contains(c);
    if !word.is_empty() && word.chars().all(is_plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_arrives_as_it_is() {
        let connection = ServiceConnection {
            options: vec!["--ca-file".to_owned(), "/home/a b/ca.pem".to_owned()],
            secret: None,
        };
        let command = |device| {
            let device = DeviceId::parse(device).unwrap();
            let target = StreamName::parse("ssh").unwrap();
            proxy_command(
                Path::new("/bin/service-proxy"),
                &connection,
                &device,
                &target,
            )
        };
        assert_eq!(
            command("MyDevice"),
            "/bin/service-proxy connect --ca-file '/home/a b/ca.pem' -- MyDevice ssh"
        );
        assert!(command("$(a)'%h").ends_with(r"-- '$(a)'\''%%h' ssh"));
    }

    #[test]
    fn no_device_passes_for_another() {
        let of = |device| host(&DeviceId::parse(device).unwrap());
        assert_eq!(of("My_Device-1.x"), "My_Device-1.x");
        assert_eq!(of("*"), "%2A");
        assert_eq!(of("a,b"), "a%2Cb");
        assert_eq!(of("-oProxyCommand=x"), "%2DoProxyCommand%3Dx");
        assert_eq!(of("%2A"), "%252A");
    }
}
