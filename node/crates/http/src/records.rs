//! Records in and out.

use crate::body::{from_json, from_lines};
use crate::connections::Client;
use crate::error::HttpError;
use axum::body::Body;
use axum::extract::{Path, Query, Request, State};
use axum::http::{HeaderMap, Method, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use futures_util::stream;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;
use weir_broker::{At, Direction, Fetch, Fetched, Framing, Piece, Principal, ProduceError, Topic};
use weir_pipeline::Services;
use weir_types::limits::{FETCH_WAIT_MS_MAX, HTTP_READS_MAX};
use weir_types::{BatchBuilder, Codec, ErrorKind, Offset, Record};

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ProduceQuery {
    /// Partition for all records; by key when none is given.
    partition: Option<u32>,
    /// Key of a raw body.
    key: Option<String>,
}

/// Takes a JSON array, NDJSON or one raw body, and answers when all of it is safe.
pub(crate) async fn produce(
    State(services): State<Arc<Services>>,
    Path(topic): Path<String>,
    Query(query): Query<ProduceQuery>,
    Extension(client): Extension<Client>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Json<Value>, HttpError> {
    let broker = &services.broker;
    let who = principal(&headers, client);
    let found = broker
        .topic(&topic)
        .ok_or_else(|| HttpError::from(ProduceError::NoTopic(topic.clone())))?;
    let now = broker.now_ms();
    let kind = headers
        .get(header::CONTENT_TYPE)
        .and_then(|v| v.to_str().ok())
        .unwrap_or_default();
    let records = match kind.split(';').next().unwrap_or_default().trim() {
        "application/json" => from_json(&body, now)?,
        "application/x-ndjson" | "application/ndjson" => from_lines(&body, now)?,
        // What `curl -d` says when nobody says anything: surely not what is meant.
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
    // All of them are made before the first is sent.
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
            Ok(produced) => stored.push(
                json!({ "partition": partition, "base_offset": produced.base, "records": produced.span }),
            ),
            // What is not known of one partition is not known of the request.
            Err(e) if failed.is_none() || e.kind() == ErrorKind::UnknownOutcome => failed = Some(e),
            Err(_) => {}
        }
    }
    match failed {
        None => Ok(Json(json!({ "records": count, "partitions": stored }))),
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

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct ReadQuery {
    #[serde(default)]
    partition: u32,
    /// An offset, `start` or `end`.
    offset: Option<String>,
    max_bytes: Option<usize>,
    wait_ms: Option<u64>,
}

/// Reads from a partition.
pub(crate) async fn read(
    State(services): State<Arc<Services>>,
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
    // Waits for records before it takes a place.
    let fetched = broker.fetch(&who, fetch).await?;
    let place = READS.acquire().await;
    let place = place.map_err(|_| HttpError::busy("the node is shutting down"))?;
    let (mut records, mut gaps) = (b"{\"records\":[".to_vec(), Vec::new());
    let mut is_first = true;
    for piece in &fetched.pieces {
        match piece {
            Piece::Gap(gap) => {
                let reason = gap.reason.to_string();
                gaps.push(json!({ "start": gap.start, "end": gap.end, "reason": reason }));
            }
            Piece::Batch(batch) => {
                let body = batch.body().map_err(ProduceError::from)?;
                for record in body.records() {
                    let record = record.map_err(ProduceError::from)?;
                    if record.offset >= from {
                        if !std::mem::replace(&mut is_first, false) {
                            records.push(b',');
                        }
                        let shown = show(&record.to_record(), record.offset);
                        serde_json::to_writer(&mut records, &shown)
                            .map_err(|e| HttpError::bad_request(e.to_string()))?;
                    }
                }
            }
        }
    }
    let gaps = Value::Array(gaps);
    let Fetched {
        next,
        log_start,
        committed_end,
        ..
    } = fetched;
    let ends = format!(
        "],\"gaps\":{gaps},\"next_offset\":{next},\"log_start\":{log_start},\"committed_end\":{committed_end}}}"
    );
    let mut text = records;
    text.extend_from_slice(ends.as_bytes());
    let bytes = text.len();
    // The place is given back when the answer is sent, or the client is gone.
    let text = stream::unfold(Some((Bytes::from(text), place)), |rest| async move {
        let (mut text, place) = rest.filter(|(text, _)| !text.is_empty())?;
        let part = text.split_to(text.len().min(PART_BYTES));
        Some((Ok::<_, std::convert::Infallible>(part), Some((text, place))))
    });
    let kind = [
        (header::CONTENT_TYPE, "application/json".to_owned()),
        (header::CONTENT_LENGTH, bytes.to_string()),
    ];
    Ok((kind, Body::from_stream(text)).into_response())
}

/// Answers with records that are being made or sent.
static READS: Semaphore = Semaphore::const_new(HTTP_READS_MAX);
/// An answer is handed over in parts of this size.
const PART_BYTES: usize = 64 << 10;

fn show(record: &Record, offset: Offset) -> Value {
    let mut fields = Map::new();
    fields.insert("offset".to_owned(), offset.get().into());
    fields.insert("timestamp".to_owned(), record.timestamp.into());
    put(&mut fields, "key", record.key.as_ref());
    put(&mut fields, "value", record.value.as_ref());
    let headers = record.headers.iter().map(|(name, value)| {
        let mut header = Map::new();
        header.insert("name".to_owned(), name.as_str().into());
        put(&mut header, "value", value.as_ref());
        Value::Object(header)
    });
    fields.insert("headers".to_owned(), headers.collect());
    Value::Object(fields)
}

/// Text where it is text, base64 under another name where it is not.
fn put(fields: &mut Map<String, Value>, name: &str, bytes: Option<&Bytes>) {
    match bytes.map(|b| std::str::from_utf8(b).map_err(|_| b)) {
        None => fields.insert(name.to_owned(), Value::Null),
        Some(Ok(text)) => fields.insert(name.to_owned(), text.into()),
        Some(Err(raw)) => fields.insert(format!("{name}_base64"), STANDARD.encode(raw).into()),
    };
}

/// Holds back whoever is over a quota, before anything of the request takes room.
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
        tokio::time::sleep(services.broker.held_back(&who, direction)).await;
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
