//! The one thread that writes.
//!
//! Takes a command, drains what else is there up to a byte cap, makes one fjall batch of it and one sync (and one of
//! the value log before it, for a round of many bytes), and then tells the waiters: what queued up behind a sync goes
//! with the next, at once. Effects of committed entries ride along with the next batch and cost no sync of their own,
//! since recovery makes them again from the headers.
//! A failed write or sync ends the thread: its waiters' outcome is unknown, and everything later is refused.

use crate::copy::RowsCopy;
use crate::gaps::gap_row;
use crate::keys::{StateKey, StateKind, data_key, rlog_index, rlog_key};
use crate::kv::WriteBatch;
use crate::refused::is_full;
use crate::snapshot::{Install, LogSnapshot, Received};
use crate::stops::Stop;
use crate::store::{Keyspaces, Shared};
use crate::tails::{Tail, purged_row};
use crate::value_log::ValueWriter;
use crate::watermark::{Reserve, Synced, WatermarkFile};
use crate::workers::{Turn, Worker};
use crate::{AppendError, Entry, EntryHeader, Op, Position};
use fjall::PersistMode;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError};
use std::time::{Duration, Instant};
use weir_types::limits::{GROUP_COMMIT_BYTES_MAX, OFFSET_RESERVE};
use weir_types::planted::{Bug, planted};
use weir_types::{Batch, Gap, GapReason, GroupId, Offset, PartitionId};

/// Called once the entry is on the disk, or with why that is not known.
pub(crate) type Flushed = Box<dyn FnOnce(Result<(), AppendError>) + Send>;

pub(crate) enum Command {
    Append {
        entry: Entry,
        flushed: Flushed,
    },
    /// Removes the entries from `from` on, with their batches.
    Truncate {
        group: GroupId,
        from: u64,
        done: Flushed,
    },
    /// Writes a row that does not come from an entry, and syncs it.
    Local {
        key: StateKey,
        value: Vec<u8>,
        done: Flushed,
    },
    /// Forgets the headers up to `upto`.
    Purge {
        group: GroupId,
        upto: u64,
        done: Flushed,
    },
    /// Takes a snapshot of all that is applied.
    Snapshot {
        group: GroupId,
        done: Box<dyn FnOnce(Result<LogSnapshot, AppendError>) + Send>,
    },
    /// Keeps batches of another's snapshot until it is installed.
    Receive {
        received: Received,
        done: Flushed,
    },
    /// Puts batches in the place of those that cannot be read.
    Mend {
        received: Received,
        done: Box<dyn FnOnce(Result<usize, AppendError>) + Send>,
    },
    /// Writes what was applied so far.
    Settle {
        done: Flushed,
    },
    /// Makes another's snapshot this node's state.
    Install {
        install: Box<Install>,
        done: Flushed,
    },
    /// Removes all of a group.
    Forget {
        group: GroupId,
        done: Flushed,
    },
    Close {
        done: Flushed,
    },
}

impl Command {
    fn fail(self, error: AppendError) {
        match self {
            Self::Append { flushed: done, .. }
            | Self::Truncate { done, .. }
            | Self::Local { done, .. }
            | Self::Purge { done, .. }
            | Self::Receive { done, .. }
            | Self::Install { done, .. }
            | Self::Forget { done, .. }
            | Self::Settle { done }
            | Self::Close { done } => done(Err(error)),
            Self::Snapshot { done, .. } => done(Err(error)),
            Self::Mend { done, .. } => done(Err(error)),
        }
    }
}

/// How long lazy entries and effects wait for a batch to ride along with: the bound on what `durability = "lazy"`
/// may lose, and Redpanda's for the same setting.
const IDLE: Duration = Duration::from_millis(100);
/// How often it looks whether there is anything to do when there was nothing the last time: effects of entries that were
/// applied later, which no reader waits for.
const REST: Duration = Duration::from_secs(1);
/// The low-water mark follows after this many synced bytes: what it does not cover, only the chain does.
const WATERMARK_EVERY_BYTES: u64 = 64 << 20;
/// And after this many syncs, so that small records count as well: an older `db/` that is put beside files of today is
/// then found out, also where the node alone holds its group. The write and its sync are a 64th more.
const WATERMARK_EVERY_SYNCS: u32 = 64;
/// Batches from here on are worth a pointer: KV separation begins there too.
const SEPARATED_BYTES_MIN: usize = 1 << 10;
/// One step of emptying a file of the value log moves this much and at most a batch more, and comes after this many
/// bytes written: about a quarter more is written, and a round waits for it as for one of its own size.
const SWEEP_BYTES: u64 = 1 << 20;
const SWEEP_EVERY_BYTES: u64 = 4 << 20;

