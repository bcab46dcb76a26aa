//! A simulation of both ends of a session, their applications, and carriers that break. It has its
//! own clock, and is completely determined by the choices.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use device_stream_session::limits;
use device_stream_session::{
    CarrierId, CarrierState, Code, ConnectionId, Over, RefusedCode, Role, Session,
};

use super::Choices;
use super::application::Application;
use super::link::Link;

/// The most connections of one simulation.
const CONNECTIONS: usize = 12;
/// With good carriers, everything must arrive within this time: 10 minutes.
const HEALTHY: u64 = 600_000_000;
/// The most events at one instant.
const AT_ONCE: usize = 50_000;

const SERVICE: usize = 0;
const DEVICE: usize = 1;

/// One end of the session with its applications.
#[derive(Debug)]
struct End {
    session: Session,
    carrier: Option<CarrierId>,
    applications: BTreeMap<ConnectionId, Application>,
    awake: BTreeSet<ConnectionId>,
    widest: u64,
    received: u64,
}

struct World<'a, 'b> {
    choices: &'a mut Choices<'b>,
    start: Instant,
    now: u64,
    ends: [End; 2],
    /// The direction from each end to the other.
    links: [Link; 2],
    /// Connections that wait for the device's target, and until when.
    connecting: BTreeMap<ConnectionId, u64>,
    refused: BTreeSet<ConnectionId>,
    reconnect_at: Option<u64>,
    is_healthy: bool,
    is_ending: bool,
}

/// Runs one simulation: random events, then good carriers, on which everything must arrive, then
/// the orderly end, which must leave nothing behind.
///
/// # Panics
/// When a guarantee of session mode is violated.
pub fn simulate(choices: &mut Choices<'_>) {
    let mut world = World::new(choices);
    let events = world.choices.below(40);
    let pace = [200_000, 5_000, 30_000_000][world.choices.below(3) as usize];
    for _ in 0..events {
        if world.choices.is_used_up() {
            break;
        }
        world.event();
        let until = world.now + world.choices.below(pace);
        world.run(until, |_| false);
    }
    world.heal();
    world.end();
}

impl<'a, 'b> World<'a, 'b> {
    fn new(choices: &'a mut Choices<'b>) -> Self {
        let start = Instant::now();
        let end = |role| End {
            session: Session::new(role, start),
            carrier: None,
            applications: BTreeMap::new(),
            awake: BTreeSet::new(),
            widest: 0,
            received: 0,
        };
        Self {
            start,
            now: 0,
            ends: [end(Role::Service), end(Role::Device)],
            links: [Link::dead(), Link::dead()],
            connecting: BTreeMap::new(),
            refused: BTreeSet::new(),
            reconnect_at: Some(choices.below(2) * 1_000),
            is_healthy: false,
            is_ending: false,
            choices,
        }
    }

    fn instant(&self) -> Instant {
        self.start + Duration::from_micros(self.now)
    }

    // --- Events ---

    fn event(&mut self) {
        match self.choices.below(12) {
            0..4 => {
                for _ in 0..=self.choices.below(3) {
                    self.open();
                }
            }
            // A reset cuts each direction at a random byte.
            4..7 => self.cut([false, false]),
            7 => {
                let first = self.choices.one_in(2);
                self.cut([first, !first]);
            }
            8 => self.cut([true, true]),
            9 => {
                let silent = self.choices.below(2) as usize;
                self.links[silent].cut(self.now, true, self.choices);
            }
            10 => self.abort(),
            _ => {}
        }
    }

    fn open(&mut self) {
        let end = &mut self.ends[SERVICE];
        if end.applications.len() >= CONNECTIONS {
            return;
        }
        let id = end.session.open().expect("there is room for it");
        let application = Application::new(SERVICE, None, self.choices);
        end.applications.insert(id, application);
        end.awake.insert(id);
    }

    fn abort(&mut self) {
        let end = &mut self.ends[self.choices.below(2) as usize];
        let nth = self.choices.below(CONNECTIONS as u64) as usize;
        if let Some((id, application)) = end.applications.iter_mut().nth(nth) {
            application.abort(*id, &mut end.session);
        }
    }

    fn cut(&mut self, is_silent: [bool; 2]) {
        for (link, is_silent) in self.links.iter_mut().zip(is_silent) {
            link.cut(self.now, is_silent, self.choices);
        }
    }

