//! Replica groups on Raft: propose an entry, wait until most members have it on their disks.
//!
//! Owns the order of a group's entries and knows which are committed; knows nothing of what they mean. Consensus is
//! openraft's, the only crate that names it is this one. Ours are what it stands on: the log that it writes to
//! ([`store`]), the streams that it talks over ([`network`], [`serve`]), what a committed entry does ([`machine`]).
//!
//! Laws:
//! - entries commit in the order of their indexes; effects ([`StateMachine::apply`]) come before waiters are told
//! - an entry whose waiter got `Ok` is on the disks of most voters; one that may yet be committed is never called failed
//! - only the holder of the current [`Leader`] proposes, and only under the term it was given for: what was computed
//!   ahead of commitment in another term is refused, not merged
//! - consensus never waits for the disk: appending hands over, votes and answers go on

mod error;
mod group;
mod peers;
mod raft;
mod starts;
#[cfg(any(test, feature = "testing"))]
pub mod testing;

#[cfg(test)]
mod tests;
mod transport;
mod types;
mod wire;

pub use error::{GroupError, ProposeError};
pub use group::config::GroupConfig;
pub use group::leader::Leader;
pub use group::mend::Mended;
pub use group::serve::serve;
pub use group::status::{GroupStatus, MemberStatus, Role};
pub use group::{Forwarded, Group, Proposal};
pub use peers::{Host, Peers, Turned};
pub use raft::bootstrap::{make_alone, members_in};
pub use raft::shared::{Decided, StateMachine};
pub use raft::timing::Timing;
pub use raft::witness;
pub use starts::{LastStart, Seen, Started, Starts, TELL_EVERY, Verdict};
#[cfg(any(test, feature = "testing"))]
pub use testing as memory;
pub use transport::{Channel, Incoming, Outgoing, Transport};
pub use types::{Member, NodeId};
pub use wire::{Claim, JoinReply, JoinRequest};
