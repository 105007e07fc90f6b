//! Canaries: a new version on some partitions, in production.
//!
//! The candidate runs on its partitions, and the old version on all others, each on threads of its own. Both
//! use the same state, so a version that needs a migration is rejected. A canary ends by promotion, by
//! rollback, or by any other change of the pipeline. Promotion and rollback are revisions.

use crate::error::{ApplyError, CanaryError, PushError};
use crate::manage::info::PipelineInfo;
use crate::manage::registry::Pipelines;
use crate::manage::revisions::{self, ChangeReason};
use crate::manage::tasks::{run_blocking, to_completion};
use crate::spec::Spec;
use crate::spec::row::{Canary, Row, StateOf};
use crate::stages::stage::Stages;
use crate::worker::counts::State;
use std::collections::BTreeSet;

impl Pipelines {
    /// Starts a canary: a new version in TOML of an existing pipeline, on `partitions` only. The candidate's
    /// guard rolls the canary back if its bounds are violated. `by` names the caller in the history.
    ///
    /// # Errors
    /// Any [`ApplyError`]. Nothing has changed then, except that the topic for dead letters may exist.
    ///
    /// # Cancel safety
    /// Once polled, the change runs to its end even if the future is dropped.
    pub async fn canary(&self, text: &str, partitions: &[u32], by: &str) -> Result<PipelineInfo, ApplyError> {
        let (this, spec) = (self.clone(), Spec::parse(text)?);
        let (partitions, by) = (partitions.to_owned(), by.to_owned());
        to_completion(async move { this.canary_inner(spec, &partitions, &by).await }).await
    }

    async fn canary_inner(
        &self,
        spec: Spec,
        partitions: &[u32],
        by: &str,
    ) -> Result<PipelineInfo, ApplyError> {
        self.warm(&spec).await;
        let _one = self.0.changing.lock().await;
        let name = spec.name.to_string();
        let now = self.row(&name)?;
        if now.canary.is_some() {
            return Err(CanaryError::AtWork(name).into());
        }
        if self
            .pipeline(&name)
            .is_none_or(|info| info.state != State::Running)
        {
            return Err(CanaryError::NotRunning(name).into());
        }
        let checked = self.check_spec(spec, None).await?;
        let partitions = self.check_share(&now, &checked.spec, partitions)?;
        let states = self.state_owners(&checked.spec, &checked.digests, &now.states);
        let stages = now.states.len().max(states.len());
        let of = |states: &[Option<StateOf>], n: usize| states.get(n).cloned().flatten();
        if (0..stages).any(|n| of(&states, n) != of(&now.states, n)) {
            return Err(CanaryError::Migrates.into());
        }
        self.prepare_elsewhere(&checked.digests).await?;
        self.create_dead_letter_topic(checked.creates.clone()).await?;
        let began_ms = self.0.broker.now_ms();
        let told: Vec<_> = partitions.iter().map(u32::to_string).collect();
        let reason = ChangeReason {
            by: by.to_owned(),
            why: Some(format!("tried on partitions {}", told.join(", "))),
            is_back: false,
        };
        let row = Row {
            revision: now.revision + 1,
            canary: Some(Canary {
                spec: checked.spec.clone(),
                digests: checked.digests.clone(),
                partitions,
                began_ms,
            }),
            ..now.clone()
        };
        let (this, main) = (self.clone(), row.clone());
        let main = run_blocking("weir-apply", move || this.load_stages(&main.spec, &main.digests));
        let main = main
            .await
            .ok_or(PushError::Admin(weir_broker::AdminError::Closed))??;
        let tried = Row {
            spec: checked.spec,
            digests: checked.digests,
            ..row.clone()
        };
        let _replacement = self.begin_replacement(&now, &row);
        let remembered = revisions::history_rows(&tried, reason, began_ms);
        self.write(Some(&now), None, &row, remembered).await?;
        let stages = Stages {
            main,
            canary: Ok(checked.stages),
        };
        self.install(row, stages, State::Running)
            .map_err(PushError::from)?;
        self.pipeline(&name).ok_or(ApplyError::NotFound(name))
    }

    /// Applies the canary to all partitions. `by` names the caller in the history.
    ///
    /// # Errors
    /// When there is no canary, or it cannot be applied any more.
    ///
    /// # Cancel safety
    /// Once polled, the change runs to its end even if the future is dropped.
    pub async fn promote(&self, name: &str, by: &str) -> Result<PipelineInfo, ApplyError> {
        let now = self.row(name)?;
        let canary = now.canary.ok_or_else(|| CanaryError::None(name.to_owned()))?;
        let reason = ChangeReason {
            by: by.to_owned(),
            why: Some(format!(
                "promoted, after it was tried as revision {}",
                now.revision
            )),
            is_back: false,
        };
        let (this, revision) = (self.clone(), Some(now.revision));
        to_completion(async move {
            this.apply_spec(canary.spec, Some(canary.digests), reason, revision)
                .await
        })
        .await
    }

    /// Returns the partitions of a new canary, after checks.
    fn check_share(&self, now: &Row, spec: &Spec, partitions: &[u32]) -> Result<BTreeSet<u32>, CanaryError> {
        if spec.source != now.spec.source {
            return Err(CanaryError::Differs("source"));
        }
        if spec.at != now.spec.at {
            return Err(CanaryError::Differs("at"));
        }
        let count = |topic| {
            self.0
                .broker
                .topic(topic)
                .map_or(0, |t| t.partitions.len() as u32)
        };
        let counts = spec.source.iter().map(|topic| count(topic.as_str()));
        let count = counts.max().unwrap_or(0);
        if let Some(partition) = partitions.iter().copied().find(|p| *p >= count) {
            let last = count.saturating_sub(1);
            return Err(CanaryError::NoPartition { partition, last });
        }
        let share: BTreeSet<u32> = partitions.iter().copied().collect();
        if share.is_empty() || share.len() as u32 >= count {
            Err(CanaryError::Partitions)
        } else {
            Ok(share)
        }
    }
}
