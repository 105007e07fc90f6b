//! Failpoints: places at which a test stops a node, to kill the node or cut its power exactly there. Release
//! builds have none.
//!
//! `WEIR_STOP_AT=PLACE:N:FILE` stops the process on the Nth visit of the place after FILE exists.

/// A place between two steps of a record on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// A pipeline has read its next input.
    Read,
    /// The modules have returned their outcome.
    Computed,
    /// An entry is made, and not yet handed to the log.
    Proposing,
    /// The entry is handed to the log.
    Proposed,
    /// The entry is about to be written.
    Writing,
    /// The entry is written and synced; no waiter knows yet.
    Written,
    /// The entry is committed and about to be applied.
    Applying,
    /// The entry is applied.
    Applied,
    /// The input of the entry is about to be acknowledged.
    Answering,
    /// A batch of an outbox is about to be sent.
    Sending,
    /// The batch of an outbox has arrived.
    Sent,
    /// A delivered batch is about to be removed from its outbox.
    Trimming,
}

impl Stop {
    /// All failpoints, by their names in the environment.
    pub const ALL: [(&str, Self); 12] = [
        ("read", Self::Read),
        ("computed", Self::Computed),
        ("proposing", Self::Proposing),
        ("proposed", Self::Proposed),
        ("writing", Self::Writing),
        ("written", Self::Written),
        ("applying", Self::Applying),
        ("applied", Self::Applied),
        ("answering", Self::Answering),
        ("sending", Self::Sending),
        ("sent", Self::Sent),
        ("trimming", Self::Trimming),
    ];

    /// Stops the process here, if a test asked for this place.
    #[inline]
    pub fn here(self) {
        #[cfg(debug_assertions)]
        asked::here(self);
    }
}

#[cfg(debug_assertions)]
mod asked {
    use super::Stop;
    use std::path::PathBuf;
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

    struct Asked {
        at: Stop,
        after: u64,
        armed_by: PathBuf,
        is_armed: AtomicBool,
        seen: AtomicU64,
    }

    static ASKED: OnceLock<Option<Asked>> = OnceLock::new();

    fn asked() -> Option<Asked> {
        let text = std::env::var("WEIR_STOP_AT").ok()?;
        let mut parts = text.splitn(3, ':');
        let place = parts.next()?;
        let (_, at) = Stop::ALL.into_iter().find(|(name, _)| *name == place)?;
        Some(Asked {
            at,
            after: parts.next()?.parse().ok()?,
            armed_by: parts.next()?.into(),
            is_armed: AtomicBool::new(false),
            seen: AtomicU64::new(0),
        })
    }

    pub(super) fn here(at: Stop) {
        let Some(asked) = ASKED.get_or_init(asked).as_ref().filter(|asked| asked.at == at) else {
            return;
        };
        if !asked.is_armed.load(Ordering::Relaxed) {
            asked.is_armed.store(asked.armed_by.exists(), Ordering::Relaxed);
        }
        if asked.is_armed.load(Ordering::Relaxed)
            && asked.seen.fetch_add(1, Ordering::Relaxed) + 1 == asked.after
        {
            let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::STOP);
        }
    }
}
