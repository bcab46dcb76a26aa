//! Proxies as they answer, and as they should not.

use proptest::prelude::*;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;
use crate::net::proxy::credentials::Credentials;

/// What a proxy answers to each request; then it closes, or waits if the last answer is `...`.
async fn asked(
    credentials: Option<&str>,
    answers: &[&[u8]],
) -> (Result<Vec<Answer>, ProxyError>, Vec<String>) {
    let (mut ours, mut theirs) = tokio::io::duplex(64 << 10);
    let credentials = credentials.map(|text| Credentials::parse(text).unwrap());
    let mut login = Login::new(credentials, None);
    let proxy = async {
        let mut requests = Vec::new();
        for answer in answers {
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                match theirs.read_u8().await {
                    Ok(byte) => request.push(byte),
                    Err(_) => return requests,
                }
            }
            requests.push(String::from_utf8(request).unwrap());
            theirs.write_all(answer).await.unwrap();
        }
        theirs.shutdown().await.unwrap();
        requests
    };
    let client = async {
        let mut results = Vec::new();
        for _ in answers {
            let answer = ask(&mut ours, "hub.example:443", &mut login).await?;
            let is_over = !matches!(answer, Answer::Again { is_reusable: true });
            results.push(answer);
            if is_over {
                break;
            }
        }
        drop(ours);
        Ok(results)
    };
    tokio::join!(client, proxy)
}

async fn refused(answer: &[u8]) -> ProxyError {
    asked(Some("ada:secret"), &[answer]).await.0.unwrap_err()
}

#[tokio::test]
async fn the_request_names_the_target_and_what_follows_the_answer_is_the_targets() {
    for answer in [
        &b"HTTP/1.1 200 Connection established\r\n\r\nearly"[..],
        b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nearly",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 x\r\nTransfer-Encoding: chunked\r\n\r\nearly",
    ] {
        let (answers, requests) = asked(None, &[answer]).await;
        let Ok([Answer::Open(early)]) = answers.as_deref() else {
            panic!("{answers:?}");
        };
        assert_eq!(&early[..], b"early");
        assert_eq!(
            requests,
            [format!(
                "CONNECT hub.example:443 HTTP/1.1\r\nHost: hub.example:443\r\nUser-Agent: {USER_AGENT}\r\nProxy-Connection: keep-alive\r\n\r\n"
            )]
        );
    }
}

#[tokio::test]
async fn the_password_follows_on_the_same_connection_if_that_is_kept() {
    let pages: [&[u8]; 3] = [
        b"Content-Length: 4\r\n\r\npage",
        b"Transfer-Encoding: chunked\r\n\r\n3;x=y\r\npag\r\n1\r\ne\r\n0\r\n\r\n",
        b"Content-Length: 0\r\n\r\n",
    ];
    for page in pages {
        let head = b"HTTP/1.1 407 Who?\r\nProxy-Authenticate: Basic realm=\"x\"\r\n";
        let first = [&head[..], page].concat();
        let answers: [&[u8]; 2] = [&first, b"HTTP/1.1 200 OK\r\n\r\n"];
        let (answers, requests) = asked(Some("ada:secret"), &answers).await;
        assert!(
            matches!(
                answers.as_deref(),
                Ok([Answer::Again { is_reusable: true }, Answer::Open(_)])
            ),
            "{answers:?}"
        );
        let [first, second] = requests.as_slice() else {
            panic!("{requests:?}");
        };
        assert!(!first.contains("Authorization"), "{first}");
        assert!(
            second.contains("\r\nProxy-Authorization: Basic YWRhOnNlY3JldA==\r\n"),
            "{second}"
        );
    }
}

#[tokio::test]
async fn a_connection_that_is_not_kept_is_not_used_again() {
    for head in [
        "HTTP/1.0 407 x\r\nContent-Length: 0\r\n",
        "HTTP/1.1 407 x\r\nContent-Length: 0\r\nConnection: foo, Close\r\n",
        "HTTP/1.1 407 x\r\n",
        "HTTP/1.1 407 x\r\nContent-Length: 100000000000\r\n",
        "HTTP/1.1 407 x\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n",
    ] {
        let answer = head.replacen("407 x", "407 x\r\nProxy-Authenticate: Basic", 1) + "\r\n";
        let (answers, _) = asked(Some("ada:secret"), &[answer.as_bytes()]).await;
        assert!(
            matches!(
                answers.as_deref(),
                Ok([Answer::Again { is_reusable: false }])
            ),
            "{head} {answers:?}"
        );
    }
    let kept = b"HTTP/1.0 407 x\r\nProxy-Authenticate: Basic\r\nProxy-Connection: Keep-Alive\r\nContent-Length: 0\r\n\r\n";
    let (answers, _) = asked(Some("ada:secret"), &[kept]).await;
    assert!(matches!(
        answers.as_deref(),
        Ok([Answer::Again { is_reusable: true }])
    ));
}

