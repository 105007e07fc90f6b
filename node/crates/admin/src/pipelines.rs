//! Pipelines: their counters, plans, revisions and state.

use crate::services::Services;
use crate::spec::{at, sources, spec};
use weir_api as api;
use weir_broker::Principal;
use weir_pipeline::{
    ApplyError, Difference, Origin, Page, PipelineInfo, Plan, Remembered, Revision, State, What,
};

impl Services {
    /// Returns all pipelines.
    pub fn pipelines(&self) -> Vec<api::Pipeline> {
        self.pipelines.pipelines().into_iter().map(pipeline).collect()
    }

    /// Returns the pipeline `name`.
    pub fn pipeline(&self, name: &str) -> Option<api::Pipeline> {
        self.pipelines.pipeline(name).map(pipeline)
    }

    /// Returns the changes that applying a pipeline in TOML would make.
    ///
    /// # Errors
    /// As [`Services::apply_pipeline`].
    ///
    /// # Cancel safety
    /// Safe: nothing is changed.
    pub async fn plan_pipeline(&self, toml: &str) -> Result<api::Plan, ApplyError> {
        self.pipelines.plan(toml).await.map(plan)
    }

    /// Applies a pipeline in TOML.
    ///
    /// # Errors
    /// When the text is not a pipeline, or the pipeline cannot be deployed.
    ///
    /// # Cancel safety
    /// Not safe: the pipeline may be applied or not.
    pub async fn apply_pipeline(&self, who: &Principal, toml: &str) -> Result<api::Pipeline, ApplyError> {
        self.pipelines.apply(toml, &who.shown()).await.map(pipeline)
    }

    /// Pauses or resumes a pipeline.
    ///
    /// # Errors
    /// When there is no such pipeline, or the change is not committed.
    ///
    /// # Cancel safety
    /// Not safe: the change may be made or not.
    pub async fn set_paused(&self, name: &str, paused: bool) -> Result<api::Pipeline, ApplyError> {
        self.pipelines.set_paused(name, paused).await.map(pipeline)
    }

    /// Pauses a pipeline and clears its state.
    ///
    /// # Errors
    /// As [`Services::set_paused`].
    ///
    /// # Cancel safety
    /// Not safe: the state may be cleared or not.
    pub async fn reset_pipeline(&self, name: &str) -> Result<api::Pipeline, ApplyError> {
        self.pipelines.reset(name).await.map(pipeline)
    }

    /// Clears the state of a pipeline behind the log, and begins anew at `origin`.
    ///
    /// # Errors
    /// As [`Services::set_paused`]; also for an in-line pipeline.
    ///
    /// # Cancel safety
    /// Not safe: the pipeline may begin anew or not.
    pub async fn rewind_pipeline(&self, name: &str, origin: Origin) -> Result<api::Pipeline, ApplyError> {
        self.pipelines.rewind(name, origin).await.map(pipeline)
    }

    /// Returns the revisions of a pipeline that are kept, the newest first.
    ///
    /// # Errors
    /// When there is no such pipeline, or its revisions cannot be read.
    ///
    /// # Cancel safety
    /// Safe: nothing is changed.
    pub async fn pipeline_history(&self, name: &str) -> Result<Vec<api::Revision>, ApplyError> {
        let revisions = self.pipelines.history(name).await?;
        Ok(revisions.into_iter().map(revision).collect())
    }

    /// Rolls a pipeline back to revision `to`, or to the last different revision.
    ///
    /// # Errors
    /// When there is no such pipeline or revision.
    ///
    /// # Cancel safety
    /// Not safe: the pipeline may be rolled back or not.
    pub async fn roll_back_pipeline(
        &self,
        who: &Principal,
        name: &str,
        to: Option<u64>,
    ) -> Result<api::Pipeline, ApplyError> {
        self.pipelines
            .roll_back(name, to, &who.shown())
            .await
            .map(pipeline)
    }

    /// Runs a pipeline in TOML on `partitions`, as a canary beside the live one.
    ///
    /// # Errors
    /// As [`Services::apply_pipeline`]; also when there is no live pipeline of its name.
    ///
    /// # Cancel safety
    /// Not safe: the canary may run or not.
    pub async fn start_canary(
        &self,
        who: &Principal,
        toml: &str,
        partitions: &[u32],
    ) -> Result<api::Pipeline, ApplyError> {
        self.pipelines
            .canary(toml, partitions, &who.shown())
            .await
            .map(pipeline)
    }

