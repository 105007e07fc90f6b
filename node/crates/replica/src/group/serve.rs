//! Answers of a replica to other members.

use crate::group::Group;
use crate::raft::machine::SnapshotData;
use crate::raft::store::wait;
use crate::transport::Channel;
use crate::types::{Member, NodeId, SnapshotMeta, StoredVote, Types, Vote, log_id};
use crate::wire::{
    Open, Purpose, Request, Response, SnapshotAnswer, SnapshotPart, VoteHead, batches, decode, encode,
    entries, ids, log_ids, malformed,
};
use bytes::Bytes;
use futures_util::StreamExt;
use openraft::async_runtime::watch::WatchReceiver;
use openraft::raft::{
    AppendEntriesRequest, StreamAppendError, TransferLeaderRequest, VoteRequest, VoteResponse,
};
use openraft::storage::Snapshot;
use std::collections::BTreeMap;
use std::io;
use tokio::sync::mpsc;
use weir_log::StateKey;
use weir_types::limits::{REPLICATE_INFLIGHT_MAX, SNAPSHOT_STATE_BYTES_MAX};
use weir_types::planted::{Bug, planted};
use weir_types::{GroupId, Offset, PartitionId};

/// Serves a member's stream for the group named in its first message, until the stream ends. The caller has
/// authenticated the member.
///
/// # Errors
/// Fails when the stream breaks, a message is malformed, or the group is unknown.
///
/// # Cancel safety
/// Dropping the future ends the stream; requests under way may have happened.
pub async fn serve(find: impl Fn(GroupId) -> Option<Group>, mut channel: Channel) -> io::Result<()> {
    let Some(first) = channel.rx.recv().await? else {
        return Ok(());
    };
    let (Open::Group { group, to, purpose }, _) = Open::decode(first)? else {
        return Err(malformed("that is not for a group"));
    };
    let found = find(group).ok_or_else(|| malformed("there is no such group here"))?;
    found.serve_opened(group, to, purpose, channel).await
}

impl Group {
    /// Serves a stream after its first message.
    pub(crate) async fn serve_opened(
        &self,
        group: GroupId,
        to: NodeId,
        purpose: Purpose,
        channel: Channel,
    ) -> io::Result<()> {
        if group != self.id() {
            return Err(malformed("there is no such group here"));
        }
        if to != self.node() {
            return Err(malformed("that is for another node, which may have been here"));
        }
        match purpose {
            Purpose::Append => self.serve_append(channel).await,
            Purpose::Control => self.serve_control(channel).await,
            Purpose::Snapshot => self.serve_snapshot(channel).await,
        }
    }

    async fn serve_append(&self, channel: Channel) -> io::Result<()> {
        let Channel { mut tx, mut rx } = channel;
        let (requests, input) = mpsc::channel::<AppendEntriesRequest<Types>>(REPLICATE_INFLIGHT_MAX);
        let input = futures_util::stream::unfold(input, |mut input| async move {
            input.recv().await.map(|request| (request, input))
        });
        let mut answers = std::pin::pin!(self.raft().stream_append(input));
        let log = self.log().clone();
        // Owns the way to consensus, so that the answers end with the requests.
        let receive = async move {
            while let Some(message) = rx.recv().await? {
                let bytes = message.len() as u64;
                let (request, payload) = decode::<Request>(message)?;
                let mut request = append_request(request, payload)?;
                self.shared().hear_leader();
                if planted(Bug::AcceptOldLeader) {
                    request.vote = self.newer(request.vote);
                }
                if planted(Bug::SkipPreviousCheck) {
                    request.prev_log_id = request.prev_log_id.map(|_| log_id(self.last_id()));
                }
                if !request.entries.is_empty() {
                    // A full disk would stop the log. The leader tries again.
                    let room = log.room_for(bytes, true);
                    self.shared().tell_of_room(room.as_ref().err());
                    if let Err(full) = room {
                        return Ok(Some(full.to_string()));
                    }
                }
                if requests.send(request).await.is_err() {
                    break;
                }
            }
            Ok::<_, io::Error>(None)
        };
        let answer = async {
            while let Some(answer) = answers.next().await {
                let answer = answer.map_err(io::Error::other)?;
                let (response, last) = match answer {
                    Ok(last) => (Response::Appended(ids(last.as_ref())), false),
                    Err(StreamAppendError::Conflict(at)) => {
                        (Response::Conflict(crate::types::entry_id(&at)), true)
                    }
                    Err(StreamAppendError::HigherVote(vote)) => {
                        (Response::HigherVote(StoredVote::from(&vote)), true)
                    }
                };
                tx.send(encode(&response, Vec::new())?).await?;
                if last {
                    break;
                }
            }
            Ok::<(), io::Error>(())
        };
        let refused = {
            let mut answer = std::pin::pin!(answer);
            let refused = tokio::select! {
                biased;
                done = &mut answer => return done,
                // Ends the stream, with everything that it owns.
                received = receive => received?,
            };
            // No more requests: answer the received requests.
            answer.await?;
            refused
        };
        match refused {
            Some(why) => tx.send(encode(&Response::Unable(why), Vec::new())?).await,
            None => Ok(()),
        }
    }