pub(crate) struct Writer {
    pub(crate) keyspaces: Keyspaces,
    pub(crate) shared: Arc<Shared>,
    pub(crate) commands: Receiver<Command>,
    pub(crate) watermark: WatermarkFile,
    pub(crate) values: ValueWriter,
    pub(crate) copy: RowsCopy,
    /// Payload bytes in one sync from which they go there.
    pub(crate) value_log_from_bytes: usize,
    /// With less room than that on the disk, payloads are not moved.
    pub(crate) sweep_reserve_bytes: u64,
    /// Last written entry of each group.
    pub(crate) tails: BTreeMap<GroupId, Tail>,
    /// Positions as `state` has them.
    pub(crate) positions: BTreeMap<PartitionId, Position>,
    /// Since when something is written and not synced.
    pub(crate) unsynced: Option<Instant>,
    pub(crate) since_watermark: u64,
    pub(crate) syncs_since_watermark: u32,
    pub(crate) since_sweep: u64,
    /// There are batches of a snapshot that is not yet installed.
    pub(crate) receiving: bool,
    /// Payloads are left to others: see [`crate::Options::headers_only`].
    pub(crate) headers_only: bool,
}

/// What one fjall batch and one sync carry.
struct Round {
    batch: WriteBatch,
    payloads: Vec<(PartitionId, Batch)>,
    flushed: Vec<Flushed>,
    ends: BTreeMap<PartitionId, Offset>,
    durable: bool,
    bytes: usize,
}

impl Worker for Writer {
    fn run(mut self: Box<Self>) {
        let mut idle = IDLE;
        let served = loop {
            let served = match self.commands.recv_timeout(idle) {
                Ok(command) => {
                    idle = IDLE;
                    self.take(command)
                }
                Err(RecvTimeoutError::Timeout) => self.settle().map(|is_settled| {
                    idle = if is_settled { REST } else { IDLE };
                    true
                }),
                Err(RecvTimeoutError::Disconnected) => self.close().map(|()| false),
            };
            if !matches!(served, Ok(true)) {
                break served;
            }
        };
        if self.ended(served) {
            while let Ok(command) = self.commands.recv_timeout(IDLE) {
                self.refuse(command);
            }
        }
    }

    fn turn(&mut self) -> Turn {
        let served = match self.commands.try_recv() {
            Ok(command) => self.take(command),
            Err(TryRecvError::Empty) => self.settle().map(|_| true),
            Err(TryRecvError::Disconnected) => self.close().map(|()| false),
        };
        if matches!(served, Ok(true)) {
            return Turn::Wait(Some(IDLE));
        }
        if self.ended(served) {
            while let Ok(command) = self.commands.try_recv() {
                self.refuse(command);
            }
        }
        Turn::Over
    }
}

impl Writer {
    /// Whether it ended because a write failed.
    fn ended(&self, served: fjall::Result<bool>) -> bool {
        let Err(e) = served else {
            self.shared.stop(None);
            return false;
        };
        let reason: Arc<str> = e.to_string().into();
        tracing::error!(%reason, "the log stopped: restart to recover");
        self.shared.stop(Some(reason));
        true
    }

    fn refuse(&self, command: Command) {
        let reason = self.shared.reason().unwrap_or_else(|| "a write failed".into());
        command.fail(AppendError::Poisoned(reason));
    }

