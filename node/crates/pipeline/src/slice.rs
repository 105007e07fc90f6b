//! How long a thread may run before another that waits for its core gets it.
//!
//! A module that loops, traps or returns nonsense is stopped each time, but stopping it and making fresh instances keeps
//! a core busy, and on two cores that doubled the p99 of everybody else: who wakes up waits for the end of a slice of
//! three milliseconds. Linux 6.12 and later let a thread ask for a shorter one, without any privilege, and a thread with
//! a shorter slice need not wait for one with a longer (`sched_setattr(2)`, `sched_runtime`; EEVDF). So the node's threads
//! ask for short ones, and a pipeline whose module misbehaves loses its own until it behaves. It gets no less time in all,
//! so nothing starves and no lock is held for long by a thread that is not let run. Elsewhere this does nothing.

/// Slices that threads run with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Slice {
    /// For threads that somebody waits for. Threads that the calling one starts inherit it.
    Short,
    /// As the system has it.
    Default,
}

/// Longer than anything on the path of a batch takes.
const SHORT_NS: u64 = 500_000;

impl Slice {
    /// Asks for it on the calling thread. Best effort.
    pub fn ask(self) {
        let runtime_ns = match self {
            Self::Short => SHORT_NS,
            Self::Default => 0,
        };
        if let Err(error) = set(runtime_ns) {
            tracing::debug!(%error, "the thread keeps its slice");
        }
    }
}

#[cfg(target_os = "linux")]
fn set(runtime_ns: u64) -> std::io::Result<()> {
    /// `struct sched_attr` as of its first version, which every kernel with the call takes.
    #[repr(C)]
    #[derive(Default)]
    struct SchedAttr {
        size: u32,
        policy: u32,
        flags: u64,
        nice: i32,
        priority: u32,
        runtime: u64,
        deadline: u64,
        period: u64,
    }
    let attr = SchedAttr {
        size: size_of::<SchedAttr>() as u32,
        nice: rustix::process::getpriority_process(None)?,
        runtime: runtime_ns,
        ..SchedAttr::default()
    };
    #[expect(
        unsafe_code,
        reason = "SAFETY: a call on this thread with a pointer to a live struct that carries its size"
    )]
    let result = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attr, 0) };
    if result == 0 {
        Ok(())
    } else {
        Err(std::io::Error::last_os_error())
    }
}

#[cfg(not(target_os = "linux"))]
fn set(_: u64) -> std::io::Result<()> {
    Ok(())
}
