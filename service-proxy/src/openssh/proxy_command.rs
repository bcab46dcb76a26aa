//! The command by which ssh reaches a device: this program's own `connect`.

use std::path::Path;

use common::identity::{DeviceId, StreamName};

use crate::config::ServiceConnection;
use crate::host_names::{Suffix, host_of};

/// The command by which ssh connects to a device, with ssh's own `%` doubled.
pub fn to_device(
    program: &Path,
    connection: &ServiceConnection,
    device: &DeviceId,
    target: &StreamName,
) -> String {
    let program = program.display().to_string();
    let words = words(&program, connection, None);
    let words = words.chain(["--", device.as_str(), target.as_str()]);
    joined(words)
}

/// The values of ssh's option `-o` for a device, which is the host [`host_of`] names. The first value
/// of an option counts: these come before those of a person, and those before ssh's configuration.
pub fn options(
    program: &Path,
    connection: &ServiceConnection,
    device: &DeviceId,
    target: &StreamName,
) -> [String; 2] {
    let proxy = to_device(program, connection, device, target);
    [
        format!("ProxyCommand={proxy}"),
        format!("HostKeyAlias={}", host_of(device)),
    ]
}

/// The command by which ssh connects to the device of the host name that it was given, in the case
/// in which it was given.
pub fn to_host(
    program: &Path,
    connection: &ServiceConnection,
    suffix: &Suffix,
    target: &StreamName,
) -> String {
    let (program, suffix) = (program.display().to_string(), suffix.to_string());
    let before = joined(words(&program, connection, Some(&suffix)));
    let target = quoted(target.as_str());
    // ssh refuses host names with characters of a shell.
    format!("{before} -- %n {target}")
}

fn words<'a>(
    program: &'a str,
    connection: &'a ServiceConnection,
    suffix: Option<&'a str>,
) -> impl Iterator<Item = &'a str> {
    let suffix = suffix.into_iter().flat_map(|suffix| ["--suffix", suffix]);
    let options = connection.options.iter().map(String::as_str);
    [program, "connect"]
        .into_iter()
        .chain(options)
        .chain(suffix)
}

fn joined<'a>(words: impl Iterator<Item = &'a str>) -> String {
    let quoted: Vec<String> = words.map(quoted).collect();
    quoted.join(" ").replace('%', "%%")
}

/// A word as the shell takes it that ssh starts.
pub fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-._/:=@,+".contains(c);
    if !word.is_empty() && word.chars().all(is_plain) {
        return word.to_owned();
    }
    if cfg!(windows) {
        return format!("\"{}\"", word.replace('"', ""));
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(all(test, unix))]
mod tests {
    use super::*;

    fn connection() -> ServiceConnection {
        ServiceConnection {
            options: vec!["--ca-file".to_owned(), "/home/a b/ca%.pem".to_owned()],
            secrets: Vec::new(),
        }
    }

    #[test]
    fn every_word_arrives_as_it_is() {
        let command = |device| {
            let device = DeviceId::parse(device).unwrap();
            let target = StreamName::parse("ssh").unwrap();
            to_device(
                Path::new("/bin/service-proxy"),
                &connection(),
                &device,
                &target,
            )
        };
        assert_eq!(
            command("MyDevice"),
            "/bin/service-proxy connect --ca-file '/home/a b/ca%%.pem' -- MyDevice ssh"
        );
        assert!(command("$(a)'%h").ends_with(r"-- '$(a)'\''%%h' ssh"));
    }

    #[test]
    fn a_host_name_is_ssh_s_own() {
        let target = StreamName::parse("ssh").unwrap();
        let suffix = Suffix::default();
        assert_eq!(
            to_host(
                Path::new("/a b/service-proxy"),
                &connection(),
                &suffix,
                &target
            ),
            "'/a b/service-proxy' connect --ca-file '/home/a b/ca%%.pem' --suffix device -- %n ssh"
        );
    }
}
