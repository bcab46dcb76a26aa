//! What ends a session from inside, whatever the tunnel does: the probes that ssh and sshd send each
//! other, and what happens when they are not answered; limits of Windows on RDP.

use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::process::Command;
use tokio::time::timeout;

/// How long a program may take to print its configuration.
const PRINT: Duration = Duration::from_secs(3);

/// How often a side asks the other for a sign of life, and how many times without an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Alive {
    /// Seconds; 0: never.
    pub interval: u64,
    /// Questions without an answer, after which the session is ended; 0: it is not ended.
    pub count: u64,
}

impl Alive {
    /// After how many seconds without an answer a session ends; `None`: never.
    pub fn ends_after(self) -> Option<u64> {
        (self.interval > 0 && self.count > 0).then(|| self.interval.saturating_mul(self.count))
    }

    /// Reads it from what `ssh -G` or `sshd -T` prints, or from a configuration file. The first value
    /// of a name counts. `None` where neither name occurs.
    pub fn read(text: &str, interval: &str, count: &str) -> Option<Self> {
        let value = |name: &str| {
            let mut lines = text.lines();
            lines.find_map(|line| {
                let line = line.trim();
                let (key, value) = line.split_once(|c: char| c.is_whitespace() || c == '=')?;
                if !key.eq_ignore_ascii_case(name) {
                    return None;
                }
                seconds(value.trim_matches(|c: char| c.is_whitespace() || c == '=' || c == '"'))
            })
        };
        let (interval, count) = (value(interval), value(count));
        if interval.is_none() && count.is_none() {
            return None;
        }
        Some(Self {
            interval: interval.unwrap_or(0),
            // The default of both programs.
            count: count.unwrap_or(3),
        })
    }

    /// sshd's, as it prints or is told them.
    pub fn of_sshd(text: &str) -> Option<Self> {
        Self::read(text, "ClientAliveInterval", "ClientAliveCountMax")
    }

    /// ssh's, as it prints them.
    pub fn of_ssh(text: &str) -> Option<Self> {
        Self::read(text, "ServerAliveInterval", "ServerAliveCountMax")
    }

    /// For another program.
    pub fn to_json(self) -> Value {
        json!({ "interval": self.interval, "count": self.count })
    }

    /// The reverse.
    pub fn from_json(value: &Value) -> Option<Self> {
        Some(Self {
            interval: value.get("interval")?.as_u64()?,
            count: value.get("count")?.as_u64()?,
        })
    }
}

/// For the end of a sentence: what is not known of the RDP targets of these names. Nothing where there
/// are none.
pub fn of_rdp(names: &[&str]) -> String {
    let names = names.iter().map(|name| match *name {
        "*" => "the default target",
        name => name,
    });
    let names = names.collect::<Vec<_>>().join(", ");
    match &*names {
        "" => names,
        _ => format!(
            "; Windows may end idle sessions of {names} by policies that are not read here (MaxIdleTime, MaxDisconnectionTime): see docs/troubleshooting.md"
        ),
    }
}

/// Seconds as OpenSSH writes them: `90`, `90s`, `2m`, `1h30m`.
fn seconds(text: &str) -> Option<u64> {
    let text = text.split_whitespace().next()?;
    let (mut total, mut number) = (0u64, None::<u64>);
    for c in text.chars() {
        if let Some(digit) = c.to_digit(10) {
            let so_far = number.unwrap_or(0).checked_mul(10)?;
            number = Some(so_far.checked_add(digit.into())?);
            continue;
        }
        let unit = match c.to_ascii_lowercase() {
            's' => 1,
            'm' => 60,
            'h' => 3600,
            'd' => 86_400,
            'w' => 7 * 86_400,
            _ => return None,
        };
        total = total.checked_add(number.take()?.checked_mul(unit)?)?;
    }
    total.checked_add(number.unwrap_or(0))
}

/// What ssh would do on this machine with a session to this host; `None` where there is no ssh, or it
/// does not say. ssh connects to nothing for it. May be dropped.
pub async fn of_ssh(host: &str) -> Option<Alive> {
    Alive::of_ssh(&printed("ssh", &["-G", "--", host]).await?)
}

