//! The nodes of a site and its replica groups.

use crate::services::Services;
use weir_api as api;
use weir_broker::{
    AdminError, ClusterError, GroupStatus, Member, MemberStatus, MoveStatus, ReplicaGroupStatus, Role,
    SiteStatus, Waiting,
};
use weir_types::ErrorKind;

/// Refusal to remove a node.
#[derive(Debug, thiserror::Error)]
pub enum RemoveNodeError {
    /// The site has no such node.
    #[error("there is no node {node} in the site: its nodes are {known}")]
    NoNode {
        /// The number asked for.
        node: u64,
        /// The numbers that there are, separated by commas.
        known: String,
    },
    /// The node leads, and no other node can take over.
    #[error("node {0} is the only one that votes: there is nobody to hand over to")]
    NoSuccessor(u64),
    /// The node led, and has transferred leadership to a node that can remove the old leader.
    #[error("handed over: ask the new leader")]
    HandedOver,
    /// Leadership could not be handed over, or replicas could not be moved.
    #[error(transparent)]
    Admin(#[from] AdminError),
    /// The group of all nodes does not let the node go.
    #[error(transparent)]
    Group(#[from] ClusterError),
}

impl RemoveNodeError {
    /// Returns the reaction that fits.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::NoNode { .. } | Self::NoSuccessor(_) => ErrorKind::Invalid,
            Self::HandedOver => ErrorKind::Retry,
            Self::Admin(error) => error.kind(),
            Self::Group(error) => error.kind(),
        }
    }
}

impl Services {
    /// Returns this node's view of the site.
    pub fn cluster(&self) -> api::Cluster {
        let SiteStatus {
            site: group,
            groups,
            moves,
            outbox,
        } = self.broker.site_status();
        let moves = moves.into_iter().map(|moving| {
            let MoveStatus {
                topic,
                partition,
                from,
                to,
            } = moving;
            api::Move {
                topic,
                partition,
                from,
                to,
            }
        });
        let outbox = outbox.into_iter().map(|waiting| {
            let Waiting {
                topic,
                partition,
                home,
                records,
                bytes,
            } = waiting;
            api::OutboxEntry {
                topic,
                partition,
                home,
                records,
                bytes,
            }
        });
        api::Cluster {
            site: site(group),
            groups: groups.into_iter().map(replica_group).collect(),
            moves: moves.collect(),
            outbox: outbox.collect(),
        }
    }

    /// Starts the moves that balance replicas and leaders over the nodes, and returns them in words.
    ///
    /// # Errors
    /// When the moves are not committed.
    ///
    /// # Cancel safety
    /// Not safe: the moves may begin or not.
    pub async fn rebalance(&self) -> Result<api::Rebalance, AdminError> {
        self.broker.rebalance().await
    }

    /// Removes `node` from the site. A leader that is to go hands over first: the next leader removes it.
    ///
    /// # Errors
    /// When there is no such node, leadership was handed over, or replicas are still being moved: ask again.
    ///
    /// # Cancel safety
    /// Safe: a caller that asks again finds the rest done.
    pub async fn remove_node(&self, node: u64) -> Result<(), RemoveNodeError> {
        let broker = &self.broker;
        let members = broker.group().members();
        if !members.contains_key(&node) {
            let known: Vec<String> = members.keys().map(u64::to_string).collect();
            return Err(RemoveNodeError::NoNode {
                node,
                known: known.join(", "),
            });
        }
        if node == broker.group().node() {
            let to = broker.successor().ok_or(RemoveNodeError::NoSuccessor(node))?;
            broker.hand_over(to).await?;
            return Err(RemoveNodeError::HandedOver);
        }
        broker.vacate(node).await?;
        Ok(broker.group().remove(node).await?)
    }
}

pub(crate) fn site(status: GroupStatus) -> api::Site {
    let GroupStatus {
        group,
        node,
        leader,
        term,
        last,
        applied,
        purged,
        serving,
        members,
    } = status;
    api::Site {
        group,
        node,
        leader,
        term,
        last,
        applied,
        purged,
        serving,
        members: members.into_iter().map(member).collect(),
    }
}

fn member(status: MemberStatus) -> api::Member {
    let MemberStatus {
        id,
        member,
        role,
        lag,
        heard_ms_ago,
        refuses,
    } = status;
    let Member {
        key,
        quic,
        kafka,
        http,
        rack,
        witness,
    } = member;
    api::Member {
        id,
        key,
        quic,
        kafka,
        http,
        rack,
        witness,
        role: match role {
            Role::Leader => api::Role::Leader,
            Role::Voter => api::Role::Voter,
            Role::Witness => api::Role::Witness,
            Role::Learner => api::Role::Learner,
        },
        lag,
        heard_ms_ago,
        refuses,
    }
}

pub(crate) fn replica_group(status: ReplicaGroupStatus) -> api::ReplicaGroup {
    let ReplicaGroupStatus {
        group,
        replicas,
        members,
        leader,
        partitions,
    } = status;
    api::ReplicaGroup {
        group,
        replicas,
        members,
        leader,
        partitions,
    }
}
