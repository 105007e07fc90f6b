//! Changing topics, consumer groups' offsets and other rows.

use crate::applied::{group_key, topic_key};
use crate::auth::{Operation, Principal, Resource, authorize};
use crate::broker::Broker;
use crate::error::AdminError;
use crate::proposer::Request;
use crate::topic::{Topic, TopicConfig};
use bytes::Bytes;
use std::sync::Arc;
use tokio::sync::oneshot;
use weir_log::{Op, StateKey, StateKind};
use weir_types::limits::{PARTITIONS_MAX, TOPICS_MAX};
use weir_types::{GapReason, Offset, PartitionId, TopicName};

/// Counters in `state`: the next partition's number, the next producer's.
const NEXT_PARTITION: &[u8] = b"partition";
const NEXT_PRODUCER: &[u8] = b"producer";
/// Producer ids reserved by one entry; what a restart forgets of them is no loss in 2^63.
const PRODUCER_IDS: u64 = 1_000;

type Tables = crate::applied::Tables;

/// A producer that a partition remembers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KnownProducer {
    /// Its number.
    pub id: i64,
    /// Its epoch.
    pub epoch: i16,
    /// Sequence of its last record; -1 for none.
    pub last_sequence: i32,
    /// When it last sent, in milliseconds.
    pub last_ms: i64,
}

impl Broker {
    /// Creates a topic.
    ///
    /// # Errors
    /// When the name, the number of partitions or a setting is not taken, or the topic exists.
    pub async fn create_topic(
        &self,
        who: &Principal,
        name: &str,
        partitions: u32,
        settings: &[(String, String)],
    ) -> Result<Arc<Topic>, AdminError> {
        self.allow(who, Operation::Create, Resource::Topic(name))?;
        let name: TopicName = name.parse()?;
        let mut config = TopicConfig::default();
        for (key, value) in settings {
            config.set(key, value)?;
        }
        let made = name.clone();
        self.change(move |tables, _| {
            if tables.topics.contains_key(&made) {
                return Err(AdminError::Exists(made.to_string()));
            }
            if tables.topics.len() >= TOPICS_MAX {
                return Err(AdminError::Limit {
                    what: "number of topics",
                    limit: TOPICS_MAX as u64,
                });
            }
            let topic = Topic {
                name: made,
                partitions: Vec::new(),
                config,
            };
            grow(tables, topic, partitions)
        })
        .await?;
        self.topic(name.as_str())
            .ok_or(AdminError::NoTopic(name.to_string()))
    }

    /// Changes settings of a topic, and adds partitions up to `partitions`.
    ///
    /// # Errors
    /// When there is no such topic, a setting is not taken, or it has more partitions already.
    pub async fn alter_topic(
        &self,
        who: &Principal,
        name: &str,
        partitions: Option<u32>,
        settings: &[(String, String)],
    ) -> Result<Arc<Topic>, AdminError> {
        self.allow(who, Operation::Alter, Resource::Topic(name))?;
        let (wanted, settings) = (name.to_owned(), settings.to_vec());
        self.change(move |tables, _| {
            let topic = tables
                .topics
                .get(wanted.as_str())
                .ok_or(AdminError::NoTopic(wanted))?;
            let mut topic = Topic::clone(topic);
            for (key, value) in &settings {
                topic.config.set(key, value)?;
            }
            let has = topic.partitions.len() as u32;
            grow(tables, topic, partitions.unwrap_or(has))
        })
        .await?;
        self.topic(name).ok_or(AdminError::NoTopic(name.to_owned()))
    }

