//! The network, as a group needs it: ordered streams of messages to members.

use crate::types::Member;
use crate::types::NodeId;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use std::io;
use weir_types::limits::REPLICA_PARTS_BYTES_MAX;

/// Opens streams to members.
pub trait Transport: Send + Sync + 'static {
    /// Opens a stream to `node`, on an existing or a new connection. The node proves that it has the key
    /// of `member`.
    fn open(&self, node: NodeId, member: Member) -> BoxFuture<'static, io::Result<Channel>>;
    /// Marks `node` as silent: the next stream gets a new connection.
    fn suspect(&self, node: NodeId);
    /// Returns the limit on the bytes of a message.
    fn message_bytes_max(&self) -> usize {
        REPLICA_PARTS_BYTES_MAX
    }
}

/// Both directions of a stream.
pub struct Channel {
    /// Sends to the other side.
    pub tx: Box<dyn Outgoing>,
    /// Receives from the other side.
    pub rx: Box<dyn Incoming>,
}

/// Sends messages.
pub trait Outgoing: Send + Sync {
    /// Sends a message, given in parts. Returns when the message is handed over. Not cancel safe.
    fn send(&mut self, parts: Vec<Bytes>) -> BoxFuture<'_, io::Result<()>>;
}

/// Receives messages.
pub trait Incoming: Send + Sync {
    /// Receives the next message; `None` at the end of the stream. Not cancel safe.
    fn recv(&mut self) -> BoxFuture<'_, io::Result<Option<Bytes>>>;
}
