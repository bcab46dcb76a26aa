//! What a running program carries, for a person who asks: `status` of both proxies. A program
//! listens on a socket, on Windows a pipe, that only its own user reaches, and answers with one line of
//! JSON for each time that it is asked. There are no secrets in it.
//!
//! The documents of both proxies have the same members, as far as they have the same parts:
//! `program`, `version`, `pid`, `upSeconds`, `hubs`, `forwards` or `targets`, `sessions`, `streams`
//! and `totals`.

mod client;
#[cfg(windows)]
mod pipe;
mod print;
mod serve;
#[cfg(unix)]
mod socket;
mod watch;

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::Args;
use device_stream_session::SharedSession;
use serde_json::{Map, Value, json};
use tokio::time::Instant;

#[cfg(windows)]
use self::pipe as local;
pub use self::print::print;
#[cfg(unix)]
use self::socket as local;

/// Where a program listens for `status`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Place {
    /// In the folder for that of this user.
    #[default]
    Usual,
    /// At this path.
    At(PathBuf),
    /// Nowhere.
    Off,
}

/// What the name of every pipe of a machine begins with.
#[cfg(windows)]
const PIPES: &str = r"\\.\pipe\";

impl FromStr for Place {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "off" => Ok(Self::Off),
            path if is_address(path) && !path.contains(char::is_control) => {
                Ok(Self::At(path.into()))
            }
            _ => Err(ADDRESS),
        }
    }
}

#[cfg(not(windows))]
const ADDRESS: &str = "give the path of a socket, with at most 103 bytes, or off";
#[cfg(windows)]
const ADDRESS: &str = r"give the name of a pipe, as \\.\pipe\NAME, or off";

/// The folder of a socket is not made for it, and its address is short: so many bytes on every
/// system (`sun_path` of macOS, without its end).
#[cfg(not(windows))]
fn is_address(path: &str) -> bool {
    (1..=103).contains(&path.len())
}

/// A name has no backslash, and with what it begins with at most 256 characters (Microsoft,
/// "CreateNamedPipeA function").
#[cfg(windows)]
fn is_address(path: &str) -> bool {
    let name = path.strip_prefix(PIPES);
    name.is_some_and(|name| !name.is_empty() && !name.contains('\\')) && path.len() <= 256
}

/// Options of `status`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
pub struct Asked {
    /// Ask the program with this socket, on Windows pipe (its --status-socket), and no other.
    #[arg(long, value_name = "PATH")]
    pub socket: Option<PathBuf>,

    /// Print JSON: a list with one document for each program.
    #[arg(long)]
    pub json: bool,

    /// Draw the status on the whole terminal, again each second, until q or Ctrl-C is typed.
    #[arg(long, conflicts_with = "json")]
    pub watch: bool,
}

