//! Admission of requests: none from web pages in a browser, and bounds on the size and pace of bodies and
//! answers.

use crate::connections::{Client, Watch};
use crate::error::HttpError;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures_util::{StreamExt, stream};
use hyper::body::Body as _;
use std::io;
use std::net::IpAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio::time::Instant;
use weir_broker::{Broker, SHARE_WITHIN, Taken, UsedUp};
use weir_types::limits::MODULE_BYTES_MAX;
use weir_types::sync::Mutex;

/// Time for a body to begin.
const BODY_WITHIN: Duration = Duration::from_secs(30);
/// Slowest pace of a body: that of a slow radio.
const BODY_BYTES_PER_S: u64 = 64 << 10;
/// Path of module uploads.
const UPLOADS: &str = "/v1/modules";
/// Paths that show the state of the node.
const STATUS: &str = "/v1/status";
const METRICS: &str = "/metrics";
/// Time for a client to take an answer: a minute, and a second more for each such number of bytes, as for
/// Kafka clients.
const SEND_WITHIN: Duration = Duration::from_secs(60);
const SEND_BYTES_PER_S: u64 = 16 << 10;
/// Largest answer that needs no share: the number of connections bounds such answers well enough.
const SMALL_ANSWER_BYTES: u64 = 16 << 10;

/// State of the admission checks.
#[derive(Clone)]
pub(crate) struct Guard {
    names: Names,
    broker: Broker,
}

impl Guard {
    pub(crate) fn new(names: Vec<String>, broker: Broker) -> Self {
        Self {
            names: Names(names.into()),
            broker,
        }
    }
}

/// Host names of this node, beside addresses and `localhost`.
#[derive(Clone)]
struct Names(Arc<[String]>);

impl Names {
    /// Tells whether `host` means this node. An address always does: the owner of a DNS name cannot rebind
    /// it.
    fn is_ours(&self, host: &str) -> bool {
        let name = match host.strip_prefix('[') {
            Some(v6) => v6.split(']').next().unwrap_or_default(),
            None => host.rsplit_once(':').map_or(host, |(name, _)| name),
        };
        name.parse::<IpAddr>().is_ok()
            || name.eq_ignore_ascii_case("localhost")
            || self.0.iter().any(|own| own.eq_ignore_ascii_case(name))
    }

    /// Returns the refusal of a request whose headers show a foreign host or a web page.
    fn refuses(&self, headers: &HeaderMap) -> Option<HttpError> {
        let mut hosts = headers.get_all(header::HOST).iter();
        let host = match (hosts.next(), hosts.next()) {
            (Some(host), None) => host.to_str().unwrap_or_default(),
            // RFC 9112, section 3.2.
            _ => return Some(HttpError::bad_request("a request has one `host` header")),
        };
        if !self.is_ours(host) {
            return Some(HttpError::forbidden(format!(
                "this node is not asked by the name `{}`: use its address, or add the name to the setting `http_names`",
                host.escape_default()
            )));
        }
        let site = headers.get("sec-fetch-site").map(|site| site.as_bytes());
        let is_foreign = site.is_some_and(|site| site != b"same-origin" && site != b"none");
        let origins = headers.get_all(header::ORIGIN).iter();
        let is_own = |origin: &axum::http::HeaderValue| {
            let origin = origin.to_str().ok().and_then(|origin| origin.parse::<Uri>().ok());
            origin.is_some_and(|origin| {
                origin
                    .authority()
                    .is_some_and(|a| a.as_str().eq_ignore_ascii_case(host))
            })
        };
        if is_foreign || !{ origins }.all(is_own) {
            return Some(HttpError::forbidden(
                "a page of another origin may not ask this node",
            ));
        }
        None
    }
}

/// Checks a request before any other layer.
pub(crate) async fn look(State(guard): State<Guard>, request: Request, next: Next) -> Response {
    if let Some(refused) = guard.names.refuses(request.headers()) {
        return refused.into_response();
    }
    let from = request
        .extensions()
        .get::<Client>()
        .map(|Client(address)| *address);
    let watch = request.extensions().get::<Watch>().cloned().unwrap_or_default();
    let hint = request.body().size_hint();
    if hint.lower() > MODULE_BYTES_MAX as u64 {
        let why = format!("a body has at most {MODULE_BYTES_MAX} bytes");
        return HttpError::too_large(why).into_response();
    }
    let path = request.uri().path();
    // These paths answer even when shares are used up: they show which.
    let is_status = [STATUS, METRICS].contains(&path);
    let received = Received {
        broker: guard.broker.clone(),
        is_upload: path.starts_with(UPLOADS),
        from,
        share: Arc::default(),
        refused: Arc::default(),
    };
    let (share, refused) = (Arc::clone(&received.share), Arc::clone(&received.refused));
    let response = match hint.exact() {
        Some(0) => next.run(request).await,
        _ => next.run(request.map(|body| timed(body, received))).await,
    };
    // The body is held until the answer is made.
    drop(share);
    if let Some(error) = refused.get() {
        // The handler saw a body that broke off: its answer does not count.
        return HttpError::busy(error.to_string()).into_response();
    }
    match response.body().size_hint().exact() {
        Some(bytes) if bytes <= SMALL_ANSWER_BYTES => response,
        Some(_) if is_status => watched(response, None, &watch),
        Some(bytes) => match guard.broker.ledger().answers.try_take(bytes as usize, from) {
            Ok(share) => watched(response, Some(share), &watch),
            Err(error) => HttpError::busy(error.to_string()).into_response(),
        },
        // Answers with records take their share where the records are read.
        None => watched(response, None, &watch),
    }
}

