//! A connection to a member, and the messages that ask and answer on its control stream.

use crate::raft::shared::Shared;
use crate::raft::store::Store;
use crate::raft::witness::HoldBack;
use crate::transport::{Channel, Transport};
use crate::types::{Member, NodeId, Types};
use crate::wire::{Open, Purpose, Request, Response, decode, encode};
use bytes::Bytes;
use openraft::AnyError;
use openraft::errors::{NetworkError, RPCError, Unreachable};
use std::io;
use std::sync::Arc;
use std::time::Duration;
use weir_types::GroupId;

/// Slowest link that a site's nodes may use, a megabit per second: large requests get that much more time.
pub(crate) const SLOW_BYTES_A_SECOND: u64 = 128 << 10;

/// A connection of an openraft task to a member.
pub(crate) struct Peer {
    pub(crate) group: GroupId,
    pub(crate) node: NodeId,
    pub(crate) member: Member,
    pub(crate) transport: Arc<dyn Transport>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) store: Store,
    /// Present for a witness.
    pub(crate) hold_back: Option<HoldBack>,
    pub(crate) control: Option<Channel>,
}

pub(crate) fn unreachable(e: &io::Error) -> RPCError<Types> {
    RPCError::Unreachable(Unreachable::new(e))
}

pub(crate) fn failed(why: impl ToString) -> RPCError<Types> {
    RPCError::Network(NetworkError::new(&AnyError::error(why)))
}

/// Returns the time that a slow link needs for `bytes`.
pub(crate) fn slow_link(bytes: usize) -> Duration {
    Duration::from_millis(bytes as u64 * 1_000 / SLOW_BYTES_A_SECOND)
}

pub(crate) fn timed_out() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "no answer in time")
}

impl Peer {
    pub(crate) async fn open(&self, purpose: Purpose) -> io::Result<Channel> {
        // openraft remembers the first address; the member may have moved.
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

    /// Asks on the control stream. A stream that failed or timed out is dropped.
    pub(crate) async fn ask(
        &mut self,
        request: Request,
        payload: Vec<Bytes>,
        within: Duration,
    ) -> Result<Response, RPCError<Types>> {
        let asked = self.ask_whole(request, payload, within).await;
        asked.map(|(response, _)| response)
    }

    /// Asks on the control stream, and returns the answer with its payload.
    pub(crate) async fn ask_whole(
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
