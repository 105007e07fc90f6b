//! Plans: the changes that applying a pipeline would make.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Changes that applying a pipeline would make.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Plan {
    /// Name of the pipeline.
    pub name: String,
    /// Revision now; null for a new pipeline.
    pub revision: Option<u64>,
    /// True for a pipeline that is paused, and would stay paused.
    pub paused: bool,
    /// Settings that would change, by their place in the specification; empty when nothing would.
    pub changes: Vec<Change>,
    /// Topic for dead letters, if it would be created.
    pub creates: Option<String>,
}

/// A setting that would change.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Change {
    /// Place in the specification, as `stages[1].config.limit`.
    pub at: String,
    /// Value now; null for a setting that is added.
    pub before: Option<Value>,
    /// Value then; null for a setting that is removed.
    pub after: Option<Value>,
}
