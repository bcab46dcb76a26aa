//! Where the two legs of a stream meet: each is expected, claims its place with a token that works
//! once, and brings its WebSocket; the first waits for the second. Streams that are open have
//! their entries here until they end.
//!
//! The rules are in [`table`]; here are the lock, the channels and the deadlines.

mod table;

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use common::identity::{DeviceIdentity, Leg, StreamId, StreamName};
use common::locks::lock;
use common::websocket::WebSocketError;
use tokio::sync::oneshot;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use table::{Arrival, Most, Removed, Table};
pub use table::{ExpectRefused, LegRefused, Own};

use crate::events::{self, Event, Events, Outcome};
use crate::limits::{self, Limits};
use crate::registry::Login;

/// Who has asked for a stream.
#[derive(Debug, Clone)]
pub struct Opener {
    /// The shared access policy of the token.
    pub policy: String,
    /// The address that the request came from.
    pub peer: SocketAddr,
    /// Who it was by name, if the token was issued to somebody.
    pub person: Option<Arc<str>>,
    /// That token.
    pub token: Option<Arc<str>>,
    /// What the identity provider has said of the person, if they have logged in there; else the
    /// name is one that an operator of the hub has given to a token.
    pub login: Option<Arc<Login>>,
    /// What an approver has granted, if the stream ends with that.
    pub grant: Option<Grant>,
}

/// What an approver has granted for a while.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// The request.
    pub request: Arc<str>,
    /// Until when, Unix seconds.
    pub until: u64,
}

/// Why an accepted stream has ended whose legs have not met.
#[derive(Debug, thiserror::Error)]
pub enum Unpaired {
    /// They did not meet within [`limits::LEG_ARRIVAL`].
    #[error("the time for its legs is over")]
    Late,
    /// The leg that came first has closed it.
    #[error("the {0} closed it")]
    Closed(Leg),
    /// The leg that came first was lost.
    #[error("the {0}'s leg was lost")]
    Lost(Leg, #[source] WebSocketError),
    /// A leg has shown its token and did not go on.
    #[error("the {0}'s leg did not become a WebSocket")]
    NoSocket(Leg),
    /// Too many accepted streams waited for their legs, and it was the oldest of whoever had most.
    #[error("too many streams waited for their legs, and newer ones took its place")]
    Evicted,
    /// Its identity may have no streams any more.
    #[error("the identity was disabled, deleted or damaged")]
    Revoked,
    /// An approver has granted it for a time, which is over.
    #[error("the time is over that it was granted for")]
    GrantOver,
    /// An approver has taken back what was granted.
    #[error("an approver has taken back what was granted")]
    GrantTakenBack,
    /// The token that it was asked for with was revoked.
    #[error("its token was revoked")]
    TokenRevoked,
    /// The hub is going down.
    #[error("the hub is stopping")]
    Stopping,
    /// The hub has ended it, in the moment in which the second leg came.
    #[error("the hub ended it")]
    Cancelled,
}

impl Unpaired {
    /// Names it among a fixed set of words.
    fn kind(&self) -> &'static str {
        match self {
            Self::Late => "late",
            Self::Closed(_) => "closed",
            Self::Lost(..) => "lost",
            Self::NoSocket(_) => "no_socket",
            Self::Evicted => "evicted",
            Self::Revoked | Self::TokenRevoked => "revoked",
            Self::GrantOver => "grant_over",
            Self::GrantTakenBack => "grant_taken_back",
            Self::Stopping | Self::Cancelled => "hub",
        }
    }

    /// Who has ended it: `device`, `service` or `hub`.
    fn ended_by(&self) -> &'static str {
        match self {
            Self::Closed(leg) | Self::Lost(leg, _) | Self::NoSocket(leg) => leg.as_str(),
            Self::Late
            | Self::Evicted
            | Self::Revoked
            | Self::GrantOver
            | Self::GrantTakenBack
            | Self::TokenRevoked
            | Self::Stopping
            | Self::Cancelled => "hub",
        }
    }
}

/// What the table keeps of a stream besides its state.
struct Stream<W> {
    name: String,
    /// When it was asked for.
    since: Instant,
    opener: Opener,
    /// The leg that came first gives its other half here.
    partner: Option<oneshot::Sender<W>>,
    cancel: CancellationToken,
}

