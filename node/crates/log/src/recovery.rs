//! Opening a log after whatever happened to it.
//!
//! In order: look at the journals and mend them ([`crate::journal`]), open the database, walk each group's chain of
//! headers, compare its end with the separately synced low-water mark, and see that every partition ends where it
//! should. Entries whose effects are not in `state` are left to their group, which knows whether they are committed. What is missing becomes a `lost` gap, and the
//! partition goes on at its ceiling, so that no offset is ever given out twice.

use crate::beside::{ENDS_GONE, JOURNALS_GONE, REPAIRED, note_damage};
use crate::copy::RowsCopy;
use crate::entry::HeaderError;
use crate::gaps::{gap_of, gap_row};
use crate::journal::Findings;
use crate::keys::{StateKey, StateKind, data_key, rlog_index, rlog_key, split_data_key};
use crate::kv::Row;
#[cfg(any(test, feature = "testing"))]
use crate::opening::open_simulated;
use crate::opening::{Opened, everything, open_files, open_keyspaces, unopened};
use crate::reader::Scan;
use crate::refused::unusable;
use crate::store::{Keyspaces, Options, Shared, Store};
use crate::tails::{Tail, id_row, purged_row, split_id, split_purged};
use crate::value_log::{VALUES, ValueLog, ValueOptions, ValueWriter};
use crate::watermark::WatermarkFile;
use crate::writer::Writer;
use crate::{Damage, EntryHeader, EntryId, FormatError, Marks, OpenError, Piece, Position, ReadError};
use bytes::Bytes;
use fjall::PersistMode;
use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use weir_types::{Batch, Gap, GapReason, GroupId, Offset, PartitionId};

/// What opening a log found and did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// The last shutdown was orderly.
    pub clean: bool,
    /// Entries whose effects are not yet made: they are, once the group knows that they are committed.
    pub unapplied: u64,
    /// Bytes of an unfinished write that were cut off: never acknowledged.
    pub torn_bytes: u64,
    /// Journal frames whose marks were put right.
    pub frames_repaired: u64,
    /// What is missing.
    pub damage: Damage,
    /// Where each group's log stands.
    pub groups: BTreeMap<GroupId, GroupState>,
}

/// Where a group's log stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GroupState {
    /// The last entry whose header is gone.
    pub purged: EntryId,
    /// The last entry whose effects are in `state`.
    pub applied: EntryId,
    /// The last entry.
    pub last: EntryId,
}

pub(crate) struct State {
    pub(crate) keyspaces: Keyspaces,
    pub(crate) watermark: WatermarkFile,
    pub(crate) values: ValueWriter,
    pub(crate) copy: RowsCopy,
    pub(crate) tails: BTreeMap<GroupId, Tail>,
    pub(crate) positions: BTreeMap<PartitionId, Position>,
    pub(crate) gaps: BTreeMap<PartitionId, Vec<Gap>>,
    pub(crate) recovered: Recovered,
    pub(crate) lock: Option<File>,
}

/// Why what is there was not recovered.
enum Failure {
    Store(fjall::Error),
    /// A later release wrote it.
    Format(FormatError),
    /// Something is missing, and it is not to be mended.
    NotWhole(Damage),
}

impl From<fjall::Error> for Failure {
    fn from(e: fjall::Error) -> Self {
        Self::Store(e)
    }
}

impl From<std::io::Error> for Failure {
    fn from(e: std::io::Error) -> Self {
        Self::Store(e.into())
    }
}

impl From<FormatError> for Failure {
    fn from(e: FormatError) -> Self {
        Self::Format(e)
    }
}

/// Opens the log in `dir`, and mends what is missing.
///
/// # Errors
/// When it cannot be opened, or is damaged and not to be mended.
pub(crate) fn open(dir: &Path, options: &Options, store: &Store) -> Result<State, OpenError> {
    let opened = open_whole(dir, options, store);
    if let Err(OpenError::Damaged { why, damage, .. }) = &opened
        && dir.join("db").exists()
    {
        note_damage(dir, why, &damage.notes);
    }
    opened.map_err(|e| match e {
        OpenError::Io { path, source } if path == dir => match unusable(dir, Some(&source)) {
            Some((path, source)) => OpenError::Io { path, source },
            None => OpenError::Io { path, source },
        },
        e => e,
    })
}

