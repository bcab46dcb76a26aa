//! The audit log: where it goes, and `[audit]` of the configuration file.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

use common::settings::{self, Key, SettingError, Sources};

use super::{ConfigError, keys};
use crate::cli::ServeArgs;
use crate::events::audit::{AuditConfig, AuditTuning};

const ROTATE_BYTES: Key = Key::new("audit.rotate-bytes");
const ROTATE_AGE: Key = Key::new("audit.rotate-seconds");
const KEEP: Key = Key::new("audit.keep-files");
const KEEP_DAYS: Key = Key::new("audit.keep-days");
const SYNC: Key = Key::new("audit.sync-milliseconds");
const HEAD: Key = Key::new("audit.sign-seconds");

/// What `[audit]` may hold.
pub(super) const IN_FILE: [Key; 6] = [ROTATE_BYTES, ROTATE_AGE, KEEP, KEEP_DAYS, SYNC, HEAD];

/// Nowhere, and that is said.
const OFF: &str = "off";
const STDOUT: &str = "stdout";

/// What is given, and the defaults.
pub(super) fn resolve(args: &ServeArgs, sources: &Sources<'_>) -> Result<AuditConfig, ConfigError> {
    let places = sources.list(keys::AUDIT_LOG, args.audit_log.clone())?;
    let (mut config, mut off) = (AuditConfig::default(), None);
    let count = places.len();
    for place in places {
        match place.value.as_str() {
            OFF => off = Some(place.source),
            STDOUT => config.stdout = true,
            _ if config.file.is_some() => return Err(ConfigError::TwoAuditFiles(place.source)),
            file => config.file = Some(file.into()),
        }
    }
    if let Some(source) = off.filter(|_| count > 1) {
        return Err(ConfigError::AuditOffAndOn(source));
    }
    let default = AuditTuning::default();
    let day = 24 * 3600;
    config.tuning = AuditTuning {
        full: sources.value(
            keys::AUDIT_FULL,
            args.audit_full,
            settings::choice,
            default.full,
        )?,
        rotate_bytes: number(
            sources,
            ROTATE_BYTES,
            64 << 10..=1 << 40,
            default.rotate_bytes,
        )?,
        rotate_age: Duration::from_secs(number(
            sources,
            ROTATE_AGE,
            60..=3_660 * day,
            default.rotate_age.as_secs(),
        )?),
        keep: number(sources, KEEP, 0..=100_000, default.keep)?,
        keep_age: Duration::from_secs(
            day * number(
                sources,
                KEEP_DAYS,
                0..=3_660,
                default.keep_age.as_secs() / day,
            )?,
        ),
        sync: Duration::from_millis(number(
            sources,
            SYNC,
            0..=60_000,
            u64::try_from(default.sync.as_millis()).unwrap_or(u64::MAX),
        )?),
        head: Duration::from_secs(number(sources, HEAD, 1..=day, default.head.as_secs())?),
    };
    Ok(config)
}

fn number<T: FromStr + PartialOrd + Display>(
    sources: &Sources<'_>,
    key: Key,
    bounds: RangeInclusive<T>,
    default: T,
) -> Result<T, SettingError> {
    sources.value(
        key,
        None,
        |text: &str| settings::number(text, bounds),
        default,
    )
}
