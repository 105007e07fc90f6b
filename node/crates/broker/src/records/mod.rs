//! Records of partitions: produce, fetch, look-ups, retention and repair.

pub(crate) mod admit;
pub(crate) mod fetch;
pub(crate) mod lookup;
pub(crate) mod produce;
pub(crate) mod producers;
pub(crate) mod read;
pub(crate) mod retention;
pub(crate) mod scan;
pub(crate) mod scrub;
pub(crate) mod trim;
pub(crate) mod wait;
