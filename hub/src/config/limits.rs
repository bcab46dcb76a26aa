//! `[limits]` of the configuration file. There are no options and no variables for these.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

use common::settings::{self, Key, SettingError, Sources, Tables};

use crate::limits::{Limit, Limits, Share};

const CONNECTIONS: Key = Key::new("limits.connections");
const STRANGERS: Key = Key::new("limits.strangers");
const STRANGERS_SHARE: Key = Key::new("limits.strangers-share");
const STRANGERS_PER_ADDRESS: Key = Key::new("limits.strangers-per-address");
const HANDSHAKE: Key = Key::new("limits.handshake-seconds");
const REFUSALS: Key = Key::new("limits.refusals");
const REFUSALS_PER_SECOND: Key = Key::new("limits.refusals-per-second");
const STREAMS: Key = Key::new("limits.streams");
const UNJOINED: Key = Key::new("limits.unjoined");
const UNJOINED_PER_DEVICE: Key = Key::new("limits.unjoined-per-device");
const UNJOINED_PER_POLICY: Key = Key::new("limits.unjoined-per-policy");
const PENDING_PER_DEVICE: Key = Key::new("limits.pending-per-device");
const PACKET: Key = Key::new("limits.packet-bytes");
const BODY: Key = Key::new("limits.body-bytes");
const BODY_TIME: Key = Key::new("limits.body-seconds");
const DRAIN: Key = Key::new("limits.drain-seconds");

/// What `[limits]` may hold beside the tables in it.
const ALONE: [Key; 16] = [
    CONNECTIONS,
    STRANGERS,
    STRANGERS_SHARE,
    STRANGERS_PER_ADDRESS,
    HANDSHAKE,
    REFUSALS,
    REFUSALS_PER_SECOND,
    STREAMS,
    UNJOINED,
    UNJOINED_PER_DEVICE,
    UNJOINED_PER_POLICY,
    PENDING_PER_DEVICE,
    PACKET,
    BODY,
    BODY_TIME,
    DRAIN,
];

/// The settings of a share, with what stands before their names.
macro_rules! share {
    ($before:literal, $($limit:ident $name:literal)*) => {
        [$((Limit::$limit, Key::new(concat!($before, $name)))),*]
    };
}

/// Of the whole hub, beside its streams.
const HUB: [(Limit, Key); 7] = share! { "limits.",
    Initiations "initiations-per-second"
    Methods "methods-per-second"
    TwinWrites "twin-writes-per-second"
    Requests "requests-per-second"
    JobDevices "job-devices-per-second"
    BytesPerSecond "bytes-per-second"
    BytesPerDay "bytes-per-day"
};

/// Of policies.
macro_rules! of_policies {
    ($before:literal) => {
        share! { $before,
            Streams "streams"
            Initiations "initiations-per-second"
            Methods "methods-per-second"
            TwinWrites "twin-writes-per-second"
            Requests "requests-per-second"
            JobDevices "job-devices-per-second"
            Logins "logins-per-minute"
            BytesPerSecond "bytes-per-second"
            BytesPerDay "bytes-per-day"
        }
    };
}

/// Of devices.
macro_rules! of_devices {
    ($before:literal) => {
        share! { $before,
            Streams "streams"
            Initiations "initiations-per-second"
            Methods "methods-per-second"
            TwinWrites "twin-writes-per-second"
            BytesPerSecond "bytes-per-second"
            BytesPerDay "bytes-per-day"
            Telemetry "telemetry-per-second"
            Reports "reports-per-second"
            TwinRequests "twin-requests-per-second"
            Connects "connects-per-minute"
        }
    };
}

const EACH_POLICY: [(Limit, Key); 9] = of_policies!("limits.each-policy.");
const EACH_DEVICE: [(Limit, Key); 10] = of_devices!("limits.each-device.");
/// In a table of its own.
const POLICY: [(Limit, Key); 9] = of_policies!("");
const DEVICE: [(Limit, Key); 10] = of_devices!("");

#[expect(clippy::indexing_slicing, reason = "at compile time")]
const fn keys<const N: usize>(share: &[(Limit, Key); N]) -> [Key; N] {
    let mut keys = [CONNECTIONS; N];
    let mut place = 0;
    while place < N {
        keys[place] = share[place].1;
        place += 1;
    }
    keys
}

/// Smallest `packet-bytes`.
const PACKET_LEAST: usize = crate::limits::METHOD_PAYLOAD + (4 << 10);
const POLICY_TABLE: &str = "limits.policy";
const DEVICE_TABLE: &str = "limits.device";

/// Exceptions for policies and devices, by their names.
pub(super) const TABLES: [Tables; 2] = [
    Tables {
        kind: POLICY_TABLE,
        keys: &keys(&POLICY),
    },
    Tables {
        kind: DEVICE_TABLE,
        keys: &keys(&DEVICE),
    },
];

/// What `[limits]`, `[limits.each-policy]` and `[limits.each-device]` may hold.
pub(super) fn in_file() -> Vec<Key> {
    let shares = HUB.iter().chain(&EACH_POLICY).chain(&EACH_DEVICE);
    let of_shares = shares.map(|(_, key)| *key);
    ALONE.into_iter().chain(of_shares).collect()
}

