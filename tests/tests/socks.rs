//! `service-proxy socks`: devices by host name, for clients of SOCKS5 and of HTTP CONNECT.

use tests::session_setup::{pass, rest};
use tests::target::Behaviour;
use tests::{Target, TestDevice, TestHub, TestService, soon};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

const MODES: [&str; 2] = ["always", "never"];

/// Asks for a name in SOCKS5; the code of the reply.
async fn ask(socket: &mut TcpStream, command: u8, name: &str, port: u16) -> u8 {
    let mut request = vec![5, 1, 0, 5, command, 0, 3, u8::try_from(name.len()).unwrap()];
    request.extend(name.bytes());
    request.extend(port.to_be_bytes());
    socket.write_all(&request).await.unwrap();
    reply(socket).await
}

async fn reply(socket: &mut TcpStream) -> u8 {
    let mut answer = [0; 12];
    soon("the reply", socket.read_exact(&mut answer))
        .await
        .unwrap();
    assert_eq!((&answer[..3], answer[5]), (&[5, 0, 5][..], 1));
    answer[3]
}

/// Asks for a name with CONNECT; the answer's head, and its body if it is a refusal.
async fn connect(socket: &mut TcpStream, target: &str) -> (u16, String) {
    let request = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n");
    socket.write_all(request.as_bytes()).await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(soon("the answer", socket.read_u8()).await.unwrap());
    }
    let head = String::from_utf8(head).unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    let body = if status == 200 {
        Vec::new()
    } else {
        rest(socket).await
    };
    (status, String::from_utf8(body).unwrap())
}

struct Setup {
    hub: TestHub,
    _devices: Vec<TestDevice>,
    /// The target `ssh` of MyDevice.
    ssh: TcpListener,
}

/// A device with targets of all kinds, another one that echoes, and one that is not there.
async fn setup() -> Setup {
    let hub = TestHub::start().await;
    let ssh = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let nowhere = Target::nowhere().await;
    let mine = hub.create("MyDevice").await;
    let other = hub.create("other.1").await;
    hub.create("offline").await;
    let options = [
        "--target".to_owned(),
        format!("ssh={}", ssh.local_addr().unwrap()),
        "--target".to_owned(),
        format!("http={nowhere}"),
    ];
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    let devices = vec![
        TestDevice::start(&hub, &mine, &options).await,
        TestDevice::start(&hub, &other, &["--echo"]).await,
    ];
    Setup {
        hub,
        _devices: devices,
        ssh,
    }
}

impl Setup {
    async fn proxy(&self, mode: &str) -> TestService {
        let options = ["--session", mode, "--connect-timeout", "0.2"];
        TestService::socks(&self.hub, &options).await
    }

    async fn accepted(&self) -> TcpStream {
        soon("the target's connection", self.ssh.accept())
            .await
            .unwrap()
            .0
    }
}

#[tokio::test]
async fn name_and_port_select_device_and_target() {
    let setup = setup().await;
    for mode in MODES {
        let proxy = setup.proxy(mode).await;
        let mut here = proxy.connect().await;
        assert_eq!(ask(&mut here, 1, "MyDevice.device", 22).await, 0);
        let mut there = setup.accepted().await;
        pass(&mut here, &mut there, b"a question").await;
        pass(&mut there, &mut here, b"an answer").await;
        // The end of one direction; in a session the other goes on.
        here.shutdown().await.unwrap();
        assert_eq!(rest(&mut there).await, b"");
        if mode == "always" {
            pass(&mut there, &mut here, b"the rest").await;
        }
        drop(there);
        assert_eq!(rest(&mut here).await, b"");

        // Another device over the same port; its name has a dot. Its only target echoes.
        let mut echo = proxy.connect().await;
        assert_eq!(ask(&mut echo, 1, "other.1.device.", 7).await, 0);
        echo.write_all(b"hello").await.unwrap();
        let mut back = [0; 5];
        soon("the echo", echo.read_exact(&mut back)).await.unwrap();
        assert_eq!(&back, b"hello");

        for (host, port) in [("MyDevice.device", "ssh"), ("_ssh.MyDevice.device", "80")] {
            let mut here = proxy.connect().await;
            let (status, _) = connect(&mut here, &format!("{host}:{port}")).await;
            assert_eq!(status, 200, "{mode} {host}:{port}");
            let mut there = setup.accepted().await;
            pass(&mut there, &mut here, b"a banner").await;
        }
        proxy.shut_down().await;
    }
}

