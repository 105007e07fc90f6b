//! The HTTP listener: ingest, reading, administration, health and metrics. Only translation: decisions are
//! the broker's.

mod api;
mod connections;
mod error;
mod guard;
mod leader;
mod openapi;

use crate::api::{health, metrics, modules, node, pipelines, records, topics};
use crate::guard::Guard;
use crate::openapi::Document;
use axum::extract::DefaultBodyLimit;
use axum::{Extension, Router};
use futures_util::future::BoxFuture;
use std::sync::Arc;
use tokio::net::TcpListener;
use utoipa::openapi::OpenApi;
use utoipa_axum::router::{OpenApiRouter, UtoipaMethodRouterExt};
use utoipa_axum::routes;
use weir_admin::Services;
use weir_types::limits::{MODULE_BYTES_MAX, PIPELINE_TEXT_BYTES_MAX};

/// Largest body of records: a frame of the other protocols and the overhead of JSON.
const BODY_BYTES_MAX: usize = 8 << 20;

/// Serves requests on `listener` until `stop` resolves.
///
/// # Errors
/// When the socket fails.
///
/// # Cancel safety
/// Not safe: connections in use are cut.
pub fn serve(
    listener: TcpListener,
    services: Arc<Services>,
    settings: Settings,
    stop: BoxFuture<'static, ()>,
) -> BoxFuture<'static, std::io::Result<()>> {
    Box::pin(async move {
        let broker = services.broker.clone();
        let guard = Guard::new(settings.names, broker.clone());
        connections::serve(listener, router(services, guard), broker, stop).await
    })
}

/// Settings of the listener.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Host names of the node, beside addresses and `localhost`.
    pub names: Vec<String>,
}

fn router(services: Arc<Services>, guard: Guard) -> Router {
    let (router, document) = routes();
    router
        .layer(Extension(Document::of(&document)))
        .layer(DefaultBodyLimit::max(PIPELINE_TEXT_BYTES_MAX))
        .layer(axum::middleware::from_fn(error::in_one_form))
        .layer(axum::middleware::from_fn_with_state(
            Arc::clone(&services),
            leader::to_leader,
        ))
        .layer(axum::middleware::from_fn_with_state(guard, guard::look))
        .layer(axum::middleware::from_fn_with_state(
            Arc::clone(&services),
            records::in_turn,
        ))
        .with_state(services)
}

/// Returns the routes and their document: a route without a description cannot be added.
fn routes() -> (Router<Arc<Services>>, OpenApi) {
    let records_body = DefaultBodyLimit::max(BODY_BYTES_MAX);
    let module_body = DefaultBodyLimit::max(MODULE_BYTES_MAX);
    let (router, document) = OpenApiRouter::with_openapi(openapi::base())
        .routes(routes!(topics::list, topics::create))
        .routes(routes!(topics::describe, topics::alter, topics::delete))
        .routes(routes!(records::produce).layer(records_body))
        .routes(routes!(records::read))
        .routes(routes!(modules::list))
        .routes(routes!(modules::push).layer(module_body))
        .routes(routes!(modules::remove))
        .routes(routes!(pipelines::list, pipelines::apply))
        .routes(routes!(pipelines::plan))
        .routes(routes!(pipelines::shadow))
        .routes(routes!(pipelines::canary))
        .routes(routes!(pipelines::describe, pipelines::remove))
        .routes(routes!(pipelines::pause))
        .routes(routes!(pipelines::resume))
        .routes(routes!(pipelines::reset))
        .routes(routes!(pipelines::rewind))
        .routes(routes!(pipelines::history))
        .routes(routes!(pipelines::roll_back))
        .routes(routes!(pipelines::promote))
        .routes(routes!(pipelines::state))
        .routes(routes!(node::status))
        .routes(routes!(node::cluster))
        .routes(routes!(openapi::openapi))
        .routes(routes!(health::live))
        .routes(routes!(health::ready))
        .routes(routes!(metrics::metrics))
        .split_for_parts();
    (router, openapi::with_common_answers(document))
}
