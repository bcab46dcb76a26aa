use bytes::BytesMut;

use super::*;
use crate::proto::chunk::{Chunk, control_message};
use crate::proto::connection::Inbound;
use crate::proto::inner::{Inner, RefusedCode};
use crate::proto::memory::Memory;

/// Both ends, attached to a carrier.
fn pair(now: Instant) -> [(Session, CarrierId); 2] {
    [Role::Service, Role::Device].map(|role| {
        let mut session = Session::new(role, now);
        let carrier = session.attach(0, now).unwrap();
        (session, carrier)
    })
}

/// Delivers all that one end has to send to the other.
fn bring(from: &mut (Session, CarrierId), to: &mut (Session, CarrierId), now: Instant) {
    while let Some(message) = from.0.transmit(from.1, now) {
        to.0.receive(to.1, message, now).unwrap();
    }
}

#[test]
fn a_session_that_is_over_drops_connections_that_were_never_taken() {
    let now = Instant::now();
    let [mut service, mut device] = pair(now);
    let ids = [(); 3].map(|()| service.0.open().unwrap());
    bring(&mut service, &mut device, now);
    // One is refused, one waits for its target, one was not taken.
    let [first, second] = [(); 2].map(|()| device.0.next_incoming().unwrap());
    let no = || (RefusedCode::TimedOut, String::new());
    device.0.refuse(first, no().0, no().1);
    device.0.reset(Code::Stopping, "");
    assert_eq!(device.0.connections(), 1);
    device.0.refuse(second, no().0, no().1);
    assert_eq!(device.0.connections(), 0);

    service.0.release(ids[0]);
    bring(&mut device, &mut service, now);
    assert_eq!(service.0.connections(), 2);
    service.0.release(ids[1]);
    service.0.release(ids[2]);
    assert_eq!(service.0.connections(), 0);
}

#[test]
fn a_refused_connection_takes_no_more_data_and_is_removed() {
    let now = Instant::now();
    let [mut service, mut device] = pair(now);
    let id = service.0.open().unwrap();
    bring(&mut service, &mut device, now);
    let incoming = device.0.next_incoming().unwrap();
    let code = RefusedCode::TargetRefused;
    device.0.refuse(incoming, code, String::new());
    bring(&mut device, &mut service, now);
    // The local side has not seen the refusal yet, and writes.
    assert_eq!(service.0.room(id), 0);
    service.0.send(id, Chunk::copy_of(b"too late"), now);
    service.0.release(id);
    bring(&mut service, &mut device, now);
    assert_eq!(service.0.connections(), 0);
}

/// A frame of the service with these inner frames.
fn data_message(offset: u64, frames: impl Iterator<Item = (u32, Inner)>) -> Bytes {
    let mut bytes = BytesMut::new();
    for (id, frame) in frames {
        frame.encode(ConnectionId(id), &mut bytes);
    }
    control_message(&bytes, offset, false)
}

#[test]
fn a_flood_of_connections_ends_the_session() {
    let most = limits::CONNECTIONS as u32;
    let now = Instant::now();
    let [_, (mut device, carrier)] = pair(now);
    let first = data_message(0, (1..=most).map(|id| (id, Inner::Open)));
    device.receive(carrier, first, now).unwrap();
    assert_eq!(device.connections(), most as usize);
    let offset = device.received_bytes();
    // Connections that are refused and reset at once are not kept, however slow the path back is.
    let churn = (most + 1..10 * most).flat_map(|id| [(id, Inner::Open), (id, Inner::Rst)]);
    device
        .receive(carrier, data_message(offset, churn), now)
        .unwrap();
    let offset = device.received_bytes();
    assert_eq!(device.connections(), most as usize);

    let flood = (10 * most..20 * most).map(|id| (id, Inner::Open));
    let flood = device.receive(carrier, data_message(offset, flood), now);
    assert_eq!(flood, Err(Violation("too many connections")));
}