/// Returns a response that its client must take at the pace of a slow radio, or the connection ends. The
/// response returns its share of answer bytes once it is sent, or the client is gone.
fn watched(response: Response, share: Option<Taken>, watch: &Watch) -> Response {
    let (mut head, body) = response.into_parts();
    if let Some(bytes) = body.size_hint().exact() {
        head.headers.insert(header::CONTENT_LENGTH, bytes.into());
    }
    let watching = watch.begin(SEND_WITHIN);
    let parts = stream::unfold(
        (body.into_data_stream(), share, watching, 0u64),
        |(mut parts, share, watching, sent)| async move {
            let part = parts.next().await?;
            let sent = sent + part.as_ref().map_or(0, |part| part.len() as u64);
            watching.until(SEND_WITHIN + Duration::from_secs(sent / SEND_BYTES_PER_S));
            Some((part, (parts, share, watching, sent)))
        },
    );
    Response::from_parts(head, Body::from_stream(parts))
}

/// Received part of a body, and its share of memory. The share grows with received bytes, not with announced
/// bytes.
struct Received {
    broker: Broker,
    is_upload: bool,
    from: Option<IpAddr>,
    share: Arc<Mutex<Option<Taken>>>,
    /// Shortage that ended the body.
    refused: Arc<OnceLock<UsedUp>>,
}

impl Received {
    async fn more(&self, bytes: usize) -> Result<(), UsedUp> {
        let ledger = self.broker.ledger();
        let of = if self.is_upload {
            &ledger.uploads
        } else {
            &ledger.requests
        };
        let room = of.take(bytes, self.from, SHARE_WITHIN).await;
        let room = room.inspect_err(|error| _ = self.refused.set(*error))?;
        let mut share = self.share.lock();
        match &mut *share {
            Some(share) => share.merge(room),
            None => *share = Some(room),
        }
        Ok(())
    }
}

/// Returns a body that fails when its bytes come too slowly.
fn timed(body: Body, received: Received) -> Body {
    let begun = Instant::now();
    let chunks = stream::unfold(
        (body.into_data_stream(), received, 0u64, false),
        move |(mut chunks, received, came, is_over)| async move {
            if is_over {
                return None;
            }
            let until = begun + BODY_WITHIN + Duration::from_secs(came / BODY_BYTES_PER_S);
            let chunk = match tokio::time::timeout_at(until, chunks.next()).await {
                Err(_) => Err(io::Error::new(
                    io::ErrorKind::TimedOut,
                    "the body comes too slowly",
                )),
                Ok(None) => return None,
                Ok(Some(Ok(chunk))) => {
                    let room = received.more(chunk.len()).await;
                    room.map(|()| chunk).map_err(io::Error::other)
                }
                Ok(Some(Err(error))) => Err(io::Error::other(error)),
            };
            let (more, is_over) = chunk
                .as_ref()
                .map_or((0, true), |chunk| (chunk.len() as u64, false));
            Some((chunk, (chunks, received, came + more, is_over)))
        },
    );
    Body::from_stream(chunks)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(all: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in all {
            headers.append(*name, value.parse().unwrap());
        }
        headers
    }

    #[test]
    fn only_addresses_and_own_names_are_asked_and_no_other_page_asks() {
        let guard = Names(Arc::from(["gw.plant.example".to_owned()]));
        for own in [
            "127.0.0.1:7480",
            "10.0.0.9",
            "[::1]:7480",
            "localhost",
            "LOCALHOST:1",
            "gw.plant.example:7480",
        ] {
            assert!(guard.refuses(&headers(&[("host", own)])).is_none(), "{own}");
        }
        for other in [
            "evil.example",
            "evil.example:7480",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "",
        ] {
            assert!(guard.refuses(&headers(&[("host", other)])).is_some(), "{other}");
        }
        assert!(guard.refuses(&headers(&[])).is_some());
        assert!(
            guard
                .refuses(&headers(&[("host", "localhost"), ("host", "localhost")]))
                .is_some()
        );
        let from = |name, value| {
            guard
                .refuses(&headers(&[("host", "localhost:7480"), (name, value)]))
                .is_none()
        };
        assert!(from("origin", "http://localhost:7480"));
        assert!(from("sec-fetch-site", "same-origin") && from("sec-fetch-site", "none"));
        for origin in [
            "http://evil.example",
            "null",
            "http://localhost:7481",
            "http://localhost:7480.evil.example",
        ] {
            assert!(!from("origin", origin), "{origin}");
        }
        assert!(!from("sec-fetch-site", "cross-site") && !from("sec-fetch-site", "same-site"));
    }
}
