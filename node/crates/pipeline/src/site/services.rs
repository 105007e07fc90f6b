//! What a listener serves: the same for every protocol.

use crate::manage::registry::Pipelines;
use weir_broker::Broker;

/// What the node says of itself, as JSON.
pub type NodeStatus = Box<dyn Fn() -> serde_json::Value + Send + Sync>;

/// What a listener serves.
pub struct Services {
    /// Topics and records.
    pub broker: Broker,
    /// Pipelines and modules.
    pub pipelines: Pipelines,
    /// The node itself.
    pub status: NodeStatus,
}
