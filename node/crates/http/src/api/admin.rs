//! Topics, modules and pipelines as JSON.

use crate::error::HttpError;
use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use weir_broker::{Principal, Topic};
use weir_pipeline::{ApplyError, ModuleInfo, Origin, Page, PipelineInfo, Plan, Revision, Services, Shadowed};
use weir_types::GroupId;

type Shared = State<Arc<Services>>;

fn who() -> Principal {
    Principal::anonymous("http")
}

fn show(services: &Services, topic: &Topic) -> Value {
    let partitions = (0..topic.partitions.len() as u32).map(|i| {
        let group = topic.partition(i).map(|id| id.group()).unwrap_or(GroupId::SITE);
        let leader = services.broker.leader_of(group).map(|(id, ..)| id);
        let (replicas, _) = services.broker.replicas_of(group);
        let here = services.broker.group_of(group).and_then(|_| services.broker.marks(topic.name.as_str(), i));
        let Some(m) = here else {
            // What is in it is for its own nodes to tell.
            return json!({ "partition": i, "group": group.0, "leader": leader, "replicas": replicas });
        };
        let gaps = m.unread();
        let gaps = gaps
            .iter()
            .map(|g| json!({ "start": g.start, "end": g.end, "reason": g.reason.to_string() }));
        json!({
            "partition": i, "group": group.0, "leader": leader, "replicas": replicas, "log_start": m.log_start(), "committed_end": m.committed_end(),
            "bytes": m.bytes(), "lost": m.lost(), "gaps": gaps.collect::<Vec<_>>(),
        })
    });
    json!({ "name": topic.name, "config": topic.config.entries(), "partitions": partitions.collect::<Vec<_>>() })
}

pub(crate) async fn topics(State(services): Shared) -> Json<Value> {
    Json(
        services
            .broker
            .topics()
            .iter()
            .map(|t| show(&services, t))
            .collect(),
    )
}

/// As [`show`], with what retention has removed.
async fn show_whole(services: &Services, topic: &Topic) -> Value {
    let mut shown = show(services, topic);
    shown["removed"] = json!(services.broker.removed_from(topic.name.as_str()).await);
    shown
}

