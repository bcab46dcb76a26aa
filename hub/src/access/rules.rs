//! What the access file allows.

use std::time::Duration;

use common::identity::DeviceIdentity;
use common::session::STREAM_PREFIX;
use serde_json::Value;
use time::{OffsetDateTime, UtcOffset};

use super::hours::Hours;
use super::pattern::Pattern;
use crate::query::Condition;

/// All rules, and what stands above them.
#[derive(Debug, Clone)]
pub struct Rules {
    /// How long the token of a person works.
    pub token_ttl: Duration,
    pub(super) governed: Governed,
    pub(super) rules: Vec<Rule>,
    /// The offset in which hours are meant.
    pub(super) zone: UtcOffset,
}

/// Which shared access policies need a rule besides those that rules name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Governed {
    /// These.
    Policies(Vec<String>),
    /// Whatever there is.
    All,
}

/// Who may open which streams, and when.
#[derive(Debug, Clone)]
pub(super) struct Rule {
    pub(super) people: Vec<String>,
    pub(super) groups: Vec<String>,
    pub(super) policies: Vec<String>,
    /// `None`: any that the tags select.
    pub(super) devices: Option<Vec<Pattern>>,
    pub(super) tags: Option<Condition>,
    /// Of the devices; none: the devices themselves alone.
    pub(super) modules: Vec<Pattern>,
    pub(super) targets: Vec<Pattern>,
    /// Any of these; none: always.
    pub(super) hours: Vec<Hours>,
    pub(super) from: Option<OffsetDateTime>,
    pub(super) until: Option<OffsetDateTime>,
    pub(super) approval: Option<Approval>,
}

/// Somebody has to approve.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Approval {
    /// People or groups; none: only who has the hub's folder.
    pub by: Vec<String>,
    /// How long what is granted lasts, at most and unless said otherwise.
    pub lasts: Duration,
    /// Whether open streams end with it.
    pub cuts: bool,
}

/// Who wants access.
#[derive(Debug, Clone, Copy)]
pub enum Who<'a> {
    /// Somebody that the identity provider knows.
    Person {
        /// By this name.
        name: &'a str,
        /// In these groups.
        groups: &'a [String],
    },
    /// Who holds the key of this shared access policy.
    Policy(&'a str),
}

/// What is wanted.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// The device or module.
    pub identity: &'a DeviceIdentity,
    /// The target, as a stream or a session names it; `None`: anything at all.
    pub target: Option<&'a str>,
    /// `deviceId` and `tags` of the device's twin; of no use unless [`Rules::reads_tags`].
    pub device: &'a Value,
    /// Now.
    pub now: OffsetDateTime,
}

/// What the rules say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Yes.
    Allowed,
    /// Yes, once somebody approves.
    WithApproval(Approval),
    /// No.
    Denied(NoAccess),
}

/// Why not. Says no more than the caller may know: not which rules there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoAccess {
    /// No rule allows it at any time.
    #[error("the hub's access file does not allow this to you")]
    NoRule,
    /// A rule allows it at other times.
    #[error("the hub's access file allows this to you at other times only")]
    NotNow,
    /// It is no stream, and no twin of a device that streams may lead to.
    #[error("the hub's access file governs you: you may open streams, and nothing else")]
    StreamsOnly,
}

impl Rules {
    /// Whether streams with this policy need a rule.
    pub fn governs(&self, policy: &str) -> bool {
        self.governed == Governed::All || self.named_policies().any(|name| name == policy)
    }

    /// What earlier rules governed and these do not, in words: from now on the keys of these policies
    /// open all that the policies allow. `now` is `None` when there are no rules any more.
    pub fn freed(&self, now: Option<&Self>) -> Vec<String> {
        let is_free = |policy: &&String| now.is_none_or(|now| !now.governs(policy));
        let mut freed: Vec<String> = self.named_policies().filter(is_free).cloned().collect();
        freed.sort_unstable();
        freed.dedup();
        let are_all = |rules: &Self| rules.governed == Governed::All;
        if are_all(self) && !now.is_some_and(are_all) {
            freed.push("all that it does not name".to_owned());
        }
        freed
    }

    /// Those that need a rule by name.
    fn named_policies(&self) -> impl Iterator<Item = &String> {
        let governed = match &self.governed {
            Governed::Policies(names) => names.as_slice(),
            Governed::All => &[],
        };
        let of_rules = self.rules.iter().flat_map(|rule| &rule.policies);
        governed.iter().chain(of_rules)
    }

    /// Whether there is anything at all for somebody, at any time.
    pub fn knows(&self, who: Who<'_>) -> bool {
        self.rules.iter().any(|rule| rule.is_for(who)) || self.has_approver(who)
    }

