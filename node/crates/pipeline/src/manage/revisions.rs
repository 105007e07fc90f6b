//! Revisions: the history of a pipeline.
//!
//! Each revision is a row, written in the entry that applies it, with caller and reason. A rollback is a new
//! revision with the spec and modules of an earlier revision. A pipeline may roll back automatically
//! ([`crate::Guard`]).

use crate::error::ApplyError;
use crate::manage::registry::Pipelines;
use crate::manage::tasks::run_blocking;
use crate::partition::rows::of_kind;
use crate::spec::Spec;
use crate::spec::row::{Row, Written};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use weir_broker::{AdminError, FetchError, ReadError, StateKey, StateKind};
use weir_runtime::Digest;
use weir_types::limits::{REVISIONS_BYTES_MAX, REVISIONS_MAX};

/// A revision of a pipeline.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Revision {
    /// Number of the revision.
    pub revision: u64,
    /// When the row was written, in milliseconds since 1970.
    pub applied_ms: i64,
    /// Caller who applied the revision.
    pub by: String,
    /// Reason, unless the revision was simply applied.
    pub why: Option<String>,
    /// The pipeline of this revision.
    pub spec: Spec,
    /// Digests of the stages' modules. A name may refer to another module later.
    pub digests: Vec<Digest>,
    /// Partitions of a canary. `None` for all partitions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tried: Option<BTreeSet<u32>>,
}

/// Caller and reason of a change.
#[derive(Clone, Debug)]
pub(crate) struct ChangeReason {
    pub(crate) by: String,
    pub(crate) why: Option<String>,
    /// The change is a rollback.
    pub(crate) is_back: bool,
}

fn key(pipeline: &str, revision: u64) -> StateKey {
    let of = of_kind(StateKind::Revision, pipeline);
    StateKey::from_bytes([of.as_bytes(), &revision.to_be_bytes()].concat())
}

/// Returns rows that add `row` to the history and delete old revisions.
pub(crate) fn history_rows(row: &Row, reason: ChangeReason, now_ms: i64) -> Vec<Written> {
    let name = row.spec.name.as_str();
    let revision = Revision {
        revision: row.revision,
        applied_ms: now_ms,
        by: reason.by,
        why: reason.why,
        spec: row.spec.clone(),
        digests: row.digests.clone(),
        tried: row.canary.as_ref().map(|canary| canary.partitions.clone()),
    };
    let value = crate::spec::row::json(&revision);
    // Large revisions reduce the number that is kept.
    let fitting = (REVISIONS_BYTES_MAX / value.len().max(1)) as u64;
    let kept = fitting.clamp(1, REVISIONS_MAX);
    let last = row.revision.saturating_sub(kept);
    let first = row.revision.saturating_sub(REVISIONS_MAX).max(1);
    let forgotten = (first..=last).map(|n| (key(name, n), None));
    let remembered = (key(name, row.revision), Some(value.into()));
    [remembered].into_iter().chain(forgotten).collect()
}

impl Pipelines {
    /// Returns the stored revisions of a pipeline, newest first.
    ///
    /// # Errors
    /// When there is no such pipeline, or a revision cannot be read.
    ///
    /// # Cancel safety
    /// Reads only; the future can be dropped at any time.
    pub async fn history(&self, name: &str) -> Result<Vec<Revision>, ApplyError> {
        self.row(name)?;
        let (broker, prefix) = (self.0.broker.clone(), of_kind(StateKind::Revision, name));
        let of = format!("a revision of pipeline `{name}`");
        let read = run_blocking("weir-history", move || {
            let (mut revisions, mut unreadable) = (Vec::new(), None);
            broker.applied_rows(&prefix, |_, value| {
                match crate::spec::row::read::<Revision>("a revision", &value) {
                    Ok(revision) => revisions.push(revision),
                    Err(why) => unreadable = Some(why),
                }
            })?;
            match unreadable {
                Some(why) => Err(ReadError::Format { row: of, why }),
                None => Ok(revisions),
            }
        });
        let read = read.await.ok_or(AdminError::Closed)?;
        let mut revisions = read.map_err(FetchError::from)?;
        revisions.reverse();
        Ok(revisions)
    }
}
