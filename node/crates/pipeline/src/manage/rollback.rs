//! Rollback to an earlier revision.

use crate::error::ApplyError;
use crate::manage::info::PipelineInfo;
use crate::manage::registry::Pipelines;
use crate::manage::revisions::{ChangeReason, Revision};
use crate::manage::tasks::to_completion;
use crate::spec::row::Row;
use std::time::Duration;
use weir_types::ErrorKind;

/// Longest violation that is accepted from another node, in bytes.
const VIOLATION_BYTES_MAX: usize = 1 << 10;

/// Limit on answering another node, whose connection would time out.
const BACK_TELL: Duration = Duration::from_secs(2);

impl Pipelines {
    /// Rolls a pipeline back to revision `to`, or to the revision before, with the same modules. Without
    /// `to`, a running canary is ended instead. `by` names the caller in the history.
    ///
    /// # Errors
    /// [`ApplyError::NoRevision`] when there is no such revision, and other errors when it cannot be applied
    /// any more.
    ///
    /// # Cancel safety
    /// Once polled, the change runs to its end even if the future is dropped.
    pub async fn roll_back(&self, name: &str, to: Option<u64>, by: &str) -> Result<PipelineInfo, ApplyError> {
        let (this, now, by) = (self.clone(), self.row(name)?, by.to_owned());
        to_completion(async move { this.roll_back_to(now, to, &by, None).await }).await
    }

    /// Rolls back from the row `now`, with a reason for the history.
    pub(crate) async fn roll_back_to(
        &self,
        now: Row,
        to: Option<u64>,
        by: &str,
        because: Option<&str>,
    ) -> Result<PipelineInfo, ApplyError> {
        let name = now.spec.name.as_str();
        if let (Some(_), None) = (&now.canary, to) {
            let why = match because {
                None => format!("revision {}, which was tried, is taken back", now.revision),
                Some(violation) => format!(
                    "revision {}, which was tried, is taken back: {violation}",
                    now.revision
                ),
            };
            let reason = ChangeReason {
                by: by.to_owned(),
                why: Some(why),
                is_back: true,
            };
            return self
                .apply_spec(now.spec, Some(now.digests), reason, Some(now.revision))
                .await;
        }
        let revisions = self.history(name).await?;
        let is_wanted = |revision: &&Revision| match to {
            Some(to) => revision.revision == to,
            // Revisions equal to the current revision are skipped.
            None => {
                let is_same = (&revision.spec, &revision.digests) == (&now.spec, &now.digests);
                // Canaries that were not promoted are skipped.
                revision.revision < now.revision && !is_same && revision.tried.is_none()
            }
        };
        let found = revisions.iter().find(is_wanted).cloned();
        let found = found.ok_or_else(|| ApplyError::NoRevision {
            name: name.to_owned(),
            revision: to,
        })?;
        let why = match because {
            None => format!("rolled back to revision {}", found.revision),
            Some(violation) => format!("rolled back to revision {}: {violation}", found.revision),
        };
        let reason = ChangeReason {
            by: by.to_owned(),
            why: Some(why),
            is_back: true,
        };
        self.apply_spec(found.spec, Some(found.digests), reason, Some(now.revision))
            .await
    }

    /// Rolls back a revision whose guard another node has found violated. Returns true if that is done or
    /// obsolete, false if it is still under way.
    pub(crate) async fn roll_back_reported(
        &self,
        name: String,
        revision: u64,
        why: String,
    ) -> Result<bool, String> {
        let Some(row) = self.row(&name).ok().filter(|row| row.revision == revision) else {
            return Ok(true);
        };
        let end = why.floor_char_boundary(VIOLATION_BYTES_MAX);
        let violation = why.get(..end).unwrap_or_default().to_owned();
        let this = self.clone();
        // Runs to its end although the answer is limited in time.
        let back = tokio::spawn(async move { this.roll_back_to(row, None, "guard", Some(&violation)).await });
        match tokio::time::timeout(BACK_TELL, back).await {
            Ok(Ok(Ok(_))) | Ok(Ok(Err(ApplyError::Changed(_)))) => Ok(true),
            Ok(Ok(Err(error))) if error.kind() == ErrorKind::Retry => Ok(false),
            Ok(Ok(Err(error))) => Err(error.to_string()),
            Ok(Err(_)) | Err(_) => Ok(false),
        }
    }
}