    /// Returns the newer of a leader's vote and this node's, for [`Bug::AcceptOldLeader`].
    fn newer(&self, vote: Vote) -> Vote {
        let own = self.raft().metrics().borrow_watched().vote;
        if own.leader_id().term > vote.leader_id().term {
            Vote::new_committed(own.leader_id().term, own.leader_id().voted_for)
        } else {
            vote
        }
    }

    async fn serve_control(&self, mut channel: Channel) -> io::Result<()> {
        while let Some(message) = channel.rx.recv().await? {
            let (request, payload) = decode::<Request>(message)?;
            let (response, payload) = match request {
                Request::Batches { partition, from, end } => self.own_batches(partition, from, end).await,
                request => (self.control(request, payload).await?, Vec::new()),
            };
            channel.tx.send(encode(&response, payload)?).await?;
        }
        Ok(())
    }

    async fn control(&self, request: Request, payload: Bytes) -> io::Result<Response> {
        let raft = self.raft();
        Ok(match request {
            Request::Vote(head) if planted(Bug::GrantEveryVote) => Response::Vote {
                vote: head.vote,
                granted: true,
                last: head.last,
            },
            // A former member that is about to rejoin votes as if it still had its old entries.
            Request::Vote(ref head) | Request::PreVote(ref head)
                if head.last.unwrap_or_default() < self.forgotten() =>
            {
                Response::Vote {
                    vote: self
                        .store()
                        .tail()
                        .vote
                        .map_or_else(StoredVote::default, |v| StoredVote::from(&v)),
                    granted: false,
                    last: None,
                }
            }
            Request::Vote(head) => {
                vote_response(raft.vote(vote_request(head)).await.map_err(io::Error::other)?)
            }
            Request::PreVote(head) => vote_response(
                raft.pre_vote(vote_request(head))
                    .await
                    .map_err(io::Error::other)?,
            ),
            Request::Transfer { from, to, last } => {
                let request = TransferLeaderRequest::new(from.into(), to, log_ids(last));
                if to == self.node() && (self.is_witness() || self.lacks_earlier_entries()) {
                    return Ok(Response::Transferred(false));
                }
                let taken = raft.handle_transfer_leader(request).await;
                Response::Transferred(taken.map_err(io::Error::other)?.is_ok())
            }
            Request::Announce { node, member } => {
                let same = |m: &Member| m.key == member.key && m.witness == member.witness;
                let known = self.members().get(&node).map(same);
                let taken = known == Some(true) && self.add_learner(node, member).await.is_ok();
                Response::Transferred(taken)
            }
            Request::Members => {
                let keys = self.members().into_values().map(|member| member.key);
                Response::Members(keys.collect())
            }
            Request::Forward(ask) => match self.forwarded() {
                Some(answer) => Response::Forwarded(answer.answer(ask).await),
                None => Response::Unable("nobody is there yet".to_owned()),
            },
            Request::Batches { .. } => return Err(malformed("batches have an answer of their own")),
            append @ Request::Append { .. } => {
                let request = append_request(append, payload)?;
                self.shared().hear_leader();
                let (prev, last) = (request.prev_log_id, request.entries.last().map(|e| e.log_id));
                let done = raft.append_entries(request).await.map_err(io::Error::other)?;
                match done.into_stream_result(prev, last.or(prev)) {
                    Ok(last) => Response::Appended(ids(last.as_ref())),
                    Err(StreamAppendError::Conflict(at)) => Response::Conflict(crate::types::entry_id(&at)),
                    Err(StreamAppendError::HigherVote(vote)) => Response::HigherVote(StoredVote::from(&vote)),
                }
            }
        })
    }

