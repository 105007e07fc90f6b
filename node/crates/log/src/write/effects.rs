//! Effects of committed entries, put into the writer's next batch.

use crate::format::entry::{Append, OpHeader};
use crate::format::keys::{StateKey, StateKind, data_key};
use crate::format::rows::{gap_of, gap_row, id_row};
use crate::store::kv::WriteBatch;
use crate::write::store_writer::StoreWriter;
use std::collections::{BTreeMap, BTreeSet};
use weir_types::planted::{Bug, planted};
use weir_types::{Gap, GapReason, Offset, PartitionId};

/// Bytes per row of the time index: a look-up scans a stretch of this size.
const TIME_INDEX_EVERY_BYTES: u64 = 1 << 20;

impl StoreWriter {
    /// Stages the effects of all entries committed since the last call.
    pub(crate) fn stage_effects(&mut self, batch: &mut WriteBatch) -> fjall::Result<()> {
        let mut touched = BTreeSet::new();
        let mut applied = BTreeMap::new();
        for header in self.shared.take_effects() {
            for op in &header.ops {
                self.stage_effect(batch, op, &mut touched)?;
            }
            applied.insert(header.group, header.id());
        }
        let state = &self.keyspaces.state;
        for partition in touched {
            let key = StateKey::partition(StateKind::Position, partition);
            match self.positions.get(&partition) {
                Some(position) => batch.insert(state, key.as_bytes(), position.encode()),
                None => batch.remove(state, key.as_bytes()),
            }
        }
        for (group, mut id) in applied {
            if planted(Bug::AppliedTooFar) {
                id = self.tails.get(&group).map_or(id, |tail| tail.last);
            }
            let key = StateKey::new(StateKind::Applied, &group.0.to_be_bytes());
            batch.insert(state, key.as_bytes(), id_row(id));
            self.tails.entry(group).or_default().applied = id;
        }
        if let Some((key, number)) = self.copy.row() {
            batch.insert(state, key.as_bytes(), number);
        }
        Ok(())
    }

    fn stage_effect(
        &mut self,
        batch: &mut WriteBatch,
        op: &OpHeader,
        touched: &mut BTreeSet<PartitionId>,
    ) -> fjall::Result<()> {
        match op {
            OpHeader::Append(append) => {
                touched.insert(append.partition);
                self.stage_append(batch, append);
            }
            OpHeader::Put { key, value } => {
                self.copy.note(key, Some(value));
                batch.insert(&self.keyspaces.state, key.as_slice(), value.as_slice());
            }
            OpHeader::Remove { key } => {
                self.copy.note(key, None);
                batch.remove(&self.keyspaces.state, key.as_slice());
            }
            OpHeader::Trim {
                partition,
                to,
                reason,
            } => {
                touched.insert(*partition);
                self.stage_trim(batch, *partition, *to, *reason)?;
                self.mark_soon();
            }
            OpHeader::Drop { partition } => {
                touched.insert(*partition);
                self.mark_soon();
                self.remove_rows(batch, *partition, Offset::MAX)?;
                self.positions.remove(partition);
                for (key, _) in self.gaps(*partition)? {
                    batch.remove(&self.keyspaces.state, key);
                }
            }
        }
        Ok(())
    }

    fn stage_append(&mut self, batch: &mut WriteBatch, append: &Append) {
        let position = self.positions.entry(append.partition).or_default();
        position.committed_end = position.committed_end.max(append.end());
        position.bytes += u64::from(append.bytes);
        position.max_timestamp = position.max_timestamp.max(append.max_timestamp);
        position.unindexed_bytes += u64::from(append.bytes);
        if position.unindexed_bytes >= TIME_INDEX_EVERY_BYTES {
            position.unindexed_bytes = 0;
            position.indexed_end = append.end();
            let key = StateKey::partition_offset(StateKind::TimeIndex, append.partition, append.end());
            batch.insert(
                &self.keyspaces.state,
                key.as_bytes(),
                position.max_timestamp.to_be_bytes(),
            );
        }
    }

    fn stage_trim(
        &mut self,
        batch: &mut WriteBatch,
        partition: PartitionId,
        to: Offset,
        reason: GapReason,
    ) -> fjall::Result<()> {
        let freed = self.remove_rows(batch, partition, to)?;
        let start = self.positions.entry(partition).or_default().log_start;
        let (key, _) = gap_row(
            partition,
            &Gap {
                start,
                end: to,
                reason,
            },
        );
        // A batch removed by others may leave a gap beyond `to`: keep the end of that gap.
        let mut end = to;
        for (known, its_end) in self.gaps(partition)? {
            if its_end <= to {
                batch.remove(&self.keyspaces.state, known);
            } else if known[..] == *key.as_bytes() {
                end = its_end;
            }
        }
        let gap = Gap { start, end, reason };
        let position = self.positions.entry(partition).or_default();
        position.bytes = position.bytes.saturating_sub(freed);
        position.log_start = position.log_start.max(to);
        position.committed_end = position.committed_end.max(to);
        if reason != GapReason::Expired {
            position.lost += to.since(start);
        }
        let (key, value) = gap_row(partition, &gap);
        batch.insert(&self.keyspaces.state, key.as_bytes(), value);
        if let Some(marks) = self.shared.positions.marks(partition) {
            marks.freed(freed);
        }
        Ok(())
    }

    /// Removes the batches of `partition` that end at or before `to`, and their time index. Returns the freed
    /// bytes.
    pub(crate) fn remove_rows(
        &mut self,
        batch: &mut WriteBatch,
        partition: PartitionId,
        to: Offset,
    ) -> fjall::Result<u64> {
        let mut freed = 0;
        // Only whole batches are removed: a batch across `to` stays.
        let end = self
            .positions
            .get(&partition)
            .map_or(Offset::ZERO, |p| p.committed_end);
        let on_boundary = end <= to || self.keyspaces.data.contains_key(data_key(partition, to))?;
        let mut rows = Vec::new();
        for guard in self
            .keyspaces
            .data
            .range(data_key(partition, Offset::ZERO)..data_key(partition, to))
        {
            rows.push(guard.key()?);
        }
        if !on_boundary {
            rows.pop();
        }
        for key in rows {
            freed += self.remove_row(batch, key)?;
        }
        let from = StateKey::partition_offset(StateKind::TimeIndex, partition, Offset::ZERO);
        let until = StateKey::partition_offset(StateKind::TimeIndex, partition, to);
        for guard in self.keyspaces.state.range(from.as_bytes()..until.as_bytes()) {
            batch.remove(&self.keyspaces.state, guard.key()?);
        }
        Ok(freed)
    }

    /// Removes a batch. Returns the freed bytes.
    pub(crate) fn remove_row(&mut self, batch: &mut WriteBatch, key: fjall::UserKey) -> fjall::Result<u64> {
        let (bytes, pointer) = self.keyspaces.stored(&key)?;
        pointer.into_iter().for_each(|p| self.values.free(p));
        batch.remove(&self.keyspaces.data, key);
        Ok(u64::from(bytes))
    }

    pub(crate) fn gaps(&self, partition: PartitionId) -> fjall::Result<Vec<(fjall::UserKey, Offset)>> {
        let prefix = StateKey::partition(StateKind::Gap, partition);
        let mut gaps = Vec::new();
        for guard in self.keyspaces.state.prefix(prefix.as_bytes()) {
            let (key, value) = guard.into_inner()?;
            let end = gap_of(&key, &value).map_or(Offset::ZERO, |(_, gap)| gap.end);
            gaps.push((key, end));
        }
        Ok(gaps)
    }
}