    /// Applies the canary of a pipeline to all partitions.
    ///
    /// # Errors
    /// When the pipeline does not exist or has no canary.
    ///
    /// # Cancel safety
    /// Not safe: the canary may be promoted or not.
    pub async fn promote_canary(&self, who: &Principal, name: &str) -> Result<api::Pipeline, ApplyError> {
        self.pipelines.promote(name, &who.shown()).await.map(pipeline)
    }

    /// Returns a page of the committed state of a pipeline's modules, from the cursor `first` on.
    ///
    /// # Errors
    /// When there is no such pipeline, or its state cannot be read.
    ///
    /// # Cancel safety
    /// Safe: nothing is changed.
    pub async fn pipeline_state(
        &self,
        name: &str,
        first: Option<&str>,
    ) -> Result<api::StatePage, ApplyError> {
        self.pipelines.remembered(name, first).await.map(state_page)
    }
}

fn pipeline(info: PipelineInfo) -> api::Pipeline {
    let PipelineInfo {
        name,
        source,
        at: position,
        revision,
        state,
        spec: specification,
        digests,
        records_in,
        kept,
        dropped,
        emitted,
        routed,
        dead_letters,
        skipped,
        bad_times,
        late,
        redated,
        failures,
        wasm_ns,
        state_rows,
        timers,
        state_bytes,
        timers_fired,
        lag,
        missed,
        places,
        metrics,
        canary,
        partitions,
    } = info;
    let places = places.into_iter().map(|place| api::PipelinePlace {
        topic: place.topic,
        partition: place.partition,
        next: place.next.get(),
        end: place.end.get(),
    });
    let metrics = metrics.into_iter();
    api::Pipeline {
        name,
        source: sources(&source),
        at: at(position),
        revision,
        state: pipeline_state(state),
        spec: spec(specification),
        digests: digests.iter().map(ToString::to_string).collect(),
        records_in,
        kept,
        dropped,
        emitted,
        routed,
        dead_letters,
        skipped,
        bad_times,
        late,
        redated,
        failures,
        wasm_ns,
        state_rows,
        timers,
        state_bytes,
        timers_fired,
        lag,
        missed,
        places: places.collect(),
        metrics: metrics
            .map(|(name, reading)| (name, reading.is_finite().then_some(reading)))
            .collect(),
        canary: canary.map(|canary| Box::new(pipeline(*canary))),
        partitions,
    }
}

pub(crate) fn pipeline_state(state: State) -> api::PipelineState {
    match state {
        State::Running => api::PipelineState::Running,
        State::Paused => api::PipelineState::Paused,
        State::Halted(why) => api::PipelineState::Halted(why),
    }
}

fn plan(plan: Plan) -> api::Plan {
    let Plan {
        name,
        revision,
        paused,
        changes,
        creates,
    } = plan;
    let change = |Difference { at, before, after }| api::Change { at, before, after };
    api::Plan {
        name,
        revision,
        paused,
        changes: changes.into_iter().map(change).collect(),
        creates,
    }
}

fn revision(revision: Revision) -> api::Revision {
    let Revision {
        revision,
        applied_ms,
        by,
        why,
        spec: specification,
        digests,
        tried,
    } = revision;
    api::Revision {
        revision,
        applied_ms,
        by,
        why,
        spec: spec(specification),
        digests: digests.iter().map(ToString::to_string).collect(),
        tried,
    }
}

fn state_page(page: Page) -> api::StatePage {
    let Page { rows, next } = page;
    api::StatePage {
        rows: rows.into_iter().map(state_row).collect(),
        next,
    }
}

fn state_row(row: Remembered) -> api::StateRow {
    let Remembered {
        stage,
        partition,
        key,
        what,
    } = row;
    let entry = match what {
        What::Value(value) => api::StateEntry::Value(value),
        What::Timer { clock, tag, at } => api::StateEntry::Timer { clock, tag, at },
    };
    api::StateRow {
        stage,
        partition,
        key,
        entry,
    }
}
