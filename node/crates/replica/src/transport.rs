//! What a group needs of the network: ordered streams of messages to a member.

use crate::types::Member;
use crate::types::NodeId;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use std::io;
use weir_types::limits::REPLICA_PARTS_BYTES_MAX;

/// Opens streams to members.
pub trait Transport: Send + Sync + 'static {
    /// A new stream to `node`, in an existing connection or a new one. The node proves that it has the key of
    /// `member`.
    fn open(&self, node: NodeId, member: Member) -> BoxFuture<'static, io::Result<Channel>>;
    /// `node` does not answer: the next stream is opened in a new connection.
    fn suspect(&self, node: NodeId);
    /// Bytes of the largest message that it takes.
    fn message_bytes_max(&self) -> usize {
        REPLICA_PARTS_BYTES_MAX
    }
}

/// Both directions of a stream.
pub struct Channel {
    /// To the other side.
    pub tx: Box<dyn Outgoing>,
    /// From it.
    pub rx: Box<dyn Incoming>,
}

/// Sends messages.
pub trait Outgoing: Send + Sync {
    /// Sends a message, given in parts; returns when it is handed over. Not cancel safe.
    fn send(&mut self, parts: Vec<Bytes>) -> BoxFuture<'_, io::Result<()>>;
}

/// Receives messages.
pub trait Incoming: Send + Sync {
    /// The next message; `None` when the other side has ended the stream. Not cancel safe.
    fn recv(&mut self) -> BoxFuture<'_, io::Result<Option<Bytes>>>;
}
