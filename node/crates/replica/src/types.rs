//! The types of openraft for Weir, and the conversion from and to the log's.

use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use weir_log::{Entry, EntryId, Op, StateKey, StateKind, encode};
use weir_types::{GroupId, Term};

/// Number of a node in its site: assigned once, never reused.
pub type NodeId = u64;

/// Addresses and identity of a node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// SHA-256 of the node's certificate in hexadecimal, which its connections must prove.
    pub key: String,
    /// `HOST:PORT` for peers and for the Rust client.
    pub quic: String,
    /// `HOST:PORT` for Kafka clients; empty without a Kafka listener.
    pub kafka: String,
    /// `HOST:PORT` for HTTP.
    pub http: String,
    /// Failure domain (rack, cabinet, power supply); empty when unknown.
    pub rack: String,
    /// The node votes, and keeps headers of entries without records: see [`crate::raft::witness`]. Never
    /// changes.
    pub witness: bool,
}

/// Payload of a proposal.
#[derive(Clone, Debug)]
pub struct Command {
    pub(crate) ops: Arc<[Op]>,
    pub(crate) lazy: bool,
}

impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ops", self.ops.len())
    }
}

/// Called with the result of a write.
pub struct Reply<T>(pub(crate) Box<dyn FnOnce(T) + Send>);

impl<T: Send + 'static> openraft::raft::responder::Responder<Types, T> for Reply<T> {
    fn on_complete(self, result: T) {
        (self.0)(result);
    }
}

/// The type configuration: a single leader per term, as in the paper, so that an entry's id is its term and
/// index.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Types;

type LeaderId = openraft::impls::leader_id_std::LeaderId<u64, NodeId>;

impl openraft::RaftTypeConfig for Types {
    type D = Command;
    type R = ();
    type NodeId = NodeId;
    type Node = Member;
    type Term = u64;
    type LeaderId = LeaderId;
    type Vote = openraft::impls::Vote<LeaderId>;
    type Payload = openraft::EntryPayload<Command, NodeId, Member>;
    type Entry = openraft::Entry<<LeaderId as openraft::vote::RaftLeaderId>::Committed, Self::Payload>;
    type AsyncRuntime = openraft::impls::TokioRuntime;
    type Responder<T>
        = Reply<T>
    where
        T: openraft::OptionalSend + 'static;
    type Batch<T>
        = openraft::impls::InlineBatch<T>
    where
        T: openraft::OptionalSend + 'static;
    type ErrorSource = openraft::impls::BoxedErrorSource;
}

pub(crate) type LogId = openraft::alias::LogIdOf<Types>;
pub(crate) type Vote = openraft::alias::VoteOf<Types>;
pub(crate) type RaftEntry = openraft::alias::EntryOf<Types>;
pub(crate) type Payload = openraft::alias::PayloadOf<Types>;
pub(crate) type Membership = openraft::Membership<NodeId, Member>;
pub(crate) type StoredMembership = openraft::alias::StoredMembershipOf<Types>;
pub(crate) type SnapshotMeta = openraft::alias::SnapshotMetaOf<Types>;

/// Converts an id. Entries are numbered from 1. The entry before the first counts as purged on every node, so
/// that a new follower of a young group needs no snapshot.
pub(crate) fn log_id(id: EntryId) -> LogId {
    LogId::new_term_index(id.term.0, id.index)
}

pub(crate) fn entry_id(id: &LogId) -> EntryId {
    EntryId {
        term: Term(id.committed_leader_id().term),
        index: id.index(),
    }
}

/// The stored form of a vote.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StoredVote {
    pub(crate) term: u64,
    pub(crate) node: NodeId,
    pub(crate) committed: bool,
}

impl From<&Vote> for StoredVote {
    fn from(vote: &Vote) -> Self {
        Self {
            term: vote.leader_id().term,
            node: vote.leader_id().voted_for,
            committed: vote.is_committed(),
        }
    }
}

impl From<StoredVote> for Vote {
    fn from(vote: StoredVote) -> Self {
        if vote.committed {
            Vote::new_committed(vote.term, vote.node)
        } else {
            Vote::new(vote.term, vote.node)
        }
    }
}

/// A group's members as of an entry: the value of a row of [`StateKind::Members`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StoredMembers {
    id: EntryId,
    /// The set of voters, or both sets during a change.
    configs: Vec<BTreeSet<NodeId>>,
    nodes: BTreeMap<NodeId, Member>,
}

impl StoredMembers {
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        postcard::from_bytes(bytes).ok()
    }

    pub(crate) fn new(id: EntryId, membership: &Membership) -> Self {
        Self {
            id,
            configs: membership.get_joint_config().clone(),
            nodes: membership.nodes().map(|(id, n)| (*id, n.clone())).collect(),
        }
    }

    pub(crate) fn membership(&self) -> Option<Membership> {
        Membership::new(self.configs.clone(), self.nodes.clone()).ok()
    }

    pub(crate) fn stored(&self) -> StoredMembership {
        match self.membership() {
            Some(membership) => StoredMembership::new(Some(log_id(self.id)), membership),
            None => StoredMembership::default(),
        }
    }

    pub(crate) fn op(&self, group: GroupId) -> Op {
        Op::Put {
            key: members_key(group),
            value: encode(self),
        }
    }
}

pub(crate) fn members_key(group: GroupId) -> StateKey {
    StateKey::new(StateKind::Members, &group.0.to_be_bytes())
}

/// Converts an entry to the log's form.
pub(crate) fn to_log(group: GroupId, entry: &RaftEntry) -> Entry {
    let id = entry_id(&entry.log_id);
    let (ops, lazy) = match &entry.payload {
        Payload::Blank => (Vec::new(), false),
        Payload::Normal(command) => (command.ops.to_vec(), command.lazy),
        Payload::Membership(m) => (vec![StoredMembers::new(id, m).op(group)], false),
    };
    Entry {
        group,
        index: id.index,
        term: id.term,
        lazy,
        ops,
    }
}

/// Converts an entry from the log's form.
pub(crate) fn from_log(entry: Entry) -> RaftEntry {
    let log_id = log_id(entry.id());
    let payload = match membership_of(&entry.ops) {
        _ if entry.ops.is_empty() => Payload::Blank,
        Some(membership) => Payload::Membership(membership),
        None => Payload::Normal(Command {
            ops: entry.ops.into(),
            lazy: entry.lazy,
        }),
    };
    RaftEntry { log_id, payload }
}

fn membership_of(ops: &[Op]) -> Option<Membership> {
    match ops {
        [Op::Put { key, value }] if key.as_bytes().first() == Some(&(StateKind::Members as u8)) => {
            StoredMembers::decode(value)?.membership()
        }
        _ => None,
    }
}