    /// Does what the drivers do: both ends freeze and report their offsets, then continue there.
    fn reconnect(&mut self) {
        let now = self.instant();
        let received = [0, 1].map(|side: usize| self.ends[side].session.freeze(now));
        // While carriers break, the answer may be lost, and only one end attaches.
        let alone = if self.is_healthy {
            None
        } else {
            [None, None, Some(SERVICE), Some(DEVICE)][self.choices.below(4) as usize]
        };
        for side in [SERVICE, DEVICE] {
            let end = &mut self.ends[side];
            end.carrier = None;
            assert!(end.session.detached_since().is_some());
            if alone.is_none_or(|only| only == side) {
                let attached = end.session.attach(received[1 - side], now);
                end.carrier = Some(attached.expect("a valid offset"));
            }
            self.links[side] = match alone {
                None => Link::new(self.choices),
                Some(_) => Link::dead(),
            };
        }
        self.reconnect_at = alone.map(|_| self.now + 1 + self.choices.below(3_000_000));
    }

    // --- Time ---

    /// Lets time pass until `until`, or until `is_done`; returns whether it is done.
    fn run(&mut self, until: u64, is_done: impl Fn(&Self) -> bool) -> bool {
        loop {
            self.serve();
            if is_done(self) {
                return true;
            }
            let next = self.next_event();
            if next > until {
                self.now = until;
                return false;
            }
            assert!(next > self.now, "all due events were handled");
            self.now = next;
        }
    }

    fn next_event(&self) -> u64 {
        let now = self.now;
        let micros = |at: Instant| (at - self.start).as_micros() as u64;
        let ends = self.ends.iter().flat_map(|end| {
            let scripts = end.applications.values();
            let scripts = scripts.filter_map(|script| script.next_event(now));
            let deadline = end.session.deadline().map(micros);
            // A deadline that has passed waits for room on the link.
            scripts.chain(deadline.filter(|at| *at > now))
        });
        let links = self.links.iter().filter_map(|link| link.next_event(now));
        let others = self.connecting.values().copied().chain(self.reconnect_at);
        let next = ends.chain(links).chain(others).min();
        next.unwrap_or(u64::MAX)
    }

    /// Handles all events that are due now.
    fn serve(&mut self) {
        if self.reconnect_at.is_some_and(|at| at <= self.now) {
            self.reconnect();
        }
        for end in &mut self.ends {
            let due = |script: &Application| script.next_event(self.now - 1) == Some(self.now);
            let due = end
                .applications
                .iter()
                .filter(|(_, script)| self.now > 0 && due(script));
            end.awake.extend(due.map(|(id, _)| *id));
        }
        for _ in 0..AT_ONCE {
            let is_busy = [SERVICE, DEVICE].map(|side| self.serve_end(side));
            if is_busy == [false, false] {
                self.check();
                return;
            }
        }
        panic!("no end of events at one instant");
    }

    /// Serves one end; returns whether anything happened.
    fn serve_end(&mut self, side: usize) -> bool {
        let mut is_busy = self.receive(side);
        if side == DEVICE {
            is_busy |= self.connect();
        }
        let now = (self.now, self.instant());
        let (end, peer) = match &mut self.ends {
            [service, device] if side == SERVICE => (service, device),
            [service, device] => (device, service),
        };
        end.awake.extend(end.session.touched());
        for id in std::mem::take(&mut end.awake) {
            is_busy = true;
            if let Some(script) = end.applications.get_mut(&id) {
                let is_refused = self.refused.contains(&id);
                let peer = peer.applications.get(&id);
                script.step(id, &mut end.session, peer, is_refused, now, self.choices);
            }
        }
        is_busy | self.transmit(side)
    }

    fn receive(&mut self, side: usize) -> bool {
        let now = self.instant();
        let (end, link) = (&mut self.ends[side], &mut self.links[1 - side]);
        let Some(carrier) = end.carrier else {
            *link = Link::dead();
            return false;
        };
        let mut is_busy = false;
        while let Some(piece) = link.pop(self.now) {
            is_busy = true;
            let state = end.session.receive(carrier, piece, now);
            let state = state.expect("a correct peer causes no violation");
            assert!(state == CarrierState::Active || end.session.over() == Some(&Over::Ended));
            end.widest = end.widest.max(end.session.kept().window);
            assert!(end.session.received_bytes() >= end.received);
            end.received = end.session.received_bytes();
        }
        if link.is_lost(self.now) || end.session.is_dead(now) {
            end.session.carrier_lost(carrier, now);
            end.carrier = None;
            *link = Link::dead();
            let pause = 1 + self.choices.below(2_000_000);
            self.reconnect_at.get_or_insert(self.now + pause);
        }
        is_busy
    }

