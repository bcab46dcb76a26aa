//! The policy in force: made of the local configuration and of what the cloud wants, and made again
//! when either changes.

use std::sync::{Arc, Mutex};

use common::locks::lock;
use common::telemetry;
use serde_json::Value;
use tokio::sync::watch;
use tracing::level_filters::LevelFilter;

use super::{Local, Policy, PolicyWatch, Refused, Wanted, combine, judge};

/// Makes the policy, and tells all who watch it.
#[derive(Debug)]
pub struct Control {
    state: Mutex<State>,
    policy: watch::Sender<Arc<Policy>>,
}

#[derive(Debug)]
struct State {
    local: Local,
    /// What the cloud wants now, as far as it can be read.
    latest: Option<Result<Wanted, Refused>>,
    /// The last of it that was permitted.
    in_force: Wanted,
    /// The level that was taken from it.
    log_level: Option<LevelFilter>,
}

impl Control {
    /// Starts with the local configuration alone.
    pub fn new(local: Local) -> Self {
        Self {
            policy: watch::Sender::new(Arc::new(local.policy.clone())),
            state: Mutex::new(State {
                local,
                latest: None,
                in_force: Wanted::default(),
                log_level: None,
            }),
        }
    }

    /// The policy in force, and its changes.
    pub fn watch(&self) -> PolicyWatch {
        self.policy.subscribe()
    }

    /// From now on the local configuration is this one. What the cloud wants is judged again.
    /// Whether the policy has changed.
    pub fn set_local(&self, local: Local) -> bool {
        let mut state = lock(&self.state);
        state.local = local;
        self.settle(&mut state)
    }

    /// From now on the cloud wants this: the section of the desired properties, if there is one.
    /// What is refused changes nothing. Whether the policy has changed.
    pub fn want(&self, section: Option<&Value>) -> bool {
        let mut state = lock(&self.state);
        state.latest = section.map(Wanted::parse);
        self.settle(&mut state)
    }

    /// Whether what the cloud wants now holds.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn verdict(&self) -> Result<(), Refused> {
        let state = lock(&self.state);
        match &state.latest {
            None => Ok(()),
            Some(Ok(wanted)) => judge(&state.local, wanted),
            Some(Err(refused)) => Err(refused.clone()),
        }
    }

    fn settle(&self, state: &mut State) -> bool {
        match &state.latest {
            None => state.in_force = Wanted::default(),
            Some(Ok(wanted)) if judge(&state.local, wanted).is_ok() => {
                state.in_force = wanted.clone();
            }
            Some(_) => {}
        }
        let level = state.in_force.log_level;
        if std::mem::replace(&mut state.log_level, level) != level {
            telemetry::set_level(level);
        }
        let policy = combine(&state.local, &state.in_force);
        self.policy.send_if_modified(|now| {
            let is_changed = **now != policy;
            if is_changed {
                *now = Arc::new(policy);
            }
            is_changed
        })
    }
}

#[cfg(test)]
mod tests {
    use common::session_mode::SessionMode;
    use serde_json::json;

    use super::*;
    use crate::policy::{Addresses, Allowed, Rules};
    use crate::target::Targets;

    fn local(allowed: &[&str], max_streams: usize) -> Local {
        let mut may_lead_to = Allowed::default();
        for pattern in allowed {
            may_lead_to.add(pattern).unwrap();
        }
        let targets = [
            "ssh=localhost:22".to_owned(),
            "rdp=localhost:3389".to_owned(),
        ];
        Local {
            policy: Policy {
                targets: Targets::parse(&targets, false).unwrap(),
                addresses: Addresses::default(),
                rules: Rules::default(),
                configured: Targets::default(),
                session: SessionMode::Auto,
                max_streams,
                accept: true,
            },
            allowed: may_lead_to,
        }
    }

    fn reaches(control: &Control, name: &str) -> bool {
        control.watch().borrow().targets.select(name).is_some()
    }

    #[test]
    fn what_is_refused_changes_nothing() {
        let control = Control::new(local(&[], 10));
        let closed = json!({ "targets": { "rdp": false } });
        assert!(control.want(Some(&closed)));
        assert!(!control.want(Some(&closed)), "nothing new");
        assert!(!reaches(&control, "rdp") && reaches(&control, "ssh"));
        for refused in [
            json!({ "targets": { "rdp": true, "web": "127.0.0.1:80" } }),
            json!({ "targets": { "ssh": false }, "maxStreams": 11 }),
            json!({ "acept": false }),
        ] {
            assert!(!control.want(Some(&refused)));
            assert!(control.verdict().is_err());
            assert!(!reaches(&control, "rdp") && reaches(&control, "ssh"));
        }
        assert!(control.want(None));
        assert_eq!(control.verdict(), Ok(()));
        assert!(reaches(&control, "rdp"));
    }

    #[test]
    fn both_sides_change_while_it_runs() {
        let control = Control::new(local(&[], 10));
        let watch = control.watch();
        let web = json!({ "targets": { "web": "127.0.0.1:80", "rdp": false }, "maxStreams": 4 });
        assert!(!control.want(Some(&web)));
        // The local configuration permits it now: it holds without being asked for again.
        assert!(control.set_local(local(&["127.0.0.1:*"], 10)));
        assert_eq!(control.verdict(), Ok(()));
        assert!(reaches(&control, "web") && !reaches(&control, "rdp"));
        assert_eq!(watch.borrow().max_streams, 4);
        // Not any more: what would be wider is withdrawn, and what is narrower stays.
        assert!(control.set_local(local(&[], 3)));
        assert!(control.verdict().is_err());
        assert!(!reaches(&control, "web") && !reaches(&control, "rdp"));
        assert_eq!(watch.borrow().max_streams, 3);
        assert!(!control.set_local(local(&[], 3)));
    }
}
