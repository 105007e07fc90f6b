//! Requests, a file for each resource.

pub(crate) mod health;
pub(crate) mod metrics;
pub(crate) mod modules;
pub(crate) mod node;
pub(crate) mod pipelines;
pub(crate) mod records;
pub(crate) mod topics;

use std::sync::Arc;
use weir_admin::Services;
use weir_broker::Principal;

/// The node, as handlers get it.
type Node = axum::extract::State<Arc<Services>>;

/// Returns the principal of administrative requests.
fn who() -> Principal {
    Principal::anonymous("http")
}
