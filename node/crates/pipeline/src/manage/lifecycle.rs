//! Pausing, resuming, resetting, rewinding and removing pipelines.

use crate::error::{ApplyError, CanaryError, PushError};
use crate::manage::info::PipelineInfo;
use crate::manage::registry::Pipelines;
use crate::manage::tasks::{run_blocking, to_completion};
use crate::partition::{place, rows};
use crate::spec::row::{Row, Written};
use crate::spec::source::Origin;
use crate::stages::stage::Stages;
use crate::worker::counts::State;
use weir_broker::{AdminError, StateKey, StateKind};

impl Pipelines {
    /// Pauses a pipeline, or resumes a paused or halted pipeline. In-line, the source of a paused pipeline
    /// refuses records.
    ///
    /// # Errors
    /// [`ApplyError::NotFound`] when there is no such pipeline, and errors of loading its modules.
    ///
    /// # Cancel safety
    /// Once polled, the change runs to its end even if the future is dropped.
    pub async fn set_paused(&self, name: &str, paused: bool) -> Result<PipelineInfo, ApplyError> {
        let (this, name) = (self.clone(), name.to_owned());
        to_completion(async move { this.set_paused_inner(&name, paused).await }).await
    }

    async fn set_paused_inner(&self, name: &str, paused: bool) -> Result<PipelineInfo, ApplyError> {
        let _one = self.0.changing.lock().await;
        let before = self.row(name)?;
        let row = before.clone();
        let states = if paused {
            row.states.clone()
        } else {
            self.state_owners(&row.spec, &row.digests, &row.states)
        };
        let row = Row {
            paused,
            states,
            ..row
        };
        self.replace_row(&before, row, Vec::new()).await?;
        self.pipeline(name)
            .ok_or_else(|| ApplyError::NotFound(name.to_owned()))
    }

    /// Deletes all state of a pipeline and leaves it paused. Afterwards another module may take over the
    /// stages.
    ///
    /// # Errors
    /// [`ApplyError::NotFound`] when there is no such pipeline, and [`CanaryError::AtWork`] during a canary.
    /// After any other error the pipeline may be paused, with part of its state deleted.
    ///
    /// # Cancel safety
    /// Once polled, the change runs to its end even if the future is dropped.
    pub async fn reset(&self, name: &str) -> Result<PipelineInfo, ApplyError> {
        let (this, name) = (self.clone(), name.to_owned());
        to_completion(async move { this.reset_inner(&name).await }).await
    }

    async fn reset_inner(&self, name: &str) -> Result<PipelineInfo, ApplyError> {
        let _one = self.0.changing.lock().await;
        let row = self.row(name)?;
        if row.canary.is_some() {
            return Err(CanaryError::AtWork(name.to_owned()).into());
        }
        self.delete_state(&row).await?;
        let now = self.row(name)?;
        let row = Row {
            states: Vec::new(),
            paused: true,
            ..row
        };
        self.replace_row(&now, row, Vec::new()).await?;
        self.pipeline(name)
            .ok_or_else(|| ApplyError::NotFound(name.to_owned()))
    }

    /// Pauses the pipeline, waits until its queued work is stored, and deletes its state.
    pub(crate) async fn delete_state(&self, row: &Row) -> Result<(), ApplyError> {
        let remembers = row.spec.has_time() || row.spec.is_stateful();
        if !remembers && row.states.iter().all(Option::is_none) {
            return Ok(());
        }
        let paused = Row {
            paused: true,
            canary: None,
            ..row.clone()
        };
        let _replacement = self.begin_replacement(row, &paused);
        self.write(Some(row), None, &paused, Vec::new()).await?;
        self.install(paused, Stages::none(), State::Paused)
            .map_err(PushError::from)?;
        let begun = self
            .active()
            .get(row.spec.name.as_str())
            .and_then(|a| a.handle.begun.lock().take());
        if let Some(begun) = begun {
            let _ = begun.await;
        }
        for rows in rows::of_pipeline(row.spec.name.as_str()) {
            self.0.broker.remove_rows(rows).await?;
        }
        Ok(())
    }

    /// Restarts a log pipeline at `origin` with empty state. A paused pipeline stays paused.
    ///
    /// # Errors
    /// When there is no such pipeline, it is in-line, a canary runs, or `origin` does not exist. After any
    /// other error the pipeline may be paused. Earlier outputs are kept in any case.
    ///
    /// # Cancel safety
    /// Once polled, the change runs to its end even if the future is dropped.
    pub async fn rewind(&self, name: &str, origin: Origin) -> Result<PipelineInfo, ApplyError> {
        let (this, name) = (self.clone(), name.to_owned());
        to_completion(async move { this.rewind_inner(&name, origin).await }).await
    }

