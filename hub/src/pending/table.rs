//! Requests that wait for a device's answer, and the rules between them. No I/O, no clock, no
//! task: `T` is whatever the caller keeps of a request.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use common::identity::DeviceIdentity;

use crate::limits::{Limit, Over, Whose};
use crate::presence::HubSessionId;

/// Why a request cannot wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AskRefused {
    /// Too many requests wait for this identity.
    #[error("too many requests wait for this device: {0}")]
    TooMany(Over),
    /// The hub is going down.
    #[error("the hub is stopping")]
    Stopping,
}

/// The first of them ends soon.
const TOO_MANY: Over = Over {
    limit: Limit::Pending,
    whose: Whose::Device,
    retry_after: Duration::from_secs(1),
};

#[derive(Debug)]
struct Entry<T> {
    /// The hub session that it was sent on last.
    sent_on: Option<HubSessionId>,
    value: T,
}

/// All requests of a hub that wait, by identity and number. An identity without any has no entry.
#[derive(Debug)]
pub struct Table<T> {
    identities: HashMap<DeviceIdentity, BTreeMap<u64, Entry<T>>>,
    last_number: u64,
    /// Of one identity.
    most: usize,
    repeats: Repeats,
    is_closed: bool,
}

/// Whether a request that was sent and not answered goes to the identity's next session too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Repeats {
    /// It does: what it asks for is done once, however often it comes.
    ToNextSession,
    /// It does not: it may have been carried out. Its answer counts on any session.
    Never,
}

impl<T> Table<T> {
    /// From now on at most so many of one identity; none ends for that.
    pub fn set_most(&mut self, most: usize) {
        self.most = most;
    }

    /// An empty table of at most `most` requests of one identity; request numbers count up from
    /// behind `start`, which should differ from start to start, so that a late answer meets no
    /// other's request.
    pub fn new(start: u64, most: usize, repeats: Repeats) -> Self {
        Self {
            identities: HashMap::new(),
            last_number: start,
            most,
            repeats,
            is_closed: false,
        }
    }

    /// Enters a request; `make` is given its number, which is returned.
    ///
    /// # Errors
    /// [`AskRefused`]; nothing has changed then.
    pub fn ask(
        &mut self,
        identity: &DeviceIdentity,
        make: impl FnOnce(u64) -> T,
    ) -> Result<u64, AskRefused> {
        if self.is_closed {
            return Err(AskRefused::Stopping);
        }
        let waiting = self.identities.get(identity).map_or(0, BTreeMap::len);
        if waiting >= self.most {
            return Err(AskRefused::TooMany(TOO_MANY));
        }
        self.last_number += 1;
        let number = self.last_number;
        let entry = Entry {
            sent_on: None,
            value: make(number),
        };
        let own = self.identities.entry(identity.clone()).or_default();
        own.insert(number, entry);
        Ok(number)
    }

    /// The requests that are to go to this hub session, oldest first; from now on they have.
    pub fn undelivered(&mut self, identity: &DeviceIdentity, session: HubSessionId) -> Vec<&T> {
        let repeats = self.repeats;
        let Some(own) = self.identities.get_mut(identity) else {
            return Vec::new();
        };
        own.values_mut()
            .filter(|entry| match repeats {
                Repeats::ToNextSession => entry.sent_on != Some(session),
                Repeats::Never => entry.sent_on.is_none(),
            })
            .map(|entry| {
                entry.sent_on = Some(session);
                &entry.value
            })
            .collect()
    }

    /// Takes out the request that this identity answers, on whichever session. `None`: no such
    /// request waits, or it was never sent, and so cannot have been answered.
    pub fn answer(&mut self, identity: &DeviceIdentity, number: u64) -> Option<T> {
        let entry = self.identities.get(identity)?.get(&number)?;
        entry.sent_on?;
        self.withdraw(identity, number)
    }

    /// Takes out a request whose answer nothing waits for any more.
    pub fn withdraw(&mut self, identity: &DeviceIdentity, number: u64) -> Option<T> {
        let own = self.identities.get_mut(identity)?;
        let entry = own.remove(&number)?;
        if own.is_empty() {
            self.identities.remove(identity);
        }
        Some(entry.value)
    }

    /// Takes out all requests of an identity.
    pub fn remove_all(&mut self, identity: &DeviceIdentity) -> Vec<T> {
        let own = self.identities.remove(identity).unwrap_or_default();
        own.into_values().map(|entry| entry.value).collect()
    }

