//! The rows and the first entry of a new group.

use crate::error::GroupError;
use crate::raft::store::{vote_key, wait};
use crate::types::{Member, NodeId, RaftEntry, StoredMembers, StoredVote, log_id, members_key, to_log};
use std::collections::BTreeMap;
use std::io;
use weir_log::{EntryId, GroupState, Log, StateKey};
use weir_types::GroupId;

/// Reads the stored vote of `group`.
///
/// # Errors
/// Fails when the row cannot be read: a forgotten vote could be given twice.
pub(crate) fn stored_vote(log: &Log, group: GroupId) -> io::Result<Option<StoredVote>> {
    let row = log.state_row(&vote_key(group)).map_err(io::Error::other)?;
    row.map(|v| postcard::from_bytes(&v).map_err(io::Error::other))
        .transpose()
}

/// Reads the stored members of `group`, as applied.
pub(crate) fn stored_members(log: &Log, group: GroupId) -> Option<StoredMembers> {
    row(log, &members_key(group)).and_then(|v| StoredMembers::decode(&v))
}

/// Returns the members of `group`, as the log of a member tells; empty without such a row. Blocks.
pub fn members_in(log: &Log, group: GroupId) -> BTreeMap<NodeId, Member> {
    let members = stored_members(log, group).and_then(|stored| stored.membership());
    let nodes = members.iter().flat_map(|members| members.nodes());
    nodes.map(|(id, member)| (*id, member.clone())).collect()
}

fn row(log: &Log, key: &StateKey) -> Option<bytes::Bytes> {
    log.state_row(key).ok().flatten()
}

/// Writes the first entry of a group, with its members: the same on each of them. On a log from before
/// groups, the next entry.
pub(crate) async fn bootstrap(
    log: &Log,
    group: GroupId,
    state: &mut GroupState,
    node: NodeId,
    founders: BTreeMap<NodeId, crate::types::Member>,
) -> io::Result<()> {
    let term = state.last.term.0.max(1);
    begin(log, group, state, term, node, founders).await
}

/// Makes `node` the only member of its group, on an operator's decision that most other members are gone for
/// good. Everything on this node counts as committed.
///
/// # Errors
/// Fails when the log has stopped, or the node cannot continue alone.
///
/// # Cancel safety
/// Repeat after a drop: the entry may be written without the vote.
pub async fn make_alone(
    log: &Log,
    group: GroupId,
    state: GroupState,
    node: NodeId,
) -> Result<(), GroupError> {
    let stopped = |e: io::Error| GroupError::Stopped(e.to_string());
    let members = stored_members(log, group).and_then(|m| m.membership());
    let member = members.as_ref().and_then(|m| m.get_node(&node)).cloned();
    let member = member.ok_or_else(|| {
        GroupError::Refused(format!(
            "its log does not know node {node}, which cannot continue alone"
        ))
    })?;
    if member.witness {
        let why = format!("node {node} is a witness without records and cannot continue alone");
        return Err(GroupError::Refused(why));
    }
    let vote = stored_vote(log, group).map_err(stopped)?;
    let term = vote.map_or(0, |v| v.term).max(state.last.term.0) + 1;
    let mut state = state;
    begin(
        log,
        group,
        &mut state,
        term,
        node,
        BTreeMap::from([(node, member)]),
    )
    .await
    .map_err(stopped)
}

/// Writes an entry of `term` that makes all of `members` voters. Gives this node's vote in that term to
/// itself, so that nobody is elected in it.
async fn begin(
    log: &Log,
    group: GroupId,
    state: &mut GroupState,
    term: u64,
    node: NodeId,
    members: BTreeMap<NodeId, crate::types::Member>,
) -> io::Result<()> {
    let id = EntryId {
        term: weir_types::Term(term),
        index: state.last.index + 1,
    };
    let membership = crate::types::Membership::new(vec![members.keys().copied().collect()], members);
    let membership = membership.map_err(io::Error::other)?;
    let entry = RaftEntry {
        log_id: log_id(id),
        payload: crate::types::Payload::Membership(membership),
    };
    wait(|done| log.append(to_log(group, &entry), done)).await?;
    // Written last: without the row, the next start begins again.
    let vote = StoredVote {
        term,
        node,
        committed: false,
    };
    let row = postcard::to_allocvec(&vote).map_err(io::Error::other)?;
    wait(|done| log.put_local(vote_key(group), row, done)).await?;
    state.last = id;
    Ok(())
}
