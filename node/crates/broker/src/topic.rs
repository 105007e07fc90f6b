//! What a topic is.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
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
    pub const NAMES: [&'static str; 6] = [
        "retention.ms",
        "retention.bytes",
        "max.message.bytes",
        "message.timestamp.type",
        "durability",
        "priority",
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

impl Topic {
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