#[test]
fn connections_that_come_and_go_in_a_stuck_session_are_removed() {
    let now = Instant::now();
    // Nothing is transmitted.
    let [(mut service, _), (mut device, carrier)] = pair(now);
    for number in 1..=20_000 {
        let id = service.open().unwrap();
        service.send(id, Chunk::copy_of(b"a question"), now);
        service.release(id);

        let came = |frame| std::iter::once((number, frame));
        let offset = device.received_bytes();
        let open = data_message(offset, came(Inner::Open));
        device.receive(carrier, open, now).unwrap();
        let id = device.next_incoming().unwrap();
        let is_refused = number % 3 == 0;
        if !is_refused {
            device.opened(id);
            device.send(id, Chunk::copy_of(b"an answer"), now);
        }
        let offset = device.received_bytes();
        let rst = data_message(offset, came(Inner::Rst));
        device.receive(carrier, rst, now).unwrap();
        if is_refused {
            device.refuse(id, RefusedCode::TimedOut, String::new());
        } else {
            device.release(id);
        }
        device.touched();
        service.touched();
    }
    for session in [service, device] {
        assert_eq!((session.connections(), session.held()), (0, 0));
        assert!(session.owing.len() <= 64 && session.scheduler.len() <= 2 * 64);
    }
}

#[test]
fn the_table_gives_back_what_many_connections_took() {
    let now = Instant::now();
    let [(mut service, _), _] = pair(now);
    let ids: Vec<_> = (0..1_000).map(|_| service.open().unwrap()).collect();
    assert!(service.connections.capacity() >= 1_000);
    for id in ids {
        service.release(id);
    }
    assert_eq!(service.connections(), 0);
    assert!(service.connections.capacity() < 200);
}

#[test]
fn stuck_sessions_share_memory_and_take_more_when_some_is_free() {
    const LIMIT: u64 = 8 << 20;
    let now = Instant::now();
    let memory = Memory::new(LIMIT);
    let mut stuck: Vec<_> = (0..32)
        .map(|_| {
            let mut session = Session::with_memory(Role::Service, Arc::clone(&memory), now);
            let carrier = session.attach(0, now).unwrap();
            // Nothing is acknowledged, and there is much to send.
            for _ in 0..64 {
                let id = session.open().unwrap();
                fill(&mut session, id, now);
                while session.transmit(carrier, now).is_some() {}
            }
            session
        })
        .collect();
    let floor = 32 * (2 * limits::STREAM_MESSAGE as u64 + 1);
    assert!(memory.used() <= LIMIT + floor, "{}", memory.used());
    let held: u64 = stuck.iter().map(Session::held).sum();
    assert_eq!(memory.used(), held);
    let last = stuck.last_mut().unwrap();
    let id = last.open().unwrap();
    assert_eq!(last.room(id), 0);
    assert!(last.is_starved());
    last.tidy(now);
    assert!(!last.is_starved(), "a retry is scheduled");
    let retry = last.tidy_at().unwrap();
    // The others end.
    let mut last = stuck.pop().unwrap();
    drop(stuck);
    assert_eq!(memory.used(), last.held());
    last.touched();
    last.tidy(retry);
    assert!(last.touched().any(|touched| touched == id));
    assert!(last.room(id) > 0);
    last.reset(Code::Stopping, "");
    assert_eq!((memory.used(), last.held()), (0, 0));
}

