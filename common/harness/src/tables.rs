//! Random histories of the hub's tables of legs and of pending requests, compared with a simple
//! model. Only public items of the hub are used.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::fmt::Debug;

use bytes::Bytes;
use common::identity::{
    DeviceId, DeviceIdentity, Leg, MethodName, RequestId, StreamId, StreamName,
};
use common::secret::Secret;
use common::wire::method::MethodRequest;
use common::wire::stream::StreamRequest;
use hub::auth::{Credential, DevicePrincipal};
use hub::legs::{Expected, LegPlace, Legs, Meeting, Opener};
use hub::limits::Limits;
use hub::pending::{Asked, Desk, MethodAnswer, MethodCall, Pending, Progress, Repeats};
use hub::presence::{Presence, PresenceGuard};

/// More steps find nothing new, and take longer.
const STEPS: usize = 200;

fn identity(number: u8) -> DeviceIdentity {
    let device = DeviceId::parse(&format!("d{}", number % 3)).expect("an id");
    DeviceIdentity::of_device(device)
}

/// Small, so that short histories reach them.
const STREAMS: usize = 24;
const UNJOINED: usize = 8;
const UNJOINED_PER_DEVICE: usize = 4;
const UNJOINED_PER_POLICY: usize = 6;

/// The model of a stream.
struct Stream {
    id: StreamId,
    device: DeviceIdentity,
    policy: String,
    /// How many streams were accepted before it.
    accepted: usize,
    expected: Option<Expected<usize>>,
    is_alive: bool,
    is_accepted: bool,
    places: [Place; 2],
}

#[derive(Default)]
struct Place {
    is_claimed: bool,
    place: Option<LegPlace<usize>>,
    /// Kept, since the first leg waits in it.
    meeting: Option<Meeting<usize>>,
}

impl Stream {
    fn arrived(&self) -> usize {
        self.places.iter().filter(|p| p.meeting.is_some()).count()
    }

    fn is_unjoined(&self) -> bool {
        self.is_alive && self.is_accepted && self.arrived() < 2
    }

    fn has_holder(&self, other: &Self) -> bool {
        self.device == other.device && self.policy == other.policy
    }
}

fn unjoined(streams: &[Stream]) -> impl Iterator<Item = &Stream> + Clone {
    streams.iter().filter(|stream| stream.is_unjoined())
}

/// Which of these goes first: the oldest of the holder that has most of them.
fn first(streams: &[Stream], which: impl Fn(&Stream) -> bool) -> Option<&Stream> {
    let rank = |stream: &&Stream| {
        let own = unjoined(streams).filter(|other| other.has_holder(stream));
        let oldest = own.clone().map(|other| other.accepted).min();
        (own.count(), Reverse(oldest), Reverse(stream.accepted))
    };
    unjoined(streams)
        .filter(|stream| which(stream))
        .max_by_key(rank)
}

/// The same of all: one of the policy that has most.
fn first_of_all(streams: &[Stream]) -> Option<&Stream> {
    let of_policy = |policy: &str| unjoined(streams).filter(|it| it.policy == policy).count();
    let most = unjoined(streams).map(|it| of_policy(&it.policy)).max()?;
    first(streams, |stream| of_policy(&stream.policy) == most)
}

/// Ends the streams that go before this one can be accepted.
fn crowd_out(streams: &mut [Stream], place: usize) {
    loop {
        let Stream { device, policy, .. } = &streams[place];
        let of_device = |stream: &Stream| stream.device == *device;
        let of_policy = |stream: &Stream| stream.policy == *policy;
        let count =
            |which: &dyn Fn(&Stream) -> bool| unjoined(streams).filter(|it| which(it)).count();
        let gone = if count(&of_device) >= UNJOINED_PER_DEVICE {
            first(streams, of_device)
        } else if count(&of_policy) >= UNJOINED_PER_POLICY {
            first(streams, of_policy)
        } else if count(&|_| true) >= UNJOINED {
            first_of_all(streams)
        } else {
            return;
        };
        let gone = gone.expect("one that is unjoined").id;
        end(streams, gone);
    }
}

fn end(streams: &mut [Stream], id: StreamId) {
    let gone = streams.iter_mut().find(|stream| stream.id == id);
    gone.expect("a known stream").is_alive = false;
}