    /// Connects the device's target, after a delay, or refuses.
    fn connect(&mut self) -> bool {
        let [service, end] = &mut self.ends;
        while let Some(id) = end.session.next_incoming() {
            let pause = self.choices.volume(3_000_000);
            self.connecting.insert(id, self.now + pause);
        }
        let due = self.connecting.iter().find(|(_, at)| **at <= self.now);
        let Some(id) = due.map(|(id, _)| *id) else {
            return false;
        };
        self.connecting.remove(&id);
        if self.choices.one_in(8) {
            self.refused.insert(id);
            let code = RefusedCode::TargetRefused;
            end.session.refuse(id, code, "nothing there".to_owned());
            return true;
        }
        end.session.opened(id);
        let promise = service.applications.get(&id).map(Application::promise);
        let mut application = Application::new(DEVICE, promise, self.choices);
        if self.is_ending {
            application.abort(id, &mut end.session);
        }
        end.applications.insert(id, application);
        end.awake.insert(id);
        true
    }

    fn transmit(&mut self, side: usize) -> bool {
        let now = self.instant();
        let (end, link) = (&mut self.ends[side], &mut self.links[side]);
        let Some(carrier) = end.carrier else {
            return false;
        };
        for count in 0..AT_ONCE {
            if !link.has_room(self.now) {
                return count > 0;
            }
            end.widest = end.widest.max(end.session.kept().window);
            let Some(message) = end.session.transmit(carrier, now) else {
                let next = end.session.deadline();
                let is_over = end.session.over().is_some();
                assert!(is_over || next.is_some_and(|at| at > now), "a hot loop");
                return count > 0;
            };
            assert!(message.len() <= limits::STREAM_MESSAGE);
            link.push(message, self.now, self.choices);
        }
        panic!("no end of messages at one instant");
    }

    /// Checks the invariants.
    fn check(&self) {
        for end in &self.ends {
            let memory = end.session.kept();
            let connections = end.session.connections() as u64;
            let taken = limits::CREDIT_SHARED - memory.shared;
            let chunks = connections * (limits::CHUNK as u64 + 64);
            let most = connections * limits::CREDIT_FIRST + taken + chunks;
            assert!(memory.waiting <= most, "{memory:?}: more than was credited");
            let window = end.widest.max(limits::WINDOW_FIRST);
            let beyond = limits::WINDOW_SMALL + limits::STREAM_MESSAGE as u64;
            assert!(memory.unacknowledged <= window + beyond, "{memory:?}");
        }
    }

    // --- The end of the simulation ---

    /// Only good carriers from now on: everything must arrive.
    fn heal(&mut self) {
        self.is_healthy = true;
        let now = self.instant();
        for end in &mut self.ends {
            end.session.freeze(now);
            end.carrier = None;
        }
        self.reconnect_at = Some(self.now + 1);
        let is_complete = self.run(self.now + HEALTHY, |world| {
            world
                .scripts()
                .all(|(script, peer)| script.is_complete(peer))
        });
        let incomplete = self
            .scripts()
            .find(|(script, peer)| !script.is_complete(*peer));
        assert!(is_complete, "not everything arrived: {incomplete:#?}");
    }

    fn scripts(&self) -> impl Iterator<Item = (&Application, Option<&Application>)> {
        [SERVICE, DEVICE].into_iter().flat_map(|side| {
            let others = &self.ends[1 - side].applications;
            let scripts = self.ends[side].applications.iter();
            scripts.map(|(id, script)| (script, others.get(id)))
        })
    }

    /// Aborts all connections and ends the session; nothing may be left of it.
    fn end(&mut self) {
        self.is_ending = true;
        for end in &mut self.ends {
            for (id, application) in &mut end.applications {
                application.abort(*id, &mut end.session);
            }
        }
        let is_empty = |end: &End| end.session.connections() == 0 && end.session.held() == 0;
        let is_done = self.run(self.now + HEALTHY, |world| {
            world.connecting.is_empty() && world.ends.iter().all(is_empty)
        });
        for end in &self.ends {
            let session = &end.session;
            let (left, held) = (session.connections(), session.held());
            assert!(is_done, "{left} connections and {held} bytes are left");
            assert_eq!(session.kept().shared, limits::CREDIT_SHARED);
        }
        self.ends[SERVICE].session.end();
        let is_over = |end: &End| end.session.over() == Some(&Over::Ended);
        let is_done = self.run(self.now + HEALTHY, |world| world.ends.iter().all(is_over));
        assert!(is_done, "the session does not end");
        self.ends[SERVICE].session.reset(Code::Stopping, "too late");
        assert_eq!(self.ends[SERVICE].session.over(), Some(&Over::Ended));
    }
}
