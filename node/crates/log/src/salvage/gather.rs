//! Gathering rows and batches from all files, and choosing between versions.

use crate::format::entry::EntryHeader;
use crate::format::keys::{StateKey, StateKind, data_key, rlog_index, split_data_key};
use crate::format::position::Position;
use crate::format::rows::gap_of;
use crate::recovery::carve::{Item, Region, Stray, Value, find, is_batch_of, is_header};
use crate::recovery::journal;
use crate::recovery::markers::REMOVED;
use crate::salvage::places::Places;
use crate::salvage::source::{
    CameBack, DATA, Failure, RLOG, STATE, STRAYS_BYTES_MAX, blob_at, entries, named_keyspaces, read,
};
use crate::salvage::{blob, table};
use crate::store::keyspaces::Keyspaces;
use crate::store::kv::{Database, Keyspace};
use crate::store::rows_copy::{self, RowsCopy};
use crate::store::value_log::frame::{FRAME_BYTES, FrameHeader, Pointer};
use crate::store::value_log::{VALUES, segment_of};
use crate::store::watermark::WatermarkFile;
use bytes::Bytes;
use fjall::PersistMode;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use weir_types::planted::{Bug, planted};
use weir_types::{Batch, GapReason, GroupId, Offset, PartitionId};

/// Sequence numbers of the rows in the new database.
pub(super) struct Newest {
    /// Keeps the database open.
    pub(super) _db: fjall::Database,
    pub(super) seen: fjall::Keyspace,
}

/// Sequence number of a row without a checksum: every other version is newer.
const GUESSED: u64 = 0;

/// A database being rebuilt.
pub(super) struct Salvage<'a> {
    pub(super) keyspaces: Keyspaces,
    /// `None` without an old database.
    pub(super) newest: Option<Newest>,
    watermark: &'a WatermarkFile,
    marked: bool,
    strays: Vec<Stray>,
    stray_bytes: usize,
    pub(super) unreadable: Vec<String>,
    pub(super) partitions: BTreeMap<PartitionId, CameBack>,
}

impl<'a> Salvage<'a> {
    /// Starts a repair into the empty `keyspaces`, bounded by `watermark`. `newest` is needed where there is
    /// an old database.
    pub(super) fn new(
        keyspaces: Keyspaces,
        newest: Option<Newest>,
        watermark: &'a WatermarkFile,
        marked: bool,
    ) -> Self {
        let (strays, unreadable, partitions) = Default::default();
        Self {
            keyspaces,
            newest,
            watermark,
            marked,
            strays,
            stray_bytes: 0,
            unreadable,
            partitions,
        }
    }

    /// Reads all files of the database.
    pub(super) fn files(&mut self, dir: &Path) -> Result<(), Failure> {
        let db = dir.join("db");
        let named = named_keyspaces(&db)?;
        for path in entries(&db)? {
            if path.extension().is_some_and(|e| e == "jnl") {
                self.journal(&path, &named)?;
            }
        }
        let removed = dir.join("quarantine").join(REMOVED);
        for home in [db.join("keyspaces"), removed] {
            for (number, keyspace) in &named {
                let (home, keyspace) = (home.join(number.to_string()), *keyspace);
                let blobs = home.join("blobs");
                for path in entries(&home.join("tables"))? {
                    self.table(&path, keyspace, &blobs)?;
                }
                for path in entries(&blobs)? {
                    self.blobs(&path, keyspace)?;
                }
            }
        }
        Ok(())
    }

    fn journal(&mut self, path: &Path, named: &BTreeMap<u64, u64>) -> Result<(), Failure> {
        let bytes = read(path)?;
        for (number, item) in journal::rows(&bytes) {
            if let Some(keyspace) = named.get(&number) {
                self.take(*keyspace, item, true)?;
            }
        }
        Ok(())
    }

    fn table(&mut self, path: &Path, keyspace: u64, blobs: &Path) -> Result<(), Failure> {
        let bytes = read(path)?;
        let (mut rows, mut bad) = (Vec::new(), Vec::new());
        table::read(&bytes, &mut |item| rows.push(item), &mut |region| {
            bad.push(region)
        });
        for item in rows {
            self.row(keyspace, item, blobs, true)?;
        }
        for region in bad {
            let mut guessed = Vec::new();
            table::guess(&region, &mut |item| guessed.push(item));
            for item in guessed {
                self.row(keyspace, item, blobs, false)?;
            }
            self.region(path, &region, None);
        }
        Ok(())
    }

