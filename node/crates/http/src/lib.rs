//! The HTTP listener: ingest, reading, administration, health and metrics. Nothing but translation.

mod api;
mod connections;
mod error;
mod guard;
mod leader;

use crate::api::{admin, health, metrics, records};
use crate::guard::Guard;
use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::routing::{get, post, put};
use std::future::Future;
use std::sync::Arc;
use tokio::net::TcpListener;
use weir_pipeline::Services;
use weir_types::limits::{MODULE_BYTES_MAX, PIPELINE_TEXT_BYTES_MAX};

/// Largest body of records: a frame of the other protocols and the overhead of JSON.
const BODY_BYTES_MAX: usize = 8 << 20;

/// Answers on `listener` until `stop` resolves.
///
/// # Errors
/// When the socket fails.
pub async fn serve(
    listener: TcpListener,
    services: Arc<Services>,
    settings: Settings,
    stop: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    let broker = services.broker.clone();
    let guard = Guard::new(settings.names, broker.clone());
    connections::serve(listener, router(services, guard), broker, stop).await
}

/// How the listener is set up.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Names by which the node is asked, beside addresses and `localhost`.
    pub names: Vec<String>,
}

fn router(services: Arc<Services>, guard: Guard) -> Router {
    Router::new()
        .route("/v1/topics", get(admin::topics).post(admin::create_topic))
        .route(
            "/v1/topics/{topic}",
            get(admin::topic)
                .patch(admin::alter_topic)
                .delete(admin::delete_topic),
        )
        .route(
            "/v1/topics/{topic}/records",
            post(records::produce)
                .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
                .get(records::read),
        )
        .route("/v1/modules", get(admin::modules))
        .route(
            "/v1/modules/{name}/{version}",
            put(admin::push_module).layer(DefaultBodyLimit::max(MODULE_BYTES_MAX)),
        )
        .route(
            "/v1/modules/{module}",
            axum::routing::delete(admin::remove_module),
        )
        .route("/v1/pipelines", get(admin::pipelines).put(admin::apply_pipeline))
        .route("/v1/plan", post(admin::plan_pipeline))
        .route("/v1/shadow", post(admin::shadow))
        .route(
            "/v1/pipelines/{name}",
            get(admin::pipeline).delete(admin::remove_pipeline),
        )
        .route("/v1/pipelines/{name}/pause", post(admin::pause))
        .route("/v1/pipelines/{name}/reset", post(admin::reset))
        .route("/v1/pipelines/{name}/resume", post(admin::resume))
        .route("/v1/pipelines/{name}/history", get(admin::history))
        .route("/v1/pipelines/{name}/rollback", post(admin::roll_back))
        .route("/v1/canary", post(admin::canary))
        .route("/v1/pipelines/{name}/promote", post(admin::promote))
        .route("/v1/pipelines/{name}/state", get(admin::remembered))
        .route("/v1/pipelines/{name}/rewind", post(admin::rewind))
        .route("/v1/status", get(admin::status))
        .route("/v1/cluster", get(admin::cluster))
        .route("/v1/openapi.json", get(admin::openapi))
        .route("/health/live", get(health::live))
        .route("/health/ready", get(health::ready))
        .route("/metrics", get(metrics::metrics))
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
