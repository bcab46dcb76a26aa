//! What is open now, and what the rules count of it. All that is open is kept by where it leads,
//! whether there are rules for it or not: those that come later hold for it, too.

use std::collections::HashMap;
use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex};

use common::locks::lock;

use super::bucket::Bucket;
use super::{Denied, Request, setting};
use crate::policy::{Policy, Rule};
use crate::target::Target;

/// What counts for the rules of one target, or for those of all together.
#[derive(Debug, Default)]
pub(super) struct Gate {
    pub(super) new: Bucket,
    pub(super) from_target: Bucket,
    pub(super) to_target: Bucket,
    /// Bytes in a second; 0: as many as come.
    rate: AtomicU64,
}

impl Gate {
    pub(super) fn rate(&self) -> Option<u64> {
        Some(self.rate.load(Relaxed)).filter(|rate| *rate > 0)
    }

    pub(super) fn set_rate(&self, rate: Option<u64>) {
        self.rate.store(rate.unwrap_or_default(), Relaxed);
    }

    fn follow(&self, rule: &Rule) {
        self.set_rate(rule.bytes_per_second.map(Into::into));
    }
}

/// Where connections lead under one name.
#[derive(Debug, Default)]
pub(super) struct Place {
    /// That of the rules that hold for it now, if it has any.
    gate: Mutex<Option<Arc<Gate>>>,
    /// Whether that one has a rate: without one nothing on the data path takes a lock.
    is_limited: AtomicBool,
}

impl Place {
    /// The gate of its rules, if they limit its bytes.
    pub(super) fn limiting(&self) -> Option<Arc<Gate>> {
        let is_limited = self.is_limited.load(Acquire);
        is_limited.then(|| lock(&self.gate).clone()).flatten()
    }

    /// From now on it has this gate, with the rate that it has by now.
    fn set_gate(&self, gate: Option<Arc<Gate>>) {
        let is_limited = gate.as_ref().is_some_and(|gate| gate.rate().is_some());
        *lock(&self.gate) = gate;
        self.is_limited.store(is_limited, Release);
    }
}

/// The gates of all rules, and all that is open.
#[derive(Debug, Default)]
pub(super) struct Gates {
    pub(super) all: Arc<Gate>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// By the names of the rules.
    named: HashMap<String, Arc<Gate>>,
    /// How many are open at each place.
    open: HashMap<Key, (Arc<Place>, usize)>,
}

/// The name by which a target was asked for, and the target.
type Key = (String, Target);

impl State {
    fn gate(&mut self, name: &str, rule: &Rule) -> Arc<Gate> {
        if let Some(gate) = self.named.get(name) {
            return Arc::clone(gate);
        }
        let gate = Arc::<Gate>::default();
        gate.follow(rule);
        self.named.insert(name.to_owned(), Arc::clone(&gate));
        gate
    }

    /// How many are open where the rules of this name hold.
    fn count(&self, policy: &Policy, rule: &str) -> usize {
        let is_ruled = |(name, target): &Key| {
            let found = policy.rule(name, target);
            found.is_some_and(|(name, _)| name == rule)
        };
        let ruled = self.open.iter().filter(|(key, _)| is_ruled(key));
        ruled.map(|(_, (_, open))| open).sum()
    }
}

impl Gates {
    /// The gate of these rules.
    pub(super) fn of(&self, name: &str, rule: &Rule) -> Arc<Gate> {
        lock(&self.state).gate(name, rule)
    }

    /// Counts one more as open, if there may be.
    ///
    /// # Errors
    /// [`Denied::Connections`].
    pub(super) fn enter(
        self: &Arc<Self>,
        policy: &Policy,
        request: &Request<'_>,
    ) -> Result<Held, Denied> {
        let own = policy.rule(request.name, request.target);
        let mut state = lock(&self.state);
        if let Some((name, rule)) = own
            && let Some(most) = rule.connections
            && state.count(policy, name) >= most
        {
            let setting = setting(Some(name), "connections");
            return Err(Denied::Connections { setting, most });
        }
        let gate = own.map(|(name, rule)| state.gate(name, rule));
        let key = (request.name.to_owned(), request.target.clone());
        let (place, open) = state.open.entry(key.clone()).or_default();
        // What is open already follows the rules in force, which may be newer than these.
        if *open == 0 {
            place.set_gate(gate);
        }
        *open += 1;
        Ok(Held {
            place: Arc::clone(place),
            gates: Arc::clone(self),
            key,
        })
    }

    /// All that is open follows the rules of this policy.
    pub(super) fn follow(&self, policy: &Policy) {
        let rules = &policy.rules;
        self.all.follow(&rules.all);
        let mut state = lock(&self.state);
        state.named.retain(|name, gate| {
            let rule = rules.named.get(name);
            gate.follow(rule.unwrap_or(&Rule::default()));
            rule.is_some()
        });
        let places = state.open.iter();
        let places = places.map(|(key, (place, _))| (key.clone(), Arc::clone(place)));
        for ((name, target), place) in places.collect::<Vec<_>>() {
            let own = policy.rule(&name, &target);
            place.set_gate(own.map(|(name, rule)| state.gate(name, rule)));
        }
    }

    fn leave(&self, key: &Key) {
        let mut state = lock(&self.state);
        if let Some((_, open)) = state.open.get_mut(key) {
            *open -= 1;
            if *open == 0 {
                state.open.remove(key);
            }
        }
    }
}

/// Counts as open until it is dropped.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) place: Arc<Place>,
    gates: Arc<Gates>,
    key: Key,
}

impl Held {
    /// The gate of the rules for all targets.
    pub(super) fn of_all(&self) -> &Arc<Gate> {
        &self.gates.all
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.gates.leave(&self.key);
    }
}