    /// Takes a command, and those that are there behind it. False when that was the last.
    fn take(&mut self, first: Command) -> fjall::Result<bool> {
        let mut next = Some(first);
        let mut round = self.round();
        while let Some(command) = next.take() {
            match command {
                Command::Append { entry, flushed } => self.stage(&mut round, entry, flushed),
                Command::Truncate { group, from, done } => {
                    self.commit(round)?;
                    self.truncate(group, from)?;
                    done(Ok(()));
                    round = self.round();
                }
                Command::Local { key, value, done } => {
                    self.copy.note(key.as_bytes(), Some(&value));
                    round.batch.insert(&self.keyspaces.state, key.as_bytes(), value);
                    round.durable |= !planted(Bug::VoteNotSynced);
                    round.flushed.push(done);
                }
                // Effects ride along with whatever is committed.
                Command::Settle { done } => round.flushed.push(done),
                Command::Purge { group, upto, done } => {
                    self.commit(round)?;
                    self.purge(group, upto)?;
                    done(Ok(()));
                    round = self.round();
                }
                Command::Snapshot { group, done } => {
                    self.commit(round)?;
                    done(Ok(self.snapshot(group)?));
                    round = self.round();
                }
                Command::Receive { received, done } => {
                    self.commit(round)?;
                    self.receive(received)?;
                    done(Ok(()));
                    round = self.round();
                }
                Command::Mend { received, done } => {
                    self.commit(round)?;
                    done(Ok(self.mend(received)?));
                    round = self.round();
                }
                Command::Install { install, done } => {
                    self.commit(round)?;
                    self.install(*install)?;
                    done(Ok(()));
                    round = self.round();
                }
                Command::Forget { group, done } => {
                    self.commit(round)?;
                    self.forget(group)?;
                    done(Ok(()));
                    round = self.round();
                }
                Command::Close { done } => {
                    self.commit(round)?;
                    let closed = self.close();
                    // Gone before the caller goes on: it may open the directory again at once.
                    self.shared.stop(None);
                    done(Ok(()));
                    return closed.map(|()| false);
                }
            }
            if round.bytes < GROUP_COMMIT_BYTES_MAX {
                next = self.commands.try_recv().ok();
            }
        }
        self.commit(round)?;
        Ok(true)
    }

    fn round(&self) -> Round {
        Round {
            batch: self.keyspaces.db.batch(),
            payloads: Vec::new(),
            flushed: Vec::new(),
            ends: BTreeMap::new(),
            durable: false,
            bytes: 0,
        }
    }

    /// Takes an entry into the round: its header under its index, its payloads for [`Writer::stage_payloads`].
    fn stage(&mut self, round: &mut Round, entry: Entry, flushed: Flushed) {
        let header = entry.header();
        let tail = self.tails.entry(entry.group).or_default();
        let (bytes, crc) = header.encode(tail.crc);
        tail.last = entry.id();
        tail.crc = crc;
        round.bytes += bytes.len();
        round
            .batch
            .insert(&self.keyspaces.rlog, rlog_key(entry.group, entry.index), bytes);
        round.durable |= !entry.lazy;
        for op in entry.ops {
            match op {
                Op::Append { partition, batch } => {
                    round.bytes += batch.bytes().len();
                    round.ends.insert(partition, batch.end_offset());
                    round.payloads.push((partition, batch));
                }
                // Others have removed it, and an entry that comes later says so: it must not be missed here if the power
                // goes before that.
                Op::Gone(append) if !self.headers_only => {
                    let gap = Gap {
                        start: append.base,
                        end: append.end(),
                        reason: GapReason::Expired,
                    };
                    let (key, value) = gap_row(append.partition, &gap);
                    round.batch.insert(&self.keyspaces.state, key.as_bytes(), value);
                }
                _ => {}
            }
        }
        round.flushed.push(flushed);
    }

