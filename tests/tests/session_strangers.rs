//! Who may resume a session: a service that guesses, replays or mixes up proofs is refused, and
//! disturbs no other session.

use std::future::poll_fn;
use std::time::Duration;

use bytes::Bytes;
use common::limits;
use common::net::TlsHostStream;
use common::session::frame::{Code, Decoder, Frame};
use common::session::handshake::HandshakeError;
use common::session::proof::{Challenge, Proof, Prover, ResumeSecret, VERSION};
use common::session::{CarrierEnd, ConnectionEnd, SessionId};
use common::websocket::{Incoming, WebSocket};
use tests::raw_session::Opening;
use tests::session_setup::{DEVICE, talk};
use tests::target::Behaviour;
use tests::{RawService, RawSession, Target, TestDevice, TestHub, messages, soon, wait};
use tokio::net::TcpListener;

struct Setup {
    _hub: TestHub,
    _device: TestDevice,
    service: RawService,
    target: TcpListener,
    other: Target,
}

/// A device with the targets `ssh` and `rdp`.
async fn setup() -> Setup {
    let hub = TestHub::start().await;
    let connection = hub.create(DEVICE).await;
    let target = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let other = Target::start(Behaviour::Echo).await;
    let ssh = format!("ssh={}", target.local_addr().unwrap());
    let rdp = format!("rdp={}", other.address);
    let options = ["--target", &ssh, "--target", &rdp];
    let device = TestDevice::start(&hub, &connection, &options).await;
    Setup {
        service: RawService::new(&hub).await,
        _hub: hub,
        _device: device,
        target,
        other,
    }
}

/// A stream that a test drives frame by frame.
struct Listener {
    leg: WebSocket<TlsHostStream>,
    decoder: Decoder,
    unread: Bytes,
}

impl Listener {
    fn new(opening: Opening) -> Self {
        let (leg, unread) = opening.into_parts();
        Self {
            leg,
            unread,
            decoder: Decoder::default(),
        }
    }

    async fn send(&mut self, frame: &Frame) {
        messages::send(&mut self.leg, frame.encode()).await;
    }

    /// The next frame; `None` at the end of the stream.
    async fn next(&mut self) -> Option<Frame> {
        let Self {
            leg,
            decoder,
            unread,
        } = self;
        loop {
            if let Some(frame) = decoder.next(unread).unwrap() {
                return Some(frame);
            }
            match soon("a frame", poll_fn(|cx| leg.poll_incoming(cx))).await {
                Ok(Incoming::Data(data)) => *unread = data.into_bytes(),
                _ => return None,
            }
        }
    }
}

fn refused_with(asked: Result<u64, HandshakeError>) -> Code {
    match asked {
        Err(HandshakeError::Refused { code, .. }) => code,
        other => panic!("{other:?} instead of a refusal"),
    }
}

/// Tries to resume a session on a new stream to this target.
async fn ask(
    service: &RawService,
    target: &str,
    id: SessionId,
    secret: &ResumeSecret,
    received: u64,
) -> Result<u64, HandshakeError> {
    let mut opening: Opening = service.opening(DEVICE, target).await;
    let greeting = opening.greeting(limits::SESSION_HANDSHAKE).await.unwrap();
    opening.resume(&greeting, id, secret, received).await
}

#[tokio::test]
async fn foreign_resumes_are_refused_and_disturb_nothing() {
    let setup = setup().await;
    let session = RawSession::begin(&setup.service, DEVICE, "ssh").await;
    let (mut here, copying) = session.connect().await;
    let (mut there, _) = soon("the target", setup.target.accept()).await.unwrap();
    talk(&mut here, &mut there).await;

    let guess = ResumeSecret::random();
    let (id, secret) = (session.id, &session.secret);
    let service = &setup.service;
    for _ in 0..3 {
        let wrong_proof = ask(service, "ssh", id, &guess, 0).await;
        assert_eq!(refused_with(wrong_proof), Code::Foreign);
        let other_target = ask(service, "rdp", id, secret, 0).await;
        assert_eq!(refused_with(other_target), Code::Foreign);
        let unknown = ask(service, "ssh", SessionId::random(), secret, 0).await;
        assert_eq!(refused_with(unknown), Code::Unknown);
        // The right proof, but more bytes acknowledged than were sent.
        let too_much = ask(service, "ssh", id, secret, u64::MAX / 2).await;
        assert_eq!(refused_with(too_much), Code::Protocol);
        talk(&mut here, &mut there).await;
    }
    // A new session may not use another's id either.
    let mut opening = service.opening(DEVICE, "ssh").await;
    opening.greeting(limits::SESSION_HANDSHAKE).await.unwrap();
    let grace = Duration::from_secs(1);
    opening.hello(id, &guess, grace).await.unwrap();
    let answer = opening.greeting(limits::SESSION_HANDSHAKE).await;
    assert!(
        matches!(
            answer,
            Err(HandshakeError::Refused {
                code: Code::Limit,
                ..
            })
        ),
        "{answer:?}"
    );
    talk(&mut here, &mut there).await;
    assert!(!session.carrying.is_finished(), "still on its first stream");
    drop((here, there));
    let outcome = soon("the connection's end", copying).await.unwrap();
    assert!(
        matches!(outcome.end, ConnectionEnd::Finished),
        "{}",
        outcome.end
    );
    assert_eq!(setup.other.counters.connections(), 0);
}