/// Without a proxy: a port for each target, of several devices.
#[tokio::test]
async fn ports_of_one_program_lead_to_many_devices() {
    let setup = setup().await;
    for mode in MODES {
        let words = ["--session", mode, "MyDevice", "0:ssh", "other.1/0:any"];
        let service = TestService::listen(&setup.hub, &words).await;
        let [first, second] = service.addresses[..] else {
            panic!("{:?}", service.addresses)
        };
        let mut here = TcpStream::connect(first).await.unwrap();
        let mut there = setup.accepted().await;
        pass(&mut here, &mut there, b"a question").await;
        let mut echo = TcpStream::connect(second).await.unwrap();
        echo.write_all(b"hello").await.unwrap();
        let mut back = [0; 5];
        soon("the echo", echo.read_exact(&mut back)).await.unwrap();
        assert_eq!(&back, b"hello", "{mode}");
        service.shut_down().await;
    }
}

#[tokio::test]
async fn early_bytes_arrive() {
    let setup = setup().await;
    for mode in MODES {
        let proxy = setup.proxy(mode).await;
        // All at once, as a client that does not wait for answers; where half-closes arrive, with
        // the end of it.
        let mut here = proxy.connect().await;
        let request = b"CONNECT MyDevice.device:22 HTTP/1.1\r\n\r\nearly";
        here.write_all(request).await.unwrap();
        let mut there = setup.accepted().await;
        if mode == "always" {
            here.shutdown().await.unwrap();
            assert_eq!(rest(&mut there).await, b"early");
        } else {
            let mut early = [0; 5];
            soon("the bytes", there.read_exact(&mut early))
                .await
                .unwrap();
            assert_eq!(&early, b"early");
        }
        there.write_all(b"late").await.unwrap();
        drop(there);
        let all = String::from_utf8(rest(&mut here).await).unwrap();
        let is_answer = all.starts_with("HTTP/1.1 200 ") && all.ends_with("\r\n\r\nlate");
        assert!(is_answer, "{mode}: {all}");

        let mut here = proxy.connect().await;
        let name = b"MyDevice.device";
        let mut request = vec![5, 1, 0, 5, 1, 0, 3, 15];
        request.extend(name.iter().chain(&[0, 22]).chain(b"early"));
        here.write_all(&request).await.unwrap();
        let mut there = setup.accepted().await;
        let mut early = [0; 5];
        soon("the bytes", there.read_exact(&mut early))
            .await
            .unwrap();
        assert_eq!(&early, b"early", "{mode}");
    }
}

