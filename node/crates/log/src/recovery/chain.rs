//! The chain of headers of each group.

use crate::format::entry::{EntryHeader, EntryId, HeaderError};
use crate::format::keys::{StateKey, StateKind, rlog_index, rlog_key};
use crate::format::rows::{id_row, purged_row, split_id, split_purged};
use crate::recovery::state::{Failure, Recovery};
use crate::store::kv::Row;
use crate::write::tail::Tail;
use fjall::PersistMode;
use std::collections::BTreeMap;
use std::sync::Arc;
use weir_types::GroupId;

impl Recovery {
    pub(super) fn groups(&self) -> fjall::Result<Vec<GroupId>> {
        let mut groups: Vec<GroupId> = self.watermark.value.groups.keys().copied().collect();
        let mut next = Some(0u16);
        while let Some(from) = next {
            let row = self.keyspaces.rlog.range(rlog_key(GroupId(from), 0)..).next();
            let Some(key) = row.map(Row::key).transpose()? else {
                break;
            };
            let Some(id) = key.first_chunk::<2>().map(|b| u16::from_be_bytes(*b)) else {
                break;
            };
            groups.push(GroupId(id));
            next = id.checked_add(1);
        }
        // A group may have purged all its headers: then only `state` knows the group.
        for kind in [StateKind::Applied, StateKind::Purged] {
            for row in self.keyspaces.state.prefix([kind as u8]) {
                let key = row.key()?;
                let id = key.get(1..).and_then(|rest| rest.first_chunk::<2>());
                groups.extend(id.map(|id| GroupId(u16::from_be_bytes(*id))));
            }
        }
        groups.sort_unstable();
        groups.dedup();
        Ok(groups)
    }

    /// Walks the headers of `group`. Returns the end of the chain and the headers whose effects are not in
    /// `state` yet.
    pub(super) fn walk_chain(&mut self, group: GroupId) -> Result<(Tail, Vec<Arc<EntryHeader>>), Failure> {
        let row = |kind| StateKey::new(kind, &group.0.to_be_bytes());
        let purged = self.keyspaces.state.get(row(StateKind::Purged).as_bytes())?;
        let (purged, purged_crc) = purged.as_deref().and_then(split_purged).unwrap_or_default();
        let applied = self.keyspaces.state.get(row(StateKind::Applied).as_bytes())?;
        let applied = applied.as_deref().and_then(split_id).unwrap_or_default();
        let low = self
            .watermark
            .value
            .groups
            .get(&group)
            .copied()
            .unwrap_or_default();

        let mut tail = Tail {
            last: purged,
            crc: purged_crc,
            purged,
            purged_crc,
            applied,
        };
        let mut broken = false;
        let mut replay = Vec::new();
        let range = rlog_key(group, purged.index + 1)..=rlog_key(group, u64::MAX);
        let rows: Vec<_> = self.keyspaces.rlog.range(range).map(Row::into_inner).collect();
        for row in rows {
            let (key, value) = row?;
            let Some(index) = rlog_index(&key) else { continue };
            let (header, crc, chained) = match EntryHeader::decode(group, index, &value) {
                Ok(decoded) => decoded,
                Err(HeaderError::Format(newer)) => return Err(newer.into()),
                Err(HeaderError::Damaged) => {
                    self.note(format!("header of entry {index} is damaged"));
                    broken = true;
                    continue;
                }
            };
            let due = tail.last.index + 1;
            if index != due {
                self.note(format!("entries {due} to {} are missing", index - 1));
                broken = true;
            } else if chained != tail.crc && !broken {
                self.note(format!("entry {index} does not follow from the one before it"));
                broken = true;
            }
            if index == low.index && crc != low.crc {
                self.note(format!("entry {index} is not the one that was synced"));
                broken = true;
            }
            tail = Tail {
                last: header.id(),
                crc,
                ..tail
            };
            if index > applied.index {
                replay.push(Arc::new(header));
            }
        }
        if tail.last.index < low.index.max(applied.index) {
            let last = low.index.max(applied.index);
            let due = tail.last.index + 1;
            self.note(format!("entries {due} to {last} were synced and are missing"));
            // Their indexes are not used again: later entries must not pass for the lost ones.
            tail.last = EntryId {
                term: tail.last.term.max(applied.term),
                index: last,
            };
            broken = true;
        }
        self.suspect |= broken;
        Ok((tail, replay))
    }

    /// Restarts the groups' logs behind the end, as after a purge: after damage the chain may have holes, and
    /// its remains have been replayed.
    pub(super) fn restart_group_logs(&mut self, tails: &mut BTreeMap<GroupId, Tail>) -> fjall::Result<()> {
        let mut batch = self.keyspaces.db.batch();
        for (group, tail) in tails {
            for guard in self
                .keyspaces
                .rlog
                .range(rlog_key(*group, 0)..=rlog_key(*group, u64::MAX))
            {
                batch.remove(&self.keyspaces.rlog, guard.key()?);
            }
            tail.purged = tail.last;
            tail.purged_crc = tail.crc;
            tail.applied = tail.last;
            for (kind, value) in [
                (StateKind::Purged, purged_row(tail.last, tail.crc)),
                (StateKind::Applied, id_row(tail.last).to_vec()),
            ] {
                let key = StateKey::new(kind, &group.0.to_be_bytes());
                batch.insert(&self.keyspaces.state, key.as_bytes(), value);
            }
        }
        batch.commit(PersistMode::SyncAll)
    }
}
