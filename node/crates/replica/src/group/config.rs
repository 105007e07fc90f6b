//! Configuration of a group.

use crate::raft::timing::Timing;
use crate::types::{Member, NodeId};
use openraft::{Config, SnapshotPolicy};
use std::collections::BTreeMap;
use std::time::Duration;
use weir_types::GroupId;
use weir_types::limits::{REPLICATE_ENTRIES_MAX, WRITER_QUEUE_MAX};
use weir_types::planted::{Bug, planted};

/// Messages that wait for consensus: more than waiting proposals, so that a hand-over never waits.
const RAFT_CHANNEL: u64 = 2 * WRITER_QUEUE_MAX as u64;

/// Configuration of a group on a node.
#[derive(Clone)]
pub struct GroupConfig {
    /// Number of the group.
    pub id: GroupId,
    /// This node.
    pub node: NodeId,
    /// Addresses and key of this node.
    pub member: Member,
    /// First members of a new group: the same on each of them, including this node. Empty: wait until added.
    pub founders: BTreeMap<NodeId, Member>,
    /// Timeouts.
    pub timing: Timing,
}

/// Returns openraft's configuration.
pub(super) fn raft_config(timing: Timing) -> Config {
    let millis = |d: Duration| d.as_millis() as u64;
    Config {
        cluster_name: "weir".to_owned(),
        heartbeat_interval: millis(timing.heartbeat),
        election_timeout_min: millis(timing.election_min),
        election_timeout_max: millis(timing.election_max),
        max_payload_entries: REPLICATE_ENTRIES_MAX,
        max_append_entries: Some(REPLICATE_ENTRIES_MAX),
        // A snapshot is made when a follower needs one. The keeper purges the log by bytes.
        snapshot_policy: SnapshotPolicy::Never,
        replication_lag_threshold: u64::MAX,
        max_in_snapshot_log_to_keep: u64::MAX,
        // Bounded by the proposals under way; messages are large.
        api_channel_size: Some(RAFT_CHANNEL),
        notification_channel_size: Some(RAFT_CHANNEL),
        enable_pre_vote: Some(true),
        // Send a follower with a restored directory its entries again. Otherwise this leader would take the
        // follower for complete and send nothing more.
        allow_log_reversion: Some(true),
        // A restarted leader may have lost unfinished entries, and would reuse their indexes in the same
        // term.
        enable_leader_restore: Some(planted(Bug::LeaderRestore)),
        ..Config::default()
    }
}
