//! Settings of topics.

use super::kept::{self, KEPT};
use super::setting::{Setting, SettingKind};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use weir_types::limits::{BATCH_BYTES_MAX, TOPIC_SETTINGS_BYTES_MAX};

/// Time of the acknowledgement of records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Durability {
    /// After the sync.
    #[default]
    Sync,
    /// After the write: a power cut may lose records acknowledged in the last 100 ms.
    Lazy,
}

/// Source of record timestamps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum TimestampType {
    /// The producer's.
    #[default]
    CreateTime,
    /// The node's clock, at the time of storage.
    LogAppendTime,
}

/// The fate of a topic's records (`cleanup.policy`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Cleanup {
    /// They expire.
    #[default]
    Delete,
    /// Records stay: compaction keeps the last record of each key, but is not implemented yet.
    Compact,
    /// Records expire; compaction before that is not implemented yet.
    CompactDelete,
}

impl Cleanup {
    fn parse(text: &str) -> Option<Self> {
        let mut words: Vec<&str> = text.split(',').map(str::trim).collect();
        words.sort_unstable();
        words.dedup();
        match words.as_slice() {
            ["delete"] => Some(Self::Delete),
            ["compact"] => Some(Self::Compact),
            ["compact", "delete"] => Some(Self::CompactDelete),
            _ => None,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Delete => "delete",
            Self::Compact => "compact",
            Self::CompactDelete => "compact,delete",
        }
    }

    /// Returns true if records need keys.
    pub fn is_by_key(self) -> bool {
        self != Self::Delete
    }
}

/// Settings of a topic, under Kafka's names where Kafka has them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicConfig {
    /// `retention.ms`: age at which records expire; `None` (-1): never.
    pub retention_ms: Option<u64>,
    /// `retention.bytes`: partition size in bytes beyond which the oldest records expire; `None` (-1): no
    /// limit.
    pub retention_bytes: Option<u64>,
    /// `max.message.bytes`: largest batch taken, where the node takes as much ([`BATCH_BYTES_MAX`]).
    pub max_message_bytes: u32,
    /// `message.timestamp.type`.
    pub timestamp_type: TimestampType,
    /// `durability`: `sync` or `lazy`.
    pub durability: Durability,
    /// `priority`, 0 to 9: the disk budget evicts the lowest first.
    pub priority: u8,
    /// `retention.by`: start of the age that `retention.ms` limits.
    pub retention_by: RetentionBy,
    /// `cleanup.policy`.
    pub cleanup: Cleanup,
    /// `min.insync.replicas`: smallest number of nodes that have an acknowledged record.
    pub min_insync: u32,
    /// `message.timestamp.before.max.ms`: how far before the node's time a record may be dated.
    pub timestamp_before_max_ms: u64,
    /// `message.timestamp.after.max.ms`: how far ahead of the node's time a record may be dated.
    pub timestamp_after_max_ms: u64,
    /// Settings of Kafka without effect here, where they differ from the defaults.
    pub(crate) kept: BTreeMap<&'static str, String>,
}

/// Start of the age of records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RetentionBy {
    /// Time of storage, by clocks that can be trusted.
    #[default]
    Stored,
    /// Their own timestamps, as in Kafka. The newest 64 MiB of a partition and the records of the last hour
    /// stay in any case.
    Record,
}

/// A time that is never reached: Kafka's preset where a limit is none.
const NEVER_MS: u64 = i64::MAX as u64;

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
            cleanup: Cleanup::Delete,
            min_insync: 1,
            timestamp_before_max_ms: NEVER_MS,
            // Kafka's default since 4.0 (KIP-937): an hour.
            timestamp_after_max_ms: 3_600_000,
            kept: BTreeMap::new(),
        }
    }
}

/// A setting that is not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// The setting does not exist.
    #[error(
        "no topic setting `{name}`; there are {}, and those of Kafka that change nothing here",
        TopicConfig::SETTINGS.map(|setting| setting.name).join(", ")
    )]
    Unknown {
        /// Name of the setting.
        name: String,
    },
    /// The setting does not accept the value.
    #[error("topic setting `{name}` cannot be `{value}`: use {want}")]
    Value {
        /// Name of the setting.
        name: &'static str,
        /// The value.
        value: String,
        /// The accepted values.
        want: String,
    },
}

