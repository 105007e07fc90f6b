//! Creating, altering and deleting topics.

use crate::access::auth::{Operation, Principal, Resource};
use crate::core::Broker;
use crate::error::AdminError;
use crate::placement::layout::{changes, decided, layout};
use crate::state::rows::Row;
use crate::state::rows::committed_offset::CommittedOffset;
use crate::state::rows::counter::{Counter, CounterName};
use crate::state::rows::location::PartitionLocation;
use crate::state::rows::reassignment::Reassignment;
use crate::state::rows::topic::Topic;
use crate::state::tables::Tables;
use crate::topic::config::TopicConfig;
use std::collections::BTreeMap;
use std::sync::Arc;
use weir_log::Op;
use weir_replica::{Member, NodeId};
use weir_types::level::LEVEL_OF_AGES;
use weir_types::limits::{PARTITIONS_MAX, REPLICA_GROUPS_MAX, TOPICS_MAX};
use weir_types::{GroupId, PartitionId, TopicName};

impl Broker {
    /// Creates a topic with partitions on all nodes of the site.
    ///
    /// # Errors
    /// When the name, a number or a setting is invalid, the topic exists, or the change is not committed.
    ///
    /// # Cancel safety
    /// If the future is dropped, the topic may or may not be created.
    pub async fn create_topic(
        &self,
        who: &Principal,
        name: &str,
        partitions: u32,
        settings: &[(String, String)],
    ) -> Result<Arc<Topic>, AdminError> {
        self.create_topic_on(who, name, partitions, None, settings).await
    }

    /// Creates a topic. With `replicas`, its partitions are spread over groups of `replicas` nodes with
    /// different leaders; otherwise they are on all nodes of the site.
    ///
    /// # Errors
    /// When the name, a number or a setting is invalid, the topic exists, or the change is not committed.
    ///
    /// # Cancel safety
    /// If the future is dropped, the topic may or may not be created.
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
                "pipeline `{pipeline}` uses topic `{name}`: create the topic without `--replication`, since an entry \
                 cannot write to several replica groups"
            )));
        }
        let name: TopicName = name.parse()?;
        // A client that finds the topic does not care about its settings.
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

    /// Checks that enough nodes are certain to have an acknowledged record, under `config` and with
    /// `replicas`, or on all nodes.
    ///
    /// # Errors
    /// [`AdminError::Copies`] when there are too few.
    pub fn has_copies(&self, config: &TopicConfig, replicas: Option<u32>) -> Result<(), AdminError> {
        enough(
            config,
            replicas.map_or_else(|| self.copies_of(GroupId::SITE), |n| n / 2 + 1),
        )
    }

    /// Changes settings of a topic, and adds partitions up to `partitions`.
    ///
    /// # Errors
    /// When the topic does not exist, a setting is invalid, the topic has more partitions, or the change is
    /// not committed.
    ///
    /// # Cancel safety
    /// If the future is dropped, the change may or may not be committed.
    pub async fn alter_topic(
        &self,
        who: &Principal,
        name: &str,
        partitions: Option<u32>,
        settings: &[(String, String)],
    ) -> Result<Arc<Topic>, AdminError> {
        self.allow(who, Operation::Alter, Resource::Topic(name))?;
        let (wanted, settings) = (name.to_owned(), settings.to_vec());
        // Otherwise the leader checks.
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
            // New partitions have as many replicas as the first.
            let first = topic.partitions.first().map(|p| p.group());
            let group = first.and_then(|g| decided(tables).remove(&g));
            let replicas = group.map_or(Spread::All, |g| Spread::Over(g.replicas.len()));
            grow(tables, topic, partitions.unwrap_or(has), replicas, &members)
        })
        .await?;
        self.topic(name).ok_or(AdminError::NoTopic(name.to_owned()))
    }

    /// Checks that the pipelines that read a topic support `partitions` partitions, if these are more than
    /// the topic has.
    ///
    /// # Errors
    /// [`AdminError::NoRoom`] otherwise.
    pub fn may_have(&self, topic: &str, partitions: u32) -> Result<(), AdminError> {
        let has = self.topic(topic).map_or(0, |t| t.partitions.len() as u32);
        // Numbers above the limit are refused with another error.
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
    /// When the topic does not exist or a pipeline uses it, or the deletion is not committed.
    ///
    /// # Cancel safety
    /// If the future is dropped, the topic may or may not be deleted.
    pub async fn delete_topic(&self, who: &Principal, name: &str) -> Result<(), AdminError> {
        self.delete_topic_if(who, name, None).await
    }

    /// Deletes a topic; with `first`, only if the first partition has that original id.
    ///
    /// # Errors
    /// When the topic does not exist or has another id, a pipeline uses it, or the deletion is not committed.
    ///
    /// # Cancel safety
    /// If the future is dropped, the topic may or may not be deleted.
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
                let identity = topic.partition(0).map(|id| tables.original_id(id));
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
                let identity = tables.original_id(*partition);
                if tables.located.contains_key(&identity) {
                    ops.push(PartitionLocation::remove(&identity));
                }
            }
            let moving = tables.moves.iter().filter(|(_, m)| m.topic == topic.name);
            ops.extend(moving.map(|(to, _)| Reassignment::remove(to)));
            ops.push(Op::Remove {
                key: Topic::key(&topic.name),
            });
            let of_topic = |p: &PartitionId| topic.partitions.contains(&tables.current(*p));
            let offsets = tables.group_offsets.keys().filter(|(_, p)| of_topic(p));
            ops.extend(offsets.map(CommittedOffset::remove));
            Ok(ops)
        })
        .await
    }
}

/// Checks that `copies` satisfy the settings.
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
    /// This number of nodes.
    Over(usize),
}

/// Returns the rows of `topic` with `asked` partitions; new partitions get unused numbers.
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
        let number = next.entry(group).or_insert_with(|| tables.next_partition(group));
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
        .map(|(group, next)| Counter(*next).put(&CounterName::NextPartition(*group)))
        .collect();
    ops.extend(changes(&before, layout, members));
    ops.push(tables.topic_row_of(&topic));
    Ok(ops)
}
