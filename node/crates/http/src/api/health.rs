//! Health: liveness and readiness.

use axum::extract::State;
use axum::http::StatusCode;
use std::sync::Arc;
use weir_admin::Services;

/// Tell that the process answers.
#[utoipa::path(
    get, path = "/health/live", operation_id = "live",
    responses((status = 200, description = "ok", body = String)),
)]
pub(crate) async fn live() -> &'static str {
    "ok\n"
}

/// Tell whether the node takes records: the log works, a node leads, and the disk has room.
#[utoipa::path(
    get, path = "/health/ready", operation_id = "ready",
    responses(
        (status = 200, description = "ok", body = String),
        (status = 503, description = "The reason why not", body = String),
    ),
)]
pub(crate) async fn ready(State(services): State<Arc<Services>>) -> (StatusCode, String) {
    let log = services.broker.log();
    if let Some(why) = log.poisoned() {
        return (
            StatusCode::SERVICE_UNAVAILABLE,
            format!("the log stopped: {why}\n"),
        );
    }
    let own = services.broker.group().node();
    let is_led = services.broker.leader().is_some_and(|(id, _)| id != own);
    if !(services.broker.is_serving() || is_led) {
        // In a site, requests must reach a leader.
        return (
            StatusCode::SERVICE_UNAVAILABLE,
            "nobody leads that this node hears of\n".to_owned(),
        );
    }
    let usage = log.usage();
    if usage.free_bytes < usage.reserve_bytes {
        let (free, reserve) = (usage.free_bytes, usage.reserve_bytes);
        return (
            StatusCode::SERVICE_UNAVAILABLE,
            format!("disk is nearly full: {free} bytes free, {reserve} in reserve\n"),
        );
    }
    (StatusCode::OK, "ok\n".to_owned())
}
