//! What each one may have: how often policies and devices may ask for something, and how many bytes
//! their streams may move. What is asked for is judged here before anything is done about it; a
//! limit that is reached is reported here, whoever reached it.
//!
//! Limits that are full tables, as streams at once or requests that wait, are judged where these
//! tables are.

mod account;
mod connects;
mod day;
mod meter;
mod rates;

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use common::identity::DeviceIdentity;
use common::locks::lock;
use tokio::time::{Instant, sleep, sleep_until};

use self::account::Account;
use self::connects::Connects;
pub use self::meter::Meter;
use self::rates::Rates;
use crate::events::{Event, Events};
use crate::limits::{Limit, Limits, Over, Share, Whose};

/// The longest that a device's new connection waits for its turn.
const TURN: Duration = Duration::from_secs(60);

/// Who moves bytes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Who {
    /// All of them.
    Hub,
    /// Who asks with this shared access policy.
    Policy(String),
    /// A device or module.
    Device(DeviceIdentity),
}

/// What one has moved on a day.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsageRecord {
    /// Who.
    pub who: Who,
    /// Bytes, both ways together.
    pub bytes: u64,
}

/// All quotas of one hub process. Cheap to clone.
#[derive(Clone)]
pub struct Quotas(Arc<Shared>);

struct Shared {
    rules: Mutex<Arc<Rules>>,
    accounts: Mutex<Accounts>,
    connects: Connects,
    began: Instant,
    events: Events,
}

#[derive(Default)]
struct Accounts {
    of: HashMap<Who, Arc<Account>>,
    /// Whose day it is.
    day: u64,
}

/// The limits in force, with what was counted by them.
struct Rules {
    limits: Limits,
    hub: Arc<Rates<()>>,
    each_policy: Arc<Rates<String>>,
    policies: Vec<(String, Arc<Rates<String>>)>,
    each_device: Arc<Rates<DeviceIdentity>>,
    devices: Vec<(String, Arc<Rates<DeviceIdentity>>)>,
}

/// The same as before, if it is by the same numbers, so that nothing is forgotten.
fn keep<K: std::hash::Hash + Eq + Clone>(
    old: Option<&Arc<Rates<K>>>,
    share: &Share,
) -> Arc<Rates<K>> {
    match old {
        Some(old) if old.share() == share => Arc::clone(old),
        _ => Arc::new(Rates::new(*share)),
    }
}

fn keep_named<K: std::hash::Hash + Eq + Clone>(
    old: &[(String, Arc<Rates<K>>)],
    shares: &[(String, Share)],
) -> Vec<(String, Arc<Rates<K>>)> {
    let shares = shares.iter();
    let named = shares.map(|(name, share)| {
        let mut old = old.iter().filter(|(of, _)| of == name);
        (
            name.clone(),
            keep(old.next().map(|(_, rates)| rates), share),
        )
    });
    named.collect()
}

impl Rules {
    fn new(limits: &Limits, old: Option<&Self>) -> Self {
        Self {
            hub: keep(old.map(|old| &old.hub), &limits.hub),
            each_policy: keep(old.map(|old| &old.each_policy), &limits.each_policy),
            policies: keep_named(
                old.map_or(&[], |old| old.policies.as_slice()),
                &limits.policies,
            ),
            each_device: keep(old.map(|old| &old.each_device), &limits.each_device),
            devices: keep_named(
                old.map_or(&[], |old| old.devices.as_slice()),
                &limits.devices,
            ),
            limits: limits.clone(),
        }
    }

    fn of_policy(&self, name: &str) -> &Rates<String> {
        let mut named = self.policies.iter().filter(|(of, _)| of == name);
        named.next().map_or(&self.each_policy, |(_, rates)| rates)
    }

    fn of_device(&self, identity: &DeviceIdentity) -> &Rates<DeviceIdentity> {
        let exception = self.limits.exception_of(identity);
        let exception = exception.and_then(|place| self.devices.get(place));
        exception.map_or(&self.each_device, |(_, rates)| rates)
    }

    fn share(&self, who: &Who) -> &Share {
        match who {
            Who::Hub => &self.limits.hub,
            Who::Policy(name) => self.limits.of_policy(name),
            Who::Device(identity) => self.limits.of_device(identity),
        }
    }
}

impl Who {
    fn whose(&self) -> Whose {
        match self {
            Self::Hub => Whose::Hub,
            Self::Policy(_) => Whose::Policy,
            Self::Device(_) => Whose::Device,
        }
    }
}