/// Why there is no status.
#[derive(Debug, thiserror::Error)]
pub enum StatusError {
    /// No program runs.
    #[error("no {0} of this user runs here, or it has no status socket (--status-socket)")]
    None(&'static str),
    /// A socket does not answer.
    #[error("no answer from {}", path.display())]
    Unreachable {
        /// The socket.
        path: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
    /// There is no terminal to draw on.
    #[error("--watch needs a terminal; use --json for programs")]
    NoTerminal(#[source] std::io::Error),
}

/// Answers those who ask, for as long as the future is kept; `snapshot` makes the document. A place
/// that cannot be listened on is reported in the log, and no reason to end.
pub async fn serve(
    program: &'static str,
    place: &Place,
    snapshot: impl Fn() -> Value,
) -> std::convert::Infallible {
    match serve::bind(program, place) {
        Ok(Some(listener)) => return serve::run(listener, snapshot).await,
        Ok(None) => {}
        Err(error) => tracing::warn!("{}", crate::report::chain(&error)),
    }
    std::future::pending().await
}

/// Prints the status of this program, of all instances that this user may ask. Until `stop`
/// resolves, if it is watched.
///
/// # Errors
/// [`StatusError`].
pub async fn ask(program: &'static str, asked: Asked) -> Result<(), StatusError> {
    if asked.watch {
        return watch::run(program, &asked).await;
    }
    let documents = client::all(program, asked.socket.as_deref()).await?;
    let text = match asked.json {
        true => print::json(&documents),
        false => print::print(&documents, None),
    };
    crate::output::stdout().text(&text);
    Ok(())
}

/// The members of a document, or of a part of it.
pub type Members = Map<String, Value>;

/// The members of an object.
pub fn members(object: Value) -> Members {
    match object {
        Value::Object(members) => members,
        _ => Members::new(),
    }
}

/// What every document begins with.
pub fn about(program: &str, version: &str, started: Instant) -> Members {
    members(json!({
        "program": program,
        "version": version,
        "pid": std::process::id(),
        "upSeconds": seconds(started.elapsed()),
    }))
}

/// One session.
pub fn session(live: &SharedSession, device: Option<&str>, target: &str) -> Value {
    let figures = live.figures();
    let detached = live.detached_since();
    let mut session = members(json!({
        "id": live.id().to_string(),
        "target": target,
        "upSeconds": seconds(figures.began().elapsed()),
        "connections": live.connections(),
        "sent": figures.traffic().sent(),
        "received": figures.traffic().received(),
        "held": live.held(),
        "resumes": figures.resumes(),
        "state": if detached.is_some() { "interrupted" } else { "up" },
    }));
    if let Some(device) = device {
        session.insert("device".to_owned(), device.into());
    }
    if let Some(since) = detached {
        session.insert(
            "interruptedSeconds".to_owned(),
            seconds(since.elapsed()).into(),
        );
        let trouble = figures.trouble();
        if !trouble.is_empty() {
            session.insert("trouble".to_owned(), trouble.into());
        }
    } else if let Some(round_trip) = live.round_trip() {
        let ms = (round_trip.as_secs_f64() * 100_000.0).round() / 100.0;
        session.insert("roundTripMs".to_owned(), ms.into());
    }
    Value::Object(session)
}

/// Seconds with one decimal.
pub fn seconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 10.0).round() / 10.0
}

#[cfg(test)]
mod tests {
    use device_stream_session::{Role, SessionId};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_session_says_how_it_is() {
        let live = SharedSession::new(SessionId([0xab; 16]), Role::Device);
        let _ = live.attach(&live.freeze(), 0).unwrap();
        live.figures().traffic().add_sent(7);
        tokio::time::advance(Duration::from_secs(12)).await;
        let up = session(&live, Some("MyDevice"), "ssh");
        assert_eq!(up["state"], "up");
        assert_eq!(up["upSeconds"], 12.0);
        assert_eq!(
            (&up["device"], &up["sent"]),
            (&json!("MyDevice"), &json!(7))
        );
        let frozen = live.freeze();
        live.figures().set_trouble("no way");
        let down = session(&live, None, "ssh");
        assert_eq!(
            (&down["state"], &down["trouble"]),
            (&json!("interrupted"), &json!("no way"))
        );
        assert!(down["interruptedSeconds"].is_f64());
        let _ = live.attach(&frozen, 0).unwrap();
        let again = session(&live, None, "ssh");
        assert_eq!(
            (&again["state"], &again["resumes"]),
            (&json!("up"), &json!(1))
        );
        assert_eq!(again.get("trouble"), None);
    }

    #[test]
    fn places_are_read() {
        assert_eq!("off".parse(), Ok(Place::Off));
        let (good, other) = match cfg!(windows) {
            true => (
                r"\\.\pipe\x",
                [r"\\.\pipe\", r"\\.\pipe\x\y", r"\\server\pipe\x"],
            ),
            false => ("/run/x.sock", ["", "/run/\nx.sock", "/run/\0x.sock"]),
        };
        assert_eq!(good.parse(), Ok(Place::At(good.into())));
        for other in other {
            assert!(other.parse::<Place>().is_err(), "{other:?}");
        }
    }
}
