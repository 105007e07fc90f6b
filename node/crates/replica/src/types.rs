//! What openraft is told about Weir: the types it carries, and the way between them and the log's.

use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use weir_log::{Entry, EntryId, Op, StateKey, StateKind, encode};
use weir_types::{GroupId, Term};

/// A node of the site: a number that is given out once and never again.
pub type NodeId = u64;

/// How to reach a node, and how to know that it is the one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// SHA-256 of its certificate, in hexadecimal: what its connections must prove.
    pub key: String,
    /// `HOST:PORT` for peers and for the Rust client.
    pub quic: String,
    /// `HOST:PORT` for Kafka clients; empty when it serves none.
    pub kafka: String,
    /// `HOST:PORT` for HTTP.
    pub http: String,
    /// What fails together with it: a cabinet, a power supply. Empty when not said.
    pub rack: String,
    /// It votes, and keeps the headers of entries without their records: see [`crate::raft::witness`]. Never changes.
    pub witness: bool,
}

/// What a group is asked to do.
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

/// Called with what became of a write.
pub struct Reply<T>(pub(crate) Box<dyn FnOnce(T) + Send>);

impl<T: Send + 'static> openraft::raft::responder::Responder<Types, T> for Reply<T> {
    fn on_complete(self, result: T) {
        (self.0)(result);
    }
}

/// One leader a term, as in the paper, so that an entry's id is its term and index.
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

/// Entries are numbered from 1. The one before the first counts as purged, on every node alike, so that a new
/// follower of a young group needs no snapshot.
pub(crate) fn log_id(id: EntryId) -> LogId {
    LogId::new_term_index(id.term.0, id.index)
}

pub(crate) fn entry_id(id: &LogId) -> EntryId {
    EntryId {
        term: Term(id.committed_leader_id().term),
        index: id.index(),
    }
}

/// A vote as it is stored and sent.
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
        match vote.committed {
            true => Vote::new_committed(vote.term, vote.node),
            false => Vote::new(vote.term, vote.node),
        }
    }
}

/// A group's members as an entry sets them: what a row of [`StateKind::Members`] holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StoredMembers {
    id: EntryId,
    /// One set of voters, or two while they change.
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

/// An entry as the log stores it.
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

/// An entry as openraft knows it.
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
