//! Frames by hand: one read buffer, payload passed on as it arrives, no message ever
//! assembled. Only what a measurement needs: binary frames, no control frames.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::ops::Range;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead as _, AsyncWriteExt as _, ReadBuf};

use crate::socket::{BATCH, Socket, Stream, ended, write_slices};

/// Longest frame header, and the room kept in front of the read buffer for one.
const HEAD: usize = 14;
/// Slices in one vectored write.
const SLICES: usize = 64;

/// How a relay writes the frames it passes on.
pub const COPY: u8 = 0;
pub const VECTORED: u8 = 1;
pub const COMPACT: u8 = 2;

pub struct Hand<const READ: usize, const WRITE: u8> {
    stream: Stream,
    client: bool,
    input: Box<[u8]>,
    start: usize,
    end: usize,
    frame: Incoming,
    output: Vec<u8>,
    keys: u64,
}

/// The frame that is arriving.
#[derive(Default)]
struct Incoming {
    left: usize,
    mask: [u8; 4],
    first: bool,
    fin: bool,
}

/// Where a piece of payload lies in the read buffer, and its place in its message.
#[derive(Clone)]
pub struct Place {
    range: Range<usize>,
    first: bool,
    last: bool,
}

pub struct Piece<'a>(&'a [u8], Place);

impl AsRef<[u8]> for Piece<'_> {
    fn as_ref(&self) -> &[u8] {
        self.0
    }
}

/// XORs `mask` over `bytes`, 32 bytes a step, which the compiler vectorises.
pub fn apply_mask(bytes: &mut [u8], mask: [u8; 4]) {
    let mut wide = [0; 32];
    for part in wide.chunks_exact_mut(4) {
        part.copy_from_slice(&mask);
    }
    let mut chunks = bytes.chunks_exact_mut(32);
    for chunk in &mut chunks {
        for (byte, key) in chunk.iter_mut().zip(wide) {
            *byte ^= key;
        }
    }
    for (byte, key) in chunks.into_remainder().iter_mut().zip(wide) {
        *byte ^= key;
    }
}

/// A whole frame.
pub fn frame(payload: &[u8], mask: Option<[u8; 4]>) -> Vec<u8> {
    let (head, used) = header(true, true, payload.len(), mask);
    let mut frame = [&head[..used], payload].concat();
    apply_mask(&mut frame[used..], mask.unwrap_or_default());
    frame
}

/// Header of a frame, and its length.
fn header(first: bool, fin: bool, len: usize, mask: Option<[u8; 4]>) -> ([u8; HEAD], usize) {
    let mut head = [0; HEAD];
    head[0] = u8::from(fin) << 7 | if first { 2 } else { 0 };
    let mut used = match len {
        0..=125 => {
            head[1] = len as u8;
            2
        }
        126..=0xFFFF => {
            head[1] = 126;
            head[2..4].copy_from_slice(&(len as u16).to_be_bytes());
            4
        }
        _ => {
            head[1] = 127;
            head[2..10].copy_from_slice(&(len as u64).to_be_bytes());
            10
        }
    };
    if let Some(mask) = mask {
        head[1] |= 0x80;
        head[used..used + 4].copy_from_slice(&mask);
        used += 4;
    }
    (head, used)
}

