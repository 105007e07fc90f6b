//! Taking over a group from another node: batches as they arrive, and the whole state in a single write.

use crate::format::entry::{EntryHeader, EntryId};
use crate::format::keys::{StateKey, StateKind, data_key, rlog_key, split_data_key};
use crate::format::position::Position;
use crate::format::rows::{gap_of, id_row, incoming_key, position_row, purged_row};
use crate::read::snapshot::LogSnapshot;
use crate::store::kv::WriteBatch;
use crate::store::value_log::frame::Pointer;
use crate::write::command::{Install, Received};
use crate::write::store_writer::StoreWriter;
use bytes::Bytes;
use fjall::PersistMode;
use std::collections::{BTreeMap, BTreeSet};
use weir_types::planted::{Bug, planted};
use weir_types::{Gap, GroupId, Offset, PartitionId};

/// Rows of a snapshot that a group's replicas share.
struct SharedRows {
    rows: Vec<(StateKey, Bytes)>,
    positions: BTreeMap<PartitionId, Position>,
    gaps: BTreeMap<PartitionId, Vec<Gap>>,
}

impl SharedRows {
    /// Keeps the rows of `group`: rows shared by other groups are not the sender's to change.
    fn of(group: GroupId, state: Vec<(StateKey, Bytes)>) -> Self {
        let rows: Vec<_> = state
            .into_iter()
            .filter(|(key, _)| StateKey::group(key.as_bytes()) == Some(group))
            .collect();
        let mut positions = BTreeMap::new();
        let mut gaps: BTreeMap<PartitionId, Vec<Gap>> = BTreeMap::new();
        for (key, value) in &rows {
            let key = key.as_bytes();
            if key.first() == Some(&(StateKind::Position as u8)) {
                positions.extend(position_row(key, value.clone()));
            }
            if key.first() == Some(&(StateKind::Gap as u8))
                && let Some((partition, gap)) = gap_of(key, value)
            {
                gaps.entry(partition).or_default().push(gap);
            }
        }
        Self {
            rows,
            positions,
            gaps,
        }
    }
}

/// Received batches of a group, by their key in `data`.
#[derive(Default)]
struct IncomingRows {
    rows: BTreeMap<Vec<u8>, fjall::Slice>,
    /// Another group still receives a snapshot.
    others_receive: bool,
}

impl StoreWriter {
    /// Takes a snapshot of the applied state, after writing all of it to `state`.
    pub(crate) fn snapshot(&mut self, group: GroupId) -> fjall::Result<LogSnapshot> {
        let mut batch = self.keyspaces.db.batch();
        self.stage_effects(&mut batch)?;
        self.values.stage(&mut batch, &self.keyspaces.state);
        if !batch.is_empty() {
            batch.commit(PersistMode::Buffer)?;
        }
        Ok(LogSnapshot {
            group,
            applied: self.tails.get(&group).map_or(EntryId::default(), |t| t.applied),
            rows: self.keyspaces.db.snapshot(),
            keyspaces: self.keyspaces.clone(),
        })
    }

    pub(crate) fn receive(&mut self, received: Received) -> fjall::Result<()> {
        let Received { partition, batches } = received;
        let Some(last) = batches.last() else {
            return Ok(());
        };
        self.reserve_offsets(&BTreeMap::from([(partition, last.end_offset())]))?;
        let values = batches
            .iter()
            .map(|b| (partition, b.base_offset(), &b.bytes()[..]));
        let pointers = self.values.append(values)?;
        let mut batch = self.keyspaces.db.batch();
        for (payload, pointer) in batches.iter().zip(pointers) {
            let key = incoming_key(partition, payload.base_offset());
            batch.insert(&self.keyspaces.state, key.as_bytes(), pointer.encode());
        }
        self.values.stage(&mut batch, &self.keyspaces.state);
        batch.commit(PersistMode::SyncData)?;
        self.receiving = true;
        let bytes: usize = batches.iter().map(|b| b.bytes().len()).sum();
        self.shared.wrote(bytes as u64, true);
        Ok(())
    }

    /// Replaces the applied state by the snapshot in `install`, in a single write.
    pub(crate) fn install(&mut self, install: Install) -> fjall::Result<()> {
        let Install {
            group,
            applied,
            state,
        } = install;
        self.write_applied()?;
        let shared = SharedRows::of(group, state);
        let mut batch = self.keyspaces.db.batch();
        let incoming = self.take_incoming(&mut batch, group)?;
        self.stage_data(&mut batch, group, applied, &shared.positions, &incoming.rows)?;
        self.stage_state(&mut batch, group, &shared.rows)?;
        self.stage_tail(&mut batch, group, applied)?;
        self.commit_whole(batch)?;
        self.unsynced = None;
        self.receiving = incoming.others_receive;
        self.values.remove_dead();
        self.publish(group, shared);
        self.save_watermark(false)
    }

    /// Phase 1: writes the effects applied so far, which the sender counts on.
    fn write_applied(&mut self) -> fjall::Result<()> {
        let mut batch = self.keyspaces.db.batch();
        self.stage_effects(&mut batch)?;
        self.values.stage(&mut batch, &self.keyspaces.state);
        if !batch.is_empty() {
            batch.commit(PersistMode::Buffer)?;
            self.copy.written(&self.keyspaces.state)?;
        }
        Ok(())
    }

