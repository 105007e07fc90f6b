//! Requests of this node to other members, beyond consensus.

use crate::error::GroupError;
use crate::group::Group;
use crate::raft::append::APPEND_SILENCE;
use crate::raft::stream::{Peer, failed, slow_link};
use crate::types::{Member, NodeId, Types};
use crate::wire::{Request, Response};
use futures_util::future::BoxFuture;
use openraft::errors::RPCError;
use weir_types::{Batch, Offset, PartitionId};

impl Group {
    /// Sends `ask` to the leader and returns the answer.
    ///
    /// # Errors
    /// Fails when no other node leads, or the leader does not answer: the request may have happened.
    ///
    /// # Cancel safety
    /// A dropped request may have happened.
    pub fn forward(&self, ask: Vec<u8>) -> BoxFuture<'_, Result<Vec<u8>, GroupError>> {
        Box::pin(async move {
            let leader = self.leader().filter(|(id, _)| *id != self.node());
            let (id, at) = leader.ok_or(GroupError::NotLeader { leader: None })?;
            self.forward_to(id, at, ask).await
        })
    }

    /// Sends `ask` to the node `id`, which is reached at `at`, and returns the answer.
    ///
    /// # Errors
    /// Fails when the node does not answer: the request may have happened.
    ///
    /// # Cancel safety
    /// A dropped request may have happened.
    pub fn forward_to(
        &self,
        id: NodeId,
        at: Member,
        ask: Vec<u8>,
    ) -> BoxFuture<'_, Result<Vec<u8>, GroupError>> {
        Box::pin(async move {
            let answer = crate::group::client::forward(self, id, at, ask).await;
            answer.map_err(|e| GroupError::Stopped(e.to_string()))
        })
    }
}

/// Makes a connection apart from those of openraft's tasks.
fn own(group: &Group, node: NodeId, member: Member) -> Peer {
    Peer {
        group: group.id(),
        node,
        member,
        transport: group.transport(),
        shared: group.shared_handle(),
        store: group.store().clone(),
        hold_back: None,
        control: None,
    }
}

/// Tells the leader this node's new addresses. Returns true when the leader accepted them.
pub(crate) async fn announce(
    group: &Group,
    leader: NodeId,
    at: Member,
    member: Member,
) -> Result<bool, RPCError<Types>> {
    let request = Request::Announce {
        node: group.node(),
        member,
    };
    let mut peer = own(group, leader, at);
    match peer.ask(request, Vec::new(), APPEND_SILENCE).await? {
        Response::Transferred(taken) => Ok(taken),
        other => Err(failed(format!("unexpected answer {other:?}"))),
    }
}

/// Sends a request to the leader that only the leader can serve.
pub(crate) async fn forward(
    group: &Group,
    leader: NodeId,
    at: Member,
    ask: Vec<u8>,
) -> Result<Vec<u8>, RPCError<Types>> {
    let mut peer = own(group, leader, at);
    let within = APPEND_SILENCE + slow_link(ask.len());
    match peer.ask(Request::Forward(ask), Vec::new(), within).await? {
        Response::Forwarded(answer) => Ok(answer),
        Response::Unable(why) => Err(failed(why)),
        other => Err(failed(format!("unexpected answer {other:?}"))),
    }
}

/// Asks a member for the batches of a partition in a range, or the first of them.
pub(crate) async fn batches(
    group: &Group,
    node: NodeId,
    at: Member,
    partition: PartitionId,
    (from, end): (Offset, Offset),
) -> Result<Vec<Batch>, RPCError<Types>> {
    let mut peer = own(group, node, at);
    let request = Request::Batches { partition, from, end };
    match peer.ask_whole(request, Vec::new(), APPEND_SILENCE).await? {
        (Response::Batches(lengths), payload) => crate::wire::batches(&lengths, payload).map_err(failed),
        (Response::Unable(why), _) => Err(failed(why)),
        (other, _) => Err(failed(format!("unexpected answer {other:?}"))),
    }
}

/// Asks a member for the members' keys.
pub(crate) async fn member_keys(
    group: &Group,
    node: NodeId,
    at: Member,
) -> Result<Vec<String>, RPCError<Types>> {
    let mut peer = own(group, node, at);
    match peer.ask(Request::Members, Vec::new(), APPEND_SILENCE).await? {
        Response::Members(keys) => Ok(keys),
        other => Err(failed(format!("unexpected answer {other:?}"))),
    }
}