/// All streams of one hub process; `W` is a leg's WebSocket. Cheap to clone.
pub struct Legs<W> {
    table: Arc<Mutex<Table<Stream<W>>>>,
    events: Events,
}

impl<W> Clone for Legs<W> {
    fn clone(&self) -> Self {
        Self {
            table: Arc::clone(&self.table),
            events: self.events.clone(),
        }
    }
}

/// A stream that its device has not accepted yet; dropped before that, it is given up.
pub struct Expected<W> {
    legs: Legs<W>,
    stream: StreamId,
    is_accepted: bool,
    /// Cancelled when the hub ends the stream, or its device's leg has come and gone.
    pub cancel: CancellationToken,
}

/// One leg's right to its place; dropped, the leg is gone and its stream with it.
pub struct LegPlace<W> {
    legs: Legs<W>,
    /// Which stream it is.
    pub stream: StreamId,
    /// Cancelled when the hub ends the stream.
    pub cancel: CancellationToken,
    /// The stream's identity.
    pub identity: DeviceIdentity,
    /// The stream's name.
    pub name: String,
    /// When the stream was asked for.
    pub since: Instant,
    /// Who has asked for the stream.
    pub opener: Opener,
    leg: Leg,
    /// Whether the stream ends with this leg's task.
    in_charge: bool,
    /// Whether both legs are here: its relay reports the end then.
    is_paired: bool,
}

/// What a leg finds when it arrives with its WebSocket.
pub enum Meeting<W> {
    /// It is the first: the other will be handed over here, or the stream is given up.
    First(W, oneshot::Receiver<W>),
    /// It is the second, and was handed over to the first, which runs the relay.
    Second,
    /// The stream is gone.
    Gone(W),
}

fn most(limits: &Limits) -> Most {
    Most {
        streams: limits.streams,
        unjoined: limits.unjoined,
        unjoined_per_identity: limits.unjoined_per_device,
        unjoined_per_policy: limits.unjoined_per_policy,
    }
}

impl<W> Legs<W> {
    /// None yet, and never more than these limits allow.
    pub fn new(limits: &Limits, events: Events) -> Self {
        Self {
            table: Arc::new(Mutex::new(Table::new(most(limits)))),
            events,
        }
    }

    /// From now on never more than these limits allow, as soon as what is beyond them has ended.
    pub fn set_limits(&self, limits: &Limits) {
        self.table().set_most(most(limits));
    }

