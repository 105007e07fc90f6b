//! Requests that only the node that leads can answer are sent to it.

use axum::Json;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use serde_json::json;
use std::sync::Arc;
use weir_broker::Broker;
use weir_pipeline::Services;
use weir_types::GroupId;

/// What each node answers for itself.
const LOCAL: [&str; 3] = ["/v1/status", "/v1/cluster", "/v1/openapi.json"];

/// The topic and, if one is asked for, the partition of a request for records.
fn records_of(request: &Request) -> Option<(&str, Option<u32>)> {
    let rest = request.uri().path().strip_prefix("/v1/topics/")?;
    let topic = rest.strip_suffix("/records").filter(|t| !t.contains('/'))?;
    let query = request.uri().query().unwrap_or_default();
    let asked = query.split('&').find_map(|pair| pair.strip_prefix("partition="));
    let partition = asked.map_or(Ok(0), str::parse).unwrap_or(0);
    // Records go to partitions of any leader.
    Some((
        topic,
        matches!(*request.method(), Method::GET | Method::HEAD).then_some(partition),
    ))
}

/// The group whose leader a request is for; none when any node will do.
fn group_of(broker: &Broker, request: &Request) -> Option<GroupId> {
    let Some((topic, partition)) = records_of(request) else {
        return Some(GroupId::SITE);
    };
    let Some(topic) = broker.topic(topic) else {
        return Some(GroupId::SITE);
    };
    match partition {
        Some(partition) => Some(topic.partition(partition).map_or(GroupId::SITE, |id| id.group())),
        None => topic
            .partitions
            .iter()
            .all(|id| id.group() == GroupId::SITE)
            .then_some(GroupId::SITE),
    }
}

/// Sends a client on to the leader (307, so that method and body stay), or says that there is none (503).
pub(crate) async fn to_leader(
    State(services): State<Arc<Services>>,
    request: Request,
    next: Next,
) -> Response {
    let path = request.uri().path();
    let broker = &services.broker;
    if !path.starts_with("/v1/") || LOCAL.contains(&path) {
        return next.run(request).await;
    }
    let leads = |group| broker.group_of(group).is_some_and(|group| group.is_serving());
    let Some(group) = group_of(broker, &request).filter(|group| !leads(*group)) else {
        return next.run(request).await;
    };
    let me = broker.group().node();
    let leader = broker
        .leader_of(group)
        .filter(|(id, _, member)| *id != me && !member.http.is_empty());
    let at = request
        .uri()
        .path_and_query()
        .map_or(path, |path_and_query| path_and_query.as_str());
    let location = leader
        .as_ref()
        .and_then(|(.., member)| HeaderValue::from_str(&format!("http://{}{at}", member.http)).ok());
    let message = match &leader {
        Some((id, ..)) => format!("node {id} leads: ask there"),
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