/// Says of a database that was made again where it has gaps, and begins the groups' logs anew behind what there is.
///
/// # Errors
/// As opening it.
pub(crate) fn mend_rebuilt(
    dir: &Path,
    db_dir: &Path,
    options: &Options,
    findings: Findings,
) -> Result<Recovered, OpenError> {
    let io = |source| OpenError::Io {
        path: dir.to_owned(),
        source,
    };
    let (watermark, marked) = WatermarkFile::load(dir).map_err(io)?;
    let values = Arc::new(ValueLog::new(dir.join(VALUES)));
    let keyspaces = open_keyspaces(db_dir, values, options)
        .map_err(|_| io(std::io::Error::other("the database that was made does not open")))?;
    let opened = Opened {
        keyspaces,
        existed: true,
        findings,
        shelter: None,
        has_values_aside: false,
        was_there: true,
        lock: None,
    };
    let state = recover(dir, options, opened, watermark, marked, true)?;
    Ok(state.recovered)
}

fn open_whole(dir: &Path, options: &Options, store: &Store) -> Result<State, OpenError> {
    let io = |source| OpenError::Io {
        path: dir.to_owned(),
        source,
    };
    let (mut watermark, marked) = WatermarkFile::load(dir).map_err(io)?;
    let opened = match store {
        Store::Files => open_files(dir, options, &mut watermark, marked)?,
        #[cfg(any(test, feature = "testing"))]
        Store::Simulated(disk) => open_simulated(dir, disk, &mut watermark).map_err(io)?,
    };
    recover(dir, options, opened, watermark, marked, false)
}

/// Finds what is there in a database that is open, and mends what is missing.
fn recover(
    dir: &Path,
    options: &Options,
    opened: Opened,
    watermark: WatermarkFile,
    marked: bool,
    is_rebuilt: bool,
) -> Result<State, OpenError> {
    let Opened {
        keyspaces,
        existed,
        findings,
        shelter,
        has_values_aside,
        was_there,
        lock,
    } = opened;
    let journals_gone = findings.are_gone && existed && was_there;
    // Nothing says how far anything went. A node that was killed at any moment has either.
    let ends_gone = findings.are_gone && existed && !marked;
    if ends_gone && !is_rebuilt {
        return Err(OpenError::Damaged {
            path: dir.to_owned(),
            why: "the journals and both watermark files are not there".to_owned(),
            damage: Damage {
                notes: vec![ENDS_GONE.to_owned()],
                ..Damage::default()
            },
        });
    }
    let mut recovery = Recovery {
        recovered: Recovered {
            clean: watermark.value.clean || !existed,
            torn_bytes: findings.torn_bytes,
            frames_repaired: findings.frames_repaired,
            ..Recovered::default()
        },
        suspect: findings.frames_lost > 0 || journals_gone || is_rebuilt,
        // After an orderly stop the ends are known.
        is_tail_unknown: journals_gone && !watermark.value.clean,
        is_rebuilt,
        only_whole: options.only_whole && !is_rebuilt,
        dir: dir.to_owned(),
        quarantine: dir.join("quarantine"),
        value_file_bytes: options.value_file_bytes,
        headers_only: options.headers_only,
        keyspaces,
        watermark,
        lock,
    };
    if findings.frames_lost > 0 {
        recovery.note(format!(
            "{} damaged journal frames were set aside",
            findings.frames_lost
        ));
    }
    if journals_gone {
        recovery.note(JOURNALS_GONE.to_owned());
    }
    if has_values_aside {
        recovery.note("payloads without a database are set aside under `quarantine/`".to_owned());
    }
    if let Ok(lost) = std::fs::read_to_string(dir.join(REPAIRED)) {
        recovery.note(format!("a repair made the database again: {lost}"));
    }
    if ends_gone {
        recovery.note(ENDS_GONE.to_owned());
    }
    if is_rebuilt {
        recovery.note("the database was made again from what could be read".to_owned());
    }
    recovery.suspect |= !existed && marked;
    if existed && !marked {
        recovery.note("both watermark files are missing or damaged".to_owned());
        recovery.suspect = true;
    }
    let stake = everything(&recovery.watermark);
    let ran = recovery.run().map_err(|failure| match failure {
        Failure::Store(e) => unopened(dir, &e, stake),
        Failure::NotWhole(damage) => OpenError::Damaged {
            path: dir.to_owned(),
            why: "something is missing".to_owned(),
            damage,
        },
        Failure::Format(why) => OpenError::Newer {
            path: dir.to_owned(),
            why,
        },
    });
    let is_damaged = match &ran {
        Ok(state) => !state.recovered.damage.is_none(),
        // What the system refused may be whole: it is not known yet.
        Err(OpenError::Io { .. }) => return ran,
        Err(_) => true,
    };
    if let Some(shelter) = shelter {
        shelter.settle(is_damaged).map_err(|source| OpenError::Io {
            path: dir.to_owned(),
            source,
        })?;
    }
    ran
}

