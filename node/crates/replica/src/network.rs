//! How openraft reaches the other members: its calls as messages on streams that are opened once and kept.

#![expect(
    clippy::result_large_err,
    reason = "openraft's error is what its traits return"
)]

use crate::group::{Group, Shared, Timing};
use crate::machine::SnapshotData;
use crate::raft::{Member, NodeId, StoredMembers, StoredVote, Types, Vote, entry_id};
use crate::store::Store;
use crate::transport::{Channel, Transport};
use crate::wire::{
    Open, Purpose, Request, Response, SnapshotAnswer, SnapshotPart, VoteHead, WireEntry, decode, encode, ids,
    log_ids,
};
use crate::witness::HoldBack;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::{self, BoxStream};
use futures_util::{Stream, StreamExt};
use openraft::errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{Backoff, RPCOption, RaftNetworkFactory, RaftNetworkV2};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, StreamAppendError, StreamAppendResult,
    TransferLeaderError, TransferLeaderRequest, TransferLeaderResponse, VoteRequest, VoteResponse,
};
use openraft::{AnyError, OptionalSend};
use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use weir_log::{Log, LogSnapshot, ReadError};
use weir_types::limits::{REPLICATE_INFLIGHT_MAX, SNAPSHOT_CHUNK_BYTES};
use weir_types::{Batch, GroupId, Offset, PartitionId};

/// How long a member that cannot be reached is left alone: it may be back any moment, and a call costs a packet.
const RETRY: Duration = Duration::from_millis(200);
/// A follower that answers nothing for so long while it should, beside the time that a slow link takes for what it was sent, is given a
/// new connection.
const APPEND_SILENCE: Duration = Duration::from_secs(5);
/// A link that is slower than a megabit a second is none that a site's nodes talk over: what is asked with much to send takes as long.
const SLOW_BYTES_A_SECOND: u64 = 128 << 10;
/// One part of a snapshot is taken by the receiver within this time: it syncs about a megabyte.
const SNAPSHOT_PART: Duration = Duration::from_secs(30);
/// Installing is one write of all rows.
const SNAPSHOT_INSTALL: Duration = Duration::from_secs(300);

/// Makes the connections of one group.
pub(crate) struct Network {
    pub(crate) group: GroupId,
    pub(crate) transport: Arc<dyn Transport>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) store: Store,
    pub(crate) timing: Timing,
}

/// One openraft task's connection to one member.
pub(crate) struct Peer {
    group: GroupId,
    node: NodeId,
    member: Member,
    transport: Arc<dyn Transport>,
    shared: Arc<Shared>,
    store: Store,
    /// For a witness.
    hold_back: Option<HoldBack>,
    control: Option<Channel>,
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

type Answers<'a> = BoxStream<'a, Result<StreamAppendResult<Types>, RPCError<Types>>>;

fn unreachable(e: &io::Error) -> RPCError<Types> {
    RPCError::Unreachable(Unreachable::new(e))
}

fn failed(why: impl ToString) -> RPCError<Types> {
    RPCError::Network(NetworkError::new(&AnyError::error(why)))
}

/// What a slow link takes for so many bytes.
fn slow_link(bytes: usize) -> Duration {
    Duration::from_millis(bytes as u64 * 1_000 / SLOW_BYTES_A_SECOND)
}

fn timed_out() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "no answer in time")
}

impl Peer {
    async fn open(&self, purpose: Purpose) -> io::Result<Channel> {
        // openraft keeps what it was told first; a member may be reached elsewhere by now.
        let now = self
            .shared
            .members()
            .and_then(|m| m.get_node(&self.node).cloned());
        let member = now.unwrap_or_else(|| self.member.clone());
        let mut channel = self.transport.open(self.node, member).await?;
        let open = Open::Group {
            group: self.group,
            to: self.node,
            purpose,
        };
        channel.tx.send(open.encode()?).await?;
        Ok(channel)
    }

    /// Asks on the control stream. A stream on which that failed, or took too long, is given up.
    async fn ask(
        &mut self,
        request: Request,
        payload: Vec<Bytes>,
        within: Duration,
    ) -> Result<Response, RPCError<Types>> {
        let asked = self.ask_whole(request, payload, within).await;
        asked.map(|(response, _)| response)
    }

    /// As [`Peer::ask`], with what comes behind the answer.
    async fn ask_whole(
        &mut self,
        request: Request,
        payload: Vec<Bytes>,
        within: Duration,
    ) -> Result<(Response, Bytes), RPCError<Types>> {
        let control = self.control.take();
        let asked = async {
            let mut channel = match control {
                Some(channel) => channel,
                None => self.open(Purpose::Control).await?,
            };
            channel.tx.send(encode(&request, payload)?).await?;
            let answer = channel.rx.recv().await?;
            let answer = answer.ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))?;
            Ok::<_, io::Error>((decode::<Response>(answer)?, channel))
        };
        match tokio::time::timeout(within, asked).await {
            Ok(Ok((response, channel))) => {
                self.control = Some(channel);
                Ok(response)
            }
            Ok(Err(e)) => Err(unreachable(&e)),
            Err(_) => {
                self.transport.suspect(self.node);
                Err(unreachable(&timed_out()))
            }
        }
    }
}