#[tokio::test]
async fn a_replayed_resume_is_refused() {
    let setup = setup().await;
    let session = RawSession::begin(&setup.service, DEVICE, "ssh").await;
    let (mut here, _copying) = session.connect().await;
    let (mut there, _) = soon("the target", setup.target.accept()).await.unwrap();
    talk(&mut here, &mut there).await;

    // A replay: a proof for the first stream's challenge.
    let id = session.id;
    let asked = session.greeting.challenge;
    let recorded = Frame::Resume {
        version: VERSION,
        id,
        received: 0,
        challenge: Challenge::random(),
        proof: Proof::new(Prover::Service, &session.secret, id, asked, 0),
    };
    let mut opening = setup.service.opening(DEVICE, "ssh").await;
    opening.greeting(limits::SESSION_HANDSHAKE).await.unwrap();
    let mut leg = Listener::new(opening);
    leg.send(&recorded).await;
    let frame = leg.next().await;
    let code = Code::Foreign;
    assert!(
        matches!(frame, Some(Frame::Refused { code: received, .. }) if received == code),
        "{frame:?}"
    );
    talk(&mut here, &mut there).await;
    assert!(!session.carrying.is_finished());
}

#[tokio::test]
async fn a_resume_takes_over_from_a_stream_that_looks_alive() {
    let setup = setup().await;
    let mut session = RawSession::begin(&setup.service, DEVICE, "ssh").await;
    let (mut here, _copying) = session.connect().await;
    let (mut there, _) = soon("the target", setup.target.accept()).await.unwrap();
    talk(&mut here, &mut there).await;
    for _ in 0..3 {
        // Only the offsets are sent: our end appears to have lost nothing.
        let mut opening = setup.service.opening(DEVICE, "ssh").await;
        let greeting = opening.greeting(limits::SESSION_HANDSHAKE).await.unwrap();
        let received = {
            // What is in flight on the old stream stays unread from here on.
            session.carrying.abort();
            let _ = (&mut session.carrying).await;
            session.live.freeze()
        };
        let reached = opening
            .resume(&greeting, session.id, &session.secret, received.received)
            .await
            .unwrap();
        let carrier = session.live.attach(&received, reached).unwrap();
        let live = session.live.clone();
        let (leg, already_read) = opening.into_parts();
        session.carrying = tokio::spawn(async move {
            common::session::drive_carrier(&live, carrier, leg, already_read).await
        });
        talk(&mut here, &mut there).await;
    }
    drop((here, there));
    session.live.end();
    let end = session.carried().await;
    assert!(matches!(end, CarrierEnd::Over), "{end}");
}

#[tokio::test]
async fn the_stream_that_was_taken_over_gets_a_detach() {
    let setup = setup().await;
    let (id, secret) = (SessionId::random(), ResumeSecret::random());
    let mut first = setup.service.opening(DEVICE, "ssh").await;
    first.greeting(limits::SESSION_HANDSHAKE).await.unwrap();
    let grace = Duration::from_secs(60);
    first.hello(id, &secret, grace).await.unwrap();
    let mut first = Listener::new(first);
    assert!(matches!(first.next().await, Some(Frame::Welcome { .. })));
    // No data was sent in the session, in either direction.
    let resumed = ask(&setup.service, "ssh", id, &secret, 0).await;
    assert_eq!(resumed.unwrap(), 0);
    let frame = first.next().await;
    let code = Code::Superseded;
    assert_eq!(frame, Some(Frame::Detach { code }));
    assert_eq!(first.next().await, None);
}

#[tokio::test]
async fn a_target_that_is_not_offered_is_rejected() {
    let hub = TestHub::start().await;
    let connection = hub.create(DEVICE).await;
    let echo = Target::start(Behaviour::Echo).await;
    let option = format!("ssh={}", echo.address);
    let _device = TestDevice::start(&hub, &connection, &["--target", &option]).await;
    let service = RawService::new(&hub).await;
    for name in ["_session.rdp", "_session.", "_session._session.ssh"] {
        let response = service.initiate(DEVICE, name, 5.0, 5.0).await;
        assert_eq!(response.status(), 200);
        assert_eq!(
            response.headers()["iothub-streaming-is-accepted"],
            "False",
            "{name}"
        );
    }
    wait("no stream", || hub.state.legs.count() == 0).await;
}

#[tokio::test]
async fn a_session_that_breaks_the_protocol_is_reset() {
    let setup = setup().await;
    let mut opening = setup.service.opening(DEVICE, "ssh").await;
    opening.greeting(limits::SESSION_HANDSHAKE).await.unwrap();
    let (id, secret) = (SessionId::random(), ResumeSecret::random());
    let grace = Duration::from_secs(60);
    opening.hello(id, &secret, grace).await.unwrap();
    let mut leg = Listener::new(opening);
    assert!(matches!(leg.next().await, Some(Frame::Welcome { .. })));
    // An acknowledgement of bytes that were never sent.
    let ack = Frame::Ack {
        received: 1 << 40,
        delay: Duration::ZERO,
        arrived: None,
    };
    leg.send(&ack).await;
    let frame = leg.next().await;
    let code = Code::Protocol;
    assert!(
        matches!(frame, Some(Frame::Reset { code: received, .. }) if received == code),
        "{frame:?}"
    );
    assert_eq!(leg.next().await, None);
    // The session is over, and no other is affected.
    let again = ask(&setup.service, "ssh", id, &secret, 0).await;
    assert_eq!(refused_with(again), Code::Unknown);
    let session = RawSession::begin(&setup.service, DEVICE, "ssh").await;
    let (mut here, _copying) = session.connect().await;
    let (mut there, _) = soon("the target", setup.target.accept()).await.unwrap();
    talk(&mut here, &mut there).await;
}