/// The limits of the file, and today's numbers for the others.
pub(super) fn resolve(sources: &Sources<'_>) -> Result<Limits, SettingError> {
    let default = Limits::default();
    let look = Look(sources);
    let each_policy = look.share(&EACH_POLICY, &default.each_policy)?;
    let each_device = look.share(&EACH_DEVICE, &default.each_device)?;
    Ok(Limits {
        connections: look.number(CONNECTIONS, 1..=1_000_000, default.connections)?,
        // With fewer places, and a share of one, a single address would keep all others out.
        strangers: look.number(STRANGERS, 16..=1_000_000, default.strangers)?,
        strangers_share: look.number(STRANGERS_SHARE, 1..=1_000, default.strangers_share)?,
        strangers_per_address: look.number(
            STRANGERS_PER_ADDRESS,
            8..=1_000_000,
            default.strangers_per_address,
        )?,
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
        hub: look.share(&HUB, &default.hub)?,
        policies: exceptions(sources, POLICY_TABLE, &POLICY, &each_policy)?,
        devices: exceptions(sources, DEVICE_TABLE, &DEVICE, &each_device)?,
        each_policy,
        each_device,
        // A method's payload has to fit, and a patch of a twin.
        packet: look.number(PACKET, PACKET_LEAST..=4 << 20, default.packet)?,
        // The largest patch of a twin has to fit, and all is held in memory.
        body: look.number(BODY, crate::limits::TWIN_PATCH..=64 << 20, default.body)?,
        body_time: look.seconds(BODY_TIME, 1..=3_600, default.body_time)?,
        drain: look.seconds(DRAIN, 0..=86_400, default.drain)?,
    })
}

/// The tables of this kind. What they leave out is as for all others.
fn exceptions(
    sources: &Sources<'_>,
    kind: &str,
    keys: &'static [(Limit, Key)],
    all: &Share,
) -> Result<Vec<(String, Share)>, SettingError> {
    let tables = sources.tables(kind).into_iter().map(|table| {
        let name = table.value;
        let own = sources.of_table(kind, &name, &[]);
        let share = Look(&own).share(keys, all)?;
        Ok((name, share))
    });
    let mut found = tables.collect::<Result<Vec<_>, _>>()?;
    // The one that says most of a name counts first: exact ones, then long patterns.
    found.sort_by_key(|(name, _)| (name.contains('*'), std::cmp::Reverse(name.len())));
    Ok(found)
}

struct Look<'a>(&'a Sources<'a>);

impl Look<'_> {
    /// Zero: no limit.
    fn share(&self, keys: &[(Limit, Key)], default: &Share) -> Result<Share, SettingError> {
        let mut share = *default;
        for (limit, key) in keys {
            let most = match limit {
                Limit::BytesPerSecond | Limit::BytesPerDay => 1 << 50,
                _ => 1_000_000,
            };
            let number = self.number(*key, 0..=most, share.get(*limit))?;
            share = share.with(*limit, number);
        }
        Ok(share)
    }

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
        let sources = Sources::open_with_tables(
            Key::new("config"),
            Some(path),
            &environment,
            &in_file(),
            &TABLES,
        );
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
    fn all_of_them_are_documented() {
        let document = include_str!("../../../docs/limits.md");
        for key in in_file() {
            let name = key.name.rsplit('.').next().unwrap();
            assert!(document.contains(&format!("`{name}`")), "{}", key.name);
        }
        for limit in Limit::ALL {
            assert!(document.contains(&format!("`{limit}`")), "{limit}");
        }
    }

    #[test]
    fn exceptions_say_what_is_other_and_the_closest_counts() {
        let found = limits(
            "[limits]\nbytes-per-second = 5\n[limits.each-policy]\nstreams = 7\n\
             [limits.each-device]\nconnects-per-minute = 0\n\
             [limits.policy.batch]\ninitiations-per-second = 1\n\
             [limits.device.\"plc-*\"]\nbytes-per-day = 1000\n\
             [limits.device.\"plc-1.a\"]\nstreams = 2\n[limits.device.\"*\"]",
        );
        let found = found.unwrap();
        let default = Limits::default();
        assert_eq!(found.hub, default.hub.with(Limit::BytesPerSecond, 5));
        let each_policy = default.each_policy.with(Limit::Streams, 7);
        let each_device = default.each_device.with(Limit::Connects, 0);
        assert_eq!(found.each_policy, each_policy);
        assert_eq!(found.each_device, each_device);
        let batch = each_policy.with(Limit::Initiations, 1);
        assert_eq!(found.policies, [("batch".to_owned(), batch)]);
        assert_eq!(found.of_policy("batch"), &batch);
        assert_eq!(found.of_policy("service"), &each_policy);
        let names: Vec<_> = found
            .devices
            .iter()
            .map(|(name, _)| name.as_str())
            .collect();
        assert_eq!(names, ["plc-1.a", "plc-*", "*"]);
        assert_eq!(found.devices[0].1, each_device.with(Limit::Streams, 2));
        assert_eq!(
            found.devices[1].1,
            each_device.with(Limit::BytesPerDay, 1000)
        );
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
            (
                "policy.batch.streams = -1",
                "limits.policy.batch.streams: give a whole number from 0 to 1000000",
            ),
            (
                "policy.batch.telemetry-per-second = 1",
                "limits.policy.batch.telemetry-per-second is no setting",
            ),
            (
                "each-policy.connects-per-minute = 1",
                "limits.each-policy.connects-per-minute is no",
            ),
            (
                "packet-bytes = 1",
                "limits.packet-bytes: give a whole number from 135168 to 4194304",
            ),
        ] {
            let error = limits(&format!("[limits]\n{line}")).unwrap_err();
            assert!(
                error.starts_with(&format!("f.toml, line 2: {said}")),
                "{error}"
            );
        }
    }
}