#[tokio::test]
async fn refusals_have_codes_and_a_sentence() {
    let setup = setup().await;
    for mode in MODES {
        let proxy = setup.proxy(mode).await;
        for (command, host, port, code, status, word) in [
            // Unknown device, device that is not there.
            (1, "nobody.device", 22, 4, 502, "knows no device"),
            (1, "offline.device", 22, 4, 503, "not connected"),
            // The target refuses; there is no such target.
            (1, "MyDevice.device", 80, 5, 502, ""),
            (1, "MyDevice.device", 9999, 5, 502, "rejected"),
            // Not a device's name; an address.
            (1, "example.com", 80, 2, 403, "ends with .device"),
            (1, "MyDevice", 22, 2, 403, "ends with .device"),
            (1, "127.0.0.1", 22, 8, 403, "is an address"),
            // BIND and UDP ASSOCIATE.
            (2, "MyDevice.device", 22, 7, 0, ""),
            (3, "MyDevice.device", 22, 7, 0, ""),
        ] {
            let mut here = proxy.connect().await;
            let seen = ask(&mut here, command, host, port).await;
            assert_eq!(seen, code, "{mode}: {host}:{port}");
            assert_eq!(rest(&mut here).await, b"");
            if status > 0 {
                let mut here = proxy.connect().await;
                let (seen, body) = connect(&mut here, &format!("{host}:{port}")).await;
                assert_eq!(seen, status, "{mode}: {host}:{port}: {body}");
                assert!(body.contains(word) && body.lines().count() == 1, "{body}");
            }
        }
        for address in [&[1, 127, 0, 0, 1][..], &[&[4][..], &[0; 16]].concat()] {
            let mut here = proxy.connect().await;
            let request = [&[5, 1, 0, 5, 1, 0], address, &[0, 22]].concat();
            here.write_all(&request).await.unwrap();
            assert_eq!(reply(&mut here).await, 8);
        }
        // Other requests of HTTP, and what is none.
        for (request, status) in [
            ("GET http://MyDevice.device/ HTTP/1.1\r\n\r\n", "405"),
            ("CONNECT MyDevice.device HTTP/1.1\r\n\r\n", "400"),
            ("HELO\r\n\r\n", "400"),
        ] {
            let mut here = proxy.connect().await;
            here.write_all(request.as_bytes()).await.unwrap();
            let answer = String::from_utf8(rest(&mut here).await).unwrap();
            assert_eq!(answer.split(' ').nth(1), Some(status), "{answer}");
        }
        // SOCKS4, and another protocol: no device is reached, and the proxy goes on.
        for bytes in [&[4, 1, 0, 22, 0, 0, 0, 1, 0][..], &[0x16, 3, 1, 0]] {
            let mut here = proxy.connect().await;
            here.write_all(bytes).await.unwrap();
            let mut answer = Vec::new();
            let _ = soon("the end", here.read_to_end(&mut answer)).await;
            assert!(answer.is_empty() || answer[1] == 0x5b, "{answer:?}");
        }
        let mut here = proxy.connect().await;
        assert_eq!(ask(&mut here, 1, "MyDevice.device", 22).await, 0);
        setup.accepted().await;
    }
}

#[tokio::test]
async fn a_name_in_lower_case_is_the_one_device_that_is_meant() {
    let setup = setup().await;
    let proxy = setup.proxy("always").await;
    for _ in 0..2 {
        let mut here = proxy.connect().await;
        assert_eq!(ask(&mut here, 1, "mydevice.device", 22).await, 0);
        let mut there = setup.accepted().await;
        pass(&mut here, &mut there, b"a question").await;
    }
    // What was found is used; of two it is not clear which is meant.
    setup.hub.create("MYDEVICE").await;
    let mut here = proxy.connect().await;
    assert_eq!(ask(&mut here, 1, "mydevice.device", 22).await, 0);
    setup.accepted().await;
    let mut here = proxy.connect().await;
    assert_eq!(ask(&mut here, 1, "myDevice.device", 22).await, 4);
    // The exact id always is.
    let mut here = proxy.connect().await;
    assert_eq!(ask(&mut here, 1, "MyDevice.device", 22).await, 0);
    setup.accepted().await;
}

#[tokio::test]
async fn clients_that_send_nothing_disturb_no_other_and_leave_nothing() {
    let setup = setup().await;
    let proxy = setup.proxy("always").await;
    let mut silent = Vec::new();
    for bytes in [&[][..], &[5], &[5, 1, 0, 5, 1], b"CONNECT My"] {
        let mut here = proxy.connect().await;
        here.write_all(bytes).await.unwrap();
        silent.push(here);
    }
    let target = Target::start(Behaviour::Echo).await;
    let connection = setup.hub.create("echo").await;
    let option = format!("web={}", target.address);
    let _device = TestDevice::start(&setup.hub, &connection, &["--target", &option]).await;
    let mut here = proxy.connect().await;
    assert_eq!(connect(&mut here, "echo.device:web").await.0, 200);
    here.write_all(b"hello").await.unwrap();
    let mut back = [0; 5];
    soon("the echo", here.read_exact(&mut back)).await.unwrap();
    // The end of the program ends all of them.
    proxy.shut_down().await;
    for mut here in silent.into_iter().chain([here]) {
        let mut all = Vec::new();
        let _ = soon("the end", here.read_to_end(&mut all)).await;
    }
}
