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
