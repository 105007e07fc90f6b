//! Making an entry of a round of requests: offsets, sequences, and small batches that share a row.

use crate::error::ProduceError;
use crate::propose::owners::{Key, Owners};
use crate::propose::request::{Append, Framing, PipelineEffects, Round};
use crate::propose::step::{Footing, OFFSET_DIGITS};
use crate::state::applied::AppliedState;
use crate::state::rows::Row;
use crate::state::rows::producer::{Accepted, CHANNELS, Verdict, Window};
use crate::state::tables::Tables;
use crate::topic::config::Durability;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use weir_log::{Log, Op};
use weir_replica::ProposeError;
use weir_types::limits::{BATCH_RECORDS_MAX, ENTRY_BYTES_TARGET, MERGE_BYTES_MAX, PRODUCERS_MAX};
use weir_types::planted::{Bug, planted};
use weir_types::{Batch, BatchBuilder, Codec, GroupId, Offset, PartitionId, Term};

/// Size from which merged batches are compressed: smaller batches gain nothing.
const COMPRESS_FROM_BYTES: usize = 1 << 10;

/// The parts of a proposer's state that an entry is computed from.
#[derive(Clone, Copy)]
pub(crate) struct Context<'a> {
    pub(crate) log: &'a Log,
    pub(crate) applied: &'a AppliedState,
    /// Milliseconds since 1970, by the node's clock.
    pub(crate) now_ms: i64,
    /// The replica group whose entry this is.
    pub(crate) home: GroupId,
    /// The term in which this node leads the group.
    pub(crate) term: Option<Term>,
    pub(crate) speculation: &'a Speculation,
    pub(crate) owners: &'a Owners,
}

/// Builder of an entry from a round of requests.
pub(crate) struct EntryBuilder<'a> {
    pub(crate) context: Context<'a>,
    pub(crate) tables: std::sync::RwLockReadGuard<'a, Tables>,
    pub(crate) ops: Vec<Op>,
    /// Small batches per partition that will share a row.
    pub(crate) open: BTreeMap<PartitionId, MergeBuffer>,
    pub(crate) next: BTreeMap<PartitionId, Offset>,
    pub(crate) producers: BTreeMap<Key, Window>,
    pub(crate) owners: BTreeMap<Key, Arc<str>>,
    /// Producers that this entry forgets.
    pub(crate) evicted: BTreeSet<Key>,
    pub(crate) lazy: bool,
}

#[derive(Default)]
pub(crate) struct MergeBuffer {
    batches: Vec<Batch>,
    base: Offset,
    span: u32,
    bytes: usize,
}

/// The appends of an entry, and the speculative state after the proposal.
pub(crate) struct Built {
    pub(crate) ops: Vec<Op>,
    /// Base offset of each append that was not refused, in their order.
    pub(crate) answers: Vec<Offset>,
    /// Place of each that was, ascending.
    pub(crate) refused: Vec<(usize, ProduceError)>,
    pub(crate) next: BTreeMap<PartitionId, Offset>,
    pub(crate) producers: BTreeMap<Key, Window>,
    /// From which account each of them wrote.
    pub(crate) owners: BTreeMap<Key, Arc<str>>,
    pub(crate) evicted: BTreeSet<Key>,
    pub(crate) lazy: bool,
}

impl<'a> EntryBuilder<'a> {
    pub(crate) fn new(context: Context<'a>) -> Self {
        let tables = context.applied.tables();
        let (ops, open, next, producers, owners, evicted) = Default::default();
        Self {
            context,
            tables,
            ops,
            open,
            next,
            producers,
            owners,
            evicted,
            lazy: true,
        }
    }

    pub(crate) fn build(mut self, round: &Round) -> Built {
        let (mut answers, mut refused) = (Vec::with_capacity(round.appends.len()), Vec::new());
        for (i, append) in round.appends.iter().enumerate() {
            match self.append(append) {
                Ok(base) => answers.push(base),
                Err(e) => refused.push((i, e)),
            }
        }
        for (partition, open) in std::mem::take(&mut self.open) {
            self.close(partition, open);
        }
        let stored = self
            .producers
            .iter()
            .filter(|_| !planted(Bug::ProducersNotStored));
        for (key, window) in stored {
            self.ops.push(window.put(key));
        }
        let Self {
            ops,
            next,
            producers,
            owners,
            evicted,
            lazy,
            ..
        } = self;
        Built {
            ops,
            answers,
            refused,
            next,
            producers,
            owners,
            evicted,
            lazy,
        }
    }

