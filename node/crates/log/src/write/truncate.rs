//! Removing entries from either end of a group's log.

use crate::format::entry::EntryHeader;
use crate::format::keys::{StateKey, StateKind, data_key, rlog_index, rlog_key};
use crate::format::rows::purged_row;
use crate::write::store_writer::StoreWriter;
use fjall::PersistMode;
use weir_types::GroupId;
use weir_types::planted::{Bug, planted};

impl StoreWriter {
    /// Removes the entries from `from` on, with their rows, in a single batch.
    pub(super) fn truncate(&mut self, group: GroupId, from: u64) -> fjall::Result<()> {
        let mut batch = self.keyspaces.db.batch();
        for guard in self
            .keyspaces
            .rlog
            .range(rlog_key(group, from)..=rlog_key(group, u64::MAX))
        {
            let (key, value) = guard.into_inner()?;
            let header = rlog_index(&key).and_then(|i| EntryHeader::decode(group, i, &value).ok());
            let header = header.filter(|_| !planted(Bug::TruncateKeepsBatches));
            for append in header.iter().flat_map(|(h, ..)| h.appends()) {
                self.remove_row(&mut batch, data_key(append.partition, append.base).into())?;
                let gap = StateKey::partition_offset(StateKind::Gap, append.partition, append.base);
                batch.remove(&self.keyspaces.state, gap.as_bytes());
            }
            batch.remove(&self.keyspaces.rlog, key);
        }
        let tail = self.tails.entry(group).or_default();
        let index = from.saturating_sub(1);
        let last = self.keyspaces.rlog.get(rlog_key(group, index))?;
        let last = last.and_then(|row| EntryHeader::decode(group, index, &row).ok());
        (tail.last, tail.crc) = last.map_or((tail.purged, tail.purged_crc), |(h, crc, _)| (h.id(), crc));
        // The watermark may name a removed entry, which must not look like a loss after a power cut.
        self.save_watermark(false)?;
        self.values.stage(&mut batch, &self.keyspaces.state);
        batch.commit(PersistMode::SyncData)?;
        self.values.remove_dead();
        Ok(())
    }

    /// Removes headers, except those whose effects are not written yet. Payloads stay: they belong to
    /// retention.
    pub(super) fn purge(&mut self, group: GroupId, upto: u64) -> fjall::Result<()> {
        let tail = self.tails.entry(group).or_default();
        let upto = upto.min(tail.applied.index);
        if upto <= tail.purged.index {
            return Ok(());
        }
        let last = self.keyspaces.rlog.get(rlog_key(group, upto))?;
        let Some((header, crc, _)) = last.and_then(|row| EntryHeader::decode(group, upto, &row).ok()) else {
            return Ok(());
        };
        let mut batch = self.keyspaces.db.batch();
        for index in tail.purged.index + 1..=upto {
            batch.remove(&self.keyspaces.rlog, rlog_key(group, index));
        }
        (tail.purged, tail.purged_crc) = (header.id(), crc);
        let key = StateKey::new(StateKind::Purged, &group.0.to_be_bytes());
        let row = purged_row(tail.purged, crc);
        batch.insert(&self.keyspaces.state, key.as_bytes(), row);
        batch.commit(PersistMode::Buffer)
    }
}