struct Recovery {
    dir: PathBuf,
    quarantine: PathBuf,
    value_file_bytes: u64,
    headers_only: bool,
    keyspaces: Keyspaces,
    watermark: WatermarkFile,
    recovered: Recovered,
    /// Something was missing: look at every partition from end to end.
    suspect: bool,
    /// What was written last is gone, and nothing says how far it went.
    is_tail_unknown: bool,
    /// It was made again.
    is_rebuilt: bool,
    /// Damage is not mended, but told.
    only_whole: bool,
    lock: Option<File>,
}

impl Recovery {
    fn run(mut self) -> Result<State, Failure> {
        let mut positions = self.load_positions()?;
        let mut gaps = self.load_gaps()?;
        if self.is_rebuilt {
            self.forget_what_came_back(&mut positions, &mut gaps)?;
        }
        let mut tails = BTreeMap::new();
        let mut replay = Vec::new();
        for group in self.groups()? {
            let (tail, headers) = self.walk_chain(group)?;
            tails.insert(group, tail);
            replay.extend(headers);
        }
        if self.suspect && self.only_whole {
            return Err(Failure::NotWhole(self.recovered.damage));
        }
        if !self.suspect {
            // Whether they are committed, only the group knows.
            self.recovered.unapplied = replay.len() as u64;
            replay.clear();
        }
        let values = ValueOptions {
            segment_bytes: self.value_file_bytes,
            // After damage, what seems to be nobody's may be all that is left of something.
            quarantine: self.suspect.then(|| self.quarantine.clone()),
        };
        let values = ValueWriter::open(&self.keyspaces, values)?;
        if self.suspect {
            self.restore_rows()?;
        }
        let kept;
        (positions, tails, self.watermark, kept) =
            replay_effects(&self.keyspaces, self.watermark, values, positions, tails, replay)?;
        if !self.headers_only {
            self.mend_partitions(&mut positions, &mut gaps)?;
        }
        if self.suspect {
            self.begin_anew(&mut tails)?;
        }
        if self.is_rebuilt {
            self.recount(&mut positions)?;
        }
        let copy = self.copy_rows()?;
        for (group, tail) in &tails {
            let Tail {
                last,
                purged,
                applied,
                ..
            } = *tail;
            let state = GroupState {
                purged,
                applied,
                last,
            };
            self.recovered.groups.insert(*group, state);
        }
        Ok(State {
            keyspaces: self.keyspaces,
            watermark: self.watermark,
            values: kept,
            copy,
            tails,
            positions,
            gaps,
            recovered: self.recovered,
            lock: self.lock,
        })
    }

    /// After damage: rows that say what there is come from their second copy. What entries do to them is done again afterwards.
    fn restore_rows(&self) -> fjall::Result<()> {
        let found = RowsCopy::load(&self.dir)?;
        let mut batch = self.keyspaces.db.batch();
        found.restore(&self.keyspaces.state, &mut batch)?;
        batch.commit(PersistMode::SyncAll)
    }

    /// Counts the bytes of each partition: of rows that were made again, entries that are done again have counted them twice.
    fn recount(&self, positions: &mut BTreeMap<PartitionId, Position>) -> fjall::Result<()> {
        positions.values_mut().for_each(|position| position.bytes = 0);
        for row in self.keyspaces.data.iter() {
            let key = row.key()?;
            let (bytes, _) = self.keyspaces.stored(&key)?;
            if let Some((partition, _)) = split_data_key(&key) {
                positions.entry(partition).or_default().bytes += u64::from(bytes);
            }
        }
        let mut batch = self.keyspaces.db.batch();
        for (partition, position) in positions {
            let key = StateKey::partition(StateKind::Position, *partition);
            batch.insert(&self.keyspaces.state, key.as_bytes(), position.encode());
        }
        batch.commit(PersistMode::SyncAll)
    }

    /// Makes sure that the second copy of rows is one of these.
    fn copy_rows(&self) -> fjall::Result<RowsCopy> {
        let mut copy = RowsCopy::new(&self.dir);
        if let Some(number) = copy.catch_up(&self.keyspaces.state)? {
            let mut batch = self.keyspaces.db.batch();
            let key = StateKey::new(StateKind::Copied, &[]);
            batch.insert(&self.keyspaces.state, key.as_bytes(), number.to_be_bytes());
            batch.commit(PersistMode::Buffer)?;
        }
        Ok(copy)
    }

    fn note(&mut self, note: String) {
        tracing::error!("{note}");
        self.recovered.damage.notes.push(note);
    }

