//! Changing topics, consumer groups' offsets and other rows.

use crate::access::auth::{Operation, Principal, Resource, authorize};
use crate::broker::Broker;
use crate::error::AdminError;
use crate::placement::layout::{changes, decided, layout};
use crate::propose::request::{Request, row_op};
use crate::state::rows::committed_offset::group_key;
use crate::state::rows::counter::{NEXT_PRODUCER, partition_counter, set_counter};
use crate::state::rows::reassignment::partition_key;
use crate::state::rows::topic::{Topic, topic_key};
use crate::state::tables::{Tables, next_partition};
use crate::topic::config::{Cleanup, TopicConfig};
use bytes::Bytes;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;
use weir_log::{Op, StateKey, StateKind};
use weir_replica::{Member, NodeId};
use weir_types::level::LEVEL_OF_AGES;
use weir_types::limits::{PARTITIONS_MAX, REPLICA_GROUPS_MAX, TOPICS_MAX};
use weir_types::{GapReason, GroupId, Offset, PartitionId, Term, TopicName};

/// How long a node that follows waits for what the leader has decided: several heartbeats.
const GIVEN_OUT_WITHIN: Duration = Duration::from_secs(1);

const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// Bytes of the keys of rows that one entry removes, about.
const REMOVED_BYTES: usize = 256 << 10;

