//! `__consumer_offsets`: the topic in which Kafka keeps what groups commit. Here rows keep that, and the name is told to those who look for
//! it: as an internal topic with a partition that has nothing.

use crate::node::Session;
use weir_broker::{Cleanup, TopicConfig};

/// Its name.
pub(super) const NAME: &str = "__consumer_offsets";

/// Whether there is a group that would have made it.
pub(super) fn is_there(session: &Session) -> bool {
    session.node.broker.topic(NAME).is_none() && session.node.broker.has_groups()
}

/// Whether `topic` is this one.
pub(super) fn is(session: &Session, topic: &str) -> bool {
    topic == NAME && is_there(session)
}

/// Its settings, as Kafka makes it.
pub(super) fn config() -> TopicConfig {
    let mut config = TopicConfig::default();
    config.cleanup = Cleanup::Compact;
    config
}