/// Streams and their legs. Two bytes are a step: the event, and the stream.
pub fn legs_table(input: &[u8]) {
    let legs = Legs::<usize>::new(&Limits {
        streams: STREAMS,
        unjoined: UNJOINED,
        unjoined_per_device: UNJOINED_PER_DEVICE,
        unjoined_per_policy: UNJOINED_PER_POLICY,
        ..Limits::default()
    });
    let mut accepted = 0;
    let mut streams: Vec<Stream> = Vec::new();
    let mut is_closed = false;
    for step in input.chunks_exact(2).take(STEPS) {
        let (what, which) = (step[0], step[1]);
        let count = streams.len();
        if what % 10 == 0 {
            let id = StreamId::parse(&format!("{count:032x}")).expect("an id");
            let device = identity(which);
            let policy = format!("p{}", which / 3 % 2);
            let opener = Opener {
                policy: policy.clone(),
                peer: ([127, 0, 0, 1], 1).into(),
            };
            let name = StreamName::parse("s").expect("a name");
            let expected = legs.expect(id, &device, &name, opener);
            let is_full = streams.iter().filter(|it| it.is_alive).count() == STREAMS;
            let gone = first_of_all(&streams).map(|it| it.id).filter(|_| is_full);
            let is_refused = is_closed || is_full && gone.is_none();
            assert_eq!(expected.is_err(), is_refused);
            if let Some(gone) = gone.filter(|_| !is_closed) {
                end(&mut streams, gone);
            }
            streams.extend(expected.ok().map(|expected| Stream {
                id,
                device,
                policy,
                accepted: 0,
                expected: Some(expected),
                is_alive: true,
                is_accepted: false,
                places: Default::default(),
            }));
        } else if what % 10 == 9 {
            match which {
                0 => {
                    legs.close();
                    is_closed = true;
                    for stream in &mut streams {
                        stream.is_alive &= stream.arrived() == 2;
                    }
                }
                1 => {
                    legs.end_everything();
                    streams.iter_mut().for_each(|s| s.is_alive = false);
                }
                number => {
                    let device = identity(number);
                    legs.end_all(&device);
                    let own = streams.iter_mut().filter(|s| s.device == device);
                    own.for_each(|s| s.is_alive = false);
                }
            }
        } else if count > 0 {
            let place = usize::from(which) % count;
            let stream = &streams[place];
            if what % 10 == 1 && stream.expected.is_some() && stream.is_alive {
                crowd_out(&mut streams, place);
                accepted += 1;
                streams[place].accepted = accepted;
            }
            happen(&legs, &mut streams[place], what % 10);
        }
        check(&legs, &streams);
    }
    drop(streams);
    assert_eq!(legs.count(), 0, "all entries are removed");
}

fn happen(legs: &Legs<usize>, stream: &mut Stream, what: u8) {
    let leg = if what.is_multiple_of(2) {
        Leg::Device
    } else {
        Leg::Service
    };
    let arrived = stream.arrived();
    let place = &mut stream.places[usize::from(what % 2)];
    match what {
        1 => {
            if let Some(expected) = stream.expected.take() {
                assert_eq!(expected.accept(), stream.is_alive);
                stream.is_accepted = stream.is_alive;
            }
        }
        2 => {
            if stream.expected.take().is_some() {
                stream.is_alive = false;
            }
        }
        3 | 4 => {
            let may = stream.is_alive && !place.is_claimed;
            let may = may && (leg == Leg::Device || stream.is_accepted);
            let claimed = legs.claim(stream.id, leg);
            assert_eq!(claimed.is_ok(), may);
            if let Ok(claimed) = claimed {
                place.is_claimed = true;
                place.place = Some(claimed);
            }
        }
        5 | 6 => {
            let Some(waiting) = place.place.as_mut().filter(|_| place.meeting.is_none()) else {
                return;
            };
            let meeting = waiting.meet(usize::from(what));
            let is_right = match meeting {
                Meeting::First(..) => stream.is_alive && arrived == 0,
                Meeting::Second => stream.is_alive && arrived == 1,
                Meeting::Gone(_) => !stream.is_alive,
            };
            assert!(is_right);
            if stream.is_alive {
                place.meeting = Some(meeting);
            }
        }
        _ => {
            let left = place.place.take();
            let was_handed_over = matches!(place.meeting, Some(Meeting::Second));
            if left.is_some() && !was_handed_over {
                stream.is_alive = false;
            }
        }
    }
}

fn check(legs: &Legs<usize>, streams: &[Stream]) {
    let alive = || streams.iter().filter(|stream| stream.is_alive);
    assert_eq!(legs.count(), alive().count());
    for number in 0..3 {
        let device = identity(number);
        let has_streams = alive().any(|stream| stream.device == device);
        assert_eq!(
            legs.identities_of(&device.device).len(),
            usize::from(has_streams)
        );
    }
    for stream in streams {
        let tokens = stream.expected.iter().map(|expected| &expected.cancel);
        let places = stream.places.iter().filter_map(|p| p.place.as_ref());
        for token in tokens.chain(places.map(|place| &place.cancel)) {
            assert_eq!(token.is_cancelled(), !stream.is_alive);
        }
    }
}

/// The model of a request.
struct Request<R, A> {
    device: DeviceIdentity,
    asked: Option<Asked<R, A>>,
    progress: Progress<A>,
    /// The hub session on which it was sent last.
    sent_on: Option<usize>,
}

impl<R, A> Request<R, A> {
    fn is_open(&self) -> bool {
        matches!(self.progress, Progress::Waiting | Progress::Delivered)
    }
}

/// One kind of requests, and how to make and read it.
struct Kind<R, A> {
    desk: Desk<R, A>,
    repeats: Repeats,
    request: fn(RequestId) -> R,
    id: fn(&R) -> &RequestId,
    answer: fn(bool) -> A,
}

