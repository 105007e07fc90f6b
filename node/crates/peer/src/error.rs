//! Errors of connections and streams between peers.

use std::io;
use std::net::SocketAddr;
use weir_types::ErrorKind;

/// An error of a connection, a stream or the keys that secure them.
#[derive(Debug, thiserror::Error)]
pub enum PeerError {
    /// The listening address cannot be bound.
    #[error("cannot listen on {addr}")]
    Listen {
        /// The address.
        addr: SocketAddr,
        /// The cause.
        source: io::Error,
    },
    /// The identity or the list of known nodes cannot be read or written.
    #[error("cannot use identity or known nodes in `{path}`")]
    Identity {
        /// The file or directory.
        path: String,
        /// The cause.
        source: io::Error,
    },
    /// Only one of the two identity files exists.
    #[error(
        "`{missing}` is missing but `{there}` exists: put it back, or move the other away to make a new identity, which no \
         other node knows"
    )]
    HalfIdentity {
        /// The file that is missing.
        missing: String,
        /// The file that exists.
        there: String,
    },
    /// The identity files hold no valid certificate and key, or the two do not match.
    #[error(
        "`{certificate}` and `{key}` are not a certificate and its key ({why}): put them back from a copy, or move both away to make \
         a new identity, which no other node knows: a node of a larger site must then join again, with a token and an empty \
         directory"
    )]
    BrokenIdentity {
        /// Path of the certificate.
        certificate: String,
        /// Path of the private key.
        key: String,
        /// The reason, for people.
        why: String,
    },
    /// The private key is readable by other users.
    #[error(
        "the key in `{path}` is readable by others (mode {mode:o}). Use `chmod 600` if nobody has copied the key, else move both \
         files of the identity away"
    )]
    OpenKey {
        /// Path of the private key.
        path: String,
        /// Permission bits of the file.
        mode: u32,
    },
    /// A line in the list of known nodes is malformed.
    #[error(
        "line {line} of `{path}` is not `HOST:PORT KEY`: repair the line, or move the file away to forget all known nodes"
    )]
    KnownNodes {
        /// The file.
        path: String,
        /// Number of the line, from 1.
        line: usize,
    },
    /// TLS could not be configured with the given keys.
    #[error("cannot set up TLS: {0}")]
    Tls(String),
    /// No node answered at the address.
    #[error("no node answers at {addr}: {why}; is `weir serve` running there?")]
    Connect {
        /// The address.
        addr: SocketAddr,
        /// The reason, for people.
        why: String,
    },
    /// The node's key differs from the key recorded at the first connection.
    #[error(
        "the key of the node at {addr} has changed ({seen}; known is {known}). If the node was set up \
         again, remove its line from `{path}`; if not, the connection may be intercepted"
    )]
    KeyChanged {
        /// Address of the node.
        addr: SocketAddr,
        /// Fingerprint of the key that the node proved.
        seen: String,
        /// Fingerprint recorded earlier.
        known: String,
        /// The file with the known nodes.
        path: String,
    },
    /// A node of the site proved another key than expected.
    #[error("the node at {addr} has the key {seen}, which differs from the key known to this site")]
    Stranger {
        /// Address of the node.
        addr: SocketAddr,
        /// Fingerprint of the key that the node proved.
        seen: String,
    },
    /// The connection or stream broke; the outcome of a request under way is unknown.
    #[error("connection lost: {0}")]
    Lost(String),
    /// A frame exceeds the size limit of its receiver.
    #[error("frame of {bytes} bytes is over the limit of {limit}")]
    FrameTooLarge {
        /// Bytes announced.
        bytes: usize,
        /// Maximum bytes.
        limit: usize,
    },
    /// A frame or message cannot be decoded.
    #[error("malformed message: {0}")]
    Malformed(String),
    /// The peer did not answer in time.
    #[error("no answer in time")]
    Timeout,
    /// The peer rejected the request because it is overloaded.
    #[error("{0}")]
    Busy(String),
}

impl PeerError {
    /// Returns the reaction that the error calls for.
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