/// Settings that are shown only where they are set, since a list of topics has a size limit.
const SELDOM_SET: [&str; 4] = [
    "cleanup.policy",
    "min.insync.replicas",
    "message.timestamp.before.max.ms",
    "message.timestamp.after.max.ms",
];

/// Largest accepted `max.message.bytes`: the limit of a Kafka request (`socket.request.max.bytes`).
const MESSAGE_BYTES_MAX: u32 = 100 << 20;

const fn of_kafka(name: &'static str, kind: SettingKind, about: &'static str) -> Setting {
    Setting {
        name,
        kind,
        about,
        is_own: false,
    }
}

const fn own(name: &'static str, kind: SettingKind, about: &'static str) -> Setting {
    Setting {
        name,
        kind,
        about,
        is_own: true,
    }
}

impl TopicConfig {
    /// All settings that change something.
    pub const SETTINGS: [Setting; 11] = [
        of_kafka(
            "retention.ms",
            SettingKind::Long,
            "Age in milliseconds at which records expire; -1: never.",
        ),
        of_kafka(
            "retention.bytes",
            SettingKind::Long,
            "Bytes of a partition beyond which its oldest records expire; -1: no limit.",
        ),
        of_kafka(
            "max.message.bytes",
            SettingKind::Int,
            "Largest record batch taken, up to 4 MiB, which is the node's own limit.",
        ),
        of_kafka(
            "message.timestamp.type",
            SettingKind::String,
            "CreateTime: the producer's clock; LogAppendTime: the node's.",
        ),
        own(
            "durability",
            SettingKind::String,
            "sync: acknowledged after the sync; lazy: after the write.",
        ),
        own(
            "priority",
            SettingKind::Int,
            "0 to 9: under the disk budget, lower ones are evicted first.",
        ),
        own(
            "retention.by",
            SettingKind::String,
            "stored: age counts from when the node stored a record; record: from its timestamp.",
        ),
        of_kafka(
            "cleanup.policy",
            SettingKind::List,
            "delete: records expire; compact: they have keys and stay, all of them: nothing is compacted yet.",
        ),
        of_kafka(
            "min.insync.replicas",
            SettingKind::Int,
            "Nodes that have a record before it is acknowledged, at least; more than half of a topic's nodes always have.",
        ),
        of_kafka(
            "message.timestamp.before.max.ms",
            SettingKind::Long,
            "How far before the node's time a record may be dated.",
        ),
        of_kafka(
            "message.timestamp.after.max.ms",
            SettingKind::Long,
            "How far ahead of the node's time a record may be dated, if the node's clock is set.",
        ),
    ];

    /// Returns all settings of Kafka without effect here.
    pub fn kept() -> impl Iterator<Item = Setting> {
        KEPT.iter().map(|kept| kept.setting)
    }

    /// Sets `name` to `value`; an empty value restores the default.
    ///
    /// # Errors
    /// When the setting is unknown, or the value is invalid.
    pub fn set(&mut self, name: &str, value: &str) -> Result<(), ConfigError> {
        let default = Self::default();
        let empty = value.is_empty();
        let bad = |name, want: &str| ConfigError::Value {
            name,
            value: value.to_owned(),
            want: want.to_owned(),
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
                let bytes = value.parse().ok().filter(|n| (1..=MESSAGE_BYTES_MAX).contains(n));
                self.max_message_bytes = bytes.ok_or(bad("max.message.bytes", "1 to 104857600"))?;
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
            "cleanup.policy" if empty => self.cleanup = default.cleanup,
            "cleanup.policy" => {
                let cleanup = Cleanup::parse(value);
                self.cleanup = cleanup.ok_or(bad("cleanup.policy", "delete, compact or both"))?;
            }
            "min.insync.replicas" if empty => self.min_insync = default.min_insync,
            "min.insync.replicas" => {
                let nodes = value.parse().ok().filter(|n| *n >= 1);
                self.min_insync = nodes.ok_or(bad("min.insync.replicas", "1 or more"))?;
            }
            "message.timestamp.before.max.ms" => {
                let ms = time(value, default.timestamp_before_max_ms);
                self.timestamp_before_max_ms =
                    ms.ok_or(bad("message.timestamp.before.max.ms", "milliseconds, 0 or more"))?;
            }
            "message.timestamp.after.max.ms" => {
                let ms = time(value, default.timestamp_after_max_ms);
                self.timestamp_after_max_ms =
                    ms.ok_or(bad("message.timestamp.after.max.ms", "milliseconds, 0 or more"))?;
            }
            _ => {
                let kept = kept::named(name).ok_or_else(|| ConfigError::Unknown {
                    name: name.to_owned(),
                })?;
                let name = kept.setting.name;
                let is_shown = !value.contains(char::is_control);
                let is_taken = empty || (is_shown && kept.takes.takes(value));
                if !is_taken {
                    return Err(bad(name, &kept.takes.want()));
                }
                if empty || value == kept.preset {
                    self.kept.remove(name);
                    return Ok(());
                }
                let others = self.kept.iter().filter(|(other, _)| **other != name);
                let bytes: usize = others.map(|(name, value)| name.len() + value.len()).sum();
                if bytes + name.len() + value.len() > TOPIC_SETTINGS_BYTES_MAX {
                    let want =
                        format!("less: settings that change nothing have {TOPIC_SETTINGS_BYTES_MAX} bytes");
                    return Err(bad(name, &want));
                }
                self.kept.insert(name, value.to_owned());
            }
        }
        Ok(())
    }

