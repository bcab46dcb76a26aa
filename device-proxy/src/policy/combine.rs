//! What holds when both the local configuration and the cloud have a say. The cloud can narrow
//! everything, and can widen only what the local configuration lists.

use super::{Allowed, Policy, Refused, Wanted, WantedTarget};
use crate::target::Target;

/// What the device's own configuration says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Local {
    /// The policy without the cloud.
    pub policy: Policy,
    /// What the cloud may name as targets.
    pub allowed: Allowed,
}

impl Local {
    /// The target of the local configuration with this name, where `*` is the one without.
    fn configured(&self, name: &str) -> Option<&Target> {
        self.policy.targets.configured(name)
    }

    fn permits(&self, name: &str, target: &Target) -> bool {
        let addresses = &self.policy.addresses;
        self.configured(name) == Some(target)
            || self.allowed.contains(target) && addresses.can_permit(target, &self.allowed)
    }
}

/// Whether the local configuration permits all that the cloud wants.
///
/// # Errors
/// [`Refused`] names the first thing that would be wider.
pub fn judge(local: &Local, wanted: &Wanted) -> Result<(), Refused> {
    for (name, target) in &wanted.targets {
        match target {
            WantedTarget::Withdrawn => {}
            WantedTarget::AsConfigured if local.configured(name).is_some() => {}
            WantedTarget::AsConfigured => {
                return Err(Refused::new(&format!(
                    "targets: the device's configuration has no target {name:?}"
                )));
            }
            WantedTarget::At(target) if local.permits(name, target) => {}
            WantedTarget::At(target) if local.allowed.contains(target) => {
                return Err(Refused::new(&format!(
                    "targets: {name:?} may not lead to {target}: the device's configuration names no address for it (allow-addresses, or a network in allow-cloud)"
                )));
            }
            WantedTarget::At(target) => {
                return Err(Refused::new(&format!(
                    "targets: {name:?} may not lead to {target}; the device's configuration allows (allow-cloud): {}",
                    local.allowed
                )));
            }
        }
    }
    match wanted.max_streams {
        Some(most) if most > local.policy.max_streams => Err(Refused::new(&format!(
            "maxStreams: {most} is above the {} of the device's configuration",
            local.policy.max_streams
        ))),
        _ => Ok(()),
    }
}

/// The policy that holds: never wider than the local configuration permits, also where that has
/// changed since the cloud's wish was taken. What it no longer permits is then withdrawn.
pub fn combine(local: &Local, wanted: &Wanted) -> Policy {
    let mut policy = local.policy.clone();
    let mut of_cloud = Vec::new();
    for (name, target) in &wanted.targets {
        let target = match target {
            WantedTarget::Withdrawn => None,
            WantedTarget::AsConfigured => continue,
            WantedTarget::At(target) => Some(target).filter(|target| local.permits(name, target)),
        };
        let is_configured = |target: &Target| local.policy.targets.all().any(|own| own == target);
        of_cloud.extend(target.filter(|target| !is_configured(target)).cloned());
        policy.targets.replace(name, target.cloned());
    }
    policy.addresses = policy.addresses.with_cloud(of_cloud, &local.allowed);
    policy.max_streams = policy
        .max_streams
        .min(wanted.max_streams.unwrap_or(usize::MAX));
    policy.accept &= wanted.accept.unwrap_or(true);
    policy
}

#[cfg(test)]
mod tests {
    use common::session_mode::SessionMode;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;
    use crate::policy::{Addresses, Rules};
    use crate::target::{ANY, Targets};

    fn local(targets: &[&str], echo: bool, allowed: &[&str]) -> Local {
        let options: Vec<_> = targets.iter().map(|&text| text.to_owned()).collect();
        let mut may_lead_to = Allowed::default();
        for pattern in allowed {
            may_lead_to.add(pattern).unwrap();
        }
        Local {
            policy: Policy {
                targets: Targets::parse(&options, echo).unwrap(),
                addresses: Addresses::default(),
                rules: Rules::default(),
                configured: Targets::default(),
                session: SessionMode::Auto,
                max_streams: 10,
                accept: true,
            },
            allowed: may_lead_to,
        }
    }

