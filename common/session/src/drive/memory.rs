//! How much memory the sessions of a program may hold on this machine.

pub use crate::proto::memory::Memory;

/// Bounds of the default.
const SMALLEST: u64 = 64 << 20;
const LARGEST: u64 = 1 << 30;
/// Between them the default is one eighth of the machine's memory.
const PART: u64 = 8;

/// How many bytes sessions may hold on this machine by default: an eighth of its memory, 64 MiB at
/// least and 1 GiB at most. If the size of the memory is unknown, 256 MiB.
pub fn default_limit() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    total(&text).map_or(256 << 20, |total| (total / PART).clamp(SMALLEST, LARGEST))
}

/// How many bytes sessions may hold when `mib` is configured, or nothing.
pub fn limit(mib: Option<u32>) -> u64 {
    mib.map_or_else(default_limit, |mib| u64::from(mib) << 20)
}

/// The machine's memory in bytes, from the contents of `/proc/meminfo`.
fn total(meminfo: &str) -> Option<u64> {
    let line = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_depends_on_the_machine() {
        assert_eq!(
            total("MemTotal:        8039936 kB\nMemFree: 1 kB\n"),
            Some(8039936 << 10)
        );
        assert_eq!(total("MemFree: 1 kB"), None);
        assert!((SMALLEST..=LARGEST).contains(&default_limit()));
    }
}
