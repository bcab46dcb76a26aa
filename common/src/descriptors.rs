//! How many files and sockets this process may have open. A system's default is far less than our
//! limits promise, and a program that gives the last descriptor to a stranger cannot reach the hub
//! again.

/// What a program keeps for itself: its standard streams, listeners and database, the runtime, and
/// above all its connections to the hub, also while they are being made anew.
const OWN: usize = 24;

/// Raises the limit to the most that this process may have. For the start of a program; where it
/// does not work, the limit stays.
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

/// For how many connections of at most `wanted` there is room, if each takes `each` descriptors
/// and all together a `share` (2: half) of what the program does not need for itself. At least 1.
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

/// Sockets are no descriptors there, and have no limit of their kind.
#[cfg(not(unix))]
fn limit() -> Option<u64> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn something_is_kept_back() {
        assert_eq!(within(None, 512, 2, 1), 512);
        assert_eq!(within(Some(1_048_576), 512, 2, 1), 512);
        assert_eq!(within(Some(1024), 20_000, 2, 1), 500);
        assert_eq!(within(Some(64), 2_048, 1, 2), 20);
        assert_eq!(within(Some(8), 2_048, 2, 1), 1);
    }
}