pub(crate) async fn topic(
    State(services): Shared,
    Path(name): Path<String>,
) -> Result<Json<Value>, HttpError> {
    let topic = services
        .broker
        .topic(&name)
        .ok_or_else(|| HttpError::not_found(format!("no topic `{name}`")))?;
    Ok(Json(show_whole(&services, &topic).await))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NewTopic {
    name: String,
    #[serde(default = "one")]
    partitions: u32,
    /// Nodes that each partition is on; all of the site's when not said.
    replication: Option<u32>,
    #[serde(default)]
    config: BTreeMap<String, String>,
}

fn one() -> u32 {
    1
}

pub(crate) async fn create_topic(
    State(services): Shared,
    Json(new): Json<NewTopic>,
) -> Result<(StatusCode, Json<Value>), HttpError> {
    let settings: Vec<_> = new.config.into_iter().collect();
    let topic = services
        .broker
        .create_topic_on(&who(), &new.name, new.partitions, new.replication, &settings)
        .await?;
    Ok((StatusCode::CREATED, Json(show(&services, &topic))))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TopicChange {
    partitions: Option<u32>,
    #[serde(default)]
    config: BTreeMap<String, String>,
}

pub(crate) async fn alter_topic(
    State(services): Shared,
    Path(name): Path<String>,
    Json(change): Json<TopicChange>,
) -> Result<Json<Value>, HttpError> {
    let settings: Vec<_> = change.config.into_iter().collect();
    let topic = services
        .broker
        .alter_topic(&who(), &name, change.partitions, &settings)
        .await?;
    Ok(Json(show(&services, &topic)))
}

pub(crate) async fn delete_topic(
    State(services): Shared,
    Path(name): Path<String>,
) -> Result<StatusCode, HttpError> {
    services.broker.delete_topic(&who(), &name).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(crate) async fn modules(State(services): Shared) -> Json<Vec<ModuleInfo>> {
    Json(services.pipelines.modules())
}

pub(crate) async fn push_module(
    State(services): Shared,
    Path((name, version)): Path<(String, String)>,
    body: Bytes,
) -> Result<(StatusCode, Json<ModuleInfo>), HttpError> {
    let info = services.pipelines.push(&name, &version, body.into()).await?;
    Ok((StatusCode::CREATED, Json(info)))
}

pub(crate) async fn remove_module(
    State(services): Shared,
    Path(module): Path<String>,
) -> Result<Json<ModuleInfo>, HttpError> {
    Ok(Json(services.pipelines.remove_module(&module).await?))
}

pub(crate) async fn pipelines(State(services): Shared) -> Json<Vec<PipelineInfo>> {
    Json(services.pipelines.pipelines())
}

pub(crate) async fn pipeline(
    State(services): Shared,
    Path(name): Path<String>,
) -> Result<Json<PipelineInfo>, HttpError> {
    let found = services.pipelines.pipeline(&name);
    found
        .map(Json)
        .ok_or_else(|| HttpError::not_found(format!("no pipeline `{name}`")))
}

/// The body is the pipeline in TOML.
pub(crate) async fn apply_pipeline(
    State(services): Shared,
    body: String,
) -> Result<Json<PipelineInfo>, HttpError> {
    Ok(Json(services.pipelines.apply(&body, &named(&who())).await?))
}

/// The body is the pipeline in TOML.
pub(crate) async fn plan_pipeline(State(services): Shared, body: String) -> Result<Json<Plan>, HttpError> {
    Ok(Json(services.pipelines.plan(&body).await?))
}

/// A connection that says nothing for longer is taken for dead by what stands between.
const SHADOW_WAIT_MS_MAX: u64 = 60_000;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ShadowOf {
    from: Option<String>,
    #[serde(default)]
    wait_ms: u64,
}

/// The body is the pipeline in TOML.
pub(crate) async fn shadow(
    State(services): Shared,
    Query(of): Query<ShadowOf>,
    body: String,
) -> Result<Json<Shadowed>, HttpError> {
    let from = of.from.as_deref().unwrap_or("start");
    let from: Origin = from.parse().map_err(ApplyError::from)?;
    if of.wait_ms > SHADOW_WAIT_MS_MAX {
        return Err(HttpError::bad_request(format!(
            "`wait_ms` cannot be {}: at most {SHADOW_WAIT_MS_MAX}; `weir pipeline shadow` waits longer",
            of.wait_ms
        )));
    }
    let wait = Duration::from_millis(of.wait_ms);
    // Dropped with the request, which is when its client is gone: then nobody wants to know any more.
    let (alive, gone) = tokio::sync::oneshot::channel::<()>();
    let shadowed = services
        .pipelines
        .shadow(&body, from, wait, move |_| !alive.is_closed());
    let shadowed = shadowed.await;
    drop(gone);
    Ok(Json(shadowed?))
}

pub(crate) async fn pause(
    State(services): Shared,
    Path(name): Path<String>,
) -> Result<Json<PipelineInfo>, HttpError> {
    Ok(Json(services.pipelines.set_paused(&name, true).await?))
}

pub(crate) async fn resume(
    State(services): Shared,
    Path(name): Path<String>,
) -> Result<Json<PipelineInfo>, HttpError> {
    Ok(Json(services.pipelines.set_paused(&name, false).await?))
}

pub(crate) async fn reset(
    State(services): Shared,
    Path(name): Path<String>,
) -> Result<Json<PipelineInfo>, HttpError> {
    Ok(Json(services.pipelines.reset(&name).await?))
}

pub(crate) async fn history(
    State(services): Shared,
    Path(name): Path<String>,
) -> Result<Json<Vec<Revision>>, HttpError> {
    Ok(Json(services.pipelines.history(&name).await?))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct BackTo {
    to: Option<u64>,
}

pub(crate) async fn roll_back(
    State(services): Shared,
    Path(name): Path<String>,
    Query(back): Query<BackTo>,
) -> Result<Json<PipelineInfo>, HttpError> {
    let by = named(&who());
    Ok(Json(services.pipelines.roll_back(&name, back.to, &by).await?))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Share {
    /// Numbers with commas between them.
    partitions: String,
}

pub(crate) async fn canary(
    State(services): Shared,
    Query(share): Query<Share>,
    toml: String,
) -> Result<Json<PipelineInfo>, HttpError> {
    let numbers = share.partitions.split(',').map(|n| n.trim().parse());
    let partitions: Result<Vec<u32>, _> = numbers.collect();
    let partitions = partitions.map_err(|_| {
        let what = format!(
            "`{}` are no partitions: write numbers with commas between them",
            share.partitions
        );
        HttpError::bad_request(what)
    })?;
    let by = named(&who());
    Ok(Json(services.pipelines.canary(&toml, &partitions, &by).await?))
}

pub(crate) async fn promote(
    State(services): Shared,
    Path(name): Path<String>,
) -> Result<Json<PipelineInfo>, HttpError> {
    let by = named(&who());
    Ok(Json(services.pipelines.promote(&name, &by).await?))
}

/// Who asks, for the record.
fn named(who: &Principal) -> String {
    who.shown()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct FirstOfPage {
    first: Option<String>,
}

pub(crate) async fn remembered(
    State(services): Shared,
    Path(name): Path<String>,
    Query(page): Query<FirstOfPage>,
) -> Result<Json<Page>, HttpError> {
    let page = services.pipelines.remembered(&name, page.first.as_deref());
    Ok(Json(page.await?))
}

/// The body says where to: `start`, `end`, an offset, or a time in RFC 3339.
pub(crate) async fn rewind(
    State(services): Shared,
    Path(name): Path<String>,
    body: String,
) -> Result<Json<PipelineInfo>, HttpError> {
    let origin: Origin = body.trim().parse().map_err(ApplyError::from)?;
    Ok(Json(services.pipelines.rewind(&name, origin).await?))
}

pub(crate) async fn remove_pipeline(
    State(services): Shared,
    Path(name): Path<String>,
) -> Result<StatusCode, HttpError> {
    services.pipelines.remove(&name).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(crate) async fn status(State(services): Shared) -> Json<Value> {
    Json((services.status)())
}

/// How the nodes of the site are doing, as this one sees it.
pub(crate) async fn cluster(State(services): Shared) -> Response {
    Json(services.broker.site_status()).into_response()
}

/// The description of all of this.
pub(crate) async fn openapi() -> impl IntoResponse {
    (
        [(header::CONTENT_TYPE, "application/json")],
        include_str!("openapi.json"),
    )
}
