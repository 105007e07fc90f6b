//! Errors as status and JSON: the only place where HTTP meets the broker's kinds.

use axum::Json;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::json;
use weir_broker::{AdminError, FetchError, ProduceError, ProposeError};
use weir_pipeline::{ApplyError, PushError};
use weir_types::{BatchError, ErrorKind};

/// An answer that is an error.
#[derive(Debug)]
pub(crate) struct HttpError {
    status: StatusCode,
    kind: &'static str,
    message: String,
    /// What was done all the same: for a request of which a part failed.
    stored: Vec<serde_json::Value>,
}

impl HttpError {
    pub(crate) fn bad_request(message: impl Into<String>) -> Self {
        Self {
            status: StatusCode::BAD_REQUEST,
            kind: "invalid",
            message: message.into(),
            stored: Vec::new(),
        }
    }

    pub(crate) fn forbidden(message: impl Into<String>) -> Self {
        Self {
            status: StatusCode::FORBIDDEN,
            kind: "invalid",
            message: message.into(),
            stored: Vec::new(),
        }
    }

    pub(crate) fn too_large(message: impl Into<String>) -> Self {
        Self {
            status: StatusCode::PAYLOAD_TOO_LARGE,
            kind: "invalid",
            message: message.into(),
            stored: Vec::new(),
        }
    }

    pub(crate) fn busy(message: impl Into<String>) -> Self {
        Self {
            status: StatusCode::SERVICE_UNAVAILABLE,
            kind: "retry",
            message: message.into(),
            stored: Vec::new(),
        }
    }

    pub(crate) fn unsupported_type(message: impl Into<String>) -> Self {
        Self {
            status: StatusCode::UNSUPPORTED_MEDIA_TYPE,
            kind: "invalid",
            message: message.into(),
            stored: Vec::new(),
        }
    }

    pub(crate) fn not_found(message: impl Into<String>) -> Self {
        Self {
            status: StatusCode::NOT_FOUND,
            kind: "invalid",
            message: message.into(),
            stored: Vec::new(),
        }
    }

    /// The same, with the partitions whose records are safe although others failed.
    pub(crate) fn beside(self, stored: Vec<serde_json::Value>) -> Self {
        Self { stored, ..self }
    }

    fn of(kind: ErrorKind, missing: bool, error: &dyn std::error::Error) -> Self {
        let (status, name) = match kind {
            ErrorKind::Invalid if missing => (StatusCode::NOT_FOUND, "invalid"),
            ErrorKind::Invalid => (StatusCode::BAD_REQUEST, "invalid"),
            ErrorKind::Retry => (StatusCode::SERVICE_UNAVAILABLE, "retry"),
            ErrorKind::Fenced => (StatusCode::CONFLICT, "fenced"),
            ErrorKind::Corrupt => (StatusCode::INTERNAL_SERVER_ERROR, "corrupt"),
            ErrorKind::Closed => (StatusCode::SERVICE_UNAVAILABLE, "closed"),
            // A gateway that did not hear back is the nearest that HTTP has.
            ErrorKind::UnknownOutcome => (StatusCode::GATEWAY_TIMEOUT, "unknown-outcome"),
            ErrorKind::Internal => (StatusCode::INTERNAL_SERVER_ERROR, "internal"),
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
        let mut error = json!({ "kind": self.kind, "message": self.message });
        if !self.stored.is_empty() {
            error["stored"] = self.stored.into();
        }
        (self.status, Json(json!({ "error": error }))).into_response()
    }
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
            return Self {
                status: StatusCode::PAYLOAD_TOO_LARGE,
                kind: "invalid",
                message: e.to_string(),
                stored: Vec::new(),
            };
        }
        let missing = matches!(e, ProduceError::NoTopic(_) | ProduceError::NoPartition { .. });
        Self::of(e.kind(), missing, &e)
    }
}

impl From<FetchError> for HttpError {
    fn from(e: FetchError) -> Self {
        if matches!(e, FetchError::OutOfRange { .. }) {
            return Self {
                status: StatusCode::RANGE_NOT_SATISFIABLE,
                kind: "invalid",
                message: e.to_string(),
                stored: Vec::new(),
            };
        }
        let missing = matches!(e, FetchError::NoTopic(_) | FetchError::NoPartition { .. });
        Self::of(e.kind(), missing, &e)
    }
}

impl From<AdminError> for HttpError {
    fn from(e: AdminError) -> Self {
        if matches!(e, AdminError::Exists(_)) {
            return Self {
                status: StatusCode::CONFLICT,
                kind: "invalid",
                message: e.to_string(),
                stored: Vec::new(),
            };
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
