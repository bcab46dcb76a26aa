//! The configuration is followed while the hub runs: limits, the level of the log and the certificate's
//! files. No connection ends for it.

use std::sync::Arc;

use common::permits::Permits;
use common::reload::{Fresh, Reloads};
use common::{settings, telemetry};

use crate::admission::Strangers;
use crate::config::{Current, Reader};
use crate::events::Event;
use crate::listeners;
use crate::state::HubState;
use crate::tls::Certificate;

/// A configuration, and when and how it is read again.
pub struct Followed {
    /// As it is in force.
    pub current: Current,
    /// Reads it again.
    pub reader: Reader,
    /// When.
    pub reloads: Reloads,
}

/// What follows the configuration.
pub(crate) struct Followers<'a> {
    pub(crate) state: &'a HubState,
    pub(crate) strangers: &'a Strangers,
    /// Of each kind of listener.
    pub(crate) permits: [&'a Arc<Permits>; 2],
    pub(crate) certificate: &'a Certificate,
}

/// Takes over each new configuration. One that cannot be used is reported in the log, and changes
/// nothing. Ends when the hub's terminal was closed; may be dropped.
pub(crate) async fn follow(followed: Followed, followers: Followers<'_>) {
    let Followed {
        mut current,
        reader,
        mut reloads,
    } = followed;
    let file = reader.name();
    let (start, log_format) = (current.config.clone(), current.log_format);
    let read = move || reader.read(&settings::of_process);
    while let Some(fresh) = reloads.read(&file, read.clone()).await {
        fresh.log(&file, current.file.differing(&fresh.config.file));
        let names: Vec<String> = current
            .file
            .differing(&fresh.config.file)
            .chain(fresh.files.iter().map(|file| file.display().to_string()))
            .collect();
        let Fresh { config: now, .. } = fresh;
        if !names.is_empty() {
            let settings: Vec<&str> = names.iter().map(String::as_str).collect();
            let settings = &*settings;
            let event = Event::ConfigurationChanged {
                file: &file,
                settings,
            };
            followers.state.events.emit(event);
        }
        if let Some(audit) = followers.state.events.audit() {
            audit.tune(now.config.audit.tuning.clone());
        }
        if now.log_level != current.log_level {
            telemetry::set_configured_level(now.log_level);
        }
        if now.config.limits != current.config.limits {
            let limits = &now.config.limits;
            followers.strangers.set_limits(limits);
            for permits in followers.permits {
                permits.set(listeners::most(limits.connections));
            }
            followers.state.set_limits(limits.clone());
        }
        // As it was read, also when no rule has changed: that is found by reading it.
        let governed = followers.state.access.now();
        if let Some((file, rules)) = &now.config.access.rules {
            let freed = governed
                .as_ref()
                .map(|governed| governed.freed(Some(rules)));
            followers.state.access.set(Some(Arc::clone(rules)));
            followers.state.events.emit(Event::AccessFileRead {
                file,
                rules: rules.len(),
                freed: &freed.unwrap_or_default(),
            });
        }
        followers.certificate.look();
        let mut fixed = start.fixed_differing(&now.config);
        // A line that gets lost opens nothing: the rules stay in force until the hub is started anew.
        let is_removed = governed.is_some() && now.config.access.rules.is_none();
        fixed.extend(is_removed.then_some("access.file"));
        fixed.extend((now.log_format != log_format).then_some("log-format"));
        if !fixed.is_empty() {
            let settings = &fixed.join(", ");
            followers.state.events.emit(Event::NeedsRestart {
                file: &file,
                settings,
            });
        }
        current = now;
    }
}
