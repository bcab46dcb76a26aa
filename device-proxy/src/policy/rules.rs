//! Rules of the device's owner for what its targets may be used: how often, how much, when, and
//! whether somebody has to agree. Some hold for all targets, others for one.

use std::collections::BTreeMap;
use std::num::{NonZeroU32, NonZeroU64};
use std::sync::Arc;
use std::time::Duration;

use clap::ValueEnum;

use super::{Hours, Now};
use crate::target::{ANY, Target, Targets};

/// What becomes of open connections when the hours are over.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum AtEnd {
    /// They go on; only new ones are refused.
    #[default]
    Stay,
    /// They are closed.
    Close,
}

/// A local command that is asked before a connection opens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Approval {
    /// The program and its arguments; no shell reads them.
    pub command: Vec<String>,
    /// How long it may take to answer.
    pub limit: Duration,
    /// For how long its consent holds for the same caller at the same target.
    pub holds: Duration,
}

/// The rules for one target, or for all together. What is not given is not limited.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rule {
    /// Connections and streams at once.
    pub connections: Option<usize>,
    /// New ones in a second.
    pub new_per_second: Option<NonZeroU32>,
    /// Bytes in a second, in each direction.
    pub bytes_per_second: Option<NonZeroU64>,
    /// When new ones may open.
    pub hours: Hours,
    /// Who is asked.
    pub approval: Option<Arc<Approval>>,
}

/// The rules of a device.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rules {
    /// Those for all targets together.
    pub all: Rule,
    /// What happens at the end of the hours.
    pub at_end: AtEnd,
    /// Those for single targets by their names, `*` for the unnamed one.
    pub named: BTreeMap<String, Rule>,
}

impl Rules {
    /// The rules for one target, if it has any: those that the owner has for where it leads, so that
    /// the cloud cannot evade them by another name of the target or another way to write it; else
    /// those of the name. Of several for one place those of the name come first, and those of the
    /// unnamed target last.
    pub fn of(&self, name: &str, target: &Target, local: &Targets) -> Option<(&str, &Rule)> {
        let of_place = |is_same: fn(&Target, &Target) -> bool| {
            let leads_there = |rule: &str| {
                let configured = local.configured(rule);
                configured.is_some_and(|configured| is_same(configured, target))
            };
            let is_it = |rule: &str| rule != ANY && leads_there(rule);
            let found = self.named.get_key_value(name).filter(|_| is_it(name));
            let found = found.or_else(|| self.named.iter().find(|(rule, _)| is_it(rule)));
            found.or_else(|| self.named.get_key_value(ANY).filter(|_| leads_there(ANY)))
        };
        let of_name = || {
            let unnamed = local.configured(ANY);
            let is_unnamed = unnamed.is_some_and(|unnamed| unnamed.is_same_place(target));
            let found = self.named.get_key_value(name).filter(|_| name != ANY);
            found.filter(|_| local.is_named(name) || !is_unnamed)
        };
        // Of two targets of this machine with one port, each has its own.
        let found = of_place(Target::eq).or_else(|| of_place(Target::is_same_place));
        let found = found.or_else(of_name);
        found.map(|(name, rule)| (name.as_str(), rule))
    }

