//! Topics: list, create, alter, delete.

use super::{Node, who};
use crate::error::HttpError;
use crate::openapi::Refusal;
use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use weir_api::{NewTopic, Topic, TopicChange};

/// List all topics.
#[utoipa::path(
    get, path = "/v1/topics", operation_id = "listTopics",
    responses((status = 200, description = "Topics", body = Vec<Topic>)),
)]
pub(crate) async fn list(State(node): Node) -> Json<Vec<Topic>> {
    Json(node.topics())
}

/// Describe a topic.
#[utoipa::path(
    get, path = "/v1/topics/{topic}", operation_id = "describeTopic",
    params(("topic" = String, Path, example = "machines")),
    responses(
        (status = 200, description = "The topic", body = Topic),
        (status = 404, response = Refusal),
    ),
)]
pub(crate) async fn describe(State(node): Node, Path(name): Path<String>) -> Result<Json<Topic>, HttpError> {
    let topic = node
        .broker
        .topic(&name)
        .ok_or_else(|| HttpError::not_found(format!("no topic `{name}`")))?;
    Ok(Json(node.topic_with_removed(&topic).await))
}

/// Create a topic.
#[utoipa::path(
    post, path = "/v1/topics", operation_id = "createTopic",
    request_body = NewTopic,
    responses(
        (status = 201, description = "The topic", body = Topic),
        (status = 400, response = Refusal),
        (status = 409, response = Refusal),
    ),
)]
pub(crate) async fn create(
    State(node): Node,
    Json(new): Json<NewTopic>,
) -> Result<(StatusCode, Json<Topic>), HttpError> {
    let settings: Vec<_> = new.config.into_iter().collect();
    let topic = node
        .broker
        .create_topic_on(&who(), &new.name, new.partitions, new.replication, &settings)
        .await?;
    Ok((StatusCode::CREATED, Json(node.topic(&topic))))
}

/// Change the settings of a topic, or add partitions.
#[utoipa::path(
    patch, path = "/v1/topics/{topic}", operation_id = "alterTopic",
    params(("topic" = String, Path, example = "machines")),
    request_body = TopicChange,
    responses(
        (status = 200, description = "The topic", body = Topic),
        (status = 400, response = Refusal),
        (status = 404, response = Refusal),
    ),
)]
pub(crate) async fn alter(
    State(node): Node,
    Path(name): Path<String>,
    Json(change): Json<TopicChange>,
) -> Result<Json<Topic>, HttpError> {
    let settings: Vec<_> = change.config.into_iter().collect();
    let topic = node
        .broker
        .alter_topic(&who(), &name, change.partitions, &settings)
        .await?;
    Ok(Json(node.topic(&topic)))
}

/// Delete a topic with its records.
#[utoipa::path(
    delete, path = "/v1/topics/{topic}", operation_id = "deleteTopic",
    params(("topic" = String, Path, example = "machines")),
    responses(
        (status = 204, description = "Deleted"),
        (status = 400, response = Refusal),
        (status = 404, response = Refusal),
    ),
)]
pub(crate) async fn delete(State(node): Node, Path(name): Path<String>) -> Result<StatusCode, HttpError> {
    node.broker.delete_topic(&who(), &name).await?;
    Ok(StatusCode::NO_CONTENT)
}
