//! What can go wrong between two peers.

use std::io;
use std::net::SocketAddr;
use weir_types::ErrorKind;

/// Why a peer could not be reached, or a stream broke.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the messages say it")]
pub enum PeerError {
    #[error("cannot listen on {addr}")]
    Listen { addr: SocketAddr, source: io::Error },
    #[error("cannot use identity or known nodes in `{path}`")]
    Identity { path: String, source: io::Error },
    #[error(
        "`{missing}` is missing and `{there}` is there: put it back, or set the other aside to make a new identity, which no other \
         node knows"
    )]
    HalfIdentity { missing: String, there: String },
    #[error(
        "`{certificate}` and `{key}` are no certificate and its key ({why}): put them back from a copy, or set both aside to make \
         a new identity, which no other node knows: one of a site of several must then join again, with a token and an empty \
         directory"
    )]
    BrokenIdentity {
        certificate: String,
        key: String,
        why: String,
    },
    #[error(
        "the key in `{path}` is open to others (mode {mode:o}): somebody may have it. `chmod 600` it if nobody does, or set both \
         files of the identity aside"
    )]
    OpenKey { path: String, mode: u32 },
    #[error(
        "line {line} of `{path}` is no `HOST:PORT KEY`: mend it, or set the file aside to forget all nodes that were met"
    )]
    KnownNodes { path: String, line: usize },
    #[error("cannot make keys: {0}")]
    Tls(String),
    #[error("no node answers at {addr}: {why}; is `weir serve` running there?")]
    Connect { addr: SocketAddr, why: String },
    #[error(
        "the node at {addr} has another key than when it was first met ({seen}; known is {known}). If it was set up \
         anew, remove its line from `{path}`; if not, somebody stands between"
    )]
    KeyChanged {
        addr: SocketAddr,
        seen: String,
        known: String,
        path: String,
    },
    #[error("the node at {addr} has the key {seen}, which is not the one that this site knows it by")]
    Stranger { addr: SocketAddr, seen: String },
    #[error("connection lost: {0}")]
    Lost(String),
    #[error("frame of {bytes} bytes is over the limit of {limit}")]
    FrameTooLarge { bytes: usize, limit: usize },
    #[error("malformed message: {0}")]
    Malformed(String),
    #[error("no answer in time")]
    Timeout,
    #[error("{0}")]
    Busy(String),
}

impl PeerError {
    /// What the caller does.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Connect { .. } | Self::Timeout | Self::Busy(_) => ErrorKind::Retry,
            Self::Lost(_) => ErrorKind::UnknownOutcome,
            Self::KeyChanged { .. }
            | Self::Stranger { .. }
            | Self::FrameTooLarge { .. }
            | Self::Malformed(_) => ErrorKind::Invalid,
            Self::Listen { .. }
            | Self::Identity { .. }
            | Self::HalfIdentity { .. }
            | Self::BrokenIdentity { .. }
            | Self::OpenKey { .. }
            | Self::KnownNodes { .. }
            | Self::Tls(_) => ErrorKind::Internal,
        }
    }
}
