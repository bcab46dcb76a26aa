//! The head of a connection's first request, read before the HTTP library gets the
//! connection: that one has 16 KiB ready for each, and a stranger may never send a request.

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

/// Largest head of a first request. SDKs' have some hundred bytes, and a stranger may have a
/// hub hold one that is not whole.
const FIRST_HEAD: usize = 6 << 10;
/// Read at once.
const READ: usize = 512;
/// The answer to a larger one.
const TOO_LARGE: &[u8] = b"HTTP/1.1 431 Request Header Fields Too Large\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";

/// Reads until the head is whole, or not HTTP, which is the library's to answer. `None` when
/// the connection ends before, and when the head is too large, which is answered. May be
/// dropped with the connection only.
pub async fn read_head<S: AsyncRead + AsyncWrite + Unpin>(stream: &mut S) -> Option<Vec<u8>> {
    let mut head = Vec::new();
    loop {
        let before = head.len();
        head.reserve_exact(READ);
        if stream.read_buf(&mut head).await.ok()? == 0 {
            return None;
        }
        // The end of a head may lie across two reads.
        let new = head.get(before.saturating_sub(3)..).unwrap_or_default();
        if has_end(new) || !is_text(new) {
            return Some(head);
        }
        if head.len() >= FIRST_HEAD {
            let _ = stream.write_all(TOO_LARGE).await;
            let _ = stream.shutdown().await;
            return None;
        }
    }
}

/// Whether an empty line is there; some write line feeds alone.
fn has_end(bytes: &[u8]) -> bool {
    bytes.windows(2).any(|two| two == b"\n\n") || bytes.windows(3).any(|three| three == b"\n\r\n")
}

fn is_text(bytes: &[u8]) -> bool {
    let is_break = |byte| matches!(byte, b'\r' | b'\n' | b'\t');
    !bytes
        .iter()
        .any(|&byte| byte.is_ascii_control() && !is_break(byte))
}

#[cfg(test)]
mod tests {
    use tokio::io::duplex;

    use super::*;

    #[tokio::test]
    async fn a_head_is_read_to_its_end_and_not_further_than_it_may_go() {
        for (sent, least) in [
            (&b"GET / HTTP/1.1\r\nHost: h\r\n\r\n"[..], 27),
            (&b"GET / HTTP/1.0\n\n"[..], 16),
            // Not HTTP: no more of it will come.
            (b"AMQP\0\x01\0\0", 8),
        ] {
            for piece in [1, 7, sent.len()] {
                let (mut near, mut far) = duplex(64);
                let writing = tokio::spawn({
                    let sent = sent.to_vec();
                    async move {
                        for piece in sent.chunks(piece) {
                            if far.write_all(piece).await.is_err() {
                                return None;
                            }
                        }
                        Some(far)
                    }
                });
                let head = read_head(&mut near).await.unwrap();
                assert!(sent.starts_with(&head), "{piece}");
                assert!(head.len() >= least || !is_text(&head), "{piece}");
                drop(near);
                let _ = writing.await;
            }
        }
        let (mut near, mut far) = duplex(64 << 10);
        far.write_all(&[b'x'; 2 * FIRST_HEAD]).await.unwrap();
        assert!(read_head(&mut near).await.is_none());
        drop(near);
        let mut answer = String::new();
        far.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
        let (mut near, far) = duplex(64);
        drop(far);
        assert!(read_head(&mut near).await.is_none());
    }
}