/// Producer ids reserved by one entry; what a restart forgets of them is no loss in 2^63.
const PRODUCER_IDS: u64 = 1_000;

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
    /// Creates a topic whose partitions are on all nodes of the site.
    ///
    /// # Errors
    /// As [`Broker::create_topic_on`].
    pub async fn create_topic(
        &self,
        who: &Principal,
        name: &str,
        partitions: u32,
        settings: &[(String, String)],
    ) -> Result<Arc<Topic>, AdminError> {
        self.create_topic_on(who, name, partitions, None, settings).await
    }

    /// Creates a topic. With `replicas`, its partitions are spread over groups of so many nodes, which take turns in
    /// leading; without, they are on all nodes of the site.
    ///
    /// # Errors
    /// When the name, the number of partitions or replicas or a setting is not taken, or the topic exists.
    pub async fn create_topic_on(
        &self,
        who: &Principal,
        name: &str,
        partitions: u32,
        replicas: Option<u32>,
        settings: &[(String, String)],
    ) -> Result<Arc<Topic>, AdminError> {
        self.allow(who, Operation::Create, Resource::Topic(name))?;
        let user = self.hook().and_then(|hook| hook.user_of(name));
        if let (Some(pipeline), Some(_)) = (user, replicas) {
            return Err(AdminError::Refused(format!(
                "pipeline `{pipeline}` uses topic `{name}`: it is made without `--replication`, since an entry \
                 of one replica group cannot write to another"
            )));
        }
        let name: TopicName = name.parse()?;
        // Whoever finds it there does not mind how he would have had it.
        if self.topic(name.as_str()).is_some() {
            return Err(AdminError::Exists(name.to_string()));
        }
        let mut config = TopicConfig::default();
        for (key, value) in settings {
            config.set(key, value)?;
        }
        self.has_copies(&config, replicas)?;
        let made = name.clone();
        let members = self.group().members();
        let replicas = replicas.map_or(Spread::All, |n| Spread::Over(n as usize));
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
            if !topic.later().is_empty() {
                tables.needs("this setting of a topic", LEVEL_OF_AGES)?;
            }
            grow(tables, topic, partitions, replicas, &members)
        })
        .await?;
        self.0.refused.forget(name.as_str());
        self.topic(name.as_str())
            .ok_or(AdminError::NoTopic(name.to_string()))
    }

    /// Whether as many nodes surely have an acknowledged record of a topic as `config` asks for; of one that is to have `replicas`, or
    /// be on all nodes of the site.
    ///
    /// # Errors
    /// When they have not.
    pub fn has_copies(&self, config: &TopicConfig, replicas: Option<u32>) -> Result<(), AdminError> {
        enough(
            config,
            replicas.map_or_else(|| self.copies_of(GroupId::SITE), |n| n / 2 + 1),
        )
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
        // Of another node it is asked there.
        if let Some(partitions) = partitions.filter(|_| self.led_term(PartitionId::HOME).is_some()) {
            self.may_have(name, partitions)?;
        }
        let members = self.group().members();
        let group = self
            .topic(name)
            .and_then(|topic| topic.partition(0))
            .map(|id| id.group());
        let asks = settings.iter().any(|(key, _)| key == "min.insync.replicas");
        let copies = asks.then(|| self.copies_of(group.unwrap_or(GroupId::SITE)));
        self.change(move |tables, _| {
            let topic = tables
                .topics
                .get(wanted.as_str())
                .ok_or(AdminError::NoTopic(wanted))?;
            let mut topic = Topic::clone(topic);
            for (key, value) in &settings {
                topic.config.set(key, value)?;
            }
            if let Some(copies) = copies {
                enough(&topic.config, copies)?;
            }
            if !topic.later().is_empty() {
                tables.needs("this setting of a topic", LEVEL_OF_AGES)?;
            }
            let has = topic.partitions.len() as u32;
            // As those that it has.
            let first = topic.partitions.first().map(|p| p.group());
            let group = first.and_then(|g| decided(tables).remove(&g));
            let replicas = group.map_or(Spread::All, |g| Spread::Over(g.replicas.len()));
            grow(tables, topic, partitions.unwrap_or(has), replicas, &members)
        })
        .await?;
        self.topic(name).ok_or(AdminError::NoTopic(name.to_owned()))
    }

    /// Whether the pipelines that read a topic have room where it has so many partitions. One that gets no more has what it has.
    ///
    /// # Errors
    /// When they have not.
    pub fn may_have(&self, topic: &str, partitions: u32) -> Result<(), AdminError> {
        let has = self.topic(topic).map_or(0, |t| t.partitions.len() as u32);
        // More than there may be is refused with other words.
        let Some(hook) = self
            .hook()
            .filter(|_| (has + 1..=PARTITIONS_MAX).contains(&partitions))
        else {
            return Ok(());
        };
        let room = hook.has_room_for(topic, partitions);
        room.map_err(|why| AdminError::NoRoom {
            topic: topic.to_owned(),
            partitions,
            why,
        })
    }

    /// Deletes a topic with all its records.
    ///
    /// # Errors
    /// When there is no such topic.
    pub async fn delete_topic(&self, who: &Principal, name: &str) -> Result<(), AdminError> {
        self.delete_topic_if(who, name, None).await
    }

    /// As [`Broker::delete_topic`]; with `first`, only if that was the number with which the topic's first partition was made.
    ///
    /// # Errors
    /// As there; also when it is another topic of that name.
    pub async fn delete_topic_if(
        &self,
        who: &Principal,
        name: &str,
        first: Option<PartitionId>,
    ) -> Result<(), AdminError> {
        self.allow(who, Operation::Delete, Resource::Topic(name))?;
        if let Some(pipeline) = self.hook().and_then(|hook| hook.user_of(name)) {
            return Err(AdminError::InUse {
                topic: name.to_owned(),
                pipeline,
            });
        }
        let wanted = name.to_owned();
        self.change(move |tables, _| {
            let is_meant = |topic: &Topic| {
                let identity = topic.partition(0).map(|id| tables.identity(id));
                first.is_none() || identity == first
            };
            let topic = tables
                .topics
                .get(wanted.as_str())
                .filter(|topic| is_meant(topic))
                .ok_or(AdminError::NoTopic(wanted))?;
            let mut ops = Vec::new();
            // Other groups drop theirs when they find that the topic is gone.
            for partition in topic.partitions.iter().filter(|p| p.group() == GroupId::SITE) {
                ops.extend(tables.drop_partition(*partition));
            }
            for partition in &topic.partitions {
                let identity = tables.identity(*partition);
                if tables.located.contains_key(&identity) {
                    let key = partition_key(StateKind::Located, identity);
                    ops.push(Op::Remove { key });
                }
            }
            let moving = tables.moves.iter().filter(|(_, m)| m.topic == topic.name);
            ops.extend(moving.map(|(to, _)| Op::Remove {
                key: partition_key(StateKind::Move, *to),
            }));
            ops.push(Op::Remove {
                key: topic_key(&topic.name),
            });
            let of_topic = |p: &PartitionId| topic.partitions.contains(&tables.current(*p));
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
        let id = partition_of(&self.0.applied.tables(), &wanted, partition)?;
        let cleanup = self.topic(topic).map(|topic| topic.config.cleanup);
        if reason == GapReason::Deleted && cleanup == Some(Cleanup::Compact) {
            return Err(AdminError::KeptByKey(wanted));
        }
        self.change_in(id.group(), move |tables, log| {
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

    /// Whether this producer's number was given out. A number that was given out just now may not have come to this node yet.
    pub(crate) async fn has_given_out(&self, id: i64) -> bool {
        let is_known = || {
            let next = self.0.applied.tables().counters.get(NEXT_PRODUCER).copied();
            u64::try_from(id).is_ok_and(|id| id < next.unwrap_or(1) && id > 0)
        };
        let until = tokio::time::Instant::now() + GIVEN_OUT_WITHIN;
        while !is_known() {
            if self.is_serving() || tokio::time::Instant::now() >= until {
                return is_known();
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        true
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
        self.put_rows(vec![(StateKey::new(kind, key), value)]).await
    }

    /// As [`Broker::put_row`], of several rows in one entry.
    ///
    /// # Errors
    /// As there: all of them are written, or none.
    pub async fn put_rows(&self, rows: Vec<(StateKey, Option<Bytes>)>) -> Result<(), AdminError> {
        self.put(rows.into_iter().map(row_op).collect()).await
    }

    /// As [`Broker::put_rows`], if `is_expected` of the row under `key`, of a kind that [`Broker::rows`] reads, as it is when all before
    /// is applied; and, with a `term`, if this node has led the site since that began.
    ///
    /// # Errors
    /// As there; [`AdminError::Changed`] when that row is another. Then nothing is written.
    pub async fn put_rows_if(
        &self,
        (kind, key): (StateKind, &[u8]),
        is_expected: impl FnOnce(Option<&[u8]>) -> bool + Send + 'static,
        term: Option<Term>,
        rows: Vec<(StateKey, Option<Bytes>)>,
    ) -> Result<(), AdminError> {
        let (broker, key) = (self.clone(), (kind as u8, key.to_vec()));
        self.change(move |tables, _| {
            // If it changes from here on, the proposal comes to nothing.
            if term.is_some() && broker.led_term(PartitionId::HOME) != term {
                return Err(broker.not_leader().into());
            }
            match is_expected(tables.others.get(&key).map(Vec::as_slice)) {
                true => Ok(rows.into_iter().map(row_op).collect()),
                false => Err(AdminError::Changed),
            }
        })
        .await
    }

    /// Removes all rows whose keys begin as `from` does, a few thousand an entry. What is not removed when it fails is there
    /// for the next call.
    ///
    /// # Errors
    /// When this node does not lead, or it is unknown what became of a removal.
    pub async fn remove_rows(&self, from: StateKey) -> Result<(), AdminError> {
        loop {
            let (settle, settled) = oneshot::channel();
            let log = self.log().clone();
            let settling = log.settle(move |result| {
                let _ = settle.send(result.is_ok());
            });
            if settling.is_err() || !settled.await.unwrap_or(false) {
                return Err(AdminError::Closed);
            }
            let (found, keys) = oneshot::channel();
            let (reader, from) = (log.clone(), from.clone());
            let look = move || {
                let (mut keys, mut bytes) = (Vec::new(), 0);
                let read = reader.rows_under(&from, |key, _| {
                    keys.push(StateKey::from_bytes(key.to_vec()));
                    bytes += key.len();
                    bytes < REMOVED_BYTES
                });
                let _ = found.send(read.map(|()| keys));
            };
            log.apart(look).map_err(|_| AdminError::Closed)?;
            let keys = keys.await.map_err(|_| AdminError::Closed)?;
            let keys = keys.map_err(|_| AdminError::Closed)?;
            if keys.is_empty() {
                return Ok(());
            }
            self.put(keys.into_iter().map(|key| Op::Remove { key }).collect())
                .await?;
        }
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

    pub(crate) fn allow(&self, who: &Principal, op: Operation, on: Resource<'_>) -> Result<(), AdminError> {
        if authorize(who, op, on) {
            Ok(())
        } else {
            Err(AdminError::Denied)
        }
    }

    pub(crate) async fn put(&self, ops: Vec<Op>) -> Result<(), AdminError> {
        self.put_in(GroupId::SITE, ops).await
    }

    /// Has `ops`, which depend on nothing, be part of an entry of `group`.
    pub(crate) async fn put_in(&self, group: GroupId, ops: Vec<Op>) -> Result<(), AdminError> {
        let lane = self.0.lane(group).ok_or(AdminError::Closed)?;
        let _place = lane.changes.acquire().await.map_err(|_| AdminError::Closed)?;
        let (reply, answer) = oneshot::channel();
        if lane.requests.try_send(Request::Put { ops, reply }).is_err() {
            return Err(AdminError::Closed);
        }
        answer.await.unwrap_or(Err(AdminError::Closed))
    }

    /// A change of what the site has in common.
    pub(crate) async fn change(
        &self,
        make: impl FnOnce(&Tables, &weir_log::Log) -> Result<Vec<Op>, AdminError> + Send + 'static,
    ) -> Result<(), AdminError> {
        self.change_in(GroupId::SITE, make).await
    }

    /// A change of what `group` has.
    pub(crate) async fn change_in(
        &self,
        group: GroupId,
        make: impl FnOnce(&Tables, &weir_log::Log) -> Result<Vec<Op>, AdminError> + Send + 'static,
    ) -> Result<(), AdminError> {
        let lane = self.0.lane(group).ok_or(AdminError::Closed)?;
        let _place = lane.changes.acquire().await.map_err(|_| AdminError::Closed)?;
        let (reply, answer) = oneshot::channel();
        let make = Box::new(make);
        if lane.requests.try_send(Request::Change { make, reply }).is_err() {
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

/// Whether as many nodes surely have an acknowledged record as the settings ask for.
fn enough(config: &TopicConfig, copies: u32) -> Result<(), AdminError> {
    match config.min_insync {
        asked if asked > copies => Err(AdminError::Copies { asked, copies }),
        _ => Ok(()),
    }
}

/// The nodes that partitions are on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Spread {
    /// All of the site.
    All,
    /// So many.
    Over(usize),
}

/// The rows of `topic` with `asked` partitions, new ones under numbers that were never used.
fn grow(
    tables: &Tables,
    mut topic: Topic,
    asked: u32,
    replicas: Spread,
    members: &BTreeMap<NodeId, Member>,
) -> Result<Vec<Op>, AdminError> {
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
    let mut layout = layout(tables, members);
    let (before, nodes) = (layout.groups.clone(), layout.nodes.len());
    let mut next = BTreeMap::new();
    for _ in has..asked {
        let group = match replicas {
            Spread::All => Some(GroupId::SITE),
            Spread::Over(replicas) => layout.place(replicas),
        };
        let group = group.ok_or(match replicas {
            Spread::Over(asked) if asked == 0 || asked > nodes => AdminError::Replicas { asked, nodes },
            Spread::Over(_) | Spread::All => AdminError::Limit {
                what: "number of replica groups",
                limit: REPLICA_GROUPS_MAX as u64,
            },
        })?;
        let number = next.entry(group).or_insert_with(|| next_partition(tables, group));
        let id = u32::try_from(*number)
            .ok()
            .and_then(|n| PartitionId::new(group, n));
        topic.partitions.push(id.ok_or(AdminError::Limit {
            what: "partition number",
            limit: u64::from(PartitionId::NUMBERS),
        })?);
        *number += 1;
    }
    let mut ops: Vec<Op> = next
        .iter()
        .map(|(group, next)| set_counter(&partition_counter(*group), *next))
        .collect();
    ops.extend(changes(&before, layout, members));
    ops.push(tables.topic_row_of(&topic));
    Ok(ops)
}
