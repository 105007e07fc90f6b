//! Rows of the site itself: name, node numbers, tokens, level, and nodes that leave.

use serde::{Deserialize, Serialize};
use weir_log::{StateKey, StateKind};
use weir_replica::NodeId;

/// Rows of [`StateKind::Site`] that begin so and end in a node's number: nothing more is to be put there.
pub(crate) const LEAVING: &[u8] = b"leaving";

pub(crate) fn leaving_key(node: NodeId) -> StateKey {
    StateKey::new(StateKind::Site, &[LEAVING, &node.to_be_bytes()].concat())
}

/// Key of the row that says it.
pub(crate) const LEVEL_ROW: &[u8] = b"level";

/// Rows of [`StateKind::Site`]: the site's name, the last number that was given to a node, and tokens.
pub(crate) const SITE: &[u8] = b"id";

pub(crate) const LAST_NODE: &[u8] = b"node";

pub(crate) const TOKEN: &[u8] = b"token";

/// What is stored of a token: what proves it, and until when.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct TokenRow {
    pub(crate) key: [u8; 32],
    pub(crate) expires_ms: i64,
}

pub(crate) fn site_key(rest: &[u8]) -> StateKey {
    StateKey::new(StateKind::Site, rest)
}

pub(crate) fn token_key(token: &[u8; 32]) -> Vec<u8> {
    [TOKEN, token].concat()
}