#[tokio::test]
async fn refusals_are_told_apart() {
    let refusal =
        async |status: &str| refused(format!("HTTP/1.1 {status}\r\n\r\n").as_bytes()).await;
    use ProxyError as E;
    assert!(matches!(
        refusal("403 Forbidden").await,
        E::Forbidden { .. }
    ));
    assert!(matches!(
        refusal("405 Not Allowed").await,
        E::Forbidden { .. }
    ));
    for status in ["404 x", "502 x", "503 x", "504 x"] {
        assert!(matches!(refusal(status).await, E::NoWay { .. }), "{status}");
    }
    for status in ["301 x", "400 x", "401 x", "500 x"] {
        assert!(
            matches!(refusal(status).await, E::Status { .. }),
            "{status}"
        );
    }
    assert!(matches!(refusal("407 x").await, E::Schemes { .. }));
    let (answer, _) = asked(None, &[b"HTTP/1.1 407 x\r\n\r\n"]).await;
    assert!(matches!(answer.unwrap_err(), E::Login { .. }));
}

#[tokio::test]
async fn hostile_answers_end_in_errors() {
    assert!(matches!(refused(b"").await, ProxyError::Lost(_)));
    assert!(matches!(
        refused(b"HTTP/1.1 200 OK\r\nA: b").await,
        ProxyError::Lost(_)
    ));
    for garbage in [
        &b"SSH-2.0-OpenSSH_9.2\r\n"[..],
        b"\x15\x03\x01\x00\x02\x02\x46 garbage garbage\r\n\r\n",
        b"HTTP/1.1 099 x\r\n\r\n",
        b"HTTP/2.0 200 OK\r\n\r\n",
        b"HTTP/1.1 407 x\r\nProxy-Authenticate: Basic\r\nContent-Length: x\r\n\r\n",
        b"HTTP/1.1 407 x\r\nProxy-Authenticate: Basic\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    ] {
        let error = refused(garbage).await;
        assert!(
            matches!(error, ProxyError::Malformed(_)),
            "{garbage:?}: {error:?}"
        );
    }
    let long = format!(
        "HTTP/1.1 200 OK\r\nA: {}",
        "b".repeat(2 * limits::HTTP_HEAD)
    );
    assert!(matches!(
        refused(long.as_bytes()).await,
        ProxyError::TooLong
    ));
    let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "A: b\r\n".repeat(HEADERS + 1));
    assert!(matches!(
        refused(many.as_bytes()).await,
        ProxyError::TooLong
    ));
}

#[test]
fn no_name_can_add_to_the_request() {
    let login = Login::new(None, None);
    for target in ["a\r\nb:1", "a b:1", "user@a:1", "", "a/b:1"] {
        assert!(
            matches!(request(target, &login), Err(ProxyError::Name)),
            "{target:?}"
        );
    }
    assert!(request("[::1]:443", &login).is_ok());
}

proptest! {
    #[test]
    fn no_answer_panics(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let mut read = BytesMut::from(&bytes[..]);
        if let Ok(Some(head)) = Head::parse(&mut read) {
            let _ = (head.keeps_alive(), head.body());
        }
    }

    #[test]
    fn an_answer_may_come_in_pieces(cut in 1usize..60) {
        let answer = b"HTTP/1.1 200 Connection established\r\nVia: x\r\n\r\nearly bytes";
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let early = runtime.block_on(async {
            let (mut ours, mut theirs) = tokio::io::duplex(1 << 10);
            let mut login = Login::new(None, None);
            let proxy = async {
                let mut request = [0; 512];
                let _ = theirs.read(&mut request).await.unwrap();
                for piece in answer.chunks(cut) {
                    theirs.write_all(piece).await.unwrap();
                    tokio::task::yield_now().await;
                }
                theirs
            };
            let client = async {
                let Answer::Open(mut early) = ask(&mut ours, "h:1", &mut login).await.unwrap() else {
                    panic!("it is open");
                };
                while !early.ends_with(b"bytes") {
                    ours.read_buf(&mut early).await.unwrap();
                }
                early
            };
            tokio::join!(client, proxy).0
        });
        prop_assert_eq!(&early[..], b"early bytes");
    }
}