#[test]
fn waiting_data_does_not_keep_its_receive_buffers() {
    const PIECE: usize = 9 << 10;
    let now = Instant::now();
    let [_, (mut device, carrier)] = pair(now);
    let receive = |device: &mut Session, id: u32, frame: Inner| {
        let message = data_message(device.received_bytes(), std::iter::once((id, frame)));
        device.receive(carrier, message.clone(), now).unwrap();
        message
    };
    let piece = || Inner::Data(Bytes::from(vec![7; PIECE]));
    for id in 1..=40 {
        receive(&mut device, id, Inner::Open);
    }
    // At first they are shared.
    let mut kept: Vec<_> = (1..=20)
        .map(|id| receive(&mut device, id, piece()))
        .collect();
    assert!(kept.iter().all(|message| !message.is_unique()));
    assert_eq!(device.tidy_at(), Some(now + local::KEPT));
    device.tidy(now + local::KEPT);
    assert!(kept.iter().all(|message| message.is_unique()));
    assert_eq!(device.tidy_at(), None);
    // Too many are copied at once.
    for id in 1..=20 {
        kept.extend((0..5).map(|_| receive(&mut device, 20 + id, piece())));
        kept.extend((0..2).map(|_| receive(&mut device, id, piece())));
    }
    let shared = kept.iter().filter(|message| !message.is_unique()).count();
    assert!(shared <= 128, "{shared}");
    // A session without a carrier copies all of them.
    device.freeze(now);
    assert!(kept.iter().all(|message| message.is_unique()));
    assert_eq!(device.held(), (kept.len() * PIECE) as u64);
    // Data that is given back is counted again, and returned again.
    let id = ConnectionId(1);
    let Inbound::Data(bytes) = device.take(id, now) else {
        panic!("nothing waits")
    };
    assert_eq!(device.held(), (kept.len() * PIECE - bytes.len()) as u64);
    device.give_back_inbound(id, bytes.slice(1..), now);
    assert_eq!(device.held(), (kept.len() * PIECE - 1) as u64);
    assert_eq!(read(&mut device, id, now), 3 * PIECE as u64 - 1);
}

/// Takes all data for the local reader; returns its length.
fn read(session: &mut Session, id: ConnectionId, now: Instant) -> u64 {
    let mut read = 0;
    while let Inbound::Data(bytes) = session.take(id, now) {
        read += bytes.len() as u64;
    }
    read
}

/// Sends as much as there is room for.
fn fill(session: &mut Session, id: ConnectionId, now: Instant) -> u64 {
    let mut sent = 0;
    loop {
        let room = session.room(id);
        if room == 0 {
            return sent;
        }
        session.send(id, Chunk::copy_of(&vec![5; room]), now);
        sent += room as u64;
    }
}

#[test]
fn credit_grows_once_for_each_time_that_it_is_used_up() {
    let now = Instant::now();
    let [mut service, mut device] = pair(now);
    let id = service.0.open().unwrap();
    let mut sent = 0;
    while fill(&mut service.0, id, now) > 0 {
        while let Some(message) = service.0.transmit(service.1, now) {
            sent += 1;
            device.0.receive(device.1, message, now).unwrap();
        }
    }
    assert!(sent > 2, "in more than one piece");
    device.0.next_incoming().unwrap();
    // The reader calls again and again before the first credit is sent.
    assert_eq!(read(&mut device.0, id, now), limits::CREDIT_FIRST);
    for _ in 0..100 {
        assert_eq!(device.0.take(id, now), Inbound::Pending);
    }
    assert_eq!(device.0.kept().shared, limits::CREDIT_SHARED);
}

#[test]
fn a_silent_peer_costs_a_window_and_no_more() {
    let now = Instant::now();
    let [mut service, _] = pair(now);
    let ids = [(); 100].map(|()| service.0.open().unwrap());
    let mut sent = 0;
    for _ in 0..100 {
        for id in ids {
            fill(&mut service.0, id, now);
        }
        while let Some(message) = service.0.transmit(service.1, now) {
            sent += message.len() as u64;
        }
    }
    let most = limits::WINDOW_FIRST + limits::WINDOW_SMALL;
    assert!(sent <= most + limits::STREAM_MESSAGE as u64, "{sent}");
    let chunks = ids.len() as u64 * (64 + limits::STREAM_MESSAGE as u64);
    assert!(service.0.held() <= sent + chunks);
}

#[test]
fn every_carrier_that_delivers_a_message_makes_progress() {
    let mut now = Instant::now();
    let [mut service, mut device] = pair(now);
    let id = service.0.open().unwrap();
    let (mut given, mut taken, mut carriers) = (0, 0, 0);
    while taken < 1_000_000 {
        carriers += 1;
        now += Duration::from_secs(1);
        given += fill(&mut service.0, id, now);
        let before = device.0.received_bytes();
        // One message and one answer, then the carrier is lost.
        let message = service.0.transmit(service.1, now).unwrap();
        device.0.receive(device.1, message, now).unwrap();
        assert!(device.0.received_bytes() > before, "at {before}");
        device.0.next_incoming();
        taken += read(&mut device.0, id, now);
        while let Some(message) = device.0.transmit(device.1, now) {
            let is_credit = message.len() > 24;
            service.0.receive(service.1, message, now).unwrap();
            if is_credit {
                break;
            }
        }
        let offsets = (device.0.freeze(now), service.0.freeze(now));
        service.1 = service.0.attach(offsets.0, now).unwrap();
        device.1 = device.0.attach(offsets.1, now).unwrap();
    }
    assert!(given >= taken && carriers < 1_000, "{carriers} carriers");
}

