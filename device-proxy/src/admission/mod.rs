//! Whether one more connection may open, by the rules of the device's owner, and how fast it may be.
//! Plain streams and connections in sessions pass here alike, each of them.

mod approvals;
mod bucket;
mod command;
mod gates;
mod throttled;

use std::future::pending;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use common::identity::DeviceIdentity;
use common::session::RefusedCode;
use common::wire::stream::Initiator;
use tokio::time::sleep;

use self::approvals::Approvals;
use self::gates::{Gates, Held};
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
    /// The device accepts nothing now, or no longer has the target.
    #[error("no new stream is accepted now")]
    NotNow,
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
            Self::NotNow => RefusedCode::Withdrawn,
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

/// Permission for one connection, as long as it is kept.
#[derive(Debug)]
pub(crate) struct Admitted {
    held: Held,
}

impl Admitted {
    /// The target's socket, no faster than the rules say, now and when they change.
    pub(crate) fn pace(&self, reached: Reached) -> Reached {
        let (all, place) = (self.held.of_all(), &self.held.place);
        Box::new(Throttled::new(reached, Arc::clone(all), Arc::clone(place)))
    }
}

/// All that is counted.
pub(crate) struct Admission {
    gates: Arc<Gates>,
    approvals: Approvals,
    /// In force.
    policy: PolicyWatch,
}

impl Admission {
    /// Starts with nothing open, under the rules of the policy in force.
    pub(crate) fn new(device: &DeviceIdentity, policy: PolicyWatch) -> Self {
        let gates = Arc::<Gates>::default();
        gates.follow(&policy.borrow());
        Self {
            gates,
            approvals: Approvals::new(device),
            policy,
        }
    }

    /// From now on the rules of this policy hold for what is open, too: it counts, and follows
    /// their rates.
    pub(crate) fn follow(&self, policy: &Policy) {
        self.gates.follow(policy);
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
        let held = self.gates.enter(policy, request)?;
        // Last, since it takes from what there is.
        let own_gate = own.map(|(name, rule)| (Some(name), rule, self.gates.of(name, rule)));
        let of_all = (None, &rules.all, Arc::clone(&self.gates.all));
        for (name, rule, gate) in own_gate.into_iter().chain([of_all]) {
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
            self.check_again(policy, request)?;
        }
        Ok(Admitted { held })
    }

    /// Somebody was asked, which may have taken a while: what counts is what is allowed now.
    fn check_again(&self, before: &Policy, request: &Request<'_>) -> Result<(), Denied> {
        let now = self.policy.borrow();
        let has_target = |policy: &Policy| {
            let target = policy.targets.select(request.name);
            target == Some(request.target)
        };
        if !now.accept || has_target(before) && !has_target(&now) {
            return Err(Denied::NotNow);
        }
        check_hours(&now.rules, now.rule(request.name, request.target))
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
