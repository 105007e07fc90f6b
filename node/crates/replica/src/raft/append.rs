//! Entries to a member, and the answers.

#![expect(
    clippy::result_large_err,
    reason = "openraft's error is what its traits return"
)]

use crate::raft::shared::Shared;
use crate::raft::stream::{failed, slow_link, timed_out, unreachable};
use crate::raft::witness::HoldBack;
use crate::transport::Transport;
use crate::types::{NodeId, StoredVote, Types, entry_id};
use crate::wire::{Request, Response, WireEntry, decode, encode, ids, log_ids};
use bytes::Bytes;
use futures_util::stream::BoxStream;
use futures_util::{Stream, StreamExt};
use openraft::errors::RPCError;
use openraft::raft::{AppendEntriesRequest, StreamAppendError, StreamAppendResult};
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// Silence of a follower after which it gets a new connection, beside the time that a slow link needs.
pub(crate) const APPEND_SILENCE: Duration = Duration::from_secs(5);

pub(super) type Answers<'a> = BoxStream<'a, Result<StreamAppendResult<Types>, RPCError<Types>>>;

pub(super) fn append_message(
    request: &AppendEntriesRequest<Types>,
    to_witness: bool,
) -> (Request, Vec<Bytes>) {
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

pub(super) fn append_answer(response: Response) -> Result<StreamAppendResult<Types>, RPCError<Types>> {
    match response {
        Response::Appended(last) => Ok(Ok(log_ids(last))),
        Response::Conflict(at) => Ok(Err(StreamAppendError::Conflict(crate::types::log_id(at)))),
        Response::HigherVote(vote) => Ok(Err(StreamAppendError::HigherVote(vote.into()))),
        Response::Unable(why) => Err(unreachable(&io::Error::other(why))),
        other => Err(failed(format!("unexpected answer {other:?}"))),
    }
}

/// Sends requests as they come, ahead of their answers by as many as there are places.
pub(super) struct Sending<'a, S> {
    pub(super) input: S,
    pub(super) tx: Box<dyn crate::transport::Outgoing>,
    pub(super) sent: mpsc::Sender<usize>,
    /// Present for a witness.
    pub(super) hold_back: Option<&'a mut HoldBack>,
    pub(super) shared: Arc<Shared>,
    pub(super) transport: Arc<dyn Transport>,
}

impl<S: Stream<Item = AppendEntriesRequest<Types>> + Unpin> Sending<'_, S> {
    pub(super) async fn run(mut self) -> io::Result<()> {
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
            // Before the request is sent: the answer may come before this task runs again.
            place.send(bytes);
            self.tx.send(message).await?;
        }
    }
}

/// Returns the answers of a stream in order, while requests are sent.
pub(super) struct Answering<'a> {
    pub(super) rx: Box<dyn crate::transport::Incoming>,
    pub(super) under_way: mpsc::Receiver<usize>,
    /// `None` when everything is sent.
    pub(super) sending: Option<std::pin::Pin<Box<dyn Future<Output = io::Result<()>> + Send + 'a>>>,
    pub(super) node: NodeId,
    pub(super) transport: Arc<dyn Transport>,
    pub(super) shared: Arc<Shared>,
}

impl Answering<'_> {
    pub(super) async fn next(
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

    pub(super) async fn answer(
        &mut self,
    ) -> io::Result<Option<Result<StreamAppendResult<Types>, RPCError<Types>>>> {
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
