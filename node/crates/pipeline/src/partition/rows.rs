//! Rows of a pipeline's state: their keys, and tables loaded from them.

use crate::partition::time::Progress;
use crate::spec::Spec;
use crate::spec::row::Written;
use crate::stages::stage::Stage;
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};
use weir_broker::{Broker, ReadError, StateKey, StateKind, decode};
use weir_runtime::{Table, TimerClock, row_bytes};
use weir_types::limits::STAGES_MAX;

/// Kinds of rows with state: tables, timers, and the progress of time.
const KINDS: [StateKind; 3] = [StateKind::Table, StateKind::Timer, StateKind::Progress];

/// Returns the key prefixes of all state of `pipeline`.
pub(crate) fn of_pipeline(pipeline: &str) -> [StateKey; 3] {
    KINDS.map(|kind| of_kind(kind, pipeline))
}

/// Returns the key prefix of the rows of `kind`.
pub(crate) fn of_kind(kind: StateKind, pipeline: &str) -> StateKey {
    // A name contains no 0 byte, so no prefix matches another pipeline.
    StateKey::new(kind, &[pipeline.as_bytes(), &[0]].concat())
}

/// Number of generations of a stage's state. Migrations use them in turn.
pub(crate) const GENERATIONS: u8 = 16;

const _: () = assert!(STAGES_MAX <= 16, "a stage's place takes half of a byte");

/// Encodes a stage's index and generation for a key.
fn stage_byte(stage: usize, generation: u8) -> u8 {
    stage as u8 | generation << 4
}

/// Returns the key prefix of a stage's rows on a partition.
fn of_stage(kind: StateKind, pipeline: &str, stage: (usize, u8), partition: u32) -> StateKey {
    let stage = stage_byte(stage.0, stage.1);
    let rest = [pipeline.as_bytes(), &[0, stage], &partition.to_be_bytes()[..]];
    StateKey::new(kind, &rest.concat())
}

/// Returns the key prefixes of all rows of a generation of a stage.
pub(crate) fn of_generation(pipeline: &str, stage: usize, generation: u8) -> [StateKey; 2] {
    let rest = [pipeline.as_bytes(), &[0, stage_byte(stage, generation)]].concat();
    [StateKind::Table, StateKind::Timer].map(|kind| StateKey::new(kind, &rest))
}

/// Returns the key of the row with the progress of time on a partition.
pub(crate) fn of_progress(pipeline: &str, partition: u32) -> StateKey {
    let rest = [pipeline.as_bytes(), &[0], &partition.to_be_bytes()[..]];
    StateKey::new(StateKind::Progress, &rest.concat())
}

/// Splits a key of `kind` into stage, partition and rest.
pub(crate) fn split_key<'a>(kind: StateKind, pipeline: &str, key: &'a [u8]) -> Option<(u8, u32, &'a [u8])> {
    let rest = key.strip_prefix(of_kind(kind, pipeline).as_bytes())?;
    let (stage, rest) = rest.split_first()?;
    let (partition, rest) = rest.split_first_chunk()?;
    Some((*stage & 0x0f, u32::from_be_bytes(*partition), rest))
}

/// Decodes a timer from the rest of its key and its value: clock, tag, key and due time.
pub(crate) fn timer<'a>(key: &'a [u8], value: &[u8]) -> Option<(TimerClock, u32, &'a [u8], i64)> {
    let (clock, rest) = key.split_first()?;
    let clock = TimerClock::ALL.into_iter().find(|c| *c as u8 == *clock)?;
    let (tag, key) = rest.split_first_chunk()?;
    let at = value.first_chunk().filter(|_| value.len() == 8)?;
    Some((clock, u32::from_be_bytes(*tag), key, i64::from_be_bytes(*at)))
}