    fn wanted(section: &Value) -> Wanted {
        Wanted::parse(section).unwrap()
    }

    /// Where streams of these names lead.
    fn leads(policy: &Policy, names: &[&str]) -> Vec<String> {
        let shown = |name: &&str| match policy.targets.select(name) {
            Some(target) => target.to_string(),
            None => "-".to_owned(),
        };
        names.iter().map(shown).collect()
    }

    #[test]
    fn narrowing_is_always_permitted() {
        let local = local(
            &["ssh=localhost:22", "rdp=10.0.0.5:3389", "localhost:80"],
            true,
            &[],
        );
        let section = json!({
            "targets": { "rdp": false, "ssh": true, "other": false, "echo": false },
            "maxStreams": 3,
            "accept": false,
        });
        assert_eq!(judge(&local, &wanted(&section)), Ok(()));
        let policy = combine(&local, &wanted(&section));
        assert_eq!(
            leads(&policy, &["rdp", "ssh", "other", "echo", "x"]),
            // A withdrawn name does not fall to the target without a name.
            ["-", "localhost:22", "-", "-", "localhost:80"]
        );
        assert_eq!((policy.max_streams, policy.accept), (3, false));
        let section = json!({ "targets": { "*": false } });
        let policy = combine(&local, &wanted(&section));
        assert_eq!(
            leads(&policy, &["rdp", "ssh", "echo", "x"]),
            ["10.0.0.5:3389", "localhost:22", "built-in echo", "-"]
        );
        assert_eq!(combine(&local, &Wanted::default()), local.policy);
    }

    #[test]
    fn what_only_echoes_can_be_withdrawn_by_name_or_as_a_whole() {
        let only_echo = local(&[], true, &["127.0.0.1:*"]);
        let leads = |section| {
            leads(
                &combine(&only_echo, &wanted(&section)),
                &["echo", "x", "web"],
            )
        };
        let echo = "built-in echo";
        assert_eq!(leads(json!({})), [echo, echo, echo]);
        assert_eq!(
            leads(json!({ "targets": { "*": false } })),
            [echo, "-", "-"]
        );
        assert_eq!(
            leads(json!({ "targets": { "echo": false } })),
            ["-", echo, echo]
        );
        assert_eq!(
            leads(json!({ "targets": { "web": "127.0.0.1:80" } })),
            [echo, echo, "127.0.0.1:80"]
        );
        // Withdrawing the others does not make every name echo.
        let both = local(&["ssh=localhost:22"], true, &[]);
        let policy = combine(&both, &wanted(&json!({ "targets": { "ssh": false } })));
        assert_eq!(
            super::tests::leads(&policy, &["ssh", "x", "echo"]),
            ["-", "-", echo]
        );
    }

    #[test]
    fn widening_needs_the_local_list() {
        let none = local(&["ssh=localhost:22"], false, &[]);
        let some = local(
            &["ssh=localhost:22"],
            false,
            &["127.0.0.1:8080", "10.0.0.0/8:*"],
        );
        for (section, reason) in [
            (
                json!({ "targets": { "web": "127.0.0.1:8080" } }),
                "targets: \"web\" may not lead to 127.0.0.1:8080; the device's configuration allows (allow-cloud): none",
            ),
            (
                json!({ "targets": { "ssh": "127.0.0.1:8080" } }),
                "targets: \"ssh\" may not",
            ),
            (
                json!({ "targets": { "*": "10.1.2.3:1" } }),
                "targets: \"*\" may not",
            ),
            (
                json!({ "targets": { "rdp": true } }),
                "targets: the device's configuration has no target \"rdp\"",
            ),
            (
                json!({ "targets": { "echo": true } }),
                "targets: the device's configuration has no",
            ),
            (
                json!({ "maxStreams": 11 }),
                "maxStreams: 11 is above the 10 of",
            ),
        ] {
            let refused = judge(&none, &wanted(&section)).unwrap_err().to_string();
            assert!(refused.starts_with(reason), "{refused}");
        }
        let section = json!({ "targets": {
            "web": "127.0.0.1:8080", "*": "10.1.2.3:1", "ssh": "localhost:22",
        } });
        assert_eq!(judge(&some, &wanted(&section)), Ok(()));
        let policy = combine(&some, &wanted(&section));
        assert_eq!(
            leads(&policy, &["web", "x", "ssh", "echo"]),
            ["127.0.0.1:8080", "10.1.2.3:1", "localhost:22", "-"]
        );
        // The local configuration no longer permits what was taken: it is withdrawn.
        let policy = combine(&none, &wanted(&section));
        assert_eq!(
            leads(&policy, &["web", "x", "ssh"]),
            ["-", "-", "localhost:22"]
        );
    }

