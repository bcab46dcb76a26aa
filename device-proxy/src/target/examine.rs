//! Whether a target answers: it is connected to as for a stream, and what speaks first, or answers to
//! a first word, is looked at.

use std::fmt::Write as _;
use std::net::IpAddr;

use common::net::Dialer;
use common::{outside, report};
use futures_util::StreamExt as _;
use futures_util::stream;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::time::{Duration, Instant, timeout};

use super::{ReachError, Reached, Target, Targets};
use crate::limits;

/// Targets that are examined at once.
const AT_ONCE: usize = 8;
/// Targets that are examined at all: what is found of them fits into an answer.
const MOST: usize = 100;
/// The most bytes of a first word.
const WORD: usize = 256;
/// The most characters of it that are shown.
const SHOWN: usize = 60;
/// The first packet of an RDP client: a connection request of X.224 that offers TLS and CredSSP
/// (MS-RDPBCGR, 2.2.1.1).
const RDP_HELLO: [u8; 19] = [3, 0, 0, 19, 14, 0xe0, 0, 0, 0, 0, 0, 1, 0, 8, 0, 3, 0, 0, 0];

/// What was found of a target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Its name; `*` is the one without a name.
    pub name: String,
    /// Where it leads.
    pub target: String,
    /// How long it took.
    pub time: Duration,
    /// What it answers, or why it does not.
    pub verdict: Result<String, Fault>,
}

/// Why a target is of no use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// What is wrong.
    pub detail: String,
    /// What to do about it.
    pub remedy: &'static str,
}

impl Found {
    /// For another program.
    pub fn to_json(&self) -> Value {
        let (outcome, detail, remedy) = match &self.verdict {
            Ok(detail) => ("ok", detail, None),
            Err(fault) => ("failed", &fault.detail, Some(fault.remedy)),
        };
        json!({
            "name": self.name,
            "target": self.target,
            "outcome": outcome,
            "milliseconds": (self.time.as_secs_f64() * 1e6).round() / 1e3,
            "detail": detail,
            "remedy": remedy,
        })
    }
}

/// What a service says first, as far as its port or name tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Protocol {
    Ssh,
    Rdp,
    Vnc,
    Unknown,
}

impl Protocol {
    fn of(name: &str, target: &Target) -> Self {
        let port = match target {
            Target::Tcp { port, .. } => *port,
            Target::Unix(_) | Target::Echo => return Self::Unknown,
        };
        match (name, port) {
            ("ssh" | "sftp", _) | (_, 22) => Self::Ssh,
            ("rdp", _) | (_, 3389) => Self::Rdp,
            ("vnc", _) | (_, 5900) => Self::Vnc,
            _ => Self::Unknown,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Ssh => "SSH",
            Self::Rdp => "RDP",
            Self::Vnc => "VNC",
            Self::Unknown => "",
        }
    }

    fn begins(self) -> &'static [u8] {
        match self {
            Self::Ssh => b"SSH-",
            Self::Rdp => &[3, 0],
            Self::Vnc => b"RFB ",
            Self::Unknown => b"",
        }
    }
}

/// Whether an address may be dialled for a target.
pub type Permits<'a> = dyn Fn(&Target, IpAddr) -> bool + Sync + 'a;

impl Targets {
    /// The names of those that are RDP servers, as far as name or port tells.
    pub fn rdp(&self) -> impl Iterator<Item = &str> {
        let is_rdp = |name: &&str| {
            let target = self.configured(name);
            target.is_some_and(|target| Protocol::of(name, target) == Protocol::Rdp)
        };
        self.names().filter(is_rdp)
    }

    /// Examines those of these names, or all of them, at addresses that `permits` allows for each.
    /// May be dropped.
    pub async fn examine(
        &self,
        dialer: &Dialer,
        permits: &Permits<'_>,
        names: Option<&[String]>,
    ) -> Vec<Found> {
        let all: Vec<(String, Target)> = match names {
            None => self
                .names()
                .filter_map(|name| Some((name.to_owned(), self.configured(name)?.clone())))
                .take(MOST)
                .collect(),
            Some(names) => names
                .iter()
                .take(MOST)
                .filter_map(|name| Some((name.clone(), self.select(name)?.clone())))
                .collect(),
        };
        stream::iter(all)
            .map(|(name, target)| {
                let dialer = dialer.clone();
                async move { examine(&name, &target, &dialer, permits).await }
            })
            .buffered(AT_ONCE)
            .collect()
            .await
    }
}

/// Examines one. Ends within [`limits::TARGET_CONNECT`] and [`limits::TARGET_WORD`]. May be dropped.
async fn examine(name: &str, target: &Target, dialer: &Dialer, permits: &Permits<'_>) -> Found {
    let begun = Instant::now();
    let verdict = match target {
        Target::Echo => Ok("answers by itself".to_owned()),
        target => match target
            .reach(dialer, &|address| permits(target, address), false)
            .await
        {
            Ok(socket) => first_word(socket, Protocol::of(name, target)).await,
            Err(error) => Err(Fault {
                remedy: unreached(&error),
                detail: report::chain(&error),
            }),
        },
    };
    Found {
        name: name.to_owned(),
        target: target.to_string(),
        time: begun.elapsed(),
        verdict,
    }
}

