//! What a topic is.

use crate::topic::config::{Durability, TimestampType, TopicConfig};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use weir_log::{FormatError, StateKey, StateKind, decode_body, encode, encode_as, version_of};
use weir_types::level::LEVEL_OF_AGES;
use weir_types::murmur2::partition_for;
use weir_types::{PartitionId, TopicName};

/// A topic as it is now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topic {
    /// Its name.
    pub name: TopicName,
    /// Where partition `i` is kept.
    pub partitions: Vec<PartitionId>,
    /// Its settings.
    pub config: TopicConfig,
}

/// A topic as the first release stored it.
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

/// What is stored of a topic.
const ROW: &str = "a topic";

/// The version that has further settings behind the first ones: names and values, those that are not as preset.
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

/// The rows of topics. Not a [`Row`](crate::state::rows::Row): the form of the value depends on the level of the site.
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
        match later.is_empty() || level < LEVEL_OF_AGES {
            true => encode(&first),
            false => encode_as(WITH_SETTINGS, &(first, later)),
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

    /// Reads a row.
    ///
    /// # Errors
    /// When it is a later release's.
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

    /// Where its partition `index` is kept.
    pub fn partition(&self, index: u32) -> Option<PartitionId> {
        self.partitions.get(index as usize).copied()
    }

    /// The partition where a record with `key` belongs. Records without a key stay together: on `sticky`, which a
    /// producer keeps for as long as it likes, as Kafka's sticky partitioner does.
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
        // Name, one partition, seven days, no limit of size, 4 MiB, CreateTime, sync, priority 5: as release 0.1.0 wrote it.
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
