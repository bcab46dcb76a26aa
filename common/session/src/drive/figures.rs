//! Figures of a session for those who watch it: read at any time, and cheap to keep.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};

use tokio::time::Instant;

use super::traffic::Traffic;

/// What has happened in a session so far.
#[derive(Debug)]
pub struct Figures {
    began: Instant,
    traffic: Traffic,
    attached: AtomicU64,
    trouble: Mutex<String>,
}

impl Figures {
    pub(super) fn new() -> Self {
        Self {
            began: Instant::now(),
            traffic: Traffic::default(),
            attached: AtomicU64::new(0),
            trouble: Mutex::default(),
        }
    }

    /// When it began.
    pub fn began(&self) -> Instant {
        self.began
    }

    /// The bytes of all its connections.
    pub fn traffic(&self) -> &Traffic {
        &self.traffic
    }

    /// How often it was carried by one more stream after the first.
    pub fn resumes(&self) -> u64 {
        self.attached.load(Relaxed).saturating_sub(1)
    }

    /// One more stream carries it: what was wrong is over.
    pub(super) fn attached(&self) {
        self.attached.fetch_add(1, Relaxed);
        self.set_trouble("");
    }

    /// Keeps what is in the way of its being carried again.
    pub fn set_trouble(&self, text: &str) {
        let mut trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        text.clone_into(&mut trouble);
    }

    /// What is in the way of its being carried again; may be empty.
    pub fn trouble(&self) -> String {
        let trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        trouble.clone()
    }
}
