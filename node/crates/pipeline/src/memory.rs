//! What the modules of a pipeline remember: a table a stage and partition, from rows of the log and back to them.

use crate::chain::Stage;
use crate::spec::{Grant, Spec};
use bytes::Bytes;
use std::collections::BTreeMap;
use weir_broker::{Broker, Chain, PartitionId, ReadError, StateKey, StateKind};
use weir_runtime::Table;
use weir_types::limits::STATEFUL_PARTITIONS_MAX;

/// The key under which all rows of `pipeline` lie.
pub(crate) fn of_pipeline(pipeline: &str) -> StateKey {
    // No name has a 0 in it: none is the beginning of another.
    StateKey::new(StateKind::Table, &[pipeline.as_bytes(), &[0]].concat())
}

/// The key under which the rows of one stage and partition lie.
fn of_stage(pipeline: &str, stage: usize, partition: u32) -> StateKey {
    let rest = [
        pipeline.as_bytes(),
        &[0, stage as u8],
        &partition.to_be_bytes()[..],
    ];
    StateKey::new(StateKind::Table, &rest.concat())
}

/// The stages of a pipeline at work on one partition.
pub(crate) struct Part {
    pub(crate) stages: Vec<Stage>,
    pub(crate) chain: Chain,
    last_used: u64,
}

/// Those that are at work. What is not, is in the log.
#[derive(Default)]
pub(crate) struct Parts {
    parts: BTreeMap<u32, Part>,
    uses: u64,
}

impl Parts {
    /// The part for `partition`, begun anew where it has to be. None while another node leads it.
    pub(crate) fn part(
        &mut self,
        spec: &Spec,
        stages: &[Stage],
        broker: &Broker,
        partition: u32,
        id: PartitionId,
    ) -> Result<Option<&mut Part>, ReadError> {
        self.uses += 1;
        if self.parts.get(&partition).is_some_and(|p| !p.chain.is_standing()) {
            self.end(partition);
        }
        if !self.parts.contains_key(&partition) {
            if self.parts.len() >= STATEFUL_PARTITIONS_MAX {
                let longest = self.parts.iter().min_by_key(|(_, p)| p.last_used);
                if let Some(partition) = longest.map(|(p, _)| *p) {
                    self.end(partition);
                }
            }
            let Some(chain) = Chain::begin(broker, id) else {
                return Ok(None);
            };
            let stages = begin(spec, stages, &chain, partition)?;
            let last_used = self.uses;
            self.parts.insert(
                partition,
                Part {
                    stages,
                    chain,
                    last_used,
                },
            );
        }
        let mut part = self.parts.get_mut(&partition);
        if let Some(part) = &mut part {
            part.last_used = self.uses;
        }
        Ok(part)
    }

    /// Waits for what is under way, and forgets the partition.
    fn end(&mut self, partition: u32) {
        if let Some(part) = self.parts.remove(&partition) {
            part.chain.drain();
        }
    }

    /// As [`Parts::end`], of all.
    pub(crate) fn end_all(&mut self) {
        for (_, part) in std::mem::take(&mut self.parts) {
            part.chain.drain();
        }
    }

    /// Rows and bytes in memory.
    pub(crate) fn size(&self) -> (usize, usize) {
        let tables = self.parts.values().flat_map(|p| &p.stages);
        let tables = tables.filter_map(|s| s.table.as_ref());
        tables.fold((0, 0), |(rows, bytes), t| (rows + t.len(), bytes + t.bytes()))
    }
}

/// The stages for `partition`, with the tables that the chain begins on.
fn begin(spec: &Spec, stages: &[Stage], chain: &Chain, partition: u32) -> Result<Vec<Stage>, ReadError> {
    let mut own: Vec<_> = stages.iter().map(|s| s.of_partition(partition)).collect();
    for (n, (stage, with)) in own.iter_mut().zip(&spec.stages).enumerate() {
        if !with.grants.contains(&Grant::State) {
            continue;
        }
        let prefix = of_stage(spec.name.as_str(), n, partition);
        let mut table = Table::new(spec.limits.state_bytes);
        chain.rows(&prefix, |key, value| {
            table.load(key.get(prefix.as_bytes().len()..).unwrap_or_default(), &value);
        })?;
        stage.table = Some(table);
    }
    Ok(own)
}

impl Part {
    /// Rows for what changed since the last time.
    pub(crate) fn changes(&mut self, spec: &Spec, partition: u32) -> Vec<(StateKey, Option<Bytes>)> {
        let mut rows = Vec::new();
        for (n, stage) in self.stages.iter_mut().enumerate() {
            let Some(table) = &mut stage.table else { continue };
            let prefix = of_stage(spec.name.as_str(), n, partition);
            table.take_changes(|key, value| {
                let key = [prefix.as_bytes(), key].concat();
                rows.push((StateKey::from_bytes(key), value.map(Bytes::copy_from_slice)));
            });
        }
        rows
    }
}
