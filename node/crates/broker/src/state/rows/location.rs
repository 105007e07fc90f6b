//! Locations of reassigned partitions.

use serde::{Deserialize, Serialize};
use weir_types::PartitionId;

/// Where a partition is kept: a row under the number that it was made with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Located {
    pub(crate) at: PartitionId,
    /// What is added to its group's terms, so that epochs of its leaders go on ascending.
    pub(crate) epoch_base: i32,
}
