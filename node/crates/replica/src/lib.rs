//! Replica groups: propose an entry, wait until it is committed.
//!
//! Owns the order of a group's entries and knows which are committed; knows nothing of what they mean. When an entry
//! counts as committed is a [`CommitRule`]'s matter: today [`Synced`], "on this node's disk", where consensus will
//! take its place behind the same calls.
//!
//! Laws:
//! - entries commit in the order of their indexes; effects ([`StateMachine::apply`]) come before waiters are told
//! - an entry whose waiter got `Ok` is never taken back; one that is discarded leaves nothing behind
//! - only the holder of the current [`Leader`] proposes; when a tail is discarded its term is over, and whatever was
//!   computed ahead of commitment under it is void

mod error;
mod group;
mod rule;

pub use error::ProposeError;
pub use group::{Decided, Group, Leader, Proposal, StateMachine};
pub use rule::{CommitRule, Decider, Synced};
