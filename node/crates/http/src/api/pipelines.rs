//! Pipelines: apply, observe, change, remove.

use super::{Node, who};
use crate::error::HttpError;
use crate::openapi::Refusal;
use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use std::time::Duration;
use weir_api::{
    CanaryQuery, HTTP_WAIT_MS_MAX, Pipeline, Plan, Revision, RollbackQuery, Shadow, ShadowQuery, StatePage,
    StateQuery,
};
use weir_pipeline::{ApplyError, Origin};

/// List all pipelines.
#[utoipa::path(
    get, path = "/v1/pipelines", operation_id = "listPipelines",
    responses((status = 200, description = "Pipelines", body = Vec<Pipeline>)),
)]
pub(crate) async fn list(State(node): Node) -> Json<Vec<Pipeline>> {
    Json(node.pipelines())
}

/// Describe a pipeline.
#[utoipa::path(
    get, path = "/v1/pipelines/{name}", operation_id = "describePipeline",
    params(("name" = String, Path, example = "hot")),
    responses(
        (status = 200, description = "The pipeline", body = Pipeline),
        (status = 404, response = Refusal),
    ),
)]
pub(crate) async fn describe(
    State(node): Node,
    Path(name): Path<String>,
) -> Result<Json<Pipeline>, HttpError> {
    let found = node.pipeline(&name);
    found
        .map(Json)
        .ok_or_else(|| HttpError::not_found(format!("no pipeline `{name}`")))
}

/// Apply a pipeline.
#[utoipa::path(
    put, path = "/v1/pipelines", operation_id = "applyPipeline",
    request_body(content((String = "application/toml"), (String = "text/plain"))),
    responses(
        (status = 200, description = "The pipeline", body = Pipeline),
        (status = 400, response = Refusal),
    ),
)]
pub(crate) async fn apply(State(node): Node, toml: String) -> Result<Json<Pipeline>, HttpError> {
    Ok(Json(node.apply_pipeline(&who(), &toml).await?))
}

/// Show what applying a pipeline would change, without changing anything.
#[utoipa::path(
    post, path = "/v1/plan", operation_id = "planPipeline",
    request_body(content((String = "application/toml"), (String = "text/plain"))),
    responses(
        (status = 200, description = "The changes, by their place in the specification", body = Plan),
        (status = 400, response = Refusal),
    ),
)]
pub(crate) async fn plan(State(node): Node, toml: String) -> Result<Json<Plan>, HttpError> {
    Ok(Json(node.plan_pipeline(&toml).await?))
}

/// Run a pipeline over the records of its sources, beside the live one, without writing anything.
#[utoipa::path(
    post, path = "/v1/shadow", operation_id = "shadowPipeline",
    params(ShadowQuery),
    request_body(content((String = "application/toml"), (String = "text/plain"))),
    responses(
        (status = 200, description = "The counters of both, and their differences", body = Shadow),
        (status = 400, response = Refusal),
    ),
)]
pub(crate) async fn shadow(
    State(node): Node,
    Query(query): Query<ShadowQuery>,
    toml: String,
) -> Result<Json<Shadow>, HttpError> {
    let from = query.from.as_deref().unwrap_or("start");
    let from: Origin = from.parse().map_err(ApplyError::from)?;
    if query.wait_ms > HTTP_WAIT_MS_MAX {
        return Err(HttpError::bad_request(format!(
            "`wait_ms` cannot be {}: at most {HTTP_WAIT_MS_MAX}; `weir pipeline shadow` waits longer",
            query.wait_ms
        )));
    }
    let wait = Duration::from_millis(query.wait_ms);
    // Dropped with the request, which is when its client is gone: then nobody wants to know any more.
    let (alive, gone) = tokio::sync::oneshot::channel::<()>();
    let shadow = node.shadow_pipeline(&toml, from, wait, move |_| !alive.is_closed());
    let shadow = shadow.await;
    drop(gone);
    Ok(Json(shadow?))
}

/// Pause a pipeline: the source of an in-line pipeline refuses records.
#[utoipa::path(
    post, path = "/v1/pipelines/{name}/pause", operation_id = "pausePipeline",
    params(("name" = String, Path, example = "hot")),
    responses(
        (status = 200, description = "The pipeline", body = Pipeline),
        (status = 404, response = Refusal),
    ),
)]
pub(crate) async fn pause(State(node): Node, Path(name): Path<String>) -> Result<Json<Pipeline>, HttpError> {
    Ok(Json(node.set_paused(&name, true).await?))
}

/// Resume a pipeline that is paused or halted.
#[utoipa::path(
    post, path = "/v1/pipelines/{name}/resume", operation_id = "resumePipeline",
    params(("name" = String, Path, example = "hot")),
    responses(
        (status = 200, description = "The pipeline", body = Pipeline),
        (status = 404, response = Refusal),
    ),
)]
pub(crate) async fn resume(State(node): Node, Path(name): Path<String>) -> Result<Json<Pipeline>, HttpError> {
    Ok(Json(node.set_paused(&name, false).await?))
}