    fn row(&mut self, keyspace: u64, item: Item<'_>, blobs: &Path, is_vouched: bool) -> Result<(), Failure> {
        let Value::Blob { file, offset, len } = item.value else {
            return self.take(keyspace, item, is_vouched);
        };
        // The frame has the same key unless damaged; then the row names the owner.
        let found = blob_at(&blobs.join(file.to_string()), offset, item.key.len(), len);
        match found.filter(|batch| is_batch_of(&item.key, batch)) {
            Some(batch) => {
                let value = Value::Here(&batch);
                self.take(keyspace, Item { value, ..item }, is_vouched)
            }
            None => Ok(()),
        }
    }

    fn blobs(&mut self, path: &Path, keyspace: u64) -> Result<(), Failure> {
        let bytes = read(path)?;
        let (mut rows, mut bad) = (Vec::new(), Vec::new());
        blob::read(&bytes, &mut |item| rows.push(item), &mut |region| {
            bad.push(region)
        });
        for item in rows {
            self.take(keyspace, item, true)?;
        }
        for region in bad {
            self.region(path, &region, Some(data_key(PartitionId(0), Offset::ZERO).len()));
        }
        Ok(())
    }

    /// Keeps the batches of a region that cannot be read as blocks or frames.
    fn region(&mut self, path: &Path, region: &Region<'_>, key_before: Option<usize>) {
        let mut strays = Vec::new();
        find(region, key_before, &mut |stray| strays.push(stray));
        // The end of a table is an index, which is not needed.
        let found = strays.len();
        strays.into_iter().for_each(|stray| self.keep_stray(stray));
        if found > 0 {
            self.unreadable.push(format!(
                "{} bytes at {} of `{}` are damaged; {found} batches in them are whole",
                region.bytes.len(),
                region.from,
                path.display(),
            ));
        }
    }

    fn keep_stray(&mut self, stray: Stray) {
        self.stray_bytes += stray.batch.bytes().len();
        match self.stray_bytes <= STRAYS_BYTES_MAX {
            true => self.strays.push(stray),
            false => self.unreadable.push(format!(
                "a whole batch of {} records from offset {} is left out: there is too much damage to hold what is found in it",
                stray.batch.count(),
                stray.batch.base_offset(),
            )),
        }
    }

    /// Puts a row into the new database, unless a newer version is there. A row without a checksum must prove
    /// itself.
    fn take(&mut self, keyspace: u64, item: Item<'_>, is_vouched: bool) -> Result<(), Failure> {
        let key = &item.key[..];
        let proves_itself = match (keyspace, &item.value) {
            (DATA, Value::Here(value)) => Pointer::decode(value).is_some() || is_batch_of(key, value),
            (RLOG, Value::Here(value)) => is_header(key, value),
            _ => false,
        };
        let seqno = if is_vouched { item.seqno } else { GUESSED };
        let to = match keyspace {
            RLOG => &self.keyspaces.rlog,
            DATA => &self.keyspaces.data,
            STATE => &self.keyspaces.state,
            _ => return Ok(()),
        };
        if !is_vouched && !proves_itself {
            return Ok(());
        }
        if let (DATA, false, Value::Here(value)) = (keyspace, is_vouched, &item.value)
            && Pointer::decode(value).is_none()
        {
            // The key may be wrong by a bit.
            let partition = split_data_key(key).map(|(partition, _)| partition);
            let batch = Batch::parse(Bytes::copy_from_slice(value)).ok();
            if let Some(batch) = batch {
                self.keep_stray(Stray {
                    partition,
                    batch,
                    at: 0,
                });
            }
            return Ok(());
        }
        // A batch that is not whole must not stand in the way of a whole version.
        if keyspace == DATA && !proves_itself && matches!(item.value, Value::Here(_)) {
            return Ok(());
        }
        if let Some(newest) = &self.newest {
            let seen = [&[keyspace as u8], key].concat();
            let before = newest.seen.get(&seen)?;
            let before = before.and_then(|n| n.first_chunk().map(|n| u64::from_be_bytes(*n)));
            if before.is_some_and(|before| before > seqno) {
                return Ok(());
            }
            let mut is_now = seqno.to_be_bytes().to_vec();
            is_now.push(u8::from(matches!(item.value, Value::Removed)));
            newest.seen.insert(seen, is_now)?;
        }
        match (to, item.value) {
            (Keyspace::Files(to), Value::Here(value)) => to.insert(key, value)?,
            (Keyspace::Files(to), Value::Removed) => to.remove(key)?,
            _ => {}
        }
        Ok(())
    }

