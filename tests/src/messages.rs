//! Single WebSocket messages on a leg.

use std::future::poll_fn;

use bytes::Bytes;
use common::websocket::{Data, Incoming, WebSocket};
use tokio::io::{AsyncRead, AsyncWrite};

use crate::soon;

/// Sends a binary message.
pub async fn send<S: AsyncRead + AsyncWrite + Unpin>(
    leg: &mut WebSocket<S>,
    bytes: impl Into<Bytes>,
) {
    poll_fn(|cx| leg.poll_ready(cx)).await.unwrap();
    leg.start_send(Data::binary(bytes.into())).unwrap();
    poll_fn(|cx| leg.poll_flush(cx)).await.unwrap();
}

/// Receives data, which need not be a whole message.
pub async fn receive<S: AsyncRead + AsyncWrite + Unpin>(leg: &mut WebSocket<S>) -> Bytes {
    match soon("a message", poll_fn(|cx| leg.poll_incoming(cx)))
        .await
        .unwrap()
    {
        Incoming::Data(data) => data.into_bytes(),
        other => panic!("{other:?} instead of a message"),
    }
}
