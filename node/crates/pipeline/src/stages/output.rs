//! Assembles the result of a batch into batches for partitions.

use crate::spec::Spec;
use crate::stages::batches::{Batches, build};
use crate::stages::dead_letter::{self, Provenance};
use crate::stages::effects::Effects;
use crate::stages::item::InFlight;
use std::collections::BTreeMap;
use std::sync::Arc;
use weir_broker::{Blocked, Broker, Output, Topic};
use weir_types::limits::BATCH_BYTES_MAX;
use weir_types::{Batch, BatchBuilder, BatchError, GroupId, RecordRef, TopicName};

/// Context in which a result is assembled.
pub(crate) struct Assembly<'a> {
    pub(crate) spec: &'a Spec,
    pub(crate) broker: &'a Broker,
    pub(crate) topic: &'a Topic,
    /// Replica group whose entry contains the result.
    pub(crate) home: GroupId,
    /// Name of the source topic. With several sources, `topic` is the first.
    pub(crate) name: &'a str,
    pub(crate) partition: u32,
    /// Records that the result was made from.
    pub(crate) records: &'a [RecordRef<'a>],
    /// The records' original timestamps, if any were replaced. Dead letters keep the original.
    pub(crate) own_times: &'a [i64],
    /// Origin of `records`.
    pub(crate) provenance: Provenance,
}

/// Reason why a result cannot be assembled.
pub(crate) enum AssembleError {
    /// A malformed batch. Batches are validated on arrival, so this would be a bug.
    Batch(BatchError),
    /// A topic or partition is gone; with a message.
    Gone(String),
    /// The outbox to a partition of another group is blocked.
    Blocked,
}

impl From<Blocked> for AssembleError {
    fn from(_: Blocked) -> Self {
        Self::Blocked
    }
}

impl From<BatchError> for AssembleError {
    fn from(e: BatchError) -> Self {
        Self::Batch(e)
    }
}

/// Total bytes of a result above which its batches are compressed. Several outputs of a compressed batch may
/// otherwise exceed an entry.
const COMPRESS_FROM_BYTES: usize = BATCH_BYTES_MAX;

/// Splits `items` into those that stay in `batch`, which becomes sparse where records were dropped, and
/// records that follow after it.
pub(crate) fn kept(
    batch: &Batch,
    items: &[InFlight],
    records: &[RecordRef<'_>],
) -> Result<(Batch, Batches), BatchError> {
    let body = batch.body()?;
    let mut spans = Vec::with_capacity(records.len());
    let mut walk = body.records();
    while let Some(record) = walk.next() {
        record?;
        spans.push(walk.position() as u32);
    }
    let mut keep = vec![false; records.len()];
    let mut follow = Batches::default();
    for item in items {
        match keep.get_mut(item.source as usize) {
            // The first unchanged copy stays in place. A second copy follows like a new record.
            Some(slot) if item.made.is_none() && !*slot => *slot = true,
            _ => follow.push(&item.view(records)),
        }
    }
    let kept = if keep.iter().all(|k| *k) {
        batch.clone()
    } else {
        batch.sparse(&spans, &body, &keep)?
    };
    Ok((kept, follow))
}

impl Assembly<'_> {
    /// Returns the batches for all partitions. `follow` goes to the source's own partition.
    pub(crate) fn outputs(&self, follow: Batches, effects: &Effects) -> Result<Vec<Output>, AssembleError> {
        let gone = |what: &str| AssembleError::Gone(what.to_owned());
        let is_much = effects.bytes() > COMPRESS_FROM_BYTES;
        let mut outputs = Vec::new();
        for batch in follow.build(is_much) {
            let partition = self.topic.partition(self.partition);
            outputs.push(Output {
                partition: partition.ok_or_else(|| gone("the source has lost a partition"))?,
                batch: batch?,
                offset_slots: Vec::new(),
            });
        }
        for (output, items) in &effects.outputs {
            let topic = self.spec.outputs.get(output).and_then(|name| self.find(name));
            let topic =
                topic.ok_or_else(|| AssembleError::Gone(format!("output `{output}` has no topic")))?;
            for (index, batches) in self.by_partition(&topic, items) {
                let Some(partition) = topic.partition(index) else {
                    continue;
                };
                self.broker.make_way(self.home, partition)?;
                for batch in batches.build(is_much) {
                    outputs.push(Output {
                        partition,
                        batch: batch?,
                        offset_slots: Vec::new(),
                    });
                }
            }
        }
        outputs.extend(self.dead_letters(effects)?);
        Ok(outputs)
    }

    pub(crate) fn dead_letters(&self, effects: &Effects) -> Result<Vec<Output>, AssembleError> {
        if effects.dead.is_empty() {
            return Ok(Vec::new());
        }
        let gone = |what: &str| AssembleError::Gone(what.to_owned());
        let topic = self.spec.dead_letters().ok().and_then(|name| self.find(&name));
        let topic = topic.ok_or_else(|| gone("the topic for dead letters is gone"))?;
        let source = (self.name, self.partition);
        let batches = dead_letter::batches(
            &effects.dead,
            (self.records, self.own_times),
            source,
            self.provenance,
        );
        let partition = topic.partition(self.partition % topic.partitions.len().max(1) as u32);
        let partition = partition.ok_or_else(|| gone("no partition for dead letters"))?;
        self.broker.make_way(self.home, partition)?;
        let output = |(batch, offset_slots): (BatchBuilder, _)| {
            Ok(Output {
                partition,
                // Offsets are written into the slots later, so the batch is not compressed.
                batch: build(batch, false)?,
                offset_slots,
            })
        };
        batches.into_iter().map(output).collect()
    }

    /// Groups records by partition of `topic`: by key, or by the source's partition number for records
    /// without a key.
    fn by_partition(&self, topic: &Topic, items: &[InFlight]) -> BTreeMap<u32, Batches> {
        let mut batches: BTreeMap<u32, Batches> = BTreeMap::new();
        for item in items {
            let record = item.view(self.records);
            let index = topic.partition_of(record.key, self.partition);
            batches.entry(index).or_default().push(&record);
        }
        batches
    }

    pub(crate) fn find(&self, name: &TopicName) -> Option<Arc<Topic>> {
        self.broker.topic(name.as_str())
    }
}
