//! Modules: list, push, remove.

use super::Node;
use crate::error::HttpError;
use crate::openapi::{Binary, Refusal};
use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use bytes::Bytes;
use weir_api::Module;

/// List all modules.
#[utoipa::path(
    get, path = "/v1/modules", operation_id = "listModules",
    responses((status = 200, description = "Modules", body = Vec<Module>)),
)]
pub(crate) async fn list(State(node): Node) -> Json<Vec<Module>> {
    Json(node.modules())
}

/// Push a module.
#[utoipa::path(
    put, path = "/v1/modules/{name}/{version}", operation_id = "pushModule",
    params(
        ("name" = String, Path, example = "threshold"),
        ("version" = String, Path, example = "0.1.0"),
    ),
    request_body(content((Binary = "application/wasm"), (Binary = "application/octet-stream"))),
    responses(
        (status = 201, description = "The module", body = Module),
        (status = 400, response = Refusal),
    ),
)]
pub(crate) async fn push(
    State(node): Node,
    Path((name, version)): Path<(String, String)>,
    body: Bytes,
) -> Result<(StatusCode, Json<Module>), HttpError> {
    let module = node.push_module(&name, &version, body.into()).await?;
    Ok((StatusCode::CREATED, Json(module)))
}

/// Remove a module that no pipeline uses.
#[utoipa::path(
    delete, path = "/v1/modules/{module}", operation_id = "removeModule",
    params((
        "module" = String, Path,
        description = "`name`, `name@version` or digest", example = "threshold@0.1.0",
    )),
    responses(
        (status = 200, description = "The module", body = Module),
        (status = 400, response = Refusal),
        (status = 404, response = Refusal),
    ),
)]
pub(crate) async fn remove(State(node): Node, Path(module): Path<String>) -> Result<Json<Module>, HttpError> {
    Ok(Json(node.remove_module(&module).await?))
}
