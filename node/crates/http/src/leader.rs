//! Requests that only the node that leads can answer are sent to it.

use axum::Json;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use serde_json::json;
use std::sync::Arc;
use weir_pipeline::Services;

/// What each node answers for itself.
const LOCAL: [&str; 3] = ["/v1/status", "/v1/cluster", "/v1/openapi.json"];

/// Sends a client on to the leader (307, so that method and body stay), or says that there is none (503).
pub(crate) async fn to_leader(
    State(services): State<Arc<Services>>,
    request: Request,
    next: Next,
) -> Response {
    let path = request.uri().path();
    let broker = &services.broker;
    if !path.starts_with("/v1/") || LOCAL.contains(&path) || broker.is_serving() {
        return next.run(request).await;
    }
    let me = broker.group().node();
    let leader = broker
        .leader()
        .filter(|(id, member)| *id != me && !member.http.is_empty());
    let at = request
        .uri()
        .path_and_query()
        .map_or(path, |path_and_query| path_and_query.as_str());
    let location = leader
        .as_ref()
        .and_then(|(_, member)| HeaderValue::from_str(&format!("http://{}{at}", member.http)).ok());
    let message = match &leader {
        Some((id, _)) => format!("node {id} leads: ask there"),
        None => "nobody leads at the moment: try again".to_owned(),
    };
    let error = Json(json!({ "error": { "kind": "retry", "message": message } }));
    match location {
        Some(location) => {
            let header = [(header::LOCATION, location)];
            (StatusCode::TEMPORARY_REDIRECT, header, error).into_response()
        }
        None => (
            StatusCode::SERVICE_UNAVAILABLE,
            [(header::RETRY_AFTER, "1")],
            error,
        )
            .into_response(),
    }
}