    /// Deletes a topic with all its records.
    ///
    /// # Errors
    /// When there is no such topic.
    pub async fn delete_topic(&self, who: &Principal, name: &str) -> Result<(), AdminError> {
        self.allow(who, Operation::Delete, Resource::Topic(name))?;
        if let Some(pipeline) = self.hook().and_then(|hook| hook.user_of(name)) {
            return Err(AdminError::InUse {
                topic: name.to_owned(),
                pipeline,
            });
        }
        let wanted = name.to_owned();
        self.change(move |tables, _| {
            let topic = tables
                .topics
                .get(wanted.as_str())
                .ok_or(AdminError::NoTopic(wanted))?;
            let mut ops: Vec<Op> = topic
                .partitions
                .iter()
                .map(|p| Op::Drop { partition: *p })
                .collect();
            ops.push(Op::Remove {
                key: topic_key(&topic.name),
            });
            let of_topic = |p: &PartitionId| topic.partitions.contains(p);
            let producers = tables.producers.keys().filter(|(p, _)| of_topic(p));
            ops.extend(producers.map(|(p, id)| Op::Remove {
                key: crate::applied::producer_key(*p, *id),
            }));
            let offsets = tables.group_offsets.keys().filter(|(_, p)| of_topic(p));
            ops.extend(offsets.map(|(g, p)| Op::Remove {
                key: group_key(g, *p),
            }));
            Ok(ops)
        })
        .await
    }

    /// Gives up the records of a partition before `to`.
    ///
    /// # Errors
    /// When there is no such partition, or `to` lies beyond its end.
    pub async fn trim(
        &self,
        who: &Principal,
        topic: &str,
        partition: u32,
        to: Offset,
        reason: GapReason,
    ) -> Result<(), AdminError> {
        self.allow(who, Operation::Delete, Resource::Topic(topic))?;
        let wanted = topic.to_owned();
        self.change(move |tables, log| {
            let id = partition_of(tables, &wanted, partition)?;
            let marks = log.marks_or_new(id);
            let end = marks.committed_end();
            if to > end {
                return Err(AdminError::OffsetBeyondEnd { offset: to, end });
            }
            let nothing = to <= marks.log_start();
            Ok(if nothing {
                Vec::new()
            } else {
                vec![Op::Trim {
                    partition: id,
                    to,
                    reason,
                }]
            })
        })
        .await
    }

    /// A producer id that nobody had before, for numbering batches from epoch 0 and sequence 0.
    ///
    /// # Errors
    /// When the reservation of ids is not committed.
    pub async fn init_producer(&self, who: &Principal) -> Result<i64, AdminError> {
        self.allow(who, Operation::Write, Resource::Cluster)?;
        let mut ids = self.0.producer_ids.lock().await;
        if ids.is_empty() {
            *ids = match self.is_serving() {
                true => self.reserve_producer_ids().await?,
                false => self.ask_for_producer_ids().await?,
            };
        }
        ids.next()
            .and_then(|id| i64::try_from(id).ok())
            .ok_or(AdminError::Closed)
    }

    /// Numbers that nobody else is given.
    pub(crate) async fn reserve_producer_ids(&self) -> Result<std::ops::Range<u64>, AdminError> {
        let (sent, reserved) = oneshot::channel();
        self.change(move |tables, _| {
            let next = tables.counters.get(NEXT_PRODUCER).copied().unwrap_or(1);
            let _ = sent.send(next..next + PRODUCER_IDS);
            Ok(vec![set_counter(NEXT_PRODUCER, next + PRODUCER_IDS)])
        })
        .await?;
        reserved.await.map_err(|_| AdminError::Closed)
    }

    /// Idempotent producers that a partition remembers; `None` when there is no such partition.
    pub fn producers(&self, topic: &str, partition: u32) -> Option<Vec<KnownProducer>> {
        let tables = self.0.applied.tables();
        let id = tables.topics.get(topic)?.partition(partition)?;
        let of_partition = tables.producers.range((id, i64::MIN)..=(id, i64::MAX));
        let known = of_partition.map(|((_, producer), window)| KnownProducer {
            id: *producer,
            epoch: window.epoch,
            last_sequence: window.last_sequence(),
            last_ms: window.last_ms,
        });
        Some(known.collect())
    }

