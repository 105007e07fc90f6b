//! The parts of a node that a listener serves.

use std::time::Instant;
use weir_broker::Broker;
use weir_pipeline::Pipelines;
use weir_types::{Gap, PartitionId};

/// The parts of a node that a listener serves: the same for every protocol.
pub struct Services {
    /// Topics and records.
    pub broker: Broker,
    /// Pipelines and modules.
    pub pipelines: Pipelines,
    /// The start of the node.
    pub start: Start,
}

/// The start of a node: its identity, its time, and the state of its log.
#[derive(Clone, Debug)]
pub struct Start {
    /// Version of the program.
    pub version: &'static str,
    /// SHA-256 of the node's certificate in hexadecimal.
    pub identity: String,
    /// Time of the start.
    pub begun: Instant,
    /// Ranges found lost.
    pub lost: Vec<(PartitionId, Gap)>,
    /// Remarks of opening the log.
    pub notes: Vec<String>,
}
