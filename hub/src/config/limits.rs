//! `[limits]` of the configuration file. There are no options and no variables for these.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

use common::settings::{self, Key, SettingError, Sources};

use crate::limits::Limits;

const CONNECTIONS: Key = Key::new("limits.connections");
const STRANGERS: Key = Key::new("limits.strangers");
const STRANGERS_SHARE: Key = Key::new("limits.strangers-share");
const HANDSHAKE: Key = Key::new("limits.handshake-seconds");
const REFUSALS: Key = Key::new("limits.refusals");
const REFUSALS_PER_SECOND: Key = Key::new("limits.refusals-per-second");
const STREAMS: Key = Key::new("limits.streams");
const UNJOINED: Key = Key::new("limits.unjoined");
const UNJOINED_PER_DEVICE: Key = Key::new("limits.unjoined-per-device");
const UNJOINED_PER_POLICY: Key = Key::new("limits.unjoined-per-policy");
const PENDING_PER_DEVICE: Key = Key::new("limits.pending-per-device");
const BODY: Key = Key::new("limits.body-bytes");
const BODY_TIME: Key = Key::new("limits.body-seconds");
const DRAIN: Key = Key::new("limits.drain-seconds");

/// What `[limits]` may hold.
pub(super) const IN_FILE: [Key; 14] = [
    CONNECTIONS,
    STRANGERS,
    STRANGERS_SHARE,
    HANDSHAKE,
    REFUSALS,
    REFUSALS_PER_SECOND,
    STREAMS,
    UNJOINED,
    UNJOINED_PER_DEVICE,
    UNJOINED_PER_POLICY,
    PENDING_PER_DEVICE,
    BODY,
    BODY_TIME,
    DRAIN,
];

/// The limits of the file, and today's numbers for the others.
pub(super) fn resolve(sources: &Sources<'_>) -> Result<Limits, SettingError> {
    let default = Limits::default();
    let look = Look(sources);
    Ok(Limits {
        connections: look.number(CONNECTIONS, 1..=1_000_000, default.connections)?,
        // With fewer places, and a share of one, a single address would keep all others out.
        strangers: look.number(STRANGERS, 16..=1_000_000, default.strangers)?,
        strangers_share: look.number(STRANGERS_SHARE, 1..=1_000, default.strangers_share)?,
        handshake: look.seconds(HANDSHAKE, 1..=300, default.handshake)?,
        refusals: look.number(REFUSALS, whole(1)..=whole(1_000_000), default.refusals)?,
        refusals_per_second: look.number(
            REFUSALS_PER_SECOND,
            whole(1)..=whole(1_000_000),
            default.refusals_per_second,
        )?,
        streams: look.number(STREAMS, 1..=10_000_000, default.streams)?,
        unjoined: look.number(UNJOINED, 1..=10_000_000, default.unjoined)?,
        unjoined_per_device: look.number(
            UNJOINED_PER_DEVICE,
            1..=10_000_000,
            default.unjoined_per_device,
        )?,
        unjoined_per_policy: look.number(
            UNJOINED_PER_POLICY,
            1..=10_000_000,
            default.unjoined_per_policy,
        )?,
        pending_per_device: look.number(
            PENDING_PER_DEVICE,
            1..=1_000_000,
            default.pending_per_device,
        )?,
        // The largest patch of a twin has to fit, and all is held in memory.
        body: look.number(BODY, crate::limits::TWIN_PATCH..=64 << 20, default.body)?,
        body_time: look.seconds(BODY_TIME, 1..=3_600, default.body_time)?,
        drain: look.seconds(DRAIN, 0..=86_400, default.drain)?,
    })
}

struct Look<'a>(&'a Sources<'a>);

impl Look<'_> {
    fn number<T: FromStr + PartialOrd + Display>(
        &self,
        key: Key,
        bounds: RangeInclusive<T>,
        default: T,
    ) -> Result<T, SettingError> {
        let parse = |text: &str| settings::number(text, bounds);
        self.0.value(key, None, parse, default)
    }

    fn seconds(
        &self,
        key: Key,
        bounds: RangeInclusive<u64>,
        default: Duration,
    ) -> Result<Duration, SettingError> {
        let seconds = self.number(key, bounds, default.as_secs())?;
        Ok(Duration::from_secs(seconds))
    }
}

/// A number that is not zero, whatever it is.
const fn whole(number: u32) -> std::num::NonZeroU32 {
    std::num::NonZeroU32::MIN.saturating_add(number.saturating_sub(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(text: &str) -> Result<Limits, String> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        let environment = |_: &str| None;
        let path = file.path().to_path_buf();
        let sources = Sources::open(Key::new("config"), Some(path), &environment, &IN_FILE);
        let found = sources.and_then(|sources| resolve(&sources));
        let name = file.path().display().to_string();
        found.map_err(|error| error.to_string().replace(&name, "f.toml"))
    }

    #[test]
    fn what_is_not_given_stays() {
        assert_eq!(limits("").unwrap(), Limits::default());
        let changed = "[limits]\nstreams = 3\nunjoined = 4\nunjoined-per-device = 5\n\
            unjoined-per-policy = 6\ndrain-seconds = 0\nrefusals = 7";
        let changed = limits(changed).unwrap();
        let expected = Limits {
            streams: 3,
            unjoined: 4,
            unjoined_per_device: 5,
            unjoined_per_policy: 6,
            drain: Duration::ZERO,
            refusals: whole(7),
            ..Limits::default()
        };
        assert_eq!(changed, expected);
    }

    #[test]
    fn one_sentence_names_the_bounds() {
        for (line, said) in [
            (
                "streams = 0",
                "limits.streams: give a whole number from 1 to 10000000",
            ),
            (
                "handshake-seconds = 301",
                "limits.handshake-seconds: give a whole number from 1 to 300",
            ),
            (
                "body-bytes = 1",
                "limits.body-bytes: give a whole number from 65536 to 67108864",
            ),
            (
                "refusals = 0",
                "limits.refusals: give a whole number from 1 to 1000000",
            ),
            (
                "strangers = '5 %'",
                "limits.strangers: give a whole number from 16 to 1000000",
            ),
            ("stream = 1", "limits.stream is no setting"),
        ] {
            let error = limits(&format!("[limits]\n{line}")).unwrap_err();
            assert!(
                error.starts_with(&format!("f.toml, line 2: {said}")),
                "{error}"
            );
        }
    }
}