impl<const READ: usize, const WRITE: u8> Hand<READ, WRITE> {
    /// Takes the header at the front, if it is complete.
    fn parse(&mut self) -> io::Result<bool> {
        let bytes = &self.input[self.start..self.end];
        let &[flags, second, ..] = bytes else {
            return Ok(false);
        };
        if flags & 0x70 != 0 || flags & 0x0F > 2 || (second & 0x80 != 0) == self.client {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let size = match second & 0x7F {
            126 => 4,
            127 => 10,
            _ => 2,
        };
        let total = if self.client { size } else { size + 4 };
        if bytes.len() < total {
            return Ok(false);
        }
        let left = match size {
            2 => u64::from(second & 0x7F),
            _ => bytes[2..size]
                .iter()
                .fold(0, |len, byte| len << 8 | u64::from(*byte)),
        };
        let mut mask = [0; 4];
        mask[..total - size].copy_from_slice(&bytes[size..total]);
        self.frame = Incoming {
            left: usize::try_from(left).map_err(io::Error::other)?,
            mask,
            first: flags & 0x0F != 0,
            fin: flags & 0x80 != 0,
        };
        self.start += total;
        Ok(true)
    }

    /// The next piece of payload at hand, unmasked.
    fn take(&mut self) -> io::Result<Option<Place>> {
        while self.frame.left == 0 {
            if !self.parse()? {
                return Ok(None);
            }
        }
        let len = self.frame.left.min(self.end - self.start);
        if len == 0 {
            return Ok(None);
        }
        let range = self.start..self.start + len;
        if !self.client {
            apply_mask(&mut self.input[range.clone()], self.frame.mask);
            self.frame.mask.rotate_left(len % 4);
        }
        self.start = range.end;
        self.frame.left -= len;
        let first = std::mem::take(&mut self.frame.first);
        let last = self.frame.fin && self.frame.left == 0;
        Ok(Some(Place { range, first, last }))
    }

    /// Reads all that is at hand, at least something. What is left in the buffer is a
    /// part of a header.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let rest = self.end - self.start;
        self.input.copy_within(self.start..self.end, HEAD);
        (self.start, self.end) = (HEAD, HEAD + rest);
        while self.end < self.input.len() {
            let mut buffer = ReadBuf::new(&mut self.input[self.end..]);
            match Pin::new(&mut self.stream).poll_read(cx, &mut buffer) {
                Poll::Ready(Ok(())) if buffer.filled().is_empty() => {
                    return Poll::Ready(Err(ended()));
                }
                Poll::Ready(Ok(())) => self.end += buffer.filled().len(),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                Poll::Pending if self.end == HEAD + rest => return Poll::Pending,
                Poll::Pending => break,
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Adds a frame to the output.
    async fn push(&mut self, payload: &[u8], first: bool, fin: bool) -> io::Result<()> {
        if self.output.len() + HEAD + payload.len() > BATCH + HEAD {
            self.write().await?;
        }
        let mask = self.client.then(|| {
            // A fresh key per frame; a product takes it from a better generator.
            self.keys = self.keys.wrapping_mul(6364136223846793005).wrapping_add(1);
            ((self.keys >> 32) as u32).to_ne_bytes()
        });
        let (head, used) = header(first, fin, payload.len(), mask);
        self.output.extend_from_slice(&head[..used]);
        let at = self.output.len();
        self.output.extend_from_slice(payload);
        if let Some(mask) = mask {
            apply_mask(&mut self.output[at..], mask);
        }
        Ok(())
    }

    async fn write(&mut self) -> io::Result<()> {
        self.stream.write_all(&self.output).await?;
        self.output.clear();
        Ok(())
    }

    /// Writes new headers before the pieces at hand, where the longer old ones were, and
    /// sends them from the read buffer.
    async fn forward_vectored(&mut self, to: &mut Self) -> io::Result<bool> {
        let mut frames: [Range<usize>; SLICES] = std::array::from_fn(|_| 0..0);
        let mut count = 0;
        while count < SLICES
            && let Some(place) = self.take()?
        {
            let (head, used) = header(place.first, place.last, place.range.len(), None);
            let at = place.range.start - used;
            self.input[at..place.range.start].copy_from_slice(&head[..used]);
            frames[count] = at..place.range.end;
            count += 1;
        }
        let mut slices = [IoSlice::new(&[]); SLICES];
        for (slice, frame) in slices.iter_mut().zip(&frames[..count]) {
            *slice = IoSlice::new(&self.input[frame.clone()]);
        }
        write_slices(&mut to.stream, &mut slices[..count]).await?;
        Ok(count > 0)
    }

    /// The same, but the frames are moved together first and written as one.
    async fn forward_compact(&mut self, to: &mut Self) -> io::Result<()> {
        let mut output: Option<Range<usize>> = None;
        while let Some(Place { range, first, last }) = self.take()? {
            let (head, used) = header(first, last, range.len(), None);
            let start = range.start - used;
            let done = output.get_or_insert(start..start);
            let payload = done.end + used;
            self.input[done.end..payload].copy_from_slice(&head[..used]);
            done.end = payload + range.len();
            self.input.copy_within(range, payload);
        }
        match output {
            Some(output) => to.stream.write_all(&self.input[output]).await,
            None => Ok(()),
        }
    }
}

impl<const READ: usize, const WRITE: u8> Socket for Hand<READ, WRITE> {
    type Piece<'a> = Piece<'a>;

    async fn new(stream: Stream, client: bool) -> Self {
        Self {
            stream,
            client,
            input: vec![0; HEAD + READ].into(),
            start: HEAD,
            end: HEAD,
            frame: Incoming::default(),
            output: Vec::with_capacity(BATCH + HEAD),
            keys: 7,
        }
    }

    async fn receive(&mut self) -> io::Result<Piece<'_>> {
        loop {
            if let Some(place) = self.take()? {
                return Ok(Piece(&self.input[place.range.clone()], place));
            }
            poll_fn(|cx| self.poll_fill(cx)).await?;
        }
    }

    async fn pass_on(&mut self, piece: Self::Piece<'_>) -> io::Result<()> {
        self.push(piece.0, piece.1.first, piece.1.last).await
    }

    async fn send(&mut self, payload: &[u8]) -> io::Result<()> {
        self.push(payload, true, true).await
    }

    async fn flush(&mut self) -> io::Result<()> {
        self.write().await?;
        self.stream.flush().await
    }

    async fn relay(mut from: Self, mut to: Self) -> io::Result<()> {
        loop {
            match WRITE {
                VECTORED => while from.forward_vectored(&mut to).await? {},
                COMPACT => from.forward_compact(&mut to).await?,
                _ => {
                    while let Some(place) = from.take()? {
                        let piece = &from.input[place.range.clone()];
                        to.push(piece, place.first, place.last).await?;
                    }
                    to.write().await?;
                }
            }
            to.stream.flush().await?;
            poll_fn(|cx| from.poll_fill(cx)).await?;
        }
    }
}

/// No WebSocket at all: what TLS, TCP and the copies cost.
pub struct Bare<const READ: usize> {
    stream: Stream,
    input: Vec<u8>,
    used: usize,
}

impl<const READ: usize> Bare<READ> {
    async fn read(&mut self) -> io::Result<()> {
        self.used = 0;
        poll_fn(|cx| {
            while self.used < READ {
                let mut buffer = ReadBuf::new(&mut self.input[self.used..]);
                match Pin::new(&mut self.stream).poll_read(cx, &mut buffer) {
                    Poll::Ready(Ok(())) if buffer.filled().is_empty() => {
                        return Poll::Ready(Err(ended()));
                    }
                    Poll::Ready(Ok(())) => self.used += buffer.filled().len(),
                    Poll::Pending if self.used > 0 => break,
                    other => return other,
                }
            }
            Poll::Ready(Ok(()))
        })
        .await
    }
}

impl<const READ: usize> Socket for Bare<READ> {
    type Piece<'a> = &'a [u8];

    async fn new(stream: Stream, _client: bool) -> Self {
        Self {
            stream,
            input: vec![0; READ],
            used: 0,
        }
    }

    async fn receive(&mut self) -> io::Result<&[u8]> {
        self.read().await?;
        Ok(&self.input[..self.used])
    }

    async fn pass_on(&mut self, piece: Self::Piece<'_>) -> io::Result<()> {
        self.stream.write_all(piece).await
    }

    async fn send(&mut self, payload: &[u8]) -> io::Result<()> {
        if self.used + payload.len() > BATCH {
            self.write().await?;
        }
        self.input[self.used..self.used + payload.len()].copy_from_slice(payload);
        self.used += payload.len();
        Ok(())
    }

    async fn flush(&mut self) -> io::Result<()> {
        self.write().await?;
        self.stream.flush().await
    }

    async fn relay(mut from: Self, mut to: Self) -> io::Result<()> {
        loop {
            let piece = from.receive().await?;
            to.stream.write_all(piece).await?;
            to.stream.flush().await?;
        }
    }
}

impl<const READ: usize> Bare<READ> {
    async fn write(&mut self) -> io::Result<()> {
        let used = std::mem::take(&mut self.used);
        self.stream.write_all(&self.input[..used]).await
    }
}
