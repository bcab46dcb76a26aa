//! What devices have sent lately, for who looks: nothing is routed, and nothing is stored. It is in
//! memory, and gone with the hub.

mod ring;

use std::sync::{Arc, Mutex};

use bytes::Bytes;
use common::identity::{DeviceId, DeviceIdentity};
use common::locks::lock;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use ring::Ring;
pub use ring::Telemetry;

/// A place among the messages of one run of a hub.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TelemetryCursor {
    /// Tells the run from others.
    run: u64,
    /// Behind this message.
    sequence: u64,
}

impl TelemetryCursor {
    /// Reads one; `None` if it is none.
    pub fn parse(text: &str) -> Option<Self> {
        let (run, sequence) = text.split_once('-')?;
        Some(Self {
            run: u64::from_str_radix(run, 16).ok()?,
            sequence: sequence.parse().ok()?,
        })
    }

    /// Writes it.
    pub fn to_text(self) -> String {
        format!("{:016x}-{}", self.run, self.sequence)
    }
}

/// Some messages, and what has become of others.
#[derive(Debug)]
pub struct TelemetryPage {
    /// In their order.
    pub messages: Vec<Telemetry>,
    /// Where they go on.
    pub next: TelemetryCursor,
    /// Messages, of any device, that were there since the cursor and are no longer.
    pub lost: u64,
}

/// The latest telemetry of one hub process. Cheap to clone.
#[derive(Clone)]
pub struct RecentTelemetry {
    ring: Arc<Mutex<Ring>>,
    last: watch::Sender<u64>,
    run: u64,
}

impl Default for RecentTelemetry {
    fn default() -> Self {
        Self {
            ring: Arc::default(),
            last: watch::Sender::new(0),
            run: u64::from_be_bytes(common::random::bytes()),
        }
    }
}

impl RecentTelemetry {
    /// Adds a message that was sent now, Unix microseconds.
    pub fn push(&self, identity: &DeviceIdentity, properties: String, payload: Bytes, now: u64) {
        let mut ring = lock(&self.ring);
        ring.push(identity, properties, payload, now);
        self.last.send_replace(ring.last());
    }

    /// The messages behind a place, of one device and its modules or of all; from the oldest on
    /// without a place, or with one of another run of the hub. At most `limit`; when there are
    /// none, waits for the first until then. May be dropped.
    pub async fn read(
        &self,
        after: Option<TelemetryCursor>,
        device: Option<&DeviceId>,
        limit: usize,
        until: Instant,
    ) -> TelemetryPage {
        let mut last = self.last.subscribe();
        let mut after = after.filter(|cursor| cursor.run == self.run);
        let mut lost = 0;
        loop {
            last.mark_unchanged();
            let mut page = self.page(after, device, limit);
            lost += page.lost;
            page.lost = lost;
            if !page.messages.is_empty() || timeout_at(until, last.changed()).await.is_err() {
                return page;
            }
            // The messages of others are not looked at again.
            after = Some(page.next);
        }
    }

    fn page(
        &self,
        after: Option<TelemetryCursor>,
        device: Option<&DeviceId>,
        limit: usize,
    ) -> TelemetryPage {
        let ring = lock(&self.ring);
        let from = after.map_or(0, |cursor| cursor.sequence);
        let messages = ring.after(from, device, limit);
        // With a page that is not full all were looked at.
        let upto = match messages.last() {
            Some(last) if messages.len() >= limit => last.sequence,
            _ => ring.last().max(from),
        };
        TelemetryPage {
            lost: after.map_or(0, |_| ring.lost_between(from, upto.saturating_add(1))),
            messages,
            next: TelemetryCursor {
                run: self.run,
                sequence: upto,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_reads_waits_for_what_comes() {
        let recent = RecentTelemetry::default();
        let identity = |name| DeviceIdentity::of_device(DeviceId::parse(name).unwrap());
        let (a, b) = (identity("a"), identity("b"));
        let soon = || Instant::now() + Duration::from_secs(5);
        let first = recent.read(None, None, 10, soon()).await;
        assert!(first.messages.is_empty() && first.lost == 0);
        let push = |of: &DeviceIdentity| recent.push(of, String::new(), Bytes::new(), 1);
        let reading = recent.read(Some(first.next), Some(&a.device), 10, soon());
        let (page, ()) = tokio::join!(reading, async {
            push(&b);
            tokio::task::yield_now().await;
            push(&a);
        });
        assert_eq!(page.messages.len(), 1);
        let text = page.next.to_text();
        assert_eq!(TelemetryCursor::parse(&text), Some(page.next));
        for bad in ["", "x", "1", "-", "1-x", "zz-1"] {
            assert_eq!(TelemetryCursor::parse(bad), None, "{bad}");
        }
        // Page by page; what was pushed out meanwhile is counted.
        for _ in 0..110 {
            push(&a);
        }
        let page = recent.read(Some(page.next), None, 60, soon()).await;
        assert_eq!((page.messages.len(), page.lost), (60, 10));
        let page = recent.read(Some(page.next), None, 60, soon()).await;
        assert_eq!((page.messages.len(), page.lost), (40, 0));
        // Another run's place is none.
        let other = RecentTelemetry::default()
            .read(None, None, 1, Instant::now())
            .await;
        let page = recent
            .read(Some(other.next), Some(&b.device), 9, soon())
            .await;
        assert_eq!((page.messages.len(), page.lost), (1, 0));
    }
}