    fn table(&self) -> MutexGuard<'_, Table<Stream<W>>> {
        lock(&self.table)
    }

    /// Enters a stream before its device is asked, so that even a leg that comes
    /// before the accept finds its place. In a full table, or where its identity or policy has
    /// as many as it may, it takes the place of a stream that waits for its legs.
    ///
    /// # Errors
    /// [`ExpectRefused`].
    pub fn expect(
        &self,
        stream: StreamId,
        identity: &DeviceIdentity,
        name: &StreamName,
        opener: Opener,
        own: Own,
    ) -> Result<Expected<W>, ExpectRefused> {
        let cancel = CancellationToken::new();
        let policy = opener.policy.clone();
        let kept = Stream {
            name: name.as_str().to_owned(),
            since: Instant::now(),
            opener,
            partner: None,
            cancel: cancel.clone(),
        };
        let evicted = self.table().expect(stream, identity, &policy, own, kept)?;
        self.end(evicted, &Unpaired::Evicted);
        Ok(Expected {
            legs: self.clone(),
            stream,
            is_accepted: false,
            cancel,
        })
    }

    /// Uses up a leg's one right to come; its token has been checked.
    ///
    /// # Errors
    /// [`LegRefused`] when the stream is unknown or over, or the leg has come before.
    pub fn claim(&self, stream: StreamId, leg: Leg) -> Result<LegPlace<W>, LegRefused> {
        let mut table = self.table();
        let identity = table.claim(stream, leg)?;
        let entry = table.get(stream).ok_or(LegRefused)?;
        Ok(LegPlace {
            cancel: entry.cancel.clone(),
            name: entry.name.clone(),
            since: entry.since,
            opener: entry.opener.clone(),
            identity,
            legs: self.clone(),
            stream,
            leg,
            in_charge: true,
            is_paired: false,
        })
    }

    /// Whose a stream is; `None`: there is none of this id.
    pub fn identity_of(&self, stream: StreamId) -> Option<DeviceIdentity> {
        self.table().identity_of(stream).cloned()
    }

    /// The devices and modules that have streams.
    pub fn identities(&self) -> Vec<DeviceIdentity> {
        self.table().identities().cloned().collect()
    }

    /// Ends all streams of an identity, whatever their state.
    pub fn end_all(&self, identity: &DeviceIdentity) {
        let ended = self.table().remove_all(identity);
        self.end(ended, &Unpaired::Revoked);
    }

    /// The tokens, issued by name, that streams were opened with; and whose each is, where the
    /// holder has logged in.
    pub fn tokens(&self) -> HashMap<Arc<str>, Option<Arc<Login>>> {
        let table = self.table();
        let openers = table.values().map(|stream| &stream.opener);
        openers
            .filter_map(|opener| Some((opener.token.clone()?, opener.login.clone())))
            .collect()
    }

    /// Ends all streams that were opened with a token, whatever their state.
    pub fn end_all_of_token(&self, token: &str) {
        let is_of = |stream: &Stream<W>| stream.opener.token.as_deref() == Some(token);
        let ended = self.table().remove_matching(is_of);
        self.end(ended, &Unpaired::TokenRevoked);
    }

    /// Ends the accepted streams whose legs have not both come in time.
    pub fn expire(&self, now: Instant) {
        let expired = self.table().remove_expired(now.into_std());
        self.end(expired, &Unpaired::Late);
    }

    /// Ends the streams whose grant is over at `now`, Unix seconds.
    pub fn end_granted(&self, now: u64) {
        let is_over = |stream: &Stream<W>| {
            let grant = stream.opener.grant.as_ref();
            grant.is_some_and(|grant| grant.until <= now)
        };
        let over = self.table().remove_matching(is_over);
        self.end(over, &Unpaired::GrantOver);
    }

    /// The requests whose grants streams end with.
    pub fn grants(&self) -> HashSet<Arc<str>> {
        let table = self.table();
        let grants = table.values().filter_map(|it| it.opener.grant.as_ref());
        grants.map(|grant| Arc::clone(&grant.request)).collect()
    }

    /// Ends the streams that end with the grant of a request, which was taken back.
    pub fn end_all_of_grant(&self, request: &str) {
        let is_of = |stream: &Stream<W>| {
            let grant = stream.opener.grant.as_ref();
            grant.is_some_and(|grant| *grant.request == *request)
        };
        let ended = self.table().remove_matching(is_of);
        self.end(ended, &Unpaired::GrantTakenBack);
    }

    /// Runs [`expire`](Self::expire) for ever: one sweeper instead of a timer per stream.
    ///
    /// Ends by being dropped.
    pub async fn sweep(&self) {
        let mut ticks = tokio::time::interval(Duration::from_secs(1));
        loop {
            ticks.tick().await;
            self.expire(Instant::now());
            self.end_granted(common::clock::unix_now());
        }
    }

    /// Ends every stream there is.
    pub fn end_everything(&self) {
        let ended = self.table().remove_everything();
        self.end(ended, &Unpaired::Stopping);
    }

    /// Refuses new streams and ends those whose legs have not met.
    pub fn close(&self) {
        let ended = self.table().close();
        self.end(ended, &Unpaired::Stopping);
    }

    /// How many streams there are, in any state.
    pub fn count(&self) -> usize {
        self.table().len()
    }

    /// Ends streams from the hub's side. The end of one that is not accepted is reported by its
    /// initiation, and that of one whose legs have met by the first leg's task.
    fn end(&self, ended: impl IntoIterator<Item = Removed<Stream<W>>>, why: &Unpaired) {
        for removed in ended {
            removed.value.cancel.cancel();
            if removed.arrived < 2 {
                report(&self.events, &removed, why);
            }
        }
    }
}