    const NAMES: [&str; 6] = ["ssh", "rdp", "web", "echo", "x", "y"];
    const ADDRESSES: [&str; 5] = [
        "localhost:22",
        "10.0.0.5:3389",
        "10.1.1.1:80",
        "127.0.0.1:80",
        "host.name:22",
    ];

    fn address() -> impl Strategy<Value = &'static str> {
        prop::sample::select(&ADDRESSES)
    }

    fn any_local() -> impl Strategy<Value = Local> {
        let named = prop::collection::btree_map(prop::sample::select(&NAMES[..3]), address(), 0..3);
        let allowed =
            prop::sample::subsequence(vec!["10.0.0.0/8:*", "127.0.0.1:80", "host.name:*"], 0..3);
        let unnamed = prop::option::of(address());
        (named, unnamed, any::<bool>(), allowed, 1usize..20).prop_map(
            |(named, unnamed, echo, allowed, max_streams)| {
                let mut options: Vec<_> = named
                    .iter()
                    .map(|(name, at)| format!("{name}={at}"))
                    .collect();
                options.extend(unnamed.map(str::to_owned));
                let options: Vec<_> = options.iter().map(String::as_str).collect();
                let mut local = local(&options, echo, &allowed);
                local.policy.max_streams = max_streams;
                local
            },
        )
    }

    fn any_wanted() -> impl Strategy<Value = Value> {
        let target = prop_oneof![
            Just(json!(false)),
            Just(json!(true)),
            address().prop_map(|at| json!(at)),
        ];
        let names = prop::sample::select(vec!["ssh", "rdp", "web", "echo", "x", "*"]);
        let targets = prop::collection::btree_map(names, target, 0..5);
        (
            targets,
            prop::option::of(1u64..25),
            prop::option::of(any::<bool>()),
        )
            .prop_map(|(targets, most, accept)| {
                let mut section = json!({ "targets": targets });
                if let Some(most) = most {
                    section["maxStreams"] = json!(most);
                }
                if let Some(accept) = accept {
                    section["accept"] = json!(accept);
                }
                section
            })
    }

    proptest! {
        #[test]
        fn it_is_never_wider_than_the_local_policy_permits(
            local in any_local(), section in any_wanted(),
        ) {
            let wanted = wanted(&section);
            let policy = combine(&local, &wanted);
            prop_assert!(policy.max_streams <= local.policy.max_streams);
            prop_assert_eq!(policy.session, local.policy.session);
            for name in NAMES {
                let Some(target) = policy.targets.select(name) else { continue };
                let is_local = local.policy.targets.select(name) == Some(target);
                prop_assert!(is_local || local.allowed.contains(target), "{} -> {}", name, target);
            }
            if judge(&local, &wanted).is_err() {
                return Ok(());
            }
            // Where it is permitted, it is also what was wanted.
            for (name, wanted) in &wanted.targets {
                let leads_to = if name == ANY {
                    policy.targets.select("y")
                } else {
                    policy.targets.select(name)
                };
                match wanted {
                    WantedTarget::Withdrawn => prop_assert_eq!(leads_to, None),
                    WantedTarget::AsConfigured => {
                        prop_assert_eq!(leads_to, local.configured(name));
                    }
                    WantedTarget::At(target) => prop_assert_eq!(leads_to, Some(target)),
                }
            }
        }
    }
}
