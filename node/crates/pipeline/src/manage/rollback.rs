//! The way back to what a pipeline was.

use crate::error::ApplyError;
use crate::manage::info::PipelineInfo;
use crate::manage::registry::Pipelines;
use crate::manage::revisions::{ChangeReason, Revision};
use crate::manage::tasks::to_completion;
use crate::spec::row::Row;
use std::time::Duration;
use weir_types::ErrorKind;

/// What another node says of how a pipeline left its bounds is kept up to so many bytes.
const VIOLATION_BYTES_MAX: usize = 1 << 10;

/// Within this time a node is told whether what it asked for is done: an answer that takes longer breaks the connection.
const BACK_TELL: Duration = Duration::from_secs(2);

impl Pipelines {
    /// Makes a pipeline what it was as revision `to`, or as the one before the present, with the same modules; `by` is who wants it.
    ///
    /// # Errors
    /// When there is no such revision, or it cannot be applied any more.
    pub async fn roll_back(&self, name: &str, to: Option<u64>, by: &str) -> Result<PipelineInfo, ApplyError> {
        let (this, now, by) = (self.clone(), self.row(name)?, by.to_owned());
        to_completion(async move { this.roll_back_to(now, to, &by, None).await }).await
    }

    /// As [`Pipelines::roll_back`], of what is `now`.
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
                Some(left) => format!(
                    "revision {}, which was tried, is taken back: {left}",
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
        let is_it = |revision: &&Revision| match to {
            Some(to) => revision.revision == to,
            // What it is already is not worth going to.
            None => {
                let is_same = (&revision.spec, &revision.digests) == (&now.spec, &now.digests);
                // Nor what was tried on some partitions, and not kept.
                revision.revision < now.revision && !is_same && revision.tried.is_none()
            }
        };
        let found = revisions.iter().find(is_it).cloned();
        let found = found.ok_or_else(|| ApplyError::NoRevision {
            name: name.to_owned(),
            revision: to,
        })?;
        let why = match because {
            None => format!("rolled back to revision {}", found.revision),
            Some(left) => format!("rolled back to revision {}: {left}", found.revision),
        };
        let reason = ChangeReason {
            by: by.to_owned(),
            why: Some(why),
            is_back: true,
        };
        self.apply_spec(found.spec, Some(found.digests), reason, Some(now.revision))
            .await
    }

    /// As another node asks for it, on which revision `revision` has left its bounds: whether that is done, or need not be.
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
        let left = why.get(..end).unwrap_or_default().to_owned();
        let this = self.clone();
        // It is done even if nobody waits for it.
        let back = tokio::spawn(async move { this.roll_back_to(row, None, "guard", Some(&left)).await });
        match tokio::time::timeout(BACK_TELL, back).await {
            Ok(Ok(Ok(_))) | Ok(Ok(Err(ApplyError::Changed(_)))) => Ok(true),
            Ok(Ok(Err(error))) if error.kind() == ErrorKind::Retry => Ok(false),
            Ok(Ok(Err(error))) => Err(error.to_string()),
            Ok(Err(_)) | Err(_) => Ok(false),
        }
    }
}