/// Clear the state of a pipeline, and pause it.
#[utoipa::path(
    post, path = "/v1/pipelines/{name}/reset", operation_id = "resetPipeline",
    params(("name" = String, Path, example = "hot")),
    responses(
        (status = 200, description = "The pipeline", body = Pipeline),
        (status = 404, response = Refusal),
    ),
)]
pub(crate) async fn reset(State(node): Node, Path(name): Path<String>) -> Result<Json<Pipeline>, HttpError> {
    Ok(Json(node.reset_pipeline(&name).await?))
}

/// Clear the state of a pipeline behind the log, and begin anew at the place that the body names.
#[utoipa::path(
    post, path = "/v1/pipelines/{name}/rewind", operation_id = "rewindPipeline",
    params(("name" = String, Path, example = "hot")),
    request_body(
        content = String, content_type = "text/plain",
        description = "`start`, `end`, an offset, or a time in RFC 3339", example = "start",
    ),
    responses(
        (status = 200, description = "The pipeline", body = Pipeline),
        (status = 400, response = Refusal),
        (status = 404, response = Refusal),
    ),
)]
pub(crate) async fn rewind(
    State(node): Node,
    Path(name): Path<String>,
    place: String,
) -> Result<Json<Pipeline>, HttpError> {
    let origin: Origin = place.trim().parse().map_err(ApplyError::from)?;
    Ok(Json(node.rewind_pipeline(&name, origin).await?))
}

/// List the revisions of a pipeline, the newest first.
#[utoipa::path(
    get, path = "/v1/pipelines/{name}/history", operation_id = "pipelineHistory",
    params(("name" = String, Path, example = "hot")),
    responses(
        (status = 200, description = "Revisions", body = Vec<Revision>),
        (status = 404, response = Refusal),
    ),
)]
pub(crate) async fn history(
    State(node): Node,
    Path(name): Path<String>,
) -> Result<Json<Vec<Revision>>, HttpError> {
    Ok(Json(node.pipeline_history(&name).await?))
}

/// Roll a pipeline back to an earlier revision, with the same modules; or end its canary.
#[utoipa::path(
    post, path = "/v1/pipelines/{name}/rollback", operation_id = "rollBackPipeline",
    params(("name" = String, Path, example = "hot"), RollbackQuery),
    responses(
        (status = 200, description = "The pipeline", body = Pipeline),
        (status = 404, response = Refusal),
    ),
)]
pub(crate) async fn roll_back(
    State(node): Node,
    Path(name): Path<String>,
    Query(query): Query<RollbackQuery>,
) -> Result<Json<Pipeline>, HttpError> {
    Ok(Json(node.roll_back_pipeline(&who(), &name, query.to).await?))
}

/// Run a pipeline on some partitions, as a canary beside the live one.
#[utoipa::path(
    post, path = "/v1/canary", operation_id = "startCanary",
    params(CanaryQuery),
    request_body(content((String = "text/plain"), (String = "application/toml"))),
    responses(
        (status = 200, description = "The pipeline with its canary", body = Pipeline),
        (status = 400, response = Refusal),
        (status = 404, response = Refusal),
    ),
)]
pub(crate) async fn canary(
    State(node): Node,
    Query(query): Query<CanaryQuery>,
    toml: String,
) -> Result<Json<Pipeline>, HttpError> {
    let numbers = query.partitions.split(',').map(|n| n.trim().parse());
    let partitions: Result<Vec<u32>, _> = numbers.collect();
    let partitions = partitions.map_err(|_| {
        HttpError::bad_request(format!(
            "`{}` are no partitions: write numbers with commas between them",
            query.partitions
        ))
    })?;
    Ok(Json(node.start_canary(&who(), &toml, &partitions).await?))
}

/// Apply the canary of a pipeline to all partitions.
#[utoipa::path(
    post, path = "/v1/pipelines/{name}/promote", operation_id = "promoteCanary",
    params(("name" = String, Path, example = "hot")),
    responses(
        (status = 200, description = "The pipeline", body = Pipeline),
        (status = 400, response = Refusal),
        (status = 404, response = Refusal),
    ),
)]
pub(crate) async fn promote(
    State(node): Node,
    Path(name): Path<String>,
) -> Result<Json<Pipeline>, HttpError> {
    Ok(Json(node.promote_canary(&who(), &name).await?))
}

/// Show the committed state of a pipeline's modules, values and timers, a page at a time.
#[utoipa::path(
    get, path = "/v1/pipelines/{name}/state", operation_id = "pipelineState",
    params(("name" = String, Path, example = "hot"), StateQuery),
    responses(
        (status = 200, description = "A page", body = StatePage),
        (status = 404, response = Refusal),
    ),
)]
pub(crate) async fn state(
    State(node): Node,
    Path(name): Path<String>,
    Query(query): Query<StateQuery>,
) -> Result<Json<StatePage>, HttpError> {
    Ok(Json(node.pipeline_state(&name, query.first.as_deref()).await?))
}

/// Remove a pipeline with its state; its topics stay.
#[utoipa::path(
    delete, path = "/v1/pipelines/{name}", operation_id = "removePipeline",
    params(("name" = String, Path, example = "hot")),
    responses(
        (status = 204, description = "Removed"),
        (status = 404, response = Refusal),
    ),
)]
pub(crate) async fn remove(State(node): Node, Path(name): Path<String>) -> Result<StatusCode, HttpError> {
    node.pipelines.remove(&name).await?;
    Ok(StatusCode::NO_CONTENT)
}
