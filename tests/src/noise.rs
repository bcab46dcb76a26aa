//! Pseudo-random bytes that both ends can generate from a seed, and their hash.

use aws_lc_rs::digest::{Context, SHA256};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

/// A SHA-256 in hex digits.
pub type Hash = String;

fn hex(context: Context) -> Hash {
    let digest = context.finish();
    let digits = digest.as_ref().iter().map(|byte| format!("{byte:02x}"));
    digits.collect()
}

/// Sends so many bytes of noise and then the end; returns their hash.
pub async fn send(to: &mut (impl AsyncWrite + Unpin), seed: u64, bytes: u64) -> Hash {
    let mut chance = fastrand::Rng::with_seed(seed);
    let mut context = Context::new(&SHA256);
    let mut piece = vec![0; 64 << 10];
    let mut left = bytes;
    while left > 0 {
        let size = piece.len().min(usize::try_from(left).unwrap());
        let piece = &mut piece[..size];
        chance.fill(piece);
        context.update(piece);
        to.write_all(piece).await.unwrap();
        left -= size as u64;
    }
    to.shutdown().await.unwrap();
    hex(context)
}

/// Reads to the end: how many bytes, and their hash.
pub async fn receive(from: &mut (impl AsyncRead + Unpin)) -> (u64, Hash) {
    let mut context = Context::new(&SHA256);
    let mut piece = vec![0; 64 << 10];
    let mut bytes = 0;
    loop {
        let count = from.read(&mut piece).await.unwrap();
        if count == 0 {
            return (bytes, hex(context));
        }
        context.update(&piece[..count]);
        bytes += count as u64;
    }
}
