//! The table of legs.

use std::cmp::Reverse;

use common::identity::{DeviceIdentity, Leg, StreamId, StreamName};
use hub::events::Events;
use hub::legs::{Expected, LegPlace, Legs, Meeting, Opener, Own};
use hub::limits::Limits;

use super::{STEPS, identity};

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
    let legs = Legs::<usize>::new(
        &Limits {
            streams: STREAMS,
            unjoined: UNJOINED,
            unjoined_per_device: UNJOINED_PER_DEVICE,
            unjoined_per_policy: UNJOINED_PER_POLICY,
            ..Limits::default()
        },
        Events::default(),
    );
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
                person: None,
                policy: policy.clone(),
                peer: ([127, 0, 0, 1], 1).into(),
                token: None,
                login: None,
                grant: None,
            };
            let name = StreamName::parse("s").expect("a name");
            let expected = legs.expect(id, &device, &name, opener, Own::default());
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
    // Those that nobody holds wait for their legs, until their time is over.
    let waits = |stream: &&Stream| {
        let is_held = stream.places.iter().any(|it| it.place.is_some());
        stream.is_alive && stream.is_accepted && !is_held
    };
    let waiting = streams.iter().filter(waits).count();
    drop(streams);
    assert_eq!(legs.count(), waiting, "all other entries are removed");
    legs.end_everything();
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
    let identities = legs.identities();
    for number in 0..3 {
        let device = identity(number);
        let has_streams = alive().any(|stream| stream.device == device);
        assert_eq!(identities.contains(&device), has_streams);
    }
    for stream in streams {
        let tokens = stream.expected.iter().map(|expected| &expected.cancel);
        let places = stream.places.iter().filter_map(|p| p.place.as_ref());
        for token in tokens.chain(places.map(|place| &place.cancel)) {
            assert_eq!(token.is_cancelled(), !stream.is_alive);
        }
    }
}
