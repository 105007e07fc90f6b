//! QUIC: identity, framing and the messages of the client protocol. The only crate that names quinn.
//!
//! TLS always. A node makes itself a key and a certificate on first start ([`Identity`]); a client remembers the key
//! of a node when it first meets it and refuses another one later, as ssh does ([`KnownNodes`]): a gateway may boot
//! without a clock and without anybody to sign for it. On a connection the client opens a first stream, says hello and
//! is answered; then it opens streams as it likes, each a queue of requests that are answered in order.

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
