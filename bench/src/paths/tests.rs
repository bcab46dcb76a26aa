//! The simulator against what is known of real networks, and sessions on a few of its paths: the
//! window's rules, beyond its own tests with a sender alone.

use super::*;

const PATH_MBIT: u64 = 20;

fn path(products: f64) -> Path {
    Path::new(PATH_MBIT, 50 * MS, products)
}

fn run(path: Path, flows: &[Flow], seconds: u64) -> Report {
    Simulation::new(path, flows, 1).run(seconds * SECOND)
}

fn later(flow: Flow, seconds: u64) -> Flow {
    Flow {
        begin: seconds * SECOND,
        ..flow
    }
}

#[test]
fn plain_tcp_fills_a_path_and_its_queue() {
    for control in [Control::Cubic, Control::Bbr] {
        let flow = Flow {
            plain: Some(control),
            ..Flow::cubic()
        };
        let report = run(path(1.0), &[flow], 20);
        let rate = report.rate(0, 5 * SECOND, 20 * SECOND);
        // Headers are 66 of 1514 bytes.
        assert!(
            (0.85 * 20.0..=0.957 * 20.0).contains(&rate),
            "{control:?}: {rate}"
        );
        let longest = report.queues.iter().max().unwrap();
        assert!(*longest <= path(1.0).product(), "{control:?}: {longest}");
    }
}

#[test]
fn the_same_run_has_the_same_result() {
    let mut path = path(1.0);
    path.loss = 0.001;
    path.jitter = Jitter::Each(3 * MS);
    let flows = [Flow::session(), later(Flow::cubic(), 2)];
    let [one, other] = [(); 2].map(|()| run(path, &flows, 10));
    assert_eq!(one.bytes, other.bytes);
    assert_eq!(one.keys, other.keys);
    let another = Simulation::new(path, &flows, 2).run(10 * SECOND);
    assert_ne!(one.keys, another.keys);
}

#[test]
fn each_flow_has_half_behind_fq_codel() {
    let mut path = path(1.0);
    path.queue = Discipline::FqCodel(1 << 20);
    let report = run(path, &[Flow::cubic(), later(Flow::cubic(), 1)], 20);
    let [one, other] = [0, 1].map(|flow| report.rate(flow, 5 * SECOND, 20 * SECOND));
    assert!((0.8..1.25).contains(&(one / other)), "{one} {other}");
}

#[test]
fn a_session_alone_fills_the_path_and_not_its_queue() {
    // As when a person types before a copy begins: the idle path is known.
    let report = run(path(4.0), &[later(Flow::session(), 1)], 20);
    let rate = report.rate(0, 5 * SECOND, 20 * SECOND);
    assert!(rate > 0.9 * 20.0, "{rate}");
    let late = report.key_delay(0.99, 5 * SECOND, 20 * SECOND) - 50.0;
    assert!(late < 20.0, "{late} ms");
}

#[test]
fn a_session_holds_its_share_beside_plain_tcp() {
    let flows = [Flow::session(), later(Flow::cubic(), 5)];
    let report = run(Path::new(100, 50 * MS, 1.0), &flows, 40);
    let [session, plain] = [0, 1].map(|flow| report.rate(flow, 10 * SECOND, 40 * SECOND));
    let share = session / (session + plain);
    assert!((0.35..0.65).contains(&share), "{session} {plain}");
}

#[test]
fn a_session_that_comes_later_is_not_starved() {
    let flows = [later(Flow::session(), 5), Flow::cubic()];
    let report = run(path(1.0), &flows, 60);
    let session = report.rate(0, 30 * SECOND, 60 * SECOND);
    // What plain TCP gets that comes later.
    let plain = run(path(1.0), &[later(Flow::cubic(), 5), Flow::cubic()], 60);
    let plain = plain.rate(0, 30 * SECOND, 60 * SECOND);
    assert!(session > 0.6 * plain.min(10.0), "{session} {plain}");
}

#[test]
fn the_delay_is_short_again_when_the_other_has_left() {
    let other = Flow {
        end: 20 * SECOND,
        ..later(Flow::cubic(), 5)
    };
    let report = run(path(1.0), &[Flow::session(), other], 35);
    let beside = report.key_delay(0.5, 10 * SECOND, 20 * SECOND) - 50.0;
    assert!(beside > 15.0, "the queue was the other's: {beside} ms");
    let after = report.key_delay(0.99, 25 * SECOND, 35 * SECOND) - 50.0;
    assert!(after < 20.0, "{after} ms");
    assert!(report.rate(0, 25 * SECOND, 35 * SECOND) > 0.8 * 20.0);
}

#[test]
fn sessions_become_equal() {
    let flows = [0, 3, 6].map(|begin| later(Flow::session(), begin));
    let report = run(path(1.0), &flows, 60);
    let rates = [0, 1, 2].map(|flow| report.rate(flow, 20 * SECOND, 60 * SECOND));
    let most = rates.iter().copied().fold(0.0, f64::max);
    let least = rates.iter().copied().fold(f64::MAX, f64::min);
    assert!(most < 1.5 * least, "{rates:?}");
}

/// The growth that ended too early, on a burst of jitter, is taken up again.
#[test]
fn a_path_with_jitter_is_filled_too() {
    for jitter in [Jitter::Each(8 * MS), Jitter::Slots(8 * MS)] {
        let mut path = path(1.0);
        path.jitter = jitter;
        let rate = run(path, &[Flow::session()], 20).rate(0, 3 * SECOND, 20 * SECOND);
        assert!(rate > 0.8 * 20.0, "{jitter:?}: {rate}");
    }
}

/// What waits for the slots of a cell is no queue, and a smaller window does not make it less.
#[test]
fn a_path_with_slots_is_filled_as_by_plain_tcp() {
    let mut path = Path::new(430, 23 * MS, 1.5);
    path.jitter = Jitter::Slots(9 * MS);
    let rate = run(path, &[Flow::session()], 8).rate(0, 2 * SECOND, 8 * SECOND);
    assert!(rate > 0.8 * 430.0, "{rate}");
}
