//! Errors over HTTP.

use crate::record::Stored;
use serde::{Deserialize, Serialize};

/// An answer that is an error.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Error {
    /// The error.
    pub error: ErrorBody,
}

/// The kind of an error, its reason, and the work that was done in spite of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ErrorBody {
    /// The kind, which says how a client may go on.
    pub kind: ErrorKind,
    /// The reason, for people.
    pub message: String,
    /// Partitions whose records are safe although others of the request failed; send only the rest again.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stored: Vec<Stored>,
}

/// Kinds of errors, by the reaction that fits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[serde(rename_all = "kebab-case")]
pub enum ErrorKind {
    /// The request is wrong in itself: do not repeat it.
    Invalid,
    /// Nothing happened: repeat the request a little later, or at another node.
    Retry,
    /// Another producer has taken over.
    Fenced,
    /// Stored data is damaged.
    Corrupt,
    /// The node is stopping.
    Closed,
    /// The request may have been carried out or not.
    UnknownOutcome,
    /// A fault of the node.
    Internal,
}