    /// Takes no more requests, and gives out those that wait.
    pub fn close(&mut self) -> Vec<T> {
        self.is_closed = true;
        let all = self.identities.drain();
        all.flat_map(|(_, own)| own.into_values().map(|entry| entry.value))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use common::identity::DeviceId;
    use proptest::prelude::*;

    use super::*;
    use crate::auth::{Credential, DevicePrincipal};
    use crate::presence::Presence;

    /// Requests of one identity at once.
    const MOST: usize = 8;

    fn identity(name: &str) -> DeviceIdentity {
        DeviceIdentity::of_device(DeviceId::parse(name).unwrap())
    }

    /// Two hub sessions of one identity.
    fn sessions() -> [HubSessionId; 2] {
        let presence = Presence::default();
        [0, 1].map(|_| {
            let principal = DevicePrincipal {
                identity: identity("d"),
                expires: None,
                credential: Credential::Key([0; 32]),
                generation_id: String::new(),
            };
            presence.admit(&principal).connection
        })
    }

    #[test]
    fn the_usual_life() {
        let [first, _] = sessions();
        let mut table = Table::new(7, MOST, Repeats::ToNextSession);
        let d = identity("d");
        let number = table.ask(&d, |number| number).unwrap();
        assert_eq!(number, 8);
        assert_eq!(table.answer(&d, number), None, "not sent yet");
        assert_eq!(table.undelivered(&d, first), [&8]);
        assert!(table.undelivered(&d, first).is_empty(), "sent once");
        assert_eq!(table.answer(&identity("other"), number), None);
        assert_eq!(table.answer(&d, number), Some(8));
        assert_eq!(table.answer(&d, number), None, "answered once");
        assert!(table.identities.is_empty());
    }

    #[test]
    fn what_waits_goes_to_the_next_session_too() {
        let [first, second] = sessions();
        let mut table = Table::new(0, MOST, Repeats::ToNextSession);
        let d = identity("d");
        let number = table.ask(&d, |number| number).unwrap();
        assert_eq!(table.undelivered(&d, first), [&number]);
        assert_eq!(table.undelivered(&d, second), [&number]);
        assert_eq!(table.answer(&d, number), Some(number));
        assert!(table.undelivered(&d, first).is_empty(), "answered");
    }

    #[test]
    fn what_may_not_be_repeated_is_sent_once_and_answered_on_any_session() {
        let [first, second] = sessions();
        let mut table = Table::new(0, MOST, Repeats::Never);
        let d = identity("d");
        let number = table.ask(&d, |number| number).unwrap();
        assert_eq!(table.undelivered(&d, first), [&number]);
        assert!(table.undelivered(&d, second).is_empty());
        let late = table.ask(&d, |number| number).unwrap();
        assert_eq!(table.undelivered(&d, second), [&late]);
        assert_eq!(table.answer(&d, number), Some(number));
    }

    #[test]
    fn an_identity_has_a_limited_number_and_a_withdrawn_one_makes_room() {
        let mut table = Table::new(0, MOST, Repeats::ToNextSession);
        let d = identity("d");
        let mut last = 0;
        for _ in 0..MOST {
            last = table.ask(&d, |number| number).unwrap();
        }
        let full = table.ask(&d, |number| number);
        assert_eq!(full, Err(AskRefused::TooMany(TOO_MANY)));
        assert!(table.ask(&identity("e"), |number| number).is_ok());
        assert_eq!(table.withdraw(&d, last), Some(last));
        assert!(table.ask(&d, |number| number).is_ok());
    }

    #[test]
    fn a_closed_table_takes_no_more_and_gives_out_all() {
        let mut table = Table::new(0, MOST, Repeats::ToNextSession);
        table.ask(&identity("d"), |number| number).unwrap();
        table.ask(&identity("e"), |number| number).unwrap();
        assert_eq!(table.close().len(), 2);
        assert_eq!(
            table.ask(&identity("d"), |number| number),
            Err(AskRefused::Stopping)
        );
    }

    /// One step of a random history.
    #[derive(Debug, Clone)]
    enum Step {
        Ask(u8),
        Deliver(u8, bool),
        Answer(u8, u8),
        Withdraw(u8, u8),
        RemoveAll(u8),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (0..3u8).prop_map(Step::Ask),
            (0..3u8, any::<bool>()).prop_map(|(d, s)| Step::Deliver(d, s)),
            (0..3u8, 0..20u8).prop_map(|(d, n)| Step::Answer(d, n)),
            (0..3u8, 0..20u8).prop_map(|(d, n)| Step::Withdraw(d, n)),
            (0..3u8).prop_map(Step::RemoveAll),
        ]
    }

    proptest! {
        /// Whatever the order of events: who asked is answered by its own identity, once, after
        /// it was sent, and nothing is left behind.
        #[test]
        fn random_histories_keep_the_table_whole(steps in proptest::collection::vec(step(), 0..80)) {
            let sessions = sessions();
            let mut table = Table::new(0, MOST, Repeats::ToNextSession);
            let mut waiting = BTreeSet::<(u8, u64)>::new();
            let mut sent = BTreeSet::<(u8, u64)>::new();
            let name = |n: u8| identity(&format!("d{n}"));
            for step in steps {
                match step {
                    Step::Ask(d) => {
                        let has_room = waiting.iter().filter(|(of, _)| *of == d).count() < MOST;
                        let asked = table.ask(&name(d), |number| (d, number));
                        prop_assert_eq!(asked.is_ok(), has_room);
                        waiting.extend(asked.map(|number| (d, number)));
                    }
                    Step::Deliver(d, second) => {
                        let identity = name(d);
                        for request in table.undelivered(&identity, sessions[usize::from(second)]) {
                            prop_assert!(request.0 == d && waiting.contains(request));
                            sent.insert(*request);
                        }
                    }
                    Step::Answer(d, n) => {
                        let key = (d, u64::from(n));
                        let is_due = waiting.contains(&key) && sent.contains(&key);
                        prop_assert_eq!(table.answer(&name(d), n.into()).is_some(), is_due);
                        if is_due {
                            waiting.remove(&key);
                        }
                    }
                    Step::Withdraw(d, n) => {
                        let was_there = waiting.remove(&(d, u64::from(n)));
                        prop_assert_eq!(table.withdraw(&name(d), n.into()).is_some(), was_there);
                    }
                    Step::RemoveAll(d) => {
                        let removed = table.remove_all(&name(d)).len();
                        let before = waiting.len();
                        waiting.retain(|(of, _)| *of != d);
                        prop_assert_eq!(removed, before - waiting.len());
                    }
                }
                let held: usize = table.identities.values().map(BTreeMap::len).sum();
                prop_assert_eq!(held, waiting.len());
                prop_assert!(table.identities.values().all(|own| !own.is_empty()));
            }
        }
    }
}