    async fn serve_snapshot(&self, mut channel: Channel) -> io::Result<()> {
        // Two snapshots at once would mix their batches.
        let _alone = self.receiving().lock().await;
        let Some(first) = channel.rx.recv().await? else {
            return Ok(());
        };
        let (SnapshotPart::Begin { vote, at, members }, _) = decode(first)? else {
            return Err(malformed("a snapshot begins with its beginning"));
        };
        let wants = self.next_offsets()?;
        self.shared().hear_leader();
        tracing::info!(index = at.index, partitions = wants.len(), "receiving a snapshot");
        answer(&mut channel, &SnapshotAnswer::Wants(wants)).await?;
        let (mut state, mut bytes) = (Vec::new(), 0);
        loop {
            let message = channel.rx.recv().await?;
            let message = message.ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))?;
            match decode::<SnapshotPart>(message)? {
                (SnapshotPart::State(rows), _) => {
                    bytes += rows.iter().map(|(k, v)| k.len() + v.len()).sum::<usize>();
                    if bytes > SNAPSHOT_STATE_BYTES_MAX {
                        return Err(malformed("the state of a snapshot is over its limit"));
                    }
                    let rows = rows.into_iter();
                    state.extend(rows.map(|(k, v)| (StateKey::from_bytes(k), Bytes::from(v))));
                }
                (SnapshotPart::Batches { partition, .. }, _) if partition.group() != self.id() => {
                    return Err(malformed("a batch of another group"));
                }
                (SnapshotPart::Batches { partition, lengths }, payload) => {
                    self.receive(partition, &lengths, payload).await?;
                }
                (SnapshotPart::End, _) => break,
                (SnapshotPart::Begin { .. }, _) => return Err(malformed("a snapshot begins once")),
            }
            answer(&mut channel, &SnapshotAnswer::Next).await?;
        }
        let snapshot = Snapshot {
            meta: SnapshotMeta {
                last_log_id: Some(log_id(at)),
                last_membership: members.stored(),
            },
            snapshot: SnapshotData::Received(state),
        };
        let installed = self.raft().install_full_snapshot(vote.into(), snapshot).await;
        let vote = StoredVote::from(&installed.map_err(io::Error::other)?.vote);
        tracing::info!(index = at.index, "snapshot is installed");
        answer(&mut channel, &SnapshotAnswer::Done(vote)).await
    }

    async fn receive(&self, partition: PartitionId, lengths: &[u32], payload: Bytes) -> io::Result<()> {
        let batches = batches(lengths, payload)?;
        let bytes = batches.iter().map(|b| b.bytes().len() as u64).sum();
        self.log().room_for(bytes, true).map_err(io::Error::other)?;
        wait(|done| self.log().receive(partition, batches, done)).await
    }

    /// Returns the next offset of each partition, of applied batches and of received batches.
    fn next_offsets(&self) -> io::Result<BTreeMap<PartitionId, Offset>> {
        let mut next = self.log().received().map_err(io::Error::other)?;
        next.retain(|partition, _| partition.group() == self.id());
        let ends = self.log().ends().into_iter();
        for (partition, end) in ends.filter(|(partition, _)| partition.group() == self.id()) {
            let end = end.max(next.get(&partition).copied().unwrap_or_default());
            next.insert(partition, end);
        }
        Ok(next)
    }
}

async fn answer(channel: &mut Channel, answer: &SnapshotAnswer) -> io::Result<()> {
    channel.tx.send(encode(answer, Vec::new())?).await
}

fn append_request(request: Request, payload: Bytes) -> io::Result<AppendEntriesRequest<Types>> {
    let Request::Append {
        vote,
        prev,
        commit,
        entries: wire,
    } = request
    else {
        return Err(malformed("not for this stream"));
    };
    Ok(AppendEntriesRequest {
        vote: vote.into(),
        prev_log_id: log_ids(prev),
        entries: entries(wire, payload)?,
        leader_commit: log_ids(commit),
    })
}

fn vote_request(head: VoteHead) -> VoteRequest<Types> {
    let mut request = VoteRequest::new(head.vote.into(), log_ids(head.last));
    request.leadership_transfer = head.transfer;
    request
}

fn vote_response(response: VoteResponse<Types>) -> Response {
    Response::Vote {
        vote: StoredVote::from(&response.vote),
        granted: response.vote_granted,
        last: ids(response.last_log_id.as_ref()),
    }
}
