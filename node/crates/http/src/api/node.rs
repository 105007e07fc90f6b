//! The node and its site.

use super::Node;
use axum::Json;
use axum::extract::State;
use weir_api::{Cluster, Status};

/// Show the status of the node.
#[utoipa::path(
    get, path = "/v1/status", operation_id = "nodeStatus",
    responses((status = 200, description = "Status", body = Status)),
)]
pub(crate) async fn status(State(node): Node) -> Json<Status> {
    Json(node.status())
}

/// Show the nodes and replica groups of the site, as this node sees them.
#[utoipa::path(
    get, path = "/v1/cluster", operation_id = "clusterStatus",
    responses((status = 200, description = "Status", body = Cluster)),
)]
pub(crate) async fn cluster(State(node): Node) -> Json<Cluster> {
    Json(node.cluster())
}
