//! Settings under Kafka's names, for the requests that describe and change them.

use crate::node::Settings;
use weir_broker::{SettingKind, TopicConfig};

/// Kinds of resources that have settings.
pub(crate) const TOPIC: i8 = 2;
pub(crate) const BROKER: i8 = 4;

/// Where a value comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i8)]
pub(crate) enum Source {
    Topic = 1,
    StaticBroker = 4,
    Default = 5,
}

/// What kind of value it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i8)]
pub(crate) enum Kind {
    Boolean = 1,
    String = 2,
    Int = 3,
    Long = 5,
    Double = 6,
    List = 7,
}

impl From<SettingKind> for Kind {
    fn from(kind: SettingKind) -> Self {
        match kind {
            SettingKind::Boolean => Self::Boolean,
            SettingKind::String => Self::String,
            SettingKind::Int => Self::Int,
            SettingKind::Long => Self::Long,
            SettingKind::Double => Self::Double,
            SettingKind::List => Self::List,
        }
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Config {
    pub(crate) name: &'static str,
    pub(crate) value: String,
    pub(crate) read_only: bool,
    pub(crate) source: Source,
    pub(crate) kind: Kind,
    pub(crate) about: &'static str,
}

/// All settings of a topic.
pub(crate) fn of_topic(config: &TopicConfig) -> Vec<Config> {
    let (values, presets) = (config.all_entries(), TopicConfig::default().all_entries());
    let all = TopicConfig::SETTINGS.into_iter().chain(TopicConfig::kept());
    let described = all.map(|setting| {
        let value = values.get(setting.name).cloned().unwrap_or_default();
        let source = match presets.get(setting.name) == Some(&value) {
            true => Source::Default,
            false => Source::Topic,
        };
        Config {
            name: setting.name,
            value,
            // Whoever copies settings to another cluster leaves out what is read-only; Kafka does not have ours.
            read_only: setting.is_own,
            source,
            kind: setting.kind.into(),
            about: setting.about,
        }
    });
    described.collect()
}

/// Settings of the node that Kafka's tools look for.
pub(crate) fn of_broker(settings: &Settings) -> Vec<Config> {
    let config = |name, value: String, kind, about| Config {
        name,
        value,
        read_only: true,
        source: Source::StaticBroker,
        kind,
        about,
    };
    vec![
        config(
            "auto.create.topics.enable",
            settings.auto_create.to_string(),
            Kind::Boolean,
            "Whether topics are made when they are first asked for.",
        ),
        config(
            "num.partitions",
            settings.default_partitions.to_string(),
            Kind::Int,
            "Partitions of a topic that is made without a number of them.",
        ),
        config(
            "default.replication.factor",
            "1".to_owned(),
            Kind::Int,
            "This node stands alone.",
        ),
        config(
            "message.max.bytes",
            weir_types::limits::BATCH_BYTES_MAX.to_string(),
            Kind::Int,
            "Largest record batch taken.",
        ),
        config(
            "group.initial.rebalance.delay.ms",
            settings.group_initial_delay.as_millis().to_string(),
            Kind::Int,
            "How long the first rebalance of an empty group waits for more members.",
        ),
        config(
            "offsets.retention.minutes",
            (settings.offsets_retention_ms / 60_000).to_string(),
            Kind::Int,
            "How long offsets of a group without members are kept.",
        ),
    ]
}