/// What a program of the system prints; `None` if it is missing, fails or takes too long.
async fn printed(program: &str, arguments: &[&str]) -> Option<String> {
    let running = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .output();
    let output = timeout(PRINT, running).await.ok()?.ok()?;
    output
        .status
        .success()
        .then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

/// What sshd on this machine does, and where that is written. sshd prints it for root alone; others
/// may be able to read its files. `None` where neither works. May be dropped.
pub async fn of_sshd() -> Option<(Alive, &'static str)> {
    for program in ["sshd", "/usr/sbin/sshd"] {
        if let Some(text) = printed(program, &["-T"]).await {
            return Some((Alive::of_sshd(&text)?, "sshd -T"));
        }
    }
    let reading = tokio::task::spawn_blocking(|| of_files(std::path::Path::new("/etc/ssh")));
    Some((reading.await.ok()??, "/etc/ssh/sshd_config"))
}

/// sshd's files in this folder: first those that Debian's file includes first.
fn of_files(folder: &std::path::Path) -> Option<Alive> {
    let main = std::fs::read_to_string(folder.join("sshd_config")).ok()?;
    let mut text = String::new();
    let mut included: Vec<_> = std::fs::read_dir(folder.join("sshd_config.d"))
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "conf")
        })
        .collect();
    included.sort();
    for path in included {
        text.push_str(&std::fs::read_to_string(path).unwrap_or_default());
        text.push('\n');
    }
    text.push_str(&main);
    // What stands behind the first `Match` is for some sessions only.
    let end = text
        .lines()
        .position(|line| line.trim_start().to_ascii_lowercase().starts_with("match "));
    let text: Vec<&str> = text.lines().take(end.unwrap_or(usize::MAX)).collect();
    // sshd's own defaults, where its files say nothing.
    let default = Alive {
        interval: 0,
        count: 3,
    };
    Some(Alive::of_sshd(&text.join("\n")).unwrap_or(default))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_of_windows_are_named_where_there_is_rdp() {
        assert_eq!(of_rdp(&[]), "");
        let text = of_rdp(&["rdp", "*"]);
        assert!(
            text.contains("sessions of rdp, the default target by"),
            "{text}"
        );
    }

    #[test]
    fn openssh_s_words_are_read() {
        let printed = "user ada\nserveraliveinterval 15\nserveralivecountmax 4\n";
        let alive = Alive::of_ssh(printed).unwrap();
        assert_eq!(alive.ends_after(), Some(60));
        assert_eq!(Alive::from_json(&alive.to_json()), Some(alive));
        let file = "# ClientAliveInterval 9\nClientAliveInterval=2m\nclientaliveinterval 7\n";
        let alive = Alive::of_sshd(file).unwrap();
        assert_eq!((alive.interval, alive.count), (120, 3));
        let off = Alive::of_sshd("ClientAliveInterval 60\nClientAliveCountMax 0").unwrap();
        assert_eq!(off.ends_after(), None);
        assert_eq!(Alive::of_sshd("Port 22"), None);
        for (text, expected) in [
            ("1h30m", Some(5400)),
            ("90", Some(90)),
            ("x", None),
            ("5x", None),
            ("99999999999999999999", None),
            ("", None),
        ] {
            assert_eq!(seconds(text), expected, "{text}");
        }
    }

    #[test]
    fn sshds_files_are_read_in_its_order() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(of_files(folder.path()), None);
        let main = folder.path().join("sshd_config");
        std::fs::write(
            &main,
            "ClientAliveInterval 30\nMatch User x\nClientAliveCountMax 9\n",
        )
        .unwrap();
        let found = of_files(folder.path()).unwrap();
        assert_eq!((found.interval, found.count), (30, 3));
        std::fs::create_dir(folder.path().join("sshd_config.d")).unwrap();
        let first = folder.path().join("sshd_config.d/a.conf");
        std::fs::write(first, "ClientAliveInterval 0").unwrap();
        assert_eq!(of_files(folder.path()).unwrap().ends_after(), None);
    }
}
