//! Contents of a log without a broker.

use crate::state::rows::Row;
use crate::state::rows::location::PartitionLocation;
use crate::state::rows::topic::Topic;
use serde::Serialize;
use std::collections::BTreeMap;
use weir_log::{Log, ReadError, StateKind};
use weir_types::{Gap, Offset, PartitionId, TopicName};

/// Returns topic and index of each partition in `log`. For a log without a broker. Blocks.
///
/// # Errors
/// When a row cannot be read.
pub fn topics_in(log: &Log) -> Result<BTreeMap<PartitionId, (TopicName, u32)>, ReadError> {
    let unreadable = |row: &str, why| ReadError::Format {
        row: row.to_owned(),
        why,
    };
    let mut located = BTreeMap::new();
    for (key, value) in log.state_rows(StateKind::Located)? {
        let place =
            PartitionLocation::decode(&value).map_err(|why| unreadable("the place of a partition", why))?;
        let identity = PartitionLocation::parse_key(key.rest());
        located.extend(identity.map(|identity| (identity, place.at)));
    }
    let mut partitions = BTreeMap::new();
    for (key, value) in log.state_rows(StateKind::Topic)? {
        let name = String::from_utf8_lossy(key.rest());
        let topic = Topic::decode(&value).map_err(|why| unreadable(&format!("topic `{name}`"), why))?;
        for (index, identity) in (0..).zip(&topic.partitions) {
            let at = located.get(identity).unwrap_or(identity);
            partitions.insert(*at, (topic.name.clone(), index));
        }
    }
    Ok(partitions)
}

/// A range of a partition without records, for display.
#[derive(Clone, Debug, Serialize)]
pub struct NamedGap {
    /// The topic of the partition, if any.
    pub topic: Option<TopicName>,
    /// The partition's number in the topic.
    pub index: Option<u32>,
    /// The current id of the partition.
    pub partition: u32,
    /// The first offset.
    pub start: Offset,
    /// The offset behind the last.
    pub end: Offset,
    /// Reason of the gap.
    pub reason: String,
}

impl NamedGap {
    /// Names a gap by the topic of its partition.
    pub fn of(topics: &BTreeMap<PartitionId, (TopicName, u32)>, partition: PartitionId, gap: &Gap) -> Self {
        let named = topics.get(&partition);
        Self {
            topic: named.map(|(topic, _)| topic.clone()),
            index: named.map(|(_, index)| *index),
            partition: partition.0,
            start: gap.start,
            end: gap.end,
            reason: gap.reason.to_string(),
        }
    }
}
