//! Who may go on with a session: a hand-made service that guesses, repeats or confuses
//! is refused, and harms nothing.

use std::future::poll_fn;
use std::time::Duration;

use bytes::Bytes;
use common::limits;
use common::session::frame::{Code, Decoder, Frame};
use common::session::handshake::GreetError;
use common::session::proof::{Challenge, Proof, Prover, ResumeSecret, VERSION};
use common::session::{CarrierEnd, ConnectionEnd, SessionId, SharedSession, run_connection};
use common::tunnel::{Outcome, Traffic};
use common::websocket::{Data, Incoming, WebSocket};
use tests::raw_session::Opening;
use tests::session_story::{DEVICE, talk};
use tests::target::Manner;
use tests::{RawService, RawSession, Target, TestDevice, TestHub, soon, wait};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::client::TlsStream;

struct Story {
    _hub: TestHub,
    _device: TestDevice,
    service: RawService,
    target: TcpListener,
    other: Target,
}

/// A device with the targets `ssh` and `rdp`.
async fn story() -> Story {
    let hub = TestHub::start().await;
    let connection = hub.create(DEVICE).await;
    let target = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let other = Target::start(Manner::Echo).await;
    let ssh = format!("ssh={}", target.local_addr().unwrap());
    let rdp = format!("rdp={}", other.address);
    let options = ["--target", &ssh, "--target", &rdp];
    let device = TestDevice::start(&hub, &connection, &options).await;
    Story {
        service: RawService::new(&hub).await,
        _hub: hub,
        _device: device,
        target,
        other,
    }
}

/// The client's end of a connection in this session, as service-proxy would carry it.
async fn connect(live: &SharedSession) -> (TcpStream, JoinHandle<Outcome<ConnectionEnd>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let here = TcpStream::connect(listener.local_addr().unwrap())
        .await
        .unwrap();
    let (socket, _) = listener.accept().await.unwrap();
    let live = live.clone();
    let id = live.open().unwrap();
    let piping = tokio::spawn(async move {
        let traffic = Traffic::default();
        run_connection(&live, id, socket, &traffic).await
    });
    (here, piping)
}

/// A stream frame by frame.
struct Listener {
    leg: WebSocket<TlsStream<TcpStream>>,
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