/// Returns the partitions on which `spec` has stored timers. Blocks.
pub(crate) fn partitions_with_timers(broker: &Broker, spec: &Spec) -> Result<BTreeSet<u32>, ReadError> {
    let mut found = BTreeSet::new();
    let prefix = of_kind(StateKind::Timer, spec.name.as_str());
    broker.applied_rows(&prefix, |key, _| {
        let rest = key.get(prefix.as_bytes().len() + 1..);
        let partition = rest.and_then(|rest| rest.first_chunk());
        found.extend(partition.map(|p| u32::from_be_bytes(*p)));
    })?;
    Ok(found)
}

/// Loads the state of stage `n` on `partition`. Blocks.
pub(crate) fn table(
    spec: &Spec,
    broker: &Broker,
    n: usize,
    stage: &Stage,
    partition: u32,
) -> Result<Table, ReadError> {
    let place = (n, stage.generation);
    let mut table = Table::within(&stage.quota);
    let prefix = of_stage(StateKind::Table, spec.name.as_str(), place, partition);
    broker.applied_rows(&prefix, |key, value| {
        table.load(key.get(prefix.as_bytes().len()..).unwrap_or_default(), &value);
    })?;
    let prefix = of_stage(StateKind::Timer, spec.name.as_str(), place, partition);
    broker.applied_rows(&prefix, |key, value| {
        let rest = key.get(prefix.as_bytes().len()..).unwrap_or_default();
        if let Some((clock, tag, key, at)) = timer(rest, &value) {
            table.load_timer(clock, key, tag, at);
        }
    })?;
    Ok(table)
}

/// Counts the stored state of each partition for which `is_ours` holds against the quota, before any state is
/// loaded. Blocks.
pub(crate) fn count_stored(
    spec: &Spec,
    broker: &Broker,
    stages: &[Stage],
    is_ours: impl Fn(u32) -> bool,
) -> Result<(), ReadError> {
    let mut bytes: BTreeMap<u32, usize> = BTreeMap::new();
    for (n, stage) in stages.iter().enumerate() {
        for prefix in of_generation(spec.name.as_str(), n, stage.generation) {
            broker.applied_rows(&prefix, |key, value| {
                let rest = key
                    .get(prefix.as_bytes().len()..)
                    .and_then(<[u8]>::split_first_chunk);
                if let Some((partition, key)) = rest {
                    *bytes.entry(u32::from_be_bytes(*partition)).or_default() += row_bytes(key, &value);
                }
            })?;
        }
    }
    for (partition, bytes) in bytes.into_iter().filter(|(partition, _)| is_ours(*partition)) {
        if let Some(stage) = stages.first() {
            stage.quota.find_stored(partition, bytes);
        }
    }
    Ok(())
}

/// Appends rows for the changes of stage `n` since the last call.
pub(crate) fn changes_of(name: &str, n: usize, stage: &mut Stage, partition: u32, rows: &mut Vec<Written>) {
    let place = (n, stage.generation);
    let Some(table) = &mut stage.table else { return };
    let prefix = of_stage(StateKind::Table, name, place, partition);
    table.take_changes(|key, value| {
        let key = [prefix.as_bytes(), key].concat();
        rows.push((StateKey::from_bytes(key), value.map(Bytes::copy_from_slice)));
    });
    let prefix = of_stage(StateKind::Timer, name, place, partition);
    table.take_timer_changes(|clock, key, tag, at| {
        let tag = tag.to_be_bytes();
        let key = [prefix.as_bytes(), &[clock as u8], &tag, key].concat();
        let at = at.map(|at| Bytes::copy_from_slice(&at.to_be_bytes()));
        rows.push((StateKey::from_bytes(key), at));
    });
}

pub(crate) fn progress(spec: &Spec, broker: &Broker, partition: u32) -> Result<Progress, ReadError> {
    let (mut found, row) = (
        Ok(Progress::default()),
        of_progress(spec.name.as_str(), partition),
    );
    broker.applied_rows(&row, |_, value| {
        found = decode("the progress of a pipeline", &value)
    })?;
    found.map_err(|why| ReadError::Format {
        row: format!("pipeline `{}`, partition {partition}", spec.name),
        why,
    })
}