    /// Writes or removes a row of another layer's `kind`.
    ///
    /// # Errors
    /// When it is not committed.
    pub async fn put_row(&self, kind: StateKind, key: &[u8], value: Option<Bytes>) -> Result<(), AdminError> {
        let key = StateKey::new(kind, key);
        let op = match value {
            Some(value) => Op::Put { key, value },
            None => Op::Remove { key },
        };
        self.put(vec![op]).await
    }

    /// Calls `watcher` with key and value of each row of `kind` that changes from now on; the value is `None` where a
    /// row is removed. It must not block.
    pub fn watch_rows(
        &self,
        kind: StateKind,
        watcher: impl Fn(&[u8], Option<&[u8]>) + Send + Sync + 'static,
    ) {
        self.0.applied.watch(kind, Box::new(watcher));
    }

    fn allow(&self, who: &Principal, op: Operation, on: Resource<'_>) -> Result<(), AdminError> {
        if authorize(who, op, on) {
            Ok(())
        } else {
            Err(AdminError::Denied)
        }
    }

    pub(crate) async fn put(&self, ops: Vec<Op>) -> Result<(), AdminError> {
        let _place = self.0.changes.acquire().await.map_err(|_| AdminError::Closed)?;
        let (reply, answer) = oneshot::channel();
        if !self.send(Request::Put { ops, reply }) {
            return Err(AdminError::Closed);
        }
        answer.await.unwrap_or(Err(AdminError::Closed))
    }

    pub(crate) async fn change(
        &self,
        make: impl FnOnce(&Tables, &weir_log::Log) -> Result<Vec<Op>, AdminError> + Send + 'static,
    ) -> Result<(), AdminError> {
        let _place = self.0.changes.acquire().await.map_err(|_| AdminError::Closed)?;
        let (reply, answer) = oneshot::channel();
        if !self.send(Request::Change {
            make: Box::new(make),
            reply,
        }) {
            return Err(AdminError::Closed);
        }
        answer.await.unwrap_or(Err(AdminError::Closed))
    }
}

pub(crate) fn partition_of(tables: &Tables, topic: &str, partition: u32) -> Result<PartitionId, AdminError> {
    let found = tables
        .topics
        .get(topic)
        .ok_or_else(|| AdminError::NoTopic(topic.to_owned()))?;
    let partitions = found.partitions.len() as u32;
    let missing = AdminError::NoPartition {
        topic: topic.to_owned(),
        partition,
        partitions,
    };
    found.partition(partition).ok_or(missing)
}

/// The rows of `topic` with `asked` partitions, new ones under numbers that were never used.
fn grow(tables: &Tables, mut topic: Topic, asked: u32) -> Result<Vec<Op>, AdminError> {
    let has = topic.partitions.len() as u32;
    if asked == 0 || asked < has {
        return Err(AdminError::Partitions { has, asked });
    }
    let all = tables.partition_owner.len() as u64 + u64::from(asked - has);
    if all > u64::from(PARTITIONS_MAX) {
        return Err(AdminError::Limit {
            what: "number of partitions",
            limit: u64::from(PARTITIONS_MAX),
        });
    }
    let first = tables.counters.get(NEXT_PARTITION).copied().unwrap_or(1);
    let next = first + u64::from(asked - has);
    let id = |n: u64| u32::try_from(n).map(PartitionId);
    let new: Result<Vec<PartitionId>, _> = (first..next).map(id).collect();
    topic.partitions.extend(new.map_err(|_| AdminError::Limit {
        what: "partition number",
        limit: u64::from(u32::MAX),
    })?);
    let value = postcard::to_allocvec(&topic).unwrap_or_default();
    Ok(vec![
        set_counter(NEXT_PARTITION, next),
        Op::Put {
            key: topic_key(&topic.name),
            value: value.into(),
        },
    ])
}

fn set_counter(name: &[u8], next: u64) -> Op {
    let value = Bytes::copy_from_slice(&next.to_be_bytes());
    Op::Put {
        key: StateKey::new(StateKind::Counter, name),
        value,
    }
}
