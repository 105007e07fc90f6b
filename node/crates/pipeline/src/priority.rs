//! Scheduling priority of threads when cores are scarce.
//!
//! A module that loops, traps or returns nonsense is stopped each time. Stopping and re-instantiating still
//! keeps a core busy, and doubled the p99 of all other pipelines on two cores. Two measures together prevent
//! this; neither is enough alone.
//!
//! The node's threads ask for a short time slice. A thread that wakes up then need not wait for the end of a
//! 3 ms slice (Linux 6.12 and later: `sched_setattr(2)`, `sched_runtime`; EEVDF). The kernel does not run a
//! thread that has used more than its share before the next tick, whatever its slice. A pipeline whose module
//! misbehaves therefore also gets a nice value, which enlarges the share of the others.
//!
//! A demoted thread still gets a tenth of a contended core. Nothing starves, and no lock is held for long by
//! a thread that cannot run, as happened with `SCHED_IDLE`.

use std::io;
use std::sync::OnceLock;
use std::sync::mpsc::{Sender, SyncSender, channel, sync_channel};
use std::thread::Builder;
use weir_types::sync::RwLock;

/// Scheduling priority of a thread.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Priority {
    /// For threads that a caller waits for. Inherited by threads that the calling thread starts.
    Prompt,
    /// For background work: all other threads go first.
    Behind,
}

/// Longer than any step on the path of a batch.
const SHORT_NS: u64 = 500_000;

/// Gives a tenth of the weight of a thread with nice value 0.
const BEHIND_NICE: i32 = 10;

impl Priority {
    /// Requests this priority for the calling thread, and returns true if the kernel granted the request.
    /// Without privileges a demoted thread cannot be promoted again: see [`start_prompt`].
    pub fn ask(self) -> bool {
        // The nice value of the process is its owner's choice.
        let own = *STARTED_WITH.get_or_init(own_nice);
        let (runtime_ns, nice) = match self {
            Self::Prompt => (SHORT_NS, own),
            Self::Behind => (0, own.max(BEHIND_NICE)),
        };
        let asked = set(runtime_ns, nice);
        if let Err(error) = &asked {
            tracing::debug!(%error, priority = ?self, "the thread keeps its priority");
        }
        asked.is_ok()
    }
}

/// The nice value with which the process was started.
static STARTED_WITH: OnceLock<i32> = OnceLock::new();

fn own_nice() -> i32 {
    rustix::process::getpriority_process(None).unwrap_or(0)
}

type Work = Box<dyn FnOnce() + Send>;

type Start = (Builder, Work, SyncSender<bool>);

/// Queue of the thread that starts threads, since a demoted thread can only start demoted threads.
static STARTER: RwLock<Option<Sender<Start>>> = RwLock::new(None);

/// Starts the thread behind [`start_prompt`], unless it runs already. The calling thread must not be demoted.
///
/// # Errors
/// When no thread can be started.
pub(crate) fn prepare() -> io::Result<()> {
    let mut starter = STARTER.write();
    if starter.is_none() {
        let (starts, queue) = channel::<Start>();
        Builder::new().name("weir-start".to_owned()).spawn(move || {
            for (thread, work, started) in queue {
                let _ = started.send(thread.spawn(work).is_ok());
            }
        })?;
        *starter = Some(starts);
    }
    Ok(())
}

/// Starts `work` on a thread of foreground priority, even from a demoted thread. Returns true on success.
pub(crate) fn start_prompt(thread: Builder, work: Work) -> bool {
    let starter = STARTER.read().clone();
    let (started, answer) = sync_channel(1);
    let sent = starter.is_some_and(|s| s.send((thread, work, started)).is_ok());
    sent && answer.recv().unwrap_or(false)
}

#[cfg(target_os = "linux")]
fn set(runtime_ns: u64, nice: i32) -> io::Result<()> {
    /// `struct sched_attr` in its first version, which every kernel with the call accepts.
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
        nice,
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
        Err(io::Error::last_os_error())
    }
}

#[cfg(not(target_os = "linux"))]
fn set(_: u64, _: i32) -> io::Result<()> {
    Ok(())
}