/// The most bytes of four bulk connections that are sent before a keystroke, on a path that takes
/// `rate` bytes in 20 ms.
fn bytes_before_a_key(rate: i64) -> usize {
    let mut now = Instant::now();
    let [mut service, mut device] = pair(now);
    let bulk = [(); 4].map(|()| service.0.open().unwrap());
    let small = service.0.open().unwrap();
    let (mut typed, mut most, mut room) = (0, 0, 0);
    let mut before: Option<usize> = None;
    for round in 0..2_000 {
        now += Duration::from_millis(10);
        for id in bulk {
            fill(&mut service.0, id, now);
        }
        // At first the bulk connections do not count as bulk.
        if round % 50 == 7 && round > 100 {
            service.0.send(small, Chunk::copy_of(b"key"), now);
            before = Some(0);
            typed += 3;
        }
        room = rate.min(room + rate);
        while room > 0 {
            let Some(message) = service.0.transmit(service.1, now) else {
                break;
            };
            room -= message.len() as i64;
            if message.ends_with(b"key") {
                most = most.max(before.take().unwrap());
            }
            before = before.map(|bytes| bytes + message.len());
            device.0.receive(device.1, message, now).unwrap();
            for id in bulk {
                fill(&mut service.0, id, now);
            }
        }
        while device.0.next_incoming().is_some() {}
        for id in bulk {
            read(&mut device.0, id, now);
        }
        now += Duration::from_millis(10);
        bring(&mut device, &mut service, now);
    }
    assert_eq!(read(&mut device.0, small, now), typed);
    assert!(before.is_none() && typed > 100);
    most
}

#[test]
fn small_messages_overtake_bulk() {
    for rate in [2_500, 5_000, 10_000, 25_000, 250_000] {
        // An acknowledgement is allowed, but no data of the others.
        let most = bytes_before_a_key(rate);
        assert!(most <= 64, "{most} bytes before a key at {rate}");
    }
}

#[test]
fn the_side_that_did_not_ask_takes_nothing() {
    let now = Instant::now();
    let alone = |id, frame| data_message(0, std::iter::once((id, frame)));
    let refused = |(code, text)| Inner::Refused { code, text };
    let no = || refused((RefusedCode::TimedOut, String::new()));
    let data = || Inner::Data(Bytes::from_static(b"unasked"));
    // A device opens nothing at a service, whether or not the service has opened something.
    for has_opened in [false, true] {
        for id in [1, 2, u32::MAX] {
            let [(mut service, carrier), _] = pair(now);
            if has_opened {
                service.open().unwrap();
            }
            let open = service.receive(carrier, alone(id, Inner::Open), now);
            assert_eq!(open, Err(Violation("a connection opened out of turn")));
        }
    }
    // Nothing is said of a connection that nobody has opened.
    for frame in [
        Inner::Opened,
        no(),
        data(),
        Inner::Fin,
        Inner::Rst,
        Inner::Credit(1),
    ] {
        for [mut end, _] in [pair(now), {
            let [service, device] = pair(now);
            [device, service]
        }] {
            let seen = end.0.receive(end.1, alone(1, frame.clone()), now);
            assert_eq!(seen, Err(Violation("a connection that was never opened")));
        }
    }
    // A service does not answer for a target.
    for answer in [Inner::Opened, no()] {
        let [_, (mut device, carrier)] = pair(now);
        device.receive(carrier, alone(1, Inner::Open), now).unwrap();
        let offset = device.received_bytes();
        let message = data_message(offset, std::iter::once((1, answer)));
        let seen = device.receive(carrier, message, now);
        assert_eq!(seen, Err(Violation("a service does not open targets")));
    }
}
