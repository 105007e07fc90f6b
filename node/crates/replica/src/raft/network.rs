//! Openraft's calls to other members, as messages on streams that stay open.

#![expect(
    clippy::result_large_err,
    reason = "openraft's error is what its traits return"
)]

use crate::raft::append::{APPEND_SILENCE, Answering, Answers, Sending, append_answer, append_message};
use crate::raft::machine::SnapshotData;
use crate::raft::send_snapshot::send_snapshot;
use crate::raft::shared::Shared;
use crate::raft::store::Store;
use crate::raft::stream::{Peer, failed, timed_out, unreachable};
use crate::raft::timing::Timing;
use crate::raft::witness::HoldBack;
use crate::transport::{Channel, Transport};
use crate::types::{Member, NodeId, StoredMembers, StoredVote, Types, Vote, entry_id};
use crate::wire::{Purpose, Request, Response, SnapshotPart, VoteHead, ids, log_ids};
use futures_util::future::BoxFuture;
use futures_util::{Stream, stream};
use openraft::errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{Backoff, RPCOption, RaftNetworkFactory, RaftNetworkV2};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderError,
    TransferLeaderRequest, TransferLeaderResponse, VoteRequest, VoteResponse,
};
use openraft::{AnyError, OptionalSend};
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;
use weir_types::GroupId;
use weir_types::limits::REPLICATE_INFLIGHT_MAX;

/// Pause before another call to an unreachable member, which may return at any moment; a call costs a packet.
const RETRY: Duration = Duration::from_millis(200);

/// Makes the connections of a group.
pub(crate) struct Network {
    pub(crate) group: GroupId,
    pub(crate) transport: Arc<dyn Transport>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) store: Store,
    pub(crate) timing: Timing,
}

impl RaftNetworkFactory<Types> for Network {
    type Network = Peer;

    async fn new_client(&mut self, node: NodeId, member: &Member) -> Peer {
        let hold_back = || HoldBack::new(Arc::clone(&self.shared), self.store.clone(), self.timing);
        Peer {
            hold_back: member.witness.then(hold_back),
            group: self.group,
            node,
            member: member.clone(),
            transport: Arc::clone(&self.transport),
            shared: Arc::clone(&self.shared),
            store: self.store.clone(),
            control: None,
        }
    }
}

impl RaftNetworkV2<Types> for Peer {
    type SnapshotData = SnapshotData;

    async fn append_entries(
        &mut self,
        rpc: AppendEntriesRequest<Types>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<Types>, RPCError<Types>> {
        let (head, payload) = append_message(&rpc, self.member.witness);
        let answer = self.ask(head, payload, option.hard_ttl()).await?;
        append_answer(answer).map(AppendEntriesResponse::from)
    }

    fn stream_append<'s, S>(
        &'s mut self,
        input: S,
        _option: RPCOption,
    ) -> BoxFuture<'s, Result<Answers<'s>, RPCError<Types>>>
    where
        S: Stream<Item = AppendEntriesRequest<Types>> + OptionalSend + Unpin + 'static,
    {
        Box::pin(async move {
            let opened = tokio::time::timeout(APPEND_SILENCE, self.open(Purpose::Append)).await;
            let Channel { tx, rx } = opened
                .unwrap_or_else(|_| Err(timed_out()))
                .map_err(|e| unreachable(&e))?;
            // Requests under way: a place is taken before a request is made, and freed with its answer.
            let (sent, under_way) = mpsc::channel(REPLICATE_INFLIGHT_MAX);
            let sending = Sending {
                input,
                tx,
                sent,
                hold_back: self.hold_back.as_mut(),
                shared: Arc::clone(&self.shared),
                transport: Arc::clone(&self.transport),
            };
            let answers = Answering {
                rx,
                under_way,
                sending: Some(Box::pin(sending.run())),
                node: self.node,
                transport: Arc::clone(&self.transport),
                shared: Arc::clone(&self.shared),
            };
            let answers: Answers<'s> = Box::pin(stream::unfold(Some(answers), Answering::next));
            Ok(answers)
        })
    }

    async fn vote(
        &mut self,
        rpc: VoteRequest<Types>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        let answer = self.ask(Request::Vote(vote_head(&rpc)), Vec::new(), option.hard_ttl());
        vote_answer(answer.await?)
    }

    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<Types>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        let answer = self.ask(Request::PreVote(vote_head(&rpc)), Vec::new(), option.hard_ttl());
        vote_answer(answer.await?)
    }

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: openraft::alias::SnapshotOf<Types, SnapshotData>,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<Types>, StreamingError<Types>> {
        let SnapshotData::Taken(taken) = snapshot.snapshot else {
            return Err(StreamingError::Network(NetworkError::new(&AnyError::error(
                "not a snapshot of this node",
            ))));
        };
        let opened = self.open(Purpose::Snapshot).await;
        let channel = opened.map_err(|e| StreamingError::Unreachable(Unreachable::new(&e)))?;
        let membership = snapshot.meta.last_membership.membership();
        let at = snapshot.meta.last_membership.log_id().as_ref().map(entry_id);
        let begin = SnapshotPart::Begin {
            vote: StoredVote::from(&vote),
            at: taken.applied(),
            members: StoredMembers::new(at.unwrap_or_default(), membership),
        };
        tokio::select! {
            biased;
            closed = cancel => Err(StreamingError::Closed(closed)),
            sent = send_snapshot(&self.store, channel, begin, taken, self.member.witness) => match sent {
                Ok(vote) => Ok(SnapshotResponse::new(vote.into())),
                Err(e) => {
                    tracing::warn!(node = self.node, error = %e, "snapshot did not arrive; it is continued later");
                    Err(StreamingError::Unreachable(Unreachable::new(&e)))
                }
            }
        }
    }

    async fn transfer_leader(
        &mut self,
        req: TransferLeaderRequest<Types>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<Types>, RPCError<Types>> {
        let request = Request::Transfer {
            from: StoredVote::from(req.from_leader()),
            to: *req.to_node_id(),
            last: ids(req.last_log_id()),
        };
        match self.ask(request, Vec::new(), option.hard_ttl()).await? {
            Response::Transferred(true) => Ok(Ok(())),
            Response::Transferred(false) => Ok(Err(TransferLeaderError::LogNotFlushed {
                expected: req.last_log_id().copied(),
                actual: None,
            })),
            other => Err(failed(format!("unexpected answer {other:?}"))),
        }
    }

    fn backoff(&self) -> Option<Backoff> {
        Some(Backoff::new(std::iter::repeat(RETRY)))
    }
}

fn vote_head(rpc: &VoteRequest<Types>) -> VoteHead {
    VoteHead {
        vote: StoredVote::from(&rpc.vote),
        last: ids(rpc.last_log_id.as_ref()),
        transfer: rpc.leadership_transfer,
    }
}

fn vote_answer(response: Response) -> Result<VoteResponse<Types>, RPCError<Types>> {
    match response {
        Response::Vote { vote, granted, last } => {
            Ok(VoteResponse::new(Vote::from(vote), log_ids(last), granted))
        }
        Response::Unable(why) => Err(unreachable(&io::Error::other(why))),
        other => Err(failed(format!("unexpected answer {other:?}"))),
    }
}
