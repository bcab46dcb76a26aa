//! The descriptors and the memory of this process, to check that they do not grow. They belong to
//! the whole process, so a test that measures them has a test binary of its own.

/// Number of open descriptors; zero where the system does not report it.
pub fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count)
}

/// Raises this process's soft limit of descriptors to `count`, as far as the hard limit permits.
pub fn allow_descriptors(count: u64) {
    #[cfg(unix)]
    {
        use rustix::process::{Resource, getrlimit, setrlimit};
        let mut limit = getrlimit(Resource::Nofile);
        if limit.current.is_some_and(|now| now < count) {
            limit.current = Some(limit.maximum.map_or(count, |most| most.min(count)));
            setrlimit(Resource::Nofile, limit).unwrap();
        }
    }
    #[cfg(not(unix))]
    let _ = count;
}

/// Resident memory in bytes; zero where the system does not report it.
pub fn memory() -> u64 {
    resident("self")
}

/// Resident memory of another process in bytes; zero where the system does not report it.
pub fn memory_of(process: u32) -> u64 {
    resident(&process.to_string())
}

fn resident(process: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB"));
    kib.map_or(0, |kib| kib.trim().parse::<u64>().unwrap() << 10)
}

/// Number of live tasks in this runtime.
pub fn tasks() -> usize {
    tokio::runtime::Handle::current()
        .metrics()
        .num_alive_tasks()
}

/// MiB that the volume tests transfer: `VOLUME_MIB`, or `default` where that is not set. `--full`
/// sets it to 1024.
pub fn volume_mib(default: u64) -> u64 {
    let asked = std::env::var("VOLUME_MIB").ok();
    asked.map_or(default, |mib| mib.parse().unwrap())
}

/// Whether the tests run with the full volume.
pub fn is_full() -> bool {
    volume_mib(0) >= 1024
}
