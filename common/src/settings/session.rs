//! The settings of session mode, which both proxies share.

use std::time::Duration;

use super::{Key, Setting, SettingError, Sources, choice, number};
use crate::limits;
use crate::session_mode::SessionMode;

/// Longer than any process runs, and can still be added to a time without overflow.
const LONGEST_GRACE: u64 = 100 * 365 * 24 * 3600;

/// The configuration of session mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionConfig {
    /// Whether sessions or plain streams are used.
    pub mode: SessionMode,
    /// How long a detached session is kept.
    pub grace: Duration,
    /// Bytes that all sessions may hold in memory.
    pub memory: u64,
}

/// The names of the settings.
#[derive(Debug, Clone, Copy)]
pub struct SessionKeys {
    /// The mode.
    pub mode: Key,
    /// The grace, in seconds.
    pub grace: Key,
    /// The memory, in MiB.
    pub memory: Key,
}

/// The values of the command line.
#[derive(Debug, Clone, Copy, Default)]
pub struct SessionOptions {
    /// The mode.
    pub mode: Option<SessionMode>,
    /// The grace, in seconds.
    pub grace: Option<u64>,
    /// The memory, in MiB.
    pub memory: Option<u32>,
}

impl Default for SessionConfig {
    /// The defaults; the memory depends on the machine.
    fn default() -> Self {
        Self {
            mode: SessionMode::Auto,
            grace: limits::SESSION_GRACE,
            memory: device_stream_session::memory::limit(None),
        }
    }
}

impl SessionConfig {
    /// Resolves all three. With the official samples' output only plain streams are used, since its
    /// lines describe those.
    ///
    /// # Errors
    /// [`SettingError`] names the place of a value that cannot be read.
    pub fn resolve(
        sources: &Sources<'_>,
        keys: SessionKeys,
        given: SessionOptions,
        has_sample_output: bool,
    ) -> Result<Self, SettingError> {
        let mode = sources.value(keys.mode, given.mode, choice, SessionMode::Auto)?;
        let grace = sources.value(
            keys.grace,
            given.grace,
            |text| number(text, 0..=u64::MAX),
            limits::SESSION_GRACE.as_secs(),
        )?;
        let memory =
            sources.setting(keys.memory, given.memory, |text| number(text, 1..=u32::MAX))?;
        Ok(Self {
            mode: if has_sample_output {
                SessionMode::Never
            } else {
                mode
            },
            grace: Duration::from_secs(grace.min(LONGEST_GRACE)),
            memory: device_stream_session::memory::limit(memory.map(Setting::into_value)),
        })
    }
}