/// Requests that wait for a device, of both kinds. Two bytes are a step: the event, and its
/// subject.
pub fn pending_table(input: &[u8]) {
    let pending = || Pending::new(Limits::default().pending_per_device);
    requests_of(
        input,
        &Kind {
            desk: pending().streams,
            repeats: Repeats::ToNextSession,
            request: |request_id| StreamRequest {
                request_id,
                name: "s".to_owned(),
                url: "u".to_owned(),
                token: Secret::new("t"),
                initiator: None,
            },
            id: |request| &request.request_id,
            answer: |accepted| accepted,
        },
    );
    requests_of(
        input,
        &Kind {
            desk: pending().methods,
            repeats: Repeats::Never,
            request: |request_id| MethodCall {
                request: MethodRequest {
                    name: MethodName::parse("m").expect("a name"),
                    request_id,
                },
                payload: Bytes::new(),
            },
            id: |call| &call.request.request_id,
            answer: |is_good| MethodAnswer {
                status: if is_good { 200 } else { 400 },
                payload: Bytes::new(),
            },
        },
    );
}

fn requests_of<R: Clone, A: Clone + PartialEq + Debug>(input: &[u8], kind: &Kind<R, A>) {
    let desk = &kind.desk;
    let presence = Presence::default();
    let mut sessions: Vec<PresenceGuard> = Vec::new();
    let mut requests: BTreeMap<u64, Request<R, A>> = BTreeMap::new();
    let mut is_closed = false;
    for step in input.chunks_exact(2).take(STEPS) {
        let (what, which) = (step[0], step[1]);
        match what % 6 {
            0 => ask(kind, which, &mut requests, is_closed),
            1 => {
                let principal = DevicePrincipal {
                    identity: identity(which),
                    expires: None,
                    credential: Credential::Key([0; 32]),
                    generation_id: "1".to_owned(),
                };
                sessions.push(presence.admit(&principal));
            }
            2 if !sessions.is_empty() => {
                // Sessions may take requests of any identity here: tested is only that none is sent
                // twice on one session, or on any if it is not to be repeated.
                let number = usize::from(which) % sessions.len();
                let device = identity(which);
                let taken = desk.take(&device, sessions[number].connection);
                let mut taken = taken.iter().map(|request| number_of((kind.id)(request)));
                for (id, request) in &mut requests {
                    let is_due =
                        request.is_open() && request.asked.is_some() && request.device == device;
                    let is_new = match kind.repeats {
                        Repeats::ToNextSession => request.sent_on != Some(number),
                        Repeats::Never => request.sent_on.is_none(),
                    };
                    if is_due && is_new {
                        assert_eq!(taken.next(), Some(*id), "in their order");
                        request.sent_on = Some(number);
                        request.progress = Progress::Delivered;
                    }
                }
                assert_eq!(taken.next(), None);
            }
            3 if !requests.is_empty() => {
                let (id, request) = nth(&mut requests, which);
                let answer = (kind.answer)(what > 99);
                let device = identity(what / 6);
                let is_due = request.progress == Progress::Delivered
                    && request.asked.is_some()
                    && request.device == device;
                let answered = desk.answer(&device, &RequestId::from(id), answer.clone());
                assert_eq!(answered, is_due);
                if is_due {
                    request.progress = Progress::Answered(answer);
                }
            }
            4 if !requests.is_empty() => nth(&mut requests, which).1.asked = None,
            5 => {
                let device = identity(which);
                if which == 255 {
                    desk.close();
                    is_closed = true;
                } else {
                    desk.end_all(&device);
                }
                for request in requests.values_mut() {
                    if request.is_open() && (which == 255 || request.device == device) {
                        request.progress = Progress::Ended;
                    }
                }
            }
            _ => {}
        }
        for request in requests.values() {
            if let Some(asked) = &request.asked {
                assert_eq!(asked.progress(), request.progress);
            }
        }
    }
}

fn ask<R: Clone, A: Clone>(
    kind: &Kind<R, A>,
    which: u8,
    requests: &mut BTreeMap<u64, Request<R, A>>,
    is_closed: bool,
) {
    let device = identity(which);
    let mut id = None;
    let asked = kind.desk.ask(&device, |request_id| {
        id = Some(number_of(&request_id));
        (kind.request)(request_id)
    });
    match (asked, id) {
        (Ok(asked), Some(id)) => {
            assert!(!is_closed);
            let request = Request {
                device,
                asked: Some(asked),
                progress: Progress::Waiting,
                sent_on: None,
            };
            assert!(requests.insert(id, request).is_none(), "a unique number");
        }
        // A full or closed table assigns no number.
        (Err(_), None) => {}
        _ => panic!("asked without a number"),
    }
}

fn nth<T>(requests: &mut BTreeMap<u64, T>, which: u8) -> (u64, &mut T) {
    let number = usize::from(which) % requests.len();
    let found = requests.iter_mut().nth(number).expect("below the length");
    (*found.0, found.1)
}

fn number_of(id: &RequestId) -> u64 {
    id.as_str().parse().expect("a number")
}