    /// Phase 2: takes the received batches of `group` out of `state`, by their key in `data`.
    fn take_incoming(&self, batch: &mut WriteBatch, group: GroupId) -> fjall::Result<IncomingRows> {
        let mut incoming = IncomingRows::default();
        for guard in self.keyspaces.state.prefix([StateKind::Incoming as u8]) {
            let (key, row) = guard.into_inner()?;
            let place = key.get(1..).and_then(split_data_key);
            if place.is_some_and(|(partition, _)| partition.group() != group) {
                incoming.others_receive = true;
                continue;
            }
            batch.remove(&self.keyspaces.state, key.clone());
            if planted(Bug::SnapshotWithoutBatches) {
                continue;
            }
            if let Some(place) = key.get(1..).filter(|k| split_data_key(k).is_some()) {
                incoming.rows.insert(place.to_vec(), row);
            }
        }
        Ok(incoming)
    }

    /// Phase 3, after [`StoreWriter::stage_data`]: replaces the rows of `state` that the group's replicas
    /// share.
    fn stage_state(
        &self,
        batch: &mut WriteBatch,
        group: GroupId,
        rows: &[(StateKey, Bytes)],
    ) -> fjall::Result<()> {
        let keep: BTreeSet<&[u8]> = rows.iter().map(|(key, _)| key.as_bytes()).collect();
        for guard in self.keyspaces.state.iter() {
            let key = guard.key()?;
            if StateKey::group(&key) == Some(group) && !keep.contains(&key[..]) {
                batch.remove(&self.keyspaces.state, key);
            }
        }
        for (key, value) in rows {
            batch.insert(&self.keyspaces.state, key.as_bytes(), &value[..]);
        }
        Ok(())
    }

    /// Phase 4: moves the end of the group's log to the last entry of the snapshot.
    fn stage_tail(&mut self, batch: &mut WriteBatch, group: GroupId, applied: EntryId) -> fjall::Result<()> {
        let tail = self.tails.entry(group).or_default();
        let own = self
            .keyspaces
            .rlog
            .get(rlog_key(group, applied.index))?
            .and_then(|row| EntryHeader::decode(group, applied.index, &row).ok())
            .filter(|(header, ..)| header.id() == applied);
        tail.purged_crc = own.map_or(0, |(_, crc, _)| crc);
        tail.purged = applied;
        tail.applied = applied;
        if tail.last.index <= applied.index {
            tail.last = applied;
            tail.crc = tail.purged_crc;
        }
        for (kind, value) in [
            (StateKind::Applied, id_row(applied).to_vec()),
            (StateKind::Purged, purged_row(applied, tail.purged_crc)),
        ] {
            let key = StateKey::new(kind, &group.0.to_be_bytes());
            batch.insert(&self.keyspaces.state, key.as_bytes(), value);
        }
        Ok(())
    }

    /// Phase 5, after the commit: makes the new positions visible to readers.
    fn publish(&mut self, group: GroupId, shared: SharedRows) {
        let SharedRows {
            positions, mut gaps, ..
        } = shared;
        self.shared.positions.retain(group, &positions);
        for (partition, position) in &positions {
            let gaps = gaps.remove(partition).unwrap_or_default();
            self.shared.positions.load(*partition, position, gaps);
        }
        self.positions.retain(|partition, _| partition.group() != group);
        self.positions.extend(positions);
    }

    /// Stages the rows of `data` and the headers: arriving batches go in. Unapplied and trimmed batches, and
    /// those of removed partitions, go out.
    pub(super) fn stage_data(
        &mut self,
        batch: &mut WriteBatch,
        group: GroupId,
        applied: EntryId,
        positions: &BTreeMap<PartitionId, Position>,
        incoming: &BTreeMap<Vec<u8>, fjall::Slice>,
    ) -> fjall::Result<()> {
        let old = self.positions.keys().copied();
        let old: Vec<PartitionId> = old.filter(|p| p.group() == group).collect();
        for partition in old {
            let start = positions.get(&partition).map_or(Offset::MAX, |p| p.log_start);
            self.remove_rows(batch, partition, start)?;
        }
        let first = self.tails.get(&group).map_or(1, |t| t.purged.index + 1);
        let done = self.tails.get(&group).map_or(0, |t| t.applied.index);
        for index in first..=applied.index {
            let key = rlog_key(group, index);
            let Some(row) = self.keyspaces.rlog.get(key)? else {
                break;
            };
            let header = EntryHeader::decode(group, index, &row)
                .ok()
                .filter(|_| index > done);
            for append in header.iter().flat_map(|(h, ..)| h.appends()) {
                let place = data_key(append.partition, append.base);
                // A batch of the same key may be arriving.
                if incoming.contains_key(&place[..]) {
                    let (_, pointer) = self.keyspaces.stored(&place)?;
                    pointer.into_iter().for_each(|p| self.values.free(p));
                } else {
                    self.remove_row(batch, place.into())?;
                }
            }
            batch.remove(&self.keyspaces.rlog, key);
        }
        for (place, row) in incoming {
            let there = split_data_key(place).and_then(|(p, _)| positions.get(&p));
            let base = split_data_key(place).map_or(Offset::ZERO, |(_, base)| base);
            if there.is_some_and(|p| base < p.committed_end) {
                batch.insert(&self.keyspaces.data, &place[..], row.clone());
            } else if let Some(pointer) = Pointer::decode(row) {
                self.values.free(pointer);
            }
        }
        Ok(())
    }
}