    async fn rewind_inner(&self, name: &str, origin: Origin) -> Result<PipelineInfo, ApplyError> {
        let _one = self.0.changing.lock().await;
        let row = self.row(name)?;
        if !row.spec.is_behind_the_log() {
            return Err(ApplyError::NoPlaces(name.to_owned()));
        }
        if row.canary.is_some() {
            return Err(CanaryError::AtWork(name.to_owned()).into());
        }
        let begin = || place::begin(&self.0.broker, name, &row.spec.source, origin, true);
        // Checked before anything is changed.
        begin().await?;
        self.delete_state(&row).await?;
        let states = if row.paused {
            Vec::new()
        } else {
            self.state_owners(&row.spec, &row.digests, &[])
        };
        let places = begin().await?;
        let now = self.row(name)?;
        self.replace_row(&now, Row { states, ..row }, places).await?;
        self.pipeline(name)
            .ok_or_else(|| ApplyError::NotFound(name.to_owned()))
    }

    /// Replaces the row `before` by `row`, writes `others` in the same entry, and runs the new row.
    pub(crate) async fn replace_row(
        &self,
        before: &Row,
        row: Row,
        others: Vec<Written>,
    ) -> Result<(), ApplyError> {
        let _replacement = self.begin_replacement(before, &row);
        self.write(Some(before), None, &row, others).await?;
        // A module that was missing at start may be present by now.
        let (this, of) = (self.clone(), row.clone());
        let stages = run_blocking("weir-apply", move || this.load_row(&of));
        let stages = stages
            .await
            .unwrap_or(Err(ApplyError::Admin(AdminError::Closed)))?;
        let state = if row.paused { State::Paused } else { State::Running };
        Ok(self.install(row, stages, state).map_err(PushError::from)?)
    }

    /// Removes a pipeline with its state, positions and history. Queued batches are still processed.
    ///
    /// # Errors
    /// [`ApplyError::NotFound`] when there is no such pipeline. After any other error the pipeline may be
    /// paused, with part of its state deleted.
    ///
    /// # Cancel safety
    /// Once polled, the removal runs to its end even if the future is dropped.
    pub async fn remove(&self, name: &str) -> Result<(), ApplyError> {
        let (this, name) = (self.clone(), name.to_owned());
        to_completion(async move { this.remove_inner(&name).await }).await
    }

    async fn remove_inner(&self, name: &str) -> Result<(), ApplyError> {
        let _one = self.0.changing.lock().await;
        let row = self.row(name)?;
        self.delete_state(&row).await?;
        for kind in [StateKind::Input, StateKind::Revision] {
            self.0.broker.remove_rows(rows::of_kind(kind, name)).await?;
        }
        let now = self.row(name)?;
        let row = (StateKey::new(StateKind::Pipeline, name.as_bytes()), None);
        self.put_rows_if_current(Some(&now), None, name, vec![row])
            .await?;
        self.0.by_source.write().retain(|_, handle| handle.name != name);
        self.0.active.write().remove(name);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::Spec;
    use std::collections::BTreeMap;
    use std::future::Future;
    use std::path::Path;
    use std::sync::Arc;
    use std::task::{Context, Poll, Waker};
    use std::time::{Duration, Instant};
    use weir_broker::{Broker, GroupConfig, Member, Options, Timing};
    use weir_log::Log;
    use weir_replica::memory::Hub;
    use weir_runtime::{Runtime, RuntimeOptions};
    use weir_types::{GroupId, SystemClock};

    const DEADLINE: Duration = Duration::from_secs(30);

    async fn open(dir: &Path) -> Pipelines {
        let options = weir_log::Options {
            disk_reserve_bytes: Some(0),
            ..weir_log::Options::default()
        };
        let (log, recovered) = Log::open(&dir.join("log"), &options).unwrap();
        let config = GroupConfig {
            id: GroupId::SITE,
            node: 1,
            member: Member::default(),
            founders: BTreeMap::from([(1, Member::default())]),
            timing: Timing::EDGE,
        };
        let (alone, clock) = (Hub::default().transport(1), Arc::new(SystemClock));
        let broker = Broker::open(log, &recovered, config, alone, clock, Options::default());
        let broker = broker.await.unwrap();
        assert!(broker.serving_within(DEADLINE).await);
        let runtime = Runtime::new(RuntimeOptions::plain()).unwrap();
        Pipelines::open(broker, runtime, dir.join("modules")).unwrap()
    }

    /// Installs a log pipeline that runs no module.
    async fn install(pipelines: &Pipelines) {
        let text =
            "name = 'p'\nsource = 't'\nat = 'log'\noutputs = { main = 'o' }\nstages = [{ module = 'm' }]";
        let row = Row {
            spec: Spec::parse(text).unwrap(),
            revision: 1,
            paused: false,
            digests: Vec::new(),
            states: Vec::new(),
            applied_ms: 0,
            is_last_resort: false,
            canary: None,
        };
        pipelines.write(None, None, &row, Vec::new()).await.unwrap();
        pipelines.install(row, Stages::none(), State::Running).unwrap();
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn pause_is_stored_although_its_caller_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let pipelines = open(dir.path()).await;
        install(&pipelines).await;
        let other_change = pipelines.0.changing.lock().await;
        let mut call = Box::pin(pipelines.set_paused("p", true));
        let polled = call.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        assert!(matches!(polled, Poll::Pending));
        drop(call);
        drop(other_change);
        let begun = Instant::now();
        while !pipelines.row("p").unwrap().paused {
            assert!(begun.elapsed() < DEADLINE, "{:?}", pipelines.pipeline("p"));
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        pipelines.close();
        pipelines.0.broker.close();
    }
}
