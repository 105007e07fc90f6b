//! Topics.

use crate::topic::config::{Durability, TimestampType, TopicConfig};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use weir_log::{FormatError, StateKey, StateKind, decode_body, encode, encode_as, version_of};
use weir_types::level::LEVEL_OF_AGES;
use weir_types::murmur2::partition_for;
use weir_types::{PartitionId, TopicName};

/// A topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topic {
    /// Name of the topic.
    pub name: TopicName,
    /// Current id of each partition.
    pub partitions: Vec<PartitionId>,
    /// Settings of the topic.
    pub config: TopicConfig,
}

/// A topic in the format of the first release.
#[derive(Serialize, Deserialize)]
struct FirstTopic {
    name: TopicName,
    partitions: Vec<PartitionId>,
    config: FirstConfig,
}

#[derive(Serialize, Deserialize)]
struct FirstConfig {
    retention_ms: Option<u64>,
    retention_bytes: Option<u64>,
    max_message_bytes: u32,
    timestamp_type: TimestampType,
    durability: Durability,
    priority: u8,
}

/// Name of the row in errors.
const ROW: &str = "a topic";

/// Version with further settings: names and values that differ from the defaults.
const WITH_SETTINGS: u8 = 2;

/// Settings that the first version has a place for.
const FIRST: [&str; 6] = [
    "retention.ms",
    "retention.bytes",
    "max.message.bytes",
    "message.timestamp.type",
    "durability",
    "priority",
];

/// Not a [`Row`](crate::state::rows::Row): the form of the value depends on the level of the site.
impl Topic {
    /// Returns the stored key of topic `name`.
    pub(crate) fn key(name: &TopicName) -> StateKey {
        StateKey::new(StateKind::Topic, name.as_str().as_bytes())
    }

    /// Encodes the row for a site of `level`.
    pub(crate) fn encode(&self, level: u32) -> Bytes {
        let TopicConfig {
            retention_ms,
            retention_bytes,
            max_message_bytes,
            timestamp_type,
            durability,
            priority,
            ..
        } = self.config;
        let first = FirstTopic {
            name: self.name.clone(),
            partitions: self.partitions.clone(),
            config: FirstConfig {
                retention_ms,
                retention_bytes,
                max_message_bytes,
                timestamp_type,
                durability,
                priority,
            },
        };
        let later = self.later();
        if later.is_empty() || level < LEVEL_OF_AGES {
            encode(&first)
        } else {
            encode_as(WITH_SETTINGS, &(first, later))
        }
    }

    /// Settings that only a later version than the first has a place for, where they are not as preset.
    pub(crate) fn later(&self) -> Vec<(String, String)> {
        let preset = TopicConfig::default().entries();
        let is_set = |(name, value): &(String, String)| {
            !FIRST.contains(&name.as_str()) && preset.get(name) != Some(value)
        };
        self.config.entries().into_iter().filter(is_set).collect()
    }

    /// Decodes a row.
    ///
    /// # Errors
    /// When a later release wrote the row, or it is damaged.
    pub(crate) fn decode(row: &[u8]) -> Result<Self, FormatError> {
        let (first, later) = match version_of(row) {
            (1, body) => (decode_body::<FirstTopic>(ROW, body)?, Vec::new()),
            (WITH_SETTINGS, body) => decode_body::<(FirstTopic, Vec<(String, String)>)>(ROW, body)?,
            (version, _) => return Err(FormatError::Newer { what: ROW, version }),
        };
        let mut config = TopicConfig {
            retention_ms: first.config.retention_ms,
            retention_bytes: first.config.retention_bytes,
            max_message_bytes: first.config.max_message_bytes,
            timestamp_type: first.config.timestamp_type,
            durability: first.config.durability,
            priority: first.config.priority,
            ..TopicConfig::default()
        };
        for (name, value) in later {
            config.set(&name, &value).map_err(|e| FormatError::Unknown {
                what: ROW,
                why: e.to_string(),
            })?;
        }
        Ok(Self {
            name: first.name,
            partitions: first.partitions,
            config,
        })
    }

    /// Returns the current id of partition `index`.
    pub fn partition(&self, index: u32) -> Option<PartitionId> {
        self.partitions.get(index as usize).copied()
    }

    /// Returns the partition for a record with `key`. Records without a key go to `sticky`, like with Kafka's
    /// sticky partitioner.
    pub fn partition_of(&self, key: Option<&[u8]>, sticky: u32) -> u32 {
        let partitions = self.partitions.len() as u32;
        key.map_or(sticky % partitions.max(1), |k| partition_for(k, partitions))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topic::config::RetentionBy;

    fn topic(by: RetentionBy) -> Topic {
        Topic {
            name: "t".parse().unwrap(),
            partitions: vec![PartitionId(3)],
            config: TopicConfig {
                retention_by: by,
                ..TopicConfig::default()
            },
        }
    }

    #[test]
    fn golden_bytes_of_both_versions() {
        // Name, a partition, seven days, no size limit, 4 MiB, CreateTime, sync, priority 5: as release 0.1.0
        // wrote them.
        let first = [
            1, b't', 1, 3, 1, 0x80, 0x88, 0xb2, 0xa0, 0x02, 0, 0x80, 0x80, 0x80, 0x02, 0, 0, 5,
        ];
        let plain = topic(RetentionBy::Stored);
        for level in [1, 2] {
            assert_eq!(&plain.encode(level)[..], first, "{level}");
        }
        assert_eq!(Topic::decode(&first), Ok(plain));
        let later = topic(RetentionBy::Record);
        let row = later.encode(2);
        let settings = b"\x01\x0cretention.by\x06record";
        assert_eq!(&row[..], [&[0x80, 0, 2][..], &first, settings].concat());
        assert_eq!(Topic::decode(&row), Ok(later));
    }

    #[test]
    fn what_a_later_release_has_stored_is_not_taken_for_nothing() {
        let newer = Topic::decode(&[0x80, 0, 3, 1]).unwrap_err();
        assert!(matches!(newer, FormatError::Newer { version: 3, .. }), "{newer}");
        let mut row = topic(RetentionBy::Record).encode(2).to_vec();
        let at = row.len() - 6;
        row[at..].copy_from_slice(b"golden");
        assert!(
            Topic::decode(&row)
                .unwrap_err()
                .to_string()
                .contains("retention.by")
        );
    }
}
