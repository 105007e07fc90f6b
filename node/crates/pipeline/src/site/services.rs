//! State shared by the listeners of all protocols.

use crate::manage::registry::Pipelines;
use weir_broker::Broker;

/// Returns the status of the node as JSON.
pub type NodeStatus = Box<dyn Fn() -> serde_json::Value + Send + Sync>;

/// State shared by the listeners of all protocols.
pub struct Services {
    /// Topics and records.
    pub broker: Broker,
    /// Pipelines and modules.
    pub pipelines: Pipelines,
    /// Status of the node.
    pub status: NodeStatus,
}