    /// Returns the effective settings, and settings without effect that differ from the defaults.
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
            self.cleanup.name().to_owned(),
            self.min_insync.to_string(),
            self.timestamp_before_max_ms.to_string(),
            self.timestamp_after_max_ms.to_string(),
        ];
        let names = Self::SETTINGS.iter().map(|setting| setting.name.to_owned());
        let kept = self
            .kept
            .iter()
            .map(|(name, value)| ((*name).to_owned(), value.clone()));
        names.zip(values).chain(kept).collect()
    }

    /// Returns the settings like [`TopicConfig::entries`], without rarely used settings at their defaults.
    pub fn shown(&self) -> BTreeMap<String, String> {
        let preset = Self::default().entries();
        let is_shown = |name: &String, value: &String| {
            !SELDOM_SET.contains(&name.as_str()) || preset.get(name) != Some(value)
        };
        let mut shown = self.entries();
        shown.retain(|name, value| is_shown(name, value));
        shown
    }

    /// Returns all settings, including all of Kafka's without effect.
    pub fn all_entries(&self) -> BTreeMap<String, String> {
        let presets = KEPT
            .iter()
            .map(|kept| (kept.setting.name.to_owned(), kept.preset.to_owned()));
        presets.chain(self.entries()).collect()
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

/// Parses milliseconds; an empty value gives the default.
fn time(value: &str, preset: u64) -> Option<u64> {
    match value {
        "" => Some(preset),
        value => value.parse().ok().filter(|ms| *ms <= NEVER_MS),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_of_kafka_are_kept_and_given_back() {
        let mut config = TopicConfig::default();
        for (name, value) in [
            ("segment.bytes", "104857600"),
            ("cleanup.policy", "delete, compact"),
            ("unclean.leader.election.enable", "true"),
            ("compression.type", "snappy"),
        ] {
            config.set(name, value).unwrap();
        }
        let set = config.entries();
        assert_eq!(set.get("segment.bytes").map(String::as_str), Some("104857600"));
        assert_eq!(
            set.get("cleanup.policy").map(String::as_str),
            Some("compact,delete")
        );
        assert_eq!(set.get("segment.ms"), None);
        let all = config.all_entries();
        assert_eq!(all.get("segment.ms").map(String::as_str), Some("604800000"));
        assert_eq!(
            all.len(),
            TopicConfig::SETTINGS.len() + TopicConfig::kept().count()
        );
        for setting in TopicConfig::kept().chain(TopicConfig::SETTINGS) {
            config.set(setting.name, "").unwrap();
        }
        assert_eq!(config, TopicConfig::default());
        for (name, value) in [
            ("segment.bytes", "many"),
            ("segment.bytes", "1"),
            ("min.cleanable.dirty.ratio", "1.5"),
            ("remote.storage.enable", "true"),
            ("cleanup.policy", "shred"),
            ("message.timestamp.after.max.ms", "-1"),
            ("min.insync.replicas", "0"),
            ("no.such", "1"),
        ] {
            let refused = config.set(name, value).unwrap_err();
            assert!(refused.to_string().contains(name), "{refused}");
        }
        assert_eq!(config, TopicConfig::default());
    }
}
