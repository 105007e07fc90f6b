//! `__consumer_offsets`: the topic in which Kafka stores committed offsets. Weir stores offsets in rows;
//! clients that look for the topic see an internal topic with one empty partition.

use crate::node::Session;
use weir_broker::{Cleanup, TopicConfig};

/// Name of the topic.
pub(super) const NAME: &str = "__consumer_offsets";

/// Returns true if a consumer group exists (which in Kafka creates the topic) and no real topic has the name.
pub(super) fn is_there(session: &Session) -> bool {
    session.node.broker.topic(NAME).is_none() && session.node.broker.has_groups()
}

/// Returns true if `topic` names the offsets topic and the topic exists.
pub(super) fn is(session: &Session, topic: &str) -> bool {
    topic == NAME && is_there(session)
}

/// Returns the settings with which Kafka creates the topic.
pub(super) fn config() -> TopicConfig {
    let mut config = TopicConfig::default();
    config.cleanup = Cleanup::Compact;
    config
}