fn append_message(request: &AppendEntriesRequest<Types>, to_witness: bool) -> (Request, Vec<Bytes>) {
    let mut payload = Vec::new();
    let entries = request.entries.iter().map(|e| match to_witness {
        true => WireEntry::header(e),
        false => WireEntry::of(e, &mut payload),
    });
    let entries = entries.collect();
    let head = Request::Append {
        vote: StoredVote::from(&request.vote),
        prev: ids(request.prev_log_id.as_ref()),
        commit: ids(request.leader_commit.as_ref()),
        entries,
    };
    (head, payload)
}

fn append_answer(response: Response) -> Result<StreamAppendResult<Types>, RPCError<Types>> {
    match response {
        Response::Appended(last) => Ok(Ok(log_ids(last))),
        Response::Conflict(at) => Ok(Err(StreamAppendError::Conflict(crate::raft::log_id(at)))),
        Response::HigherVote(vote) => Ok(Err(StreamAppendError::HigherVote(vote.into()))),
        Response::Unable(why) => Err(unreachable(&io::Error::other(why))),
        other => Err(failed(format!("unexpected answer {other:?}"))),
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
            // What is under way: a place is taken before a request is made, and given back with its answer.
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

/// Sends requests as they come, as many ahead of their answers as there are places.
struct Sending<'a, S> {
    input: S,
    tx: Box<dyn crate::transport::Outgoing>,
    sent: mpsc::Sender<usize>,
    /// The other side is a witness.
    hold_back: Option<&'a mut HoldBack>,
    shared: Arc<Shared>,
    transport: Arc<dyn Transport>,
}

impl<S: Stream<Item = AppendEntriesRequest<Types>> + Unpin> Sending<'_, S> {
    async fn run(mut self) -> io::Result<()> {
        loop {
            let Ok(place) = self.sent.reserve().await else {
                return Ok(());
            };
            let Some(request) = self.input.next().await else {
                return Ok(());
            };
            if let (Some(hold_back), Some(last)) = (&mut self.hold_back, request.entries.last()) {
                hold_back.until_copied(last.log_id.index()).await?;
            }
            let (head, payload) = append_message(&request, self.hold_back.is_some());
            let message = encode(&head, payload)?;
            let bytes: usize = message.iter().map(Bytes::len).sum();
            if bytes > self.transport.message_bytes_max() {
                let last = request.entries.last().map(|e| entry_id(&e.log_id));
                self.shared.cannot_send(last.unwrap_or_default(), bytes);
                return Err(io::Error::other(format!(
                    "{bytes} bytes are too many for one message"
                )));
            }
            // Before it is sent: its answer may come before this task runs again.
            place.send(bytes);
            self.tx.send(message).await?;
        }
    }
}

/// Answers of a stream in their order, while requests are sent.
struct Answering<'a> {
    rx: Box<dyn crate::transport::Incoming>,
    under_way: mpsc::Receiver<usize>,
    /// Gone when all is sent.
    sending: Option<std::pin::Pin<Box<dyn Future<Output = io::Result<()>> + Send + 'a>>>,
    node: NodeId,
    transport: Arc<dyn Transport>,
    shared: Arc<Shared>,
}

impl Answering<'_> {
    async fn next(
        this: Option<Self>,
    ) -> Option<(Result<StreamAppendResult<Types>, RPCError<Types>>, Option<Self>)> {
        let mut this = this?;
        match this.answer().await {
            Ok(None) => None,
            Ok(Some(Ok(Ok(last)))) => Some((Ok(Ok(last)), Some(this))),
            Ok(Some(other)) => Some((other, None)),
            Err(e) => {
                if e.kind() == io::ErrorKind::TimedOut {
                    this.transport.suspect(this.node);
                }
                Some((Err(unreachable(&e)), None))
            }
        }
    }

    async fn answer(&mut self) -> io::Result<Option<Result<StreamAppendResult<Types>, RPCError<Types>>>> {
        let Self {
            rx,
            under_way,
            sending,
            node,
            shared,
            ..
        } = self;
        let answered = async {
            let Some(bytes) = under_way.recv().await else {
                return Ok(None);
            };
            let answer = tokio::time::timeout(APPEND_SILENCE + slow_link(bytes), rx.recv());
            let answer = answer.await.unwrap_or_else(|_| Err(timed_out()))?;
            let answer = answer.ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))?;
            let answer = decode::<Response>(answer)?.0;
            match &answer {
                Response::Unable(why) => shared.refused(*node, why),
                Response::Appended(Some(last)) => shared.has_confirmed(*node, last.index),
                _ => {}
            }
            Ok(Some(append_answer(answer)))
        };
        let mut answered = std::pin::pin!(answered);
        loop {
            let Some(running) = sending else {
                return answered.await;
            };
            tokio::select! {
                biased;
                answer = &mut answered => return answer,
                sent = running => {
                    *sending = None;
                    sent?;
                }
            }
        }
    }
}