    /// Adds a request with all its pipeline effects.
    pub(crate) fn append(&mut self, append: &Append) -> Result<Offset, ProduceError> {
        let Some(PipelineEffects { footing, rows, .. }) = append.made.as_deref() else {
            return self.take(append).map(|(base, _)| base);
        };
        let Footing::Step(step) = footing else {
            return self.take(append).map(|(base, _)| base);
        };
        if !step.is_valid_in(self.context.term) {
            return Err(ProduceError::Overtaken);
        }
        let taken = self.take(append);
        match &taken {
            Ok((_, true)) => self.ops.extend(rows.iter().cloned()),
            // A duplicate or refused batch changes nothing, but later steps assumed that it did.
            Ok((_, false)) | Err(_) => step.invalidate(),
        }
        taken.map(|(base, _)| base)
    }

    /// Adds the records of a request. Returns their base offset, and false for a duplicate.
    pub(crate) fn take(&mut self, append: &Append) -> Result<(Offset, bool), ProduceError> {
        // Output of log pipelines belongs to no partition.
        let there = |p: PartitionId| p == PartitionId::HOME || self.tables.partition_owner.contains_key(&p);
        let has_moved = !there(append.partition) && self.tables.topics.contains_key(&append.topic.name);
        if has_moved || self.tables.sealed.contains(&append.partition) {
            // The partition continues elsewhere, or will in a moment.
            return Err(ProposeError::NotLeader { leader: None }.into());
        }
        if !there(append.partition) {
            return Err(ProduceError::NoTopic(append.topic.name.to_string()));
        }
        // Made for partitions that have moved since, or to which no way is open yet.
        if append.outputs().iter().any(|o| self.route(o.partition).is_none()) {
            return Err(ProduceError::Overtaken);
        }
        let Some(kept) = &append.kept else {
            let base = self.next_offset(append.partition);
            self.outputs(append, base);
            return Ok((base, true));
        };
        let Some(producer) = kept.producer() else {
            let base = self.add(append.partition, kept.clone(), append.framing);
            self.outputs(append, base);
            return Ok((base, true));
        };
        let key = (append.partition, producer.id);
        let now_ms = self.context.now_ms;
        if let Some(account) = &append.account {
            let other = self.owners.get(&key).filter(|owner| *owner != account);
            if other.is_some() || !self.context.owners.may_write(&key, account, now_ms) {
                return Err(ProduceError::OthersProducer(producer.id));
            }
        }
        let known = self
            .producers
            .get(&key)
            .or_else(|| self.context.speculation.producers.get(&key));
        let known = known.or_else(|| self.tables.producers.get(&key));
        match Window::check(known, &producer, kept.span()) {
            // The pipeline took the batch for a duplicate.
            Verdict::Next if append.is_unseen() => return Err(ProduceError::Overtaken),
            Verdict::Next => {}
            // The original is in this entry or an earlier: committed when this entry is.
            Verdict::Duplicate(accepted) => return Ok((accepted.base, false)),
            Verdict::OutOfOrder { expected } => {
                return Err(ProduceError::OutOfOrder {
                    id: producer.id,
                    got: producer.sequence,
                    expected,
                });
            }
            Verdict::Fenced { current } => {
                return Err(ProduceError::ProducerFenced {
                    id: producer.id,
                    got: producer.epoch,
                    current,
                });
            }
            Verdict::Unknown => return Err(ProduceError::UnknownProducer(producer.id)),
        }
        let mut window = known.cloned().unwrap_or_default();
        if known.is_none() {
            self.make_room(append.account.as_deref().unwrap_or_default());
        }
        let base = self.add(append.partition, kept.clone(), append.framing);
        self.outputs(append, base);
        let accepted = Accepted {
            sequence: producer.sequence,
            span: kept.span(),
            base,
        };
        window.accept(&producer, accepted, now_ms);
        self.producers.insert(key, window);
        if let Some(account) = &append.account {
            self.owners.insert(key, Arc::clone(account));
        }
        Ok((base, true))
    }

    /// Adds the pipeline output of the batch at `base`, after the batch.
    pub(crate) fn outputs(&mut self, append: &Append, base: Offset) {
        self.lazy &= append.topic.config.durability == Durability::Lazy;
        for output in append.outputs() {
            let owner = self.tables.partition_owner.get(&output.partition);
            let topic = owner.and_then(|name| self.tables.topics.get(name));
            self.lazy &= topic.is_some_and(|t| t.config.durability == Durability::Lazy);
            let digits = |delta: u32| {
                let mut text = [b'0'; OFFSET_DIGITS];
                let mut rest = base.plus(u64::from(delta)).get();
                for digit in text.iter_mut().rev() {
                    *digit = b'0' + (rest % 10) as u8;
                    rest /= 10;
                }
                text
            };
            let slots: Vec<_> = output
                .offset_slots
                .iter()
                .map(|(at, delta)| (*at, digits(*delta)))
                .collect();
            let batch = output.batch.clone();
            // Output to the source partition follows the kept records there.
            let is_follow = output.partition == append.partition;
            let route = self.route(output.partition).filter(|_| !is_follow);
            // Channel output must survive: its offset identifies the record to the destination.
            self.lazy &= route.is_none_or(|route| route == output.partition);
            self.add(
                route.unwrap_or(output.partition),
                if slots.is_empty() {
                    batch
                } else {
                    batch.patched(&slots)
                },
                Framing::Merge,
            );
        }
    }