impl Quotas {
    /// These, and nothing was done so far. Limits that are reached are reported to `events`.
    pub fn new(limits: &Limits, events: Events) -> Self {
        Self(Arc::new(Shared {
            rules: Mutex::new(Arc::new(Rules::new(limits, None))),
            accounts: Mutex::new(Accounts {
                day: day::today(),
                ..Accounts::default()
            }),
            connects: Connects::default(),
            began: Instant::now(),
            events,
        }))
    }

    /// Reports that a limit was reached.
    pub fn report(&self, over: &Over, policy: Option<&str>, device: Option<&DeviceIdentity>) {
        self.0.events.emit(Event::Limited {
            over,
            policy,
            device,
        });
    }

    /// From now on these limits hold. What was done before is only forgotten where the numbers are
    /// others. A stream that is open, and had no limit of bytes, keeps that.
    pub fn set_limits(&self, limits: &Limits) {
        let rules = {
            let mut rules = lock(&self.0.rules);
            *rules = Arc::new(Rules::new(limits, Some(&rules)));
            Arc::clone(&rules)
        };
        for (who, account) in &self.accounts().of {
            account.set(rules.share(who));
        }
    }

    fn rules(&self) -> Arc<Rules> {
        Arc::clone(&lock(&self.0.rules))
    }

