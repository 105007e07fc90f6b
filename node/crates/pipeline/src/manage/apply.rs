//! Applying a pipeline: from a checked spec to a running revision.

use crate::error::{ApplyError, PushError};
use crate::manage::check::Checked;
use crate::manage::info::PipelineInfo;
use crate::manage::registry::Pipelines;
use crate::manage::revisions::{self, ChangeReason};
use crate::manage::tasks::to_completion;
use crate::partition::place;
use crate::spec::Spec;
use crate::spec::row::{Row, Written};
use crate::spec::source::{At, Origin, Sources};
use crate::stages::stage::Stages;
use crate::worker::counts::State;
use weir_broker::Principal;
use weir_runtime::Digest;
use weir_types::TopicName;

impl Pipelines {
    /// Applies a pipeline in TOML as a new revision. Checks it with an instance of each module, creates a
    /// missing topic for dead letters, and replaces the running revision between two batches. `by` names the
    /// caller in the history.
    ///
    /// # Errors
    /// Any [`ApplyError`]. Nothing has changed then, except that the topic for dead letters may exist.
    ///
    /// # Cancel safety
    /// Once polled, the change runs to its end even if the future is dropped.
    pub async fn apply(&self, text: &str, by: &str) -> Result<PipelineInfo, ApplyError> {
        let reason = ChangeReason {
            by: by.to_owned(),
            why: None,
            is_back: false,
        };
        let (this, spec) = (self.clone(), Spec::parse(text)?);
        to_completion(async move { this.apply_spec(spec, None, reason, None).await }).await
    }

    /// Applies `spec`: with the modules of `digests` if given, and only if the current revision is `on`, if
    /// given.
    pub(crate) async fn apply_spec(
        &self,
        spec: Spec,
        digests: Option<Vec<Digest>>,
        reason: ChangeReason,
        on: Option<u64>,
    ) -> Result<PipelineInfo, ApplyError> {
        // 1. Compile before the lock is taken.
        self.warm(&spec).await;
        let _one = self.0.changing.lock().await;
        // 2. Check. Nothing is changed before all checks have passed.
        let before = self.row(spec.name.as_str()).ok();
        if on.is_some() && before.as_ref().map(|row| row.revision) != on {
            return Err(ApplyError::Changed(spec.name.to_string()));
        }
        let Checked {
            spec,
            digests,
            stages,
            mut states,
            creates,
        } = self.check_spec(spec, digests).await?;
        self.check_states(&spec, &states)?;
        // 3. Prepare other nodes and topics. A rollback does not wait for other nodes: its modules have worked
        // before.
        if !reason.is_back {
            self.prepare_elsewhere(&digests).await?;
        }
        self.create_dead_letter_topic(creates).await?;
        let (revision, paused) = before
            .as_ref()
            .map_or((1, false), |row| (row.revision + 1, row.paused));
        let places = self.places(&spec).await?;
        // 4. Migrate state. From here on, a migrated pipeline is quiesced until it is replaced.
        let mut in_term = None;
        if let Some(before) = &before {
            in_term = self.migrate(before, &spec, &stages, &mut states).await?;
            if paused && before.states.is_empty() {
                // A paused pipeline writes nothing. The owner of its state is determined on resume.
                states.clear();
            }
        }
        // 5. Write the row, positions and history in a single entry.
        let row = Row {
            spec,
            revision,
            paused,
            digests,
            states,
            applied_ms: self.0.broker.now_ms(),
            is_last_resort: reason.is_back,
            canary: None,
        };
        let mut others = places;
        others.extend(revisions::history_rows(&row, reason, row.applied_ms));
        let _replacement = before.as_ref().map(|before| self.begin_replacement(before, &row));
        let written = self.write(before.as_ref(), in_term, &row, others).await;
        if let (Err(_), Some(_), Some(before)) = (&written, in_term, &before) {
            // The leader has changed, so the migrated state may be incomplete: the old revision goes on.
            self.replace_row(before, before.clone(), Vec::new()).await?;
        }
        written?;
        // 6. Run the new revision, and delete outdated state.
        let now = before.as_ref().map(|_| row.clone());
        let name = row.spec.name.to_string();
        let state = if paused { State::Paused } else { State::Running };
        self.install(row, Stages::of(stages), state)
            .map_err(PushError::from)?;
        if let Some((before, now)) = before.zip(now) {
            self.delete_outdated_generations(&before, &now).await;
        }
        self.pipeline(&name).ok_or(ApplyError::NotFound(name))
    }

    /// Creates the topic for dead letters, if it is missing.
    pub(crate) async fn create_dead_letter_topic(
        &self,
        missing: Option<TopicName>,
    ) -> Result<(), ApplyError> {
        let Some(name) = missing else { return Ok(()) };
        let (who, settings) = (Principal::anonymous("pipelines"), dead_letter_settings());
        let created = self.0.broker.create_topic(&who, name.as_str(), 1, &settings);
        Ok(created.await.map(drop)?)
    }

    /// Returns rows that place the pipeline on its new sources. Known sources keep their positions.
    async fn places(&self, spec: &Spec) -> Result<Vec<Written>, ApplyError> {
        let had = |topic: &TopicName| {
            let active = self.active();
            let before = active.get(spec.name.as_str());
            before.is_some_and(|a| a.row.spec.source.contains(topic.as_str()))
        };
        let fresh = spec.source.iter().filter(|topic| !had(topic)).cloned();
        let fresh: Sources = fresh.collect();
        match spec.at {
            At::Ingest => Ok(Vec::new()),
            At::Log => {
                let origin = spec.from.unwrap_or(Origin::Start);
                Ok(place::begin(&self.0.broker, spec.name.as_str(), &fresh, origin, false).await?)
            }
        }
    }
}

/// Dead letters keep the time of their source, which may be long past. The topic is limited by size, not by
/// age.
fn dead_letter_settings() -> [(String, String); 2] {
    let setting = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    [
        setting("retention.ms", "-1"),
        setting("retention.bytes", "104857600"),
    ]
}
