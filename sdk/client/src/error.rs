//! Errors of the client.

use weir_peer::PeerError;
use weir_peer::protocol::WireError;
use weir_types::ErrorKind;

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum ClientError {
    #[error(transparent)]
    Peer(#[from] PeerError),
    /// The node refused the request, for the reason in its message.
    #[error("{0}")]
    Node(WireError),
    /// The request had no effect: another node leads, at this address if known.
    #[error("another node leads")]
    Elsewhere(Option<String>),
    #[error("no node of the site leads; most of them may be away: `weir cluster status` tells")]
    NoLeader,
    #[error("no topic `{0}`; `weir topic list` shows what there is")]
    NoTopic(String),
    #[error("batch refused: {0}")]
    Batch(#[from] weir_types::BatchError),
}

impl ClientError {
    /// Returns the reaction that fits the error.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Peer(e) => e.kind(),
            Self::Node(e) => e.kind.into(),
            Self::Elsewhere(_) | Self::NoLeader => ErrorKind::Retry,
            Self::NoTopic(_) | Self::Batch(_) => ErrorKind::Invalid,
        }
    }
}
