//! QUIC: identity, framing and the messages of the client protocol. The only crate that depends on quinn.
//!
//! All connections use TLS. A node generates its key and certificate on first start ([`Identity`]). A client
//! records a node's key at the first connection and rejects any other key later, as ssh does
//! ([`KnownNodes`]): a gateway may boot without a clock and without a certificate authority.
//!
//! On a connection the client opens a first stream, sends a hello and receives the node's answer. Every
//! further stream is a queue of requests, answered in order.

mod endpoint;
mod error;
mod frame;
mod identity;
pub mod protocol;

pub use endpoint::{
    Incoming, Listener, Network, Peer, PeerStream, SystemNetwork, connect, connect_from, listen, listen_on,
};
pub use error::PeerError;
pub use frame::{
    Frame, read_frame, read_in_parts, read_into, read_length, read_message, write_frame, write_in_parts,
    write_message,
};
pub use identity::{Fingerprint, Identity, KnownNodes};
pub use quinn::{RecvStream, SendStream};
