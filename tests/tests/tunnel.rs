//! Both proxies and the hub together: bytes arrive in both directions, in small and large amounts
//! and over many connections, and every kind of end arrives as the same kind.

use std::io::ErrorKind;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tests::target::Behaviour;
use tests::{Target, TestDevice, TestHub, TestService, soon, wait};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

/// Runs a test both with plain streams and in session mode.
const MODES: [&str; 2] = ["never", "always"];

struct Setup {
    mode: &'static str,
    hub: TestHub,
    device: TestDevice,
    service: TestService,
    target: Target,
}

/// A device with one unnamed target of this kind, and a port that leads to it, with plain streams
/// or in a session.
async fn setup(behaviour: Behaviour, mode: &'static str) -> Setup {
    let hub = TestHub::start().await;
    let connection = hub.create("MyDevice").await;
    let target = Target::start(behaviour).await;
    let address = target.address.to_string();
    let device = TestDevice::start(&hub, &connection, &["--target", &address]).await;
    let service = TestService::listen(&hub, &["--session", mode, "MyDevice", "0"]).await;
    Setup {
        mode,
        hub,
        device,
        service,
        target,
    }
}

fn pattern(length: usize, seed: usize) -> Vec<u8> {
    (0..length).map(|place| (place * 31 + seed) as u8).collect()
}

/// Sends bytes through an echo and compares the result.
async fn round_trip(mut socket: TcpStream, data: Vec<u8>) {
    let (mut reader, mut writer) = socket.split();
    let write = async {
        writer.write_all(&data).await.unwrap();
        writer.shutdown().await.unwrap();
    };
    let mut back = vec![0; data.len()];
    let read = async { reader.read_exact(&mut back).await.unwrap() };
    soon("the bytes to come back", async {
        tokio::join!(write, read)
    })
    .await;
    assert!(back == data, "the bytes are not the same");
}

async fn nothing_left(setup: &Setup) {
    // An unused session keeps its stream for a while.
    let streams = usize::from(setup.mode == "always");
    let what = format!("the streams to end (session mode {})", setup.mode);
    wait(&what, || setup.hub.state.legs.count() == streams).await;
    wait("the target's connections to end", || {
        setup.target.counters.connections() == 0
    })
    .await;
}

#[tokio::test]
async fn eight_mebibytes_there_and_back() {
    for mode in MODES {
        let setup = setup(Behaviour::Echo, mode).await;
        round_trip(setup.service.connect().await, pattern(8 << 20, 1)).await;
        nothing_left(&setup).await;
    }
}

#[tokio::test]
async fn mqtt_over_tls_carries_the_handshake_too() {
    let hub = TestHub::start().await;
    let connection = hub.create("MyDevice").await;
    let _device = TestDevice::start(&hub, &connection, &["--transport", "mqtt", "--echo"]).await;
    let service = TestService::listen(&hub, &["MyDevice", "0"]).await;
    round_trip(service.connect().await, pattern(1000, 1)).await;
}

#[tokio::test]
async fn modules_too() {
    let hub = TestHub::start().await;
    hub.create("MyDevice").await;
    let module = hub.create("MyDevice/MyModule").await;
    let _device = TestDevice::start(&hub, &module, &["--echo"]).await;
    let service = TestService::listen(&hub, &["--module", "MyModule", "MyDevice", "0"]).await;
    round_trip(service.connect().await, pattern(1000, 1)).await;
}

#[tokio::test]
async fn two_hundred_connections_at_once_through_one_port() {
    for mode in MODES {
        let setup = setup(Behaviour::Echo, mode).await;
        let mut clients = JoinSet::new();
        for number in 0..200 {
            let address = setup.service.addresses[0];
            clients.spawn(async move {
                let socket = TcpStream::connect(address).await.unwrap();
                round_trip(socket, pattern(10_000 + number, number)).await;
            });
        }
        while let Some(client) = clients.join_next().await {
            client.unwrap();
        }
        nothing_left(&setup).await;
    }
}

#[tokio::test]
async fn names_select_targets_and_the_rest_is_rejected() {
    for mode in MODES {
        let hub = TestHub::start().await;
        let connection = hub.create("MyDevice").await;
        let echo = Target::start(Behaviour::Echo).await;
        let count = Target::start(Behaviour::Flood).await;
        let (a, b) = (
            format!("a={}", echo.address),
            format!("b={}", count.address),
        );
        let _device = TestDevice::start(&hub, &connection, &["--target", &a, "--target", &b]).await;
        let service = TestService::listen(
            &hub,
            &["--session", mode, "MyDevice", "0:a", "0:b", "0:c", "0"],
        )
        .await;
        let connect =
            async |number: usize| TcpStream::connect(service.addresses[number]).await.unwrap();
        round_trip(connect(0).await, pattern(100, 1)).await;
        let mut noise = [0; 100];
        soon("noise", connect(1).await.read_exact(&mut noise))
            .await
            .unwrap();
        for number in [2, 3] {
            let error = soon("a reject", connect(number).await.read(&mut noise))
                .await
                .unwrap_err();
            assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        }
        // And the listener still accepts.
        round_trip(connect(0).await, pattern(100, 2)).await;
    }
}