    /// Reads everything outside of the database, including the segments `brought` back from quarantine, and
    /// derives the remaining rows.
    pub(super) fn finish(&mut self, dir: &Path, brought: &[PathBuf]) -> Result<(), Failure> {
        self.copied_rows(dir)?;
        let places = self.places()?;
        self.judge(&places)?;
        // The newest first: segments brought back have lower numbers than those written later, and
        // quarantined segments are older.
        let (old, new): (Vec<_>, Vec<_>) = entries(&dir.join(VALUES))?
            .into_iter()
            .rev()
            .partition(|path| brought.contains(path));
        for path in new.into_iter().chain(old) {
            if let Some(segment) = segment_of(&path) {
                self.frames(&path, segment, &places)?;
            }
        }
        self.place_strays(&places)?;
        self.accounts(&places)?;
        match &self.keyspaces.db {
            Database::Files(db) => Ok(db.persist(PersistMode::SyncAll)?),
            #[cfg(any(test, feature = "testing"))]
            Database::Simulated(_) => Ok(()),
        }
    }

    /// Reads the rows of the second copy, which win over the database's rows where the copy is as new.
    fn copied_rows(&mut self, dir: &Path) -> Result<(), Failure> {
        let at = dir.join(rows_copy::FILE);
        let found = RowsCopy::load(dir).map_err(|e| Failure::File(at, e))?;
        let state = self.keyspaces.state.clone();
        let mut batch = self.keyspaces.db.batch();
        found.restore(&state, &mut batch)?;
        // Another node still has all received batches.
        for kind in [StateKind::Incoming, StateKind::Segment] {
            for row in state.prefix([kind as u8]) {
                batch.remove(&state, row.key()?);
            }
        }
        // Losses of an earlier start may be found now; the rest is reported again.
        for row in state.prefix([StateKind::Gap as u8]) {
            let (key, value) = row.into_inner()?;
            if gap_of(&key, &value).is_some_and(|(_, gap)| gap.reason == GapReason::Lost) {
                batch.remove(&state, key);
            }
        }
        batch.commit(PersistMode::Buffer)?;
        Ok(())
    }

    /// Returns the ranges that may hold records: existing partitions without trimmed offsets and known gaps.
    fn places(&self) -> Result<Places, Failure> {
        let mut places = Places::default();
        for row in self.keyspaces.state.prefix([StateKind::Position as u8]) {
            let (key, value) = row.into_inner()?;
            let id = key.get(1..).and_then(|k| k.first_chunk());
            let position = Position::decode(&Bytes::from(value));
            if let Some((id, position)) = id.zip(position) {
                let id = PartitionId(u32::from_be_bytes(*id));
                places.starts.insert(id, position.log_start);
            }
        }
        for (id, reserve) in &self.watermark.value.partitions {
            match places.starts.get_mut(id) {
                Some(start) => *start = (*start).max(reserve.log_start),
                // The partition was dropped.
                None if self
                    .was_removed(STATE, StateKey::partition(StateKind::Position, *id).as_bytes())? => {}
                None => drop(places.starts.insert(*id, reserve.log_start)),
            }
        }
        places.all = !self.marked;
        for row in self.keyspaces.state.prefix([StateKind::Gap as u8]) {
            let (key, value) = row.into_inner()?;
            if let Some((partition, gap)) = gap_of(&key, &value)
                && gap.reason != GapReason::Lost
            {
                places
                    .gaps
                    .entry(partition)
                    .or_default()
                    .push((gap.start, gap.end));
            }
        }
        for row in self.keyspaces.rlog.iter() {
            let (key, value) = row.into_inner()?;
            let group = key.first_chunk().map(|g| GroupId(u16::from_be_bytes(*g)));
            let header = group
                .zip(rlog_index(&key))
                .and_then(|(group, index)| EntryHeader::decode(group, index, &value).ok());
            for append in header.iter().flat_map(|(header, ..)| header.appends()) {
                places.name(append.partition, append.base, append.crc);
            }
        }
        Ok(places)
    }

