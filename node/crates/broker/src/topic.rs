//! What a topic is.

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use weir_log::{FormatError, decode_body, encode, encode_as, version_of};
use weir_types::level::LEVEL_OF_AGES;
use weir_types::limits::BATCH_BYTES_MAX;
use weir_types::murmur2::partition_for;
use weir_types::{PartitionId, TopicName};

/// When records of a topic are acknowledged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Durability {
    /// After the sync.
    #[default]
    Sync,
    /// After the write: a power cut may lose what was acknowledged in the last 100 ms.
    Lazy,
}

/// Whose clock dates the records of a topic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum TimestampType {
    /// The producer's.
    #[default]
    CreateTime,
    /// The node's, when it stores them.
    LogAppendTime,
}

/// Settings of a topic, under Kafka's names where Kafka has them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopicConfig {
    /// `retention.ms`: age at which records expire; `None` (-1): never.
    pub retention_ms: Option<u64>,
    /// `retention.bytes`: size of a partition beyond which its oldest records expire; `None` (-1): no limit.
    pub retention_bytes: Option<u64>,
    /// `max.message.bytes`: largest batch taken.
    pub max_message_bytes: u32,
    /// `message.timestamp.type`.
    pub timestamp_type: TimestampType,
    /// `durability`: `sync` or `lazy`.
    pub durability: Durability,
    /// `priority`, 0 to 9: under the disk budget, lower ones are evicted first.
    pub priority: u8,
    /// `retention.by`: what `retention.ms` counts from.
    pub retention_by: RetentionBy,
}

/// What the age of records counts from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RetentionBy {
    /// When they were stored, by clocks that could be trusted.
    #[default]
    Stored,
    /// Their own timestamps, as in Kafka: whoever dates them decides. The newest 64 MiB of a partition and what was stored in the
    /// last hour stay all the same.
    Record,
}

impl Default for TopicConfig {
    fn default() -> Self {
        Self {
            // Kafka's default: seven days.
            retention_ms: Some(7 * 24 * 3_600 * 1_000),
            retention_bytes: None,
            max_message_bytes: BATCH_BYTES_MAX as u32,
            timestamp_type: TimestampType::CreateTime,
            durability: Durability::Sync,
            priority: 5,
            retention_by: RetentionBy::Stored,
        }
    }
}

/// A setting that is not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum ConfigError {
    #[error("no topic setting `{name}`; there are {}", TopicConfig::NAMES.join(", "))]
    Unknown { name: String },
    #[error("topic setting `{name}` cannot be `{value}`: use {want}")]
    Value {
        name: &'static str,
        value: String,
        want: &'static str,
    },
}

impl TopicConfig {
    /// Names of all settings.
    pub const NAMES: [&'static str; 7] = [
        "retention.ms",
        "retention.bytes",
        "max.message.bytes",
        "message.timestamp.type",
        "durability",
        "priority",
        "retention.by",
    ];
    /// Settings of Kafka's with the one value that they have here: tools ask for them and set them to it.
    pub const FIXED: [(&'static str, &'static str); 3] = [
        ("cleanup.policy", "delete"),
        ("compression.type", "producer"),
        ("min.insync.replicas", "1"),
    ];