    fn commit(&mut self, mut round: Round) -> fjall::Result<()> {
        if round.flushed.is_empty() {
            return Ok(());
        }
        // Lazy is no more than that late, however busy it is.
        round.durable |= self.unsynced.is_some_and(|since| since.elapsed() >= IDLE);
        // Whatever fails from here on, the waiters hear of it.
        let prepared = self
            .reserve_offsets(&round.ends)
            .and_then(|()| self.stage_payloads(&mut round))
            .and_then(|()| self.stage_effects(&mut round.batch));
        self.values.stage(&mut round.batch, &self.keyspaces.state);
        let mode = if round.durable && !planted(Bug::NoSync) {
            PersistMode::SyncData
        } else {
            PersistMode::Buffer
        };
        Stop::Writing.here();
        if let Err(e) = prepared.and_then(|()| round.batch.commit(mode))
            && !(planted(Bug::NoRoomIsWritten) && is_full(&e))
        {
            let reason: Arc<str> = e.to_string().into();
            self.shared.stop(Some(Arc::clone(&reason)));
            for flushed in round.flushed {
                flushed(Err(AppendError::Poisoned(Arc::clone(&reason))));
            }
            return Err(e);
        }
        self.unsynced = match round.durable {
            true => None,
            false => self.unsynced.or_else(|| Some(Instant::now())),
        };
        self.shared.wrote(round.bytes as u64, round.durable);
        Stop::Written.here();
        self.copy.written(&self.keyspaces.state)?;
        for flushed in round.flushed {
            flushed(Ok(()));
        }
        self.since_watermark += round.bytes as u64;
        self.since_sweep += round.bytes as u64;
        if round.durable {
            self.values.remove_dead();
        }
        self.syncs_since_watermark += u32::from(round.durable);
        let due = self.since_watermark >= WATERMARK_EVERY_BYTES
            || self.syncs_since_watermark >= WATERMARK_EVERY_SYNCS;
        if round.durable && due {
            self.save_watermark(false)?;
        }
        if self.since_sweep >= SWEEP_EVERY_BYTES {
            self.sweep()?;
        }
        Ok(())
    }

    /// Puts the round's payloads under their partitions: the large ones of a large round in the value log, synced
    /// before anything names them.
    fn stage_payloads(&mut self, round: &mut Round) -> fjall::Result<()> {
        let data = &self.keyspaces.data;
        let payloads = std::mem::take(&mut round.payloads);
        let bytes: usize = payloads.iter().map(|(_, b)| b.bytes().len()).sum();
        // Without a sync, a row could reach the disk before what it points to.
        let separate = round.durable && bytes >= self.value_log_from_bytes;
        let (large, small): (Vec<_>, Vec<_>) = payloads
            .into_iter()
            .partition(|(_, b)| separate && b.bytes().len() >= SEPARATED_BYTES_MIN);
        if !large.is_empty() {
            let values = large.iter().map(|(p, b)| (*p, b.base_offset(), &b.bytes()[..]));
            let pointers = self.values.append(values)?;
            for ((partition, batch), pointer) in large.iter().zip(pointers) {
                let key = data_key(*partition, batch.base_offset());
                round.batch.insert(data, key, pointer.encode());
            }
        }
        for (partition, batch) in small {
            let key = data_key(partition, batch.base_offset());
            round
                .batch
                .insert(data, key, fjall::Slice::from(batch.into_bytes()));
        }
        Ok(())
    }

    /// Moves some of what still counts out of a file of the value log of which most does not. Whether there was any.
    fn sweep(&mut self) -> fjall::Result<bool> {
        self.since_sweep = 0;
        if self.receiving {
            // What is received has no row of `data` yet to be changed.
            return Ok(false);
        }
        // A full disk would stop the log, and that for tidying up.
        let free = self.keyspaces.db.free_bytes(self.keyspaces.values.dir())?;
        if free < self.sweep_reserve_bytes {
            return Ok(false);
        }
        let mut moves = Vec::new();
        for (header, pointer) in self.values.movable(SWEEP_BYTES) {
            let key = data_key(header.partition, header.base);
            match self.keyspaces.values.read(&key, pointer) {
                Ok(payload) => moves.push((header, pointer, payload)),
                Err(error) => {
                    tracing::error!(segment = pointer.segment, %error, "cannot read the value log");
                    self.values.give_up(pointer.segment);
                }
            }
        }
        if moves.is_empty() {
            return Ok(false);
        }
        let values = moves.iter().map(|(h, _, b)| (h.partition, h.base, &b[..]));
        let moved = self.values.append(values)?;
        let mut batch = self.keyspaces.db.batch();
        for ((header, from, _), to) in moves.iter().zip(moved) {
            let key = data_key(header.partition, header.base);
            batch.insert(&self.keyspaces.data, key, to.encode());
            self.values.free(*from);
        }
        self.values.stage(&mut batch, &self.keyspaces.state);
        batch.commit(PersistMode::SyncData)?;
        let bytes: usize = moves.iter().map(|(_, _, payload)| payload.len()).sum();
        self.shared.wrote(bytes as u64, true);
        self.unsynced = None;
        self.values.remove_dead();
        Ok(true)
    }

