//! Resources of the machine that a node may use.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Assumed bytes of memory if the system does not say.
const MEMORY_BYTES: u64 = 1 << 30;

/// Raises the limit of open files as far as this user may, and returns the limit.
pub(crate) fn files() -> usize {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    let now = match setrlimit(Resource::Nofile, raised) {
        Ok(()) => limit.maximum,
        Err(_) => limit.current,
    };
    now.map_or(usize::MAX, |n| usize::try_from(n).unwrap_or(usize::MAX))
}

/// Returns the bytes of memory of the machine, or of the process's control group if that is less.
pub(crate) fn memory() -> u64 {
    let machine = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let machine = machine.lines().find_map(|line| {
        let kib = line.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB")?;
        kib.parse::<u64>().ok()?.checked_mul(1 << 10)
    });
    let groups = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let group = groups.lines().find_map(|line| line.strip_prefix("0::"));
    let limit = group.and_then(|group| {
        let path = format!("/sys/fs/cgroup{}/memory.max", group.trim_end_matches('/'));
        std::fs::read_to_string(path).ok()?.trim().parse::<u64>().ok()
    });
    machine.into_iter().chain(limit).min().unwrap_or(MEMORY_BYTES)
}
