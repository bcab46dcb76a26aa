//! Whether one more connection may open, by the rules of the device's owner, and how fast it may be.
//! Plain streams and connections in sessions pass here alike, each of them.

mod approvals;
mod bucket;
mod command;
mod throttled;

use std::collections::HashMap;
use std::future::pending;
use std::io;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::identity::DeviceIdentity;
use common::locks::lock;
use common::session::RefusedCode;
use common::wire::stream::Initiator;
use tokio::time::sleep;

use self::approvals::Approvals;
use self::bucket::Bucket;
use self::throttled::Throttled;
use crate::limits;
use crate::policy::{AtEnd, Now, Policy, PolicyWatch, Rule, Rules};
use crate::target::{Reached, Target};

/// What wants to be opened.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Request<'a> {
    /// The name by which the target was asked for; printable.
    pub(crate) name: &'a str,
    /// Where it leads.
    pub(crate) target: &'a Target,
    /// Who asks, if the hub says so.
    pub(crate) caller: Option<&'a Initiator>,
}

impl Request<'_> {
    /// The caller's policy and address; empty where they are not known.
    fn caller(&self) -> (String, String) {
        let caller = self.caller;
        let printable = |text: &str| common::outside::printable(text).into_owned();
        caller.map_or_else(Default::default, |caller| {
            (printable(&caller.policy), caller.ip.to_string())
        })
    }
}

/// Why something may not be opened. It names the setting that says so.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum Denied {
    /// It is not the time.
    #[error("{setting} allows it only at {hours}")]
    Hours { setting: String, hours: String },
    /// So many are open.
    #[error("{setting} allows {most} at once")]
    Connections { setting: String, most: usize },
    /// So many were opened within a second.
    #[error("{setting} allows {most} new ones")]
    Rate { setting: String, most: u32 },
    /// The command has said no, and why.
    #[error("the approval command has denied it: {0}")]
    NotApproved(String),
    /// The command said nothing.
    #[error("the approval command has not answered within {} s", .0.as_secs())]
    NoAnswer(Duration),
    /// The command did not run.
    #[error("the approval command cannot be run: {0}")]
    NoCommand(Arc<io::Error>),
    /// It is asked too often at a time.
    #[error("the approval command is already asked {} times", limits::APPROVALS)]
    TooManyApprovals,
}

impl Denied {
    /// How a session reports it.
    pub(crate) fn code(&self) -> RefusedCode {
        match self {
            Self::Connections { .. } | Self::Rate { .. } | Self::TooManyApprovals => {
                RefusedCode::Limit
            }
            Self::Hours { .. } | Self::NotApproved(_) | Self::NoAnswer(_) | Self::NoCommand(_) => {
                RefusedCode::Denied
            }
        }
    }

    /// What the other side may know of it: not how this machine is set up.
    pub(crate) fn outward(&self) -> String {
        match self {
            Self::NoCommand(_) => "the approval command cannot be run".to_owned(),
            other => other.to_string(),
        }
    }
}

/// What counts for one target, or for all together.
#[derive(Debug, Default)]
struct Gate {
    /// Open now.
    open: AtomicUsize,
    new: Bucket,
    from_target: Bucket,
    to_target: Bucket,
    /// Bytes in a second; 0: as many as come.
    rate: AtomicU64,
}

impl Gate {
    fn rate(&self) -> Option<u64> {
        Some(self.rate.load(Relaxed)).filter(|rate| *rate > 0)
    }

    fn set_rate(&self, rate: Option<u64>) {
        self.rate.store(rate.unwrap_or_default(), Relaxed);
    }

    fn follow(&self, rule: &Rule) {
        self.set_rate(rule.bytes_per_second.map(Into::into));
    }

    /// Counts one more as open, if there may be.
    fn enter(self: &Arc<Self>, most: usize) -> Option<Held> {
        self.open
            .fetch_update(Relaxed, Relaxed, |open| (open < most).then_some(open + 1))
            .ok()?;
        Some(Held(Arc::clone(self)))
    }
}

/// Counts as open until it is dropped.
#[derive(Debug)]
struct Held(Arc<Gate>);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Relaxed);
    }
}

/// Permission for one connection, as long as it is kept.
#[derive(Debug)]
pub(crate) struct Admitted {
    _held: Option<Held>,
    gates: Vec<Arc<Gate>>,
}

impl Admitted {
    /// The target's socket, no faster than the rules say.
    pub(crate) fn pace(&self, reached: Reached) -> Reached {
        match self.gates.is_empty() {
            true => reached,
            false => Box::new(Throttled::new(reached, self.gates.clone())),
        }
    }
}

/// All that is counted.
pub(crate) struct Admission {
    all: Arc<Gate>,
    /// By the names of the rules.
    named: Mutex<HashMap<String, Arc<Gate>>>,
    approvals: Approvals,
}

