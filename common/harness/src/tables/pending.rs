//! The desks of pending requests.

use std::collections::BTreeMap;
use std::fmt::Debug;

use bytes::Bytes;
use common::identity::{DeviceIdentity, MethodName, RequestId};
use common::secret::Secret;
use common::wire::method::MethodRequest;
use common::wire::stream::StreamRequest;
use hub::auth::{Credential, DevicePrincipal};
use hub::limits::Limits;
use hub::pending::{Asked, Desk, MethodAnswer, MethodCall, Pending, Progress, Repeats};
use hub::presence::{Presence, PresenceGuard};

use super::{STEPS, identity};

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
