//! The accepted streams whose legs have not met, by identity and by policy, and which of them goes
//! when there are too many: the oldest of whoever holds most. So a flood shuts out itself.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;

use common::identity::{DeviceIdentity, StreamId};

/// Who holds a stream: its identity, and the policy with which it was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Holder {
    pub(super) identity: DeviceIdentity,
    pub(super) policy: String,
}

/// Streams of one holder, oldest first.
type Own = BTreeMap<u64, StreamId>;
/// How many streams a holder has, and the number of its oldest. The last in order has most; of
/// equals it has the oldest.
type Rank = (usize, Reverse<u64>);

/// All holders of one identity, or of one policy.
#[derive(Debug, Default)]
struct Group {
    streams: usize,
    /// The oldest stream of each holder.
    oldest: BTreeMap<Rank, StreamId>,
}

/// The index. Numbers count up with each accepted stream.
#[derive(Debug, Default)]
pub(super) struct Unjoined {
    holders: HashMap<Holder, Own>,
    identities: HashMap<DeviceIdentity, Group>,
    policies: HashMap<String, Group>,
    streams: usize,
}

impl Unjoined {
    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.streams
    }

    /// How many an identity has.
    pub(super) fn of_identity(&self, identity: &DeviceIdentity) -> usize {
        let group = self.identities.get(identity);
        group.map_or(0, |group| group.streams)
    }

    /// How many were asked for with a policy.
    pub(super) fn of_policy(&self, policy: &str) -> usize {
        let group = self.policies.get(policy);
        group.map_or(0, |group| group.streams)
    }

    /// Which of an identity's streams goes first: the oldest of the policy that has most there.
    pub(super) fn first_of_identity(&self, identity: &DeviceIdentity) -> Option<StreamId> {
        self.identities.get(identity).and_then(Group::first)
    }

    /// Which of a policy's streams goes first: the oldest of the identity that has most there.
    pub(super) fn first_of_policy(&self, policy: &str) -> Option<StreamId> {
        self.policies.get(policy).and_then(Group::first)
    }

    /// Which of all goes first: one of the policy that has most.
    pub(super) fn first(&self) -> Option<StreamId> {
        // There are only a few policies.
        let rank = |group: &&Group| (group.streams, group.oldest.keys().next_back().copied());
        self.policies.values().max_by_key(rank)?.first()
    }

    /// Enters a stream, which is younger than all others.
    pub(super) fn insert(&mut self, holder: &Holder, number: u64, stream: StreamId) {
        let own = self.holders.entry(holder.clone()).or_default();
        let before = oldest(own);
        own.insert(number, stream);
        let after = oldest(own);
        self.streams += 1;
        change(&mut self.identities, &holder.identity, before, after);
        change(&mut self.policies, &holder.policy, before, after);
    }

    /// Takes a stream out, which was entered with this number.
    pub(super) fn remove(&mut self, holder: &Holder, number: u64) {
        let Some(own) = self.holders.get_mut(holder) else {
            return;
        };
        let before = oldest(own);
        if own.remove(&number).is_none() {
            return;
        }
        let after = oldest(own);
        if own.is_empty() {
            self.holders.remove(holder);
        }
        self.streams -= 1;
        change(&mut self.identities, &holder.identity, before, after);
        change(&mut self.policies, &holder.policy, before, after);
    }
}

impl Group {
    fn first(&self) -> Option<StreamId> {
        self.oldest.values().next_back().copied()
    }
}

fn oldest(own: &Own) -> Option<(Rank, StreamId)> {
    let (number, stream) = own.first_key_value()?;
    Some(((own.len(), Reverse(*number)), *stream))
}

/// Enters in a group what has become of one of its holders.
fn change<K: Clone + Eq + Hash>(
    groups: &mut HashMap<K, Group>,
    key: &K,
    before: Option<(Rank, StreamId)>,
    after: Option<(Rank, StreamId)>,
) {
    let group = groups.entry(key.clone()).or_default();
    if let Some((rank, _)) = before {
        group.oldest.remove(&rank);
        group.streams -= rank.0;
    }
    if let Some((rank, stream)) = after {
        group.oldest.insert(rank, stream);
        group.streams += rank.0;
    }
    if group.streams == 0 {
        groups.remove(key);
    }
}
