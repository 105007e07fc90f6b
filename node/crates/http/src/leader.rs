//! Redirection of requests to the leader.

use axum::Json;
use axum::extract::{Request, State};
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use std::sync::Arc;
use weir_admin::Services;
use weir_api::{Error, ErrorBody, ErrorKind};
use weir_broker::Broker;
use weir_types::GroupId;

/// Paths that each node answers for itself.
const LOCAL: [&str; 3] = ["/v1/status", "/v1/cluster", "/v1/openapi.json"];

/// Tells whether requests for `path` are for the node that leads.
pub(crate) fn is_for_leader(path: &str) -> bool {
    path.starts_with("/v1/") && !LOCAL.contains(&path)
}

/// Returns the topic of a request for records, and its partition if only the leader of that partition can
/// answer.
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

/// Returns the group whose leader answers a request; none when any node can.
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

/// Redirects a client to the leader (307, so that method and body stay), or answers that there is no leader
/// (503).
pub(crate) async fn to_leader(
    State(services): State<Arc<Services>>,
    request: Request,
    next: Next,
) -> Response {
    let path = request.uri().path();
    let broker = &services.broker;
    if !is_for_leader(path) {
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
    let error = Json(Error {
        error: ErrorBody {
            kind: ErrorKind::Retry,
            message,
            stored: Vec::new(),
        },
    });
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
