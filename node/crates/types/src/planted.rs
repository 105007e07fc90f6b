//! Injected bugs, so that the simulation can show that it would find them.
//!
//! Without the feature `planted`, which only the simulation has, [`planted`] is `false` at compile time and
//! nothing remains of the bugs.

macro_rules! bugs {
    ($($bug:ident $name:literal,)*) => {
        /// An injected bug.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[expect(missing_docs, reason = "the name says what is wrong")]
        pub enum Bug { $($bug,)* }

        impl Bug {
            /// All bugs.
            pub const ALL: &[Self] = &[$(Self::$bug,)*];

            /// Returns the bug's name.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$bug => $name,)* }
            }
        }
    };
}

bugs! {
    // The log.
    NoSync "acknowledge-before-sync",
    VoteNotSynced "vote-not-synced",
    TruncateKeepsBatches "truncate-keeps-batches",
    AppliedTooFar "note-more-as-applied-than-is",
    SnapshotWithoutBatches "install-a-snapshot-without-its-batches",
    EmptyRow "an-empty-row-when-it-cannot-be-encoded",
    SkipReadableFrame "skip-a-readable-frame-in-repair",
    NoRoomIsWritten "acknowledge-what-there-was-no-room-for",
    // The replica.
    VoteNotStored "vote-without-storing",
    AcknowledgeUnwritten "acknowledge-before-writing",
    ApplyUnflushed "apply-before-own-flush",
    TruncateNothing "truncate-in-memory-alone",
    TailKeepsTruncated "truncate-on-disk-alone",
    AcceptOldLeader "accept-an-old-leader",
    SkipPreviousCheck "skip-the-check-of-the-previous-entry",
    GrantEveryVote "grant-every-vote",
    TakenBackIsOk "acknowledge-what-was-taken-back",
    LeadBeforeApplied "lead-before-earlier-entries-are-applied",
    NoLease "read-without-a-lease",
    LeaderRestore "lead-on-after-a-restart",
    InstallWithoutReload "install-a-snapshot-and-keep-the-old-tables",
    WitnessLeads "elect-a-witness",
    NeverMend "leave-damaged-batches",
    LeaseToPropose "ask-for-a-lease-to-propose",
    NoEntryBound "no-bound-for-an-entry",
    // The broker.
    DeletedServed "serve-deleted-records",
    RetentionByRecord "expire-by-the-time-in-the-records",
    NoDedup "take-repeated-batches",
    ProducersNotStored "forget-producers-at-failover",
    OffsetsFromCommitted "number-from-what-is-committed",
    AnswerUndecided "acknowledge-before-committed",
    RepeatedAnsweredAtOnce "acknowledge-a-repeated-batch-before-its-original",
    SpeculationSurvives "keep-speculation-over-terms",
    StepOnFallen "keep-steps-on-top-of-one-that-fell",
}

#[cfg(feature = "planted")]
static ACTIVE: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(usize::MAX);

/// Injects `bug` from now on.
#[cfg(feature = "planted")]
pub fn plant(bug: Bug) {
    ACTIVE.store(bug as usize, std::sync::atomic::Ordering::Relaxed);
}

/// Returns true when `bug` is injected.
#[cfg(feature = "planted")]
pub fn planted(bug: Bug) -> bool {
    ACTIVE.load(std::sync::atomic::Ordering::Relaxed) == bug as usize
}

/// Returns false: no bug is injected.
#[cfg(not(feature = "planted"))]
#[inline(always)]
pub const fn planted(_: Bug) -> bool {
    false
}
