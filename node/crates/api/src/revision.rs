//! History of a pipeline.

use crate::spec::Spec;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// A revision of a pipeline.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Revision {
    /// Number, from 1.
    pub revision: u64,
    /// Time of the change in milliseconds since 1970.
    pub applied_ms: i64,
    /// Principal that made the change.
    pub by: String,
    /// Cause, unless the revision was simply applied.
    pub why: Option<String>,
    /// Specification.
    pub spec: Spec,
    /// SHA-256 of the stages' modules: a name may mean another module by now.
    pub digests: Vec<String>,
    /// Partitions, of a canary.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(nullable = false))]
    pub tried: Option<BTreeSet<u32>>,
}
