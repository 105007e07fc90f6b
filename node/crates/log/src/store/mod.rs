//! The database, the value log and the files beside them.

pub(crate) mod keyspaces;
pub(crate) mod kv;
pub(crate) mod os_error;
pub(crate) mod rows_copy;
#[cfg(any(test, feature = "testing"))]
pub mod simulated;
pub(crate) mod space;
pub(crate) mod value_log;
pub(crate) mod watermark;
