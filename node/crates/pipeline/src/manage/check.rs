//! Checks of a pipeline before a change.

use crate::error::ApplyError;
use crate::manage::capacity::Sizes;
use crate::manage::registry::Pipelines;
use crate::manage::tasks::run_blocking;
use crate::spec::Spec;
use crate::spec::row::StateOf;
use crate::stages::stage::Stage;
use weir_broker::AdminError;
use weir_runtime::Digest;
use weir_types::level::LEVEL_OF_AGES;
use weir_types::limits::{PIPELINES_BYTES_MAX, PIPELINES_MAX};
use weir_types::{GroupId, TopicName};

/// A pipeline that has passed all checks.
pub(crate) struct Checked {
    pub(crate) spec: Spec,
    pub(crate) digests: Vec<Digest>,
    pub(crate) stages: Vec<Stage>,
    pub(crate) states: Vec<Option<StateOf>>,
    /// Topic for dead letters that has to be created.
    pub(crate) creates: Option<TopicName>,
}

impl Pipelines {
    /// Checks a pipeline in TOML, with an instance of each module. Changes nothing.
    pub(crate) async fn check(&self, text: &str) -> Result<Checked, ApplyError> {
        self.check_spec(Spec::parse(text)?, None).await
    }

    /// Checks `spec`, with the modules of `digests` if given.
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
        let stages = run_blocking("weir-apply", move || this.load_stages(&checked, &with));
        let stages = stages
            .await
            .unwrap_or(Err(ApplyError::Admin(AdminError::Closed)))?;
        check_outputs(&spec, &stages)?;
        let before = self.row(spec.name.as_str());
        let before = before.map_or_else(|_| Vec::new(), |row| row.states);
        let states = self.state_owners(&spec, &digests, &before);
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
            let (topic, other) = (topic.to_string(), other.handle.name.clone());
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
        // The stored form is slightly longer than the text. Twice that is far below the limit of an entry.
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

    /// Checks that no stage gets the state of another module, or of a later version. State of an earlier
    /// version is migrated.
    pub(crate) fn check_states(&self, spec: &Spec, states: &[Option<StateOf>]) -> Result<(), ApplyError> {
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

/// Checks that every output of a module has a topic, and that every topic has an output.
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
