//! Errors as status and JSON: the only place that maps kinds of the broker to HTTP.

use axum::Json;
use axum::body::to_bytes;
use axum::extract::Request;
use axum::http::{StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use weir_api::{Error, ErrorBody, ErrorKind as Kind, Stored};
use weir_broker::{AdminError, FetchError, ProduceError, ProposeError};
use weir_pipeline::{ApplyError, PushError};
use weir_types::{BatchError, ErrorKind};

/// An answer that is an error.
#[derive(Debug)]
pub(crate) struct HttpError {
    status: StatusCode,
    kind: Kind,
    message: String,
    /// Records that are stored although a part of the request failed.
    stored: Vec<Stored>,
}

impl std::fmt::Display for HttpError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl HttpError {
    /// Returns the refusal of a request that is wrong in itself.
    pub(crate) fn invalid(status: StatusCode, message: impl Into<String>) -> Self {
        Self {
            status,
            kind: Kind::Invalid,
            message: message.into(),
            stored: Vec::new(),
        }
    }

    pub(crate) fn bad_request(message: impl Into<String>) -> Self {
        Self::invalid(StatusCode::BAD_REQUEST, message)
    }

    pub(crate) fn forbidden(message: impl Into<String>) -> Self {
        Self::invalid(StatusCode::FORBIDDEN, message)
    }

    pub(crate) fn too_large(message: impl Into<String>) -> Self {
        Self::invalid(StatusCode::PAYLOAD_TOO_LARGE, message)
    }

    pub(crate) fn unsupported_type(message: impl Into<String>) -> Self {
        Self::invalid(StatusCode::UNSUPPORTED_MEDIA_TYPE, message)
    }

    pub(crate) fn not_found(message: impl Into<String>) -> Self {
        Self::invalid(StatusCode::NOT_FOUND, message)
    }

    pub(crate) fn busy(message: impl Into<String>) -> Self {
        Self {
            status: StatusCode::SERVICE_UNAVAILABLE,
            kind: Kind::Retry,
            message: message.into(),
            stored: Vec::new(),
        }
    }

    /// Adds the partitions whose records are safe although others failed.
    pub(crate) fn beside(self, stored: Vec<Stored>) -> Self {
        Self { stored, ..self }
    }

    fn of(kind: ErrorKind, missing: bool, error: &dyn std::error::Error) -> Self {
        let (status, name) = match kind {
            ErrorKind::Invalid if missing => (StatusCode::NOT_FOUND, Kind::Invalid),
            ErrorKind::Invalid => (StatusCode::BAD_REQUEST, Kind::Invalid),
            ErrorKind::Retry => (StatusCode::SERVICE_UNAVAILABLE, Kind::Retry),
            ErrorKind::Fenced => (StatusCode::CONFLICT, Kind::Fenced),
            ErrorKind::Corrupt => (StatusCode::INTERNAL_SERVER_ERROR, Kind::Corrupt),
            ErrorKind::Closed => (StatusCode::SERVICE_UNAVAILABLE, Kind::Closed),
            // HTTP has no nearer status than a gateway without an answer.
            ErrorKind::UnknownOutcome => (StatusCode::GATEWAY_TIMEOUT, Kind::UnknownOutcome),
            ErrorKind::Internal => (StatusCode::INTERNAL_SERVER_ERROR, Kind::Internal),
        };
        Self {
            status,
            kind: name,
            message: error.to_string(),
            stored: Vec::new(),
        }
    }
}

impl IntoResponse for HttpError {
    fn into_response(self) -> Response {
        let error = ErrorBody {
            kind: self.kind,
            message: self.message,
            stored: self.stored,
        };
        (self.status, Json(Error { error })).into_response()
    }
}

/// Longest reason of a library for a refusal, in bytes.
const REASON_BYTES_MAX: usize = 8 << 10;

/// Turns refusals of the framework (a malformed body or query, an unknown path) into the JSON of all other
/// errors. Headers stay: `allow` lists the methods of a path.
pub(crate) async fn in_one_form(request: Request, next: Next) -> Response {
    let path = request.uri().path().to_owned();
    let answer = next.run(request).await;
    let status = answer.status();
    let is_json = answer
        .headers()
        .get(header::CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().starts_with(b"application/json"));
    if !status.is_client_error() || is_json {
        return answer;
    }
    let (mut head, body) = answer.into_parts();
    let reason = to_bytes(body, REASON_BYTES_MAX).await.unwrap_or_default();
    let reason = String::from_utf8_lossy(&reason);
    let message = match (reason.trim(), status) {
        ("", StatusCode::NOT_FOUND) => {
            format!("there is no `{path}`: /v1/openapi.json says what there is")
        }
        ("", StatusCode::METHOD_NOT_ALLOWED) => {
            format!("`{path}` is not asked with this method: the header `allow` says with which")
        }
        ("", _) => status.to_string(),
        (reason, _) => reason.to_owned(),
    };
    let (form, body) = HttpError::invalid(status, message).into_response().into_parts();
    head.headers.remove(header::CONTENT_LENGTH);
    head.headers.extend(form.headers);
    Response::from_parts(head, body)
}

impl From<ProduceError> for HttpError {
    fn from(e: ProduceError) -> Self {
        if matches!(
            e,
            ProduceError::TooLarge { .. }
                | ProduceError::MadeTooLarge { .. }
                | ProduceError::Batch(BatchError::TooLarge { .. })
                | ProduceError::Propose(ProposeError::TooLarge { .. })
        ) {
            return Self::invalid(StatusCode::PAYLOAD_TOO_LARGE, e.to_string());
        }
        let missing = matches!(e, ProduceError::NoTopic(_) | ProduceError::NoPartition { .. });
        Self::of(e.kind(), missing, &e)
    }
}

impl From<FetchError> for HttpError {
    fn from(e: FetchError) -> Self {
        if matches!(e, FetchError::OutOfRange { .. }) {
            return Self::invalid(StatusCode::RANGE_NOT_SATISFIABLE, e.to_string());
        }
        let missing = matches!(e, FetchError::NoTopic(_) | FetchError::NoPartition { .. });
        Self::of(e.kind(), missing, &e)
    }
}

impl From<AdminError> for HttpError {
    fn from(e: AdminError) -> Self {
        if matches!(e, AdminError::Exists(_)) {
            return Self::invalid(StatusCode::CONFLICT, e.to_string());
        }
        let missing = matches!(e, AdminError::NoTopic(_) | AdminError::NoPartition { .. });
        Self::of(e.kind(), missing, &e)
    }
}

impl From<PushError> for HttpError {
    fn from(e: PushError) -> Self {
        Self::of(e.kind(), matches!(e, PushError::NotFound(_)), &e)
    }
}

impl From<ApplyError> for HttpError {
    fn from(e: ApplyError) -> Self {
        Self::of(e.kind(), matches!(e, ApplyError::NotFound(_)), &e)
    }
}