    async fn say(&mut self, frame: &Frame) {
        let Self { leg, .. } = self;
        poll_fn(|cx| leg.poll_ready(cx)).await.unwrap();
        leg.start_send(Data::binary(frame.encode())).unwrap();
        poll_fn(|cx| leg.poll_flush(cx)).await.unwrap();
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

fn refused_with(asked: Result<u64, GreetError>) -> Code {
    match asked {
        Err(GreetError::Refused { code, .. }) => code,
        other => panic!("{other:?} instead of a refusal"),
    }
}

/// Asks to go on with a session on a fresh stream to this target.
async fn ask(
    service: &RawService,
    target: &str,
    id: SessionId,
    secret: &ResumeSecret,
    received: u64,
) -> Result<u64, GreetError> {
    let mut opening: Opening = service.opening(DEVICE, target).await;
    let greeting = opening.greeting(limits::SESSION_HANDSHAKE).await.unwrap();
    opening.resume(&greeting, id, secret, received).await
}

#[tokio::test]
async fn foreign_resumes_are_refused_and_harm_nothing() {
    let story = story().await;
    let session = RawSession::begin(&story.service, DEVICE, "ssh").await;
    let (mut here, piping) = connect(&session.live).await;
    let (mut there, _) = soon("the target", story.target.accept()).await.unwrap();
    talk(&mut here, &mut there).await;

    let guess = ResumeSecret::random();
    let (id, secret) = (session.id, &session.secret);
    let service = &story.service;
    for _ in 0..3 {
        let wrong_proof = ask(service, "ssh", id, &guess, 0).await;
        assert_eq!(refused_with(wrong_proof), Code::Foreign);
        let other_target = ask(service, "rdp", id, secret, 0).await;
        assert_eq!(refused_with(other_target), Code::Foreign);
        let nobody = ask(service, "ssh", SessionId::random(), secret, 0).await;
        assert_eq!(refused_with(nobody), Code::Unknown);
        // The right proof, but it cannot have received so much.
        let too_much = ask(service, "ssh", id, secret, u64::MAX / 2).await;
        assert_eq!(refused_with(too_much), Code::Protocol);
        talk(&mut here, &mut there).await;
    }
    // A new session may not take another's name either.
    let mut opening = service.opening(DEVICE, "ssh").await;
    opening.greeting(limits::SESSION_HANDSHAKE).await.unwrap();
    let grace = Duration::from_secs(1);
    opening.hello(id, &guess, grace).await.unwrap();
    let answer = opening.greeting(limits::SESSION_HANDSHAKE).await;
    assert!(
        matches!(
            answer,
            Err(GreetError::Refused {
                code: Code::Limit,
                ..
            })
        ),
        "{answer:?}"
    );
    talk(&mut here, &mut there).await;
    assert!(!session.carrying.is_finished(), "still on its first stream");
    drop((here, there));
    let outcome = soon("the connection's end", piping).await.unwrap();
    assert!(
        matches!(outcome.end, ConnectionEnd::Finished),
        "{}",
        outcome.end
    );
    assert_eq!(story.other.counters.connections(), 0);
}

#[tokio::test]
async fn a_recorded_resume_is_worth_nothing() {
    let story = story().await;
    let session = RawSession::begin(&story.service, DEVICE, "ssh").await;
    let (mut here, _piping) = connect(&session.live).await;
    let (mut there, _) = soon("the target", story.target.accept()).await.unwrap();
    talk(&mut here, &mut there).await;

    // What somebody would have overheard: a proof for the first stream's challenge.
    let id = session.id;
    let asked = session.greeting.challenge;
    let recorded = Frame::Resume {
        version: VERSION,
        id,
        received: 0,
        challenge: Challenge::random(),
        proof: Proof::new(Prover::Service, &session.secret, id, asked, 0),
    };
    let mut opening = story.service.opening(DEVICE, "ssh").await;
    opening.greeting(limits::SESSION_HANDSHAKE).await.unwrap();
    let mut leg = Listener::new(opening);
    leg.say(&recorded).await;
    let told = leg.next().await;
    let code = Code::Foreign;
    assert!(
        matches!(told, Some(Frame::Refused { code: said, .. }) if said == code),
        "{told:?}"
    );
    talk(&mut here, &mut there).await;
    assert!(!session.carrying.is_finished());
}

#[tokio::test]
async fn a_resume_takes_over_from_a_stream_that_looks_alive() {
    let story = story().await;
    let mut session = RawSession::begin(&story.service, DEVICE, "ssh").await;
    let (mut here, _piping) = connect(&session.live).await;
    let (mut there, _) = soon("the target", story.target.accept()).await.unwrap();
    talk(&mut here, &mut there).await;
    for _ in 0..3 {
        // Only the offsets are told: our end looks as if it had lost nothing.
        let mut opening = story.service.opening(DEVICE, "ssh").await;
        let greeting = opening.greeting(limits::SESSION_HANDSHAKE).await.unwrap();
        let received = {
            // What is under way on the old stream stays unread from here on.
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
async fn the_stream_that_was_taken_over_is_told() {
    let story = story().await;
    let (id, secret) = (SessionId::random(), ResumeSecret::random());
    let mut first = story.service.opening(DEVICE, "ssh").await;
    first.greeting(limits::SESSION_HANDSHAKE).await.unwrap();
    let grace = Duration::from_secs(60);
    first.hello(id, &secret, grace).await.unwrap();
    let mut first = Listener::new(first);
    assert!(matches!(first.next().await, Some(Frame::Welcome { .. })));
    // Nothing was said in the session, on either side.
    let resumed = ask(&story.service, "ssh", id, &secret, 0).await;
    assert_eq!(resumed.unwrap(), 0);
    let told = first.next().await;
    let code = Code::Superseded;
    assert_eq!(told, Some(Frame::Detach { code }));
    assert_eq!(first.next().await, None);
}

#[tokio::test]
async fn a_target_that_is_not_offered_is_rejected() {
    let hub = TestHub::start().await;
    let connection = hub.create(DEVICE).await;
    let echo = Target::start(Manner::Echo).await;
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
    let story = story().await;
    let mut opening = story.service.opening(DEVICE, "ssh").await;
    opening.greeting(limits::SESSION_HANDSHAKE).await.unwrap();
    let (id, secret) = (SessionId::random(), ResumeSecret::random());
    let grace = Duration::from_secs(60);
    opening.hello(id, &secret, grace).await.unwrap();
    let mut leg = Listener::new(opening);
    assert!(matches!(leg.next().await, Some(Frame::Welcome { .. })));
    // Of bytes that were never sent.
    let ack = Frame::Ack {
        received: 1 << 40,
        delay: Duration::ZERO,
    };
    leg.say(&ack).await;
    let told = leg.next().await;
    let code = Code::Protocol;
    assert!(
        matches!(told, Some(Frame::Reset { code: said, .. }) if said == code),
        "{told:?}"
    );
    assert_eq!(leg.next().await, None);
    // It is over for good, and nothing else is.
    let again = ask(&story.service, "ssh", id, &secret, 0).await;
    assert_eq!(refused_with(again), Code::Unknown);
    let session = RawSession::begin(&story.service, DEVICE, "ssh").await;
    let (mut here, _piping) = connect(&session.live).await;
    let (mut there, _) = soon("the target", story.target.accept()).await.unwrap();
    talk(&mut here, &mut there).await;
}
