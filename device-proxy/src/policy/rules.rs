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
    /// The rules for one target, if it has any: those of the name; else those of another name of
    /// the same target, so that the cloud cannot evade them by giving the target one more name;
    /// else those of the unnamed target, where it is that.
    pub fn of(&self, name: &str, target: &Target, local: &Targets) -> Option<(&str, &Rule)> {
        let is_same = |rule: &str| rule != ANY && local.configured(rule) == Some(target);
        let found = self.named.get_key_value(name).filter(|_| name != ANY);
        let found = found.filter(|_| local.is_named(name) || local.configured(ANY) != Some(target));
        let found = found.or_else(|| self.named.iter().find(|(rule, _)| is_same(rule)));
        let is_unnamed = || local.configured(ANY) == Some(target);
        let found = found.or_else(|| self.named.get_key_value(ANY).filter(|_| is_unnamed()));
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
}