    /// Whether a device's tags have a say.
    pub fn reads_tags(&self) -> bool {
        self.rules.iter().any(|rule| rule.tags.is_some())
    }

    /// Whether this is allowed. A rule without approval is enough, whatever others want.
    pub fn decide(&self, who: Who<'_>, wanted: &Wanted<'_>) -> Decision {
        let mut decision = Decision::Denied(NoAccess::NoRule);
        for rule in self.rules.iter().filter(|rule| rule.covers(who, wanted)) {
            if wanted.target.is_some() && !rule.is_now(wanted.now, self.zone) {
                if decision == Decision::Denied(NoAccess::NoRule) {
                    decision = Decision::Denied(NoAccess::NotNow);
                }
                continue;
            }
            match &rule.approval {
                None => return Decision::Allowed,
                Some(approval) => match &mut decision {
                    // Any of them may approve; the shortest time counts.
                    Decision::WithApproval(other) => other.join(approval),
                    decision => *decision = Decision::WithApproval(approval.clone()),
                },
            }
        }
        decision
    }

    /// The targets that rules name for somebody on this device or module, at whatever time.
    pub fn targets(&self, who: Who<'_>, wanted: &Wanted<'_>) -> Vec<String> {
        let any = Wanted {
            target: None,
            ..*wanted
        };
        let rules = self.rules.iter().filter(|rule| rule.covers(who, &any));
        let mut targets: Vec<String> = rules
            .flat_map(|rule| &rule.targets)
            .map(|pattern| pattern.text().to_owned())
            .collect();
        targets.sort();
        targets.dedup();
        targets
    }

    /// Whether somebody may approve anything.
    pub fn has_approver(&self, who: Who<'_>) -> bool {
        let mut approvals = self.rules.iter().filter_map(|rule| rule.approval.as_ref());
        approvals.any(|approval| approval.is_by(who))
    }

    /// The people and groups that may approve this, at any time.
    pub fn approvers(&self, who: Who<'_>, wanted: &Wanted<'_>) -> Vec<String> {
        let rules = self.rules.iter().filter(|rule| rule.covers(who, wanted));
        let approvals = rules.filter_map(|rule| rule.approval.as_ref());
        approvals.flat_map(|approval| approval.by.clone()).collect()
    }

    /// The names of the rules that have a say, for `--check-config` and the log.
    pub fn len(&self) -> usize {
        self.rules.len()
    }

    /// Whether there are none: nobody may do anything.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }
}

impl Rule {
    fn is_for(&self, who: Who<'_>) -> bool {
        match who {
            Who::Person { name, groups } => {
                self.people.iter().any(|person| person == name)
                    || groups.iter().any(|group| self.groups.contains(group))
            }
            Who::Policy(policy) => self.policies.iter().any(|name| name == policy),
        }
    }

    fn covers(&self, who: Who<'_>, wanted: &Wanted<'_>) -> bool {
        let any = |patterns: &[Pattern], name: &str| patterns.iter().any(|it| it.matches(name));
        let DeviceIdentity { device, module } = wanted.identity;
        self.is_for(who)
            && wanted
                .target
                .is_none_or(|target| any(&self.targets, target))
            && module
                .as_ref()
                .is_none_or(|module| any(&self.modules, module.as_str()))
            && self
                .devices
                .as_ref()
                .is_none_or(|devices| any(devices, device.as_str()))
            && self
                .tags
                .as_ref()
                .is_none_or(|condition| condition.matches(wanted.device))
    }

    fn is_now(&self, now: OffsetDateTime, zone: UtcOffset) -> bool {
        let local = now.to_offset(zone);
        self.from.is_none_or(|from| from <= now)
            && self.until.is_none_or(|until| now < until)
            && (self.hours.is_empty() || self.hours.iter().any(|hours| hours.contains(local)))
    }
}

impl Approval {
    /// Whether somebody is among those that may approve.
    pub fn is_by(&self, who: Who<'_>) -> bool {
        match who {
            Who::Person { name, groups } => self
                .by
                .iter()
                .any(|by| by == name || groups.iter().any(|group| group == by)),
            Who::Policy(_) => false,
        }
    }

    fn join(&mut self, other: &Self) {
        self.by.extend(other.by.iter().cloned());
        self.lasts = self.lasts.min(other.lasts);
        self.cuts |= other.cuts;
    }
}

/// The target of a stream's name: sessions of a target need no rule of their own.
pub fn target_of(name: &str) -> &str {
    match name.strip_prefix(STREAM_PREFIX) {
        Some(target) if !target.starts_with(STREAM_PREFIX) => target,
        _ => name,
    }
}
