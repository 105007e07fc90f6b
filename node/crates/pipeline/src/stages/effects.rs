//! Input and result of a run over a batch.

use crate::spec::on_error::Policy;
use crate::stages::dead_letter::DeadLetter;
use crate::stages::item::InFlight;
use std::collections::BTreeMap;
use std::time::Duration;
use weir_runtime::Fired;

/// Error policy of a run.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ErrorHandling {
    pub(crate) policy: Policy,
    pub(crate) attempts: u32,
}

/// Input of a run.
#[derive(Clone, Copy)]
pub(crate) enum StageInput<'a> {
    /// Records of the source with this index in the spec, for the first stage.
    Records { source: u32 },
    /// Timers, for the stage that set them.
    Timers { stage: usize, fired: Fired<'a> },
}

/// The result of a batch.
#[derive(Debug, Default)]
pub(crate) struct Effects {
    /// Records that stay in the stream, in the order of their sources.
    pub(crate) main: Vec<InFlight>,
    /// Records for named outputs.
    pub(crate) outputs: BTreeMap<String, Vec<InFlight>>,
    pub(crate) dead: Vec<DeadLetter>,
    /// Records dropped by the `skip` policy.
    pub(crate) skipped: u64,
    pub(crate) failures: u32,
    pub(crate) spent: Duration,
    pub(crate) bytes: usize,
}

impl Effects {
    /// Returns the uncompressed bytes of records that are new, copied or sent elsewhere, dead letters
    /// included.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }
}

/// Reason to discard the result of a batch.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Stopped {
    /// The pipeline halts.
    Halt(String),
    /// The result exceeds an entry. Never the case for a single record.
    TooMuch(TooMuch),
    /// No memory is left for a module at present.
    Full(String),
}

/// The combined result of several records exceeds the limit of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TooMuch {
    pub(crate) bytes: usize,
    pub(crate) limit: usize,
    /// Number of records or timers that were processed together.
    pub(crate) of: usize,
}