/// Reports the end of a stream whose legs have not met, if it was accepted.
fn report<W>(events: &Events, removed: &Removed<Stream<W>>, why: &Unpaired) {
    if !removed.is_accepted {
        return;
    }
    let Stream { name, opener, .. } = &removed.value;
    let stream = events::Stream {
        id: &removed.stream,
        device: &removed.identity,
        name,
        policy: &opener.policy,
        peer: &opener.peer,
        person: opener.person.as_deref(),
    };
    let outcome = Outcome::Unpaired {
        has_leg: removed.arrived > 0,
        ended_by: why.ended_by(),
        reason: why,
        kind: why.kind(),
    };
    events.emit(Event::Stream(stream, outcome));
}

impl<W> Expected<W> {
    /// The device takes the stream: its legs have [`limits::LEG_ARRIVAL`] to meet. `false`: the
    /// stream has ended meanwhile. If too many wait for their legs now, the oldest ones of whoever
    /// has most end.
    pub fn accept(mut self) -> bool {
        let legs_by = Instant::now() + limits::LEG_ARRIVAL;
        let evicted = self.legs.table().accept(self.stream, legs_by.into_std());
        self.is_accepted = evicted.is_some();
        let evicted = evicted.into_iter().flatten();
        self.legs.end(evicted, &Unpaired::Evicted);
        self.is_accepted
    }
}

impl<W> Drop for Expected<W> {
    fn drop(&mut self) {
        if self.is_accepted {
            return;
        }
        let given_up = self.legs.table().remove(self.stream);
        if let Some(removed) = given_up {
            removed.value.cancel.cancel();
        }
    }
}

impl<W> LegPlace<W> {
    /// The stream, as events name it.
    pub fn described(&self) -> events::Stream<'_> {
        events::Stream {
            id: &self.stream,
            device: &self.identity,
            name: &self.name,
            policy: &self.opener.policy,
            peer: &self.opener.peer,
            person: self.opener.person.as_deref(),
        }
    }

    /// Where what happens to the stream is reported.
    pub fn events(&self) -> &Events {
        &self.legs.events
    }

    /// Brings the leg's WebSocket: the first leg waits for the second, the second is
    /// handed over to the first, and with it the care for the stream.
    pub fn meet(&mut self, socket: W) -> Meeting<W> {
        let mut table = self.legs.table();
        let arrival = table.arrive(self.stream);
        let Some(stream) = table.get_mut(self.stream) else {
            return Meeting::Gone(socket);
        };
        match (arrival, stream.partner.take()) {
            (Some(Arrival::First), _) => {
                let (partner, waiting) = oneshot::channel();
                stream.partner = Some(partner);
                Meeting::First(socket, waiting)
            }
            (Some(Arrival::Second), Some(partner)) => match partner.send(socket) {
                Ok(()) => {
                    self.in_charge = false;
                    Meeting::Second
                }
                Err(socket) => Meeting::Gone(socket),
            },
            _ => Meeting::Gone(socket),
        }
    }

    /// The other leg is here: who relays the stream reports its end.
    pub fn pair(&mut self) {
        self.is_paired = true;
    }

    /// Leaves as the first leg that has waited for `other`, and ends the stream.
    pub fn leave(&mut self, mut other: oneshot::Receiver<W>, why: &Unpaired) {
        let removed = self.remove();
        // Nothing can be handed over from here on.
        let has_met = other.try_recv().is_ok();
        match removed {
            Some(removed) => report(&self.legs.events, &removed, why),
            // The hub has ended it, and the report is left to this leg.
            None if has_met => {
                let outcome = Outcome::Unpaired {
                    has_leg: true,
                    ended_by: why.ended_by(),
                    reason: why,
                    kind: why.kind(),
                };
                self.legs
                    .events
                    .emit(Event::Stream(self.described(), outcome));
            }
            None => {}
        }
        self.in_charge = false;
    }

    /// Takes the stream out of the table, if it is still there.
    fn remove(&mut self) -> Option<Removed<Stream<W>>> {
        let removed = self.legs.table().remove(self.stream)?;
        removed.value.cancel.cancel();
        Some(removed)
    }
}

impl<W> Drop for LegPlace<W> {
    fn drop(&mut self) {
        if !self.in_charge {
            return;
        }
        let removed = self.remove().filter(|_| !self.is_paired);
        if let Some(removed) = removed {
            report(&self.legs.events, &removed, &Unpaired::NoSocket(self.leg));
        }
    }
}
