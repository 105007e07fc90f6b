//! Replica groups on Raft: propose an entry, and wait until most members have the entry on their disks.
//!
//! Owns the order of a group's entries and knows the committed entries, but not their meaning. Consensus is
//! openraft's; this is the only crate that names openraft. The crate provides the log (`raft::store`), the
//! streams (`raft::network`, [`serve`]) and the state machine (`raft::machine`) that openraft stands on.
//!
//! Laws:
//! - entries commit in index order; their effects ([`StateMachine::apply`]) come before their waiters are
//!   told
//! - an entry whose waiter got `Ok` is on the disks of most voters; an entry that may yet be committed is
//!   never called failed
//! - only the holder of the current [`Leader`] proposes, and only in its term: results computed ahead of
//!   commitment in another term are refused, not merged
//! - consensus never waits for the disk: appends are handed over while votes and answers go on
//!
//! Rooms, top to bottom; imports point downwards only: `testing`, `peers` > `group` > `raft` > `wire` >
//! `starts`, `transport`, `error` > `types`.

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