    /// Changes the setting `name`; an empty value sets its default again.
    ///
    /// # Errors
    /// When there is no such setting, or it cannot have this value.
    pub fn set(&mut self, name: &str, value: &str) -> Result<(), ConfigError> {
        let default = Self::default();
        let empty = value.is_empty();
        let bad = |name, want| ConfigError::Value {
            name,
            value: value.to_owned(),
            want,
        };
        match name {
            "retention.ms" if empty => self.retention_ms = default.retention_ms,
            "retention.ms" => {
                self.retention_ms =
                    limit(value).ok_or(bad("retention.ms", "milliseconds, or -1 for ever"))?;
            }
            "retention.bytes" if empty => self.retention_bytes = default.retention_bytes,
            "retention.bytes" => {
                self.retention_bytes =
                    limit(value).ok_or(bad("retention.bytes", "bytes, or -1 for no limit"))?;
            }
            "max.message.bytes" if empty => self.max_message_bytes = default.max_message_bytes,
            "max.message.bytes" => {
                let bytes = value
                    .parse()
                    .ok()
                    .filter(|n| (1..=BATCH_BYTES_MAX as u32).contains(n));
                self.max_message_bytes = bytes.ok_or(bad("max.message.bytes", "1 to 4194304"))?;
            }
            "message.timestamp.type" => {
                self.timestamp_type = match value {
                    "CreateTime" | "" => TimestampType::CreateTime,
                    "LogAppendTime" => TimestampType::LogAppendTime,
                    _ => return Err(bad("message.timestamp.type", "CreateTime or LogAppendTime")),
                }
            }
            "durability" => {
                self.durability = match value {
                    "sync" | "" => Durability::Sync,
                    "lazy" => Durability::Lazy,
                    _ => return Err(bad("durability", "sync or lazy")),
                }
            }
            "priority" if empty => self.priority = default.priority,
            "priority" => {
                let priority = value.parse().ok().filter(|p| *p <= 9);
                self.priority = priority.ok_or(bad("priority", "0 to 9"))?;
            }
            "retention.by" => {
                self.retention_by = match value {
                    "stored" | "" => RetentionBy::Stored,
                    "record" => RetentionBy::Record,
                    _ => return Err(bad("retention.by", "stored or record")),
                }
            }
            _ => {
                let fixed = Self::FIXED.iter().find(|(fixed, _)| *fixed == name);
                let (name, only) = fixed.ok_or_else(|| ConfigError::Unknown {
                    name: name.to_owned(),
                })?;
                if !empty && value != *only {
                    return Err(bad(name, only));
                }
            }
        }
        Ok(())
    }

    /// All settings and their values.
    pub fn entries(&self) -> BTreeMap<String, String> {
        let limit = |v: Option<u64>| v.map_or("-1".to_owned(), |v| v.to_string());
        let durability = match self.durability {
            Durability::Sync => "sync",
            Durability::Lazy => "lazy",
        };
        let timestamp_type = match self.timestamp_type {
            TimestampType::CreateTime => "CreateTime",
            TimestampType::LogAppendTime => "LogAppendTime",
        };
        let values = [
            limit(self.retention_ms),
            limit(self.retention_bytes),
            self.max_message_bytes.to_string(),
            timestamp_type.to_owned(),
            durability.to_owned(),
            self.priority.to_string(),
            match self.retention_by {
                RetentionBy::Stored => "stored".to_owned(),
                RetentionBy::Record => "record".to_owned(),
            },
        ];
        Self::NAMES.iter().map(|n| (*n).to_owned()).zip(values).collect()
    }
}

/// A number, or -1 for none.
#[expect(
    clippy::option_option,
    reason = "malformed and unlimited are different things"
)]
fn limit(value: &str) -> Option<Option<u64>> {
    if value == "-1" {
        Some(None)
    } else {
        value.parse().ok().map(Some)
    }
}

/// A topic as it is now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
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
/// Settings that the first version has no place for.
const LATER: [&str; 1] = ["retention.by"];

impl Topic {
    /// Its row, for a site of `level`.
    pub(crate) fn encode(&self, level: u32) -> Bytes {
        let TopicConfig {
            retention_ms,
            retention_bytes,
            max_message_bytes,
            timestamp_type,
            durability,
            priority,
            retention_by: _,
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
        let (values, preset) = (self.config.entries(), TopicConfig::default().entries());
        let is_set = |(name, value): &(String, String)| {
            LATER.contains(&name.as_str()) && preset.get(name) != Some(value)
        };
        values.into_iter().filter(is_set).collect()
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
            retention_by: RetentionBy::default(),
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
