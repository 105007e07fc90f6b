//! Whether the node lives, and whether it is of use.

use axum::extract::State;
use axum::http::StatusCode;
use std::sync::Arc;
use weir_pipeline::Services;

/// The process answers.
pub(crate) async fn live() -> &'static str {
    "ok\n"
}

/// It takes records: the log works and there is room on the disk.
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
        // Of a site: what this node is sent must come to one that leads.
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