/// Sends what the follower lacks of `taken`. Returns its vote once it is installed.
async fn send_snapshot(
    store: &Store,
    mut channel: Channel,
    begin: SnapshotPart,
    taken: Arc<LogSnapshot>,
    to_witness: bool,
) -> io::Result<StoredVote> {
    let wants = match exchange(&mut channel, &begin, Vec::new(), SNAPSHOT_PART).await? {
        SnapshotAnswer::Wants(wants) => wants,
        SnapshotAnswer::Done(vote) => return Ok(vote),
        other => return Err(unexpected(&other)),
    };
    if !to_witness {
        send_batches(store, &mut channel, &taken, wants).await?;
    }
    let log = store.log();
    let mut after: Option<weir_log::StateKey> = None;
    loop {
        let (snapshot, from) = (Arc::clone(&taken), after.take());
        let rows = blocking(log, move || snapshot.state(from.as_ref(), SNAPSHOT_CHUNK_BYTES)).await?;
        let Some((last, _)) = rows.last() else { break };
        after = Some(last.clone());
        let rows = rows
            .iter()
            .map(|(key, value)| (key.as_bytes().to_vec(), value.to_vec()));
        let part = SnapshotPart::State(rows.collect());
        expect_next(exchange(&mut channel, &part, Vec::new(), SNAPSHOT_PART).await?)?;
    }
    match exchange(&mut channel, &SnapshotPart::End, Vec::new(), SNAPSHOT_INSTALL).await? {
        SnapshotAnswer::Done(vote) => Ok(vote),
        other => Err(unexpected(&other)),
    }
}

async fn send_batches(
    store: &Store,
    channel: &mut Channel,
    taken: &Arc<LogSnapshot>,
    wants: BTreeMap<PartitionId, Offset>,
) -> io::Result<()> {
    let log = store.log();
    let snapshot = Arc::clone(taken);
    let partitions = blocking(log, move || snapshot.partitions()).await?;
    for (partition, position) in partitions {
        let has = wants.get(&partition).copied().unwrap_or_default();
        let mut from = has.max(position.log_start);
        if has <= position.log_start {
            // The batch that the start lies in begins before it.
            let snapshot = Arc::clone(taken);
            from = blocking(log, move || snapshot.batch_base(partition, position.log_start)).await?;
        }
        while from < position.committed_end {
            let (snapshot, end) = (Arc::clone(taken), position.committed_end);
            let read = blocking(log, move || {
                snapshot.batches(partition, from, end, SNAPSHOT_CHUNK_BYTES)
            });
            let (batches, next) = match read.await {
                Ok(read) => read,
                // This snapshot goes on showing what was there; the next one shows what is there now.
                Err(e) => {
                    if let Some(e) = e.get_ref().and_then(|e| e.downcast_ref::<ReadError>()) {
                        store.mended(e).await;
                    }
                    return Err(e);
                }
            };
            if !batches.is_empty() {
                let payload: Vec<Bytes> = batches.into_iter().map(weir_types::Batch::into_bytes).collect();
                let lengths = payload.iter().map(|b| b.len() as u32).collect();
                let part = SnapshotPart::Batches { partition, lengths };
                expect_next(exchange(channel, &part, payload, SNAPSHOT_PART).await?)?;
            }
            from = next;
        }
    }
    Ok(())
}

/// Reads of a snapshot block: on a thread of the log's that reads.
async fn blocking<T: Send + 'static>(
    log: &Log,
    read: impl FnOnce() -> Result<T, weir_log::ReadError> + Send + 'static,
) -> io::Result<T> {
    let (done, answer) = oneshot::channel();
    log.apart(move || drop(done.send(read())))
        .map_err(io::Error::other)?;
    answer.await.map_err(io::Error::other)?.map_err(io::Error::other)
}

async fn exchange(
    channel: &mut Channel,
    part: &SnapshotPart,
    payload: Vec<Bytes>,
    within: Duration,
) -> io::Result<SnapshotAnswer> {
    let asked = async {
        channel.tx.send(encode(part, payload)?).await?;
        let answer = channel.rx.recv().await?;
        let answer = answer.ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))?;
        Ok(decode::<SnapshotAnswer>(answer)?.0)
    };
    tokio::time::timeout(within, asked)
        .await
        .unwrap_or_else(|_| Err(timed_out()))
}

fn expect_next(answer: SnapshotAnswer) -> io::Result<()> {
    match answer {
        SnapshotAnswer::Next => Ok(()),
        other => Err(unexpected(&other)),
    }
}

fn unexpected(answer: &SnapshotAnswer) -> io::Error {
    match answer {
        SnapshotAnswer::Unable(why) => io::Error::other(why.clone()),
        other => io::Error::other(format!("unexpected answer {other:?}")),
    }
}

/// A connection of our own, beside those of openraft's tasks.
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

/// Tells the leader how this node is reached from now on; whether it took it.
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

/// Asks the leader what only it can do.
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

/// Asks a member for what it has of a partition in a range, or the first of it.
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

/// Asks a member who the members are, by their keys.
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