    /// Checks each row of `data`, and removes rows without readable bytes or of removed records.
    fn judge(&mut self, places: &Places) -> Result<(), Failure> {
        let mut gone = self.keyspaces.db.batch();
        for row in self.keyspaces.data.iter() {
            let (key, value) = row.into_inner()?;
            let payload = self.keyspaces.payload(&key, value).ok();
            let batch = payload.and_then(|bytes| Batch::parse(bytes).ok());
            let whole = split_data_key(&key)
                .zip(batch)
                .filter(|((partition, base), batch)| {
                    batch.base_offset() == *base && places.may_hold(*partition, batch)
                });
            match whole {
                Some(((partition, _), batch)) => self.came_back(partition, &batch),
                None => gone.remove(&self.keyspaces.data, key),
            }
        }
        gone.commit(PersistMode::Buffer)?;
        Ok(())
    }

    fn came_back(&mut self, partition: PartitionId, batch: &Batch) {
        let back = self.partitions.entry(partition).or_default();
        back.batches += 1;
        back.records += u64::from(batch.count());
        back.bytes += batch.bytes().len() as u64;
        back.max_timestamp = back.max_timestamp.max(batch.max_timestamp());
    }

    /// Takes the frames of a segment that no row points to: a frame names its own key.
    fn frames(&mut self, path: &Path, segment: u32, places: &Places) -> Result<(), Failure> {
        let bytes = Bytes::from(read(path)?);
        let mut whole = Vec::new();
        let (mut at, mut begun) = (0, None);
        while at < bytes.len() {
            let rest = bytes.get(at..).unwrap_or_default();
            let header = rest.first_chunk().and_then(FrameHeader::decode);
            let end = header.map(|h| FRAME_BYTES + h.len as usize);
            let (Some(header), Some(end)) = (header, end.filter(|end| *end <= rest.len())) else {
                begun.get_or_insert(at);
                at += 1;
                continue;
            };
            if let Some(begun) = begun.take() {
                self.region(path, &Region::of(&bytes, begun, at), Some(FRAME_BYTES));
            }
            let batch = Batch::parse(bytes.slice(at + FRAME_BYTES..at + end)).ok();
            match batch.filter(|batch| batch.base_offset() == header.base) {
                Some(batch) => whole.push((header, (at + FRAME_BYTES) as u64, batch)),
                // Not searched: records may contain bytes that look like a batch.
                None => self.unreadable.push(format!(
                    "the batch of partition {} at offset {} in `{}` is damaged",
                    header.partition,
                    header.base,
                    path.display(),
                )),
            }
            at += end;
        }
        if let Some(begun) = begun {
            self.region(path, &Region::of(&bytes, begun, at), Some(FRAME_BYTES));
        }
        for (header, at, batch) in whole.iter().rev() {
            let (partition, len) = (header.partition, header.len);
            if !planted(Bug::SkipReadableFrame) && self.fits(partition, batch, places)? {
                let pointer = Pointer {
                    segment,
                    at: *at,
                    len,
                };
                let mut row = self.keyspaces.db.batch();
                row.insert(
                    &self.keyspaces.data,
                    data_key(partition, header.base),
                    pointer.encode(),
                );
                row.commit(PersistMode::Buffer)?;
                self.came_back(partition, batch);
            }
        }
        Ok(())
    }

    /// Places batches of uncertain origin: each goes where a header names it, or where a batch is missing.
    fn place_strays(&mut self, places: &Places) -> Result<(), Failure> {
        for stray in std::mem::take(&mut self.strays) {
            let Some(partition) = self.place(&stray, places)? else {
                continue;
            };
            let base = stray.batch.base_offset();
            let mut row = self.keyspaces.db.batch();
            let bytes = fjall::Slice::from(stray.batch.clone().into_bytes());
            row.insert(&self.keyspaces.data, data_key(partition, base), bytes);
            row.commit(PersistMode::Buffer)?;
            tracing::info!(%partition, %base, at = stray.at, "a batch is found in damaged bytes");
            self.came_back(partition, &stray.batch);
        }
        Ok(())
    }