fn unreached(error: &ReachError) -> &'static str {
    use common::session::RefusedCode;
    match error.code() {
        RefusedCode::TargetRefused => {
            "start the service on the device, or correct the target's port"
        }
        RefusedCode::TimedOut => {
            "the target's host is off, or a firewall there swallows the packets"
        }
        _ => "check the target's host name and the device's network",
    }
}

async fn first_word(mut socket: Reached, protocol: Protocol) -> Result<String, Fault> {
    if protocol == Protocol::Unknown {
        return Ok("accepts connections".to_owned());
    }
    let talking = async {
        if protocol == Protocol::Rdp {
            socket.write_all(&RDP_HELLO).await?;
        }
        let mut word = vec![0; WORD];
        let count = socket.read(&mut word).await?;
        word.truncate(count);
        std::io::Result::Ok(word)
    };
    let kind = protocol.name();
    match timeout(limits::TARGET_WORD, talking).await {
        Err(_) => Err(Fault {
            detail: format!(
                "accepts connections, and sends nothing within {} s, as {kind} servers do",
                limits::TARGET_WORD.as_secs()
            ),
            remedy: "the service hangs, or something before it: restart it",
        }),
        Ok(Err(error)) => Err(Fault {
            detail: format!("accepts connections and breaks them: {error}"),
            remedy: "look at the service's own log",
        }),
        Ok(Ok(word)) if word.is_empty() => Err(Fault {
            detail: "accepts connections and closes them at once".to_owned(),
            remedy: "look at the service's own log: it may refuse this address",
        }),
        Ok(Ok(word)) if word.starts_with(protocol.begins()) => Ok(match protocol {
            Protocol::Rdp => "answers as an RDP server".to_owned(),
            _ => format!("answers {}", shown(&word)),
        }),
        Ok(Ok(word)) => Err(Fault {
            detail: format!("what answers there is no {kind} server: {}", shown(&word)),
            remedy: "correct the target's port, or its name",
        }),
    }
}

/// The first line, for a person.
fn shown(word: &[u8]) -> String {
    let line = word.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let mut text = String::new();
    for c in String::from_utf8_lossy(line).trim().chars().take(SHOWN) {
        if !outside::is_unprintable(c) && c != char::REPLACEMENT_CHARACTER {
            let _ = write!(text, "{c}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    async fn found(name: &str, word: Option<&'static [u8]>) -> Found {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let serving = tokio::spawn(async move {
            let (mut socket, _) = listener.accept().await.unwrap();
            if let Some(word) = word {
                socket.write_all(word).await.unwrap();
            }
            let _ = socket.read_u8().await;
            // An RDP client's first packet is longer.
            if word.is_none() {
                std::future::pending::<()>().await;
            }
        });
        let targets = Targets::parse(&[format!("{name}={address}")], true).unwrap();
        let tls = common::tls::client_config(
            Some(std::path::Path::new(concat!(
                env!("CARGO_MANIFEST_DIR"),
                "/testdata/ca.pem"
            ))),
            None,
        );
        let dialer = Dialer::new(&tls.unwrap());
        let names = [name.to_owned(), "nothing".to_owned()];
        let mut all = targets.examine(&dialer, &|_, _| true, Some(&names)).await;
        serving.abort();
        assert_eq!(all.len(), 1);
        all.remove(0)
    }

    #[tokio::test]
    async fn what_answers_is_named() {
        let ssh = found("ssh", Some(b"SSH-2.0-x\x1b[2J\r\nrest")).await;
        assert_eq!(ssh.verdict, Ok("answers SSH-2.0-x[2J".to_owned()));
        let other = found("ssh", Some(b"HTTP/1.1 400 Bad\r\n")).await;
        let fault = other.verdict.unwrap_err();
        assert_eq!(
            fault.detail,
            "what answers there is no SSH server: HTTP/1.1 400 Bad"
        );
        let rdp = found("rdp", Some(&[3, 0, 0, 11])).await;
        assert!(rdp.verdict.is_ok());
        let any = found("web", Some(b"x")).await;
        assert_eq!(any.verdict, Ok("accepts connections".to_owned()));
    }

    #[test]
    fn rdp_servers_are_known_by_name_or_port() {
        let texts = [
            "rdp=localhost:1",
            "desk=10.0.0.5:3389",
            "ssh=localhost:22",
            "localhost:3389",
        ];
        let targets = Targets::parse(&texts.map(str::to_owned), true).unwrap();
        let mut names: Vec<_> = targets.rdp().collect();
        names.sort_unstable();
        assert_eq!(names, ["*", "desk", "rdp"]);
    }

    #[tokio::test(start_paused = true)]
    async fn what_says_nothing_is_not_waited_for_for_ever() {
        let silent = found("ssh", None).await;
        let fault = silent.verdict.unwrap_err();
        assert!(fault.detail.contains("sends nothing within 3 s"));
    }
}
