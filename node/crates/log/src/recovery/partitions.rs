//! The batches of each partition, and the gaps between them.

use crate::error::ReadError;
use crate::format::keys::{StateKey, StateKind, data_key, split_data_key};
use crate::format::position::Position;
use crate::format::rows::gap_row;
use crate::positions::Marks;
use crate::read::scan::{Piece, Scan};
use crate::recovery::state::{Failure, Recovery};
use crate::store::kv::Row;
use fjall::PersistMode;
use std::collections::BTreeMap;
use weir_types::{Batch, Gap, GapReason, Offset, PartitionId};

impl Recovery {
    /// Removes the gaps of lost ranges whose records are back. Ranges that are still missing are found again
    /// later.
    pub(super) fn forget_what_came_back(
        &self,
        positions: &mut BTreeMap<PartitionId, Position>,
        gaps: &mut BTreeMap<PartitionId, Vec<Gap>>,
    ) -> fjall::Result<()> {
        let mut batch = self.keyspaces.db.batch();
        for (partition, gaps) in gaps {
            let is_there = |gap: &Gap| {
                let rows = data_key(*partition, gap.start)..data_key(*partition, gap.end);
                gap.reason == GapReason::Lost && self.keyspaces.data.range(rows).next().is_some()
            };
            let (came_back, gone) = std::mem::take(gaps).into_iter().partition(is_there);
            *gaps = gone;
            let came_back: Vec<Gap> = came_back;
            for gap in came_back {
                let (key, _) = gap_row(*partition, &gap);
                batch.remove(&self.keyspaces.state, key.as_bytes());
                let position = positions.entry(*partition).or_default();
                position.lost = position.lost.saturating_sub(gap.end.since(gap.start));
            }
        }
        batch.commit(PersistMode::SyncAll)
    }

    /// Checks that each partition is whole up to its end, and adds gaps where records are missing.
    pub(super) fn mend_partitions(
        &mut self,
        positions: &mut BTreeMap<PartitionId, Position>,
        gaps: &mut BTreeMap<PartitionId, Vec<Gap>>,
    ) -> Result<(), Failure> {
        let mut batch = self.keyspaces.db.batch();
        let mut tail_lost = false;
        let reserves = self.watermark.value.partitions.clone();
        if self.suspect || self.watermark.value.clean {
            // A partition may have lost its row but kept its records. After an orderly shutdown the watermark
            // names exactly the existing partitions; after a crash also dropped ones.
            for (partition, reserve) in reserves
                .iter()
                .filter(|(_, r)| r.end > Offset::ZERO || (self.is_tail_unknown && r.ceiling > Offset::ZERO))
            {
                positions.entry(*partition).or_insert(Position {
                    log_start: reserve.log_start,
                    ..Position::default()
                });
            }
        }
        for (partition, position) in positions.iter_mut() {
            let reserve = reserves.get(partition).copied().unwrap_or_default();
            let known = gaps.entry(*partition).or_default();
            let found = self
                .last_end(*partition)?
                .max(known.iter().map(|g| g.end).max().unwrap_or_default());
            let promised = position.committed_end.max(reserve.end).max(position.log_start);
            let mut lost = Vec::new();
            if found < promised || (self.is_tail_unknown && found < reserve.ceiling) {
                // No offset beyond the ceiling was ever assigned.
                let end = reserve.ceiling.max(promised);
                lost.push(Gap {
                    start: found.max(position.log_start),
                    end,
                    reason: GapReason::Lost,
                });
                tail_lost = true;
            }
            position.committed_end = promised;
            if self.suspect {
                // All remaining entries were replayed.
                position.committed_end = found.max(promised);
                lost.extend(self.holes(*partition, position.log_start, found, known));
            }
            for gap in lost {
                position.committed_end = position.committed_end.max(gap.end);
                position.lost += gap.end.since(gap.start);
                let (key, value) = gap_row(*partition, &gap);
                batch.insert(&self.keyspaces.state, key.as_bytes(), value);
                known.push(gap);
                self.recovered.damage.lost.push((*partition, gap));
                tracing::error!(%partition, start = %gap.start, end = %gap.end, "records are lost");
            }
            known.sort_by_key(|g| g.start);
            if self.suspect || tail_lost {
                let key = StateKey::partition(StateKind::Position, *partition);
                batch.insert(&self.keyspaces.state, key.as_bytes(), position.encode());
            }
        }
        if tail_lost && self.only_whole {
            return Err(Failure::NotWhole(std::mem::take(&mut self.recovered.damage)));
        }
        if !batch.is_empty() {
            batch.commit(PersistMode::SyncAll)?;
        }
        if tail_lost {
            self.watermark.value.epoch += 1;
            self.watermark.save()?;
        }
        Ok(())
    }

    /// Returns the first offset after the last stored batch.
    pub(super) fn last_end(&self, partition: PartitionId) -> fjall::Result<Offset> {
        let rows = data_key(partition, Offset::ZERO)..=data_key(partition, Offset::MAX);
        let Some(guard) = self.keyspaces.data.range(rows.clone()).next_back() else {
            return Ok(Offset::ZERO);
        };
        let read = |(key, row): (fjall::UserKey, fjall::Slice)| {
            let (_, base) = split_data_key(&key)?;
            let batch = Batch::parse(self.keyspaces.payload(&key, row).ok()?).ok()?;
            (batch.base_offset() == base).then_some(batch)
        };
        match guard.into_inner().ok().and_then(read) {
            Some(batch) => Ok(batch.end_offset()),
            // The row exists but its bytes are damaged: readers and scrub report the batch, and its offsets
            // are not reused.
            _ => {
                let key = self
                    .keyspaces
                    .data
                    .range(rows)
                    .next_back()
                    .map(Row::key)
                    .transpose()?;
                let base = key
                    .and_then(|k| split_data_key(&k))
                    .map_or(Offset::ZERO, |(_, base)| base);
                let reserve = self
                    .watermark
                    .value
                    .partitions
                    .get(&partition)
                    .copied()
                    .unwrap_or_default();
                Ok(reserve.end.max(base.plus(1)))
            }
        }
    }

    /// Returns the ranges in `[start, end)` without a readable batch that are not known as gaps.
    pub(super) fn holes(
        &self,
        partition: PartitionId,
        start: Offset,
        end: Offset,
        known: &[Gap],
    ) -> Vec<Gap> {
        let marks = Marks::default();
        known.iter().for_each(|g| marks.add_gap(*g));
        let scan = Scan {
            keyspaces: &self.keyspaces,
            marks: &marks,
            partition,
            end,
        };
        let mut holes = Vec::new();
        let mut from = start;
        while from < end {
            // One MiB at a time keeps a big partition out of memory.
            let read = scan.read(from, 1 << 20);
            if let Err(ReadError::Busy(why)) = &read {
                // A shortage is not a loss: later readers will report the range.
                tracing::warn!(%partition, %from, why, "a partition is not looked through to its end");
                break;
            }
            let Ok(chunk) = read else {
                holes.push(Gap {
                    start: from,
                    end,
                    reason: GapReason::Lost,
                });
                break;
            };
            for piece in chunk.pieces {
                if let Piece::Gap(gap) = piece
                    && !known.iter().any(|k| k.start <= gap.start && gap.end <= k.end)
                {
                    holes.push(gap);
                }
            }
            if chunk.next <= from {
                break;
            }
            from = chunk.next;
        }
        holes
    }
}
