//! The partitioned log on fjall: the only crate that names it.
//!
//! Owns the bytes on the disk and the one thread that writes them. An [`Entry`] of a replica group is stored split:
//! its [`EntryHeader`] under (group, index), each batch, or where it lies in the value log, under (partition, base
//! offset), both in one atomic write.
//! Knows nothing of topics, of who may write, or of when an entry is committed: that is told to it by [`Log::apply`].
//!
//! Laws:
//! - what a callback of [`Log::append`] reported as flushed survives a power cut, unless its entry was `lazy`
//! - the headers of a group chain; [`Log::open`] walks the chain and says which offsets a hole in it cost
//! - offsets are never used twice: ceilings are reserved ahead in a file of their own ([`watermark`])
//! - after a failed write nothing more is written; the outcome of what was under way is unknown
//!
//! ```text
//!   log_start          committed_end   next_offset        ceiling
//!   |  readable        |  flushed or not  |  reserved      |
//!   +------------------+------------------+----------------+
//! ```

mod beside;
mod copy;
mod damage;
mod effects;
mod encoding;
mod entry;
mod error;
mod forget;
mod found;
mod gaps;
mod installing;
mod journal;
mod keys;
mod kv;
mod log;
mod opening;
mod positions;
mod reader;
mod recovery;
mod refused;
mod rows;
mod salvage;
mod scrub;
mod shelter;
#[cfg(any(test, feature = "testing"))]
pub mod simulated;
mod snapshot;
mod space;
mod stops;
mod store;
mod tails;
#[cfg(test)]
mod tests;
mod value_log;
mod watermark;
mod workers;
mod writer;

pub use beside::repair_is_noted;
pub use damage::Damage;
pub use encoding::{FormatError, decode, decode_body, encode, encode_as, version_of};
pub use entry::{Append, Entry, EntryHeader, EntryId, Op, OpHeader};
pub use error::{AppendError, OpenError, ReadError};
pub use keys::{StateKey, StateKind};
pub use log::{Environment, Log, Usage};
pub use positions::{Marks, Position};
pub use reader::{Boundary, Chunk, Payloads, Piece};
pub use recovery::{GroupState, Recovered};
#[cfg(any(test, feature = "testing"))]
pub use salvage::comes_back;
pub use salvage::{CameBack, Rebuilt, rebuild};
pub use scrub::{ScrubReport, set_aside};
pub use snapshot::LogSnapshot;
pub use stops::Stop;
pub use store::{Options, Store};
pub use workers::{Errand, Running, Threads, Turn, Wake, Worker, Workers};
