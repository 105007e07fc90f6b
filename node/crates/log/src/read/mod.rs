//! Reading partitions, entries and snapshots.

pub(crate) mod entries;
pub(crate) mod request;
pub(crate) mod scan;
pub(crate) mod scrub;
pub(crate) mod snapshot;
