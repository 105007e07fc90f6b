//! Settings under Kafka's names, for the requests that describe and change them.

use crate::node::Settings;
use weir_broker::TopicConfig;

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
    List = 7,
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
    let (values, defaults) = (config.entries(), TopicConfig::default().entries());
    let own = TopicConfig::NAMES.iter().map(|name| {
        let value = values.get(*name).cloned().unwrap_or_default();
        let source = if defaults.get(*name) == Some(&value) {
            Source::Default
        } else {
            Source::Topic
        };
        let (kind, about) = topic_kind(name);
        Config {
            name,
            value,
            read_only: false,
            source,
            kind,
            about,
        }
    });
    let fixed = TopicConfig::FIXED.iter().map(|(name, value)| {
        let (kind, about) = topic_kind(name);
        Config {
            name,
            value: (*value).to_owned(),
            read_only: false,
            source: Source::Default,
            kind,
            about,
        }
    });
    own.chain(fixed).collect()
}

fn topic_kind(name: &str) -> (Kind, &'static str) {
    match name {
        "retention.ms" => (
            Kind::Long,
            "Age in milliseconds at which records expire; -1: never.",
        ),
        "retention.bytes" => (
            Kind::Long,
            "Bytes of a partition beyond which its oldest records expire; -1: no limit.",
        ),
        "max.message.bytes" => (Kind::Int, "Largest record batch taken."),
        "message.timestamp.type" => (
            Kind::String,
            "CreateTime: the producer's clock; LogAppendTime: the node's.",
        ),
        "durability" => (
            Kind::String,
            "sync: acknowledged after the sync; lazy: after the write.",
        ),
        "priority" => (
            Kind::Int,
            "0 to 9: under the disk budget, lower ones are evicted first.",
        ),
        "cleanup.policy" => (Kind::List, "Records expire; compaction is not served here yet."),
        "compression.type" => (Kind::String, "Batches are stored as producers compressed them."),
        _ => (Kind::Int, "One node holds the data."),
    }
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
