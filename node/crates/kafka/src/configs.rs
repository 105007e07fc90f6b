//! Settings under Kafka's names, for the requests that describe and change them.

use crate::node::Session;
use weir_broker::{SettingKind, TopicConfig};
use weir_types::GroupId;

/// Resource types with settings.
pub(crate) const TOPIC: i8 = 2;
pub(crate) const BROKER: i8 = 4;

/// Source of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(i8)]
pub(crate) enum Source {
    Topic = 1,
    StaticBroker = 4,
    Default = 5,
}

/// Type of a value.
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

/// Returns all settings of a topic.
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
            // Tools that copy settings to another cluster skip read-only settings; Kafka does not know Weir's
            // own.
            read_only: setting.is_own,
            source,
            kind: setting.kind.into(),
            about: setting.about,
        }
    });
    described.collect()
}

/// Returns the settings of the node that Kafka's tools read.
pub(crate) fn of_broker(session: &Session) -> Vec<Config> {
    let settings = &session.node.settings;
    let preset = TopicConfig::default().all_entries();
    let preset = |name: &str| preset.get(name).cloned().unwrap_or_default();
    let (host, port) = session.advertised();
    let replicas = session.replicas(GroupId::SITE).voters.len();
    let own = [
        (
            "node.id",
            session.node_id().to_string(),
            Kind::Int,
            "The node's number in the site.",
        ),
        (
            "advertised.listeners",
            format!("PLAINTEXT://{host}:{port}"),
            Kind::List,
            "Where clients are told to find the node (`advertise`).",
        ),
        (
            "log.dirs",
            settings.data_dir.clone(),
            Kind::String,
            "Directory of the node's data.",
        ),
        (
            "auto.create.topics.enable",
            settings.auto_create.to_string(),
            Kind::Boolean,
            "Whether topics are made when they are first asked for.",
        ),
        (
            "delete.topic.enable",
            "true".to_owned(),
            Kind::Boolean,
            "Topics can be deleted.",
        ),
        (
            "num.partitions",
            settings.default_partitions.to_string(),
            Kind::Int,
            "Partitions of a topic that is made without a number of them.",
        ),
        (
            "default.replication.factor",
            replicas.to_string(),
            Kind::Int,
            "Nodes that have a topic which is made without a number of them: all that vote.",
        ),
        (
            "message.max.bytes",
            weir_types::limits::BATCH_BYTES_MAX.to_string(),
            Kind::Int,
            "Largest record batch taken.",
        ),
        (
            "socket.request.max.bytes",
            weir_types::limits::KAFKA_REQUEST_BYTES_MAX.to_string(),
            Kind::Int,
            "Largest request taken.",
        ),
        (
            "group.initial.rebalance.delay.ms",
            settings.group_initial_delay.as_millis().to_string(),
            Kind::Int,
            "How long the first rebalance of an empty group waits for more members.",
        ),
        (
            "group.min.session.timeout.ms",
            weir_broker::SESSION_MIN.as_millis().to_string(),
            Kind::Int,
            "Shortest session of a group's member.",
        ),
        (
            "group.max.session.timeout.ms",
            weir_broker::SESSION_MAX.as_millis().to_string(),
            Kind::Int,
            "Longest session of a group's member.",
        ),
        (
            "offsets.retention.minutes",
            (settings.offsets_retention_ms / 60_000).to_string(),
            Kind::Int,
            "How long offsets of a group without members are kept.",
        ),
        (
            "log.retention.ms",
            preset("retention.ms"),
            Kind::Long,
            "Age at which records expire, unless their topic says otherwise.",
        ),
        (
            "log.retention.bytes",
            preset("retention.bytes"),
            Kind::Long,
            "Bytes of a partition beyond which its oldest records expire, unless its topic says otherwise.",
        ),
        (
            "log.cleanup.policy",
            preset("cleanup.policy"),
            Kind::List,
            "What becomes of old records, unless their topic says otherwise.",
        ),
        (
            "log.message.timestamp.type",
            preset("message.timestamp.type"),
            Kind::String,
            "Whose clock dates records, unless their topic says otherwise.",
        ),
        (
            "min.insync.replicas",
            preset("min.insync.replicas"),
            Kind::Int,
            "Nodes that have a record before it is acknowledged, unless its topic says otherwise.",
        ),
        (
            "compression.type",
            preset("compression.type"),
            Kind::String,
            "Batches are stored as producers compressed them.",
        ),
        (
            "unclean.leader.election.enable",
            preset("unclean.leader.election.enable"),
            Kind::Boolean,
            "A node that lacks acknowledged records never leads.",
        ),
    ];
    let config = |(name, value, kind, about): (&'static str, _, _, _)| Config {
        name,
        value,
        read_only: true,
        // Defaults for topics are built in, not set.
        source: match name.starts_with("log.") && name != "log.dirs" {
            true => Source::Default,
            false => Source::StaticBroker,
        },
        kind,
        about,
    };
    own.map(config).into()
}
