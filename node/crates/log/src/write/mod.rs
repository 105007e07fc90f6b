//! The single thread that writes.
//!
//! The writer takes a command and drains the queue up to a byte cap. The round becomes a single fjall batch
//! with a single sync; a round of many bytes syncs the value log first. Then the waiters are told, and
//! commands that queued up meanwhile form the next round. Effects of committed entries join the next batch
//! without a sync of their own, since recovery replays them from the headers.
//!
//! A failed write or sync ends the thread: the waiters' outcome is unknown, and later commands are refused.

pub(crate) mod command;
mod commit;
mod effects;
mod forget;
mod install;
mod mend;
mod run;
pub(crate) mod store_writer;
mod sweep;
pub(crate) mod tail;
mod truncate;
pub(crate) mod writer;