    /// For how long the hours allow this target without a pause; else the hours that do not.
    ///
    /// # Errors
    /// The hours that do not allow it, and whose they are, `None` for those of all targets.
    pub fn left<'a>(
        &'a self,
        rule: Option<(&'a str, &'a Rule)>,
        now: &Now,
    ) -> Result<Duration, (Option<&'a str>, &'a Hours)> {
        let of_all = self.all.hours.left(now).ok_or((None, &self.all.hours))?;
        match rule {
            None => Ok(of_all),
            Some((name, rule)) => {
                let left = rule.hours.left(now).ok_or((Some(name), &rule.hours))?;
                Ok(left.min(of_all))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_is_of_a_target_whatever_it_is_called() {
        let targets = ["ssh=localhost:22", "rdp=localhost:3389", "localhost:80"];
        let targets = Targets::parse(&targets.map(str::to_owned), false).unwrap();
        let named = ["ssh", "web", ANY].map(|name| (name.to_owned(), Rule::default()));
        let rules = Rules {
            named: named.into(),
            ..Rules::default()
        };
        let of = |name: &str, port: &str| {
            let target = Target::tcp("localhost", port).unwrap();
            rules.of(name, &target, &targets).map(|(name, _)| name)
        };
        assert_eq!(of("ssh", "22"), Some("ssh"));
        assert_eq!(of("rdp", "3389"), None);
        assert_eq!(of("other", "80"), Some(ANY));
        assert_eq!(of(ANY, "80"), Some(ANY));
        // The cloud's names: one more for a target, and one that the owner has rules for.
        assert_eq!(of("again", "22"), Some("ssh"));
        assert_eq!(of("web", "8080"), Some("web"));
        // A name that only falls to the unnamed target takes no other rules with it.
        assert_eq!(of("web", "80"), Some(ANY));
    }

    fn named(rules: &[&str]) -> Rules {
        let named = rules.iter().map(|&name| (name.to_owned(), Rule::default()));
        Rules {
            named: named.collect(),
            ..Rules::default()
        }
    }

    fn targets(options: &[&str]) -> Targets {
        let options: Vec<_> = options.iter().map(|&text| text.to_owned()).collect();
        Targets::parse(&options, false).unwrap()
    }

    #[test]
    fn no_other_spelling_of_a_target_is_without_its_rules() {
        let of = |configured: &str, named: &Rules, spelled: &str| {
            let target = Target::at(spelled).unwrap();
            let targets = targets(&[configured]);
            let found = named.of("again", &target, &targets);
            found.map(|(name, _)| name.to_owned())
        };
        let spelled = [
            "localhost",
            "LOCALHOST",
            "localhost.",
            "app.localhost",
            "127.0.0.1",
            "127.8.9.10",
            "127.1",
            "0X7F000001",
            "0.0.0.0",
            "[::1]",
            "[0:0:0:0:0:0:0:1]",
            "[::]",
            "[::ffff:127.0.0.1]",
            "[::FFFF:7f00:1]",
        ];
        for configured in spelled {
            for other in spelled {
                let (own, other) = (format!("{configured}:22"), format!("{other}:22"));
                let found = of(&format!("ssh={own}"), &named(&["ssh"]), &other);
                assert_eq!(found.as_deref(), Some("ssh"), "{own} as {other}");
                let found = of(&own, &named(&[ANY]), &other);
                assert_eq!(found.as_deref(), Some(ANY), "{own} as {other}");
            }
            let other = format!("{configured}:23");
            assert_eq!(of("ssh=localhost:22", &named(&["ssh"]), &other), None);
        }
        for (configured, other, is_same) in [
            ("nas.lan:22", "NAS.Lan.:22", true),
            ("10.0.0.5:22", "[::ffff:10.0.0.5]:22", true),
            ("[fd00::5]:22", "[FD00:0::5]:22", true),
            ("10.0.0.5:22", "localhost:22", false),
            ("nas.lan:22", "localhost:22", false),
        ] {
            let found = of(&format!("ssh={configured}"), &named(&["ssh"]), other);
            assert_eq!(found.is_some(), is_same, "{configured} as {other}");
        }
    }

    #[test]
    fn the_rules_of_where_a_name_was_led_come_before_its_own() {
        let targets = targets(&["ssh=127.0.0.1:22", "rdp=10.0.0.5:3389", "nas.lan:80"]);
        let rules = named(&["ssh", "rdp", "web", ANY]);
        let of = |name: &str, target: &str| {
            let target = Target::at(target).unwrap();
            rules.of(name, &target, &targets).map(|(name, _)| name)
        };
        for name in ["rdp", "web", "x", ANY] {
            assert_eq!(of(name, "127.0.0.1:22"), Some("ssh"), "{name}");
            assert_eq!(of(name, "localhost:22"), Some("ssh"), "{name}");
            assert_eq!(of(name, "nas.lan:80"), Some(ANY), "{name}");
        }
        // Nobody has rules for where these lead.
        assert_eq!(of("rdp", "10.0.0.6:3389"), Some("rdp"));
        assert_eq!(of("web", "10.0.0.6:80"), Some("web"));
        assert_eq!(of("x", "10.0.0.6:80"), None);
    }

    #[test]
    fn of_two_targets_of_this_machine_each_has_its_own_rules() {
        let targets = targets(&["a=127.0.0.1:22", "b=127.0.0.2:22"]);
        let rules = named(&["a", "b"]);
        for (name, host, rule) in [
            ("a", "127.0.0.1", "a"),
            ("b", "127.0.0.2", "b"),
            ("x", "127.0.0.2", "b"),
            ("b", "localhost", "b"),
        ] {
            let target = Target::tcp(host, "22").unwrap();
            let found = rules.of(name, &target, &targets).map(|(name, _)| name);
            assert_eq!(found, Some(rule), "{name} at {host}");
        }
    }
}