#[tokio::test]
async fn a_target_that_refuses_costs_one_connection() {
    for mode in MODES {
        let hub = TestHub::start().await;
        let connection = hub.create("MyDevice").await;
        let nowhere = Target::nowhere().await.to_string();
        let device = TestDevice::start(&hub, &connection, &["--target", &nowhere]).await;
        let service = TestService::listen(&hub, &["--session", mode, "MyDevice", "0"]).await;
        for _ in 0..2 {
            let mut byte = [0];
            let refused = soon("a reject", service.connect().await.read(&mut byte)).await;
            assert_eq!(refused.unwrap_err().kind(), ErrorKind::ConnectionReset);
        }
        device.shut_down().await.unwrap();
    }
}

#[tokio::test]
async fn a_target_that_closes_at_once_is_a_normal_end() {
    for mode in MODES {
        let setup = setup(Behaviour::CloseAtOnce, mode).await;
        let mut all = Vec::new();
        let end = soon(
            "the end",
            setup.service.connect().await.read_to_end(&mut all),
        )
        .await;
        assert_eq!(end.unwrap(), 0);
        nothing_left(&setup).await;
    }
}

#[tokio::test]
async fn a_target_that_hangs_is_left_when_the_client_leaves() {
    for mode in MODES {
        let setup = setup(Behaviour::Silent, mode).await;
        let socket = setup.service.connect().await;
        wait("the target's connection", || {
            setup.target.counters.connections() == 1
        })
        .await;
        drop(socket);
        nothing_left(&setup).await;
    }
}

#[tokio::test]
async fn a_reader_that_stops_stops_the_writer() {
    for mode in MODES {
        let setup = setup(Behaviour::Flood, mode).await;
        let mut socket = setup.service.connect().await;
        let mut some = vec![0; 1 << 20];
        soon("the flood", socket.read_exact(&mut some))
            .await
            .unwrap();
        // The flood stops when the buffers in between are full.
        let mut before = u64::MAX;
        let rest = async {
            loop {
                tokio::time::sleep(Duration::from_millis(300)).await;
                let now = setup.target.counters.sent.load(Relaxed);
                if now == before {
                    return now;
                }
                before = now;
            }
        };
        let sent = soon("the flood to come to rest", rest).await;
        // And continues when the client reads.
        let mut more = vec![0; sent as usize];
        soon("the flood to go on", socket.read_exact(&mut more))
            .await
            .unwrap();
        assert!(more.iter().all(|byte| *byte == 0x5a));
        drop(socket);
        nothing_left(&setup).await;
    }
}

#[tokio::test]
async fn bytes_after_the_local_end_of_input_still_arrive() {
    for mode in MODES {
        let setup = setup(Behaviour::Echo, mode).await;
        let mut socket = setup.service.connect().await;
        socket.write_all(b"GET / HTTP/1.0\r\n\r\n").await.unwrap();
        socket.shutdown().await.unwrap();
        let mut back = [0; 18];
        soon("the answer", socket.read_exact(&mut back))
            .await
            .unwrap();
        assert_eq!(&back, b"GET / HTTP/1.0\r\n\r\n");
    }
}

#[tokio::test]
async fn an_offline_device_costs_one_connection() {
    let hub = TestHub::start().await;
    let connection = hub.create("MyDevice").await;
    let service = TestService::listen(&hub, &["--connect-timeout", "0", "MyDevice", "0"]).await;
    let mut byte = [0];
    let refused = soon("the refusal", service.connect().await.read(&mut byte)).await;
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::ConnectionReset);
    let _device = TestDevice::start(&hub, &connection, &["--echo"]).await;
    round_trip(service.connect().await, pattern(100, 1)).await;
}

#[tokio::test]
async fn a_disabled_devices_tunnel_is_cut() {
    let setup = setup(Behaviour::Echo, "never").await;
    let mut socket = setup.service.connect().await;
    socket.write_all(b"x").await.unwrap();
    let mut byte = [0];
    soon("the echo", socket.read_exact(&mut byte))
        .await
        .unwrap();
    setup
        .hub
        .set_status("MyDevice", hub::registry::Status::Disabled)
        .await;
    let cut = soon("the cut", socket.read(&mut byte)).await;
    assert_eq!(cut.unwrap_err().kind(), ErrorKind::ConnectionReset);
    nothing_left(&setup).await;
}

#[tokio::test]
async fn stopping_each_program_cuts_its_tunnels_and_ends() {
    for mode in MODES {
        let first = setup(Behaviour::Echo, mode).await;
        let mut socket = first.service.connect().await;
        socket.write_all(b"x").await.unwrap();
        let mut byte = [0];
        soon("the echo", socket.read_exact(&mut byte))
            .await
            .unwrap();
        first.device.shut_down().await.unwrap();
        let cut = soon("the cut", socket.read(&mut byte)).await;
        assert_eq!(cut.unwrap_err().kind(), ErrorKind::ConnectionReset);
        wait("the stream's end", || first.hub.state.legs.count() == 0).await;
        first.service.shut_down().await;
        first.hub.shut_down().await;

        let second = setup(Behaviour::Echo, mode).await;
        let mut socket = second.service.connect().await;
        socket.write_all(b"x").await.unwrap();
        soon("the echo", socket.read_exact(&mut byte))
            .await
            .unwrap();
        second.service.shut_down().await;
        wait("the target's end", || {
            second.target.counters.connections() == 0
        })
        .await;
        second.hub.shut_down().await;
        second.device.shut_down().await.unwrap();
    }
}
