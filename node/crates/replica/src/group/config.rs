//! How a group is set up.

use crate::raft::timing::Timing;
use crate::types::{Member, NodeId};
use openraft::{Config, SnapshotPolicy};
use std::collections::BTreeMap;
use std::time::Duration;
use weir_types::GroupId;
use weir_types::limits::{REPLICATE_ENTRIES_MAX, WRITER_QUEUE_MAX};
use weir_types::planted::{Bug, planted};

/// Messages waiting for consensus: more than proposals that wait, so that handing over never does.
const RAFT_CHANNEL: u64 = 2 * WRITER_QUEUE_MAX as u64;

/// Who a node is, and whom it knows.
#[derive(Clone)]
pub struct GroupConfig {
    /// Which group.
    pub id: GroupId,
    /// This node.
    pub node: NodeId,
    /// How others reach it.
    pub member: Member,
    /// The members with which the group begins when there is none yet: the same on each of them, and this node is one.
    /// None: waits to be added.
    pub founders: BTreeMap<NodeId, Member>,
    /// When others are given up.
    pub timing: Timing,
}

/// The settings of consensus.
pub(super) fn raft_config(timing: Timing) -> Config {
    let millis = |d: Duration| d.as_millis() as u64;
    Config {
        cluster_name: "weir".to_owned(),
        heartbeat_interval: millis(timing.heartbeat),
        election_timeout_min: millis(timing.election_min),
        election_timeout_max: millis(timing.election_max),
        max_payload_entries: REPLICATE_ENTRIES_MAX,
        max_append_entries: Some(REPLICATE_ENTRIES_MAX),
        // Snapshots are made when a follower needs one, and the log is purged by our own count of bytes.
        snapshot_policy: SnapshotPolicy::Never,
        replication_lag_threshold: u64::MAX,
        max_in_snapshot_log_to_keep: u64::MAX,
        // Bounded by what may be in flight, and messages are large.
        api_channel_size: Some(RAFT_CHANNEL),
        notification_channel_size: Some(RAFT_CHANNEL),
        enable_pre_vote: Some(true),
        // A follower whose directory was put back from a copy is sent again what it had: otherwise it would be taken for
        // whole for as long as this node leads, and get nothing more.
        allow_log_reversion: Some(true),
        // A leader that restarts may have lost entries that it was not yet done with: in the same term it would give
        // their numbers to others.
        enable_leader_restore: Some(planted(Bug::LeaderRestore)),
        ..Config::default()
    }
}