    fn load_positions(&mut self) -> fjall::Result<BTreeMap<PartitionId, Position>> {
        let mut positions = BTreeMap::new();
        for guard in self.keyspaces.state.prefix([StateKind::Position as u8]) {
            let (key, value) = guard.into_inner()?;
            let id = key
                .get(1..)
                .and_then(|k| k.first_chunk::<4>())
                .map(|b| PartitionId(u32::from_be_bytes(*b)));
            match id.zip(Position::decode(&Bytes::from(value))) {
                Some((id, position)) => drop(positions.insert(id, position)),
                None => self.suspect = true,
            }
        }
        Ok(positions)
    }

    fn load_gaps(&self) -> fjall::Result<BTreeMap<PartitionId, Vec<Gap>>> {
        let mut gaps: BTreeMap<PartitionId, Vec<Gap>> = BTreeMap::new();
        for guard in self.keyspaces.state.prefix([StateKind::Gap as u8]) {
            let (key, value) = guard.into_inner()?;
            if let Some((partition, gap)) = gap_of(&key, &value) {
                gaps.entry(partition).or_default().push(gap);
            }
        }
        Ok(gaps)
    }

    /// Forgets of ranges that were lost that records of them are there again. What is still missing is found anew.
    fn forget_what_came_back(
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

    fn groups(&self) -> fjall::Result<Vec<GroupId>> {
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
        // One may have purged all its headers: where it stands is in `state` alone.
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

    /// Walks the headers of `group`. Returns where they end, and those whose effects are not yet in `state`.
    fn walk_chain(&mut self, group: GroupId) -> Result<(Tail, Vec<Arc<EntryHeader>>), Failure> {
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
            // Their numbers are not used again: what follows must not pass for them.
            tail.last = EntryId {
                term: tail.last.term.max(applied.term),
                index: last,
            };
            broken = true;
        }
        self.suspect |= broken;
        Ok((tail, replay))
    }

    /// Makes sure that each partition is whole up to its end, or says where it is not.
    fn mend_partitions(
        &mut self,
        positions: &mut BTreeMap<PartitionId, Position>,
        gaps: &mut BTreeMap<PartitionId, Vec<Gap>>,
    ) -> Result<(), Failure> {
        let mut batch = self.keyspaces.db.batch();
        let mut tail_lost = false;
        let reserves = self.watermark.value.partitions.clone();
        if self.suspect || self.watermark.value.clean {
            // A partition may have lost its row, and keep its records. After an orderly shutdown the watermark names
            // those that exist; after another it may still name one that was dropped.
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
                // Beyond the ceiling nothing was ever given out.
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
                // All that is there was replayed.
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

    /// After damage the chain of headers may have holes. What is left of them has been replayed: the groups' logs
    /// go on behind it, as after a purge.
    fn begin_anew(&mut self, tails: &mut BTreeMap<GroupId, Tail>) -> fjall::Result<()> {
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

    /// First offset after the last stored batch.
    fn last_end(&self, partition: PartitionId) -> fjall::Result<Offset> {
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
            // The row is there and its bytes are bad: readers and scrub name it, and it is not given out again.
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

    /// Ranges between `start` and `end` that hold no readable batch and are not known as gaps.
    fn holes(&self, partition: PartitionId, start: Offset, end: Offset, known: &[Gap]) -> Vec<Gap> {
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
                // What cannot be read for want of something else is not lost: whoever reads it will see.
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

type Replayed = (
    BTreeMap<PartitionId, Position>,
    BTreeMap<GroupId, Tail>,
    WatermarkFile,
    ValueWriter,
);

/// Makes the effects of `headers` again, by the same code that makes them while running.
fn replay_effects(
    keyspaces: &Keyspaces,
    watermark: WatermarkFile,
    values: ValueWriter,
    positions: BTreeMap<PartitionId, Position>,
    tails: BTreeMap<GroupId, Tail>,
    headers: Vec<Arc<EntryHeader>>,
) -> fjall::Result<Replayed> {
    let (_, commands) = mpsc::channel();
    let mut writer = Writer {
        keyspaces: keyspaces.clone(),
        shared: Arc::new(Shared::default()),
        commands,
        watermark,
        values,
        copy: RowsCopy::unused(),
        value_log_from_bytes: 0,
        sweep_reserve_bytes: 0,
        tails,
        positions,
        unsynced: None,
        since_watermark: 0,
        syncs_since_watermark: 0,
        since_sweep: 0,
        receiving: false,
        headers_only: false,
    };
    headers
        .into_iter()
        .for_each(|header| writer.shared.add_effects(header));
    let mut batch = keyspaces.db.batch();
    writer.stage_effects(&mut batch)?;
    writer.values.stage(&mut batch, &keyspaces.state);
    if !batch.is_empty() {
        batch.commit(PersistMode::SyncData)?;
    }
    while writer.values.has_dead() {
        writer.values.remove_dead();
    }
    Ok((writer.positions, writer.tails, writer.watermark, writer.values))
}
