//! Places at which a test stops a node, to kill it or cut its power there and nowhere else. Release builds have nothing of it.
//!
//! `WEIR_STOP_AT=PLACE:N:FILE` stops the process at the Nth time that it comes to the place once FILE is there.

/// Between two steps of a record on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// A pipeline has read what it will look at next.
    Read,
    /// Its modules have said what becomes of that.
    Computed,
    /// An entry is made, and not yet with the log.
    Proposing,
    /// It is.
    Proposed,
    /// It is about to be written.
    Writing,
    /// It is written and synced, and nobody knows yet.
    Written,
    /// It is committed, and about to be applied.
    Applying,
    /// It is applied.
    Applied,
    /// What it was made of is about to be acknowledged.
    Answering,
    /// A batch of an outbox is about to be sent.
    Sending,
    /// It has arrived.
    Sent,
    /// What has arrived is about to be removed.
    Trimming,
}

impl Stop {
    /// All of them, by the names that they have in the environment.
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

    /// Stops here, if that was asked for.
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
