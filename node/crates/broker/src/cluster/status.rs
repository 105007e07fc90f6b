//! Status of the site for operators.

use crate::core::Broker;
use crate::placement::layout::{carried, decided};
use crate::state::rows::channel::{ChannelKey, ChannelRow};
use crate::state::rows::leader::LeaderReport;
use crate::state::rows::reassignment::Reassignment;
use crate::state::rows::replica_group::ReplicaGroup;
use serde::Serialize;
use std::collections::BTreeSet;
use weir_replica::{GroupStatus, NodeId};
use weir_types::{GroupId, PartitionId};

/// Status of a replica group.
#[derive(Clone, Debug, Serialize)]
pub struct ReplicaGroupStatus {
    /// Which.
    pub group: u16,
    /// Nodes in the configuration; the first is the preferred leader.
    pub replicas: Vec<NodeId>,
    /// Nodes that are members.
    pub members: BTreeSet<NodeId>,
    /// The leader, if known.
    pub leader: Option<NodeId>,
    /// Number of partitions.
    pub partitions: usize,
}

/// Status of the site, as seen by a node.
#[derive(Clone, Debug, Serialize)]
pub struct SiteStatus {
    /// The group of all nodes.
    #[serde(flatten)]
    pub site: GroupStatus,
    /// All replica groups except the site's.
    pub groups: Vec<ReplicaGroupStatus>,
    /// Partitions that are being reassigned.
    pub moves: Vec<MoveStatus>,
    /// Outbox backlog of the groups that this node leads.
    pub outbox: Vec<Waiting>,
}

impl Broker {
    /// Returns true if this node votes in the site's group and in all groups that are configured to include
    /// it.
    pub fn is_in_place(&self) -> bool {
        let me = self.group().node();
        let votes = |id: GroupId| {
            self.group_of(id)
                .is_some_and(|group| group.voters().contains(&me))
        };
        let decided = decided(&self.0.applied.tables());
        let mut wanted = decided.into_iter().filter(|(_, g)| g.replicas.contains(&me));
        votes(GroupId::SITE) && wanted.all(|(id, _)| votes(id))
    }

    /// Returns the status of the site, as known to this node.
    pub fn site_status(&self) -> SiteStatus {
        SiteStatus {
            site: self.group().status(),
            groups: self.replica_groups(),
            moves: self.moves(),
            outbox: self.outbox(),
        }
    }

    /// Returns the status of all replica groups except the site's.
    pub fn replica_groups(&self) -> Vec<ReplicaGroupStatus> {
        let (decided, partitions) = {
            let tables = self.0.applied.tables();
            (decided(&tables), carried(&tables))
        };
        let status = |(id, group): (GroupId, ReplicaGroup)| {
            let led = self
                .0
                .applied
                .tables()
                .other::<LeaderReport>(&id)
                .unwrap_or_default();
            ReplicaGroupStatus {
                group: id.0,
                replicas: group.replicas,
                members: led.members,
                leader: self.leader_of(id).map(|(node, ..)| node),
                partitions: partitions.get(&id).copied().unwrap_or(0),
            }
        };
        decided.into_iter().map(status).collect()
    }
}

/// Status of a reassignment.
#[derive(Clone, Debug, Serialize)]
pub struct MoveStatus {
    /// Of which topic.
    pub topic: String,
    /// Index of the partition in the topic.
    pub partition: u32,
    /// The old replica group.
    pub from: u16,
    /// The group that will.
    pub to: u16,
}

impl Broker {
    /// Partitions that are on their way.
    pub fn moves(&self) -> Vec<MoveStatus> {
        let tables = self.0.applied.tables();
        let status = |(to, m): (&PartitionId, &Reassignment)| MoveStatus {
            topic: m.topic.to_string(),
            partition: m.index,
            from: m.from.group().0,
            to: to.group().0,
        };
        tables.moves.iter().map(status).collect()
    }
}

/// Outbox backlog for a partition.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Waiting {
    /// The destination topic.
    pub topic: String,
    /// Index of the destination partition.
    pub partition: u32,
    /// The home group, which stores the backlog.
    pub home: u16,
    /// Number of offsets.
    pub records: u64,
    /// Bytes of batches.
    pub bytes: u64,
}

impl Broker {
    /// Returns the outbox backlog of the groups that this node leads.
    pub fn outbox(&self) -> Vec<Waiting> {
        let tables = self.0.applied.tables();
        let waiting = |((home, to), row): (&ChannelKey, &ChannelRow)| {
            let at = tables.current(*to);
            let topic = tables.topics.get(tables.partition_owner.get(&at)?)?;
            let partition = topic.partitions.iter().position(|p| *p == at)?;
            let marks = self.0.log.marks(row.at);
            let range = marks.as_ref().map(|m| (m.log_start(), m.committed_end()));
            let (start, end) = range.unwrap_or_default();
            self.serving_replica(row.at).is_ok().then(|| Waiting {
                topic: topic.name.to_string(),
                partition: partition as u32,
                home: home.0,
                records: end.get().saturating_sub(start.get()),
                bytes: marks.map_or(0, |marks| marks.bytes()),
            })
        };
        tables.channels.iter().filter_map(waiting).collect()
    }
}