    fn place(&mut self, stray: &Stray, places: &Places) -> Result<Option<PartitionId>, Failure> {
        let batch = &stray.batch;
        let owners = places.owners(batch);
        // The key decides between several partitions with the same batch; a key that no header confirms may
        // be damaged.
        let keyed = stray
            .partition
            .filter(|p| owners.is_empty() || owners.contains(p));
        let sole = owners.first().filter(|_| owners.len() == 1).copied();
        // With a single partition, no other partition's records can be confused with its own.
        let only = places
            .starts
            .keys()
            .next()
            .filter(|_| places.starts.len() == 1)
            .copied();
        let Some(partition) = keyed.or(sole).or(only) else {
            self.unreadable.push(format!(
                "a batch of {} records from offset {} is whole, and nothing says of which partition: it is left out",
                batch.count(),
                batch.base_offset(),
            ));
            return Ok(None);
        };
        Ok(self.fits(partition, batch, places)?.then_some(partition))
    }

    /// Returns the first offset after the last batch of `partition` that begins before `to`.
    fn end_before(&self, partition: PartitionId, to: Offset) -> Result<Offset, Failure> {
        let range = data_key(partition, Offset::ZERO)..data_key(partition, to);
        let Some(row) = self.keyspaces.data.range(range).next_back() else {
            return Ok(Offset::ZERO);
        };
        let (key, value) = row.into_inner()?;
        let payload = self.keyspaces.payload(&key, value).ok();
        let batch = payload.and_then(|bytes| Batch::parse(bytes).ok());
        Ok(batch.map_or(Offset::ZERO, |batch| batch.end_offset()))
    }

    fn last_end(&self, partition: PartitionId) -> Result<Offset, Failure> {
        self.end_before(partition, Offset::MAX)
    }

    /// Returns true when `batch` is missing from `partition`.
    fn fits(&self, partition: PartitionId, batch: &Batch, places: &Places) -> Result<bool, Failure> {
        let is_taken = self.end_before(partition, batch.end_offset())? > batch.base_offset();
        if is_taken || !places.may_hold(partition, batch) {
            return Ok(false);
        }
        // The removed batch may have been an earlier one, truncated before this batch was written.
        let is_named = places.owners(batch).contains(&partition);
        Ok(is_named || !self.was_removed(DATA, &data_key(partition, batch.base_offset()))?)
    }

    /// Returns true when the newest version of a row is a removal.
    fn was_removed(&self, keyspace: u64, key: &[u8]) -> Result<bool, Failure> {
        let seen = [&[keyspace as u8], key].concat();
        Ok(match &self.newest {
            Some(newest) => newest.seen.get(seen)?.is_some_and(|row| row.last() == Some(&1)),
            None => false,
        })
    }

    /// Counts the live bytes of each segment and the bytes of each partition.
    fn accounts(&mut self, places: &Places) -> Result<(), Failure> {
        let mut live: BTreeMap<u32, u64> = BTreeMap::new();
        for row in self.keyspaces.data.iter() {
            let (_, value) = row.into_inner()?;
            if let Some(pointer) = Pointer::decode(&value) {
                *live.entry(pointer.segment).or_default() += pointer.frame_bytes();
            }
        }
        let mut batch = self.keyspaces.db.batch();
        for (segment, bytes) in live {
            let key = StateKey::new(StateKind::Segment, &segment.to_be_bytes());
            batch.insert(&self.keyspaces.state, key.as_bytes(), bytes.to_be_bytes());
        }
        for (partition, back) in &self.partitions {
            let key = StateKey::partition(StateKind::Position, *partition);
            let row = self.keyspaces.state.get(key.as_bytes())?;
            let known = row.and_then(|row| Position::decode(&Bytes::from(row)));
            let position = Position {
                bytes: back.bytes,
                committed_end: self.last_end(*partition)?,
                ..known.unwrap_or_default()
            };
            let start = position
                .log_start
                .max(places.starts.get(partition).copied().unwrap_or_default());
            let position = Position {
                log_start: start,
                max_timestamp: position.max_timestamp.max(back.max_timestamp),
                committed_end: position
                    .committed_end
                    .max(known.map_or(start, |p| p.committed_end)),
                ..position
            };
            batch.insert(&self.keyspaces.state, key.as_bytes(), position.encode());
        }
        batch.commit(PersistMode::Buffer)?;
        Ok(())
    }
}
