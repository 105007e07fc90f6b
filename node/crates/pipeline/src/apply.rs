//! Putting a pipeline in place: all that is looked at before it is.

use crate::error::{ApplyError, PushError};
use crate::history;
use crate::info::PipelineInfo;
use crate::partition::place;
use crate::pipelines::{Pipelines, apart};
use crate::plan::{Plan, differences};
use crate::shares::Sizes;
use crate::spec::Spec;
use crate::spec::row::{Row, StateOf, Written};
use crate::spec::source::{At, Origin, Sources};
use crate::stages::stage::{Stage, Stages};
use crate::worker::counts::State;
use weir_broker::{AdminError, Principal};
use weir_runtime::Digest;
use weir_types::level::LEVEL_OF_AGES;
use weir_types::limits::{PIPELINES_BYTES_MAX, PIPELINES_MAX};
use weir_types::{GroupId, TopicName};

/// A pipeline that can be put in place.
pub(crate) struct Checked {
    pub(crate) spec: Spec,
    pub(crate) digests: Vec<Digest>,
    pub(crate) stages: Vec<Stage>,
    states: Vec<Option<StateOf>>,
    /// Its topic for dead letters, if there is none yet.
    pub(crate) creates: Option<TopicName>,
}

impl Pipelines {
    /// Applies a pipeline in TOML: checks it with an instance of each module, creates its topic for dead letters if
    /// need be, and puts it in place between two batches; `by` is who wants it.
    ///
    /// # Errors
    /// When anything about it does not fit: then nothing has changed.
    pub async fn apply(&self, text: &str, by: &str) -> Result<PipelineInfo, ApplyError> {
        let cause = history::Cause {
            by: by.to_owned(),
            why: None,
            is_back: false,
        };
        self.apply_spec(Spec::parse(text)?, None, cause, None).await
    }

