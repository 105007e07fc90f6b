//! The one thread that writes.
//!
//! Takes a command, drains what else is there up to a byte cap, makes one fjall batch of it and one sync (and one of
//! the value log before it, for a round of many bytes), and then tells the waiters: what queued up behind a sync goes
//! with the next, at once. Effects of committed entries ride along with the next batch and cost no sync of their own,
//! since recovery makes them again from the headers.
//! A failed write or sync ends the thread: its waiters' outcome is unknown, and everything later is refused.

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
