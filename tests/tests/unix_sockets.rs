//! Unix sockets at both ends: a forward of service-proxy, and a target of device-proxy.
#![cfg(unix)]

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use tests::{TestDevice, TestHub, TestService, soon, wait};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};

async fn rest(socket: &mut UnixStream) -> Vec<u8> {
    let mut all = Vec::new();
    soon("the end", socket.read_to_end(&mut all)).await.unwrap();
    all
}

async fn connected(path: &Path) -> UnixStream {
    soon("a connection", UnixStream::connect(path))
        .await
        .unwrap()
}

#[tokio::test]
async fn a_socket_here_leads_to_a_socket_there() {
    let folder = tempfile::tempdir().unwrap();
    let (near, far) = (folder.path().join("near"), folder.path().join("far"));
    let hub = TestHub::start().await;
    let connection = hub.create("MyDevice").await;
    let target = format!("docker=unix:{}", far.display());
    let _device = TestDevice::start(&hub, &connection, &["--target", &target]).await;
    let listener = UnixListener::bind(&far).unwrap();
    // Left behind by another program.
    drop(UnixListener::bind(&near).unwrap());
    let forward = format!("{}:docker", near.display());
    for mode in ["always", "never"] {
        let words = ["--session", mode, "MyDevice", &forward];
        let service = TestService::listen(&hub, &words).await;
        let data = std::fs::metadata(&near).unwrap();
        assert_eq!(data.permissions().mode() & 0o777, 0o600);
        let mut here = connected(&near).await;
        here.write_all(b"a question").await.unwrap();
        let (mut there, _) = soon("the target's connection", listener.accept())
            .await
            .unwrap();
        let mut asked = [0; 10];
        soon("the question", there.read_exact(&mut asked))
            .await
            .unwrap();
        assert_eq!(&asked, b"a question", "{mode}");
        // In a session the answer may come after the end of the question.
        if mode == "always" {
            here.shutdown().await.unwrap();
            assert_eq!(rest(&mut there).await, b"");
        }
        let answer = vec![0x5a; 1_000_000];
        let sending = async {
            there.write_all(&answer).await.unwrap();
            drop(there);
        };
        let (received, ()) = tokio::join!(rest(&mut here), sending);
        assert!(received == answer, "{mode}: {} bytes", received.len());
        service.shut_down().await;
        wait("the socket's file to be gone", || !near.exists()).await;
    }
}

#[tokio::test]
async fn a_socket_that_is_not_there_is_a_refusal() {
    let folder = tempfile::tempdir().unwrap();
    let hub = TestHub::start().await;
    let connection = hub.create("MyDevice").await;
    let target = format!("docker=unix:{}", folder.path().join("none").display());
    let _device = TestDevice::start(&hub, &connection, &["--target", &target]).await;
    let near = folder.path().join("near");
    let forward = format!("unix:{}:docker", near.display());
    for mode in ["always", "never"] {
        let words = ["--session", mode, "MyDevice", &forward];
        let service = TestService::listen(&hub, &words).await;
        let mut here = connected(&near).await;
        let mut all = Vec::new();
        let _ = soon("the end", here.read_to_end(&mut all)).await;
        assert!(all.is_empty(), "{mode}");
        service.shut_down().await;
    }
}
