//! The partitioned log on fjall: the only crate that names fjall.
//!
//! Owns the bytes on the disk and the single thread that writes them. An [`Entry`] of a replica group is
//! stored split: its [`EntryHeader`] under (group, index), and each batch, or its pointer into the value log,
//! under (partition, base offset). Both parts are in an atomic write. The crate knows nothing of topics,
//! writers or commitment: callers report committed entries with [`Log::apply`].
//!
//! Laws:
//! - an entry that a callback of [`Log::append`] reported as flushed survives a power cut, unless the entry
//!   was `lazy`
//! - the headers of a group form a chain; [`Log::open`] walks the chain and reports the offsets lost in a
//!   hole
//! - offsets are never used twice: ceilings are reserved ahead in a file of their own (`store::watermark`)
//! - after a failed write nothing more is written, and the outcome of operations under way is unknown
//!
//! Rooms, top to bottom; imports point downwards only: `open` > `log`, `salvage` > `recovery` > `write` >
//! `read` > `shared`, `options` > `positions` > `store` > `error` > `format` > `host`.
//!
//! ```text
//!   log_start          committed_end   next_offset        ceiling
//!   |  readable        |  flushed or not  |  reserved      |
//!   +------------------+------------------+----------------+
//! ```

mod error;
mod format;
mod host;
mod log;
mod open;
mod options;
mod positions;
mod read;
mod recovery;
mod salvage;
mod shared;
mod store;
#[cfg(test)]
mod tests;
mod write;

pub use error::{AppendError, Damage, OpenError, ReadError};
pub use format::encoding::{FormatError, decode, decode_body, encode, encode_as, version_of};
pub use format::entry::{Append, Entry, EntryHeader, EntryId, Op, OpHeader};
pub use format::keys::{StateKey, StateKind};
pub use format::position::Position;
pub use host::failpoint::Stop;
pub use host::workers::{Errand, Running, Threads, Turn, Wake, Worker, Workers};
pub use log::Log;
pub use options::{Environment, Options, Store, Usage};
pub use positions::Marks;
pub use read::entries::Payloads;
pub use read::request::Boundary;
pub use read::scan::{Chunk, Piece};
pub use read::scrub::ScrubReport;
pub use read::snapshot::LogSnapshot;
pub use recovery::markers::repair_is_noted;
pub use recovery::report::{GroupState, Recovered};
pub use recovery::set_aside::set_aside;
#[cfg(any(test, feature = "testing"))]
pub use salvage::check::comes_back;
pub use salvage::rebuild::{Rebuilt, rebuild};
pub use salvage::source::CameBack;
#[cfg(any(test, feature = "testing"))]
pub use store::simulated;