    /// Assigns an offset to `batch`, and returns the offset.
    fn add(&mut self, partition: PartitionId, batch: Batch, framing: Framing) -> Offset {
        let base = self.next_offset(partition);
        self.next.insert(partition, base.plus(u64::from(batch.span())));
        let small =
            framing == Framing::Merge && batch.producer().is_none() && batch.bytes().len() <= MERGE_BYTES_MAX;
        let open = self.open.entry(partition).or_default();
        let fits = open.bytes + batch.bytes().len() <= ENTRY_BYTES_TARGET
            && open.span.saturating_add(batch.span()) <= BATCH_RECORDS_MAX;
        if !(small && fits) {
            let full = std::mem::take(open);
            self.close(partition, full);
        }
        if !small {
            self.ops.push(Op::Append {
                partition,
                batch: batch.at(base),
            });
            return base;
        }
        let open = self.open.entry(partition).or_default();
        if open.batches.is_empty() {
            open.base = base;
        }
        open.span += batch.span();
        open.bytes += batch.bytes().len();
        open.batches.push(batch);
        base
    }

    pub(crate) fn close(&mut self, partition: PartitionId, open: MergeBuffer) {
        let merged = match open.batches.len() {
            0 => return,
            1 => None,
            _ => merge(&open),
        };
        match merged {
            Some(batch) => self.ops.push(Op::Append { partition, batch }),
            None => {
                let mut base = open.base;
                for batch in open.batches {
                    let span = u64::from(batch.span());
                    self.ops.push(Op::Append {
                        partition,
                        batch: batch.at(base),
                    });
                    base = base.plus(span);
                }
            }
        }
    }

    fn next_offset(&self, partition: PartitionId) -> Offset {
        let ahead = self
            .next
            .get(&partition)
            .or_else(|| self.context.speculation.next.get(&partition))
            .filter(|_| !planted(Bug::OffsetsFromCommitted));
        ahead.copied().unwrap_or_else(|| {
            self.context
                .log
                .marks(partition)
                .map_or(Offset::ZERO, |marks| marks.committed_end())
        })
    }

    /// Forgets a producer when `account` has too many, or all have.
    fn make_room(&mut self, account: &str) {
        let all = self.tables.producers.len() + self.producers.len();
        let is_full = all >= PRODUCERS_MAX + self.evicted.len();
        let forgotten = self.context.owners.to_forget(account, is_full, |key| {
            // A forgotten channel would deliver twice, or not at all.
            key.1 < CHANNELS
                && self.tables.producers.contains_key(key)
                && !self.evicted.contains(key)
                && !self.producers.contains_key(key)
        });
        if let Some(key) = forgotten {
            self.evicted.insert(key);
            self.ops.push(Window::remove(&key));
        }
    }
}

/// Merges consecutive batches. `None` if merging fails; then each is stored as sent.
pub(crate) fn merge(open: &MergeBuffer) -> Option<Batch> {
    let codec = if open.bytes >= COMPRESS_FROM_BYTES {
        Codec::Lz4
    } else {
        Codec::None
    };
    let mut builder = BatchBuilder::new(codec);
    for batch in &open.batches {
        builder.push_batch(batch).ok()?;
    }
    builder.build(open.base, None).ok()
}

impl EntryBuilder<'_> {
    /// Returns the partition that takes output for `partition`: the partition itself, or a channel. `None`
    /// without either, or if the partition has moved.
    fn route(&self, partition: PartitionId) -> Option<PartitionId> {
        let (home, tables) = (self.context.home, &self.tables);
        let is_there = tables.partition_owner.contains_key(&partition);
        let is_here = is_there && partition.group() == home && !tables.sealed.contains(&partition);
        if is_here && tables.channels.is_empty() {
            return Some(partition);
        }
        let channel = tables.channels.get(&(home, tables.original_id(partition)));
        match channel.map(|row| row.at).filter(|_| is_there) {
            Some(channel) if !is_here || self.has_waiting(channel) => Some(channel),
            _ => is_here.then_some(partition),
        }
    }

    /// Returns true if `channel` may have undelivered records.
    fn has_waiting(&self, channel: PartitionId) -> bool {
        let start = self.context.log.marks(channel).map(|marks| marks.log_start());
        self.next_offset(channel) > start.unwrap_or_default()
    }
}

/// State assumed from entries that are proposed and not yet committed.
#[derive(Default)]
pub(crate) struct Speculation {
    pub(crate) next: BTreeMap<PartitionId, Offset>,
    pub(crate) producers: BTreeMap<(PartitionId, i64), Window>,
}