impl Admission {
    /// Starts with nothing open.
    pub(crate) fn new(device: &DeviceIdentity) -> Self {
        Self {
            all: Arc::default(),
            named: Mutex::default(),
            approvals: Approvals::new(device),
        }
    }

    /// What is open follows the rates of these rules.
    pub(crate) fn follow(&self, rules: &Rules) {
        self.all.follow(&rules.all);
        lock(&self.named).retain(|name, gate| match rules.named.get(name) {
            Some(rule) => {
                gate.follow(rule);
                true
            }
            None => {
                gate.set_rate(None);
                // The rules may come back while some are open.
                Arc::strong_count(gate) > 1
            }
        });
    }

    fn gate(&self, name: &str, rule: &Rule) -> Arc<Gate> {
        let mut named = lock(&self.named);
        let gate = named.entry(name.to_owned()).or_default();
        gate.follow(rule);
        Arc::clone(gate)
    }

    /// Lets one in, or says why not. May take as long as the approval command; may be dropped.
    pub(crate) async fn admit(
        &self,
        policy: &Policy,
        request: &Request<'_>,
    ) -> Result<Admitted, Denied> {
        let rules = &policy.rules;
        let own = policy.rule(request.name, request.target);
        check_hours(rules, own)?;
        let gate = own.map(|(name, rule)| (name, rule, self.gate(name, rule)));
        let mut held = None;
        if let Some((name, rule, gate)) = &gate {
            let most = rule.connections.unwrap_or(usize::MAX);
            let Some(entered) = gate.enter(most) else {
                let setting = setting(Some(name), "connections");
                return Err(Denied::Connections { setting, most });
            };
            held = Some(entered);
        }
        // Last, since it takes from what there is.
        let own_rate = gate
            .as_ref()
            .map(|(name, rule, gate)| (Some(*name), *rule, gate));
        for (name, rule, gate) in own_rate.into_iter().chain([(None, &rules.all, &self.all)]) {
            if let Some(most) = rule.new_per_second
                && !gate.new.try_take(most.get())
            {
                return Err(Denied::Rate {
                    setting: setting(name, "new-per-second"),
                    most: most.get(),
                });
            }
        }
        let approval = own.and_then(|(_, rule)| rule.approval.as_ref());
        if let Some(approval) = approval.or(rules.all.approval.as_ref()) {
            self.approvals.ask(approval, request).await?;
            // It may have taken a while.
            check_hours(rules, own)?;
        }
        self.all.follow(&rules.all);
        let gates = gate.map(|(_, _, gate)| gate).into_iter();
        let gates = gates.chain([Arc::clone(&self.all)]);
        Ok(Admitted {
            _held: held,
            gates: gates.filter(|gate| gate.rate().is_some()).collect(),
        })
    }
}

/// Whether the hours allow something to open now.
///
/// # Errors
/// [`Denied::Hours`].
pub(crate) fn check_hours(rules: &Rules, own: Option<(&str, &Rule)>) -> Result<(), Denied> {
    match rules.left(own, &Now::of_system()) {
        Ok(_) => Ok(()),
        Err((name, hours)) => Err(Denied::Hours {
            setting: setting(name, "hours"),
            hours: hours.to_string(),
        }),
    }
}

/// Waits until the hours of what is open are over, if it shall end then. May be dropped.
pub(crate) async fn out_of_hours(mut policy: PolicyWatch, name: &str, target: &Target) {
    loop {
        let left = {
            let policy = policy.borrow_and_update();
            let rules = &policy.rules;
            match rules.at_end {
                AtEnd::Stay => Duration::MAX,
                AtEnd::Close => match rules.left(policy.rule(name, target), &Now::of_system()) {
                    Ok(left) => left,
                    Err(_) => return,
                },
            }
        };
        let over = async {
            match left {
                Duration::MAX => pending().await,
                // Clocks are set, and changed twice a year.
                left => sleep(left.min(limits::HOURS_LOOK)).await,
            }
        };
        tokio::select! {
            () = over => {}
            changed = policy.changed() => if changed.is_err() {
                // The last policy stays.
                over_at_last(left).await;
            },
        }
    }
}

async fn over_at_last(left: Duration) {
    match left {
        Duration::MAX => pending().await,
        left => sleep(left.min(limits::HOURS_LOOK)).await,
    }
}

/// A setting as it is called in the file.
fn setting(name: Option<&str>, key: &str) -> String {
    match (name, key) {
        (Some(name), key) => format!("targets.{name}.{key}"),
        (None, "hours") => "access.hours".to_owned(),
        (None, key) => format!("limits.{key}"),
    }
}

#[cfg(test)]
mod tests;
