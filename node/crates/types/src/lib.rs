//! The vocabulary of every layer of Weir: offsets, record batches, columns, limits, clocks and error kinds.
//!
//! Owns the single stored and wire form of data, Kafka's RecordBatch v2, and the conversion to the columns
//! that cross the sandbox wall. Does no I/O, knows no async runtime, and never panics on input bytes.

pub mod batch;
pub mod clock;
pub mod columns;
pub mod gap;
pub mod id;
pub mod kind;
pub mod level;
pub mod limits;
pub mod murmur2;
pub mod name;
pub mod planted;
pub mod pool;
pub mod record;
pub mod sync;
pub mod time;

pub use batch::{Batch, BatchBuilder, BatchError, Body, Codec, Producer};
pub use clock::{Clock, SystemClock};
pub use columns::{Column, Columns, Wanted};
pub use gap::{Gap, GapReason};
pub use id::{GroupId, Offset, PartitionId, Term};
pub use kind::ErrorKind;
pub use name::{NameError, TopicName};
pub use record::{HeaderBuf, Headers, Record, RecordRef};
pub use time::{TimeError, TimeUnit, format_time, parse_time, time_of_number};
