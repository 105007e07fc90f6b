//! Who gets a core when there are not enough.
//!
//! A module that loops, traps or returns nonsense is stopped each time, but stopping it and making fresh instances keeps
//! a core busy, and on two cores that doubled the p99 of everybody else. Two things together end that, neither of them
//! alone. The node's threads ask for a short time slice, so that one that wakes up need not wait for the end of a slice
//! of three milliseconds (Linux 6.12 and later: `sched_setattr(2)`, `sched_runtime`; EEVDF). But a thread that has just
//! had more than its share is not let run before the next tick, whatever its slice; so a pipeline whose module
//! misbehaves has a nice value too, which makes the others' share large. It still gets a tenth of a core that others
//! want: nothing starves, and no lock is held for long by a thread that is not let run, as it was with `SCHED_IDLE`.

use std::io;
use std::sync::mpsc::{Sender, SyncSender, channel, sync_channel};
use std::sync::{OnceLock, PoisonError, RwLock};
use std::thread::Builder;

/// How much a thread is in a hurry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Priority {
    /// Somebody waits for it. Threads that the calling one starts inherit it.
    Prompt,
    /// Others go first.
    Behind,
}

/// Longer than anything on the path of a batch takes.
const SHORT_NS: u64 = 500_000;

/// A tenth of the weight of a thread without one.
const BEHIND_NICE: i32 = 10;

impl Priority {
    /// Asks for it on the calling thread. Best effort; whether it was granted. Without privileges a thread that was
    /// once behind stays so: see [`start_prompt`].
    pub fn ask(self) -> bool {
        // Whatever the process was started with is its owner's wish.
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

/// The process's own.
static STARTED_WITH: OnceLock<i32> = OnceLock::new();

fn own_nice() -> i32 {
    rustix::process::getpriority_process(None).unwrap_or(0)
}

type Work = Box<dyn FnOnce() + Send>;

type Start = (Builder, Work, SyncSender<bool>);

/// The thread that starts threads, since one that is behind can only start others that are.
static STARTER: RwLock<Option<Sender<Start>>> = RwLock::new(None);

/// Makes sure that [`start_prompt`] has where to start from. To be called by a thread that is not behind.
///
/// # Errors
/// When no thread can be started.
pub(crate) fn prepare() -> io::Result<()> {
    let mut starter = STARTER.write().unwrap_or_else(PoisonError::into_inner);
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

/// Starts `work` on a thread that is not behind although the calling one may be; whether that was possible.
pub(crate) fn start_prompt(thread: Builder, work: Work) -> bool {
    let starter = STARTER.read().unwrap_or_else(PoisonError::into_inner).clone();
    let (started, answer) = sync_channel(1);
    let sent = starter.is_some_and(|s| s.send((thread, work, started)).is_ok());
    sent && answer.recv().unwrap_or(false)
}

#[cfg(target_os = "linux")]
fn set(runtime_ns: u64, nice: i32) -> io::Result<()> {
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
