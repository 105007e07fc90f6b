//! One round: entries, their payloads and effects, in a single batch with one sync.

use crate::error::AppendError;
use crate::format::entry::{Entry, Op};
use crate::format::keys::{data_key, rlog_key};
use crate::format::rows::gap_row;
use crate::host::failpoint::Stop;
use crate::store::kv::WriteBatch;
use crate::store::os_error::is_full;
use crate::write::command::Flushed;
use crate::write::store_writer::{WATERMARK_EVERY_BYTES, WATERMARK_EVERY_SYNCS};
use crate::write::sweep::SWEEP_EVERY_BYTES;
use crate::write::writer::Writer;
use fjall::PersistMode;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use weir_types::planted::{Bug, planted};
use weir_types::{Batch, Gap, GapReason, Offset, PartitionId};

/// Longest wait of lazy entries and effects for a batch: the bound on losses of `durability = "lazy"`, and
/// Redpanda's for the same setting.
pub(super) const IDLE: Duration = Duration::from_millis(100);

/// Smallest batch that is worth a pointer: KV separation begins there, too.
pub(super) const SEPARATED_BYTES_MIN: usize = 1 << 10;

/// The contents of a fjall batch with its sync.
pub(super) struct Round {
    pub(super) batch: WriteBatch,
    pub(super) payloads: Vec<(PartitionId, Batch)>,
    pub(super) flushed: Vec<Flushed>,
    pub(super) ends: BTreeMap<PartitionId, Offset>,
    pub(super) durable: bool,
    pub(super) bytes: usize,
}

impl Writer {
    pub(super) fn round(&self) -> Round {
        Round {
            batch: self.store.keyspaces.db.batch(),
            payloads: Vec::new(),
            flushed: Vec::new(),
            ends: BTreeMap::new(),
            durable: false,
            bytes: 0,
        }
    }

    /// Adds an entry to the round: its header under its index, its payloads for [`Writer::stage_payloads`].
    pub(super) fn stage(&mut self, round: &mut Round, entry: Entry, flushed: Flushed) {
        let header = entry.header();
        let tail = self.store.tails.entry(entry.group).or_default();
        let (bytes, crc) = header.encode(tail.crc);
        tail.last = entry.id();
        tail.crc = crc;
        round.bytes += bytes.len();
        round.batch.insert(
            &self.store.keyspaces.rlog,
            rlog_key(entry.group, entry.index),
            bytes,
        );
        round.durable |= !entry.lazy;
        for op in entry.ops {
            match op {
                Op::Append { partition, batch } => {
                    round.bytes += batch.bytes().len();
                    round.ends.insert(partition, batch.end_offset());
                    round.payloads.push((partition, batch));
                }
                // Other replicas have removed the batch, as a later entry says. Until then a power cut must
                // not make the batch look lost here.
                Op::Gone(append) if !self.headers_only => {
                    let gap = Gap {
                        start: append.base,
                        end: append.end(),
                        reason: GapReason::Expired,
                    };
                    let (key, value) = gap_row(append.partition, &gap);
                    round
                        .batch
                        .insert(&self.store.keyspaces.state, key.as_bytes(), value);
                }
                _ => {}
            }
        }
        round.flushed.push(flushed);
    }

    pub(super) fn commit(&mut self, mut round: Round) -> fjall::Result<()> {
        if round.flushed.is_empty() {
            return Ok(());
        }
        // Bounds the delay of lazy entries, also under load.
        round.durable |= self.store.unsynced.is_some_and(|since| since.elapsed() >= IDLE);
        // From here on every failure is reported to the waiters.
        let prepared = self
            .store
            .reserve_offsets(&round.ends)
            .and_then(|()| self.stage_payloads(&mut round))
            .and_then(|()| self.store.stage_effects(&mut round.batch));
        self.store
            .values
            .stage(&mut round.batch, &self.store.keyspaces.state);
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
            self.store.shared.stop(Some(Arc::clone(&reason)));
            for flushed in round.flushed {
                flushed(Err(AppendError::Poisoned(Arc::clone(&reason))));
            }
            return Err(e);
        }
        self.store.unsynced = if round.durable {
            None
        } else {
            self.store.unsynced.or_else(|| Some(Instant::now()))
        };
        self.store.shared.wrote(round.bytes as u64, round.durable);
        Stop::Written.here();
        self.store.copy.written(&self.store.keyspaces.state)?;
        for flushed in round.flushed {
            flushed(Ok(()));
        }
        self.store.since_watermark += round.bytes as u64;
        self.since_sweep += round.bytes as u64;
        if round.durable {
            self.store.values.remove_dead();
        }
        self.store.syncs_since_watermark += u32::from(round.durable);
        let due = self.store.since_watermark >= WATERMARK_EVERY_BYTES
            || self.store.syncs_since_watermark >= WATERMARK_EVERY_SYNCS;
        if round.durable && due {
            self.store.save_watermark(false)?;
        }
        if self.since_sweep >= SWEEP_EVERY_BYTES {
            self.sweep()?;
        }
        Ok(())
    }

    /// Stages the round's payloads. Large batches of a large round go to the value log, which is synced
    /// before any row names them.
    pub(super) fn stage_payloads(&mut self, round: &mut Round) -> fjall::Result<()> {
        let data = &self.store.keyspaces.data;
        let payloads = std::mem::take(&mut round.payloads);
        let bytes: usize = payloads.iter().map(|(_, b)| b.bytes().len()).sum();
        // Without a sync, a row could reach the disk before its payload.
        let separate = round.durable && bytes >= self.value_log_from_bytes;
        let (large, small): (Vec<_>, Vec<_>) = payloads
            .into_iter()
            .partition(|(_, b)| separate && b.bytes().len() >= SEPARATED_BYTES_MIN);
        if !large.is_empty() {
            let values = large.iter().map(|(p, b)| (*p, b.base_offset(), &b.bytes()[..]));
            let pointers = self.store.values.append(values)?;
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
}
