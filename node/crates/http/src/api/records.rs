//! Records: produce and read.

mod body;
mod text;

use self::body::{from_json, from_lines};
use self::text::Text;
use super::Node;
use crate::connections::Client;
use crate::error::HttpError;
use crate::openapi::{Binary, Refusal};
use axum::body::Body;
use axum::extract::{Path, Query, Request, State};
use axum::http::{HeaderMap, Method, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use bytes::Bytes;
use futures_util::stream;
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use weir_admin::Services;
use weir_api::{Fetched, NewRecords, ProduceQuery, Produced, ReadQuery, Stored};
use weir_broker::{At, Direction, Fetch, Framing, Principal, ProduceError, Topic};
use weir_types::limits::FETCH_WAIT_MS_MAX;
use weir_types::{BatchBuilder, Codec, ErrorKind, Offset, Record};

/// Store records. The answer comes when all of them are synced.
///
/// The body is a list of records in JSON, a JSON value a line, or the value of a single record.
#[utoipa::path(
    post, path = "/v1/topics/{topic}/records", operation_id = "produce",
    params(("topic" = String, Path, example = "machines"), ProduceQuery),
    request_body(content(
        (NewRecords = "application/json"),
        (String = "application/x-ndjson"),
        (Binary = "application/octet-stream"),
    )),
    responses(
        (status = 200, description = "The places of the records", body = Produced),
        (status = 400, response = Refusal),
        (status = 404, response = Refusal),
        (status = 413, response = Refusal),
        (status = 503, response = Refusal),
        (status = 504, description = "The outcome is unknown"),
    ),
)]
pub(crate) async fn produce(
    State(services): Node,
    Path(topic): Path<String>,
    Query(query): Query<ProduceQuery>,
    Extension(client): Extension<Client>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Json<Produced>, HttpError> {
    let broker = &services.broker;
    let who = principal(&headers, client);
    let found = broker
        .topic(&topic)
        .ok_or_else(|| HttpError::from(ProduceError::NoTopic(topic.clone())))?;
    let now = broker.now_ms();
    let encoding = headers.get(header::CONTENT_ENCODING).map(|v| v.as_bytes());
    if encoding.is_some_and(|encoding| encoding != b"identity") {
        return Err(HttpError::unsupported_type(
            "the body is taken as it is: send it without `content-encoding`",
        ));
    }
    let kind = headers
        .get(header::CONTENT_TYPE)
        .and_then(|v| v.to_str().ok())
        .unwrap_or_default();
    // Bytes that are not text became replacement characters on the way.
    if query.key.as_deref().is_some_and(|key| key.contains('\u{fffd}')) {
        return Err(HttpError::bad_request(
            "`key` is no text: send a list of records, with `key_base64`",
        ));
    }
    if query.key.is_some() && kind.contains("json") {
        return Err(HttpError::bad_request(
            "`key` is for a body that is one value: each record of this one has its own",
        ));
    }
    let records = match kind.split(';').next().unwrap_or_default().trim() {
        "application/json" => from_json(&body, now)?,
        "application/x-ndjson" | "application/ndjson" => from_lines(&body, now)?,
        // The default of `curl -d`, surely a mistake.
        "application/x-www-form-urlencoded" | "multipart/form-data" => {
            return Err(HttpError::unsupported_type(
                "say what the body is: `content-type: application/json` for an array of records, \
                 `application/x-ndjson` for a value a line, anything else for one raw value",
            ));
        }
        _ => vec![Record {
            key: query.key.map(Bytes::from),
            value: Some(body),
            timestamp: now,
            headers: Vec::new(),
        }],
    };
    let count = records.len();
    let batches = split(&found, records, query.partition).into_iter();
    // All batches are made before the first is sent.
    let batches: Vec<_> = batches
        .map(|(partition, builder)| Ok((partition, builder.build(Offset::ZERO, None)?)))
        .collect::<Result<_, ProduceError>>()?;
    let mut producing = Vec::with_capacity(batches.len());
    for (partition, batch) in batches {
        let (who, topic) = (&who, &topic);
        producing.push(async move {
            let sent = broker.produce_anywhere(who, topic, partition, batch, Framing::Merge);
            (partition, sent.await)
        });
    }
    let (mut stored, mut failed) = (Vec::new(), None);
    for (partition, produced) in futures_util::future::join_all(producing).await {
        match produced {
            Ok(produced) => stored.push(Stored {
                partition,
                base_offset: produced.base.get(),
                records: produced.span,
            }),
            // An unknown outcome of a partition makes the outcome of the request unknown.
            Err(e) if failed.is_none() || e.kind() == ErrorKind::UnknownOutcome => failed = Some(e),
            Err(_) => {}
        }
    }
    match failed {
        None => Ok(Json(Produced {
            records: count,
            partitions: stored,
        })),
        Some(e) => Err(HttpError::from(e).beside(stored)),
    }
}

fn split(topic: &Topic, records: Vec<Record>, partition: Option<u32>) -> BTreeMap<u32, BatchBuilder> {
    let mut builders = BTreeMap::new();
    for record in records {
        let index = partition.unwrap_or_else(|| topic.partition_of(record.key.as_deref(), 0));
        builders
            .entry(index)
            .or_insert_with(|| BatchBuilder::new(Codec::None))
            .push_record(&record);
    }
    builders
}

/// Read records of a partition.
#[utoipa::path(
    get, path = "/v1/topics/{topic}/records", operation_id = "read",
    params(("topic" = String, Path, example = "machines"), ReadQuery),
    responses(
        (status = 200, description = "Records and gaps", body = Fetched<'static>),
        (status = 404, response = Refusal),
        (status = 416, response = Refusal),
    ),
)]
pub(crate) async fn read(
    State(services): Node,
    Path(topic): Path<String>,
    Query(query): Query<ReadQuery>,
    Extension(client): Extension<Client>,
    headers: HeaderMap,
) -> Result<Response, HttpError> {
    let broker = &services.broker;
    let who = principal(&headers, client);
    let from = match query.offset.as_deref().unwrap_or("start") {
        "start" => broker.offset_at(&who, &topic, query.partition, At::Start).await?,
        "end" => broker.offset_at(&who, &topic, query.partition, At::End).await?,
        number => number.parse().map(Offset::new).map_err(|_| {
            HttpError::bad_request(format!(
                "`offset` cannot be `{number}`: use a number, start or end"
            ))
        })?,
    };
    let wait_ms = query.wait_ms.unwrap_or(0);
    if wait_ms > FETCH_WAIT_MS_MAX {
        return Err(HttpError::bad_request(format!(
            "`wait_ms` cannot be {wait_ms}: at most {FETCH_WAIT_MS_MAX}"
        )));
    }
    let fetch = Fetch {
        topic,
        partition: query.partition,
        from,
        max_bytes: query.max_bytes.unwrap_or(1 << 20),
        wait: Duration::from_millis(wait_ms),
    };
    let fetched = broker.fetch(&who, fetch).await?;
    let mut text = Text::new(fetched, from, broker.clone(), who.address);
    // An error in the first part can still be answered.
    let first = text.part().await?;
    let parts = stream::unfold((first, text), |(part, mut text)| async move {
        let part = part?;
        let next = match text.part().await {
            Ok(next) => next,
            // The answer has begun: only breaking it off tells of the error.
            Err(error) => return Some((Err(io::Error::other(error.to_string())), (None, text))),
        };
        Some((Ok::<_, io::Error>(part), (next, text)))
    });
    let kind = [(header::CONTENT_TYPE, "application/json")];
    Ok((kind, Body::from_stream(parts)).into_response())
}

/// Delays clients over their quota, before their requests take memory.
pub(crate) async fn in_turn(
    State(services): State<Arc<Services>>,
    Extension(client): Extension<Client>,
    request: Request,
    next: Next,
) -> Response {
    if request.uri().path().ends_with("/records") {
        let who = principal(request.headers(), client);
        let direction = match *request.method() {
            Method::GET | Method::HEAD => Direction::Fetch,
            _ => Direction::Produce,
        };
        services.broker.hold_back(&who, direction).await;
    }
    next.run(request).await
}

fn principal(headers: &HeaderMap, Client(address): Client) -> Principal {
    let agent = headers
        .get(header::USER_AGENT)
        .and_then(|v| v.to_str().ok())
        .unwrap_or("http");
    Principal::at("http", address, agent.chars().take(100).collect::<String>())
}
