//! Topics, as HTTP answers them.

use crate::services::Services;
use std::collections::BTreeMap;
use weir_api as api;
use weir_broker::{NamedGap, Topic, Why};
use weir_types::{Gap, GapReason, GroupId, PartitionId, TopicName};

impl Services {
    /// Returns all topics.
    pub fn topics(&self) -> Vec<api::Topic> {
        self.broker
            .topics()
            .iter()
            .map(|topic| self.topic(topic))
            .collect()
    }

    /// Returns a topic with its settings and partitions.
    pub fn topic(&self, topic: &Topic) -> api::Topic {
        let partitions = 0..topic.partitions.len() as u32;
        api::Topic {
            name: topic.name.to_string(),
            config: topic.config.entries(),
            partitions: partitions.map(|index| self.partition(topic, index)).collect(),
            removed: None,
        }
    }

    /// Returns a topic with the records that retention has removed.
    ///
    /// # Cancel safety
    /// Safe: nothing is changed.
    pub async fn topic_with_removed(&self, topic: &Topic) -> api::Topic {
        let removed = self.broker.removed_from(topic.name.as_str()).await;
        let removed = removed
            .into_iter()
            .map(|(reason, records)| (removal(reason).to_owned(), records));
        api::Topic {
            removed: Some(removed.collect()),
            ..self.topic(topic)
        }
    }

    fn partition(&self, topic: &Topic, index: u32) -> api::Partition {
        let group = topic.partition(index).map_or(GroupId::SITE, |id| id.group());
        let leader = self.broker.leader_of(group).map(|(id, ..)| id);
        let (replicas, _) = self.broker.replicas_of(group);
        // The contents of a partition are for its own nodes to tell.
        let is_here = self.broker.group_of(group).is_some();
        let marks = is_here
            .then(|| self.broker.marks(topic.name.as_str(), index))
            .flatten();
        let marks = marks.as_ref();
        api::Partition {
            partition: index,
            group: group.0,
            leader,
            replicas,
            log_start: marks.map(|marks| marks.log_start().get()),
            committed_end: marks.map(|marks| marks.committed_end().get()),
            bytes: marks.map(|marks| marks.bytes()),
            lost: marks.map(|marks| marks.lost()),
            gaps: marks.map(|marks| marks.unread().iter().map(gap).collect()),
        }
    }
}

fn removal(reason: Why) -> &'static str {
    match reason {
        Why::Age => "age",
        Why::Size => "size",
        Why::Budget => "budget",
    }
}

/// Converts a gap for the API.
pub fn gap(gap: &Gap) -> api::Gap {
    let Gap { start, end, reason } = *gap;
    api::Gap {
        start: start.get(),
        end: end.get(),
        reason: gap_reason(reason),
    }
}

fn gap_reason(reason: GapReason) -> api::GapReason {
    match reason {
        GapReason::Expired => api::GapReason::Expired,
        GapReason::Evicted => api::GapReason::Evicted,
        GapReason::Lost => api::GapReason::Lost,
        GapReason::Deleted => api::GapReason::Deleted,
    }
}

/// Returns ranges of partitions, with the names of the topics that have them.
pub fn named_gaps<'a>(
    topics: &BTreeMap<PartitionId, (TopicName, u32)>,
    gaps: impl IntoIterator<Item = &'a (PartitionId, Gap)>,
) -> Vec<api::NamedGap> {
    let gaps = gaps.into_iter();
    gaps.map(|(partition, gap)| named_gap(topics, *partition, gap))
        .collect()
}

fn named_gap(
    topics: &BTreeMap<PartitionId, (TopicName, u32)>,
    partition: PartitionId,
    gap: &Gap,
) -> api::NamedGap {
    // The reason is text there, and a type of its own here.
    let NamedGap {
        topic,
        index,
        partition,
        start,
        end,
        reason: _,
    } = NamedGap::of(topics, partition, gap);
    api::NamedGap {
        topic: topic.map(|name| name.to_string()),
        index,
        partition,
        start: start.get(),
        end: end.get(),
        reason: gap_reason(gap.reason),
    }
}
