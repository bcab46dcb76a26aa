//! When a token is renewed that was issued by name.

use std::path::PathBuf;
use std::time::Duration;

use common::clock::unix_now;

/// The part of a token's life after which it is renewed.
const USED: f64 = 2.0 / 3.0;
/// A token that works for less is too old for a request, which may take its time.
const LEAST: u64 = 20;

/// A token that was issued by name, and can be renewed.
#[derive(Debug, Clone)]
pub(super) struct IssuedToken {
    /// Tells it from all others.
    pub(super) id: String,
    /// The connection string's file.
    pub(super) file: PathBuf,
    /// Unix seconds.
    pub(super) expires: u64,
    /// Unix seconds.
    pub(super) renew_at: u64,
}

impl IssuedToken {
    pub(super) fn new(id: String, file: PathBuf, expires: u64, since: u64) -> Self {
        let life = expires.saturating_sub(since);
        let used = Duration::from_secs(life).mul_f64(USED).as_secs();
        Self {
            id,
            file,
            expires,
            renew_at: since.saturating_add(used),
        }
    }

    /// Whether it is too old for a request.
    pub(super) fn is_old(&self) -> bool {
        unix_now().saturating_add(LEAST) >= self.expires
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_renewed_before_it_is_too_old() {
        let issued =
            |expires, since| IssuedToken::new(String::new(), PathBuf::new(), expires, since);
        assert_eq!(issued(4_000, 400).renew_at, 2_800);
        // A clock that was set back, or a token that is over.
        assert_eq!(issued(100, 400).renew_at, 400);
        let now = unix_now();
        assert!(issued(now + 5, now).is_old() && !issued(now + 60, now).is_old());
    }
}
