use std::future::poll_fn;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;

/// Small messages are returned at once; of a larger one only the beginning is read, until the
/// caller takes it.
#[tokio::test]
async fn with_little_appetite_large_messages_stay_in_the_network() {
    let (near, mut far) = tokio::io::duplex(1 << 20);
    let mut frames = Frames::new(near, Role::Client, 1 << 20, &[]);
    let large = vec![7; 60_000];
    let mut sent = vec![0x82, 3, 1, 2, 3, 0x82, 126];
    sent.extend(u16::try_from(large.len()).unwrap().to_be_bytes());
    sent.extend(&large);
    for _ in 0..3 {
        far.write_all(&sent).await.unwrap();
        let small = poll_fn(|cx| frames.poll_event_of(Appetite::Little, cx)).await;
        let expected = Data::binary(Bytes::from_static(&[1, 2, 3]));
        assert_eq!(small.unwrap(), Event::Data(expected));
        poll_fn(|cx| {
            assert!(frames.poll_event_of(Appetite::Little, cx).is_pending());
            Poll::Ready(())
        })
        .await;
        assert!(frames.is_full());
        assert!(frames.decoder.buffer().capacity() <= 2 * read::LITTLE);
        let all = poll_fn(|cx| frames.poll_event(cx)).await.unwrap();
        assert_eq!(all, Event::Data(Data::binary(large.clone().into())));
    }
    // A Close is small.
    far.write_all(&[0x88, 2, 3, 232]).await.unwrap();
    let close = poll_fn(|cx| frames.poll_event_of(Appetite::Little, cx)).await;
    assert!(matches!(close.unwrap(), Event::Close(close_frame) if close_frame.code == 1000));
}

/// Each bulk message is in a buffer of about its own size, which is reused when it was released.
#[tokio::test]
async fn a_message_keeps_no_more_memory_than_it_needs() {
    let (near, mut far) = tokio::io::duplex(16 << 10);
    let mut frames = Frames::new(near, Role::Client, 1 << 20, &[]);
    let message = vec![7; limits::STREAM_MESSAGE];
    let mut sent = vec![0x82, 127];
    sent.extend((message.len() as u64).to_be_bytes());
    sent.extend(&message);
    let sending = async {
        for _ in 0..20 {
            far.write_all(&sent).await.unwrap();
        }
    };
    let receiving = async {
        let mut places = std::collections::HashSet::new();
        for _ in 0..20 {
            match poll_fn(|cx| frames.poll_event(cx)).await.unwrap() {
                Event::Data(data) => {
                    assert_eq!(data.bytes, message);
                    places.insert(data.bytes.as_ptr() as usize);
                }
                other => panic!("{other:?}"),
            }
            assert!(frames.decoder.buffer().len() <= crate::header::LONGEST);
        }
        places.len()
    };
    let (places, ()) = tokio::join!(receiving, sending);
    assert!(places <= 4, "{places} buffers");
}

#[tokio::test]
async fn reading_alone_answers_a_ping_through_a_full_socket() {
    let (near, mut far) = tokio::io::duplex(8);
    let mut frames = Frames::new(near, Role::Server, 1000, &[]);
    let reading = async { while poll_fn(|cx| frames.poll_event(cx)).await.is_ok() {} };
    let asking = async {
        let mut ping = vec![0x89, 0x80 | 100, 0, 0, 0, 0];
        ping.extend([7; 100]);
        far.write_all(&ping).await.unwrap();
        let mut pong = [0; 102];
        far.read_exact(&mut pong).await.unwrap();
        assert_eq!(pong[..2], [0x8a, 100]);
        assert_eq!(pong[2..], [7; 100]);
        drop(far);
    };
    let both = async { tokio::join!(reading, asking) };
    tokio::time::timeout(Duration::from_secs(10), both)
        .await
        .expect("no pong arrived");
}
