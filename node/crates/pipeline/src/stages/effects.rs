//! What goes into a run over a batch, and what comes of it.

use crate::spec::on_error::Policy;
use crate::stages::dead_letter::DeadLetter;
use crate::stages::item::InFlight;
use std::collections::BTreeMap;
use std::time::Duration;
use weir_runtime::Fired;

/// What a chain does with what it fails on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ErrorHandling {
    pub(crate) policy: Policy,
    pub(crate) attempts: u32,
}

/// Where a pass begins, and with what.
#[derive(Clone, Copy)]
pub(crate) enum StageInput<'a> {
    /// At the first stage, with records of a source, by its place in the spec.
    Records { source: u32 },
    /// At the stage that set timers, with those.
    Timers { stage: usize, fired: Fired<'a> },
}

/// What became of a batch.
#[derive(Debug, Default)]
pub(crate) struct Effects {
    /// In order of the sources: what stays in the stream.
    pub(crate) main: Vec<InFlight>,
    /// What goes to named outputs.
    pub(crate) outputs: BTreeMap<String, Vec<InFlight>>,
    pub(crate) dead: Vec<DeadLetter>,
    /// Failed on, under the policy that drops.
    pub(crate) skipped: u64,
    pub(crate) failures: u32,
    pub(crate) spent: Duration,
    pub(crate) bytes: usize,
}

impl Effects {
    /// Bytes of records that are new, copied or sent elsewhere, dead letters among them, before they are compressed.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }
}

/// Why a batch goes nowhere.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Stopped {
    /// The pipeline stops.
    Halt(String),
    /// What it comes to is too much for one entry. Of one record alone it never is.
    TooMuch(TooMuch),
    /// There is no memory for a module at present.
    Full(String),
}

/// What records come to together is more than an entry may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TooMuch {
    pub(crate) bytes: usize,
    pub(crate) limit: usize,
    /// Records that were looked at together, or timers.
    pub(crate) of: usize,
}
