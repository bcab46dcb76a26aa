//! What the sessions of a program may hold on this machine.

pub use crate::proto::memory::Memory;

/// Bounds of the default; between them it is this part of the machine's memory.
const SMALLEST: u64 = 64 << 20;
const LARGEST: u64 = 1 << 30;
const PART: u64 = 8;

/// What sessions may hold on this machine, in bytes, unless configured otherwise: an eighth of its
/// memory, 64 MiB at least and 1 GiB at most. Where the system does not say how much there
/// is, 256 MiB.
pub fn default_limit() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    total(&text).map_or(256 << 20, |total| (total / PART).clamp(SMALLEST, LARGEST))
}

/// What sessions may hold, in bytes, when it is configured in MiB, or not at all.
pub fn limit(mib: Option<u32>) -> u64 {
    mib.map_or_else(default_limit, |mib| u64::from(mib) << 20)
}

/// The machine's memory as Linux writes it.
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
    fn the_default_is_the_machine_s() {
        assert_eq!(
            total("MemTotal:        8039936 kB\nMemFree: 1 kB\n"),
            Some(8039936 << 10)
        );
        assert_eq!(total("MemFree: 1 kB"), None);
        assert!((SMALLEST..=LARGEST).contains(&default_limit()));
    }
}
