use super::*;

/// Both ends on a carrier.
fn pair(now: Instant) -> [(Session, CarrierId); 2] {
    [Role::Service, Role::Device].map(|role| {
        let mut session = Session::new(role, now);
        let carrier = session.attach(0, now).unwrap();
        (session, carrier)
    })
}

/// Brings all that one end has to say to the other.
fn bring(from: &mut (Session, CarrierId), to: &mut (Session, CarrierId), now: Instant) {
    while let Some(message) = from.0.transmit(from.1, now) {
        to.0.receive(to.1, message, now).unwrap();
    }
}

#[test]
fn a_session_that_is_over_keeps_no_connection_that_nobody_will_release() {
    let now = Instant::now();
    let [mut service, mut device] = pair(now);
    let ids = [(); 3].map(|()| service.0.open().unwrap());
    bring(&mut service, &mut device, now);
    // One is refused, one waits for its target, one was not looked at.
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
fn a_refused_connection_takes_no_more_and_leaves_nothing() {
    let now = Instant::now();
    let [mut service, mut device] = pair(now);
    let id = service.0.open().unwrap();
    bring(&mut service, &mut device, now);
    let incoming = device.0.next_incoming().unwrap();
    let code = RefusedCode::TargetRefused;
    device.0.refuse(incoming, code, String::new());
    bring(&mut device, &mut service, now);
    // The local side has not looked yet, and writes on.
    assert_eq!(service.0.room(id), 0);
    service.0.send(id, Chunk::copy_of(b"too late"), now);
    service.0.release(id);
    bring(&mut service, &mut device, now);
    assert_eq!(service.0.connections(), 0);
}

/// A frame of the service with these inner frames.
fn said(offset: u64, frames: impl Iterator<Item = (u32, Inner)>) -> Bytes {
    let mut bytes = BytesMut::new();
    for (id, frame) in frames {
        frame.encode(ConnectionId(id), &mut bytes);
    }
    control_message(&bytes, offset, false)
}

#[test]
fn a_flood_of_connections_has_an_end() {
    let most = limits::SESSION_CONNECTIONS as u32;
    let now = Instant::now();
    let [_, (mut device, carrier)] = pair(now);
    let first = said(0, (1..=most).map(|id| (id, Inner::Open)));
    device.receive(carrier, first, now).unwrap();
    assert_eq!(device.connections(), most as usize);
    let offset = device.received_bytes();
    // What is refused and broken off at once is not kept, however slow the path back is.
    let churn = (most + 1..10 * most).flat_map(|id| [(id, Inner::Open), (id, Inner::Rst)]);
    device.receive(carrier, said(offset, churn), now).unwrap();
    let offset = device.received_bytes();
    assert_eq!(device.connections(), most as usize);

    let flood = (10 * most..20 * most).map(|id| (id, Inner::Open));
    let flood = device.receive(carrier, said(offset, flood), now);
    assert_eq!(flood, Err(Violation("too many connections")));
}
