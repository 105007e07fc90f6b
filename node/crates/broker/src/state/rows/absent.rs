//! Nodes that are away or behind.

use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use weir_replica::NodeId;

/// Nodes that are not as they should be, as the leader saw it last. Stored by position.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Absent {
    /// Those that do not answer.
    pub away: BTreeSet<NodeId>,
    /// Those that answer, and do not follow.
    pub behind: BTreeSet<NodeId>,
}

/// Row of [`StateKind::Site`] that says it.
pub(crate) const ABSENT_ROW: &[u8] = b"absent";