    fn accounts(&self) -> MutexGuard<'_, Accounts> {
        lock(&self.0.accounts)
    }

    /// Counts one more of what this policy asks for, about this device, where each is known.
    ///
    /// # Errors
    /// [`Over`], which was reported.
    pub fn admit(
        &self,
        limit: Limit,
        policy: Option<&str>,
        device: Option<&DeviceIdentity>,
    ) -> Result<(), Over> {
        let judged = self.judge(limit, policy, device);
        if let Err(over) = &judged {
            self.report(over, policy, device);
        }
        judged
    }

    /// Waits until there may be one more of what a job of this policy does. That it has to wait is
    /// reported. May be dropped: nothing is counted then.
    pub async fn turn(&self, limit: Limit, policy: &str) {
        let mut is_waiting = false;
        while let Err(over) = self.judge(limit, Some(policy), None) {
            if !std::mem::replace(&mut is_waiting, true) {
                self.report(&over, Some(policy), None);
            }
            sleep(over.retry_after).await;
        }
    }

    /// As [`Quotas::admit`], without a report.
    ///
    /// # Errors
    /// [`Over`].
    pub fn judge(
        &self,
        limit: Limit,
        policy: Option<&str>,
        device: Option<&DeviceIdentity>,
    ) -> Result<(), Over> {
        let rules = self.rules();
        let over = |whose| {
            move |retry_after| Over {
                limit,
                whose,
                retry_after,
            }
        };
        // The narrowest first: who is over its own limit takes nothing of others'.
        if let Some(device) = device {
            let checked = rules.of_device(device).check(limit, device);
            checked.map_err(over(Whose::Device))?;
        }
        if let Some(policy) = policy {
            let checked = rules.of_policy(policy).check(limit, &policy.to_owned());
            checked.map_err(over(Whose::Policy))?;
        }
        rules.hub.check(limit, &()).map_err(over(Whose::Hub))?;
        match limit {
            Limit::Initiations => self.has_bytes(policy, device),
            _ => Ok(()),
        }
    }

    /// Whether something is left of the day.
    fn has_bytes(&self, policy: Option<&str>, device: Option<&DeviceIdentity>) -> Result<(), Over> {
        let accounts = self.accounts();
        if accounts.of.is_empty() {
            return Ok(());
        }
        let all = [
            device.cloned().map(Who::Device),
            policy.map(|policy| Who::Policy(policy.to_owned())),
            Some(Who::Hub),
        ];
        let is_used_up = |who: &Who| {
            let account = accounts.of.get(who);
            account.is_some_and(|account| account.is_used_up())
        };
        match all.into_iter().flatten().find(is_used_up) {
            None => Ok(()),
            Some(who) => Err(Over {
                limit: Limit::BytesPerDay,
                whose: who.whose(),
                retry_after: day::until_next(),
            }),
        }
    }

    /// For both directions of a stream, if its bytes are limited.
    pub fn meters(&self, policy: &str, device: &DeviceIdentity) -> Option<[Meter; 2]> {
        let rules = self.rules();
        let all = [
            Who::Device(device.clone()),
            Who::Policy(policy.to_owned()),
            Who::Hub,
        ];
        let mut of_stream = Vec::new();
        for who in all {
            let share = rules.share(&who);
            let limits = [Limit::BytesPerSecond, Limit::BytesPerDay];
            if limits.iter().any(|limit| share.most(*limit).is_some()) {
                let whose = who.whose();
                of_stream.push((whose, self.account(who, share)));
            }
        }
        if of_stream.is_empty() {
            return None;
        }
        let meter = || Meter::new(of_stream.clone(), self.0.began);
        Some([meter(), meter()])
    }

    fn account(&self, who: Who, share: &Share) -> Arc<Account> {
        let mut accounts = self.accounts();
        let account = accounts.of.entry(who).or_insert_with(|| {
            let account = Account::default();
            account.set(share);
            Arc::new(account)
        });
        Arc::clone(account)
    }

    /// How many streams at once a policy and a device may have.
    pub fn streams(&self, policy: &str, device: &DeviceIdentity) -> [Option<u64>; 2] {
        let rules = self.rules();
        [
            rules.limits.of_policy(policy),
            rules.limits.of_device(device),
        ]
        .map(|share| share.most(Limit::Streams))
    }

    /// Waits until a device may open a hub session: usually not at all. `false`: a newer connection
    /// of the same identity waits in its place, or it has waited too long. May be dropped.
    pub async fn may_connect(&self, device: &DeviceIdentity) -> bool {
        let check = || {
            self.rules()
                .of_device(device)
                .check(Limit::Connects, device)
        };
        let Err(mut wait) = check() else {
            return true;
        };
        let over = Over {
            limit: Limit::Connects,
            whose: Whose::Device,
            retry_after: wait,
        };
        self.report(&over, None, Some(device));
        let turn = self.0.connects.wait(device);
        let until = Instant::now() + TURN;
        loop {
            let at = Instant::now() + wait;
            tokio::select! {
                () = turn.gone.cancelled() => return false,
                () = sleep_until(at.min(until)) => {}
            }
            match check() {
                Ok(()) => return true,
                Err(_) if Instant::now() >= until => return false,
                Err(longer) => wait = longer,
            }
        }
    }

    /// The present day, as days since 1970. A new day begins when this is called.
    pub fn day(&self) -> u64 {
        let today = day::today();
        let mut accounts = self.accounts();
        if accounts.day != today {
            accounts.day = today;
            for account in accounts.of.values() {
                account.begin_day();
            }
        }
        today
    }

    /// What was moved on this day before the hub was started.
    pub fn load(&self, day: u64, records: Vec<UsageRecord>) {
        let rules = self.rules();
        if self.day() != day {
            return;
        }
        for UsageRecord { who, bytes } in records {
            let share = rules.share(&who);
            if share.most(Limit::BytesPerDay).is_some() {
                let share = *share;
                self.account(who, &share).add_stored(bytes);
            }
        }
    }

    /// What was moved on this day and is not stored yet, at most so many.
    pub fn unstored(&self, most: usize) -> Vec<UsageRecord> {
        let accounts = self.accounts();
        let unstored = accounts.of.iter().filter_map(|(who, account)| {
            let who = who.clone();
            account.unstored().map(|bytes| UsageRecord { who, bytes })
        });
        unstored.take(most).collect()
    }

    /// These are stored.
    pub fn stored(&self, records: &[UsageRecord]) {
        let accounts = self.accounts();
        for UsageRecord { who, bytes } in records {
            if let Some(account) = accounts.of.get(who) {
                account.set_stored(*bytes);
            }
        }
    }

    /// Forgets who has done nothing lately; to be called every few seconds.
    pub fn trim(&self) {
        let rules = self.rules();
        rules.hub.trim();
        rules.each_policy.trim();
        rules.each_device.trim();
        rules.policies.iter().for_each(|(_, rates)| rates.trim());
        rules.devices.iter().for_each(|(_, rates)| rates.trim());
        let now = self.0.began.elapsed();
        let mut accounts = self.accounts();
        accounts.of.retain(|_, account| {
            // Streams hold theirs.
            let is_held = Arc::strong_count(account) > 1;
            is_held || !account.is_fresh(now) && account.is_limited()
        });
        accounts.of.shrink_to_fit();
    }
}

impl fmt::Debug for Quotas {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Quotas")
    }
}

#[cfg(test)]
mod tests;