    /// As [`Pipelines::apply`], with these modules if they are given, and only on top of the revision `on` if one is.
    pub(crate) async fn apply_spec(
        &self,
        spec: Spec,
        digests: Option<Vec<Digest>>,
        cause: history::Cause,
        on: Option<u64>,
    ) -> Result<PipelineInfo, ApplyError> {
        self.warm(&spec).await;
        let _one = self.0.changing.lock().await;
        let now = self.row(spec.name.as_str()).ok();
        if on.is_some() && now.as_ref().map(|row| row.revision) != on {
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
        // The way back waits for nobody: what it leads to has worked.
        if !cause.is_back {
            self.prepare_elsewhere(&digests).await?;
        }
        if let Some(dead) = creates {
            let who = Principal::anonymous("pipelines");
            let settings = dead_letter_settings();
            self.0
                .broker
                .create_topic(&who, dead.as_str(), 1, &settings)
                .await?;
        }
        let before = now;
        let (revision, paused) = before
            .as_ref()
            .map_or((1, false), |row| (row.revision + 1, row.paused));
        let places = self.places(&spec).await?;
        let mut in_term = None;
        if let Some(before) = &before {
            in_term = self.upgrade(before, &spec, &stages, &mut states).await?;
            if paused && before.states.is_empty() {
                // What is paused writes nothing: whose state it will be is settled when it is resumed.
                states.clear();
            }
        }
        let row = Row {
            spec,
            revision,
            paused,
            digests,
            states,
            applied_ms: self.0.broker.now_ms(),
            is_last_resort: cause.is_back,
            canary: None,
        };
        let mut others = places;
        others.extend(history::remember(&row, cause, row.applied_ms));
        let _turnover = before.as_ref().map(|before| self.turn(before, &row));
        let written = self.write(before.as_ref(), in_term, &row, others).await;
        if let (Err(_), Some(_), Some(before)) = (&written, in_term, &before) {
            // What it was made of may not be all there is: it goes on as it was.
            self.put_in_place(before, before.clone(), Vec::new()).await?;
        }
        written?;
        let now = before.as_ref().map(|_| row.clone());
        let name = row.spec.name.to_string();
        let state = if paused { State::Paused } else { State::Running };
        self.install(row, Stages::of(stages), state)
            .map_err(PushError::from)?;
        if let Some((before, now)) = before.zip(now) {
            self.forget_generations(&before, &now).await;
        }
        self.pipeline(&name).ok_or(ApplyError::NotFound(name))
    }

    /// Rows for where a pipeline begins on the sources that it has not had until now. Where it has been it goes on.
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

    /// What [`Pipelines::apply`] would change, after all that it would check.
    ///
    /// # Errors
    /// Those that it would have.
    pub async fn plan(&self, text: &str) -> Result<Plan, ApplyError> {
        let _one = self.0.changing.lock().await;
        let checked = self.check(text).await?;
        self.check_states(&checked.spec, &checked.states)?;
        let infos = |digests: &[Digest]| -> Vec<_> {
            let store = self.store();
            digests.iter().map(|d| store.modules.get(d).cloned()).collect()
        };
        let after = infos(&checked.digests);
        let row = self
            .active()
            .get(checked.spec.name.as_str())
            .map(|a| a.row.clone());
        let before = row.as_ref().map(|row| infos(&row.digests));
        let before = row.as_ref().zip(before.as_deref());
        Ok(Plan {
            name: checked.spec.name.to_string(),
            revision: row.as_ref().map(|row| row.revision),
            paused: row.as_ref().is_some_and(|row| row.paused),
            changes: differences(before, (&checked.spec, &after)),
            creates: checked.creates.map(|topic| topic.to_string()),
        })
    }

    /// Looks at a pipeline in TOML, with an instance of each of its modules. Changes nothing.
    pub(crate) async fn check(&self, text: &str) -> Result<Checked, ApplyError> {
        self.check_spec(Spec::parse(text)?, None).await
    }

    /// As [`Pipelines::check`], with these modules if they are given.
    pub(crate) async fn check_spec(
        &self,
        spec: Spec,
        digests: Option<Vec<Digest>>,
    ) -> Result<Checked, ApplyError> {
        self.check_topics(&spec)?;
        let digests = match digests {
            Some(digests) => digests,
            None => {
                let store = self.store();
                let resolve = |s: &crate::spec::stage::Stage| store.resolve(&s.module).map(|m| m.digest);
                spec.stages.iter().map(resolve).collect::<Result<Vec<_>, _>>()?
            }
        };
        let (this, checked, with) = (self.clone(), spec.clone(), digests.clone());
        let stages = apart("weir-apply", move || this.stages(&checked, &with));
        let stages = stages
            .await
            .unwrap_or(Err(ApplyError::Admin(AdminError::Closed)))?;
        check_outputs(&spec, &stages)?;
        let before = self.row(spec.name.as_str());
        let before = before.map_or_else(|_| Vec::new(), |row| row.states);
        let states = self.states(&spec, &digests, &before);
        let dead = spec.dead_letters().map_err(crate::spec::error::SpecError::from)?;
        let found = self.0.broker.topic(dead.as_str());
        Ok(Checked {
            spec,
            digests,
            stages,
            states,
            creates: found.is_none().then_some(dead),
        })
    }

    fn check_topics(&self, spec: &Spec) -> Result<(), ApplyError> {
        for topic in spec.source.iter().chain(spec.outputs.values()) {
            let found = self.0.broker.topic(topic.as_str());
            let found = found.ok_or_else(|| ApplyError::NoTopic(topic.to_string()))?;
            let is_spread = found.partitions.iter().any(|p| p.group() != GroupId::SITE);
            if is_spread && spec.is_stateful() && spec.inline_source() == Some(topic) {
                return Err(ApplyError::Spread(topic.to_string()));
            }
        }
        let active = self.active();
        let place = active.get(spec.name.as_str()).map(|a| a.row.spec.at);
        if place.is_some_and(|at| at != spec.at) {
            return Err(ApplyError::OtherPlace(spec.name.to_string()));
        }
        let source = spec.inline_source();
        let other = active
            .values()
            .find(|a| a.row.spec.inline_source() == source && a.row.spec.name != spec.name);
        if let Some((topic, other)) = source.zip(other) {
            let (topic, other) = (topic.to_string(), other.lane.name.clone());
            return Err(ApplyError::Taken { topic, other });
        }
        let partitions = |topic: &TopicName| {
            let topic = self.0.broker.topic(topic.as_str());
            topic.map_or(0, |t| t.partitions.len())
        };
        if spec.remembers() {
            let mut counts = spec.source.iter().map(|topic| (topic, partitions(topic)));
            let first = counts.next();
            let other = counts.find(|(_, n)| first.is_some_and(|(_, first)| *n != first));
            if let Some(((one, n), (other, m))) = first.zip(other) {
                return Err(ApplyError::Apart {
                    one: format!("`{one}` has {n}"),
                    other: format!("`{other}` {m}"),
                });
            }
        }
        if spec
            .event_time
            .as_ref()
            .is_some_and(|events| !events.on_bad_time.is_preset())
        {
            self.0.broker.needs("`on_bad_time`", LEVEL_OF_AGES)?;
        }
        Sizes::of(&self.0.broker).check(&active, spec)?;
        let others = || active.values().filter(|a| a.row.spec.name != spec.name);
        // As stored it is some more than its text: twice of that is far from what an entry has room for.
        let texts = others()
            .map(|a| crate::spec::row::json(&a.row).len())
            .sum::<usize>();
        let wanted = texts + 2 * crate::spec::row::json(spec).len();
        if wanted > PIPELINES_BYTES_MAX {
            let (what, limit) = ("bytes of text", PIPELINES_BYTES_MAX);
            return Err(ApplyError::Together { what, wanted, limit });
        }
        let full = active.len() >= PIPELINES_MAX && !active.contains_key(spec.name.as_str());
        if full {
            Err(ApplyError::Full(PIPELINES_MAX))
        } else {
            Ok(())
        }
    }

    /// Whose state each stage will keep.
    pub(crate) fn states(
        &self,
        spec: &Spec,
        digests: &[Digest],
        before: &[Option<StateOf>],
    ) -> Vec<Option<StateOf>> {
        let store = self.store();
        let of = |(n, (stage, digest)): (usize, (&crate::spec::stage::Stage, &Digest))| {
            let info = store.modules.get(digest)?;
            let before = before.get(n).and_then(Option::as_ref);
            stage.remembers().then(|| StateOf {
                module: info.name.clone(),
                version: info.descriptor.state_version,
                generation: before.map_or(0, |before| before.generation),
            })
        };
        let stages = spec.stages.iter().zip(digests);
        stages.enumerate().map(of).collect()
    }

    /// A module must not be handed what another one wrote, or a later version of it. What an earlier one wrote it is asked to take
    /// over.
    fn check_states(&self, spec: &Spec, states: &[Option<StateOf>]) -> Result<(), ApplyError> {
        let active = self.active();
        let Some(before) = active.get(spec.name.as_str()) else {
            return Ok(());
        };
        for (n, kept) in before.row.states.iter().enumerate() {
            let (Some(kept), now) = (kept, states.get(n).and_then(Option::as_ref)) else {
                continue;
            };
            let is_later = |now: &&StateOf| now.module == kept.module && now.version >= kept.version;
            if now.filter(is_later).is_none() {
                return Err(ApplyError::OtherState {
                    pipeline: spec.name.to_string(),
                    stage: n + 1,
                    before: kept.to_string(),
                    now: now.map_or_else(|| "without state".to_owned(), StateOf::to_string),
                });
            }
        }
        Ok(())
    }
}

/// Dead letters keep the time of their source, which may be long past: size limits them, not age.
pub(crate) fn dead_letter_settings() -> [(String, String); 2] {
    let setting = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    [
        setting("retention.ms", "-1"),
        setting("retention.bytes", "104857600"),
    ]
}

/// Every output of every module must lead somewhere, and every topic must be led to.
fn check_outputs(spec: &Spec, stages: &[Stage]) -> Result<(), ApplyError> {
    let mut known = Vec::new();
    for (stage, with) in spec.stages.iter().zip(stages) {
        let outputs = with
            .instance
            .as_ref()
            .map(|i| i.plan().outputs.clone())
            .unwrap_or_default();
        for output in outputs.into_iter().filter(|o| o != "main") {
            if !spec.outputs.contains_key(&output) {
                return Err(ApplyError::OutputWithoutTopic {
                    module: stage.module.clone(),
                    output,
                });
            }
            known.push(output);
        }
    }
    match spec.outputs.keys().find(|o| *o != "main" && !known.contains(o)) {
        Some(unknown) => Err(ApplyError::UnknownOutput(unknown.clone())),
        None => Ok(()),
    }
}