    /// With nothing else to do: syncs what was lazy, and writes effects that found no batch to ride with. Whether there
    /// was nothing to do.
    fn settle(&mut self) -> fjall::Result<bool> {
        let has_effects = self.shared.has_effects();
        if has_effects {
            let mut batch = self.keyspaces.db.batch();
            self.stage_effects(&mut batch)?;
            self.values.stage(&mut batch, &self.keyspaces.state);
            batch.commit(PersistMode::Buffer)?;
        }
        self.copy.written(&self.keyspaces.state)?;
        let has_unsynced = self.unsynced.is_some() || self.values.has_dead();
        if has_unsynced {
            self.keyspaces.db.persist(PersistMode::SyncData)?;
            self.unsynced = None;
            self.values.remove_dead();
        }
        let has_moved = self.sweep()?;
        Ok(!(has_effects || has_unsynced || has_moved))
    }

    fn close(&mut self) -> fjall::Result<()> {
        self.settle()?;
        self.keyspaces.db.persist(PersistMode::SyncAll)?;
        self.copy.sync_in_time(true)?;
        self.save_watermark(true)
    }

    /// Makes sure that no offset is given out above a ceiling that a power cut would forget.
    pub(crate) fn reserve_offsets(&mut self, ends: &BTreeMap<PartitionId, Offset>) -> fjall::Result<()> {
        let reserves = &mut self.watermark.value.partitions;
        let mut raised = false;
        for (partition, end) in ends {
            let reserve = reserves.entry(*partition).or_default();
            if *end > reserve.ceiling {
                reserve.ceiling = end.plus(OFFSET_RESERVE);
                raised = true;
            }
        }
        if raised || self.watermark.value.clean {
            self.watermark.value.clean = false;
            self.watermark.save()?;
        }
        Ok(())
    }

    /// Has the low-water mark follow with the next sync: what is given up must not come back with a repair.
    pub(crate) fn mark_soon(&mut self) {
        self.since_watermark = WATERMARK_EVERY_BYTES;
    }

    pub(crate) fn save_watermark(&mut self, clean: bool) -> fjall::Result<()> {
        let value = &mut self.watermark.value;
        value.groups = self
            .tails
            .iter()
            .map(|(g, t)| {
                (
                    *g,
                    Synced {
                        index: t.last.index,
                        crc: t.crc,
                    },
                )
            })
            .collect();
        value.partitions.retain(|p, _| self.positions.contains_key(p));
        for (partition, position) in &self.positions {
            let Reserve { ceiling, .. } = value.partitions.get(partition).copied().unwrap_or_default();
            let reserve = Reserve {
                log_start: position.log_start,
                end: position.committed_end,
                ceiling: ceiling.max(position.committed_end),
            };
            value.partitions.insert(*partition, reserve);
        }
        self.since_watermark = 0;
        self.syncs_since_watermark = 0;
        if clean {
            self.watermark.save_clean()?
        } else {
            self.watermark.save()?
        }
        Ok(())
    }

    /// Writes and syncs what changes all of a group at once, and the second copy of the rows behind it.
    pub(crate) fn commit_whole(&mut self, mut batch: WriteBatch) -> fjall::Result<()> {
        self.values.stage(&mut batch, &self.keyspaces.state);
        self.copy.note_all();
        if let Some((key, number)) = self.copy.row() {
            batch.insert(&self.keyspaces.state, key.as_bytes(), number);
        }
        batch.commit(PersistMode::SyncAll)?;
        self.copy.written(&self.keyspaces.state)
    }

    /// Removes the entries from `from` on: their headers and the rows that those name, in one batch.
    fn truncate(&mut self, group: GroupId, from: u64) -> fjall::Result<()> {
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
        // The mark may name what goes now, which must not look like a loss, whenever the power goes.
        self.save_watermark(false)?;
        self.values.stage(&mut batch, &self.keyspaces.state);
        batch.commit(PersistMode::SyncData)?;
        self.values.remove_dead();
        Ok(())
    }

    /// Forgets headers. Never those whose effects are not written yet, and never payloads: those belong to retention.
    fn purge(&mut self, group: GroupId, upto: u64) -> fjall::Result<()> {
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
