//! How many files and sockets this process may have open. The default of many systems is far below
//! our limits, and a program whose descriptors are used up by peers cannot reach the hub again.

/// Descriptors that a program reserves for itself: its standard streams, listeners and database,
/// the runtime, and its connections to the hub, also while it reconnects.
const OWN: usize = 24;

/// Raises the limit to the maximum of this process. Call it at the start of a program; if it fails,
/// the limit stays.
pub fn raise() {
    #[cfg(unix)]
    {
        use rustix::process::{Resource, getrlimit, setrlimit};
        let mut limit = getrlimit(Resource::Nofile);
        if limit.current != limit.maximum {
            limit.current = limit.maximum;
            let _ = setrlimit(Resource::Nofile, limit);
        }
    }
}

/// The most that this process may have open, if there is a limit.
pub fn most() -> Option<u64> {
    limit()
}

/// How many connections are possible, at most `wanted` and at least 1. Each takes `each`
/// descriptors, and all together may use one in `share` of those that are not reserved.
pub fn room(wanted: usize, each: usize, share: usize) -> usize {
    within(limit(), wanted, each, share)
}

fn within(limit: Option<u64>, wanted: usize, each: usize, share: usize) -> usize {
    let Some(limit) = limit else { return wanted };
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    wanted
        .min(limit.saturating_sub(OWN) / share.max(1) / each.max(1))
        .max(1)
}

#[cfg(unix)]
fn limit() -> Option<u64> {
    rustix::process::getrlimit(rustix::process::Resource::Nofile).current
}

/// There sockets are not descriptors, and have no such limit.
#[cfg(not(unix))]
fn limit() -> Option<u64> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn some_descriptors_are_reserved() {
        assert_eq!(within(None, 512, 2, 1), 512);
        assert_eq!(within(Some(1_048_576), 512, 2, 1), 512);
        assert_eq!(within(Some(1024), 20_000, 2, 1), 500);
        assert_eq!(within(Some(64), 2_048, 1, 2), 20);
        assert_eq!(within(Some(8), 2_048, 2, 1), 1);
    }
}
