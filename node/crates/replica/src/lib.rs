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
mod machine;
mod members;
#[cfg(any(test, feature = "testing"))]
pub mod memory;
mod mend;
mod network;
mod peers;
mod raft;
mod serve;
mod starts;
mod store;
mod tail;
#[cfg(test)]
mod tests;
mod transport;
mod wire;
pub mod witness;

pub use error::{GroupError, ProposeError};
pub use group::{Decided, Forwarded, Group, GroupConfig, Leader, Proposal, StateMachine, Timing};
pub use members::{GroupStatus, MemberStatus, Role};
pub use mend::Mended;
pub use peers::Turned;
pub use peers::{Host, Peers};
pub use raft::{Member, NodeId};
pub use serve::serve;
pub use starts::{LastStart, Seen, Started, Starts, TELL_EVERY, Verdict};
pub use store::{make_alone, members_in};
pub use transport::{Channel, Incoming, Outgoing, Transport};
pub use wire::{Claim, JoinReply, JoinRequest};
